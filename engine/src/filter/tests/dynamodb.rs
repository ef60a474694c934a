//! DynamoDB: the cases of LocalStack's `test_dynamodb_event_filter`, with what AWS answered (lambda-esm.md 6.2).

use bytes::Bytes;

use super::shard;
use crate::filter::{Filter, FilterSource};
use crate::record::{DynamoDbRecord, Record};
use crate::{Seq, Wall};

const ARN: &str = "arn:aws:dynamodb:us-east-1:111111111111:table/T/stream/2026-09-17T14:10:44.560";

fn source() -> FilterSource {
    FilterSource::DynamoDb { event_source_arn: ARN.into() }
}

/// A record as the event shows it, without the stream's ARN.
fn change(event: &str, keys: &str, image: &str) -> Record {
    let json = format!(
        concat!(
            r#"{{"eventID":"aeec7a71a1f0a3841c1f79a16e1e634a","eventName":"{}","eventVersion":"1.1","#,
            r#""eventSource":"aws:dynamodb","awsRegion":"us-east-1","dynamodb":{{"ApproximateCreationDateTime":"#,
            r#"1789654277.0,"Keys":{},"NewImage":{},"SequenceNumber":"2500003077291036516106","SizeBytes":70,"#,
            r#""StreamViewType":"NEW_AND_OLD_IMAGES"}}"#
        ),
        event, keys, image
    );
    let at = json.find(keys).unwrap();
    let record = DynamoDbRecord { json: Bytes::from(json), key: at..at + keys.len() };
    Record::dynamodb(Seq::plain("2500003077291036516106"), Some(Wall::from_millis(1_789_654_277_000)), record)
}

