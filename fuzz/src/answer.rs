//! Answers of `GetRecords` that are read in place.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use shardmill_engine::{
    Batch, EventContext, cbor_to_json, dynamodb_answer, encode, encoded_len, kinesis_answer,
};

type Members = BTreeMap<String, Box<RawValue>>;

/// Any bytes as an answer of Kinesis, in JSON or CBOR, and of DynamoDB Streams: what is read of them is what serde_json
/// reads of them or of the JSON that their CBOR stands for.
pub fn answer(input: &[u8]) {
    let body = input.to_vec().into();
    let json = cbor_to_json(input);
    let input = json.as_deref().unwrap_or(input);
    if let Some(answer) = kinesis_answer(&body) {
        let (records, next) = naive(input);
        assert_eq!(answer.next_iterator, next);
        assert_eq!(answer.page.records.len(), records.len());
        let mut bytes = 0;
        for (ours, theirs) in answer.page.records.iter().zip(&records) {
            assert_eq!(Some(ours.seq.number.as_str()), text(theirs, "SequenceNumber").as_deref());
            assert_eq!(ours.partition_key(), text(theirs, "PartitionKey").as_deref());
            let data = ours.bytes().expect("it was checked");
            let encoded = base64_simd::STANDARD.encode_to_string(&data);
            assert_eq!(encoded, text(theirs, "Data").unwrap_or_default());
            bytes += data.len();
        }
        assert_eq!(answer.bytes, bytes);
    }
    if let Some(answer) = dynamodb_answer(&body) {
        let (records, next) = naive(input);
        assert_eq!(answer.next_iterator, next);
        assert_eq!(answer.page.records.len(), records.len());
        for (ours, theirs) in answer.page.records.iter().zip(&records) {
            let change: Members = serde_json::from_str(theirs["dynamodb"].get()).expect("an object");
            assert_eq!(Some(ours.seq.number.as_str()), text(&change, "SequenceNumber").as_deref());
            let event = event(ours.clone());
            let event = &event["Records"][0]["dynamodb"];
            for image in ["Keys", "NewImage", "OldImage"] {
                let value = |raw: &Box<RawValue>| serde_json::from_str(raw.get()).expect("JSON");
                assert_eq!(event[image], change.get(image).map_or(Value::Null, value), "{image}");
            }
        }
    }
}

fn naive(input: &[u8]) -> (Vec<Members>, String) {
    let mut answer: Members = serde_json::from_slice(input).expect("what was read is JSON");
    let records = answer.remove("Records").map_or_else(Vec::new, |records| {
        serde_json::from_str::<Option<Vec<Members>>>(records.get()).expect("records").unwrap_or_default()
    });
    (records, text(&answer, "NextShardIterator").expect("it was read"))
}

fn text(members: &Members, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).expect("a string or null")
}

fn event(record: shardmill_engine::Record) -> Value {
    let context = EventContext {
        event_source_arn: "arn".into(),
        region: "eu-west-1".into(),
        invoke_identity_arn: "role".into(),
        shard: "shardId-0".into(),
    };
    let batch = Batch::new(vec![record]).expect("a record");
    let event = encode(&batch, &context, None);
    assert_eq!(event.len(), encoded_len(&batch, &context, None));
    serde_json::from_slice(&event).expect("an event is JSON")
}
