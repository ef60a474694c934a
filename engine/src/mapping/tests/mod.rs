//! What a mapping accepts, and how it refuses the rest.

mod edges;
mod json;
mod lambda_api;
mod typed;

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::arn::Arn;
use crate::time::Wall;

const STREAM: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";

fn orders() -> RawMapping {
    RawMapping::new(STREAM, "orders-worker")
}

/// The only mistake of a mapping.
fn mistake(builder: RawMapping) -> MappingError {
    let errors: Vec<_> = builder.build().unwrap_err().into_iter().collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().unwrap()
}

fn kind(builder: RawMapping) -> (&'static str, MappingErrorKind) {
    let error = mistake(builder);
    (error.field().to_owned().leak(), error.kind())
}

#[test]
fn defaults_are_lambdas() {
    let m = orders().build().unwrap();
    assert_eq!(m.batch_size(), 100, "P4");
    assert_eq!(m.batching_window(), Duration::ZERO, "P5");
    assert_eq!(m.maximum_retry_attempts(), None, "P10");
    assert!(!m.bisect_batch_on_function_error(), "P11");
    assert!(!m.report_batch_item_failures(), "P12");
    assert_eq!(m.failure_destination(), None, "P15");
    assert!(m.enabled(), "P3");
    assert_eq!(m.timeout(), Duration::from_secs(20), "so that it fits into a stop's 25 s");
    assert_eq!(m.retry().initial_backoff, Duration::from_millis(200));
    assert_eq!(m.retry().maximum_backoff, Duration::from_secs(60));
    assert_eq!(m.polling().idle_interval, Duration::from_secs(1));
    assert_eq!(m.polling().maximum_idle_interval, Duration::from_secs(1));
    assert_eq!(m.polling().maximum_records, 10_000);
    assert_eq!(m.polling().buffer_bytes, 16 * 1024 * 1024);
    assert_eq!(m.checkpoint_interval(), Duration::ZERO);
    assert_eq!(m.on_destination_failure(), OnDestinationFailure::Block);
}

#[test]
fn identity_comes_from_the_stream_and_the_function_name() {
    let m = RawMapping::new("arn:aws-cn:kinesis:cn-north-1:123456789012:stream/orders.v2", "orders-worker:7")
        .build()
        .unwrap();
    assert_eq!(m.event_source().arn.partition(), "aws-cn");
    assert_eq!(m.event_source().arn.region(), "cn-north-1");
    assert_eq!(m.event_source().arn.account(), "123456789012");
    assert_eq!(m.event_source().stream, "orders.v2");
    assert_eq!(m.function_arn(), "arn:aws-cn:lambda:cn-north-1:123456789012:function:orders-worker:7");
    assert_eq!(m.function_name(), "orders-worker");
    assert_eq!(m.executed_version(), "7");
    assert_eq!(m.application_name(), "orders-worker:7@123456789012.cn-north-1.orders.v2");
    assert_eq!(m.invoke_identity_arn(), "arn:aws-cn:iam::123456789012:role/shardmill");
}

#[test]
fn a_function_is_a_name_a_partial_arn_or_an_arn() {
    let built = |name: &str| {
        let m = RawMapping::new(STREAM, name).build().unwrap();
        (m.function_arn().to_owned(), m.executed_version().to_owned())
    };
    let here = "arn:aws:lambda:eu-west-1:123456789012:function:";
    assert_eq!(built("f"), (format!("{here}f"), "$LATEST".into()));
    assert_eq!(built("f:live"), (format!("{here}f:live"), "$LATEST".into()));
    assert_eq!(built("f:$LATEST").1, "$LATEST");
    assert_eq!(built("999999999999:function:f").0, "arn:aws:lambda:eu-west-1:999999999999:function:f");
    let elsewhere = "arn:aws-us-gov:lambda:us-gov-west-1:999999999999:function:f:12";
    assert_eq!(built(elsewhere), (elsewhere.into(), "12".into()), "an ARN stays as it is");
    for bad in ["a b", "f:", "1:function:f", "arn:aws:lambda:eu-west-1:123456789012:layer:f", "arn:", "é"] {
        assert_eq!(
            kind(RawMapping::new(STREAM, bad)),
            ("FunctionName", MappingErrorKind::InvalidValue),
            "{bad}"
        );
    }
}

