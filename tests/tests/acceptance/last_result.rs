//! LastProcessingResult in the status (R18).

use serde_json::json;
use shardmill_tests::{Answer, Function, Plan, Sidecar, Stream, until};

use crate::case::resolved;
use crate::kinesis::{Kinesis, now};
use crate::retries::reports;

const SHARD: &str = "shardId-000000000000";

async fn shown(sidecar: &Sidecar) -> Option<String> {
    Some(sidecar.shards().await.get(SHARD)?["lastProcessingResult"].as_str()?.to_owned())
}

/// Waits until the status shows this.
async fn shows(sidecar: &Sidecar, text: &str) {
    until(text, async || (shown(sidecar).await? == text).then_some(())).await;
}

/// Waits until the records are resolved and the machine has said so.
async fn done(sidecar: &Sidecar, stream: &Stream) {
    resolved(sidecar, stream).await;
    until("the status shows that nothing is left", async || {
        (sidecar.shards().await.get(SHARD)?["bufferedRecords"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r18_no_records_then_ok_then_a_problem_then_ok_again() {
    let kinesis = Kinesis::start().await;
    let mut stream = kinesis.stream().await;
    let function = Function::start().await;
    let config = shardmill_tests::Config::new(&stream)
        .url(function.url(""))
        .set("MaximumRetryAttempts", 0)
        .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
    let sidecar = Sidecar::start(&config).await;
    shows(&sidecar, "No records processed").await;

    kinesis.put(&mut stream, now(), "1");
    done(&sidecar, &stream).await;
    assert_eq!(shown(&sidecar).await.unwrap(), "OK");

    function.behave(|_| Plan::failure());
    kinesis.put(&mut stream, now(), "2");
    done(&sidecar, &stream).await;
    assert_eq!(
        shown(&sidecar).await.unwrap(),
        "PROBLEM: Function call failed",
        "its discard did not change it"
    );

    function.behave(|_| Plan::success());
    kinesis.put(&mut stream, now(), "3");
    done(&sidecar, &stream).await;
    assert_eq!(shown(&sidecar).await.unwrap(), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn r18_a_valid_partial_response_is_ok_and_its_discard_does_not_change_it() {
    let kinesis = Kinesis::start().await;
    let mut stream = kinesis.stream().await;
    for data in ["1", "2", "3"] {
        kinesis.put(&mut stream, now(), data);
    }
    let function = Function::behaving(reports("2")).await;
    let config = shardmill_tests::Config::new(&stream)
        .url(function.url(""))
        .set("MaximumRetryAttempts", 0)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))
        .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
    let sidecar = Sidecar::start(&config).await;
    done(&sidecar, &stream).await;
    assert_eq!(function.count(), 2);
    assert_eq!(shown(&sidecar).await.unwrap(), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn r18_records_that_expired_before_an_invocation_leave_no_records_processed() {
    let kinesis = Kinesis::start().await;
    let case = kinesis.case(&[(90, "1"), (80, "2")]).await.set("MaximumRecordAgeInSeconds", 60);
    let function = Function::start().await;
    let sidecar = Sidecar::start(&case.config.clone().url(function.url(""))).await;
    done(&sidecar, &case.stream).await;
    assert_eq!(shown(&sidecar).await.unwrap(), "No records processed");
    assert_eq!(function.count(), 0);
}

/// R23: what does not reach the function says nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn r18_a_function_that_is_not_reached_changes_nothing() {
    let kinesis = Kinesis::start().await;
    let case = kinesis.case(&[(0, "1")]).await;
    let busy = Answer::Status(503, Vec::new(), String::new());
    let function =
        Function::behaving(move |_| Plan { store: 0, answer: busy.clone(), ..Plan::success() }).await;
    let sidecar = Sidecar::start(&case.config.clone().url(function.url(""))).await;
    until("it was called three times", async || (function.count() >= 3).then_some(())).await;
    assert_eq!(shown(&sidecar).await.unwrap(), "No records processed");
    function.behave(|_| Plan::success());
    done(&sidecar, &case.stream).await;
    assert_eq!(shown(&sidecar).await.unwrap(), "OK");
}
