//! Peers that accept and never answer: each call recovers by its timeout, and nothing else waits for it.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeKinesis, FaultProxy, ProxyMode};
use shardmill_tests::observe::{assert_exactly_once_in_order, assert_nothing_lost_in_order};
use shardmill_tests::{Config, End, Ferrokinesis, Function, LeaseRow, Plan, Sidecar, Store, Stream, until};

/// Waits until the sidecar holds a lease of every shard; the rows.
async fn held(store: &Store, shards: usize) -> BTreeMap<String, LeaseRow> {
    until("all leases are held", async || {
        let leases = store.leases();
        let all = leases.len() == shards && leases.values().all(|lease| lease.owner.is_some());
        all.then_some(leases)
    })
    .await
}

/// No lease was lost and taken again: the acquisition is still the same.
fn assert_kept(before: &BTreeMap<String, LeaseRow>, now: &BTreeMap<String, LeaseRow>) {
    for (shard, lease) in before {
        assert_eq!(lease.token, now[shard].token, "{shard}: the lease was lost");
    }
}

fn stored_of(function: &Function, shard: &str) -> usize {
    function.stored().iter().filter(|record| record.shard == shard).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_never_answered_delays_neither_other_shards_nor_renewals_and_times_out() {
    let fake = FakeKinesis::new();
    let server = fake.serve().await.unwrap();
    let mut stream = Stream::create(&server.url(), "silent-stream", 4).await;
    let function = Function::start().await;
    let sidecar = Sidecar::start(&Config::new(&stream).url(function.url(""))).await;
    let before = held(sidecar.store(), 4).await;
    let silent = before.keys().next().unwrap().clone();
    // Exactly one read of one shard hangs.
    let hang = fake.faults().on(Operation::GetRecords).shard(&silent).times(1).inject(Fault::Hang);
    until("the read hangs", async || (hang.hits() == 1).then_some(())).await;
    stream.put(400, 100).await;
    until("the other shards go on", async || {
        before.keys().all(|shard| *shard == silent || stored_of(&function, shard) == 100).then_some(())
    })
    .await;
    // A read times out after 30 seconds: many lease times of 2 seconds, of which three are enough here.
    let heartbeat = sidecar.store().leases()[&silent].heartbeat.unwrap();
    until("the silent shard's lease is renewed", async || {
        (sidecar.store().leases()[&silent].heartbeat >= Some(heartbeat + 12)).then_some(())
    })
    .await;
    assert_eq!(stored_of(&function, &silent), 0, "its read still hangs");
    until("the silent shard goes on", async || (stored_of(&function, &silent) == 100).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_kept(&before, &sidecar.store().leases());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_hangs_on_one_shard_delays_neither_other_shards_nor_renewals_and_times_out() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "silent-function", 4).await;
    stream.put(4_000, 100).await;
    let silent = stream.by_shard().keys().next().unwrap().clone();
    let hangs = silent.clone();
    let function =
        Function::behaving(move |call| if call.shard == hangs { Plan::hang() } else { Plan::success() })
            .await;
    let config = Config::new(&stream).url(function.url("")).set("BatchSize", 10).set("Function.Timeout", 10);
    let sidecar = Sidecar::start(&config).await;
    let before = held(sidecar.store(), 4).await;
    let first =
        until("an invocation hangs", async || function.open().into_iter().find(|call| call.shard == silent))
            .await;
    // The next try succeeds.
    function.behave(|_| Plan::success());
    until("the other shards are done", async || (function.stored_count() >= 3_000).then_some(())).await;
    let still_open = |number| function.open().iter().any(|call| call.number == number);
    let heartbeat = sidecar.store().leases()[&silent].heartbeat.unwrap();
    until("its lease is renewed for three lease times", async || {
        (sidecar.store().leases()[&silent].heartbeat >= Some(heartbeat + 12)).then_some(())
    })
    .await;
    assert!(still_open(first.number), "the first invocation still hangs");
    until("the silent shard goes on", async || (function.stored_count() >= 4_000).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_kept(&before, &sidecar.store().leases());
    let all = function.invocations();
    let calls: Vec<_> = all.iter().filter(|call| call.shard == silent).take(2).collect();
    let (abandoned, end) = calls[0].ended.unwrap();
    assert_eq!(end, End::Abandoned, "the sidecar gave it up");
    // The function may see the call a while after the sidecar has started it: half of Function.Timeout is left for that.
    assert!(abandoned - calls[0].began >= Duration::from_secs(5), "long before Function.Timeout");
    assert_eq!(calls[0].request_id, calls[1].request_id, "the same batch, the same request id (R21)");
    assert_eq!(calls[0].records, calls[1].records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_behind_a_black_hole_is_called_again_when_the_network_is_back() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "black-hole", 4).await;
    let function = Function::start().await;
    let proxy = FaultProxy::start(function.address()).await.unwrap();
    let config = Config::new(&stream).url(proxy.url()).set("BatchSize", 10).set("Function.Timeout", 3);
    let sidecar = Sidecar::start(&config).await;
    stream.put(400, 100).await;
    until("all is well", async || (function.stored_count() >= 400).then_some(())).await;
    let before = held(sidecar.store(), 4).await;
    proxy.set(ProxyMode::BlackHole).await.unwrap();
    stream.put(400, 100).await;
    until("every shard's invocation has timed out twice", async || {
        (sidecar.metric("shardmill_failed_invoke_events_total").await? >= 80.0).then_some(())
    })
    .await;
    assert_kept(&before, &sidecar.store().leases());
    proxy.set(ProxyMode::Pass).await.unwrap();
    let complete = async || shardmill_tests::observe::is_complete(&stream, &function.stored()).then_some(());
    until("every record is stored", complete).await;
    // What was on its way when it was abandoned may arrive late, as from any network.
    assert_nothing_lost_in_order(&stream, &function.stored());
    assert_kept(&before, &sidecar.store().leases());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_behind_a_black_hole_is_read_again_from_the_same_place_when_the_network_is_back() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "far-stream", 4).await;
    let proxy = FaultProxy::start(kinesis.url().trim_start_matches("http://")).await.unwrap();
    let function = Function::start().await;
    let config = Config::new(&stream).url(function.url("")).set("Aws.EndpointUrl", proxy.url());
    let sidecar = Sidecar::start(&config).await;
    stream.put(400, 100).await;
    until("all is well", async || (function.stored_count() >= 400).then_some(())).await;
    let before = held(sidecar.store(), 4).await;
    proxy.set(ProxyMode::BlackHole).await.unwrap();
    stream.put(400, 100).await;
    let failed = until("every shard's read has timed out", async || {
        let shards = sidecar.shards().await;
        let failed = |shard: &serde_json::Value| shard["readFailuresInARow"].as_u64().unwrap_or(0) > 0;
        let failed: BTreeSet<String> =
            shards.into_iter().filter(|(_, s)| failed(s)).map(|(n, _)| n).collect();
        (failed.len() == 4).then_some(failed)
    })
    .await;
    assert_eq!(failed, before.keys().cloned().collect());
    assert_eq!(sidecar.get("/healthz").await.unwrap().status, 200, "it waits, and that is healthy");
    assert_kept(&before, &sidecar.store().leases());
    proxy.set(ProxyMode::Pass).await.unwrap();
    until("every record is stored", async || (function.stored_count() >= 800).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_kept(&before, &sidecar.store().leases());
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_89_a_store_that_is_locked_for_three_lease_times_is_told_once_and_loses_nothing() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "locked-store", 4).await;
    stream.put(2_000, 100).await;
    let function = Function::behaving(|_| Plan::success_after(Duration::from_millis(50))).await;
    let config = Config::new(&stream).url(function.url("")).set("BatchSize", 10);
    let mut sidecar = Sidecar::start(&config).await;
    held(sidecar.store(), 4).await;
    until("it has come some way", async || (function.stored_count() > 200).then_some(())).await;
    let lock = sidecar.store().lock();
    until("it notices", async || sidecar.logged("the checkpoint store fails")).await;
    let lost = async || (sidecar.metric("shardmill_leases_lost_total").await == Some(4.0)).then_some(());
    until("it lets go of every shard", lost).await;
    let stored = function.count();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(function.count(), stored, "without a lease nothing is started (I10)");
    // It can be read all the time: that is no reason to say that it answers again.
    assert!(sidecar.logged("the checkpoint store answers again").is_none());
    let reply = sidecar.get("/readyz").await.unwrap();
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(reply.body.contains("the checkpoint store sqlite:"), "{}", reply.body);
    let status = sidecar.status().await;
    let error = &status["mappings"][0]["lastError"];
    assert_eq!((&error["what"], error), (&"checkpoint store".into(), &status["mappings"][0]["storeError"]));
    assert_eq!(sidecar.metric("shardmill_store_failing").await, Some(1.0));
    drop(lock);
    let complete = async || shardmill_tests::observe::is_complete(&stream, &function.stored()).then_some(());
    until("every record is stored", complete).await;
    until("it says so", async || sidecar.logged("the checkpoint store answers again")).await;
    until("it is ready", async || sidecar.ready().await.then_some(())).await;
    assert_nothing_lost_in_order(&stream, &function.stored());
    let log = sidecar.log();
    for text in ["the checkpoint store fails", "the checkpoint store answers again"] {
        assert_eq!(log.iter().filter(|line| line.contains(text)).count(), 1, "{text}");
    }
    assert!(log.iter().filter(|line| line.contains("lost leases")).count() <= 2, "not one line for each");
    sidecar.terminate();
    assert!(sidecar.ended().await.success());
}