#[test]
fn function_arn_and_function_name_must_agree() {
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:orders-worker:3";
    assert_eq!(orders().function_arn(arn).build().unwrap().executed_version(), "3");
    let only_arn = RawMapping::new(STREAM, "").function_arn(arn).build().unwrap();
    assert_eq!(only_arn.function_arn(), arn);
    let other = arn.replace("orders", "bills");
    assert_eq!(kind(orders().function_arn(other)), ("FunctionName", MappingErrorKind::Conflict));
}

#[test]
fn the_uuid_is_stable_per_application() {
    let uuid = |b: RawMapping| b.build().unwrap().uuid().to_owned();
    assert_eq!(uuid(orders()), uuid(orders().batch_size(5)));
    assert_ne!(uuid(orders()), uuid(orders().name("other")));
    assert_eq!(uuid(orders()).as_bytes()[14], b'5', "version 5");
    let given = "1b3f6a52-3c0e-4d5c-9e9e-2f4b6a1c7d80";
    assert_eq!(uuid(orders().uuid(given)), given);
    assert_eq!(kind(orders().uuid("x")), ("UUID", MappingErrorKind::InvalidValue));
}

#[test]
fn ranges_are_inclusive_and_have_lambdas_texts() {
    for ok in [1, 10_000] {
        assert!(orders().batch_size(ok).build().is_ok());
    }
    let high = mistake(orders().batch_size(10_001));
    assert_eq!(high.kind(), MappingErrorKind::OutOfRange);
    assert_eq!(
        high.to_string(),
        "BatchSize: 10001 is out of range; permitted: 1 to 10000; the nearest is 10000"
    );
    assert_eq!(
        high.aws_message().unwrap(),
        "1 validation error detected: Value '10001' at 'batchSize' failed to satisfy constraint: \
         Member must have value less than or equal to 10000"
    );
    assert_eq!(
        mistake(orders().maximum_retry_attempts(-2)).aws_message().unwrap(),
        "1 validation error detected: Value '-2' at 'maximumRetryAttempts' failed to satisfy constraint: \
         Member must have value greater than or equal to -1"
    );
    assert_eq!(
        mistake(orders().maximum_record_age_in_seconds(59)).aws_message().unwrap(),
        "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
    );
    assert_eq!(mistake(orders().timeout_seconds(0)).aws_message(), None, "not Lambda's field");
    assert_eq!(orders().maximum_retry_attempts(0).build().unwrap().maximum_retry_attempts(), Some(0));
    assert_eq!(
        orders().maximum_retry_attempts(10_000).build().unwrap().maximum_retry_attempts(),
        Some(10_000)
    );
    assert!(orders().batch_size(101).build().is_ok(), "P5: a window of 0 goes with any batch size");
}

