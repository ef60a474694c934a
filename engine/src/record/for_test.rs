//! Records and batches for tests of functions.

use bytes::Bytes;
use serde_json::Value;

use super::{Batch, Data, DynamoDbRecord, Record};
use crate::position::Seq;

const KEYS: &[u8] = br#""Keys":"#;

impl Record {
    /// A Kinesis record for a test, with the partition key `test`. A sequence number is decimal digits.
    #[must_use]
    pub fn for_test(sequence_number: &str, data: impl Into<Bytes>) -> Self {
        Self::new(Seq::plain(sequence_number), Some("test".to_owned()), None, Data::Raw(data.into()))
    }
}

impl Batch {
    /// A batch of Kinesis records for a test, with these data and the sequence numbers 1, 2 and so on.
    #[must_use]
    pub fn for_test<D: Into<Bytes>>(data: impl IntoIterator<Item = D>) -> Self {
        let records = (1_u32..).zip(data);
        Self::of_test(records.map(|(number, data)| Record::for_test(&number.to_string(), data)).collect())
    }

    /// A batch of changes from a DynamoDB stream for a test, each as a Lambda event shows it, for example
    /// `{"eventName": "INSERT", "dynamodb": {"Keys": {"id": {"S": "a"}}, "NewImage": {"id": {"S": "a"}}}}`. Without a
    /// `dynamodb.SequenceNumber` they get the sequence numbers 1, 2 and so on.
    #[must_use]
    pub fn changes_for_test(changes: impl IntoIterator<Item = Value>) -> Self {
        let record = |(number, change): (u32, Value)| {
            let given = change["dynamodb"]["SequenceNumber"].as_str().map(str::to_owned);
            let seq = Seq::plain(given.unwrap_or_else(|| number.to_string()));
            Record::dynamodb(seq, None, DynamoDbRecord::for_test(change))
        };
        Self::of_test((1..).zip(changes).map(record).collect())
    }

    fn of_test(records: Vec<Record>) -> Self {
        Self::new(records).unwrap_or_else(Self::empty)
    }
}

impl DynamoDbRecord {
    fn for_test(change: Value) -> Self {
        let mut members = match change {
            Value::Object(members) => members,
            _ => serde_json::Map::new(),
        };
        members.remove("eventSourceARN");
        // What the event adds at the end needs a member in front of it.
        members.entry("eventSource").or_insert_with(|| "aws:dynamodb".into());
        let keys = members.get("dynamodb").and_then(|change| change.get("Keys")).map(Value::to_string);
        let mut json = Value::Object(members).to_string().into_bytes();
        json.pop();
        let place = keys.and_then(|keys| {
            let member = [KEYS, keys.as_bytes()].concat();
            let start = memchr::memmem::find(&json, &member)? + KEYS.len();
            Some(start..start + keys.len())
        });
        Self { json: json.into(), key: place.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::{EventContext, encode};

    fn context() -> EventContext {
        EventContext {
            event_source_arn: "arn".into(),
            region: "eu-west-1".into(),
            invoke_identity_arn: "role".into(),
            shard: "shardId-0".into(),
        }
    }

    #[test]
    fn a_batch_for_a_test_is_numbered_from_one_and_encodes_as_an_event() {
        let batch = Batch::for_test(["one", "two"]);
        let numbers: Vec<_> = batch.records().iter().map(|record| record.seq.number.as_str()).collect();
        assert_eq!(numbers, ["1", "2"]);
        assert_eq!(batch.records()[1].bytes().unwrap(), "two");
        assert!(Batch::for_test(Vec::<String>::new()).is_empty());
        let event: Value = serde_json::from_slice(&encode(&batch, &context(), None)).unwrap();
        assert_eq!(event["Records"][1]["kinesis"]["sequenceNumber"], "2");
    }

    #[test]
    fn changes_for_a_test_encode_as_the_event_that_they_were_taken_from() {
        let change =
            json!({"eventName": "REMOVE", "dynamodb": {"Keys": {"id": {"N": "5"}}, "SequenceNumber": "77"}});
        let batch = Batch::changes_for_test([change, json!({})]);
        let numbers: Vec<_> = batch.records().iter().map(|record| record.seq.number.as_str()).collect();
        assert_eq!(numbers, ["77", "2"]);
        let event: Value = serde_json::from_slice(&encode(&batch, &context(), None)).unwrap();
        assert_eq!(event["Records"][0]["dynamodb"]["Keys"]["id"]["N"], "5");
        assert_eq!(event["Records"][1]["eventSourceARN"], "arn");
    }
}
