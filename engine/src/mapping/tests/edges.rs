//! Where permitted values end: the last that is good and the first that is not, and what is said about it.

use super::*;

fn is_good(builder: RawMapping) -> bool {
    builder.build().is_ok()
}

/// Problem, permitted values and remedy in one sentence, after the value.
fn said(builder: RawMapping) -> String {
    mistake(builder).to_string()
}

#[test]
fn every_field_comes_out_as_it_was_set() {
    let m = orders()
        .enabled(false)
        .batch_size(7)
        .maximum_batching_window_in_seconds(8)
        .parallelization_factor(9)
        .maximum_record_age_in_seconds(61)
        .maximum_retry_attempts(3)
        .bisect_batch_on_function_error(true)
        .function_response_types(["ReportBatchItemFailures"])
        .payload_limit(4096)
        .timeout_seconds(11)
        .initial_backoff_milliseconds(12)
        .maximum_backoff_seconds(13)
        .idle_interval_milliseconds(215)
        .maximum_idle_interval_milliseconds(316)
        .maximum_records(17)
        .buffer_bytes(1_048_577)
        .answer_encoding(AnswerEncoding::Cbor)
        .checkpoint_interval_milliseconds(18)
        .on_destination_failure(OnDestinationFailure::Drop)
        .on_gap(OnGap::Stop)
        .name("bills")
        .role_arn("arn:aws:iam::123456789012:role/team/reader")
        .starting_position("LATEST")
        .build()
        .unwrap();
    let ms = Duration::from_millis;
    assert!(!m.enabled());
    assert_eq!((m.batch_size(), m.batching_window()), (7, ms(8_000)));
    assert_eq!(m.parallelization_factor(), 9);
    assert_eq!((m.maximum_record_age(), m.maximum_retry_attempts()), (Some(ms(61_000)), Some(3)));
    assert!(m.bisect_batch_on_function_error() && m.report_batch_item_failures() && m.reads_response());
    assert_eq!((m.payload_limit(), m.timeout()), (Some(4096), ms(11_000)));
    assert_eq!(*m.retry(), Retry { initial_backoff: ms(12), maximum_backoff: ms(13_000) });
    let polling = Polling {
        idle_interval: ms(215),
        maximum_idle_interval: ms(316),
        maximum_records: 17,
        buffer_bytes: 1_048_577,
        answer_encoding: AnswerEncoding::Cbor,
    };
    assert_eq!(*m.polling(), polling);
    assert_eq!(m.checkpoint_interval(), ms(18));
    assert_eq!((m.on_destination_failure(), m.on_gap()), (OnDestinationFailure::Drop, OnGap::Stop));
    assert_eq!((m.application_name(), m.starting_position()), ("bills", &Position::Latest));
    assert_eq!(m.invoke_identity_arn(), "arn:aws:iam::123456789012:role/team/reader");
    assert_eq!((m.tumbling_window(), m.filter()), (None, None));
    assert_eq!(orders().build().unwrap().on_gap(), OnGap::Continue);
    assert_eq!(orders().build().unwrap().on_undecodable(), OnUndecodable::Stop);
    let skips = orders().on_undecodable(OnUndecodable::Skip).build().unwrap();
    assert_eq!(skips.on_undecodable(), OnUndecodable::Skip);
}

