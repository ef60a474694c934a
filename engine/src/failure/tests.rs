//! Failure messages against Lambda's own, byte for byte.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::event::{EventContext, encode};
use crate::position::Seq;
use crate::record::Data;

const NUMBER: &str = "49678482485914992647128486738460559735979993999471542274";

/// The message of docs/semantics.md, section 3.5; the line breaks that it is shown with are not part of it.
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
        stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/NAME/consumer/NAME:1789808973".to_owned(),
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
    let response =
        r#""responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},"#;
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

/// The message of docs/semantics.md, section 3.6, with values for what is only illustrated there.
const SECTION_3_6: &str = concat!(
    r#"{"requestContext":{"requestId":"8bea6b56-5ddd-4e96-af57-03a7080f606d","#,
    r#""functionArn":"arn:aws:lambda:us-east-1:000000000000:function:NAME:1","#,
    r#""condition":"RetryAttemptsExhausted","approximateInvokeCount":2},"#,
    r#""responseContext":{"statusCode":200,"executedVersion":"1","functionError":null},"#,
    r#""version":"1.0","timestamp":"2026-09-17T13:02:46.123Z","#,
    r#""DDBStreamBatchInfo":{"shardId":"shardId-00000001789649399079-0d666f96","#,
    r#""startSequenceNumber":"41800003314721981745013","endSequenceNumber":"42100001330762507399791","#,
    r#""approximateArrivalOfFirstRecord":"2026-09-17T13:02:26Z","approximateArrivalOfLastRecord":"2026-09-17T13:02:26Z","#,
    r#""batchSize":3,"streamArn":"arn:aws:dynamodb:us-east-1:000000000000:table/T/stream/2026-09-17T12:49:59.079"}}"#,
);

/// A batch of a DynamoDB stream and its names.
fn from_dynamodb() -> (FailedBatch, FailureNames) {
    let arrival = Some(1_789_650_146_000);
    let numbers = ["41800003314721981745013", "42000002330762507399791", "42100001330762507399791"];
    let failed = FailedBatch {
        shard: "shardId-00000001789649399079-0d666f96".into(),
        request_id: RequestId::from_random(0x8bea_6b56_5ddd_4e96_af57_03a7_080f_606d),
        approximate_invoke_count: 2,
        at: Wall::from_millis(1_789_650_166_123),
        ..failed(numbers.map(|number| record(number, arrival)).into())
    };
    let names = FailureNames {
        function_arn: "arn:aws:lambda:us-east-1:000000000000:function:NAME:1".to_owned(),
        stream_arn: "arn:aws:dynamodb:us-east-1:000000000000:table/T/stream/2026-09-17T12:49:59.079"
            .to_owned(),
        ..names()
    };
    (failed, names)
}

#[test]
fn r73_a_dynamodb_batch_gives_section_3_6s_message_byte_for_byte() {
    let (failed, names) = from_dynamodb();
    assert_eq!(message(&failed, &names), SECTION_3_6);
}

