//! ParallelizationFactor: several batches of a shard at once, each key in order (R48 to R50).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use shardmill_tests::observe::{
    assert_nothing_lost_in_order_per_key, assert_one_at_a_time_per_key, is_complete, most_at_once,
};
use shardmill_tests::{Config, End, Ferrokinesis, Function, Plan, Sidecar, Stream, until};

use crate::case::{discarded, resolved};

const RECORDS: usize = 10_000;
const KEYS: usize = 200;
const LANES: usize = 10;

/// Two shards, the keys of the records in turn.
async fn stream(kinesis: &Ferrokinesis) -> Stream {
    let mut stream = Stream::create(kinesis.url(), "lanes", 2).await;
    let record = |n: usize| (format!("key-{}", n % KEYS), format!("record {n}").into_bytes());
    stream.put_keyed((0..RECORDS).map(record).collect()).await;
    stream
}

fn config(stream: &Stream) -> Config {
    Config::new(stream).set("ParallelizationFactor", LANES).set("BatchSize", 50)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r48_ten_lanes_handle_ten_thousand_records_of_two_hundred_keys_in_order_and_at_once() {
    let kinesis = Ferrokinesis::start().await;
    let stream = stream(&kinesis).await;
    let function = Function::behaving(|_| Plan::success_after(Duration::from_millis(50))).await;
    let mut sidecar = Sidecar::start(&config(&stream).url(function.url(""))).await;
    resolved(&sidecar, &stream).await;
    let lanes = sidecar.shards().await["shardId-000000000000"]["lanes"].as_array().unwrap().len();
    sidecar.terminate();
    assert!(sidecar.ended().await.success());

    let (calls, stored) = (function.invocations(), function.stored());
    assert_nothing_lost_in_order_per_key(&stream, &stored);
    assert_eq!(stored.len(), RECORDS, "nothing twice");
    assert_one_at_a_time_per_key(&calls);
    let most = most_at_once(&calls);
    assert!((3..=LANES).contains(&most), "{most} invocations of one shard at once");
    assert_eq!(lanes, LANES, "the status shows every lane");
}

/// R50: its own keys wait for a lane that fails, the others do not; the checkpoint waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r50_a_lane_that_fails_blocks_its_own_keys_only_and_holds_the_checkpoint() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "lanes", 1).await;
    let record =
        |n: usize| (format!("key-{}", n % 20), if n == 0 { b"bad".to_vec() } else { b"good".to_vec() });
    let put = stream.put_keyed((0..200).map(record).collect()).await;
    let function = Function::behaving(crate::retries::fails_on("bad")).await;
    let config = Config::new(&stream)
        .url(function.url(""))
        .set("ParallelizationFactor", LANES)
        .set("Retry", json!({"InitialBackoffMilliseconds": 20, "MaximumBackoffSeconds": 1}))
        .set("BatchSize", 1);
    let sidecar = Sidecar::start(&config).await;
    let stuck = || {
        let handled: BTreeSet<String> = function.stored().into_iter().map(|stored| stored.sequence).collect();
        let left = put.iter().filter(|put| !handled.contains(&put.sequence));
        left.cloned().collect::<Vec<_>>()
    };
    // The bad record was the first of its lane, so nothing of that lane is handled; everything else is in time.
    until("only one lane is left", async || {
        let shards = sidecar.shards().await;
        let lanes = shards.get("shardId-000000000000")?["lanes"].as_array()?.clone();
        let busy = |lane: &&serde_json::Value| lane["batchRecords"] != 0 || lane["queuedRecords"] != 0;
        (lanes.iter().filter(busy).count() == 1 && stuck().len() < 200).then_some(())
    })
    .await;
    let keys: BTreeSet<String> = stuck().into_iter().map(|put| put.key).collect();
    assert!(keys.contains("key-0") && keys.len() < 20, "{keys:?}");
    let of_these = put.iter().filter(|put| keys.contains(&put.key)).count();
    assert_eq!(stuck().len(), of_these, "all of the lane's records wait");
    assert_eq!(sidecar.store().leases()["shardId-000000000000"].checkpoint, "TRIM_HORIZON");

    function.behave(|_| Plan::success());
    resolved(&sidecar, &stream).await;
    assert_nothing_lost_in_order_per_key(&stream, &function.stored());
    assert_one_at_a_time_per_key(&function.invocations());
    assert_eq!(discarded(&config), [serde_json::Value::Null; 0]);
}

const KILLS: u32 = 5;
/// An invocation works so long before it stores its records, and again so long until it answers.
const HALF: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i1_i2_after_five_kills_with_lanes_ahead_nothing_is_lost_and_each_key_is_in_order() {
    let kinesis = Ferrokinesis::start().await;
    let stream = stream(&kinesis).await;
    let function = Function::behaving(|_| Plan { before: HALF, after: HALF, ..Plan::success() }).await;
    let config = config(&stream);
    let mut inside = 0;
    for kill in 0..KILLS {
        let run = format!("run-{kill}");
        let mut sidecar = Sidecar::start(&config.clone().url(function.url(&run))).await;
        let calls = || function.invocations().into_iter().filter(|call| call.caller == run);
        until("the run has come so far", async || {
            (calls().filter(|call| call.ended.is_some()).count() >= 5 * kill as usize).then_some(())
        })
        .await;
        until("several invocations are open", async || (function.open().len() > 2).then_some(())).await;
        sidecar.kill_9();
        until("the function knows that its caller is gone", async || {
            function.open().is_empty().then_some(())
        })
        .await;
        let abandoned = |call: &shardmill_tests::Invocation| matches!(call.ended, Some((_, End::Abandoned)));
        inside += u32::from(calls().filter(abandoned).count() > 1);
    }
    function.behave(|_| Plan::success());
    let sidecar = Sidecar::start(&config.url(function.url("last"))).await;
    until("every record is stored", async || is_complete(&stream, &function.stored()).then_some(())).await;
    resolved(&sidecar, &stream).await;

    assert!(inside >= 3, "{inside} of {KILLS} kills fell inside several invocations");
    let stored = function.stored();
    assert!(stored.len() > RECORDS, "some kills came between storing and answering");
    assert_nothing_lost_in_order_per_key(&stream, &stored);
    assert_one_at_a_time_per_key(&function.invocations());
    assert!(most_at_once(&function.invocations()) > 2);
}