#[test]
fn starting_positions_are_checked_as_lambda_checks_them() {
    assert_eq!(
        mistake(orders().starting_position(None)).aws_message().unwrap(),
        "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: \
         Member must not be null."
    );
    assert_eq!(
        mistake(orders().starting_position("invalid")).aws_message().unwrap(),
        "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: \
         Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    );
    assert_eq!(
        mistake(orders().starting_position("LATEST").starting_position_timestamp(1)).aws_message().unwrap(),
        "Timestamp only valid with StartingPosition AT_TIMESTAMP"
    );
    let at = |ms| orders().starting_position("AT_TIMESTAMP").starting_position_timestamp(ms);
    let now = Wall::from_millis(1_000);
    assert_eq!(*at(999).as_of(now).build().unwrap().starting_position(), Position::AtTimestamp(999));
    assert_eq!(kind(at(1_001).as_of(now)), ("StartingPositionTimestamp", MappingErrorKind::OutOfRange), "P8");
    assert_eq!(
        kind(orders().starting_position("AT_TIMESTAMP")),
        ("StartingPositionTimestamp", MappingErrorKind::Missing)
    );
}

#[test]
fn r77_destinations_are_queues_topics_buckets_and_files_never_fifo() {
    let to = |text: &str| orders().on_failure_destination(text);
    let queue = "arn:aws:sqs:eu-central-1:999999999999:dead";
    assert_eq!(
        *to(queue).build().unwrap().failure_destination().unwrap(),
        FailureDestination::Sqs(Arn::parse(queue).unwrap())
    );
    let topic = "arn:aws-cn:sns:cn-north-1:999999999999:dead";
    assert_eq!(
        *to(topic).build().unwrap().failure_destination().unwrap(),
        FailureDestination::Sns(Arn::parse(topic).unwrap())
    );
    let bucket = "arn:aws:s3:::dead.letters-1";
    assert_eq!(
        *to(bucket).build().unwrap().failure_destination().unwrap(),
        FailureDestination::S3(Arn::parse(bucket).unwrap())
    );
    assert_eq!(
        *to("file:./dead.jsonl").build().unwrap().failure_destination().unwrap(),
        FailureDestination::File(PathBuf::from("./dead.jsonl"))
    );
    assert_eq!(to("").build().unwrap().failure_destination(), None, "P15: empty means none");
    let field = "DestinationConfig.OnFailure.Destination";
    for (text, expected) in [
        ("arn:aws:sqs:eu-central-1:999999999999:dead.fifo", MappingErrorKind::Refused),
        ("arn:aws:sns:eu-central-1:999999999999:dead.fifo", MappingErrorKind::Refused),
        ("kafka://dead", MappingErrorKind::Refused),
        ("arn:aws:sns:eu-central-1:999999999999:dead:0a1b", MappingErrorKind::InvalidValue),
        ("arn:aws:sns:eu-central-1::dead", MappingErrorKind::InvalidValue),
        ("arn:aws:s3:::dead/letters", MappingErrorKind::InvalidValue),
        ("arn:aws:s3:::Dead", MappingErrorKind::InvalidValue),
        ("arn:aws:s3:::dead.", MappingErrorKind::InvalidValue),
        ("arn:aws:s3:::de", MappingErrorKind::InvalidValue),
        ("arn:aws:s3:eu-central-1:999999999999:accesspoint/dead", MappingErrorKind::InvalidValue),
        ("arn:aws:kinesis:eu-central-1:999999999999:stream/dead", MappingErrorKind::InvalidValue),
        ("https://sqs.eu-central-1.amazonaws.com/1/dead", MappingErrorKind::InvalidValue),
        ("arn:aws:sqs:::dead", MappingErrorKind::InvalidValue),
        ("file:", MappingErrorKind::InvalidValue),
    ] {
        assert_eq!(kind(to(text)), (field, expected), "R77, P15: {text}");
    }
    assert_eq!(
        mistake(orders().on_success_destination(queue)).aws_message().unwrap(),
        "OnSuccess configuration is not supported for event source mappings.",
        "P16"
    );
}

#[test]
fn sources_other_than_a_stream_are_told_apart() {
    let source = |arn: &str| RawMapping::new(arn, "f");
    for (arn, expected) in [
        ("", MappingErrorKind::Missing),
        ("orders", MappingErrorKind::InvalidValue),
        ("arn:aws:kinesis:eu-west-1:123:stream/orders", MappingErrorKind::InvalidValue),
        ("arn:aws:kinesis:eu-west-1:123456789012:stream/", MappingErrorKind::InvalidValue),
        ("arn:aws:kinesis:eu-west-1:123456789012:stream/a b", MappingErrorKind::InvalidValue),
        ("arn:aws:kinesis:eu-west-1:123456789012:stream/a/consumer/c:1", MappingErrorKind::NotSupported),
        ("arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/", MappingErrorKind::InvalidValue),
        ("arn:aws:dynamodb:eu-west-1:123456789012:table/a/b/stream/x", MappingErrorKind::InvalidValue),
        ("arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/a/b", MappingErrorKind::InvalidValue),
        (
            "arn:aws:dynamodb:eu-west-1:1:table/t/stream/2026-01-01T00:00:00.000",
            MappingErrorKind::InvalidValue,
        ),
        ("arn:aws:dynamodb:eu-west-1:123456789012:table/t", MappingErrorKind::InvalidValue),
        ("arn:aws:sqs:eu-west-1:123456789012:q", MappingErrorKind::Refused),
        ("arn:aws:kafka:eu-west-1:123456789012:cluster/c/x", MappingErrorKind::Refused),
    ] {
        assert_eq!(kind(source(arn)), ("EventSourceArn", expected), "P1: {arn}");
    }
    assert_eq!(mistake(source("")).aws_message().unwrap(), "Unrecognized event source.");
}

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000";

#[test]
fn p1_the_stream_of_a_table_is_a_source_named_after_the_table() {
    let m = RawMapping::new(TABLE, "f").build().unwrap();
    let source = m.event_source();
    assert_eq!((source.kind, source.stream.as_str()), (StreamKind::DynamoDb, "orders"));
    assert_eq!((source.arn.region(), source.arn.as_str()), ("eu-west-1", TABLE));
    assert_eq!(m.application_name(), "f@123456789012.eu-west-1.orders", "the same when it is enabled anew");
    assert_eq!(orders().build().unwrap().event_source().kind, StreamKind::Kinesis);
    let local = "arn:aws:dynamodb:ddblocal:000000000000:table/My.Table_1/stream/2026-01-01T00:00:00.000";
    let local = RawMapping::new(local, "f").build().unwrap();
    assert_eq!(local.event_source().arn.region(), "ddblocal");
}

#[test]
fn r1_polling_of_a_dynamodb_stream_has_defaults_of_its_own() {
    let table = || RawMapping::new(TABLE, "f");
    let polling = |builder: RawMapping| *builder.build().unwrap().polling();
    let default = polling(table());
    assert_eq!(default.idle_interval, Duration::from_millis(250));
    assert_eq!(default.maximum_idle_interval, Duration::from_millis(2_000));
    assert_eq!(default.maximum_records, 1_000);
    let slow = polling(table().idle_interval_milliseconds(5_000));
    assert_eq!(slow.maximum_idle_interval, Duration::from_millis(5_000), "never below the idle interval");
    let set = polling(table().maximum_idle_interval_milliseconds(250).maximum_records(7));
    assert_eq!((set.maximum_idle_interval, set.maximum_records), (Duration::from_millis(250), 7));
    let many = mistake(table().maximum_records(1_001));
    assert_eq!((many.field(), many.kind()), ("Polling.MaximumRecords", MappingErrorKind::OutOfRange));
}

#[test]
fn a_dynamodb_stream_has_one_encoding_and_refuses_to_be_asked_for_another() {
    use crate::mapping::AnswerEncoding;
    let table = || RawMapping::new(TABLE, "f");
    for (encoding, value) in
        [(AnswerEncoding::Auto, "auto"), (AnswerEncoding::Json, "json"), (AnswerEncoding::Cbor, "cbor")]
    {
        let mistake = mistake(table().answer_encoding(encoding));
        assert_eq!(mistake.kind(), MappingErrorKind::Conflict);
        let text = format!("Polling.Encoding: {value} is not for DynamoDB streams");
        assert!(mistake.to_string().starts_with(&text), "{mistake}");
    }
    assert_eq!(table().build().unwrap().polling().answer_encoding, AnswerEncoding::Auto);
}

#[test]
fn r8_a_dynamodb_stream_may_start_at_a_time_which_lambda_does_not_offer() {
    let at = RawMapping::new(TABLE, "f")
        .starting_position("AT_TIMESTAMP")
        .starting_position_timestamp(1_790_000_000_123);
    assert_eq!(*at.build().unwrap().starting_position(), Position::AtTimestamp(1_790_000_000_123));
}

#[test]
fn p14_patterns_are_compiled_and_every_bad_one_is_reported() {
    let mapping =
        orders().filter_patterns([r#"{"data": {"a": [1]}}"#, r#"{"awsRegion": ["eu-west-1"]}"#]).build();
    assert_eq!(mapping.unwrap().filter().unwrap().patterns().count(), 2);
    let none: [&str; 0] = [];
    assert_eq!(orders().filter_patterns(none).build().unwrap().filter(), None);
    let wrong = ["single-string", r#"{"data": {"a": [1]}}"#, r#"{"data": {"a": [{"exists": 1}]}}"#];
    let errors = orders().filter_patterns(wrong).build().unwrap_err();
    let shown: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "FilterCriteria.Filters[0]: single-string is not a filter pattern: the pattern is not JSON: expected value at \
             line 1 column 1; write one JSON object, such as {\"data\": {\"kind\": [\"order\"]}}",
            "FilterCriteria.Filters[2]: {\"data\": {\"a\": [{\"exists\": 1}]}} is not a filter pattern: data.a: exists is \
             true or false; write {\"exists\": true}",
        ]
    );
    for error in &errors {
        assert_eq!(error.aws_message().as_deref(), Some("Invalid filter pattern definition."));
    }
    let many = orders().filter_patterns([r#"{"data": {"a": [1]}}"#; 11]);
    assert_eq!(kind(many), ("FilterCriteria.Filters", MappingErrorKind::OutOfRange));
}

#[test]
fn r71_windows_and_filters_exclude_each_other() {
    let both = orders().tumbling_window_in_seconds(30).filter_patterns([r#"{"data": {"a": [1]}}"#]);
    assert_eq!(kind(both), ("FilterCriteria.Filters", MappingErrorKind::Conflict));
    let empty: [&str; 0] = [];
    assert!(orders().tumbling_window_in_seconds(30).filter_patterns(empty).build().is_ok());
}

#[test]
fn r71_windows_and_lanes_exclude_each_other() {
    let range = orders().parallelization_factor(11);
    assert_eq!(mistake(range).kind(), MappingErrorKind::OutOfRange);
    let both = orders().parallelization_factor(2).tumbling_window_in_seconds(30).build().unwrap_err();
    let text = "Parallelization factor must be equal to 1 when tumbling window period is configured";
    assert!(both.iter().any(|e| e.aws_message().as_deref() == Some(text)));
    let mapping = orders().maximum_record_age_in_seconds(60).tumbling_window_in_seconds(30).build().unwrap();
    assert_eq!(mapping.maximum_record_age(), Some(Duration::from_secs(60)));
    assert_eq!(mapping.tumbling_window(), Some(Duration::from_secs(30)));
    assert!(mapping.reads_response() && !orders().build().unwrap().reads_response());
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_fields() {
    let errors = RawMapping::new("x", "a b")
        .starting_position("sometime")
        .batch_size(0)
        .function_response_types(["Report"])
        .timeout_seconds(1_801)
        .initial_backoff_milliseconds(0)
        .idle_interval_milliseconds(199)
        .build()
        .unwrap_err();
    let fields: Vec<_> = errors.iter().map(MappingError::field).collect();
    assert_eq!(
        fields,
        [
            "EventSourceArn",
            "FunctionName",
            "StartingPosition",
            "BatchSize",
            "FunctionResponseTypes",
            "Function.Timeout",
            "Retry.InitialBackoffMilliseconds",
            "Polling.IdleIntervalMilliseconds",
        ]
    );
    assert_eq!(errors.to_string().lines().count(), fields.len());
}

#[test]
fn intervals_that_contradict_each_other_are_refused() {
    let idle = orders().idle_interval_milliseconds(2_000).maximum_idle_interval_milliseconds(1_000);
    assert_eq!(kind(idle), ("Polling.MaximumIdleIntervalMilliseconds", MappingErrorKind::Conflict));
    let retry = orders().initial_backoff_milliseconds(2_000).maximum_backoff_seconds(1);
    assert_eq!(kind(retry), ("Retry.InitialBackoffMilliseconds", MappingErrorKind::Conflict));
    let follows = orders().idle_interval_milliseconds(2_000).build().unwrap();
    assert_eq!(follows.polling().maximum_idle_interval, Duration::from_secs(2));
}

proptest! {
    #[test]
    fn no_text_makes_a_mapping_panic(source in ".{0,80}", function in ".{0,80}", destination in ".{0,80}", role in ".{0,40}") {
        let _ = RawMapping::new(&source, &function)
            .on_failure_destination(destination)
            .role_arn(role)
            .build();
    }

    #[test]
    fn no_near_miss_of_an_arn_makes_a_mapping_panic(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("arn"), Just("aws"), Just("aws-"), Just("kinesis"), Just("dynamodb"), Just("lambda"), Just("sqs"),
                Just("sns"), Just("s3"), Just("dead"),
                Just("eu-west-1"), Just("123456789012"), Just("stream/"), Just("stream/a/consumer/"), Just("function"),
                Just(""), Just("é"), Just("table/t/stream/"), Just("file"),
            ],
            0..9,
        ),
        number in any::<i64>(),
    ) {
        let text = parts.join(":");
        let _ = RawMapping::new(&text, &text)
            .function_arn(text.clone())
            .on_failure_destination(text.clone())
            .role_arn(text)
            .batch_size(number)
            .maximum_retry_attempts(number)
            .starting_position("AT_TIMESTAMP")
            .starting_position_timestamp(number)
            .maximum_backoff_seconds(number)
            .maximum_idle_interval_milliseconds(number)
            .build();
    }

    #[test]
    fn a_valid_stream_arn_is_taken_apart_without_loss(name in "[a-zA-Z0-9_.-]{1,128}", account in "[0-9]{12}") {
        let arn = format!("arn:aws-us-gov:kinesis:us-gov-east-1:{account}:stream/{name}");
        let m = RawMapping::new(&arn, "f").build().unwrap();
        prop_assert_eq!(&m.event_source().stream, &name);
        prop_assert_eq!(m.event_source().arn.account(), &account);
        prop_assert_eq!(m.event_source().arn.as_str(), &arn);
    }
}

#[test]
fn r80_with_a_uuid_the_uuid_is_the_identity_whatever_the_functions_version() {
    let uuid = "1B3F6A52-3c0e-4d5c-9e9e-2f4b6a1c7d80";
    let of = |function: &str| RawMapping::new(STREAM, function).uuid(uuid).name("orders").build().unwrap();
    let (one, two) = (of("f:1"), of("f:2"));
    assert_eq!(one.identity(), two.identity());
    assert_eq!(one.identity(), uuid.to_lowercase());
    assert_eq!(
        (one.uuid(), one.application_name()),
        (uuid, "orders"),
        "what the file says is shown as it is"
    );
    let braces = RawMapping::new(STREAM, "f").uuid(format!("{{{uuid}}}")).build().unwrap();
    assert_eq!(braces.identity(), one.identity(), "one UUID in two spellings");
    let without = orders().build().unwrap();
    assert_eq!(without.identity(), without.application_name());
}

#[test]
fn a_timeout_is_lambdas_and_longer_on_managed_instances() {
    let longest = |managed, seconds| orders().managed_instances(managed).timeout_seconds(seconds).build();
    assert_eq!(longest(false, 1_800).unwrap().timeout(), Duration::from_secs(1_800));
    assert_eq!(longest(true, 5_400).unwrap().timeout(), Duration::from_secs(5_400));
    for (managed, seconds, nearest) in [(false, 1_801, "1800"), (true, 5_401, "5400"), (true, 0, "1")] {
        let error = mistake(orders().managed_instances(managed).timeout_seconds(seconds));
        assert_eq!((error.field(), error.kind()), ("Function.Timeout", MappingErrorKind::OutOfRange));
        assert!(error.to_string().ends_with(&format!("the nearest is {nearest}")), "{error}");
    }
}

#[test]
fn a_tables_arn_is_answered_with_the_command_that_prints_its_streams() {
    let error = mistake(RawMapping::new("arn:aws:dynamodb:eu-west-1:123456789012:table/orders", "f"));
    let command =
        "aws dynamodb describe-table --region eu-west-1 --table-name orders --query Table.LatestStreamArn";
    assert!(error.to_string().contains(command), "{error}");
}
