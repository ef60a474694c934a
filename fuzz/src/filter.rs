//! Filter patterns, and the data that they judge.

use serde::de::IgnoredAny;
use serde_json::Value;
use shardmill_engine::{Data, Filter, FilterSource, Record, Seq, ShardId};

use crate::naive;

fn kinesis() -> FilterSource {
    FilterSource::Kinesis {
        event_source_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/orders".into(),
        region: "us-east-1".into(),
        invoke_identity_arn: "arn:aws:iam::000000000000:role/shardmill".into(),
    }
}

fn passes(filter: &Filter, data: &[u8]) -> bool {
    let record = Record::new(Seq::plain("1"), Some("key".to_owned()), None, Data::Raw(data.to_vec().into()));
    filter.matches(&record, &ShardId::from("shardId-0"))
}

/// Any text as a filter pattern: compiled or refused, and what is compiled judges records.
pub fn filter_pattern(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let dynamodb = FilterSource::DynamoDb { event_source_arn: "arn".into() };
    for source in [kinesis(), dynamodb] {
        match Filter::parse(&source, &[text]) {
            Ok(filter) => {
                let filter = filter.expect("there is a pattern");
                assert!(text.chars().count() <= Filter::MAXIMUM_LENGTH, "too long");
                assert!(
                    serde_json::from_str::<IgnoredAny>(text).is_ok() && text.trim_start().starts_with('{')
                );
                for data in [&b"{}"[..], br#"{"a": [1, {"b": "x"}], "c": null}"#, b"no JSON", input] {
                    let _ = passes(&filter, data);
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty() && error.pattern() == Some(0));
            }
        }
    }
}

/// The first line is a pattern for `data`, the rest is the data. Where both mean the same to the naive evaluator, it
/// must agree; what is not JSON never passes.
pub fn filter_data(input: &[u8]) {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (pattern, data) = (&input[..end], &input[end + 1..]);
    let Ok(pattern) = std::str::from_utf8(pattern) else { return };
    let pattern = format!("{{\"data\":{pattern}}}");
    let Ok(Some(filter)) = Filter::parse(&kinesis(), &[&pattern]) else { return };
    let judged = passes(&filter, data);
    let Some(text) =
        std::str::from_utf8(data).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
    else {
        assert!(!judged, "data that is not JSON passed");
        return;
    };
    let event = format!("{{\"data\":{text}}}");
    if !comparable(&pattern) || !comparable(&event) || pattern.len() > 400 || event.len() > 2_000 {
        return;
    }
    // Deep nesting and halves of surrogate pairs are more than a tree of values takes.
    let (Ok(pattern), Ok(event)) =
        (serde_json::from_str::<Value>(&pattern), serde_json::from_str::<Value>(&event))
    else {
        return;
    };
    assert_eq!(judged, naive::matches(&pattern, &event), "{pattern} and {event}");
}

/// Whether the naive evaluator is exact: numbers that a double holds, letters whose case is a matter of one character.
fn comparable(text: &str) -> bool {
    let bytes = text.as_bytes();
    let long = bytes.split(|byte| !byte.is_ascii_digit() && *byte != b'.').any(|digits| digits.len() > 15);
    let power = bytes.windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1].eq_ignore_ascii_case(&b'e'));
    text.is_ascii() && !text.contains("\\u") && !long && !power
}
