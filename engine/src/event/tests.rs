//! Byte for byte against docs/semantics.md, section 3.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::position::Seq;
use crate::record::{Data, Record};
use crate::window::WindowCall;

/// The event of docs/semantics.md, section 3.1; the line breaks that it is shown with are not part of it.
const SECTION_3_1: &str = concat!(
    r#"{"Records":[{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"1","#,
    r#""sequenceNumber":"49590338271490256608559692538361571095921575989136588898","#,
    r#""data":"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==","approximateArrivalTimestamp":1545084650.987},"#,
    r#""eventSource":"aws:kinesis","eventVersion":"1.0","#,
    r#""eventID":"shardId-000000000006:49590338271490256608559692538361571095921575989136588898","#,
    r#""eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::123456789012:role/lambda-role","#,
    r#""awsRegion":"us-east-2","eventSourceARN":"arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"}]}"#,
);

const NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";

fn context() -> EventContext {
    EventContext {
        event_source_arn: "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream".into(),
        region: "us-east-2".into(),
        invoke_identity_arn: "arn:aws:iam::123456789012:role/lambda-role".into(),
        shard: "shardId-000000000006".into(),
    }
}

fn record(key: Option<&str>, arrival: Option<i64>, data: Data) -> Record {
    Record::new(Seq::plain(NUMBER), key.map(str::to_owned), arrival.map(Wall::from_millis), data)
}

fn text(records: Vec<Record>, cx: &EventContext) -> String {
    let batch = Batch::new(records).unwrap();
    let event = encode(&batch, cx, None);
    assert_eq!(event.len(), encoded_len(&batch, cx, None));
    String::from_utf8(event.to_vec()).unwrap()
}

fn raw(bytes: &'static [u8]) -> Data {
    Data::Raw(Bytes::from_static(bytes))
}

#[test]
fn the_event_equals_lambdas_own_byte_for_byte_in_whichever_form_the_data_arrived() {
    let base64 = Data::Base64(Bytes::from_static(b"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg=="));
    for data in [raw(b"Hello, this is a test."), base64] {
        assert_eq!(text(vec![record(Some("1"), Some(1_545_084_650_987), data)], &context()), SECTION_3_1);
    }
}

