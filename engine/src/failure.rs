//! The messages for the on-failure destination, as exact JSON (lambda-esm.md, sections 3.5 to 3.9).

use crate::json::push_escaped;
use crate::record::{Batch, Record, ShardId};
use crate::request::RequestId;
use crate::time::{Wall, write_iso8601};
use crate::window::WindowCall;

/// A batch that is given up, for its destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailedBatch {
    /// The records.
    pub batch: Batch,
    /// The shard that they came from.
    pub shard: ShardId,
    /// The request id of the last invocation.
    pub request_id: RequestId,
    /// Why it is given up.
    pub condition: Condition,
    /// How often the batch was invoked; at least 1 (R29).
    pub approximate_invoke_count: u32,
    /// What the function answered last; none if it never saw the batch (R24, R29).
    pub response: Option<FunctionResponse>,
    /// When it was given up, by the service's clock.
    pub at: Wall,
    /// The tumbling window that it belongs to.
    pub window: Option<WindowCall>,
}

/// Why a batch is given up (R78).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// All attempts failed.
    RetryAttemptsExhausted,
    /// The records are older than `MaximumRecordAgeInSeconds`.
    RecordAgeExceeded,
}

impl Condition {
    /// The text in the message's `condition`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
        }
    }
}

/// How the function's last answer is reported (R35, R40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionResponse {
    /// The function answered and named failed records: `functionError` is null.
    Returned,
    /// The function failed: `functionError` is `"Unhandled"`.
    Unhandled,
}

/// The names in a failure message; the same for all of a mapping's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureNames {
    /// The function's ARN as configured.
    pub function_arn: String,
    /// The numeric qualifier, else `$LATEST`.
    pub executed_version: String,
    /// The stream's ARN.
    pub stream_arn: String,
    /// The mapping's UUID, part of an S3 key.
    pub mapping_uuid: String,
}

