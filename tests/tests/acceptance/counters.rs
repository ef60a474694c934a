//! Every counter of a scripted run, against numbers reckoned by hand (docs/semantics.md, section 4).

use serde_json::{Value, json};
use shardmill_tests::{Answer, Function, Invocation, Plan, Sidecar, until};

use crate::case::{Case, discarded, position};
use crate::kinesis::Kinesis;

const MAXIMUM: i64 = 600;

/// The records, of which the first two are too old and the last is filtered out. Each batch of three has its own fault:
///
/// | call | batch | the function | invoked | failed |
/// |---|---|---|---|---|
/// | 1 | 3 4 5 | reports 4 | 3 | 2 |
/// | 2 | 4 5 | reports 4: no progress | 2 | 2 |
/// | 3 | 4 5 | reports 4: discarded | 2 | 2 |
/// | 4 | 6 7 8 | fails | 3 | 3 |
/// | 5 | 6 7 8 | succeeds | 3 | 0 |
/// | 6 | 9 | is not reached | 0 | 0 |
/// | 7 | 9 | succeeds | 1 | 0 |
async fn case(kinesis: &Kinesis) -> Case {
    let ages = [MAXIMUM + 20, MAXIMUM + 10, 0, 0, 0, 0, 0, 0, 0, 0];
    let data: Vec<String> = (1..=10).map(|n| n.to_string()).collect();
    let records: Vec<(i64, &str)> = ages.into_iter().zip(data.iter().map(String::as_str)).collect();
    let case = kinesis.case(&records).await;
    case.set("BatchSize", 3)
        .set("MaximumRecordAgeInSeconds", MAXIMUM)
        .set("MaximumRetryAttempts", 1)
        .set(
            "FilterCriteria",
            json!({"Filters": [{"Pattern": r#"{"partitionKey":[{"anything-but":["key-9"]}]}"#}]}),
        )
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))
}

/// `before`: how often the batch of this call came before.
fn behaviour(call: &Invocation, before: usize) -> Plan {
    if let Some(at) = position(call, "4") {
        return Plan::partial(call, &[&call.records[at].sequence]);
    }
    match (position(call, "6"), position(call, "9"), before) {
        (Some(_), _, 0) => Plan::failure(),
        (_, Some(_), 0) => {
            Plan { store: 0, answer: Answer::Status(503, Vec::new(), String::new()), ..Plan::success() }
        }
        _ => Plan::success(),
    }
}

/// Counts how often a batch of a mapping came.
fn scripted() -> impl Fn(&Invocation) -> Plan + Send + Sync {
    let ids = std::sync::Mutex::new(Vec::<String>::new());
    move |call| {
        let mut ids = ids.lock().unwrap();
        let before = ids.iter().filter(|id| **id == call.request_id).count();
        ids.push(call.request_id.clone());
        behaviour(call, before)
    }
}

/// What one mapping's counters show, those of zero left out.
async fn counted(sidecar: &Sidecar, mapping: &str) -> Vec<(String, f64)> {
    let text = sidecar.get("/metrics").await.unwrap().body;
    let label = format!("mapping=\"{mapping}\"");
    let counter = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{')?;
        let value: f64 = value.parse().ok()?;
        let outcome = labels.split_once("outcome=\"").map(|(_, rest)| rest.split('"').next().unwrap());
        let name = name.strip_prefix("shardmill_")?.strip_suffix("_total")?;
        let name = outcome.map_or_else(|| name.to_owned(), |outcome| format!("{name} {outcome}"));
        (labels.contains(&label) && value != 0.0).then_some((name, value))
    };
    let mut counters: Vec<_> = text.lines().filter_map(counter).collect();
    counters.sort_by(|a, b| a.0.cmp(&b.0));
    counters
}

/// The counters that do not depend on the destination, and these.
fn with(own: &[(&str, f64)]) -> Vec<(String, f64)> {
    let same = [
        ("polled_events", 10.0),
        ("filtered_out_events", 1.0),
        ("invoked_events", 14.0),
        ("leases_taken", 1.0),
        ("failed_invoke_events", 9.0),
        // R18: a valid partial response is no function error.
        ("invocations success", 5.0),
        ("invocations function_error", 1.0),
        ("invocations not_reached", 1.0),
    ];
    let mut all: Vec<_> = same.iter().chain(own).map(|(name, value)| ((*name).to_owned(), *value)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn r15_r23_r29_r36_r74_r76_every_counter_of_a_scripted_run_is_as_reckoned_by_hand() {
    let kinesis = Kinesis::start().await;
    let case = case(&kinesis).await;
    let function = Function::behaving(scripted()).await;
    let to = |destination: Value| json!({ "OnFailure": destination });
    let mapping = |name: &str, destination: Value| {
        json!({
            "Name": name, "DestinationConfig": to(destination), "OnDestinationFailure": "drop",
            "Function": {"Url": function.url(name)},
        })
    };
    let config = case.config.clone().mappings([
        mapping("delivered", json!({"Destination": "file:./discarded.jsonl"})),
        mapping("none", json!({})),
        // The endpoint is a Kinesis: it refuses messages.
        mapping("refused", json!({"Destination": "arn:aws:sqs:us-east-1:000000000000:discarded"})),
    ]);
    let sidecar = Sidecar::start(&config).await;
    for mapping in ["delivered", "none", "refused"] {
        until("all of a mapping's records are resolved", async || {
            let status = sidecar.status().await;
            let all = status["mappings"].as_array().unwrap();
            let shard = &all.iter().find(|m| m["name"] == mapping)?["shards"][0];
            let done = shard["bufferedRecords"] == 0 && shard["counts"]["polled"] == 10;
            (done && shard["checkpoint"].as_str()?.contains(&case.stream.records()[9].sequence)).then_some(())
        })
        .await;
        let calls = function.invocations().into_iter().filter(|call| call.caller == mapping);
        assert_eq!(calls.map(|call| call.records.len()).collect::<Vec<_>>(), [3, 2, 2, 3, 3, 1, 1]);
    }
    let lines = discarded(&config);
    let batches: Vec<_> = lines.iter().map(|line| &line["KinesisBatchInfo"]["batchSize"]).collect();
    assert_eq!(batches, [2, 2], "{lines:#?}");

    let delivered = with(&[("on_failure_destination_delivered_events", 4.0)]);
    assert_eq!(counted(&sidecar, "delivered").await, delivered, "not also dropped");
    let dropped = with(&[("dropped_events", 4.0)]);
    assert_eq!(counted(&sidecar, "none").await, dropped, "R76");
    let refused = with(&[("dropped_events", 4.0), ("destination_delivery_failures", 2.0)]);
    assert_eq!(counted(&sidecar, "refused").await, refused, "R74: one failure a message");

    // The status has the same numbers.
    let status = sidecar.status().await;
    let expected = json!({
        "polled": 10, "filteredOut": 1, "invoked": 14, "failed": 9, "dropped": 4, "deliveredToDestination": 0,
        "destinationFailures": 2,
    });
    let shown = status["mappings"].as_array().unwrap().iter().find(|m| m["name"] == "refused").unwrap();
    assert_eq!(shown["shards"][0]["counts"], expected);
}

/// An event that is never sent is neither invoked nor failed, only discarded.
#[tokio::test(flavor = "multi_thread")]
async fn r24_a_record_that_is_too_large_counts_as_dropped_and_not_as_invoked() {
    let kinesis = Kinesis::start().await;
    let big = "x".repeat(5 << 20);
    let case = kinesis.case(&[(0, &big), (0, "small")]).await;
    let function = Function::start().await;
    let config =
        case.config.clone().url(function.url("")).set("MaximumRetryAttempts", 2).set("Name", "large");
    let config = config.set("DestinationConfig", json!({}));
    let sidecar = Sidecar::start(&config).await;
    crate::case::resolved(&sidecar, &case.stream).await;
    let expected = [
        ("dropped_events", 1.0),
        ("invocations success", 1.0),
        ("invoked_events", 1.0),
        ("leases_taken", 1.0),
        ("polled_events", 2.0),
    ];
    until("the metrics are published", async || {
        (counted(&sidecar, "large").await.len() == expected.len()).then_some(())
    })
    .await;
    let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value)).into();
    assert_eq!(counted(&sidecar, "large").await, expected);
}
