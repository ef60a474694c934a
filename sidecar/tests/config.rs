//! The configuration file: what is refused and how it is shown, what is accepted and what it means.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use shardmill_engine::{FailureDestination, OnDestinationFailure, OnGap, OnUndecodable, Position, Wall};
use shardmill_sidecar::config::{self, Admin, Checkpoints, Loaded, MappingConfig, Target};

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "ACCOUNT" => "123456789012",
        "BATCH_SIZE" => "42",
        "NOT_A_NUMBER" => "many",
        _ => return None,
    };
    Some(value.to_owned())
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(Path::new("tests/config").join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn good(name: &str) -> Loaded {
    config::load(&Path::new("tests/config/good").join(name), &environment).unwrap_or_else(|e| panic!("{e}"))
}

/// The only mapping of a good file.
fn only(name: &str) -> MappingConfig {
    let mappings = good(name).config.mappings;
    assert_eq!(mappings.len(), 1);
    mappings.into_iter().next().unwrap()
}

fn keys(notes: &[config::Note]) -> Vec<&str> {
    notes.iter().map(|note| note.key.as_str()).collect()
}

fn refused(text: &str) -> String {
    config::parse(Path::new("c.yaml"), text, &environment, Wall::from_millis(i64::MAX))
        .unwrap_err()
        .to_string()
}

#[test]
fn every_bad_file_is_refused_with_its_own_words() {
    let files = files("bad");
    assert!(files.len() >= 40, "{}", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for file in files {
            let errors = match config::load(&file, &environment) {
                Ok(loaded) => panic!("{} was accepted: {loaded:?}", file.display()),
                Err(errors) => errors,
            };
            insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), errors.to_string());
        }
    });
}

#[test]
fn every_error_of_a_bad_file_has_a_place_within_it() {
    for file in files("bad") {
        let text = std::fs::read_to_string(&file).unwrap();
        let errors = config::load(&file, &environment).unwrap_err();
        assert!(errors.iter().count() > 0);
        for error in errors.iter().filter_map(config::ConfigError::place) {
            let (line, column) = error;
            let line_text = text.lines().nth(line - 1).unwrap_or_default();
            assert!(column <= line_text.chars().count() + 1, "{}:{line}:{column}", file.display());
        }
    }
}

