//! The acceptance tests of AWS's Kinesis event source mapping (docs/semantics.md, section 5.1) under their own names.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shardmill_tests::{Config, Ferrokinesis, Function, Invocation, Plan, Sidecar, Stream, observe, until};

use crate::case::{Case, resolved};
use crate::retries::reports;

/// Puts so many records in one call.
async fn put(stream: &mut Stream, count: usize) {
    stream.put_all((0..count).map(|n| format!("test_{n}").into_bytes()).collect()).await;
}

/// Waits until the sidecar has taken note of where the stream starts.
async fn started(sidecar: &Sidecar) {
    until("the leases exist", async || (!sidecar.store().leases().is_empty()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn test_create_kinesis_event_source_mapping() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 1).await;
    let config = Config::new(&stream)
        .set("StartingPosition", "LATEST")
        .set("Function", json!({"Stdout": true}))
        .set("MaximumBatchingWindowInSeconds", 1);
    let sidecar = Sidecar::start(&config).await;
    started(&sidecar).await;
    put(&mut stream, 10).await;
    resolved(&sidecar, &stream).await;
    let events: Vec<Value> = until("the events are printed", async || {
        let events: Vec<Value> =
            sidecar.output().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let records: usize = events.iter().map(|event| event["Records"].as_array().unwrap().len()).sum();
        (records >= 10).then_some(events)
    })
    .await;
    let records: Vec<&Value> = events.iter().flat_map(|event| event["Records"].as_array().unwrap()).collect();
    assert_eq!(records.len(), 10);
    for (n, (record, put)) in records.iter().zip(stream.records()).enumerate() {
        let time = &record["kinesis"]["approximateArrivalTimestamp"];
        assert_eq!(time.to_string().split('.').next().unwrap().len(), 10, "10 integer digits: {time}");
        assert!(time.is_f64(), "{time}");
        let data = base64_simd::STANDARD.encode_to_string(format!("test_{n}"));
        let expected = json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": format!("key-{n}"),
                "sequenceNumber": put.sequence,
                "data": data,
                "approximateArrivalTimestamp": time,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("{}:{}", put.shard, put.sequence),
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::000000000000:role/shardmill",
            "awsRegion": "us-east-1",
            "eventSourceARN": stream.arn(),
        });
        assert_eq!(**record, expected);
    }
}

/// R79: two mappings of one process on one stream, each with a function of its own.
#[tokio::test(flavor = "multi_thread")]
async fn test_create_kinesis_event_source_mapping_multiple_lambdas_single_kinesis_event_stream() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 2).await;
    stream.put(20, 10).await;
    let (a, b) = (Function::start().await, Function::start().await);
    let config = Config::new(&stream).mappings([
        json!({"FunctionName": "a", "Function": {"Url": a.url("")}, "BatchSize": 3}),
        json!({"FunctionName": "b", "Function": {"Url": b.url("")}, "BatchSize": 7}),
    ]);
    let mut sidecar = Sidecar::start(&config).await;
    for function in [&a, &b] {
        until("both functions have every record", async || (function.stored_count() >= 20).then_some(()))
            .await;
    }
    until("both mappings are ready", async || sidecar.ready().await.then_some(())).await;
    let status = sidecar.status().await;
    let names: Vec<_> = status["mappings"].as_array().unwrap().iter().map(|m| &m["functionArn"]).collect();
    let arn = |name: &str| format!("arn:aws:lambda:us-east-1:000000000000:function:{name}");
    assert_eq!(names, [&json!(arn("a")), &json!(arn("b"))]);
    sidecar.terminate();
    assert!(sidecar.ended().await.success());
    for (function, batch_size) in [(&a, 3), (&b, 7)] {
        observe::assert_exactly_once_in_order(&stream, &function.stored());
        observe::assert_one_at_a_time(&function.invocations());
        assert!(function.invocations().iter().all(|call| call.records.len() <= batch_size));
    }
}

