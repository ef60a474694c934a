//! What is read in place against what the SDK decodes.

use std::sync::LazyLock;

use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsOutput};
use bytes::Bytes;
use shardmill_engine::{Record, kinesis_answer};

use super::super::reader::{Next, convert};
use super::*;
use crate::source::aws::oracle::{Chance, Judge, Sdk, by_chance, cut_and_changed};
use crate::source::aws::{Address, Call};

static STREAM: LazyLock<KinesisSource> =
    LazyLock::new(|| KinesisSource::from_client(Service::new([]).client(), ARN).unwrap());

/// Runs a test with the SDK's decoder at hand.
async fn judged(test: impl Fn(Sdk<'_>) + Send + Sync + 'static) {
    let service = Service::new([]).otherwise(json!({}));
    let judge = Judge { operation: GetRecords::new(), test };
    let call = service.client().get_records().shard_iterator("i").customize().interceptor(judge);
    call.send().await.unwrap();
}

/// Whether an answer is read in place, which must give what the SDK's decoder gives.
fn compare(body: &Bytes, sdk: Sdk<'_>) -> bool {
    let Some(ours) = kinesis_answer(body) else { return false };
    let shown = String::from_utf8_lossy(body);
    let output = sdk(body).unwrap_or_else(|| panic!("the SDK does not take {shown}"));
    let address = Address::default();
    let call = Call { api: "GetRecords", stream: STREAM.stream(), shard: None, address: &address, at: None };
    let theirs = convert(output.downcast::<GetRecordsOutput>().unwrap(), call);
    let theirs = theirs.unwrap_or_else(|error| panic!("{error}: {shown}"));
    let Next::Iterator(next) = theirs.next else { panic!("no next iterator: {shown}") };
    assert_eq!((ours.next_iterator, ours.bytes), (next, theirs.bytes), "{shown}");
    assert_eq!(ours.page.millis_behind, theirs.page.millis_behind, "{shown}");
    let read = |records: &[Record]| -> Vec<_> {
        let of = |record: &Record| {
            let key = record.partition_key().map(str::to_owned);
            (record.seq.number.to_string(), key, record.arrival, record.bytes().unwrap())
        };
        records.iter().map(of).collect()
    };
    assert_eq!(read(&ours.page.records), read(&theirs.page.records), "{shown}");
    assert!(theirs.page.children.is_empty() && !theirs.page.end_of_shard, "{shown}");
    true
}

fn record_by_chance(chance: &mut Chance) -> String {
    let mut members = Vec::new();
    if !chance.odd() {
        let number = if chance.odd() { chance.string() } else { format!("\"{}\"", chance.rng.u64(..)) };
        members.push(("SequenceNumber", number));
    }
    if !chance.odd() {
        members.push(("Data", chance.base64()));
    }
    if chance.rng.u8(0..10) > 0 {
        members.push(("PartitionKey", chance.string()));
        members.push(("ApproximateArrivalTimestamp", chance.seconds()));
    }
    if chance.rng.bool() {
        members.push(("EncryptionType", chance.pick(&["\"NONE\"", "\"KMS\"", "\"new\""]).to_owned()));
    }
    if chance.rng.u8(0..8) == 0 {
        members.push((chance.pick(&["New", "data", "", "Données"]), chance.value(3)));
    }
    chance.object(members)
}

fn answer_by_chance(chance: &mut Chance) -> Bytes {
    let records = (0..chance.rng.usize(0..4)).map(|_| record_by_chance(chance)).collect();
    let mut members = vec![("Records", chance.array(records))];
    if !chance.odd() {
        members.push(("NextShardIterator", chance.string()));
    }
    if !chance.odd() {
        members.push(("MillisBehindLatest", chance.integer()));
    }
    if chance.rng.u8(0..8) == 0 {
        let children = ["[]", "null", "{}", r#"[{"ShardId":"s","ParentShards":["p"]}]"#];
        members.push(("ChildShards", chance.pick(&children).to_owned()));
    }
    if chance.rng.u8(0..8) == 0 {
        members.push((chance.pick(&["New", "__type", "records"]), chance.value(3)));
    }
    let text = chance.object(members);
    chance.changed(text)
}

#[tokio::test]
async fn answers_by_chance_are_read_in_place_as_the_sdk_decodes_them() {
    judged(|sdk| {
        by_chance(100_000, answer_by_chance, |body| compare(body, sdk));
    })
    .await;
}

#[tokio::test]
async fn an_answer_cut_or_changed_at_any_byte_is_read_as_the_sdk_decodes_it_or_not_at_all() {
    judged(|sdk| {
        let text = br#"{"MillisBehindLatest":5,"NextShardIterator":"AAA=","New":{"a":[1,-2.5e3,true,"x"]},"Records":[
            {"ApproximateArrivalTimestamp":1.790000000123E9,"Data":"eHg=","PartitionKey":"a\"b","SequenceNumber":"49"},
            {"SequenceNumber":"50","Data":"","EncryptionType":"KMS"}],"ChildShards":null} "#;
        cut_and_changed(text, |body| compare(body, sdk));
    })
    .await;
}

#[tokio::test]
async fn a_record_of_the_largest_size_and_an_empty_answer_are_read_in_place() {
    judged(|sdk| {
        let data = aws_smithy_types::base64::encode(vec![7; 10 << 20]);
        let large = json!({"Records": [{"SequenceNumber": "1", "Data": data}], "NextShardIterator": "n"});
        let empty = json!({"Records": [], "NextShardIterator": "n", "MillisBehindLatest": 0});
        for answer in [large, empty] {
            assert!(compare(&answer.to_string().into(), sdk));
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_the_service_is_read_in_place_and_one_that_ends_a_shard_is_not() {
    let end = json!({"Records": [record("3")], "ChildShards": [], "MillisBehindLatest": 0});
    let end = Answer::Ok(end);
    let listing = Answer::Ok(json!({"Shards": []}));
    let service = Service::new([iterator("i1"), page(&["1", "2"], Some("i2")), end, listing]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    let first = reader.next_page(10).await.unwrap();
    let data = first.records.iter().map(|record| format!("{:?}", record.data().unwrap())).collect::<Vec<_>>();
    assert_eq!((data, first.answer.is_some()), (vec!["Base64(4 bytes)".to_owned(); 2], true));
    let last = reader.next_page(10).await.unwrap();
    assert_eq!((numbers(&last), last.answer), (vec!["3"], None));
}