#[test]
fn r29_dynamodb_records_that_were_too_old_give_section_3_7s_message() {
    let (failed, names) = from_dynamodb();
    let failed =
        FailedBatch { condition: Condition::RecordAgeExceeded, approximate_invoke_count: 1, ..failed };
    let expected = SECTION_3_6
        .replace(RESPONSE_3_5, "")
        .replace("RetryAttemptsExhausted", "RecordAgeExceeded")
        .replace(r#"Count":2"#, r#"Count":1"#);
    assert_eq!(message(&failed, &names), expected);
}

#[test]
fn r24_an_oversized_dynamodb_event_has_no_response() {
    let (failed, names) = from_dynamodb();
    let failed = FailedBatch { response: None, ..failed };
    assert_eq!(message(&failed, &names), SECTION_3_6.replace(RESPONSE_3_5, ""));
}

#[test]
fn r73_a_dynamodb_object_is_section_3_6s_message_with_its_payload_in_section_3_9s_place() {
    let (failed, names) = from_dynamodb();
    let object = String::from_utf8(object(&failed, &names, br#"{"Records":[]}"#)).unwrap();
    let version = r#""version":"1.0","#;
    let payload = format!(r#"{version}"payload":"{{\"Records\":[]}}","#);
    assert_eq!(object, SECTION_3_6.replace(version, &payload));
}

/// The window of docs/semantics.md, section 3.9.
fn window(is_final: bool) -> WindowCall {
    WindowCall {
        start: Wall::from_millis(1_789_654_270_000),
        end: Wall::from_millis(1_789_654_280_000),
        state: Bytes::from_static(br#"{"count":2}"#),
        is_final,
        is_terminated_early: false,
    }
}

#[test]
fn r69_a_failed_final_call_gives_section_3_9s_object_without_records() {
    let (failed, names) = from_dynamodb();
    let failed = FailedBatch { batch: Batch::empty(), window: Some(window(true)), ..failed };
    let expected = concat!(
        r#"{"requestContext":{"requestId":"8bea6b56-5ddd-4e96-af57-03a7080f606d","#,
        r#""functionArn":"arn:aws:lambda:us-east-1:000000000000:function:NAME:1","#,
        r#""condition":"RetryAttemptsExhausted","approximateInvokeCount":2},"#,
        r#""responseContext":{"statusCode":200,"executedVersion":"1","functionError":null},"#,
        r#""version":"1.0","payload":"{\"Records\":[]}","timestamp":"2026-09-17T13:02:46.123Z","#,
        r#""DDBStreamBatchInfo":{"shardId":"shardId-00000001789649399079-0d666f96","#,
        r#""streamArn":"arn:aws:dynamodb:us-east-1:000000000000:table/T/stream/2026-09-17T12:49:59.079"},"#,
        r#""timeWindowInfo":{"window":{"start":"2026-09-17T14:11:10Z","end":"2026-09-17T14:11:20Z"},"#,
        r#""isFinalInvokeForWindow":true,"isWindowTerminatedEarly":false}}"#,
    );
    let object = String::from_utf8(object(&failed, &names, br#"{"Records":[]}"#)).unwrap();
    assert_eq!(object, expected);
    assert!(object_key(&failed, &names).contains("/2026/09/17/2026-09-17T13.02.46-"));
}

#[test]
fn r73_a_window_is_told_to_s3_and_not_to_a_queue() {
    let plain = one();
    let failed = FailedBatch { window: Some(window(false)), ..one() };
    assert_eq!(message(&failed, &names()), SECTION_3_5);
    let told = String::from_utf8(object(&failed, &names(), &event(&plain))).unwrap();
    let before = String::from_utf8(object(&plain, &names(), &event(&plain))).unwrap();
    let info = concat!(
        r#","timeWindowInfo":{"window":{"start":"2026-09-17T14:11:10Z","end":"2026-09-17T14:11:20Z"},"#,
        r#""isFinalInvokeForWindow":false,"isWindowTerminatedEarly":false}}"#,
    );
    assert_eq!(told, format!("{}{info}", before.strip_suffix('}').unwrap()));
}

#[test]
fn a_table_called_like_another_service_changes_nothing() {
    let mut names = names();
    names.stream_arn = "arn:aws:kinesis:us-east-1:000000000000:stream/dynamodb".to_owned();
    assert!(message(&one(), &names).contains("KinesisBatchInfo"));
    names.stream_arn = "arn:aws-cn:dynamodb:cn-north-1:000000000000:table/kinesis/stream/1".to_owned();
    assert!(message(&one(), &names).contains("DDBStreamBatchInfo"));
}

#[test]
fn r73_an_objects_key_has_section_3_9s_form_in_utc() {
    let (failed, names) = from_dynamodb();
    let key = object_key(&failed, &names);
    let expected = "aws/lambda/00000000-0000-4000-8000-000000000000/shardId-00000001789649399079-0d666f96/\
                    2026/09/17/2026-09-17T13.02.46-";
    let id = key.strip_prefix(expected).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(Uuid::parse_str(id).unwrap().get_version_num(), 4, "{id}");
    assert_eq!(id.len(), 36);
    let newyear = FailedBatch { at: Wall::from_millis(1_798_761_599_999), ..failed };
    assert!(object_key(&newyear, &names).contains("/2026/12/31/2026-12-31T23.59.59-"));
}

#[test]
fn i3_a_repeated_delivery_has_the_same_key_and_every_other_discard_another() {
    let key = |failed: &FailedBatch| object_key(failed, &names());
    let base = failed(vec![record("2", Some(1000)), record("3", Some(1000))]);
    assert_eq!(key(&base), key(&base.clone()));
    let mut keys = vec![
        key(&base),
        key(&FailedBatch { request_id: RequestId::from_random(1), ..base.clone() }),
        key(&FailedBatch { at: Wall::from_millis(base.at.as_millis() + 1), ..base.clone() }),
        key(&FailedBatch { shard: "shardId-000000000001".into(), ..base }),
        key(&failed(vec![record("2", Some(1000))])),
        key(&failed(vec![record("3", Some(1000))])),
    ];
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6, "{keys:#?}");
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