/// Two mappings of one stream for one function are refused before anything starts; one for another function is fine.
#[tokio::test(flavor = "multi_thread")]
async fn test_duplicate_event_source_mappings() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 1).await;
    put(&mut stream, 1).await;
    let (a, b) = (Function::start().await, Function::start().await);
    let mapping = |name: &str, function: &Function| json!({"FunctionName": name, "Function": {"Url": function.url("")}});
    let twice = Config::new(&stream).mappings([mapping("a", &a), mapping("a", &b)]);
    let mut sidecar = Sidecar::spawn(&twice);
    assert_eq!(sidecar.ended().await.code(), Some(2), "{:#?}", sidecar.log());
    until("the reason is told", async || {
        let log = sidecar.log().join("\n");
        (log.contains("is the application of an earlier mapping") && log.contains("write a Name"))
            .then_some(())
    })
    .await;
    assert_eq!((a.count(), b.count()), (0, 0));

    let other = Config::new(&stream).mappings([mapping("a", &a), mapping("b", &b)]);
    let _sidecar = Sidecar::start(&other).await;
    until("both functions have the record", async || {
        (a.stored_count() + b.stored_count() == 2).then_some(())
    })
    .await;
    assert_eq!((a.count(), b.count()), (1, 1));
}

/// R57: two functions, each with a filter of its own.
#[tokio::test(flavor = "multi_thread")]
async fn test_kinesis_event_filtering_json_pattern() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 1).await;
    let record =
        |n: u32| json!({"event_type": format!("function_{n}"), "message": "foo"}).to_string().into_bytes();
    stream.put_all(vec![record(1), record(2), b"no JSON".to_vec()]).await;
    let (one, two) = (Function::start().await, Function::start().await);
    let mapping = |name: &str, function: &Function| {
        let pattern = json!({"data": {"event_type": [name]}}).to_string();
        json!({
            "FunctionName": name, "Function": {"Url": function.url("")},
            "FilterCriteria": {"Filters": [{"Pattern": pattern}]},
        })
    };
    let config = Config::new(&stream).mappings([mapping("function_1", &one), mapping("function_2", &two)]);
    let sidecar = Sidecar::start(&config).await;
    until("both mappings have filtered", async || {
        let status = sidecar.status().await;
        let shards = status["mappings"].as_array()?.iter().map(|mapping| mapping["shards"][0].clone());
        let done = |shard: &Value| shard["counts"]["filteredOut"] == 2 && shard["bufferedRecords"] == 0;
        shards.into_iter().all(|shard| done(&shard)).then_some(())
    })
    .await;
    for (function, place) in [(&one, 0), (&two, 1)] {
        let stored = function.stored();
        assert_eq!(function.count(), 1, "invoked exactly once");
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].sequence, stream.records()[place].sequence);
    }
}

/// R2: the second batch waits for the function, by the function's own record.
#[tokio::test(flavor = "multi_thread")]
async fn test_create_kinesis_event_source_mapping_with_async_invocation() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 1).await;
    let function = Function::behaving(|_| Plan::success_after(std::time::Duration::from_millis(700))).await;
    let config = Config::new(&stream).url(function.url("")).set("BatchSize", 10);
    // Only full batches, however the emulator cuts its pages.
    let sidecar = Sidecar::start(&config.set("MaximumBatchingWindowInSeconds", 300)).await;
    put(&mut stream, 10).await;
    put(&mut stream, 10).await;
    resolved(&sidecar, &stream).await;
    let calls = function.invocations();
    assert_eq!(calls.iter().map(|call| call.records.len()).collect::<Vec<_>>(), [10, 10]);
    observe::assert_one_at_a_time(&calls);
    observe::assert_exactly_once_in_order(&stream, &function.stored());
}

/// R6
#[tokio::test(flavor = "multi_thread")]
async fn test_kinesis_event_source_trim_horizon() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 1).await;
    put(&mut stream, 10).await;
    put(&mut stream, 10).await;
    let function = Function::start().await;
    let config = Config::new(&stream).url(function.url("")).set("BatchSize", 10);
    let sidecar = Sidecar::start(&config.set("MaximumBatchingWindowInSeconds", 300)).await;
    started(&sidecar).await;
    put(&mut stream, 10).await;
    resolved(&sidecar, &stream).await;
    let batches: Vec<Vec<String>> = function
        .invocations()
        .into_iter()
        .map(|call| call.records.into_iter().map(|record| record.sequence).collect())
        .collect();
    let all: Vec<String> = stream.records().iter().map(|put| put.sequence.clone()).collect();
    assert_eq!(batches, all.chunks(10).map(<[String]>::to_vec).collect::<Vec<_>>());
}

