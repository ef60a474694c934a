//! Patterns that no record can match are told from those that one may match.

use super::{filter, kinesis};
use crate::filter::{Filter, FilterSource};

fn dynamodb() -> FilterSource {
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-09-17T14:10:44.560";
    FilterSource::DynamoDb { event_source_arn: arn.into() }
}

/// What is said about one pattern.
fn said(source: &FilterSource, pattern: &str) -> Vec<String> {
    let filter = Filter::parse(source, &[pattern]).unwrap_or_else(|e| panic!("{pattern}: {e}")).unwrap();
    filter.never_matching().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn table(source: &FilterSource, rows: &[(&str, &[&str])]) {
    for (pattern, parts) in rows {
        let found = said(source, pattern);
        assert_eq!(found.len(), 1, "{pattern}: {found:?}");
        for part in *parts {
            assert!(found[0].contains(part), "{pattern}: {part:?} is not in {:?}", found[0]);
        }
    }
}

#[test]
fn incident_103_a_pattern_that_no_kinesis_record_can_match_is_told_with_what_was_meant() {
    table(
        &kinesis(),
        &[
            (
                r#"{"body": {"a": [1]}}"#,
                &["body.a is no field", "did you mean data?", r#"{"data": {"a": [...]}}"#],
            ),
            (r#"{"value": {"a": [1]}}"#, &[r#"write {"data": {"a": [...]}}"#]),
            (r#"{"Data": {"a": [1]}}"#, &["did you mean data?"]),
            (r#"{"kind": ["order"]}"#, &["kind is no field", r#"write {"data": {"kind": [...]}}"#]),
            (r#"{"amount": {"numeric": [">", 40]}}"#, &[r#"{"data": {"amount": {"numeric": [...]}}}"#]),
            (r#"{"eventname": ["aws:kinesis:record"]}"#, &["did you mean eventName?"]),
            (r#"{"dynamodb": {"NewImage": {"a": {"S": ["x"]}}}}"#, &["DynamoDB streams"]),
            (r#"{"eventName": ["INSERT"]}"#, &[r#"is "aws:kinesis:record" in every record"#]),
            (r#"{"eventSource": [{"prefix": "aws:sqs"}]}"#, &[r#""aws:kinesis""#]),
            (r#"{"partitionKey": [7]}"#, &["is a text", "in quotes"]),
            (r#"{"partitionKey": {"a": ["x"]}}"#, &["partitionKey.a asks for a field inside"]),
            (r#"{"sequenceNumber": [{"numeric": [">", 0]}]}"#, &["numeric matches no text"]),
            (r#"{"approximateArrivalTimestamp": ["1545084650"]}"#, &["is a number", "without quotes"]),
            (r#"{"data": {"a": [1]}, "kind": ["x"]}"#, &["kind is no field"]),
        ],
    );
}

#[test]
fn incident_103_a_pattern_that_no_dynamodb_record_can_match_is_told_with_what_was_meant() {
    table(
        &dynamodb(),
        &[
            (r#"{"dynamodb": {"newImage": {"a": {"S": ["x"]}}}}"#, &["did you mean NewImage?"]),
            (
                r#"{"NewImage": {"a": {"S": ["x"]}}}"#,
                &["belongs in dynamodb", r#"{"dynamodb": {"NewImage": {"a": {"S": [...]}}}}"#],
            ),
            (
                r#"{"dynamodb": {"NewImage": {"status": ["paid"]}}}"#,
                &["lacks the attribute's type", r#"{"status": {"S": [...]}}"#],
            ),
            (r#"{"dynamodb": {"NewImage": {"n": [5]}}}"#, &[r#"{"n": {"N": [...]}}"#]),
            (r#"{"dynamodb": {"NewImage": {"ok": [true]}}}"#, &[r#"{"ok": {"BOOL": [...]}}"#]),
            (
                r#"{"dynamodb": {"NewImage": {"n": {"N": [{"numeric": [">", 40]}]}}}}"#,
                &["DynamoDB writes an N in quotes", "numeric matches no text"],
            ),
            (r#"{"dynamodb": {"NewImage": {"n": {"N": [5]}}}}"#, &[r#"such as ["5"]"#]),
            (r#"{"dynamodb": {"NewImage": {"a": {"s": ["x"]}}}}"#, &["did you mean S?"]),
            (r#"{"dynamodb": {"NewImage": {"a": {"city": ["x"]}}}}"#, &["belong in its M"]),
            (r#"{"dynamodb": {"NewImage": {"a": {"M": {"b": ["x"]}}}}}"#, &["lacks the attribute's type"]),
            (r#"{"dynamodb": {"NewImage": {"a": {"L": ["x"]}}}}"#, &[r#"{"L": {"S": [...]}}"#]),
            (r#"{"dynamodb": {"Keys": {"a": {"BOOL": ["true"]}}}}"#, &["write [true] or [false]"]),
            (r#"{"dynamodb": {"StreamViewType": ["NEW"]}}"#, &["one of KEYS_ONLY"]),
            (r#"{"eventName": ["insert"]}"#, &["one of INSERT, MODIFY, REMOVE"]),
            (r#"{"status": ["paid"]}"#, &[r#"{"dynamodb": {"NewImage": {"status": {"S": [...]}}}}"#]),
            (r#"{"data": {"a": [1]}}"#, &["is no field of a DynamoDB record"]),
        ],
    );
}

#[test]
fn incident_103_nothing_is_said_about_a_pattern_that_a_record_may_match() {
    for pattern in [
        r#"{"data": {"kind": ["order"], "n": [{"numeric": [">", 0]}]}}"#,
        r#"{"body": [{"exists": false}]}"#,
        r#"{"partitionKey": [7, "7"], "eventID": [{"exists": true}]}"#,
        r#"{"approximateArrivalTimestamp": [{"numeric": [">", 0]}]}"#,
        r#"{"eventSource": [{"prefix": "aws:"}], "eventName": [{"anything-but": ["x"]}]}"#,
        r#"{"partitionKey": [{"anything-but": [7]}]}"#,
        r#"{"awsRegion": ["us-east-2"]}"#,
    ] {
        assert_eq!(said(&kinesis(), pattern), Vec::<String>::new(), "{pattern}");
    }
    for pattern in [
        r#"{"dynamodb": {"NewImage": {"n": {"N": ["5"]}, "a": {"M": {"b": {"L": {"S": ["x"]}}}}}}}"#,
        r#"{"dynamodb": {"NewImage": {"a": [{"exists": false}], "t": {"SS": ["x"]}}}}"#,
        r#"{"dynamodb": {"OldImage": {"n": {"N": [{"anything-but": [5]}]}}, "SizeBytes": [{"numeric": ["<", 9]}]}}"#,
        r#"{"userIdentity": {"type": ["Service"]}, "eventName": [{"prefix": "RE"}]}"#,
        r#"{"dynamodb": {"NewImage": {"gone": {"NULL": [true]}}}}"#,
    ] {
        assert_eq!(said(&dynamodb(), pattern), Vec::<String>::new(), "{pattern}");
    }
}

#[test]
fn incident_103_an_alternative_that_cannot_match_is_told_from_a_pattern_that_cannot() {
    let or = r#"{"$or": [{"body": {"a": [1]}}, {"data": {"a": [1]}}]}"#;
    let found = filter(or).never_matching();
    assert_eq!(found.len(), 1);
    assert!(found[0].alternative && found[0].to_string().starts_with("an alternative of its $or"));
    let both = r#"{"$or": [{"body": {"a": [1]}}, {"value": {"a": [1]}}]}"#;
    let found = filter(both).never_matching();
    assert_eq!((found.len(), found[0].alternative), (1, false));
    let filter =
        Filter::parse(&kinesis(), &[r#"{"data": {"a": [1]}}"#, r#"{"kind": [1]}"#]).unwrap().unwrap();
    assert_eq!(filter.never_matching().iter().map(|never| never.pattern).collect::<Vec<_>>(), [1]);
}
