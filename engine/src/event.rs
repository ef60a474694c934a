//! The event that a function gets, as exact JSON (lambda-esm.md, section 3.1).

use std::sync::Arc;

use bytes::Bytes;

use crate::json::{escaped_len, push_escaped};
use crate::record::{Batch, Data, Record, ShardId};
use crate::time::Wall;

/// What an event says beside its records; the same for all invocations of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventContext {
    /// The stream's ARN.
    pub event_source_arn: Arc<str>,
    /// The stream's region.
    pub region: Arc<str>,
    /// The role in `invokeIdentityArn`.
    pub invoke_identity_arn: Arc<str>,
    /// The shard.
    pub shard: ShardId,
}

const OPEN: &[u8] = br#"{"Records":["#;
const CLOSE: &[u8] = b"]}";
const HEAD: &[u8] = br#"{"kinesis":{"kinesisSchemaVersion":"1.0","#;
const KEY: &[u8] = br#""partitionKey":""#;
const KEY_END: &[u8] = br#"","#;
const NUMBER: &[u8] = br#""sequenceNumber":""#;
const DATA: &[u8] = br#"","data":""#;
const ARRIVAL: &[u8] = br#"","approximateArrivalTimestamp":"#;
const NO_ARRIVAL: &[u8] = br#"""#;

/// Encodes the Kinesis event of `batch`, byte for byte as Lambda writes it (lambda-esm.md, section 3.1).
///
/// A payload that arrived as base64 is copied as it is; raw bytes are encoded straight into the event. The times are
/// seconds with up to three decimals, `.0` for a whole second.
///
/// What Lambda writes for a record without a partition key or without an arrival time is not known; here the field is
/// left out.
#[must_use]
pub fn encode(batch: &Batch, cx: &EventContext) -> Bytes {
    let fixed = Fixed::new(cx);
    let mut out = Vec::with_capacity(fixed.event_len(batch));
    out.extend_from_slice(OPEN);
    for (index, record) in batch.records().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        fixed.push_record(&mut out, record);
    }
    out.extend_from_slice(CLOSE);
    Bytes::from(out)
}

/// The exact size in bytes of the event of `batch`, which is what a payload limit counts (R5), without encoding it.
#[must_use]
pub fn encoded_len(batch: &Batch, cx: &EventContext) -> usize {
    Fixed::new(cx).event_len(batch)
}

/// The parts that all records of a shard share, written once per event.
struct Fixed {
    /// From the end of the `kinesis` object up to the event id's sequence number.
    to_event_id: Vec<u8>,
    /// From the event id's closing quote to the end of the record.
    tail: Vec<u8>,
}