#[test]
fn lambdas_own_text_is_at_hand_where_it_is_known() {
    for (file, expected) in [
        (
            "batch_size_too_large",
            "1 validation error detected: Value '10001' at 'batchSize' failed to satisfy constraint: \
             Member must have value less than or equal to 10000",
        ),
        ("filter_that_is_no_json", "Invalid filter pattern definition."),
        ("destination_on_success", "OnSuccess configuration is not supported for event source mappings."),
        ("scaling_config", "Unsupported ScalingConfig parameter for given event source mapping type."),
        ("timestamp_without_at_timestamp", "Timestamp only valid with StartingPosition AT_TIMESTAMP"),
    ] {
        let path = Path::new("tests/config/bad").join(file).with_extension("yaml");
        let errors = config::load(&path, &environment).unwrap_err();
        let texts: Vec<_> = errors.iter().filter_map(config::ConfigError::aws_message).collect();
        assert_eq!(texts, [expected], "{file}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| config::load(path, &environment).unwrap_err().to_string();
    let missing = folder.path().join("missing.yaml");
    let text = load(&missing);
    assert!(text.starts_with(&format!("{}: cannot be read: ", missing.display())), "{text}");
    assert!(load(folder.path()).contains("cannot be read"), "a folder");

    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        load(&path)
    };
    assert!(write("empty.yaml", b"").contains("holds no mapping"));
    assert!(write("latin1.yaml", b"Name: caf\xe9\n").contains("is not UTF-8 from byte 9 on"));
    assert!(write("large.yaml", &vec![b'#'; (1 << 20) + 1]).contains("permitted: up to 1048576"));
}

#[test]
fn what_the_aws_cli_prints_is_accepted() {
    let loaded = good("cli_get_event_source_mapping.json");
    assert_eq!(
        keys(&loaded.ignored),
        [
            "LastModified",
            "LastProcessingResult",
            "State",
            "StateTransitionReason",
            "MetricsConfig",
            "EventSourceMappingArn"
        ]
    );
    let m = &loaded.config.mappings[0].mapping;
    assert_eq!(m.function_arn(), "arn:aws:lambda:eu-west-1:123456789012:function:orders-worker:12");
    assert_eq!(m.executed_version(), "12");
    assert_eq!(m.uuid(), "1b3f6a52-3c0e-4d5c-9e9e-2f4b6a1c7d80");
    assert_eq!(m.application_name(), "orders-worker:12@123456789012.eu-west-1.orders");
    assert_eq!(m.maximum_retry_attempts(), Some(3));
    assert_eq!(m.batching_window(), Duration::from_secs(1));
    assert!(m.report_batch_item_failures() && m.bisect_batch_on_function_error());
    assert!(
        matches!(m.failure_destination(), Some(FailureDestination::Sqs(queue)) if queue.resource() == "orders-dlq")
    );
    assert_eq!(
        loaded.config.mappings[0].function.target,
        Target::Url { url: "http://127.0.0.1:8080/".into(), not_reached_status: vec![408, 429, 503] }
    );
}

#[test]
fn what_boto3_returns_is_accepted() {
    let one = only("boto3_get_event_source_mapping.json");
    assert_eq!(*one.mapping.starting_position(), Position::AtTimestamp(1_769_860_800_250));
    assert_eq!(one.mapping.maximum_retry_attempts(), None);
    assert_eq!(one.mapping.failure_destination(), None);
    let Target::Command { command, .. } = one.function.target else { panic!("{:?}", one.function) };
    assert_eq!(command, ["python3", "-m", "awslambdaric", "app.handler"]);
}

#[test]
fn a_cloudformation_resource_is_accepted() {
    let loaded = good("cloudformation_resource.yaml");
    assert_eq!(keys(&loaded.ignored), ["DependsOn", "Metadata", "KmsKeyArn", "Tags"]);
    let m = &loaded.config.mappings[0].mapping;
    assert_eq!(*m.starting_position(), Position::Latest);
    assert_eq!(m.batch_size(), 200);
    assert_eq!(m.maximum_retry_attempts(), Some(5));
}

#[test]
fn an_event_of_sam_is_accepted() {
    let one = only("sam_event.yaml");
    assert_eq!(one.mapping.event_source().stream, "orders");
    assert_eq!(*one.mapping.starting_position(), Position::AtTimestamp(1_769_860_800_000));
    assert!(!one.mapping.enabled());
    let Target::Command { command, environment, .. } = one.function.target else {
        panic!("{:?}", one.function)
    };
    assert_eq!(command, ["./orders-worker", "--port", "8080"]);
    let expected = [("LOG_LEVEL", "info"), ("WORKERS", "4")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(environment, BTreeMap::from(expected));
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let loaded = good("every_key.yaml");
    let config = &loaded.config;
    assert_eq!(config.worker.id.as_deref(), Some("worker-1"));
    assert_eq!(config.worker.lease, Duration::from_secs(2));
    assert_eq!(config.worker.maximum_leases, Some(8));
    assert_eq!(config.worker.stop, Duration::from_secs(20));
    assert_eq!(config.worker.buffer_bytes, 134_217_728);
    assert_eq!(config.worker.maximum_concurrent_reads, 64);
    assert_eq!(config.admin, Admin::Listen("0.0.0.0:9000".parse().unwrap()));
    assert_eq!(config.aws.region.as_deref(), Some("eu-central-1"));
    assert_eq!(config.aws.endpoint_url.as_deref(), Some("http://127.0.0.1:4566"));
    assert_eq!(config.aws.profile.as_deref(), Some("orders"));
    assert_eq!(config.aws.assume_role_arn.as_deref(), Some("arn:aws:iam::123456789012:role/orders-reader"));

    let [orders, bills] = &config.mappings[..] else { panic!("{}", config.mappings.len()) };
    let m = &orders.mapping;
    assert_eq!(m.event_source().arn.as_str(), "arn:aws:kinesis:eu-west-1:123456789012:stream/orders");
    assert_eq!(m.application_name(), "orders");
    assert_eq!(m.batch_size(), 42, "a number from the environment");
    assert!(m.bisect_batch_on_function_error(), "a boolean from a default");
    let patterns: Vec<_> = m.filter().unwrap().patterns().collect();
    assert_eq!(patterns, [r#"{"data": {"kind": ["order"], "amount": [{"numeric": [">", 0]}]}}"#]);
    assert_eq!(m.batching_window(), Duration::from_secs(5));
    assert_eq!(m.maximum_retry_attempts(), Some(0));
    assert_eq!(m.failure_destination(), Some(&FailureDestination::File("./dead.jsonl".into())));
    assert_eq!(m.on_destination_failure(), OnDestinationFailure::Drop);
    assert_eq!(m.on_gap(), OnGap::Stop);
    assert_eq!(m.on_undecodable(), OnUndecodable::Skip);
    assert_eq!(m.checkpoint_interval(), Duration::from_millis(50));
    assert_eq!(m.timeout(), Duration::from_secs(30));
    assert_eq!(m.invoke_identity_arn(), "arn:aws:iam::123456789012:role/orders");
    assert_eq!(m.polling().maximum_records, 100, "its own");
    let idle = [m.polling().idle_interval, m.polling().maximum_idle_interval];
    assert_eq!(idle.map(|interval| interval.as_millis()), [250, 900], "shared");
    let (room, encoding) = (m.polling().buffer_bytes, m.polling().answer_encoding);
    assert_eq!((room, encoding), (2_097_152, shardmill_engine::AnswerEncoding::Cbor));
    let backoff = (m.retry().initial_backoff, m.retry().maximum_backoff);
    assert_eq!(backoff, (Duration::from_millis(100), Duration::from_secs(30)));
    assert_eq!(orders.function.maximum_concurrency, Some(3));
    assert!(
        matches!(&orders.function.target, Target::Url { not_reached_status, .. } if *not_reached_status == [429])
    );
    assert_eq!(orders.checkpoints, Checkpoints::Sqlite("/var/lib/shardmill/orders.db".into()));

    assert_eq!(bills.checkpoints, Checkpoints::Memory);
    assert_eq!(bills.mapping.polling().maximum_records, 5000, "shared");
    let Target::Command { environment, working_directory, concurrency_per_process, .. } =
        &bills.function.target
    else {
        panic!()
    };
    assert_eq!(*concurrency_per_process, 4);
    assert_eq!(environment["PRICE"], "${NET}");
    assert_eq!(working_directory.as_deref(), Some(Path::new("/srv/bills")));

    let warned = ["Admin.Listen", "Mappings[0].Function.Timeout", "Mappings[1].Checkpoints"];
    assert_eq!(keys(&loaded.warnings), warned);
}

#[test]
fn a_dynamodb_stream_has_polling_defaults_of_its_own_and_may_start_at_a_time() {
    let mapping = only("dynamodb_stream.yaml").mapping;
    assert_eq!(mapping.event_source().stream, "orders");
    assert_eq!(*mapping.starting_position(), Position::AtTimestamp(1_789_657_200_000));
    let polling = mapping.polling();
    assert_eq!(polling.idle_interval, Duration::from_millis(250));
    assert_eq!(polling.maximum_idle_interval, Duration::from_millis(2_000));
    assert_eq!(polling.maximum_records, 1_000);
}

#[test]
fn defaults_are_those_of_the_contract() {
    let loaded = good("smallest.yaml");
    assert_eq!(loaded.ignored, []);
    assert_eq!(loaded.warnings, [], "defaults do not warn about each other");
    let config = &loaded.config;
    assert_eq!(config.admin, Admin::Default);
    let seconds = Duration::from_secs;
    assert_eq!((config.worker.lease, config.worker.stop), (seconds(10), seconds(25)));
    assert_eq!((config.worker.buffer_bytes, config.worker.maximum_concurrent_reads), (512 << 20, 256));
    assert_eq!((config.worker.id.as_ref(), config.worker.maximum_leases), (None, None));
    assert_eq!(config.mappings[0].checkpoints, Checkpoints::Sqlite("./shardmill.db".into()));
    assert_eq!(config.mappings[0].function.target, Target::Stdout);
    let mapping = &config.mappings[0].mapping;
    let backoffs = (mapping.retry().initial_backoff, mapping.retry().maximum_backoff);
    assert_eq!((mapping.timeout(), backoffs), (seconds(20), (Duration::from_millis(200), seconds(60))));
    // Each write to a table is paid for.
    let [one, other] = good("checkpoints_in_a_table.yaml").config.mappings.try_into().unwrap();
    let table = Checkpoints::DynamoDb("shardmill".into());
    let intervals = [one, other]
        .map(|m: MappingConfig| (m.checkpoints == table, m.mapping.checkpoint_interval().as_millis()));
    assert_eq!(intervals, [(true, 5_000), (true, 0)]);
    let kcl = &good("checkpoints_of_kcl.yaml").config.mappings[0];
    let found = (&kcl.checkpoints, kcl.mapping.checkpoint_interval());
    assert_eq!(found, (&Checkpoints::Kcl("orders-application".into()), seconds(5)));
}

#[test]
fn limits_that_discard_without_a_destination_are_warned_about() {
    let text = std::fs::read_to_string("tests/config/good/smallest.yaml").unwrap()
        + "MaximumRetryAttempts: 3\nMaximumRecordAgeInSeconds: 60\n";
    let now = Wall::from_millis(0);
    let loaded = config::parse(Path::new("c.yaml"), &text, &environment, now).unwrap();
    for key in ["MaximumRetryAttempts", "MaximumRecordAgeInSeconds"] {
        assert!(keys(&loaded.warnings).contains(&key), "{key}");
    }
    let text = text + "Admin: off\nDestinationConfig: {OnFailure: {Destination: \"file:dead.jsonl\"}}\n";
    let loaded = config::parse(Path::new("c.yaml"), &text, &environment, now).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.admin, Admin::Off);
}

/// What is warned about in the smallest file with more lines.
fn warned(more: &str) -> Vec<String> {
    let text = std::fs::read_to_string("tests/config/good/smallest.yaml").unwrap() + more;
    let loaded = config::parse(Path::new("c.yaml"), &text, &environment, Wall::from_millis(0)).unwrap();
    loaded.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn incident_103_a_filter_that_lets_nothing_pass_is_warned_about_at_its_place() {
    let said = warned(
        "FilterCriteria:\n  Filters:\n    - Pattern: '{\"data\": {\"a\": [1]}}'\n    - Pattern: '{\"body\": {\"a\": [1]}}'\n",
    );
    let [one] = &said[..] else { panic!("{said:?}") };
    assert!(one.starts_with("FilterCriteria.Filters[1].Pattern (line "), "{one}");
    assert!(one.contains("did you mean data?") && one.contains("filtered out and lost"), "{one}");
}

#[test]
fn incident_103_retries_without_end_of_reported_records_are_warned_about() {
    let said = warned("FunctionResponseTypes: [ReportBatchItemFailures]\n");
    let [one] = &said[..] else { panic!("{said:?}") };
    assert!(one.contains("MaximumRetryAttempts") && one.contains("blocks its shard forever"), "{one}");
    let file = "DestinationConfig: {OnFailure: {Destination: \"file:dead.jsonl\"}}\n";
    for limit in ["MaximumRetryAttempts: 3\n", "MaximumRecordAgeInSeconds: 3600\n"] {
        let said = warned(&format!("FunctionResponseTypes: [ReportBatchItemFailures]\n{file}{limit}"));
        assert_eq!(said, Vec::<String>::new(), "{limit}");
    }
}

#[test]
fn incident_106_what_was_pasted_with_its_surroundings_is_taken() {
    let listed = good("list_event_source_mappings.json");
    let mapping = &listed.config.mappings[0];
    assert_eq!(mapping.mapping.identity(), "14e0db71-5d35-4eb5-b481-8945cf9d10c2");
    assert_eq!((mapping.mapping.batch_size(), &mapping.checkpoints), (50, &Checkpoints::Memory));
    let resource = only("cloudformation_under_its_logical_id.yaml");
    let m = &resource.mapping;
    assert_eq!((m.batch_size(), m.maximum_retry_attempts(), m.maximum_record_age()), (50, Some(3), None));
    assert!(m.bisect_batch_on_function_error());
    let Target::Command { environment, .. } = &resource.function.target else { panic!() };
    assert_eq!((environment["TABLE"].as_str(), environment["SHARDS"].as_str()), ("orders", "4"));
    let event = only("sam_events.yaml").mapping;
    assert_eq!(
        (event.event_source().stream.as_str(), event.starting_position()),
        ("orders", &Position::Latest)
    );
}

#[test]
fn incident_106_what_an_error_says_to_write_for_a_template_is_a_file() {
    for name in [
        "whole_template_of_sam.yaml",
        "whole_template_of_cloudformation.json",
        "function_resource_under_its_logical_id.yaml",
    ] {
        let errors = config::load(&Path::new("tests/config/bad").join(name), &environment).unwrap_err();
        let message = errors.iter().next().unwrap().message().to_owned();
        let lines = message
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|line| !line.starts_with('#'));
        // Its ARNs are what is left to write.
        let stream = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";
        let arn = |line: &str| match line.split_once(": ") {
            Some(("EventSourceArn", value)) if value.contains('<') => format!("EventSourceArn: {stream}\n"),
            _ => format!("{}\n", line.replace("<the ARN or value of !GetAtt Dead.Arn>", "file:dead.jsonl")),
        };
        let text: String = lines.map(arn).collect();
        let loaded = config::parse(Path::new("c.yaml"), &text, &environment, Wall::from_millis(0));
        assert_eq!(loaded.unwrap_or_else(|e| panic!("{text}\n{e}")).config.mappings.len(), 1);
    }
}

#[test]
fn incident_106_texts_for_numbers_are_taken_in_resources_only() {
    let resource = "Type: AWS::Lambda::EventSourceMapping\nProperties: {BatchSize: \"many\"}\n";
    assert!(refused(resource).contains("\"many\" is a text; write a whole number"));
    assert!(refused("BatchSize: \"50\"\n").contains("without quotes"));
}

#[test]
fn incident_106_a_password_in_a_url_is_refused_and_not_repeated() {
    let text = refused("Function: {Url: \"https://user:secret@host/\"}\n");
    assert!(text.contains("remove what is before the @"), "{text}");
    assert!(!text.contains("secret") && text.contains("https://***********@host/"), "{text}");
    let json = refused(
        "{\"Function\": {\"Url\": \"http://a:b@c/\"}, \"Aws\": {\"EndpointUrl\": \"http://d:e@f/\"}}",
    );
    assert!(!json.contains("a:b") && !json.contains("d:e"), "{json}");
}

#[test]
fn a_variable_can_never_add_a_key() {
    let text = "EventSourceArn: x\nFunctionName: ${INJECTED}\n";
    let injected = |_: &str| Some("f\nBatchSize: 7".to_owned());
    let errors = config::parse(Path::new("c.yaml"), text, &injected, Wall::from_millis(0)).unwrap_err();
    assert!(errors.iter().any(|e| e.key() == "FunctionName"), "{errors}");
    assert!(errors.iter().all(|e| e.key() != "BatchSize"), "{errors}");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let text = std::fs::read_to_string("tests/config/good/smallest.yaml").unwrap().replace('\n', "\r\n");
    let loaded =
        config::parse(Path::new("c.yaml"), &format!("\u{feff}{text}"), &environment, Wall::from_millis(0));
    assert_eq!(loaded.unwrap().config.mappings.len(), 1);
}

#[test]
fn the_caret_stands_under_the_place() {
    let shown = refused("Worker: {LeaseSeconds: 1}\n");
    let lines: Vec<&str> = shown.lines().skip_while(|l| !l.contains("Worker.LeaseSeconds")).collect();
    assert_eq!(lines[1].find("1}").unwrap(), lines[2].find('^').unwrap(), "{shown}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = config::parse(Path::new("c.yaml"), &text, &environment, Wall::from_millis(0));
    }

    #[test]
    fn no_damage_to_a_good_file_makes_the_parser_panic(
        file in 0..6_usize,
        at in any::<prop::sample::Index>(),
        cut in 0..20_usize,
        put in "[\\[\\]{}:,&*!#\"'$\n \\-a-z0-9é]{0,6}",
    ) {
        let text = std::fs::read_to_string(&files("good")[file]).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let damaged: String =
            chars[..at].iter().copied().chain(put.chars()).chain(chars.iter().copied().skip(at + cut)).collect();
        if let Err(errors) = config::parse(Path::new("c.yaml"), &damaged, &environment, Wall::from_millis(i64::MAX)) {
            prop_assert!(!errors.to_string().is_empty());
        }
    }
}

#[test]
fn mappings_that_share_a_file_under_two_spellings_share_an_application() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let two = |one: &str, other: &str| {
        let mapping = |path: &str| {
            format!(
                "  - EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\n    \
                 FunctionName: f\n    StartingPosition: LATEST\n    Function: {{Stdout: true}}\n    \
                 Checkpoints: sqlite:{path}\n"
            )
        };
        let text = format!("Mappings:\n{}{}", mapping(one), mapping(other));
        config::parse(Path::new("c.yaml"), &text, &environment, Wall::from_millis(i64::MAX))
    };
    let in_folder = |path: &str| folder.path().join(path).display().to_string();
    for (one, other) in [
        ("a.db".to_owned(), "./a.db".to_owned()),
        ("tests/../a.db".to_owned(), "a.db".to_owned()),
        (in_folder("a.db"), in_folder("sub/../a.db")),
    ] {
        let refused = two(&one, &other).unwrap_err().to_string();
        assert!(refused.contains("they would share checkpoints"), "{one} {other}: {refused}");
    }
    assert_eq!(two("a.db", "b.db").unwrap().config.mappings.len(), 2);
}

#[test]
fn incident_86_what_a_variable_stands_for_is_in_no_message() {
    let environment = |name: &str| (name == "SECRET").then(|| "hunter2\u{7}".to_owned());
    let now = Wall::from_millis(i64::MAX);
    for line in [
        "Checkpoints: \"${SECRET}\"",
        "OnGap: \"${SECRET}\"",
        "Worker: {Id: \"${SECRET}\"}",
        "Worker: {LeaseSeconds: \"${SECRET}\"}",
        "Admin: {Listen: \"${SECRET}\"}",
        "Aws: {Region: \"${SECRET}\"}",
        "Aws: {AssumeRoleArn: \"${SECRET}\"}",
    ] {
        let text = format!(
            "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
             StartingPosition: TRIM_HORIZON\nFunction: {{Url: \"http://127.0.0.1:8080/\"}}\n{line}\n"
        );
        let told = config::parse(Path::new("c.yaml"), &text, &environment, now).unwrap_err().to_string();
        assert!(!told.contains("hunter2") && told.contains("the value of its variable"), "{line}: {told}");
    }
    // What the engine and others say of a value has the variable's name in its place.
    for line in ["UUID: \"${SECRET}\"", "Type: \"${SECRET}\"", "Aws: {EndpointUrl: \"http://${SECRET} /\"}"] {
        let text = format!(
            "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
             StartingPosition: TRIM_HORIZON\nFunction: {{Url: \"http://127.0.0.1:8080/\"}}\n{line}\n"
        );
        let environment = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
        let told = config::parse(Path::new("c.yaml"), &text, &environment, now).unwrap_err().to_string();
        assert!(!told.contains("hunter2") && told.matches("${SECRET}").count() == 2, "{line}: {told}");
    }
}