#[test]
fn numbers_end_where_their_limits_say() {
    type Set = fn(RawMapping, i64) -> RawMapping;
    let fields: [(&limits::Limit, Set); 13] = [
        (&limits::BATCH_SIZE, RawMapping::batch_size),
        (&limits::BATCHING_WINDOW, RawMapping::maximum_batching_window_in_seconds),
        (&limits::PARALLELIZATION_FACTOR, RawMapping::parallelization_factor),
        (&limits::RECORD_AGE, RawMapping::maximum_record_age_in_seconds),
        (&limits::RETRY_ATTEMPTS, RawMapping::maximum_retry_attempts),
        (&limits::TUMBLING_WINDOW, RawMapping::tumbling_window_in_seconds),
        (&limits::TIMEOUT, RawMapping::timeout_seconds),
        (&limits::INITIAL_BACKOFF, RawMapping::initial_backoff_milliseconds),
        (&limits::IDLE_INTERVAL, |b, n| {
            b.idle_interval_milliseconds(n).maximum_idle_interval_milliseconds(60_000)
        }),
        (&limits::MAXIMUM_IDLE_INTERVAL, |b, n| {
            b.idle_interval_milliseconds(200).maximum_idle_interval_milliseconds(n)
        }),
        (&limits::MAXIMUM_RECORDS, RawMapping::maximum_records),
        (&limits::BUFFER_BYTES, RawMapping::buffer_bytes),
        (&limits::CHECKPOINT_INTERVAL, RawMapping::checkpoint_interval_milliseconds),
    ];
    for (limit, set) in fields {
        for good in [limit.minimum, limit.maximum, limit.default].into_iter().chain(limit.special) {
            assert!(is_good(set(orders(), good)), "{}: {good}", limit.field);
        }
        for bad in [limit.special.unwrap_or(limit.minimum) - 1, limit.maximum + 1] {
            assert_eq!(kind(set(orders(), bad)), (limit.field, MappingErrorKind::OutOfRange), "{bad}");
        }
    }
    let backoff = |seconds| orders().maximum_backoff_seconds(seconds);
    assert!(
        is_good(backoff(1)) && is_good(backoff(3_600)) && !is_good(backoff(0)) && !is_good(backoff(3_601))
    );
    assert_eq!(limits::BUFFER_BYTES.minimum, 1_048_576);
    assert_eq!((limits::BUFFER_BYTES.maximum, limits::BUFFER_BYTES.default), (1_073_741_824, 16_777_216));
}

#[test]
fn the_nearest_permitted_value_may_be_no_limit() {
    let age = |n| said(orders().maximum_record_age_in_seconds(n));
    let range = "MaximumRecordAgeInSeconds: {} is out of range; permitted: -1 (no limit) or 60 to 604800; the nearest is ";
    for (value, nearest) in [(-2, -1), (0, -1), (29, -1), (30, 60), (59, 60), (604_801, 604_800)] {
        assert_eq!(age(value), range.replace("{}", &value.to_string()) + &nearest.to_string());
    }
    let window = said(orders().tumbling_window_in_seconds(-1));
    assert_eq!(window, "TumblingWindowInSeconds: -1 is out of range; permitted: 0 to 900; the nearest is 0");
}

#[test]
fn intervals_may_be_equal() {
    assert!(is_good(orders().initial_backoff_milliseconds(1_000).maximum_backoff_seconds(1)));
    assert!(is_good(orders().idle_interval_milliseconds(500).maximum_idle_interval_milliseconds(500)));
    assert!(is_good(orders().parallelization_factor(1).tumbling_window_in_seconds(1)));
    assert!(is_good(orders().parallelization_factor(2).tumbling_window_in_seconds(0)));
    let retry = said(orders().initial_backoff_milliseconds(1_001).maximum_backoff_seconds(1));
    assert_eq!(
        retry,
        "Retry.InitialBackoffMilliseconds: 1001 is above Retry.MaximumBackoffSeconds; permitted: up to 1000; raise \
         the maximum or lower this"
    );
}

#[test]
fn a_start_is_a_time_from_1970_to_now() {
    let at = |ms| orders().starting_position("AT_TIMESTAMP").starting_position_timestamp(ms);
    let now = Wall::from_millis(1_000);
    assert!(is_good(at(0)) && is_good(at(1_000).as_of(now)) && is_good(at(i64::MAX)), "P8");
    assert!(said(at(-1)).starts_with("StartingPositionTimestamp: 1969-12-31T23:59:59.999Z is before 1970; "));
    assert!(said(at(1_001).as_of(now)).contains("1970-01-01T00:00:01.001Z is in the future; "));
    assert!(is_good(orders().starting_position("LATEST")));
    let conflict = said(orders().starting_position("TRIM_HORIZON").starting_position_timestamp(1));
    assert!(conflict.contains("AT_TIMESTAMP only, not with TRIM_HORIZON"), "{conflict}");
}

