//! The Kinesis source against a Kinesis emulator, over real connections.
//!
//! Runs against ferrokinesis in this process; `SHARDMILL_TEST_KINESIS_ENDPOINT` names another one.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::StreamStatus;
use shardmill::engine::ShardId;
use shardmill::{AnswerEncoding, KinesisSource, Position, ShardReader, SourceErrorKind, StreamSource};

async fn endpoint() -> String {
    if let Ok(endpoint) = std::env::var("SHARDMILL_TEST_KINESIS_ENDPOINT") {
        return endpoint;
    }
    let options = ferrokinesis::store::StoreOptions { create_stream_ms: 0, ..Default::default() };
    let (app, _store) = ferrokinesis::create_app(options);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// A stream of two shards, and a source that reads it.
async fn stream(name: &str) -> (Client, KinesisSource) {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint().await);
    let client = Client::from_conf(config.build());
    client.create_stream().stream_name(name).shard_count(2).send().await.unwrap();
    loop {
        let summary = client.describe_stream_summary().stream_name(name).send().await.unwrap();
        let summary = summary.stream_description_summary().unwrap().clone();
        if *summary.stream_status() == StreamStatus::Active {
            let source = source(&client, summary.stream_arn());
            return (client, source);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn source(client: &Client, arn: &str) -> KinesisSource {
    KinesisSource::from_client(client.clone(), arn).unwrap()
}

async fn put(client: &Client, stream: &str, data: &[u8], hash_key: &str) -> (ShardId, String) {
    let put = client.put_record().stream_name(stream).partition_key("k").explicit_hash_key(hash_key);
    let put = put.data(Blob::new(data)).send().await.unwrap();
    (ShardId::from(put.shard_id()), put.sequence_number().to_owned())
}

/// Reads until `count` records have come.
async fn read(reader: &mut dyn ShardReader, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut read = Vec::new();
    while read.len() < count {
        let page = reader.next_page(3).await.unwrap();
        assert!(!page.end_of_shard);
        let pair = |r: shardmill::Record| (r.seq.number.to_string(), r.bytes().unwrap().to_vec());
        read.extend(page.records.into_iter().map(pair));
    }
    read
}

#[tokio::test]
async fn what_was_put_is_what_is_read_from_every_kind_of_position() {
    let (client, source) = stream("source-positions").await;
    let listing = source.shards().await.unwrap();
    assert_eq!(listing.shards.len(), 2);
    assert!(
        listing
            .shards
            .iter()
            .all(|shard| shard.open && shard.parents.is_empty() && shard.hash_range.is_some())
    );
    assert!(listing.epoch.parse::<u64>().unwrap() > 1_600_000_000, "{}", listing.epoch);
    let service_time = listing.service_time.expect("the emulator sends a Date header");

    let mut put_records = Vec::new();
    let mut shard = None;
    for i in 0..10_u8 {
        let (at, number) = put(&client, "source-positions", &[i; 100], "0").await;
        put_records.push((number, vec![i; 100]));
        shard = Some(at);
    }
    let shard = shard.unwrap();
    let after = |i: usize| Position::After(shardmill::Seq::plain(put_records[i].0.clone()));
    let at = |i: usize| Position::At(shardmill::Seq::plain(put_records[i].0.clone()));
    for (position, first) in
        [(Position::TrimHorizon, 0), (Position::at_time(service_time), 0), (after(3), 4), (at(3), 3)]
    {
        let mut reader = source.open(&shard, &position).await.unwrap();
        assert_eq!(read(&mut *reader, 10 - first).await, put_records[first..], "{position}");
    }
    let mut latest = source.open(&shard, &Position::Latest).await.unwrap();
    assert!(latest.next_page(10).await.unwrap().records.is_empty());
    let (_, number) = put(&client, "source-positions", b"new", "0").await;
    assert_eq!(read(&mut *latest, 1).await, [(number, b"new".to_vec())]);
}

#[tokio::test]
async fn records_are_the_same_in_json_and_in_cbor() {
    let (client, source) = stream("source-encodings").await;
    let mut shard = None;
    for data in [&b"text"[..], b"", &[0xff; 1000], b"last"] {
        shard = Some(put(&client, "source-encodings", data, "0").await.0);
    }
    let mut read = Vec::new();
    for encoding in [AnswerEncoding::Json, AnswerEncoding::Cbor, AnswerEncoding::Auto] {
        let mut reader = source.open(shard.as_ref().unwrap(), &Position::TrimHorizon).await.unwrap();
        reader.ask_for(encoding);
        let mut records = Vec::new();
        while records.len() < 4 {
            records.extend(reader.next_page(10).await.unwrap().records);
        }
        let of = |record: &shardmill::Record| {
            let key = record.partition_key().map(str::to_owned);
            (record.seq.clone(), key, record.arrival.unwrap(), record.bytes().unwrap())
        };
        read.push(records.iter().map(of).collect::<Vec<_>>());
    }
    assert_eq!(read[0].last().unwrap().3, "last");
    assert_eq!((&read[1], &read[2]), (&read[0], &read[0]));
}

#[tokio::test]
async fn a_split_shard_ends_and_its_children_name_it() {
    let (client, source) = stream("source-split").await;
    let (parent, number) = put(&client, "source-split", b"last", "0").await;
    let split = client.split_shard().stream_name("source-split").shard_to_split(parent.as_str());
    split.new_starting_hash_key("1000").send().await.unwrap();
    let children = loop {
        let listing = source.shards().await.unwrap();
        let children = listing.shards.iter().filter(|shard| shard.parents.contains(&parent)).count();
        if children == 2 {
            assert!(listing.shards.iter().any(|shard| shard.id == parent && !shard.open));
            break children;
        }
    };
    assert_eq!(children, 2);
    let mut reader = source.open(&parent, &Position::TrimHorizon).await.unwrap();
    let mut numbers = Vec::new();
    loop {
        let page = reader.next_page(10).await.unwrap();
        numbers.extend(page.records.iter().map(|record| record.seq.number.to_string()));
        if page.end_of_shard {
            break;
        }
    }
    assert_eq!(numbers, [number]);
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_not_found() {
    let (client, _) = stream("source-missing").await;
    let missing = source(&client, "arn:aws:kinesis:us-east-1:000000000000:stream/nobody");
    let error = missing.shards().await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::NotFound, "{error}");
    let mut reader =
        missing.open(&ShardId::from("shardId-000000000000"), &Position::TrimHorizon).await.unwrap();
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, SourceErrorKind::NotFound);
}
