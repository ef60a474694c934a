//! SIGTERM (I16): running invocations finish, nothing is redelivered, the process ends with 0 in time.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::time::{Duration, Instant};

use shardmill_tests::observe::assert_exactly_once_in_order;
use shardmill_tests::{Config, End, Ferrokinesis, Function, Plan, Sidecar, Stalls, Stream, until};

#[tokio::test(flavor = "multi_thread")]
async fn i16_sigterm_lets_running_invocations_finish_and_nothing_comes_again_after_the_restart() {
    let stop = Duration::from_secs(20);
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "stop", 4).await;
    stream.put(4_000, 100).await;
    let function = Function::behaving(|_| Plan::success_after(Duration::from_secs(2))).await;
    let config = Config::new(&stream).set("BatchSize", 10).set("Worker.StopSeconds", stop.as_secs());
    for round in 0..3 {
        let mut sidecar = Sidecar::start(&config.clone().url(function.url(&format!("round-{round}")))).await;
        until("every shard's invocation is open", async || (function.open().len() == 4).then_some(())).await;
        let before = function.count();
        let asked = Instant::now();
        sidecar.terminate();
        let status = sidecar.ended().await;
        assert_eq!(status.code(), Some(0), "round {round}: {status}");
        assert!(asked.elapsed() < stop, "round {round}: it took {:?}", asked.elapsed());
        assert_eq!(function.count(), before, "round {round}: nothing began after SIGTERM");
        let all = function.invocations();
        assert!(
            all.iter().all(|c| matches!(c.ended, Some((_, End::Answered)))),
            "round {round}: all finished"
        );
        assert!(sidecar.store().leases().values().all(|lease| lease.owner.is_none()), "all leases released");
    }
    function.behave(|_| Plan::success());
    let _sidecar = Sidecar::start(&config.url(function.url("last"))).await;
    until("every record is stored", async || (function.stored_count() >= 4_000).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_longer_than_stop_seconds_is_cut_at_the_deadline_and_its_batch_comes_again_unspent() {
    let stop = Duration::from_secs(3);
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "cut", 2).await;
    stream.put(100, 100).await;
    let function = Function::behaving(|_| Plan::hang()).await;
    // A single spent attempt would send the batch to the destination.
    let config = Config::new(&stream)
        .set("BatchSize", 10)
        .set("MaximumRetryAttempts", 0)
        .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl")
        .set("Worker.StopSeconds", stop.as_secs());
    for round in 1..=3 {
        let mut sidecar = Sidecar::start(&config.clone().url(function.url(&format!("round-{round}")))).await;
        until("both shards' invocations are open", async || (function.open().len() == 2).then_some(())).await;
        let (stalls, asked) = (Stalls::watch(), Instant::now());
        sidecar.terminate();
        let status = sidecar.ended().await;
        let took = asked.elapsed();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(took >= stop - Duration::from_millis(100), "it gave the handler only {took:?}");
        let most = stop + Duration::from_secs(2) + stalls.total();
        assert!(took < most, "StopSeconds is {stop:?} and it took {took:?}");
        assert_eq!(sidecar.logged("cut_invocations").unwrap()["cut_invocations"], 2);
        assert_eq!(function.count(), 2 * round, "each shard was called once");
    }
    function.behave(|_| Plan::success());
    let sidecar = Sidecar::start(&config.clone().url(function.url("last"))).await;
    until("every record is stored", async || (function.stored_count() >= 100).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    let all = function.invocations();
    for (shard, numbers) in stream.by_shard() {
        for call in all.iter().filter(|call| call.shard == shard).take(4) {
            assert_eq!(call.records[0].sequence, numbers[0], "{shard}: the same batch was redelivered");
        }
    }
    assert_eq!(std::fs::read(config.folder().join("discarded.jsonl")).unwrap_or_default(), b"", "discarded");
    assert_eq!(sidecar.metric("shardmill_dropped_events_total").await.unwrap_or(0.0), 0.0);
}
