//! Mappings from JSON as AWS writes it.

use crate::mapping::{AnswerEncoding, EventSourceMapping, RawMapping};
use crate::time::Wall;

const NOW: Wall = Wall::from_millis(1_789_809_045_948);

fn errors(text: &str) -> Vec<String> {
    let errors = EventSourceMapping::from_json(text, NOW).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

/// A good mapping with one more line, the fifth.
fn with(line: &str) -> String {
    format!(
        "{{\n\"EventSourceArn\": \"arn:aws:kinesis:eu-west-1:123456789012:stream/orders\",\n\
         \"FunctionName\": \"f\",\n\"StartingPosition\": \"LATEST\"\n{line}\n}}"
    )
}

#[test]
fn what_get_event_source_mapping_shows_is_a_mapping() {
    let text = r#"{
        "UUID": "14e0db71-5d35-4eb5-b481-8945cf9d10c2", "BatchSize": 200, "ParallelizationFactor": 2,
        "MaximumBatchingWindowInSeconds": 5, "StartingPosition": "AT_TIMESTAMP",
        "StartingPositionTimestamp": "2026-09-19T10:10:45.948+02:00",
        "EventSourceArn": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:orders-worker:live",
        "FilterCriteria": {"Filters": [{"Pattern": "{\"data\": {\"a\": [1]}}"}]},
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:123456789012:dead"}},
        "LastModified": 1670000000.0, "LastProcessingResult": "OK", "State": "Enabled", "Topics": [], "Queues": [],
        "MaximumRecordAgeInSeconds": 3600, "BisectBatchOnFunctionError": true, "MaximumRetryAttempts": 3,
        "TumblingWindowInSeconds": 0, "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "EventSourceMappingArn": "arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:14e0db71"
    }"#;
    let built = RawMapping::new("arn:aws:kinesis:eu-west-1:123456789012:stream/orders", "")
        .function_arn("arn:aws:lambda:eu-west-1:123456789012:function:orders-worker:live")
        .uuid("14e0db71-5d35-4eb5-b481-8945cf9d10c2")
        .batch_size(200)
        .parallelization_factor(2)
        .maximum_batching_window_in_seconds(5)
        .starting_position("AT_TIMESTAMP")
        .starting_position_timestamp(1_789_805_445_948)
        .filter_patterns([r#"{"data": {"a": [1]}}"#])
        .on_failure_destination("arn:aws:sqs:eu-west-1:123456789012:dead")
        .maximum_record_age_in_seconds(3600)
        .bisect_batch_on_function_error(true)
        .maximum_retry_attempts(3)
        .function_response_types(["ReportBatchItemFailures"]);
    assert_eq!(EventSourceMapping::from_json(text, NOW), built.build());
}

#[test]
fn null_is_a_key_that_is_not_set() {
    let nulls = r#""BatchSize": null, "FilterCriteria": null, "DestinationConfig": {"OnFailure": null}, "Topics": null"#;
    let mapping = EventSourceMapping::from_json(&with(&format!(",{nulls}")), NOW);
    assert_eq!(mapping, EventSourceMapping::from_json(&with(""), NOW));
    assert!(mapping.is_ok());
    let mistakes = errors(r#"{"EventSourceArn": null}"#);
    assert!(mistakes.iter().any(|mistake| mistake.contains("EventSourceArn")), "{mistakes:?}");
}

#[test]
fn what_lambda_does_not_have_is_read_under_the_sidecars_names() {
    let own = r#""Name": "n", "Retry": {"InitialBackoffMilliseconds": 7}, "Polling": {"MaximumRecords": 9, "Encoding": "json"},
        "Function": {"Timeout": 5000, "ManagedInstances": true}, "OnGap": "stop", "OnUndecodable": "skip",
        "OnDestinationFailure": "drop", "CheckpointIntervalMilliseconds": 11"#;
    let mapping = EventSourceMapping::from_json(&with(&format!(",{own}")), NOW);
    let mapping = mapping.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((mapping.application_name(), mapping.polling().maximum_records), ("n", 9));
    assert_eq!((mapping.retry().initial_backoff.as_millis(), mapping.timeout().as_secs()), (7, 5000));
    let choices = (mapping.on_gap(), mapping.on_undecodable(), mapping.on_destination_failure());
    assert_eq!(format!("{choices:?}"), "(Stop, Skip, Drop)");
    assert_eq!(mapping.checkpoint_interval().as_millis(), 11);
    assert_eq!(mapping.polling().answer_encoding, AnswerEncoding::Json);
}

#[test]
fn every_mistake_in_a_json_file_has_its_line_its_value_and_a_remedy() {
    for (line, expected) in [
        (r#","BatchSize": 0"#, "line 5: BatchSize: 0 is out of range; permitted: 1 to 10000"),
        (r#","BatchSize": "7""#, "line 5: BatchSize: \"7\" has the wrong type; write an integer"),
        (r#","Enabled": 1"#, "line 5: Enabled: 1 has the wrong type; write true or false"),
        (
            r#","Batchsize": 7"#,
            "line 5: Batchsize: 7 is not a key of a mapping; correct its name or remove it",
        ),
        (r#","Topics": ["t"]"#, "line 5: Topics: [\"t\"] is not for streams; remove it"),
        (
            r#","Worker": {}"#,
            "line 5: Worker: {} is a setting of the sidecar; set it in the program's code and remove it",
        ),
        (r#","FunctionName": "g""#, "line 3: FunctionName: is written twice; remove one"),
        (r#","OnGap": "halt""#, "line 5: OnGap: \"halt\" is not one of the choices; write continue or stop"),
        (r#","Retry": 7"#, "line 5: Retry: 7 is no object; write an object"),
        (r#","UUID": 7"#, "line 5: UUID: 7 is no text; write a text"),
        (
            r#","FilterCriteria": {"Filters": [{"Pattern": 1}]}"#,
            "line 5: FilterCriteria.Filters[0]: {\"Pattern\": 1} has the wrong type; write an object with a Pattern, a text",
        ),
        (
            r#","StartingPositionTimestamp": "noon""#,
            "line 5: StartingPositionTimestamp: \"noon\" is no time; write ISO 8601 with a time zone, or epoch seconds",
        ),
    ] {
        let found = errors(&with(line));
        assert!(found.iter().any(|error| error.starts_with(expected)), "{line}: {found:#?}");
        assert_eq!(found.len(), 1, "{found:#?}");
    }
}

#[test]
fn mistakes_in_a_json_file_come_all_at_once_and_in_its_order() {
    let text =
        "{\n\"BatchSize\": 0,\n\"MaximumRetryAttempts\": -2,\n\"StartingPosition\": 1,\n\"Nonsense\": 1}";
    let found = errors(text);
    let begins: Vec<_> = found.iter().filter_map(|error| error.split(": ").nth(1)).collect();
    assert!(found[0].starts_with("EventSourceArn: "), "{found:#?}");
    assert_eq!(
        begins[begins.len() - 4..],
        ["BatchSize", "MaximumRetryAttempts", "StartingPosition", "Nonsense"]
    );
}

#[test]
fn each_wrong_filter_of_a_json_file_is_reported_at_its_own_line() {
    let filters = ",\"FilterCriteria\": {\"Filters\": [\n{\"Pattern\": \"x\"},\n{\"Pattern\": \"y\"}]}";
    let found = errors(&with(filters));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("line 6: FilterCriteria.Filters[0]: x "), "{found:#?}");
    assert!(found[1].starts_with("line 7: FilterCriteria.Filters[1]: y "), "{found:#?}");
}

#[test]
fn a_text_that_is_no_json_object_is_refused_at_its_line() {
    for (text, expected) in [
        ("", "line 1: JSON: cannot be read: "),
        ("[]", "line 1: JSON: cannot be read: "),
        ("{\n\"BatchSize\": 1,,}", "line 2: JSON: cannot be read: "),
        ("{} {}", "line 1: JSON: cannot be read: "),
    ] {
        let found = errors(text);
        assert!(matches!(&found[..], [error] if error.starts_with(expected)), "{text}: {found:#?}");
    }
}