#[test]
fn records_are_separated_by_commas_in_order() {
    let two = text(
        vec![
            record(Some("1"), Some(1_545_084_650_987), raw(b"Hello, this is a test.")),
            record(Some("2"), Some(1_545_084_650_987), raw(b"Hello, this is a test.")),
        ],
        &context(),
    );
    let first = SECTION_3_1.strip_suffix("]}").unwrap();
    let second = SECTION_3_1.strip_prefix(r#"{"Records":["#).unwrap();
    let second = second.replace(r#""partitionKey":"1""#, r#""partitionKey":"2""#);
    assert_eq!(two, format!("{first},{second}"));
}

#[test]
fn what_a_record_does_not_have_is_left_out() {
    let event: Value = serde_json::from_str(&text(vec![record(None, None, raw(b""))], &context())).unwrap();
    let kinesis = event["Records"][0]["kinesis"].as_object().unwrap();
    let keys: Vec<_> = kinesis.keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.contains(&"kinesisSchemaVersion") && keys.contains(&"sequenceNumber"));
    assert_eq!(kinesis["data"], "", "an empty payload stays a field");
}

#[test]
fn names_with_quotes_cannot_break_the_event() {
    let mut cx = context();
    cx.shard = "shard \"6\"\\".into();
    cx.region = "us\n".into();
    let event: Value =
        serde_json::from_str(&text(vec![record(Some("\"\u{1}ü"), None, raw(b"x"))], &cx)).unwrap();
    let first = &event["Records"][0];
    assert_eq!(first["eventID"], format!("shard \"6\"\\:{NUMBER}"));
    assert_eq!(first["awsRegion"], "us\n");
    assert_eq!(first["kinesis"]["partitionKey"], "\"\u{1}ü");
}

fn any_record() -> impl Strategy<Value = Record> {
    let data = (proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()).prop_map(|(bytes, raw)| {
        if raw {
            Data::Raw(bytes.into())
        } else {
            Data::Base64(base64_simd::STANDARD.encode_to_string(bytes).into())
        }
    });
    // Times whose seconds a double holds exactly enough to be compared.
    let arrival = proptest::option::of(-4_000_000_000_000..4_000_000_000_000_i64);
    ("[0-9]{1,128}", any::<Option<String>>(), arrival, data).prop_map(|(number, key, arrival, data)| {
        Record::new(Seq::plain(number), key, arrival.map(Wall::from_millis), data)
    })
}

proptest! {
    #[test]
    fn r5_the_size_is_exact_and_serde_json_reads_back_what_was_put(
        records in proptest::collection::vec(any_record(), 1..8),
        shard in any::<String>(),
    ) {
        let cx = EventContext { shard: shard.as_str().into(), ..context() };
        let batch = Batch::new(records).unwrap();
        let event = encode(&batch, &cx, None);
        prop_assert_eq!(event.len(), encoded_len(&batch, &cx, None));
        let value: Value = serde_json::from_slice(&event).unwrap();
        let read = value["Records"].as_array().unwrap();
        prop_assert_eq!(read.len(), batch.len());
        for (read, put) in read.iter().zip(batch.records()) {
            let kinesis = &read["kinesis"];
            let number = put.seq.number.as_str();
            prop_assert_eq!(kinesis["sequenceNumber"].as_str(), Some(number));
            prop_assert_eq!(kinesis.get("partitionKey").and_then(Value::as_str), put.partition_key());
            prop_assert_eq!(read["eventID"].as_str().unwrap(), format!("{shard}:{number}"));
            let data = Data::Base64(kinesis["data"].as_str().unwrap().to_owned().into());
            prop_assert_eq!(data.bytes().unwrap(), put.bytes().unwrap());
            let arrival = kinesis.get("approximateArrivalTimestamp").map(|at| at.as_f64().unwrap());
            prop_assert_eq!(arrival, put.arrival.map(|at| at.as_millis() as f64 / 1000.0));
        }
    }
}

fn window(is_final: bool, is_terminated_early: bool, state: &'static str) -> WindowCall {
    WindowCall {
        start: Wall::from_millis(1_789_654_270_000),
        end: Wall::from_millis(1_789_654_280_000),
        state: Bytes::from_static(state.as_bytes()),
        is_final,
        is_terminated_early,
    }
}

/// What docs/semantics.md, section 3.3, shows behind the records.
const SECTION_3_3: &str = concat!(
    r#"],"shardId":"shardId-00000001789649399079-0d666f96","#,
    r#""eventSourceARN":"arn:aws:dynamodb:us-east-1:111111111111:table/T/stream/2026-09-17T14:10:44.560","#,
    r#""window":{"start":"2026-09-17T14:11:10Z","end":"2026-09-17T14:11:20Z"},"#,
    r#""state":{"count":2,"last_ordinal":2},"isFinalInvokeForWindow":false,"isWindowTerminatedEarly":false}"#,
);

#[test]
fn r65_an_event_of_a_window_equals_section_3_3_byte_for_byte_and_r67_the_final_one_has_no_records() {
    let cx = EventContext {
        event_source_arn: "arn:aws:dynamodb:us-east-1:111111111111:table/T/stream/2026-09-17T14:10:44.560"
            .into(),
        shard: "shardId-00000001789649399079-0d666f96".into(),
        ..context()
    };
    let state = r#"{"count":2,"last_ordinal":2}"#;
    let batch = Batch::new([record(None, None, raw(b"x"))]).unwrap();
    for (batch, call) in [
        (batch, window(false, false, state)),
        (Batch::empty(), window(true, false, state)),
        (Batch::empty(), window(true, true, "{}")),
    ] {
        let event = encode(&batch, &cx, Some(&call));
        assert_eq!(event.len(), encoded_len(&batch, &cx, Some(&call)), "R5");
        let expected = SECTION_3_3
            .replace(
                r#""isFinalInvokeForWindow":false"#,
                &format!(r#""isFinalInvokeForWindow":{}"#, call.is_final),
            )
            .replace(r#"Early":false"#, &format!(r#"Early":{}"#, call.is_terminated_early))
            .replace(state, std::str::from_utf8(&call.state).unwrap());
        let event = String::from_utf8(event.to_vec()).unwrap();
        assert!(event.ends_with(&expected), "{event}");
        let plain = String::from_utf8(encode(&batch, &cx, None).to_vec()).unwrap();
        assert_eq!(event.strip_suffix(&expected), plain.strip_suffix("]}"), "the records stay as they are");
    }
}