/// The JSON text that SQS and SNS get for a Kinesis batch: its positions, not its records (R73; sections 3.5 and 3.7).
///
/// Byte for byte Lambda's. `responseContext` is left out if the function never saw the batch (R24) and whenever the
/// records were too old, however often they were invoked before (R28, R29). What Lambda writes for a record without an arrival time is not known; here its `approximateArrivalOf…` field is left out.
#[must_use]
pub fn message(failed: &FailedBatch, names: &FailureNames) -> String {
    let mut out = Vec::with_capacity(1024);
    push_request(&mut out, failed, names);
    out.extend_from_slice(br#""version":"1.0","#);
    push_batch(&mut out, failed, names);
    String::from_utf8(out).expect("it is put together from UTF-8 strings")
}

/// The JSON object that S3 gets for a Kinesis batch: [`message`] and, as a string, the `event` that the function got
/// (R73; section 3.9). One line without a line feed.
///
/// `event` is what [`encode`](crate::encode) made of the batch. Bytes that are not UTF-8, which it never makes, are
/// replaced by U+FFFD.
#[must_use]
pub fn object(failed: &FailedBatch, names: &FailureNames, event: &[u8]) -> Vec<u8> {
    // An event has about forty quotes a record; one that is all quotes would only cost a second allocation.
    let mut out = Vec::with_capacity(1024 + event.len() + 64 * failed.batch.len());
    push_request(&mut out, failed, names);
    out.extend_from_slice(br#""version":"1.0","payload":""#);
    match std::str::from_utf8(event) {
        Ok(text) => push_escaped(&mut out, text),
        Err(_) => push_escaped(&mut out, &String::from_utf8_lossy(event)),
    }
    out.extend_from_slice(br#"","#);
    push_batch(&mut out, failed, names);
    out
}

/// `{"requestContext":{…},["responseContext":{…},]`
fn push_request(out: &mut Vec<u8>, failed: &FailedBatch, names: &FailureNames) {
    out.extend_from_slice(br#"{"requestContext":{"#);
    push_field(out, "requestId", &failed.request_id.to_string());
    out.push(b',');
    push_field(out, "functionArn", &names.function_arn);
    out.push(b',');
    push_field(out, "condition", failed.condition.as_str());
    out.extend_from_slice(br#","approximateInvokeCount":"#);
    push_number(out, failed.approximate_invoke_count);
    out.extend_from_slice(b"},");
    // Lambda never tells a response with this condition, not even after eight invocations (R28, R29).
    let told = failed.response.filter(|_| failed.condition != Condition::RecordAgeExceeded);
    if let Some(response) = told {
        out.extend_from_slice(br#""responseContext":{"statusCode":200,"#);
        push_field(out, "executedVersion", &names.executed_version);
        out.extend_from_slice(match response {
            FunctionResponse::Returned => br#","functionError":null},"#,
            FunctionResponse::Unhandled => br#","functionError":"Unhandled"},"#,
        });
    }
}

/// `"timestamp":"…","KinesisBatchInfo":{…}}`
fn push_batch(out: &mut Vec<u8>, failed: &FailedBatch, names: &FailureNames) {
    push_field(out, "timestamp", &iso_millis(failed.at));
    out.extend_from_slice(br#","KinesisBatchInfo":{"#);
    push_field(out, "shardId", failed.shard.as_str());
    out.push(b',');
    // The final call of a tumbling window has no records, and its message nothing about them.
    if let (Some(first), Some(last)) = (failed.batch.first(), failed.batch.last()) {
        push_field(out, "startSequenceNumber", first.seq.number.as_str());
        out.push(b',');
        push_field(out, "endSequenceNumber", last.seq.number.as_str());
        push_arrival(out, "approximateArrivalOfFirstRecord", first);
        push_arrival(out, "approximateArrivalOfLastRecord", last);
        out.extend_from_slice(br#","batchSize":"#);
        push_number(out, failed.batch.len());
        out.push(b',');
    }
    push_field(out, "streamArn", &names.stream_arn);
    out.extend_from_slice(b"}}");
}

fn push_arrival(out: &mut Vec<u8>, name: &str, record: &Record) {
    if let Some(at) = record.arrival {
        out.push(b',');
        push_field(out, name, &iso_millis(at));
    }
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(br#"":""#);
    push_escaped(out, value);
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn iso_millis(at: Wall) -> String {
    let mut out = String::with_capacity(24);
    write_iso8601(&mut out, at, true);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::event::{EventContext, encode};
    use crate::position::Seq;
    use crate::record::Data;

    const NUMBER: &str = "49678482485914992647128486738460559735979993999471542274";

    /// The message of section 3.5; the line breaks that it is shown with are not part of it.
    const SECTION_3_5: &str = concat!(
        r#"{"requestContext":{"requestId":"30d0e7bd-5ddd-4e96-af57-03a7080f606d","#,
        r#""functionArn":"arn:aws:lambda:us-east-1:000000000000:function:NAME:alias","#,
        r#""condition":"RetryAttemptsExhausted","approximateInvokeCount":1},"#,
        r#""responseContext":{"statusCode":200,"executedVersion":"1","functionError":null},"#,
        r#""version":"1.0","timestamp":"2026-09-19T09:10:45.948Z","#,
        r#""KinesisBatchInfo":{"shardId":"shardId-000000000000","#,
        r#""startSequenceNumber":"49678482485914992647128486738460559735979993999471542274","#,
        r#""endSequenceNumber":"49678482485914992647128486738460559735979993999471542274","#,
        r#""approximateArrivalOfFirstRecord":"2026-09-19T09:10:23.187Z","#,
        r#""approximateArrivalOfLastRecord":"2026-09-19T09:10:23.187Z","batchSize":1,"#,
        r#""streamArn":"arn:aws:kinesis:us-east-1:000000000000:stream/NAME/consumer/NAME:1789808973"}}"#,
    );
    const RESPONSE_3_5: &str =
        r#""responseContext":{"statusCode":200,"executedVersion":"1","functionError":null},"#;

    fn record(number: &str, arrival: Option<i64>) -> Record {
        let data = Data::Raw(Bytes::from_static(br#"{"input": "hello"}"#));
        Record::new(Seq::plain(number), Some("custom".to_owned()), arrival.map(Wall::from_millis), data)
    }

    fn names() -> FailureNames {
        FailureNames {
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:NAME:alias".to_owned(),
            executed_version: "1".to_owned(),
            stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/NAME/consumer/NAME:1789808973"
                .to_owned(),
            mapping_uuid: "00000000-0000-4000-8000-000000000000".to_owned(),
        }
    }

    fn failed(records: Vec<Record>) -> FailedBatch {
        FailedBatch {
            batch: Batch::new(records).unwrap(),
            shard: "shardId-000000000000".into(),
            request_id: RequestId::from_random(0x30d0_e7bd_5ddd_4e96_af57_03a7_080f_606d),
            condition: Condition::RetryAttemptsExhausted,
            approximate_invoke_count: 1,
            response: Some(FunctionResponse::Returned),
            at: Wall::from_millis(1_789_809_045_948),
            window: None,
        }
    }

    fn one() -> FailedBatch {
        failed(vec![record(NUMBER, Some(1_789_809_023_187))])
    }

    #[test]
    fn r35_exhausted_retries_with_an_answer_give_lambdas_message_byte_for_byte() {
        assert_eq!(message(&one(), &names()), SECTION_3_5);
    }

    #[test]
    fn r40_a_function_error_differs_only_in_function_error_and_a_plain_function_in_its_version() {
        let failed = FailedBatch { response: Some(FunctionResponse::Unhandled), ..one() };
        let names = FailureNames { executed_version: "$LATEST".to_owned(), ..names() };
        let response = r#""responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"#;
        assert_eq!(message(&failed, &names), SECTION_3_5.replace(RESPONSE_3_5, response));
    }

    #[test]
    fn r24_an_oversized_event_has_no_response() {
        let failed = FailedBatch { response: None, approximate_invoke_count: 3, ..one() };
        let expected = SECTION_3_5.replace(RESPONSE_3_5, "").replace(r#"Count":1"#, r#"Count":3"#);
        assert_eq!(message(&failed, &names()), expected);
    }

    #[test]
    fn r29_records_that_were_too_old_give_section_3_7s_message_without_a_response() {
        let failed = FailedBatch { response: None, condition: Condition::RecordAgeExceeded, ..one() };
        let expected =
            SECTION_3_5.replace(RESPONSE_3_5, "").replace("RetryAttemptsExhausted", "RecordAgeExceeded");
        assert_eq!(message(&failed, &names()), expected);
    }

    #[test]
    fn r28_records_that_grew_too_old_between_attempts_show_their_attempts_but_no_response() {
        let failed =
            FailedBatch { condition: Condition::RecordAgeExceeded, approximate_invoke_count: 8, ..one() };
        assert_eq!(failed.response, Some(FunctionResponse::Returned));
        let expected = SECTION_3_5
            .replace(RESPONSE_3_5, "")
            .replace("RetryAttemptsExhausted", "RecordAgeExceeded")
            .replace(r#"Count":1"#, r#"Count":8"#);
        assert_eq!(message(&failed, &names()), expected);
    }

    #[test]
    fn r38_a_longer_batch_is_named_by_its_first_and_last_record() {
        let records = vec![record("2", Some(1000)), record("3", Some(2000)), record("4", Some(3001))];
        let value: Value = serde_json::from_str(&message(&failed(records), &names())).unwrap();
        let info = &value["KinesisBatchInfo"];
        assert_eq!((&info["startSequenceNumber"], &info["endSequenceNumber"]), (&"2".into(), &"4".into()));
        assert_eq!(info["approximateArrivalOfFirstRecord"], "1970-01-01T00:00:01.000Z");
        assert_eq!(info["approximateArrivalOfLastRecord"], "1970-01-01T00:00:03.001Z");
        assert_eq!(info["batchSize"], 3);
    }

    #[test]
    fn an_unknown_arrival_time_is_left_out() {
        let expected = SECTION_3_5
            .replace(r#""approximateArrivalOfFirstRecord":"2026-09-19T09:10:23.187Z","#, "")
            .replace(r#""approximateArrivalOfLastRecord":"2026-09-19T09:10:23.187Z","#, "");
        assert_eq!(message(&failed(vec![record(NUMBER, None)]), &names()), expected);
    }

    fn event(failed: &FailedBatch) -> Bytes {
        let cx = EventContext {
            event_source_arn: names().stream_arn.into(),
            region: "us-east-1".into(),
            invoke_identity_arn: "arn:aws:iam::000000000000:role/shardmill".into(),
            shard: failed.shard.clone(),
        };
        encode(&failed.batch, &cx, failed.window.as_ref())
    }

    #[test]
    fn r73_the_object_has_section_3_9s_layout_with_the_event_as_a_string() {
        let failed =
            FailedBatch { response: Some(FunctionResponse::Unhandled), approximate_invoke_count: 2, ..one() };
        let names = FailureNames { executed_version: "$LATEST".to_owned(), ..names() };
        let expected = concat!(
            r#"{"requestContext":{"requestId":"30d0e7bd-5ddd-4e96-af57-03a7080f606d","#,
            r#""functionArn":"arn:aws:lambda:us-east-1:000000000000:function:NAME:alias","#,
            r#""condition":"RetryAttemptsExhausted","approximateInvokeCount":2},"#,
            r#""responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"#,
            r#""version":"1.0","payload":"{\"Records\":[{\"kinesis\":{\"kinesisSchemaVersion\":\"1.0\","#,
            r#"\"partitionKey\":\"custom\","#,
            r#"\"sequenceNumber\":\"49678482485914992647128486738460559735979993999471542274\","#,
            r#"\"data\":\"eyJpbnB1dCI6ICJoZWxsbyJ9\",\"approximateArrivalTimestamp\":1789809023.187},"#,
            r#"\"eventSource\":\"aws:kinesis\",\"eventVersion\":\"1.0\","#,
            r#"\"eventID\":\"shardId-000000000000:49678482485914992647128486738460559735979993999471542274\","#,
            r#"\"eventName\":\"aws:kinesis:record\","#,
            r#"\"invokeIdentityArn\":\"arn:aws:iam::000000000000:role/shardmill\",\"awsRegion\":\"us-east-1\","#,
            r#"\"eventSourceARN\":\"arn:aws:kinesis:us-east-1:000000000000:stream/NAME/consumer/NAME:1789808973\"}]}","#,
            r#""timestamp":"2026-09-19T09:10:45.948Z","KinesisBatchInfo":{"shardId":"shardId-000000000000","#,
            r#""startSequenceNumber":"49678482485914992647128486738460559735979993999471542274","#,
            r#""endSequenceNumber":"49678482485914992647128486738460559735979993999471542274","#,
            r#""approximateArrivalOfFirstRecord":"2026-09-19T09:10:23.187Z","#,
            r#""approximateArrivalOfLastRecord":"2026-09-19T09:10:23.187Z","batchSize":1,"#,
            r#""streamArn":"arn:aws:kinesis:us-east-1:000000000000:stream/NAME/consumer/NAME:1789808973"}}"#,
        );
        let object = String::from_utf8(object(&failed, &names, &event(&failed))).unwrap();
        assert_eq!(object, expected);
    }

    proptest! {
        #[test]
        fn r73_the_objects_payload_reads_back_as_the_event_and_fits_one_line(key in any::<String>(), arn in any::<String>()) {
            let data = Data::Raw(Bytes::from_static(b"x"));
            let record = Record::new(Seq::plain(NUMBER), Some(key), None, data);
            let failed = failed(vec![record]);
            let names = FailureNames { function_arn: arn.clone(), ..names() };
            let event = event(&failed);
            let object = object(&failed, &names, &event);
            prop_assert!(!object.contains(&b'\n'));
            let value: Value = serde_json::from_slice(&object).unwrap();
            prop_assert_eq!(value["payload"].as_str().unwrap().as_bytes(), &event[..]);
            prop_assert_eq!(value["requestContext"]["functionArn"].as_str().unwrap(), arn);
        }
    }
}