fn insert(image: &str) -> Record {
    change("INSERT", r#"{"id":{"S":"id_value"}}"#, image)
}

fn passed(pattern: &str, records: &[Record]) -> usize {
    let filter = Filter::parse(&source(), &[pattern]).unwrap().unwrap();
    records.iter().filter(|record| filter.matches(record, &shard())).count()
}

/// An item, and the same item with another attribute put in.
fn two_puts(first: &str, second: &str) -> [Record; 2] {
    [insert(first), change("MODIFY", r#"{"id":{"S":"id_value"}}"#, second)]
}

const ITEM: &str = r#"{"id":{"S":"id_value"}}"#;

#[test]
fn r63_test_dynamodb_event_filter_insert_same_entry_twice() {
    assert_eq!(passed(r#"{"eventName": ["INSERT"]}"#, &two_puts(ITEM, ITEM)), 1);
}

#[test]
fn r62_test_dynamodb_event_filter_content_or_filter() {
    let records = two_puts(ITEM, r#"{"id":{"S":"id_value"},"new_key":{"S":"new_value"}}"#);
    assert_eq!(passed(r#"{"eventName": ["INSERT", "MODIFY"]}"#, &records), 2);
}

#[test]
fn r62_test_dynamodb_event_filter_content_multiple_filters() {
    let records = two_puts(ITEM, r#"{"id":{"S":"id_value"},"new_key":{"S":"new_value"}}"#);
    assert_eq!(passed(r#"{"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}"#, &records), 1);
}

#[test]
fn r59_test_dynamodb_event_filter_content_filter_type() {
    let records = two_puts(ITEM, r#"{"id":{"S":"id_value"},"presentKey":{"S":"presentValue"}}"#);
    assert_eq!(passed(r#"{"dynamodb": {"NewImage": {"presentKey": {"S": ["presentValue"]}}}}"#, &records), 1);
    assert_eq!(
        passed(r#"{"dynamodb": {"NewImage": {"presentKey": ["presentValue"]}}}"#, &records),
        0,
        "no type"
    );
}

#[test]
fn r60_test_dynamodb_event_filter_exists_filter_type() {
    let records = two_puts(ITEM, r#"{"id":{"S":"id_value"},"presentKey":{"S":"presentValue"}}"#);
    assert_eq!(
        passed(r#"{"dynamodb": {"NewImage": {"presentKey": {"S": [{"exists": true}]}}}}"#, &records),
        1
    );
}

#[test]
fn r60_test_dynamodb_event_filter_exists_false_filter() {
    // An attribute is an object, and objects do not exist: it matches either way.
    let records = two_puts(ITEM, r#"{"id":{"S":"id_value"},"presentKey":{"S":"presentValue"}}"#);
    assert_eq!(passed(r#"{"dynamodb": {"NewImage": {"presentKey": [{"exists": false}]}}}"#, &records), 2);
    assert_eq!(
        passed(r#"{"dynamodb": {"NewImage": {"presentKey": {"S": [{"exists": false}]}}}}"#, &records),
        1
    );
}

#[test]
fn r61_test_dynamodb_event_filter_numeric_filter() {
    // 1 in AWS's recording, by the second of the put items: a number there is a string under N.
    let number = r#"{"id":{"S":"id_value"},"num":{"N":"101"}}"#;
    let records = [insert(number), insert(r#"{"id":{"S":"id_value2"},"num":{"S":"101"}}"#)];
    assert_eq!(
        passed(r#"{"dynamodb": {"NewImage": {"num": {"N": [{"numeric": [">", 100]}]}}}}"#, &records),
        0
    );
    assert_eq!(passed(r#"{"dynamodb": {"NewImage": {"num": {"N": ["101"]}}}}"#, &records), 1);
}

#[test]
fn r62_test_dynamodb_event_filter_prefix_filter() {
    let records = two_puts(
        r#"{"id":{"S":"id_value"},"prefix":{"S":"us-1-testtest"}}"#,
        r#"{"id":{"S":"id_value"},"prefix":{"S":"eu-1-testtest"}}"#,
    );
    assert_eq!(passed(r#"{"dynamodb": {"NewImage": {"prefix": {"S": [{"prefix": "us-1"}]}}}}"#, &records), 1);
}

#[test]
fn r61_test_dynamodb_event_filter_date_time_conversion() {
    let records = two_puts(ITEM, r#"{"id":{"S":"id_value"},"new_key":{"S":"new_value"}}"#);
    let later_than = |limit: &str| {
        format!(r#"{{"dynamodb": {{"ApproximateCreationDateTime": [{{"numeric": [">", {limit}]}}]}}}}"#)
    };
    assert_eq!(passed(&later_than("1500000000"), &records), 2);
    assert_eq!(passed(&later_than("1789654277"), &records), 0);
}

#[test]
fn r59_values_of_all_types_keep_their_tags() {
    let item = concat!(
        r#"{"b":{"B":"Zm9v"},"flag":{"BOOL":true},"list":{"L":[{"S":"a"},{"N":"1"}]},"map":{"M":{"x":{"S":"y"}}},"#,
        r#""none":{"NULL":true},"set":{"SS":["a","b"]}}"#
    );
    for (pattern, expected) in [
        (r#"{"flag": {"BOOL": [true]}}"#, 1),
        (r#"{"flag": {"BOOL": ["true"]}}"#, 0),
        (r#"{"none": {"NULL": [true]}}"#, 1),
        (r#"{"b": {"B": ["Zm9v"]}}"#, 1),
        (r#"{"set": {"SS": ["b"]}}"#, 1),
        (r#"{"list": {"L": {"N": ["1"]}}}"#, 1),
        (r#"{"list": {"L": {"N": ["1"], "S": ["a"]}}}"#, 0),
        (r#"{"map": {"M": {"x": {"S": ["y"]}}}}"#, 1),
    ] {
        let pattern = format!(r#"{{"dynamodb": {{"NewImage": {pattern}}}}}"#);
        assert_eq!(passed(&pattern, &[insert(item)]), expected, "{pattern}");
    }
}

#[test]
fn r57_all_fields_of_the_record_can_be_named() {
    for (pattern, expected) in [
        (r#"{"eventID": ["aeec7a71a1f0a3841c1f79a16e1e634a"], "awsRegion": ["us-east-1"]}"#, 1),
        (r#"{"eventSourceARN": [{"prefix": "arn:aws:dynamodb:us-east-1:111111111111:table/T/"}]}"#, 1),
        (r#"{"eventSourceARN": ["arn:aws:dynamodb:us-east-1:111111111111:table/U"]}"#, 0),
        (
            r#"{"dynamodb": {"Keys": {"id": {"S": ["id_value"]}}, "StreamViewType": [{"suffix": "IMAGES"}]}}"#,
            1,
        ),
        (
            r#"{"dynamodb": {"SizeBytes": [{"numeric": ["<", 100]}], "OldImage": {"a": {"S": [{"exists": false}]}}}}"#,
            1,
        ),
        (r#"{"userIdentity": {"principalId": ["dynamodb.amazonaws.com"]}}"#, 0),
        (r#"{"userIdentity": {"principalId": [{"exists": false}]}}"#, 1),
        (
            r#"{"$or": [{"eventName": ["REMOVE"]}, {"dynamodb": {"Keys": {"id": {"S": [{"prefix": "id_"}]}}}}]}"#,
            1,
        ),
    ] {
        assert_eq!(passed(pattern, &[insert(ITEM)]), expected, "{pattern}");
    }
}

#[test]
fn a_record_of_another_kind_of_stream_never_passes() {
    let kinesis = Filter::parse(&super::kinesis(), &[r#"{"x": [{"exists": false}]}"#]).unwrap().unwrap();
    assert!(!kinesis.matches(&insert(ITEM), &shard()));
    let dynamodb = Filter::parse(&source(), &[r#"{"x": [{"exists": false}]}"#]).unwrap().unwrap();
    assert!(!dynamodb.matches(&super::data("{}"), &shard()));
}
