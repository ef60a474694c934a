//! Kinesis: data and metadata (R57, R58).

use bytes::Bytes;
use proptest::prelude::*;

use super::{NUMBER, data, filter, kinesis, passes, shard};
use crate::Seq;
use crate::filter::Filter;
use crate::record::{Data, Record};

#[test]
fn test_kinesis_event_filtering_json_pattern() {
    // R57: two functions on one stream, each with a pattern of its own.
    let put = [
        r#"{"event_type": "function_1", "message": "foo"}"#,
        r#"{"event_type": "function_2", "message": "foo"}"#,
    ];
    for (function, expected) in [("function_1", [true, false]), ("function_2", [false, true])] {
        let filter = filter(&format!(r#"{{"data": {{"event_type": ["{function}"]}}}}"#));
        assert_eq!(put.map(|text| filter.matches(&data(text), &shard())), expected, "{function}");
    }
}

#[test]
fn r57_metadata_stands_at_the_top_of_the_pattern() {
    for (pattern, expected) in [
        (r#"{"partitionKey": ["customer-7"]}"#, true),
        (r#"{"partitionKey": [{"prefix": "customer-"}], "sequenceNumber": [{"exists": true}]}"#, true),
        (r#"{"partitionKey": ["customer-8"]}"#, false),
        (r#"{"sequenceNumber": ["49590338271490256608559692538361571095921575989136588898"]}"#, true),
        (r#"{"approximateArrivalTimestamp": [{"numeric": [">=", 1545084650.987, "<", 1545084651]}]}"#, true),
        (r#"{"approximateArrivalTimestamp": [{"numeric": ["<", 1545084650.987]}]}"#, false),
        (r#"{"eventID": [{"prefix": "shardId-000000000006:4959"}]}"#, true),
        (r#"{"eventID": [{"prefix": "shardId-000000000007:"}]}"#, false),
        (
            r#"{"kinesisSchemaVersion": ["1.0"], "eventVersion": ["1.0"], "eventSource": ["aws:kinesis"]}"#,
            true,
        ),
        (r#"{"eventName": ["aws:kinesis:record"], "awsRegion": ["us-east-2"]}"#, true),
        (r#"{"awsRegion": ["us-east-1"]}"#, false),
        (r#"{"eventSourceARN": [{"suffix": "stream/lambda-stream"}]}"#, true),
        (r#"{"invokeIdentityArn": ["arn:aws:iam::123456789012:role/lambda-role"]}"#, true),
        (r#"{"noSuchField": [{"exists": false}]}"#, true),
        (r#"{"noSuchField": [{"exists": true}]}"#, false),
        (r#"{"noSuchField": {"a": [{"exists": false}]}, "partitionKey": {"b": [{"exists": false}]}}"#, true),
    ] {
        // R58: a pattern without data does not mind what the data is.
        for text in [r#"{"a": 1}"#, "no JSON", ""] {
            assert_eq!(passes(pattern, text), expected, "{pattern}");
        }
    }
}

#[test]
fn r57_a_field_that_the_record_does_not_have_does_not_exist() {
    let bare = Record::new(Seq::plain(NUMBER), None, None, Data::Raw(Bytes::new()));
    for field in ["partitionKey", "approximateArrivalTimestamp"] {
        for (exists, expected) in [(false, true), (true, false)] {
            let filter = filter(&format!(r#"{{"{field}": [{{"exists": {exists}}}]}}"#));
            assert_eq!(filter.matches(&bare, &shard()), expected, "{field}");
        }
    }
}

#[test]
fn r58_data_that_is_not_json_passes_no_pattern_that_names_data() {
    let absent = r#"{"data": {"a": [{"exists": false}]}}"#;
    assert!(passes(absent, r#"{"b": 1}"#) && passes(absent, "7") && passes(absent, r#" "text" "#));
    for text in [
        "",
        " ",
        "text",
        r#"{"b": 1"#,
        r#"{"b": 1}}"#,
        r#"{"b": 1} x"#,
        r#"{"b": 01}"#,
        r#"{"b": tru}"#,
        "{'b': 1}",
        r#"{"b": 1,}"#,
        "{\"b\": \"line\nbreak\"}",
        r#"{"b": "\x"}"#,
        "\u{feff}{}",
    ] {
        assert!(!passes(absent, text), "{text}");
    }
    // A match that comes before the damage does not help.
    let found = r#"{"data": {"a": [1]}}"#;
    assert!(passes(found, r#"{"a": 1, "b": [2]}"#));
    for text in [r#"{"a": 1, "b": [2}"#, r#"{"a": 1} {"a": 1}"#, r#"{"a": 1, "b": "open"#] {
        assert!(!passes(found, text), "{text}");
    }
    let not_utf8 = Data::Raw(Bytes::from_static(b"{\"a\": 1, \"b\": \"\xff\"}"));
    assert!(!filter(found).matches(&Record::new(Seq::plain("1"), None, None, not_utf8), &shard()));
}

#[test]
fn r58_each_pattern_minds_its_own_data() {
    let patterns = [r#"{"data": {"a": [1]}}"#, r#"{"partitionKey": ["customer-7"]}"#];
    let either = Filter::parse(&kinesis(), &patterns).unwrap().unwrap();
    assert!(either.matches(&data("no JSON"), &shard()), "the second pattern does not name data");
    let or = filter(r#"{"$or": [{"data": {"a": [1]}}, {"partitionKey": ["customer-7"]}]}"#);
    assert!(or.matches(&data("no JSON"), &shard()));
}

#[test]
fn r58_of_two_equal_keys_the_last_one_counts() {
    let one = r#"{"data": {"a": [1]}}"#;
    assert!(passes(one, r#"{"a": 2, "a": 1}"#) && !passes(one, r#"{"a": 1, "a": 2}"#));
    assert!(!passes(one, r#"{"a": 1, "\u0061": 2}"#), "keys are compared with their escapes resolved");
    let below = r#"{"data": {"a": {"b": [1]}}}"#;
    assert!(!passes(below, r#"{"a": {"b": 1}, "a": {"c": 1}}"#), "the last object replaces the first");
    // In a pattern, too.
    assert!(passes(r#"{"data": {"a": [2], "a": [1]}}"#, r#"{"a": 1}"#));
}

#[test]
fn r58_the_text_of_a_value_elsewhere_in_the_data_changes_nothing() {
    let pattern = r#"{"data": {"status": ["active"]}}"#;
    assert!(!passes(pattern, r#"{"state": "active", "status": "idle"}"#));
    assert!(!passes(pattern, r#"{"note": "\"status\": \"active\""}"#));
    assert!(!passes(pattern, r#"{"inner": {"status": "active"}}"#));
    assert!(passes(pattern, r#"{"note": "a \"quoted\" word", "status": "\u0061ctive"}"#));
}

#[test]
fn r58_escapes_hide_no_match() {
    let pattern = r#"{"data": {"a/b": ["c/d"]}}"#;
    for text in
        [r#"{"a\/b": "c\/d"}"#, r#"{"a/b": "c\/d"}"#, r#"{"a/b": "\u0063/d"}"#, r#"{"a\u002fb": "c/d"}"#]
    {
        assert!(passes(pattern, text), "{text}");
    }
}

#[test]
fn r57_data_is_judged_in_whichever_form_it_arrived() {
    let filter = filter(r#"{"data": {"a": [1]}}"#);
    for (text, expected) in
        [("eyJhIjoxfQ==", true), ("eyJhIjoyfQ==", false), ("eyJhIjoxfQ", false), ("%", false)]
    {
        let record =
            Record::new(Seq::plain("1"), None, None, Data::Base64(Bytes::from_static(text.as_bytes())));
        assert_eq!(filter.matches(&record, &shard()), expected, "{text}");
    }
}

#[test]
fn r58_depth_and_size_do_no_harm() {
    let pattern = r#"{"data": {"a": [1]}}"#;
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"x\": {}1{}, \"a\": {}1{}}}",
            open.repeat(50_000),
            close.repeat(50_000),
            "[".repeat(9),
            "]".repeat(9)
        )
    };
    assert!(passes(pattern, &deep("[", "]")));
    assert!(passes(pattern, &deep("{\"y\":", "}")));
    assert!(passes(pattern, &format!("{{\"x\": \"{}\", \"a\": 1}}", "x".repeat(10 << 20))));
    assert!(!passes(pattern, &"[".repeat(1 << 20)));
}

#[test]
fn r55_one_of_several_filters_is_enough() {
    let patterns = [r#"{"data": {"a": [1]}}"#, r#"{"data": {"b": [2]}}"#, r#"{"awsRegion": ["elsewhere"]}"#];
    let filter = Filter::parse(&kinesis(), &patterns).unwrap().unwrap();
    let judged =
        [r#"{"a": 1}"#, r#"{"b": 2}"#, r#"{"a": 2, "b": 1}"#].map(|t| filter.matches(&data(t), &shard()));
    assert_eq!(judged, [true, true, false]);
    assert!(!passes(patterns[2], r#"{"a": 1}"#), "nothing passes a filter about another region");
}

proptest! {
    #[test]
    fn a_filter_for_a_page_judges_as_for_single_records(texts in prop::collection::vec("[{}\"a:1 ]{0,12}", 0..20)) {
        let filter = filter(r#"{"data": {"a": [{"exists": false}, 1]}}"#);
        let shard = shard();
        let mut of_shard = filter.of_shard(&shard);
        for text in &texts {
            for data in [Data::Raw(text.clone().into()), Data::Base64(base64_simd::STANDARD.encode_to_string(text).into())] {
                let record = Record::new(Seq::plain("1"), None, None, data);
                prop_assert_eq!(of_shard(&record), filter.matches(&record, &shard));
            }
        }
    }
}
