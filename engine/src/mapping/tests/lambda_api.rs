//! The acceptance tests of Lambda's API that concern a consumer (docs/semantics.md, section 5.3) under their own names:
//! the same mistakes with Lambda's own texts (section 1.2). Calls of the API itself, as `GetEventSourceMapping` of
//! an unknown UUID, have no counterpart here.

use super::*;

/// What Lambda says to the only mistake of a mapping.
fn refused(builder: RawMapping) -> String {
    mistake(builder).aws_message().expect("Lambda has a text for it")
}

fn range(value: &str, field: &str, bound: &str) -> String {
    format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: \
         Member must have value {bound}"
    )
}

#[test]
fn test_event_source_mapping_exceptions() {
    let source = |arn: &str| RawMapping::new(arn, "orders-worker");
    assert_eq!(refused(source("")), "Unrecognized event source.");
    assert_eq!(refused(source("arn:aws:s3:::bucket")), "Unrecognized event source.");
    assert_eq!(
        refused(orders().on_success_destination("arn:aws:sqs:eu-west-1:123456789012:q")),
        "OnSuccess configuration is not supported for event source mappings."
    );
    // Lambda's text for this is known in part only.
    assert_eq!(
        kind(orders().function_response_types(["Invalid"])),
        ("FunctionResponseTypes", MappingErrorKind::InvalidValue)
    );
    for (builder, value, field, bound) in [
        (orders().batch_size(0), "0", "batchSize", "greater than or equal to 1"),
        (orders().batch_size(10_001), "10001", "batchSize", "less than or equal to 10000"),
        (
            orders().maximum_batching_window_in_seconds(301),
            "301",
            "maximumBatchingWindowInSeconds",
            "less than or equal to 300",
        ),
        (orders().parallelization_factor(0), "0", "parallelizationFactor", "greater than or equal to 1"),
        (orders().parallelization_factor(11), "11", "parallelizationFactor", "less than or equal to 10"),
        (
            orders().tumbling_window_in_seconds(901),
            "901",
            "tumblingWindowInSeconds",
            "less than or equal to 900",
        ),
        (
            orders().maximum_retry_attempts(10_001),
            "10001",
            "maximumRetryAttempts",
            "less than or equal to 10000",
        ),
        (
            orders().maximum_record_age_in_seconds(604_801),
            "604801",
            "maximumRecordAgeInSeconds",
            "less than or equal to 604800",
        ),
    ] {
        assert_eq!(refused(builder), range(value, field, bound));
    }
    let age = "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)";
    for seconds in [0, 59] {
        assert_eq!(refused(orders().maximum_record_age_in_seconds(seconds)), age);
    }
    assert_eq!(
        refused(orders().parallelization_factor(2).tumbling_window_in_seconds(30)),
        "Parallelization factor must be equal to 1 when tumbling window period is configured"
    );
}

fn positions_are_validated(new: impl Fn() -> RawMapping) {
    assert_eq!(
        refused(new().starting_position(None)),
        "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: \
         Member must not be null."
    );
    assert_eq!(
        refused(new().starting_position("invalid")),
        "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: \
         Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    );
    for position in ["LATEST", "TRIM_HORIZON"] {
        assert_eq!(
            refused(new().starting_position(position).starting_position_timestamp(1)),
            "Timestamp only valid with StartingPosition AT_TIMESTAMP"
        );
        assert!(new().starting_position(position).build().is_ok(), "{position}");
    }
}

/// Lambda's test is about a table's stream. AT_TIMESTAMP, which Lambda refuses there, is allowed.
#[test]
fn test_create_event_source_validation() {
    positions_are_validated(|| RawMapping::new(TABLE, "orders-worker"));
}

#[test]
fn test_create_event_source_validation_kinesis() {
    positions_are_validated(orders);
}

#[test]
fn test_create_event_filter_criteria_validation() {
    for pattern in ["", "single-string", "[]", r#"{"data": "#, r#"["data"]"#] {
        let errors = orders().filter_patterns([pattern]).build().unwrap_err();
        let texts: Vec<_> = errors.iter().map(MappingError::aws_message).collect();
        assert_eq!(texts, [Some("Invalid filter pattern definition.".to_owned())], "{pattern}");
    }
    assert!(orders().filter_patterns([""; 0]).build().is_ok(), "an empty container is accepted, and dropped");
}

#[test]
fn test_function_name_variations() {
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:orders-worker";
    for (name, function, version) in [
        ("orders-worker".to_owned(), arn.to_owned(), "$LATEST"),
        ("orders-worker:$LATEST".to_owned(), format!("{arn}:$LATEST"), "$LATEST"),
        ("orders-worker:1".to_owned(), format!("{arn}:1"), "1"),
        ("orders-worker:myalias".to_owned(), format!("{arn}:myalias"), "$LATEST"),
        ("123456789012:function:orders-worker".to_owned(), arn.to_owned(), "$LATEST"),
        (arn.to_owned(), arn.to_owned(), "$LATEST"),
        (format!("{arn}:1"), format!("{arn}:1"), "1"),
        (format!("{arn}:myalias"), format!("{arn}:myalias"), "$LATEST"),
    ] {
        let mapping = RawMapping::new(STREAM, &name).build().unwrap();
        assert_eq!(
            (mapping.function_arn(), mapping.executed_version()),
            (function.as_str(), version),
            "{name}"
        );
        assert_eq!(mapping.function_name(), "orders-worker");
    }
}

/// What is left of a mapping's life without an API: its identity is that of its source and function, whatever else of
/// it is changed (R80), and each qualifier of a function has a mapping of its own (R79).
#[test]
fn test_event_source_mapping_lifecycle() {
    let identity = |builder: RawMapping| {
        let mapping = builder.build().unwrap();
        (mapping.uuid().to_owned(), mapping.application_name().to_owned())
    };
    let created = identity(orders());
    let updated = orders()
        .enabled(false)
        .batch_size(5)
        .maximum_batching_window_in_seconds(1)
        .maximum_retry_attempts(2)
        .bisect_batch_on_function_error(true)
        .maximum_record_age_in_seconds(60)
        .parallelization_factor(2)
        .on_failure_destination("file:./discarded.jsonl");
    assert_eq!(identity(updated), created);
    for other in ["orders-worker:1", "orders-worker:live", "bills-worker"] {
        assert_ne!(identity(RawMapping::new(STREAM, other)), created, "{other}");
    }
}
