//! The builder of programs: typed values become what a configuration file's become.

use std::time::SystemTime;

use super::*;

fn typed() -> MappingBuilder {
    EventSourceMapping::builder(STREAM, "orders-worker")
}

fn mistakes(builder: MappingBuilder) -> Vec<String> {
    builder.build().unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn typed_settings_make_the_mapping_that_raw_ones_make() {
    let seconds = Duration::from_secs;
    let by_types = typed()
        .batch_size(7)
        .maximum_batching_window(seconds(30))
        .parallelization_factor(2)
        .maximum_record_age(seconds(3600))
        .maximum_retry_attempts(5)
        .bisect_batch_on_function_error(true)
        .report_batch_item_failures(true)
        .starting_position(StartingPosition::AtTimestamp(Wall::from_millis(1_700_000_000_123)))
        .filter_patterns([r#"{"data":{"a":[1]}}"#])
        .on_failure_destination("file:discarded.jsonl")
        .timeout(seconds(60))
        .initial_backoff(Duration::from_millis(250))
        .maximum_backoff(seconds(10))
        .idle_interval(seconds(2))
        .maximum_idle_interval(seconds(4))
        .maximum_records(500)
        .buffer_bytes(2 << 20)
        .checkpoint_interval(Duration::from_millis(1_500))
        .name("orders");
    let raw = orders()
        .batch_size(7)
        .maximum_batching_window_in_seconds(30)
        .parallelization_factor(2)
        .maximum_record_age_in_seconds(3600)
        .maximum_retry_attempts(5)
        .bisect_batch_on_function_error(true)
        .function_response_types(["ReportBatchItemFailures"])
        .starting_position("AT_TIMESTAMP")
        .starting_position_timestamp(1_700_000_000_123)
        .filter_patterns([r#"{"data":{"a":[1]}}"#])
        .on_failure_destination("file:discarded.jsonl")
        .timeout_seconds(60)
        .initial_backoff_milliseconds(250)
        .maximum_backoff_seconds(10)
        .idle_interval_milliseconds(2_000)
        .maximum_idle_interval_milliseconds(4_000)
        .maximum_records(500)
        .buffer_bytes(2 << 20)
        .checkpoint_interval_milliseconds(1_500)
        .name("orders");
    assert_eq!(by_types.build().unwrap(), raw.build().unwrap());
    assert_eq!(typed().build().unwrap(), orders().build().unwrap(), "and the same defaults");
}

#[test]
fn a_duration_that_its_unit_cannot_express_is_refused_and_never_rounded() {
    let odd = typed().timeout(Duration::from_millis(1_500)).idle_interval(Duration::from_micros(300_500));
    assert_eq!(
        mistakes(odd),
        [
            "Function.Timeout: 1.5s is not a whole number of seconds; permitted: 1 to 1800; round it",
            "Polling.IdleIntervalMilliseconds: 300.5ms is not a whole number of milliseconds; permitted: 200 to 60000; \
             round it",
        ]
    );
    let corrected = typed().timeout(Duration::from_millis(1_500)).timeout(Duration::from_secs(2));
    assert_eq!(corrected.build().unwrap().timeout(), Duration::from_secs(2), "the last call counts");
}

#[test]
fn every_value_out_of_range_is_reported_however_large() {
    let wrong =
        typed().batch_size(usize::MAX).tumbling_window(Duration::MAX).maximum_retry_attempts(u32::MAX);
    let found = mistakes(wrong);
    assert!(found.iter().any(|text| text.starts_with("BatchSize: 9223372036854775807 is out of range")));
    assert!(found.iter().any(|text| text.starts_with("TumblingWindowInSeconds:")), "{found:?}");
    assert!(found.iter().any(|text| text.starts_with("MaximumRetryAttempts: 4294967295")), "{found:?}");
}

#[test]
fn a_starting_position_is_that_of_the_last_call_and_takes_the_standard_time() {
    let epoch = SystemTime::UNIX_EPOCH;
    let at = StartingPosition::at(epoch + Duration::from_micros(1_234_567));
    assert_eq!(at, StartingPosition::AtTimestamp(Wall::from_millis(1_234)));
    let mapping = typed().starting_position(at).build().unwrap();
    assert_eq!(*mapping.starting_position(), Position::AtTimestamp(1_234));
    let latest = typed().starting_position(at).starting_position(StartingPosition::Latest).build().unwrap();
    assert_eq!(*latest.starting_position(), Position::Latest, "no timestamp is left behind");
    let before = typed().starting_position(StartingPosition::at(epoch - Duration::from_secs(1)));
    assert!(mistakes(before)[0].contains("is before 1970"));
    let later = typed().starting_position(at).as_of(Wall::from_millis(1_233));
    assert!(mistakes(later)[0].contains("is in the future"));
}
