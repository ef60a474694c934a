//! The fake behind the real SDK client: what the service promises.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code")]

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardFilter, ShardFilterType, ShardIteratorType};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::Operation;
use std::time::Duration;

fn fake(shards: u32) -> (FakeKinesis, Client) {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", shards).unwrap();
    let client = Client::new(&fake.sdk_config());
    (fake, client)
}

async fn iterator(client: &Client, shard: &str, kind: ShardIteratorType, number: Option<&str>) -> String {
    let call = client.get_shard_iterator().stream_name("orders").shard_id(shard).shard_iterator_type(kind);
    let answer = call.set_starting_sequence_number(number.map(Into::into)).send().await.unwrap();
    answer.shard_iterator.unwrap()
}

async fn page(client: &Client, iterator: &str) -> GetRecordsOutput {
    client.get_records().shard_iterator(iterator).send().await.unwrap()
}

fn numbers(page: &GetRecordsOutput) -> Vec<&str> {
    page.records().iter().map(|r| r.sequence_number()).collect()
}

const SHARD: &str = "shardId-000000000000";

#[tokio::test]
async fn what_put_records_answered_is_what_get_records_gives_in_order() {
    let (fake, client) = fake(4);
    let entries = (0..500).map(|i| {
        let data = Blob::new(vec![u8::try_from(i % 256).unwrap(); i]);
        PutRecordsRequestEntry::builder().partition_key(format!("key-{i}")).data(data).build().unwrap()
    });
    let put =
        client.put_records().stream_name("orders").set_records(Some(entries.collect())).send().await.unwrap();
    assert_eq!(put.failed_record_count(), Some(0));
    let mut seen = 0;
    for shard in fake.shards("orders").unwrap() {
        let expected: Vec<(usize, &str)> = (0..)
            .zip(put.records())
            .filter(|(_, r)| r.shard_id() == Some(&shard.id))
            .map(|(i, r)| (i, r.sequence_number().unwrap()))
            .collect();
        let page =
            page(&client, &iterator(&client, &shard.id, ShardIteratorType::TrimHorizon, None).await).await;
        assert_eq!(numbers(&page), expected.iter().map(|e| e.1).collect::<Vec<_>>());
        for (record, (i, _)) in page.records().iter().zip(&expected) {
            assert_eq!(record.partition_key(), Some(format!("key-{i}").as_str()));
            assert_eq!(record.data().as_ref(), vec![u8::try_from(i % 256).unwrap(); *i]);
        }
        assert_eq!(page.millis_behind_latest(), Some(0));
        assert!(!page.records().is_empty(), "MD5 spreads 500 keys over 4 shards");
        seen += page.records().len();
    }
    assert_eq!(seen, 500);
    assert_eq!(fake.records("orders").unwrap().len(), 500);
    assert_eq!(fake.calls().of(Operation::PutRecords).len(), 1);
    assert_eq!(fake.calls().of(Operation::GetRecords).shard(SHARD).len(), 1);
}

#[tokio::test]
async fn a_partition_key_goes_where_md5_sends_it() {
    // md5("a") = 0cc1..., md5("1") = c4ca...
    let (fake, _) = fake(2);
    assert_eq!(fake.put("orders", Some("a"), "x").unwrap().shard_id, "shardId-000000000000");
    assert_eq!(fake.put("orders", Some("1"), "x").unwrap().shard_id, "shardId-000000000001");
}

