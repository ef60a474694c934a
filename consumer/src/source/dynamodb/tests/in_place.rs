//! What is copied into the event against what the SDK decodes and our encoder writes.

use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodbstreams::operation::get_records::{GetRecords, GetRecordsOutput};
use bytes::Bytes;
use shardmill_engine::{Batch, DynamoDbEncoder, EventContext, Record, dynamodb_answer, encode};

use super::super::attributes::convert;
use super::*;
use crate::source::aws::oracle::{Chance, Judge, Sdk, by_chance, cut_and_changed};

/// Runs a test with the SDK's decoder at hand.
async fn judged(test: impl Fn(Sdk<'_>) + Send + Sync + 'static) {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .http_client(crate::source::aws::Replay::with(b"{}".to_vec()).client());
    let client = Client::from_conf(config.build());
    let judge = Judge { operation: GetRecords::new(), test };
    client.get_records().shard_iterator("i").customize().interceptor(judge).send().await.unwrap();
}

fn event(records: &[Record]) -> Bytes {
    let context = EventContext {
        event_source_arn: "arn".into(),
        region: "eu-west-1".into(),
        invoke_identity_arn: "role".into(),
        shard: "shardId-0".into(),
    };
    Batch::new(records).map_or_else(Bytes::new, |batch| encode(&batch, &context, None))
}

/// Whether an answer is read in place, which must give what the SDK's decoder and our encoder give.
fn compare(body: &Bytes, sdk: Sdk<'_>) -> bool {
    let Some(ours) = dynamodb_answer(body) else { return false };
    let shown = String::from_utf8_lossy(body);
    let output = sdk(body).unwrap_or_else(|| panic!("the SDK does not take {shown}"));
    let theirs = output.downcast::<GetRecordsOutput>().unwrap();
    assert_eq!(Some(&ours.next_iterator), theirs.next_shard_iterator.as_ref(), "{shown}");
    let mut encoder = DynamoDbEncoder::default();
    let convert = |record| convert(&mut encoder, record).unwrap_or_else(|error| panic!("{error}: {shown}"));
    let theirs: Vec<Record> = theirs.records().iter().map(convert).collect();
    let same = event(&ours.page.records) == event(&theirs);
    assert!(same, "{:?} is not {:?}: {shown}", event(&ours.page.records), event(&theirs));
    let read = |records: &[Record]| -> Vec<_> {
        let of = |record: &Record| {
            (record.seq.number.to_string(), record.arrival, record.change().unwrap().key().to_vec())
        };
        records.iter().map(of).collect()
    };
    assert_eq!(read(&ours.page.records), read(&theirs), "{shown}");
    true
}

fn attribute(chance: &mut Chance, depth: usize) -> String {
    let kinds = if depth == 0 { 8 } else { 10 };
    let (kind, value) = match chance.rng.u8(0..kinds) {
        0 | 1 => ("S", chance.string()),
        2 => ("N", format!("\"{}\"", chance.integer().replace('"', ""))),
        3 => ("B", chance.base64()),
        4 => ("BOOL", chance.pick(&["true", "false"]).to_owned()),
        5 => ("NULL", "true".to_owned()),
        6 => {
            let texts = (0..chance.rng.usize(0..3)).map(|_| chance.string()).collect();
            (chance.pick(&["SS", "NS"]), chance.array(texts))
        }
        7 => {
            let all = (0..chance.rng.usize(0..3)).map(|_| chance.base64()).collect();
            ("BS", chance.array(all))
        }
        8 => ("M", item(chance, depth - 1)),
        _ => {
            let values = (0..chance.rng.usize(0..3)).map(|_| attribute(chance, depth - 1)).collect();
            ("L", chance.array(values))
        }
    };
    let kind = if chance.odd() { "X" } else { kind };
    chance.object(vec![(kind, value)])
}

fn item(chance: &mut Chance, depth: usize) -> String {
    let names = ["id", "a", "b", "Z", "\u{e9}", "order", "", "a.b"];
    let from = chance.rng.usize(0..names.len());
    let names = &names[from..names.len().min(from + chance.rng.usize(0..4))];
    let members = names.iter().map(|name| (*name, attribute(chance, depth))).collect();
    chance.object(members)
}

fn record_by_chance(chance: &mut Chance) -> String {
    let mut change = vec![("Keys", item(chance, 0)), ("ApproximateCreationDateTime", chance.seconds())];
    if !chance.odd() {
        change.push(("SequenceNumber", format!("\"{}\"", chance.rng.u64(..))));
    }
    for image in ["NewImage", "OldImage"] {
        if chance.rng.bool() {
            change.push((image, item(chance, 2)));
        }
    }
    if chance.rng.bool() {
        change.push(("SizeBytes", chance.integer()));
        change.push(("StreamViewType", chance.pick(&["\"NEW_IMAGE\"", "\"new\"", "\"\""]).to_owned()));
    }
    let mut members = vec![("dynamodb", chance.object(change))];
    for name in ["eventID", "eventName", "eventVersion", "eventSource", "awsRegion"] {
        if chance.rng.u8(0..5) > 0 {
            members.push((name, chance.string()));
        }
    }
    if chance.rng.u8(0..4) == 0 {
        let identity = vec![("Type", chance.string()), ("PrincipalId", chance.string())];
        members.push(("userIdentity", chance.object(identity)));
    }
    if chance.rng.u8(0..8) == 0 {
        members.push((chance.pick(&["New", "Dynamodb", ""]), chance.value(3)));
    }
    chance.object(members)
}

fn answer_by_chance(chance: &mut Chance) -> Bytes {
    let records = (0..chance.rng.usize(0..3)).map(|_| record_by_chance(chance)).collect();
    let mut members = vec![("Records", chance.array(records))];
    if !chance.odd() {
        members.push(("NextShardIterator", chance.string()));
    }
    let text = chance.object(members);
    chance.changed(text)
}

#[tokio::test]
async fn answers_by_chance_are_copied_into_the_event_that_the_sdk_and_our_encoder_give() {
    judged(|sdk| {
        by_chance(50_000, answer_by_chance, |body| compare(body, sdk));
    })
    .await;
}

#[tokio::test]
async fn an_answer_cut_or_changed_at_any_byte_is_copied_as_the_sdk_decodes_it_or_not_at_all() {
    judged(|sdk| {
        let text = br#"{"NextShardIterator":"n","New":[{"a":null}],"Records":[{"awsRegion":"eu-west-1","eventID":"1","dynamodb":{
            "ApproximateCreationDateTime":1.79E9,"Keys":{"id":{"S":"k"}},"NewImage":{"b":{"M":{"x":{"N":"1"}}},"a":{"L":[{"B":"eA=="},
            {"BOOL":true},{"NULL":true},{"SS":["\"","\u00e9"]},{"BS":["eA=="]}]}},"SequenceNumber":"7","SizeBytes":26,
            "StreamViewType":"NEW_IMAGE"},"eventName":"INSERT","userIdentity":{"PrincipalId":"d","Type":"S"}}]} "#;
        cut_and_changed(text, |body| compare(body, sdk));
    })
    .await;
}
