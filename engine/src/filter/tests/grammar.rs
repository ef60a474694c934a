//! What is a pattern and what is not, and how a mistake reads.

use super::{data, kinesis, passes, shard};
use crate::filter::{Filter, FilterError, FilterErrorKind as Kind, FilterSource};

fn error(pattern: &str) -> FilterError {
    Filter::parse(&kinesis(), &[pattern]).expect_err(pattern)
}

#[test]
fn test_dynamodb_invalid_event_filter_single_string_and_malformed_json() {
    let source = FilterSource::DynamoDb { event_source_arn: "arn".into() };
    for pattern in ["single-string", r#""single-string""#, r#"[{"eventName": ["INSERT"=123}]"#, ""] {
        let error = Filter::parse(&source, &[pattern]).expect_err(pattern);
        assert_eq!(error.aws_message(), Some("Invalid filter pattern definition."), "{pattern}");
    }
}

#[test]
fn r58_a_kinesis_pattern_whose_data_is_no_json_object_is_refused() {
    for pattern in [r#"{"data": ["text"]}"#, r#"{"data": "text"}"#, r#"{"data": [{"exists": true}]}"#] {
        let error = error(pattern);
        assert_eq!((error.kind(), error.path()), (Kind::InvalidForm, "data"), "{pattern}");
        assert_eq!(error.aws_message(), Some("Invalid filter pattern definition."));
    }
    let elsewhere = FilterSource::DynamoDb { event_source_arn: "arn".into() };
    assert!(
        Filter::parse(&elsewhere, &[r#"{"data": ["text"]}"#]).is_ok(),
        "no field of that source, but a pattern"
    );
}

#[test]
fn r55_what_is_no_pattern_is_refused_with_its_place() {
    for (pattern, kind, path) in [
        ("{}", Kind::InvalidForm, ""),
        ("[]", Kind::InvalidForm, ""),
        (r#"{"data": {}}"#, Kind::InvalidForm, "data"),
        (r#"{"data": {"a": {}}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": []}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": "x"}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": null}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [["x"]]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"prefix": "x", "suffix": "y"}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"prefix": 1}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"prefix": {"suffix": "x"}}]}}"#, Kind::UnknownOperator, "data.a"),
        (r#"{"data": {"a": [{"equals-ignore-case": ["x"]}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"exists": "true"}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"wildcard": "x*"}]}}"#, Kind::UnknownOperator, "data.a"),
        (r#"{"data": {"a": [{"cidr": "10.0.0.0"}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"cidr": "10.0.0.0/33"}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"cidr": "::1/+1"}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"cidr": 10}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"startswith": "x"}]}}"#, Kind::UnknownOperator, "data.a"),
        (r#"{"data": {"a": [{"anything-but": []}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"anything-but": ["x", 1]}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"anything-but": [null]}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"anything-but": true}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"anything-but": {"prefix": ""}}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"anything-but": {"prefix": []}}]}}"#, Kind::InvalidForm, "data.a"),
        (r#"{"data": {"a": [{"anything-but": {"numeric": ["=", 1]}}]}}"#, Kind::UnknownOperator, "data.a"),
        (r#"{"$or": {"partitionKey": ["x"]}}"#, Kind::InvalidForm, ""),
        (r#"{"$or": [{"partitionKey": ["x"]}]}"#, Kind::InvalidForm, ""),
        (r#"{"$or": [{"partitionKey": ["x"]}, "y"]}"#, Kind::InvalidForm, ""),
        (r#"{"$or": [{"prefix": ["x"]}, {"data": {"a": [1]}}]}"#, Kind::InvalidForm, ""),
        (r#"{"data": {"a": [1], "$or": [{"a": [2]}, {"b": [3]}]}}"#, Kind::Twice, "data.a"),
        (r#"{"kinesis": {"data": {"a": [1]}}}"#, Kind::UnknownField, "kinesis"),
        ("{\"data\": {\"a\": [\"\u{7}\"]}}", Kind::NotJson, ""),
        (r#"{"data": {"a": ["\ud800"]}}"#, Kind::NotJson, "data.a"),
        (r#"{"data": {"a": [1]}} {}"#, Kind::NotJson, ""),
    ] {
        let error = error(pattern);
        assert_eq!((error.kind(), error.path()), (kind, path), "{pattern}: {error}");
    }
}

#[test]
fn r55_a_numeric_rule_is_an_equality_or_a_range() {
    for terms in [
        r#""=""#,
        r#"["="]"#,
        r#"["=", "1"]"#,
        r#"["<", 1, "<", 2]"#,
        r#"[">", 1, ">", 2]"#,
        r#"["<", 5, ">", 0]"#,
        r#"["=", 1, "<", 2]"#,
        r#"[">", 5, "<", 5]"#,
        r#"[">", 5, "<", 4.9]"#,
        r#"["!=", 1]"#,
        r#"[">", 1, "=", 2]"#,
        r#"[1, ">"]"#,
        "[]",
        r#"[">", 0, "<", 1, "<", 2]"#,
        r#"[">", null]"#,
    ] {
        assert_eq!(
            error(&format!(r#"{{"data": {{"a": [{{"numeric": {terms}}}]}}}}"#)).kind(),
            Kind::InvalidForm,
            "{terms}"
        );
    }
}

#[test]
fn p14_limits_of_number_and_length() {
    let none: [&str; 0] = [];
    assert_eq!(Filter::parse(&kinesis(), &none).unwrap(), None, "an empty list is no filter");
    let pattern = r#"{"partitionKey": ["x"]}"#;
    assert!(Filter::parse(&kinesis(), &[pattern; 10]).unwrap().is_some());
    let many = Filter::parse(&kinesis(), &[pattern; 11]).unwrap_err();
    assert_eq!((many.kind(), many.pattern(), many.aws_message()), (Kind::TooMany, None, None));
    // Characters, not bytes.
    let sized = |length: usize| format!("{{\"partitionKey\": [\"{}\"]}}", "é".repeat(length - 22));
    assert!(Filter::parse(&kinesis(), &[sized(4096)]).is_ok());
    let long = Filter::parse(&kinesis(), &[sized(4097)]).unwrap_err();
    assert_eq!((long.kind(), long.pattern()), (Kind::TooLong, Some(0)));
}

#[test]
fn deep_patterns_and_many_combinations_are_refused_before_they_cost_anything() {
    let nested = |depth: usize| format!("{}[1]{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(Filter::parse(&kinesis(), &[nested(100)]).is_ok());
    assert_eq!(error(&nested(101)).kind(), Kind::InvalidForm);
    assert_eq!(error(&nested(600)).kind(), Kind::InvalidForm);
    assert_eq!(error(&"[".repeat(4096)).kind(), Kind::NotJson);
    let ors = |count: usize| {
        let or = |i: usize| format!(r#""k{i}":{{"$or":[{{"a":[1]}},{{"b":[1]}}]}}"#);
        format!("{{{}}}", (0..count).map(or).collect::<Vec<_>>().join(","))
    };
    assert!(Filter::parse(&kinesis(), &[ors(9)]).is_ok(), "512 combinations");
    assert_eq!(error(&ors(10)).kind(), Kind::TooManyCombinations);
    assert_eq!(error(&ors(90)).kind(), Kind::TooManyCombinations);
    assert_eq!(Filter::parse(&kinesis(), &[ors(9), ors(9)]).unwrap_err().kind(), Kind::TooManyCombinations);
}

#[test]
fn a_mistake_reads_as_which_filter_where_what_and_what_to_do() {
    let patterns = [r#"{"partitionKey": ["x"]}"#, r#"{"data": {"order": {"kind": "buy"}}}"#];
    let error = Filter::parse(&kinesis(), &patterns).unwrap_err();
    assert_eq!(
        error.to_string(),
        "filter 2: data.order.kind: a field has an object or a list of rules, nothing else; write its values as a list, \
         such as [\"value\"]"
    );
    let error = self::error(r#"{"data": {"a": [1 2]}}"#);
    assert!(
        error.to_string().starts_with("filter 1: the pattern is not JSON: expected `,` or `]` at line 1"),
        "{error}"
    );
}

#[test]
fn r55_operators_are_field_names_where_no_operator_can_stand() {
    assert!(passes(
        r#"{"data": {"prefix": ["x"], "numeric": {"exists": [1]}}}"#,
        r#"{"prefix": "x", "numeric": {"exists": 1}}"#
    ));
}

#[test]
fn filters_are_equal_that_were_compiled_from_the_same_texts() {
    let parse = |text: &str| Filter::parse(&kinesis(), &[text]).unwrap().unwrap();
    let (a, b) = (parse(r#"{"data": {"a": [1]}}"#), parse(r#"{"data": {"a": [2]}}"#));
    assert_eq!(a, a.clone());
    assert_ne!(a, b);
    assert_eq!(std::collections::HashSet::from([a.clone(), b, a.clone()]).len(), 2);
    assert_eq!(a.patterns().collect::<Vec<_>>(), [r#"{"data": {"a": [1]}}"#]);
    assert!(a.clone().matches(&data(r#"{"a": 1}"#), &shard()));
}