#[tokio::test(start_paused = true)]
async fn the_five_iterator_types_start_where_they_say() {
    let (fake, client) = fake(1);
    let mut put = Vec::new();
    let started = fake.now_ms();
    for i in 0..5 {
        put.push(fake.put("orders", Some("k"), format!("{i}")).unwrap().sequence_number);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let read = async |kind, number: Option<&str>| {
        let page = page(&client, &iterator(&client, SHARD, kind, number).await).await;
        numbers(&page).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(read(ShardIteratorType::TrimHorizon, None).await, put);
    assert_eq!(read(ShardIteratorType::AtSequenceNumber, Some(&put[2])).await, put[2..]);
    assert_eq!(read(ShardIteratorType::AfterSequenceNumber, Some(&put[2])).await, put[3..]);
    assert!(read(ShardIteratorType::Latest, None).await.is_empty());
    let at = async |ms: u64| {
        let call = client.get_shard_iterator().stream_name("orders").shard_id(SHARD);
        let call = call.shard_iterator_type(ShardIteratorType::AtTimestamp);
        call.timestamp(DateTime::from_millis(i64::try_from(ms).unwrap())).send().await
    };
    let iterator = at(started + 1_001).await.unwrap().shard_iterator.unwrap();
    assert_eq!(numbers(&page(&client, &iterator).await), put[2..].iter().collect::<Vec<_>>());
    let error = at(fake.now_ms() + 1).await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("InvalidArgumentException"));
}

#[tokio::test]
async fn latest_gives_what_comes_after_it_and_limit_pages_through() {
    let (fake, client) = fake(1);
    fake.put("orders", Some("k"), "before").unwrap();
    let mut iterator = iterator(&client, SHARD, ShardIteratorType::Latest, None).await;
    let put: Vec<_> = (0..5).map(|i| fake.put("orders", None, vec![i]).unwrap().sequence_number).collect();
    let mut got = Vec::new();
    for expected in [2, 2, 1, 0] {
        let page = client.get_records().shard_iterator(&iterator).limit(2).send().await.unwrap();
        assert_eq!(page.records().len(), expected);
        got.extend(page.records().iter().map(|r| r.sequence_number().to_owned()));
        iterator = page.next_shard_iterator.unwrap();
    }
    assert_eq!(got, put);
}

#[tokio::test]
async fn a_record_without_a_partition_key_has_none_on_the_wire() {
    let (fake, client) = fake(1);
    fake.put("orders", None, "x").unwrap();
    let token = iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await;
    assert_eq!(page(&client, &token).await.records()[0].partition_key(), None);
}

#[tokio::test]
async fn a_page_holds_at_most_10_mib_and_at_least_one_record() {
    let (fake, client) = fake(1);
    for _ in 0..3 {
        fake.put("orders", Some("k"), vec![7; 6 << 20]).unwrap();
    }
    let first = page(&client, &iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await).await;
    assert_eq!(first.records().len(), 1);
    assert_eq!(first.records()[0].data().as_ref().len(), 6 << 20);
    assert_eq!(page(&client, first.next_shard_iterator().unwrap()).await.records().len(), 1);
}

#[tokio::test]
async fn a_split_shard_ends_with_its_children_and_a_merged_one_with_its_only_child() {
    let (fake, client) = fake(1);
    fake.put("orders", Some("k"), "x").unwrap();
    let (low, high) = fake.split("orders", SHARD).unwrap();
    let end = page(&client, &iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await).await;
    assert_eq!(end.records().len(), 1);
    assert_eq!(end.next_shard_iterator(), None);
    let children: Vec<_> = end.child_shards().iter().map(|c| (c.shard_id(), c.parent_shards())).collect();
    let parents = [SHARD.to_owned()];
    assert_eq!(children, [(low.as_str(), &parents[..]), (high.as_str(), &parents[..])]);

    client
        .merge_shards()
        .stream_name("orders")
        .shard_to_merge(&low)
        .adjacent_shard_to_merge(&high)
        .send()
        .await
        .unwrap();
    fake.set_separate_end_page(true);
    let end = page(&client, &iterator(&client, &high, ShardIteratorType::Latest, None).await).await;
    assert_eq!(end.next_shard_iterator(), None);
    assert_eq!(end.child_shards()[0].shard_id(), "shardId-000000000003");
    assert_eq!(end.child_shards()[0].parent_shards(), [low.clone(), high]);
    let listed = client.list_shards().stream_name("orders").send().await.unwrap();
    let merged = &listed.shards()[3];
    assert_eq!(
        (merged.parent_shard_id(), merged.adjacent_parent_shard_id()),
        (Some(low.as_str()), Some("shardId-000000000002"))
    );
    assert_eq!(merged.hash_key_range().unwrap().ending_hash_key(), u128::MAX.to_string());
    assert!(listed.shards()[0].sequence_number_range().unwrap().ending_sequence_number().is_some());
    let error =
        client.merge_shards().stream_name("orders").shard_to_merge(&low).adjacent_shard_to_merge(SHARD);
    assert_eq!(error.send().await.unwrap_err().into_service_error().code(), Some("ResourceInUseException"));
}

#[tokio::test]
async fn the_end_of_a_shard_may_come_as_a_page_of_its_own() {
    let (fake, client) = fake(1);
    fake.set_separate_end_page(true);
    fake.put("orders", Some("k"), "x").unwrap();
    fake.split("orders", SHARD).unwrap();
    let last = page(&client, &iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await).await;
    assert_eq!((last.records().len(), last.child_shards().len()), (1, 0));
    let end = page(&client, last.next_shard_iterator().unwrap()).await;
    assert_eq!((end.records().len(), end.child_shards().len()), (0, 2));
    assert_eq!(end.next_shard_iterator(), None);
}

#[tokio::test(start_paused = true)]
async fn listings_come_in_pages_whose_token_expires() {
    let (fake, client) = fake(7);
    fake.set_list_page_size(3);
    let first = client.list_shards().stream_name("orders").send().await.unwrap();
    let token = first.next_token().unwrap();
    let second = client.list_shards().next_token(token).send().await.unwrap();
    let third = client.list_shards().next_token(second.next_token().unwrap()).send().await.unwrap();
    assert_eq!(third.next_token(), None);
    let all: Vec<_> =
        [&first, &second, &third].iter().flat_map(|p| p.shards()).map(|s| s.shard_id()).collect();
    assert_eq!(all, fake.shards("orders").unwrap().iter().map(|s| s.id.as_str()).collect::<Vec<_>>());

    let both = client.list_shards().stream_name("orders").next_token(token).send().await;
    assert_eq!(both.unwrap_err().into_service_error().code(), Some("InvalidArgumentException"));
    tokio::time::advance(Duration::from_secs(301)).await;
    let late = client.list_shards().next_token(token).send().await.unwrap_err().into_service_error();
    assert!(late.is_expired_next_token_exception(), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn shard_filters_choose_by_id_and_by_time() {
    let (fake, client) = fake(1);
    tokio::time::advance(Duration::from_secs(60)).await;
    fake.split("orders", SHARD).unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    let list = async |kind: ShardFilterType, at: Option<u64>| {
        let at = at.map(|ms| DateTime::from_millis(i64::try_from(ms).unwrap()));
        let filter = ShardFilter::builder().r#type(kind).shard_id(SHARD).set_timestamp(at).build().unwrap();
        let answer = client.list_shards().stream_name("orders").shard_filter(filter).send().await.unwrap();
        answer
            .shards()
            .iter()
            .map(|s| s.shard_id().trim_start_matches("shardId-00000000000").to_owned())
            .collect::<String>()
    };
    assert_eq!(list(ShardFilterType::AtLatest, None).await, "12");
    assert_eq!(list(ShardFilterType::AtTrimHorizon, None).await, "0");
    assert_eq!(list(ShardFilterType::FromTrimHorizon, None).await, "012");
    assert_eq!(list(ShardFilterType::AfterShardId, None).await, "12");
    assert_eq!(list(ShardFilterType::AtTimestamp, Some(fake.now_ms() - 90_000)).await, "0");
    assert_eq!(list(ShardFilterType::FromTimestamp, Some(fake.now_ms() - 30_000)).await, "12");
}

#[tokio::test(start_paused = true)]
async fn an_iterator_expires_by_the_fakes_clock() {
    let (fake, client) = fake(1);
    let old = iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await;
    tokio::time::advance(Duration::from_secs(299)).await;
    page(&client, &old).await;
    fake.set_clock_offset(2_000);
    let error = client.get_records().shard_iterator(&old).send().await.unwrap_err().into_service_error();
    assert!(error.is_expired_iterator_exception(), "{error:?}");
}

#[tokio::test]
async fn names_and_arns_mean_the_same_stream_and_accounts_are_apart() {
    let (fake, client) = fake(1);
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let summary = client.describe_stream_summary().stream_arn(arn).send().await.unwrap();
    let summary = summary.stream_description_summary.unwrap();
    assert_eq!((summary.stream_name(), summary.stream_arn(), summary.open_shard_count()), ("orders", arn, 1));
    let other = arn.replace("000000000000", "123456789012");
    let missing = client.list_shards().stream_arn(&other).send().await.unwrap_err().into_service_error();
    assert!(missing.is_resource_not_found_exception());
    assert_eq!(fake.create_stream(&other, 2).unwrap(), other);
    assert_eq!(client.list_shards().stream_arn(&other).send().await.unwrap().shards().len(), 2);
}

#[tokio::test]
async fn a_recreated_stream_knows_nothing_of_its_predecessors_numbers_and_iterators() {
    let (fake, client) = fake(1);
    let old = fake.put("orders", Some("k"), "x").unwrap();
    let old_iterator = iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await;
    client.delete_stream().stream_name("orders").send().await.unwrap();
    client.create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
    let call = client.get_shard_iterator().stream_name("orders").shard_id(SHARD);
    let call = call.shard_iterator_type(ShardIteratorType::AfterSequenceNumber);
    let error =
        call.starting_sequence_number(&old.sequence_number).send().await.unwrap_err().into_service_error();
    assert_eq!(error.code(), Some("InvalidArgumentException"));
    assert!(error.message().unwrap().contains("did not come from this stream"), "{error:?}");
    let gone =
        client.get_records().shard_iterator(old_iterator).send().await.unwrap_err().into_service_error();
    assert!(gone.is_resource_not_found_exception());
    assert!(fake.put("orders", Some("k"), "x").unwrap().sequence_number > old.sequence_number);
}

#[tokio::test]
async fn a_sequence_number_is_good_for_its_own_shard_only() {
    let (fake, client) = fake(1);
    let parent = fake.put("orders", Some("k"), "x").unwrap();
    let (child, _) = fake.split("orders", SHARD).unwrap();
    let call = client.get_shard_iterator().stream_name("orders").shard_id(&child);
    let call = call.shard_iterator_type(ShardIteratorType::AfterSequenceNumber);
    let call = call.starting_sequence_number(&parent.sequence_number);
    let error = call.send().await.unwrap_err().into_service_error();
    assert!(error.message().unwrap().contains("It encodes shardId-000000000000"), "{error:?}");
    let listed = client.list_shards().stream_name("orders").send().await.unwrap();
    let start = listed.shards()[1].sequence_number_range().unwrap().starting_sequence_number();
    iterator(&client, &child, ShardIteratorType::AtSequenceNumber, Some(start)).await;
}

#[tokio::test(start_paused = true)]
async fn records_and_closed_shards_vanish_with_their_retention() {
    let (fake, client) = fake(1);
    let first = fake.put("orders", Some("k"), "old").unwrap().sequence_number;
    fake.put("orders", Some("k"), "trimmed by hand").unwrap();
    fake.split("orders", SHARD).unwrap();
    fake.trim("orders", SHARD, &first).unwrap();
    let left =
        page(&client, &iterator(&client, SHARD, ShardIteratorType::AtSequenceNumber, Some(&first)).await)
            .await;
    assert_eq!(left.records()[0].data().as_ref(), b"trimmed by hand");
    fake.set_retention("orders", Duration::from_secs(3_600)).unwrap();
    tokio::time::advance(Duration::from_secs(3_601)).await;
    let listed = client.list_shards().stream_name("orders").send().await.unwrap();
    assert_eq!(listed.shards().len(), 2, "the parent is no longer listed");
    assert_eq!(fake.records("orders").unwrap().len(), 2, "the observer still sees everything");
}

#[tokio::test(start_paused = true)]
async fn with_read_limits_the_sixth_call_in_a_second_is_throttled() {
    let (fake, client) = fake(1);
    fake.set_read_limits(true);
    let config = aws_sdk_kinesis::config::Builder::from(&fake.sdk_config())
        .retry_config(aws_sdk_kinesis::config::retry::RetryConfig::disabled());
    let client_without_retries = Client::from_conf(config.build());
    let iterator = iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await;
    for _ in 0..5 {
        page(&client_without_retries, &iterator).await;
    }
    let call = client_without_retries.get_records().shard_iterator(&iterator).send();
    let error = call.await.unwrap_err().into_service_error();
    assert!(error.is_provisioned_throughput_exceeded_exception());
    assert_eq!(fake.calls().of(Operation::GetRecords).max_within(Duration::from_secs(1)), 6);
    tokio::time::advance(Duration::from_secs(1)).await;
    page(&client_without_retries, &iterator).await;
}

#[tokio::test]
async fn the_served_fake_tells_its_own_time_and_answers_like_the_other() {
    let (fake, _) = fake(2);
    fake.set_clock_offset(-600_000);
    let server = fake.serve().await.unwrap();
    let client = Client::new(&server.sdk_config());
    fake.put("orders", Some("a"), "x").unwrap();
    let got = page(&client, &iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await).await;
    assert_eq!(got.records()[0].data().as_ref(), b"x");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let arrival = got.records()[0].approximate_arrival_timestamp().unwrap().secs();
    let behind = i64::try_from(now).unwrap() - arrival;
    assert!((590..700).contains(&behind), "arrival is 10 minutes behind, not {behind} s");
    let response = fake.handle("ListStreams", b"{}", 1_700_000_000_123);
    assert!(response.headers.contains(&("date", "Tue, 14 Nov 2023 22:13:20 GMT".to_owned())));
    assert_eq!(&response.body[..], br#"{"HasMoreStreams":false,"StreamNames":["orders"]}"#);
}

#[tokio::test]
async fn bad_requests_get_the_services_errors() {
    let (fake, client) = fake(1);
    let code = |target: &str, body: &str| fake.handle(target, body.as_bytes(), fake.now_ms()).error.unwrap();
    assert_eq!(code("Kinesis_20131202.SubscribeToShard", "{}"), "UnknownOperationException");
    assert_eq!(code("GetRecords", "{"), "SerializationException");
    assert_eq!(code("GetRecords", "{\"ShardIterator\":\"AAAA\"}"), "InvalidArgumentException");
    assert_eq!(code("ListShards", "{}"), "ValidationException");
    assert_eq!(code("ListShards", "{\"StreamName\":\"a b\"}"), "ValidationException");
    assert_eq!(code("ListShards", "{\"StreamARN\":\"arn:aws:sqs:r:1:q\"}"), "ValidationException");
    assert_eq!(fake.create_stream("orders", 1).unwrap_err().code, "ResourceInUseException");
    assert_eq!(fake.create_stream("more", 0).unwrap_err().code, "InvalidArgumentException");
    assert_eq!(fake.split("orders", "shardId-9").unwrap_err().code, "ResourceNotFoundException");
    let token = iterator(&client, SHARD, ShardIteratorType::TrimHorizon, None).await;
    let error = client.get_records().shard_iterator(token).limit(10_001).send().await.unwrap_err();
    assert_eq!(error.into_service_error().code(), Some("InvalidArgumentException"));
}