#[test]
fn names_end_at_the_length_that_their_service_permits() {
    let of = |n: usize| "n".repeat(n);
    let function = |n| RawMapping::new(STREAM, &of(n));
    assert!(is_good(function(256)));
    assert_eq!(kind(function(257)), ("FunctionName", MappingErrorKind::OutOfRange));
    let stream =
        |n| RawMapping::new(&format!("arn:aws:kinesis:eu-west-1:123456789012:stream/{}", of(n)), "f");
    assert!(is_good(stream(1)) && is_good(stream(128)) && !is_good(stream(129)));
    assert_eq!(kind(stream(10_000)), ("EventSourceArn", MappingErrorKind::OutOfRange));
    let short = format!("arn:aws:kinesis:eu-west-1:123456789012:stream/{}", of(10_000 - 46));
    assert_eq!(short.len(), 10_000);
    assert_eq!(kind(RawMapping::new(&short, "f")).1, MappingErrorKind::InvalidValue);
    let table = |n| {
        let arn = format!("arn:aws:dynamodb:eu-west-1:123456789012:table/{}/stream/a-1:2.3_4", of(n));
        RawMapping::new(&arn, "f")
    };
    assert!(is_good(table(1)) && is_good(table(255)) && !is_good(table(256)) && !is_good(table(0)));
    for (arn, most) in
        [("arn:aws:sqs:eu-west-1:123456789012:", 80), ("arn:aws:sns:eu-west-1:123456789012:", 256)]
    {
        let to = |n| orders().on_failure_destination(format!("{arn}{}", of(n)));
        assert!(is_good(to(most)) && !is_good(to(most + 1)), "{arn}");
        assert_eq!(kind(to(350)).1, MappingErrorKind::OutOfRange);
        assert_eq!(kind(to(350 - arn.len())).1, MappingErrorKind::InvalidValue);
    }
    let bucket = |name: &str| is_good(orders().on_failure_destination(format!("arn:aws:s3:::{name}")));
    assert!(bucket(&of(3)) && bucket(&of(63)) && !bucket(&of(64)) && bucket("1-a.b2"));
    assert!(!bucket("a..b") && !bucket("a_b") && !bucket("-ab") && !bucket("ab-"));
    let name = |text: String| is_good(orders().name(text));
    assert!(name("ü".repeat(255)) && !name("ü".repeat(256)) && !name(String::new()) && !name("a\nb".into()));
}

#[test]
fn an_arn_needs_each_of_its_parts() {
    let function = |arn: &str| is_good(RawMapping::new(STREAM, arn));
    assert!(function("arn:aws:lambda:eu-west-1:123456789012:function:f"));
    for bad in [
        "arn:aws:iam:eu-west-1:123456789012:function:f",
        "arn:aws:lambda::123456789012:function:f",
        "arn:aws:lambda:eu-west-1:12345678901x:function:f",
        "arn:aws:lambda:eu-west-1::function:f",
        "arn:azure:lambda:eu-west-1:123456789012:function:f",
        "arn:aws-:lambda:eu-west-1:123456789012:function:f:",
        "f:a b",
        ":f",
        "12345678901x:function:f",
    ] {
        assert!(!function(bad), "{bad}");
    }
    let role = |arn: &str| is_good(orders().role_arn(arn));
    assert!(role("arn:aws:iam::123456789012:role/r"));
    for bad in [
        "arn:aws:sts::123456789012:role/r",
        "arn:aws:iam:eu-west-1:123456789012:role/r",
        "arn:aws:iam::12345678901:role/r",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:user/r",
    ] {
        assert_eq!(
            kind(orders().role_arn(bad)),
            ("Function.RoleArn", MappingErrorKind::InvalidValue),
            "{bad}"
        );
    }
    for service in ["sqs", "sns"] {
        let to = |at: &str| is_good(orders().on_failure_destination(format!("arn:aws:{service}:{at}:dead")));
        assert!(to("eu-west-1:123456789012") && !to("eu-west-1:") && !to(":123456789012"));
    }
    for at in ["eu-west-1:", ":123456789012"] {
        assert!(!is_good(orders().on_failure_destination(format!("arn:aws:s3:{at}:dead"))), "{at}");
    }
}

#[test]
fn a_consumer_of_a_stream_is_told_from_a_bad_name() {
    let kind_of = |name: &str| {
        let arn = format!("arn:aws:kinesis:eu-west-1:123456789012:stream/{name}");
        kind(RawMapping::new(&arn, "f")).1
    };
    assert_eq!(kind_of("a/consumer/c:1"), MappingErrorKind::NotSupported, "R12");
    assert_eq!(kind_of("a/b"), MappingErrorKind::InvalidValue);
    assert_eq!(kind_of("a b/consumer/c:1"), MappingErrorKind::InvalidValue);
}

