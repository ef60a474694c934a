//! What the configuration names and is not there, or refuses: a clear message, a red /readyz, and recovery.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeKinesis, FaultProxy, ProxyMode};
use shardmill_tests::{Config, Ferrokinesis, Function, Plan, Sidecar, Stream, until};

use crate::case::resolved;

/// Waits until /readyz is red and says all of `texts`, and the log says the last of them.
async fn red(sidecar: &Sidecar, texts: &[&str]) {
    until(&format!("/readyz says {texts:?}"), async || {
        let reply = sidecar.get("/readyz").await?;
        (reply.status == 503 && texts.iter().all(|text| reply.body.contains(text))).then_some(())
    })
    .await;
}

async fn green(sidecar: &Sidecar) {
    until("/readyz is green", async || sidecar.ready().await.then_some(())).await;
}

/// A warning or error with this text is in the log, once, and nothing panicked.
async fn assert_logged_once(sidecar: &Sidecar, text: &str) {
    let count = || {
        let log = sidecar.log();
        log.iter().filter(|line| line.contains(text) && !line.contains("\"INFO\"")).count()
    };
    until(&format!("the log says {text:?}"), async || (count() > 0).then_some(())).await;
    assert_eq!(count(), 1, "{text}: {:#?}", sidecar.log());
    assert_no_panic(sidecar);
}