/// With the file destination; the same through SQS is in `retries::localstack`.
#[tokio::test(flavor = "multi_thread")]
async fn test_kinesis_event_source_mapping_with_on_failure_destination_config() {
    let case = Case::new(&["{\"input\": \"hello\"}"]).await;
    let outcome = case.set("BatchSize", 1).set("MaximumRetryAttempts", 1).run(|_| Plan::failure()).await;
    assert_eq!(outcome.trace, [[1], [1]]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[1], 2, Some("Unhandled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn test_disable_kinesis_event_source_mapping() {
    let emulator = Ferrokinesis::start().await;
    let mut stream = Stream::create(emulator.url(), "orders", 1).await;
    let function = Function::start().await;
    let config = Config::new(&stream).url(function.url(""));
    put(&mut stream, 5).await;
    let mut sidecar = Sidecar::start(&config).await;
    resolved(&sidecar, &stream).await;
    sidecar.terminate();
    assert!(sidecar.ended().await.success());

    put(&mut stream, 5).await;
    let disabled = Sidecar::start(&config.clone().set("Enabled", false)).await;
    assert!(disabled.ready().await, "loaded and idle is ready");
    assert_eq!(disabled.status().await["mappings"][0]["state"], "Disabled");
    drop(disabled);
    assert_eq!(function.stored_count(), 5);

    // R16: enabled again, it goes on at its checkpoint.
    let sidecar = Sidecar::start(&config).await;
    resolved(&sidecar, &stream).await;
    observe::assert_exactly_once_in_order(&stream, &function.stored());
}

/// R37: record 5 of 0 to 5 always fails: once in its batch, then four times alone.
#[tokio::test(flavor = "multi_thread")]
async fn test_kinesis_report_batch_item_failures() {
    let case = Case::new(&["0", "1", "2", "3", "4", "5"])
        .await
        .set("BatchSize", 3)
        .set("MaximumRetryAttempts", 3)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
    let outcome = case.run(reports("5")).await;
    assert_eq!(outcome.trace, [vec![1, 2, 3], vec![4, 5, 6], vec![6], vec![6], vec![6], vec![6]]);
    let mut deliveries = BTreeMap::new();
    for record in outcome.trace.iter().flatten() {
        *deliveries.entry(record - 1).or_insert(0) += 1;
    }
    assert_eq!(deliveries, BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 5)]));
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[6], 4, None);
    assert_eq!(outcome.handled, [1, 2, 3, 4, 5]);
}

/// One record, two retries, a function that always gives this answer.
async fn answering(answer: impl Fn(&Invocation) -> Plan + Send + Sync + 'static) -> crate::case::Outcome {
    let case = Case::new(&["record"])
        .await
        .set("MaximumRetryAttempts", 2)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
    case.run(answer).await
}

/// R35
mod test_kinesis_report_batch_item_failure_scenarios {
    use super::*;

    async fn scenario(answer: Plan, error: Option<&str>) {
        let outcome = answering(move |_| answer.clone()).await;
        assert_eq!(outcome.trace, [[1], [1], [1]]);
        outcome.assert_request_ids();
        outcome.assert_one_discard(&[1], 3, error);
    }

    async fn items(items: &str) {
        let body = format!(r#"{{"batchItemFailures":{items}}}"#);
        scenario(Plan::status(200, &body), None).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn item_identifier_not_present() {
        items(r#"[{"itemIdentifier":123}]"#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn empty_string_item_identifier() {
        items(r#"[{"itemIdentifier":""}]"#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn null_item_identifier() {
        items(r#"[{"itemIdentifier":null}]"#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn invalid_key_foo() {
        items(r#"[{"foo":123}]"#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn invalid_key_foo_null_value() {
        items(r#"[{"foo":null}]"#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn unhandled_exception_in_function() {
        scenario(Plan::failure(), Some("Unhandled")).await;
    }
}

/// R34
mod test_kinesis_report_batch_item_success_scenarios {
    use shardmill_tests::Answer;

    use super::*;

    async fn scenario(body: &'static str) {
        let answer = Answer::Status(200, Vec::new(), body.to_owned());
        let outcome = answering(move |_| Plan { answer: answer.clone(), ..Plan::success() }).await;
        assert_eq!(outcome.trace, [[1]]);
        assert_eq!(outcome.handled, [1]);
        assert_eq!(outcome.discarded, [Value::Null; 0]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn empty_string() {
        scenario(r#""""#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn empty_list() {
        scenario("[]").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn null() {
        scenario("null").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn empty_dict() {
        scenario("{}").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn empty_batch_item_failure() {
        scenario(r#"{"batchItemFailures":[]}"#).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn null_batch_item_failure() {
        scenario(r#"{"batchItemFailures":null}"#).await;
    }

    /// A plain HTTP server's way to say nothing.
    #[tokio::test(flavor = "multi_thread")]
    async fn empty_body() {
        scenario("").await;
    }
}
