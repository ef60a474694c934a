//! The fake's streams through the real SDK client.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsOutput;
use aws_sdk_dynamodbstreams::types::{
    OperationType, Shard, ShardFilter, ShardFilterType, ShardIteratorType, StreamStatus,
};
use serde_json::{Value, json};
use shardmill_testkit::FakeDynamoDbStreams;
use shardmill_testkit::kinesis::{Fault, Operation};
use tokio::time::advance;

fn item(id: &str, n: u32) -> Value {
    json!({"id": {"S": id}, "n": {"N": n.to_string()}})
}

async fn shards(client: &Client, arn: &str, children_of: Option<&str>) -> Vec<Shard> {
    let filter = children_of
        .map(|shard| ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(shard).build());
    let description = client.describe_stream().stream_arn(arn).set_shard_filter(filter).send().await.unwrap();
    description.stream_description().unwrap().shards().to_vec()
}

async fn from_horizon(client: &Client, arn: &str, shard: &str) -> GetRecordsOutput {
    let iterator = client.get_shard_iterator().stream_arn(arn).shard_id(shard);
    let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    client.get_records().set_shard_iterator(iterator.shard_iterator).send().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn r63_changes_have_their_images_and_a_write_that_changes_nothing_has_no_record() {
    let fake = FakeDynamoDbStreams::new();
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    let client = Client::new(&fake.sdk_config());
    fake.put_item("orders", &item("a", 1)).unwrap().unwrap();
    assert_eq!(fake.put_item("orders", &item("a", 1)).unwrap(), None);
    fake.put_item("orders", &item("a", 2)).unwrap().unwrap();
    fake.expire_item("orders", &json!({"id": {"S": "a"}})).unwrap().unwrap();
    assert_eq!(fake.delete_item("orders", &json!({"id": {"S": "a"}})).unwrap(), None);
    let shard = fake.shards("orders").unwrap().remove(0).id;
    let page = from_horizon(&client, &arn, &shard).await;
    let shown: Vec<_> = page
        .records()
        .iter()
        .map(|record| {
            let change = record.dynamodb().unwrap();
            (record.event_name().unwrap().clone(), change.old_image().is_some(), change.new_image().is_some())
        })
        .collect();
    let expected = [
        (OperationType::Insert, false, true),
        (OperationType::Modify, true, true),
        (OperationType::Remove, true, false),
    ];
    assert_eq!(shown, expected);
    let by = page.records()[2].user_identity().unwrap();
    assert_eq!((by.r#type(), by.principal_id()), (Some("Service"), Some("dynamodb.amazonaws.com")));
    let numbers: Vec<u128> = page
        .records()
        .iter()
        .map(|record| record.dynamodb().unwrap().sequence_number().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn shards_roll_over_split_and_close_and_their_children_are_asked_for_by_parent() {
    let fake = FakeDynamoDbStreams::new();
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    let client = Client::new(&fake.sdk_config());
    let first = fake.shards("orders").unwrap().remove(0).id;
    fake.put_item("orders", &item("a", 1)).unwrap();
    let second = fake.roll("orders", &first).unwrap();
    let halves = fake.split("orders", &second).unwrap();
    fake.close_shard("orders", &halves[0]).unwrap();
    let ends: Vec<bool> = shards(&client, &arn, None)
        .await
        .iter()
        .map(|shard| shard.sequence_number_range().unwrap().ending_sequence_number().is_some())
        .collect();
    assert_eq!(ends, [true, true, true, false]);
    let children = shards(&client, &arn, Some(&second)).await;
    assert_eq!(children.iter().map(|shard| shard.shard_id().unwrap()).collect::<Vec<_>>(), halves);
    assert!(children.iter().all(|shard| shard.parent_shard_id() == Some(second.as_str())));
    assert_eq!(from_horizon(&client, &arn, &first).await.next_shard_iterator(), None, "read to its end");
    assert!(from_horizon(&client, &arn, &halves[1]).await.next_shard_iterator().is_some());
    assert!(fake.roll("orders", &first).is_err(), "closed once");
}

#[tokio::test(start_paused = true)]
async fn iterators_expire_after_fifteen_minutes_and_trimmed_records_are_refused() {
    let fake = FakeDynamoDbStreams::new();
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    let client = Client::new(&fake.sdk_config());
    let first = fake.put_item("orders", &item("a", 1)).unwrap().unwrap();
    let second = fake.put_item("orders", &item("a", 2)).unwrap().unwrap();
    let next = from_horizon(&client, &arn, &first.shard_id).await.next_shard_iterator;
    advance(Duration::from_secs(15 * 60 + 1)).await;
    let expired = client.get_records().set_shard_iterator(next).send().await.unwrap_err();
    assert_eq!(expired.code(), Some("ExpiredIteratorException"));
    fake.trim("orders", &first.shard_id, &first.sequence_number).unwrap();
    let at = client.get_shard_iterator().stream_arn(&arn).shard_id(&first.shard_id);
    let at = at.shard_iterator_type(ShardIteratorType::AtSequenceNumber);
    let trimmed = at.sequence_number(&first.sequence_number).send().await.unwrap_err();
    assert_eq!(trimmed.code(), Some("TrimmedDataAccessException"));
    let page = from_horizon(&client, &arn, &first.shard_id).await;
    let left = page.records()[0].dynamodb().unwrap().sequence_number().unwrap();
    assert_eq!((page.records().len(), left), (1, second.sequence_number.as_str()));
    assert_eq!(fake.changes("orders").unwrap().len(), 2, "the observer still knows both");
}

#[tokio::test(start_paused = true)]
async fn with_a_retention_old_records_are_trimmed_and_closed_shards_without_any_vanish() {
    let fake = FakeDynamoDbStreams::new();
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    fake.set_retention(Duration::from_secs(24 * 3600));
    let client = Client::new(&fake.sdk_config());
    let first = fake.put_item("orders", &item("a", 1)).unwrap().unwrap();
    let second = fake.roll("orders", &first.shard_id).unwrap();
    advance(Duration::from_secs(24 * 3600)).await;
    fake.put_item("orders", &item("a", 2)).unwrap();
    assert_eq!(shards(&client, &arn, None).await.len(), 2);
    assert_eq!(from_horizon(&client, &arn, &first.shard_id).await.records().len(), 1, "not yet");
    advance(Duration::from_secs(2)).await;
    let left = shards(&client, &arn, None).await;
    assert_eq!(left.iter().map(|shard| shard.shard_id().unwrap()).collect::<Vec<_>>(), [second.as_str()]);
    assert_eq!(from_horizon(&client, &arn, &second).await.records().len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_enabled_again_has_an_arn_of_its_own_also_over_http() {
    let fake = FakeDynamoDbStreams::new();
    let old = fake.create_table("orders", &["id"], 1).unwrap();
    fake.put_item("orders", &item("a", 1)).unwrap();
    fake.disable_stream("orders").unwrap();
    assert_eq!(fake.put_item("orders", &item("a", 2)).unwrap(), None, "no stream, no record");
    let new = fake.enable_stream("orders").unwrap();
    assert_ne!(old, new);
    let server = fake.serve().await.unwrap();
    let client = Client::new(&server.sdk_config());
    for (arn, status) in [(&old, StreamStatus::Disabled), (&new, StreamStatus::Enabled)] {
        let described = client.describe_stream().stream_arn(arn).send().await.unwrap();
        assert_eq!(described.stream_description().unwrap().stream_status(), Some(&status));
    }
    fake.faults().on(Operation::DescribeStream).inject(Fault::LimitExceeded);
    assert!(client.describe_stream().stream_arn(&new).send().await.is_ok(), "the SDK tries again");
    assert_eq!(fake.calls().of(Operation::DescribeStream).len(), 4);
}
