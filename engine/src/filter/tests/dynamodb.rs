//! DynamoDB: the cases of LocalStack's `test_dynamodb_event_filter`, with what AWS answered
//! (docs/semantics.md, section 5.2).

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

/// How many of two changes pass: the first is an INSERT, the second a MODIFY if it is of the same item.
fn calls(pattern: &str, items: [&str; 2]) -> usize {
    let key = |item: &str| item.split('}').next().unwrap().to_owned() + "}}";
    let [first, second] = items.map(key);
    let event = if first == second { "MODIFY" } else { "INSERT" };
    passed(pattern, &[change("INSERT", &first, items[0]), change(event, &second, items[1])])
}

const ITEM: &str = r#"{"id":{"S":"id_value"}}"#;
const ITEM_1: &str = r#"{"id":{"S":"id_value_1"}}"#;
const ITEM_2: &str = r#"{"id":{"S":"id_value_2"}}"#;
const CHANGED: &str = r#"{"id":{"S":"id_value"},"id2":{"S":"id2_new_value"}}"#;
const PRESENT_1: &str = r#"{"id":{"S":"id_value_1"},"presentKey":{"S":"presentValue"}}"#;
const PRESENT_2: &str = r#"{"id":{"S":"id_value_2"},"presentKey":{"S":"presentValue"}}"#;

#[test]
fn r63_test_dynamodb_event_filter_insert_same_entry_twice() {
    let item = r#"{"id":{"S":"id_value"},"id2":{"S":"id2_value"}}"#;
    assert_eq!(calls(r#"{"eventName": ["INSERT"]}"#, [item, item]), 1);
}

#[test]
fn r62_test_dynamodb_event_filter_content_or_filter() {
    assert_eq!(calls(r#"{"eventName": ["INSERT", "MODIFY"]}"#, [ITEM, CHANGED]), 2);
}

#[test]
fn r62_test_dynamodb_event_filter_content_multiple_filters() {
    assert_eq!(calls(r#"{"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}"#, [ITEM, CHANGED]), 1);
}

#[test]
fn r59_test_dynamodb_event_filter_content_filter_type() {
    let typed = r#"{"dynamodb": {"NewImage": {"presentKey": {"S": ["presentValue"]}}}}"#;
    assert_eq!(calls(typed, [PRESENT_1, ITEM_2]), 1);
    let without = r#"{"dynamodb": {"NewImage": {"presentKey": ["presentValue"]}}}"#;
    assert_eq!(calls(without, [PRESENT_1, ITEM_2]), 0, "without the type tag");
}

#[test]
fn r60_test_dynamodb_event_filter_exists_filter_type() {
    let typed = r#"{"dynamodb": {"NewImage": {"presentKey": {"S": [{"exists": true}]}}}}"#;
    assert_eq!(calls(typed, [PRESENT_1, ITEM_2]), 1);
    let without = r#"{"dynamodb": {"NewImage": {"presentKey": [{"exists": true}]}}}"#;
    assert_eq!(calls(without, [PRESENT_1, ITEM_2]), 0, "an attribute is an object, and objects do not exist");
}

#[test]
fn r60_test_dynamodb_event_filter_exists_false_filter() {
    let without = r#"{"dynamodb": {"NewImage": {"presentKey": [{"exists": false}]}}}"#;
    assert_eq!(calls(without, [ITEM_1, PRESENT_2]), 2);
    let typed = r#"{"dynamodb": {"NewImage": {"presentKey": {"S": [{"exists": false}]}}}}"#;
    assert_eq!(calls(typed, [ITEM_1, PRESENT_2]), 1);
}

#[test]
fn r61_test_dynamodb_event_filter_numeric_filter() {
    // A number is a string under N: the first passes as it is not "101", the second is not above 100.
    let numbers =
        ["42", "101"].map(|n| format!(r#"{{"id":{{"S":"id_value_{n}"}},"numericFilter":{{"N":"{n}"}}}}"#));
    let numbers = [numbers[0].as_str(), numbers[1].as_str()];
    let rules = r#"[{"numeric": [">", 100]}, {"anything-but": "101"}]"#;
    let pattern =
        |rules: &str| format!(r#"{{"dynamodb": {{"NewImage": {{"numericFilter": {{"N": {rules}}}}}}}}}"#);
    assert_eq!(calls(&pattern(rules), numbers), 1);
    assert_eq!(calls(&pattern(r#"[{"numeric": [">", 0]}]"#), numbers), 0);
    assert_eq!(calls(&pattern(r#"["101"]"#), numbers), 1);
}

#[test]
fn r62_test_dynamodb_event_filter_prefix_filter() {
    let items = [
        r#"{"id":{"S":"id_value_1"},"prefix":{"S":"us-1-other-suffix"}}"#,
        r#"{"id":{"S":"id_value_1"},"prefix":{"S":"other-suffix"}}"#,
    ];
    assert_eq!(calls(r#"{"dynamodb": {"NewImage": {"prefix": {"S": [{"prefix": "us-1"}]}}}}"#, items), 1);
}

#[test]
fn r61_test_dynamodb_event_filter_date_time_conversion() {
    let after = |limit: &str| {
        format!(r#"{{"dynamodb": {{"ApproximateCreationDateTime": [{{"numeric": [">", {limit}]}}]}}}}"#)
    };
    assert_eq!(calls(&after("0"), [ITEM_1, ITEM_2]), 2);
    assert_eq!(calls(&after("1789654277"), [ITEM_1, ITEM_2]), 0);
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