#[test]
fn a_table_is_told_from_its_stream_and_from_what_is_no_stream() {
    let said = |resource: &str| {
        let arn = format!("arn:aws:{resource}");
        said(RawMapping::new(&arn, "f"))
    };
    let table = said("dynamodb:eu-west-1:123456789012:table/orders");
    assert!(table.contains("is a table, not its stream") && table.contains("LatestStreamArn"), "{table}");
    let label = said("dynamodb:eu-west-1:123456789012:table/orders/stream/");
    assert!(label.contains("a stream label that DynamoDB does not permit"), "{label}");
    let other = said("s3:eu-west-1:123456789012:orders");
    assert!(other.contains("is not the ARN of a stream"), "{other}");
}

#[test]
fn r57_a_mappings_filter_judges_records_of_its_own_kind_of_stream() {
    let mapping = orders().filter_patterns([r#"{"partitionKey": ["a"]}"#]).build().unwrap();
    let shard = "shard".into();
    let mut passes = mapping.filter.as_ref().unwrap().of_shard(&shard);
    let mut record = |key: &str| {
        let data = crate::record::Data::Raw(bytes::Bytes::new());
        passes(&crate::record::Record::new(crate::position::Seq::plain("1"), Some(key.into()), None, data))
    };
    assert_eq!((record("a"), record("b")), (true, false));
}

#[test]
fn a_function_beside_its_arn_may_leave_the_qualifier_to_it() {
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:live";
    let with_arn = |name: &str| RawMapping::new(STREAM, name).function_arn(arn);
    assert!(is_good(with_arn("f")) && is_good(with_arn("f:live")));
    for name in ["g", "g:live", "f:test"] {
        assert_eq!(kind(with_arn(name)), ("FunctionName", MappingErrorKind::Conflict), "{name}");
    }
    assert_eq!(with_arn("f").build().unwrap().application_name(), "f:live@123456789012.eu-west-1.orders");
}

#[test]
fn response_types_are_at_most_one_and_the_one_that_exists() {
    let of = |types: &[&str]| orders().function_response_types(types.iter().copied());
    assert!(is_good(of(&[])) && is_good(of(&["ReportBatchItemFailures"])));
    let twice = said(of(&["ReportBatchItemFailures"; 2]));
    assert_eq!(
        twice,
        "FunctionResponseTypes: has 2 items; permitted: at most 1; write [ReportBatchItemFailures]"
    );
}

#[test]
fn a_mistake_tells_its_parts_one_by_one() {
    let error = mistake(orders().batch_size(0));
    assert_eq!((error.field(), error.index(), error.value()), ("BatchSize", None, "0"));
    assert_eq!((error.permitted_values(), error.remedy_text()), ("1 to 10000", "the nearest is 1"));
    assert_eq!(error.message(), "0 is out of range; permitted: 1 to 10000; the nearest is 1");
    let errors = orders().filter_patterns([r#"{"data": {"a": [1]}}"#, "x"]).build().unwrap_err();
    assert_eq!(errors.iter().map(MappingError::index).collect::<Vec<_>>(), [Some(1)]);
    assert_eq!((&errors).into_iter().count(), 1);
    let long = |n| said(orders().starting_position(&*"p".repeat(n)));
    assert!(long(120).contains(&format!(": {} is not", "p".repeat(120))));
    assert!(long(121).contains(&format!(": {}… is not", "p".repeat(120))), "a long value is shortened");
}

#[test]
fn filters_are_shown_as_they_were_written_and_judged_together() {
    let bad = |text: &str| mistake(orders().filter_patterns([text]));
    assert_eq!(bad(" ").value(), "an empty text");
    assert_eq!(bad("x").value(), "x");
    assert_eq!(bad(&"x".repeat(4097)).kind(), MappingErrorKind::OutOfRange);
    assert_eq!(bad("x").kind(), MappingErrorKind::InvalidValue);
    let many = mistake(orders().filter_patterns([r#"{"data": {"a": [1]}}"#; 11]));
    assert_eq!(many.message(), "has 11 filters, which is more than 10; join patterns, for example by $or");
    assert_eq!((many.value(), many.index(), many.aws_message()), ("", None, None));
    let conflict = said(orders().tumbling_window_in_seconds(30).filter_patterns([r#"{"data": {"a": [1]}}"#]));
    assert!(conflict.starts_with("FilterCriteria.Filters: cannot go with TumblingWindowInSeconds; "));
}