impl Fixed {
    fn new(cx: &EventContext) -> Self {
        let mut to_event_id = br#"},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":""#.to_vec();
        push_escaped(&mut to_event_id, cx.shard.as_str());
        to_event_id.push(b':');

        let mut tail = br#"","eventName":"aws:kinesis:record","invokeIdentityArn":""#.to_vec();
        push_escaped(&mut tail, &cx.invoke_identity_arn);
        tail.extend_from_slice(br#"","awsRegion":""#);
        push_escaped(&mut tail, &cx.region);
        tail.extend_from_slice(br#"","eventSourceARN":""#);
        push_escaped(&mut tail, &cx.event_source_arn);
        tail.extend_from_slice(br#""}"#);
        Self { to_event_id, tail }
    }

    fn event_len(&self, batch: &Batch) -> usize {
        let commas = batch.len() - 1;
        let records: usize = batch.records().iter().map(|record| self.record_len(record)).sum();
        OPEN.len() + records + commas + CLOSE.len()
    }

    fn record_len(&self, record: &Record) -> usize {
        let key = record.partition_key.as_ref().map_or(0, |key| KEY.len() + escaped_len(key) + KEY_END.len());
        let data = match &record.data {
            Data::Base64(text) => text.len(),
            Data::Raw(bytes) => base64_simd::STANDARD.encoded_length(bytes.len()),
        };
        let arrival = record.arrival.map_or(NO_ARRIVAL.len(), |at| ARRIVAL.len() + seconds_len(at));
        // The sequence number comes twice: in its own field and in the event id.
        let number = 2 * escaped_len(record.seq.number.as_str());
        let constant = HEAD.len() + NUMBER.len() + DATA.len() + self.to_event_id.len() + self.tail.len();
        constant + key + number + data + arrival
    }

    fn push_record(&self, out: &mut Vec<u8>, record: &Record) {
        let number = record.seq.number.as_str();
        out.extend_from_slice(HEAD);
        if let Some(key) = &record.partition_key {
            out.extend_from_slice(KEY);
            push_escaped(out, key);
            out.extend_from_slice(KEY_END);
        }
        out.extend_from_slice(NUMBER);
        push_escaped(out, number);
        out.extend_from_slice(DATA);
        match &record.data {
            Data::Base64(text) => out.extend_from_slice(text),
            Data::Raw(bytes) => base64_simd::STANDARD.encode_append(bytes, out),
        }
        match record.arrival {
            Some(at) => {
                out.extend_from_slice(ARRIVAL);
                push_seconds(out, at);
            }
            None => out.extend_from_slice(NO_ARRIVAL),
        }
        out.extend_from_slice(&self.to_event_id);
        push_escaped(out, number);
        out.extend_from_slice(&self.tail);
    }
}

/// A time as sign, whole seconds and up to three decimals without trailing zeros.
struct Seconds {
    negative: bool,
    whole: u64,
    decimals: [u8; 3],
    shown: usize,
}

impl Seconds {
    fn of(at: Wall) -> Self {
        let millis = at.as_millis().unsigned_abs();
        let below = millis % 1000;
        let digit = |n: u64| b'0' + u8::try_from(n % 10).expect("a remainder of 10 fits a byte");
        let shown = match below {
            n if n % 100 == 0 => 1,
            n if n % 10 == 0 => 2,
            _ => 3,
        };
        Self {
            negative: at.as_millis() < 0,
            whole: millis / 1000,
            decimals: [digit(below / 100), digit(below / 10), digit(below)],
            shown,
        }
    }
}

fn push_seconds(out: &mut Vec<u8>, at: Wall) {
    let seconds = Seconds::of(at);
    if seconds.negative {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(seconds.whole).as_bytes());
    out.push(b'.');
    out.extend_from_slice(&seconds.decimals[..seconds.shown]);
}

fn seconds_len(at: Wall) -> usize {
    let seconds = Seconds::of(at);
    let digits = seconds.whole.checked_ilog10().map_or(1, |log| log as usize + 1);
    usize::from(seconds.negative) + digits + 1 + seconds.shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::position::Seq;

    /// The event of section 3.1; the line breaks that it is shown with are not part of it.
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
        let event = encode(&batch, cx);
        assert_eq!(event.len(), encoded_len(&batch, cx));
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
    fn times_print_as_a_float_would_with_at_least_one_decimal() {
        for (ms, expected) in [
            (1_545_084_650_987, "1545084650.987"),
            (1_545_084_650_980, "1545084650.98"),
            (1_545_084_650_500, "1545084650.5"),
            (1_545_084_650_000, "1545084650.0"),
            (1_545_084_650_007, "1545084650.007"),
            (1_545_084_650_070, "1545084650.07"),
            (0, "0.0"),
            (999, "0.999"),
            (-1500, "-1.5"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            let mut out = Vec::new();
            push_seconds(&mut out, Wall::from_millis(ms));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert_eq!(seconds_len(Wall::from_millis(ms)), expected.len(), "{ms}");
        }
    }

    #[test]
    fn what_a_record_does_not_have_is_left_out() {
        let event: Value =
            serde_json::from_str(&text(vec![record(None, None, raw(b""))], &context())).unwrap();
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
        let data =
            (proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()).prop_map(|(bytes, raw)| {
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
            let event = encode(&batch, &cx);
            prop_assert_eq!(event.len(), encoded_len(&batch, &cx));
            let value: Value = serde_json::from_slice(&event).unwrap();
            let read = value["Records"].as_array().unwrap();
            prop_assert_eq!(read.len(), batch.len());
            for (read, put) in read.iter().zip(batch.records()) {
                let kinesis = &read["kinesis"];
                let number = put.seq.number.as_str();
                prop_assert_eq!(kinesis["sequenceNumber"].as_str(), Some(number));
                prop_assert_eq!(kinesis.get("partitionKey").and_then(Value::as_str), put.partition_key.as_deref());
                prop_assert_eq!(read["eventID"].as_str().unwrap(), format!("{shard}:{number}"));
                let data = Data::Base64(kinesis["data"].as_str().unwrap().to_owned().into());
                prop_assert_eq!(data.bytes().unwrap(), put.data.bytes().unwrap());
                let arrival = kinesis.get("approximateArrivalTimestamp").map(|at| at.as_f64().unwrap());
                prop_assert_eq!(arrival, put.arrival.map(|at| at.as_millis() as f64 / 1000.0));
            }
        }
    }
}