#[track_caller]
fn assert_no_panic(sidecar: &Sidecar) {
    let log = sidecar.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

/// A stream of one record.
async fn stream(endpoint: &str) -> Stream {
    let mut stream = Stream::create(endpoint, "orders", 1).await;
    stream.put_all(vec![br#"{"n": 1}"#.to_vec()]).await;
    stream
}

async fn handled(function: &Function, count: usize) {
    until("the record is handled", async || (function.stored_count() == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_named_and_found_once_it_exists() {
    let emulator = Ferrokinesis::start().await;
    let missing = Stream::create(emulator.url(), "orders", 1).await;
    let name = missing.name().to_owned();
    missing.client().delete_stream().stream_name(&name).send().await.unwrap();
    let function = Function::start().await;
    let sidecar = Sidecar::start(&Config::new(&missing).url(function.url(""))).await;
    red(&sidecar, &["ResourceNotFoundException", &name, "check name, account and region"]).await;
    assert_logged_once(&sidecar, "ResourceNotFoundException").await;

    missing.client().create_stream().stream_name(&name).shard_count(1).send().await.unwrap();
    green(&sidecar).await;
    let put = missing.client().put_record().stream_name(&name).partition_key("a");
    until("the new stream takes a record", async || {
        put.clone().data(aws_sdk_kinesis::primitives::Blob::new("x")).send().await.ok()
    })
    .await;
    handled(&function, 1).await;
    assert_no_panic(&sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_region_is_missing_and_the_message_says_what_to_check() {
    let fake = FakeKinesis::new();
    let arn = fake.create_stream("arn:aws:kinesis:eu-west-1:000000000000:stream/orders", 1).unwrap();
    fake.put(&arn, Some("a"), "x").unwrap();
    let server = fake.serve().await.unwrap();
    let function = Function::start().await;
    let elsewhere = arn.replace("eu-west-1", "us-east-1");
    let config = Config::at(&server.url(), &elsewhere).url(function.url(""));
    let sidecar = Sidecar::start(&config).await;
    red(
        &sidecar,
        &["ResourceNotFoundException", "stream orders in us-east-1", "check name, account and region"],
    )
    .await;
    drop(sidecar);

    let sidecar = Sidecar::start(&config.set("EventSourceArn", arn)).await;
    handled(&function, 1).await;
    green(&sidecar).await;
}

/// A service that refuses every listing, then also every read, and then nothing.
async fn refused(fault: Fault, texts: &[&str]) {
    let fake = FakeKinesis::new();
    let arn = fake.create_stream("orders", 1).unwrap();
    fake.put(&arn, Some("a"), "x").unwrap();
    let server = fake.serve().await.unwrap();
    let function = Function::start().await;
    let refusal = fake.faults().on_any().hold(fault.clone());
    let sidecar = Sidecar::start(&Config::at(&server.url(), &arn).url(function.url(""))).await;
    red(&sidecar, texts).await;
    assert_logged_once(&sidecar, texts[0]).await;
    until("it is tried again", async || (refusal.hits() >= 3).then_some(())).await;
    let reads = fake.faults().on(Operation::GetRecords).hold(fault);
    drop(refusal);
    // Reading is refused still, and the status shows it.
    until("the status tells why reading fails", async || {
        let shard = sidecar.shards().await.into_values().next()?;
        shard["lastError"]["message"].as_str()?.contains(texts[0]).then_some(())
    })
    .await;
    assert_eq!(function.count(), 0);
    drop(reads);
    handled(&function, 1).await;
    green(&sidecar).await;
    assert_no_panic(&sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_access_is_named_with_its_remedy_and_retried() {
    refused(Fault::AccessDenied, &["AccessDeniedException", "allow kinesis:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_named_with_their_remedy_and_retried() {
    refused(Fault::UnrecognizedClient, &["UnrecognizedClientException", "check that the credentials"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_credentials_are_named_and_the_process_goes_on() {
    let emulator = Ferrokinesis::start().await;
    let stream = stream(emulator.url()).await;
    let function = Function::start().await;
    let config = Config::new(&stream)
        .url(function.url(""))
        .environment("AWS_ACCESS_KEY_ID", "")
        .environment("AWS_SECRET_ACCESS_KEY", "");
    let mut sidecar = Sidecar::start(&config).await;
    red(&sidecar, &["credentials"]).await;
    assert_no_panic(&sidecar);
    assert_eq!(sidecar.try_ended(), None);
    sidecar.terminate();
    assert!(sidecar.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_named_and_tried_again_until_it_lives() {
    let emulator = Ferrokinesis::start().await;
    let stream = stream(emulator.url()).await;
    let proxy = FaultProxy::start(emulator.url().trim_start_matches("http://")).await.unwrap();
    proxy.set(ProxyMode::Refuse).await.unwrap();
    let function = Function::start().await;
    let config = Config::new(&stream).url(function.url("")).set("Aws.EndpointUrl", proxy.url());
    let sidecar = Sidecar::start(&config).await;
    let what = format!("the endpoint {} was not reached", proxy.url());
    red(&sidecar, &["the stream has not answered yet", &what]).await;
    assert_logged_once(&sidecar, &what).await;
    proxy.set(ProxyMode::Pass).await.unwrap();
    handled(&function, 1).await;
    green(&sidecar).await;
    assert_no_panic(&sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_a_function_that_is_not_there_yet_is_waited_for_without_spending_an_attempt() {
    let emulator = Ferrokinesis::start().await;
    let stream = stream(emulator.url()).await;
    let function = Function::behaving(|_| Plan::success()).await;
    let proxy = FaultProxy::start(function.address()).await.unwrap();
    proxy.set(ProxyMode::Refuse).await.unwrap();
    let config = Config::new(&stream)
        .url(proxy.url())
        .set("MaximumRetryAttempts", 0)
        .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl")
        .set("Retry.InitialBackoffMilliseconds", 20);
    let sidecar = Sidecar::start(&config).await;
    red(&sidecar, &["the function", &proxy.url()]).await;
    until("the function is missed several times", async || {
        let missed = sidecar.metric_with("shardmill_invocations_total", "outcome=\"not_reached\"").await?;
        (missed >= 3.0).then_some(())
    })
    .await;
    proxy.set(ProxyMode::Pass).await.unwrap();
    resolved(&sidecar, &stream).await;
    green(&sidecar).await;
    assert_eq!(function.stored_count(), 1);
    assert_eq!(crate::case::discarded(&config), [json!(null); 0]);
    assert_no_panic(&sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_a_program_that_is_not_there_yet_is_waited_for_without_spending_an_attempt() {
    let emulator = Ferrokinesis::start().await;
    let stream = stream(emulator.url()).await;
    let config = Config::new(&stream)
        .set("Function", json!({"Command": ["./bootstrap"], "Environment": {"INVOCATIONS": "./invocations"}}))
        .set("MaximumRetryAttempts", 0)
        .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
    let sidecar = Sidecar::start(&config).await;
    red(&sidecar, &["the function", "bootstrap", "No such file"]).await;

    let program = config.folder().join("bootstrap");
    let draft = config.folder().join("bootstrap.draft");
    std::fs::write(&draft, format!("#!/bin/sh\nexec '{}'\n", env!("CARGO_BIN_EXE_lambda-function"))).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(draft, program).unwrap();
    resolved(&sidecar, &stream).await;
    green(&sidecar).await;
    let notes = std::fs::read_to_string(config.folder().join("invocations")).unwrap();
    assert_eq!(notes.lines().count(), 1, "{notes}");
    assert_eq!(crate::case::discarded(&config), [json!(null); 0]);
    assert_no_panic(&sidecar);
}
