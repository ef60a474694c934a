//! `OnGap: stop`, as the one who is called at night sees it.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use serde_json::json;
use shardmill_testkit::FakeKinesis;
use shardmill_tests::{Config, Function, Sidecar, Stream, until};

/// 30 hours, beyond the retention of a day.
const ABSENCE_MS: i64 = 30 * 3_600_000;

/// Two streams whose records are read and stored; then no worker reads for longer than the streams keep records.
async fn absent(fake: &FakeKinesis, url: &str, function: &Function) -> (Stream, Stream, Config) {
    let mut lossy = Stream::create(url, "lossy", 1).await;
    let mut other = Stream::create(url, "other", 1).await;
    let config = Config::new(&lossy).url(function.url(""));
    let both = config.clone().mappings(of_both(&lossy, &other, "continue"));
    lossy.put(10, 50).await;
    other.put(10, 50).await;
    let mut sidecar = Sidecar::start(&both).await;
    until("the first records", async || (function.stored_count() == 20).then_some(())).await;
    until("the checkpoints", async || {
        sidecar.store().leases().values().all(|lease| lease.checkpoint.len() > 20).then_some(())
    })
    .await;
    sidecar.terminate();
    assert!(sidecar.ended().await.success());
    lossy.put(10, 50).await;
    fake.set_clock_offset(ABSENCE_MS);
    lossy.put(10, 50).await;
    other.put(10, 50).await;
    (lossy, other, config)
}

fn of_both(lossy: &Stream, other: &Stream, policy: &str) -> [serde_json::Value; 2] {
    [
        json!({"EventSourceArn": lossy.arn(), "FunctionName": "lossy", "OnGap": policy}),
        json!({"EventSourceArn": other.arn(), "FunctionName": "other"}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_on_gap_stop_turns_ready_red_with_the_reason_and_ends_with_1_once_every_mapping_has_stopped() {
    let fake = FakeKinesis::new();
    let server = fake.serve().await.unwrap();
    let function = Function::start().await;
    let (lossy, other, config) = absent(&fake, &server.url(), &function).await;

    // Next to another mapping: that one keeps running, and readiness shows why.
    let mut sidecar = Sidecar::start(&config.clone().mappings(of_both(&lossy, &other, "stop"))).await;
    until("the other mapping's records", async || (function.stored_count() >= 30).then_some(())).await;
    let red = until("readiness is red", async || {
        let reply = sidecar.get("/readyz").await?;
        (reply.status == 503 && reply.body.contains("retention")).then_some(reply.body)
    })
    .await;
    assert!(red.contains("lossy") && !red.contains("other"), "{red}");
    assert!(red.contains("OnGap is stop: set it to continue"), "the remedy: {red}");
    assert_eq!(sidecar.get("/healthz").await.unwrap().status, 200, "no reason to restart");
    assert!(sidecar.metric("shardmill_gaps_total").await.unwrap() >= 1.0);
    let shard = sidecar.store().leases().keys().next().unwrap().clone();
    let line = sidecar.logged("a gap: ").expect("the gap is logged");
    assert_eq!(line["level"], "ERROR");
    let text = line.to_string();
    assert!(
        text.contains(&shard) && text.contains("after ") && text.contains("retention"),
        "what is lost: {text}"
    );
    let stopped = sidecar.logged("the mapping has stopped").expect("the stop is logged").to_string();
    assert!(stopped.contains("set it to continue to resume at the oldest record"), "{stopped}");
    assert!(sidecar.try_ended().is_none(), "the other mapping goes on");
    sidecar.terminate();
    sidecar.ended().await;

    // Alone: the process ends, again and again, until the operator decides.
    let alone = json!({"EventSourceArn": lossy.arn(), "FunctionName": "lossy", "OnGap": "stop"});
    for _ in 0..2 {
        let mut sidecar = Sidecar::spawn(&config.clone().mappings([alone.clone()]));
        assert_eq!(sidecar.ended().await.code(), Some(1));
        let last = sidecar.log().join("\n");
        assert!(last.contains("every mapping has stopped") && last.contains("set it to continue"), "{last}");
    }
    let before = function.stored_count();
    let decided = json!({"EventSourceArn": lossy.arn(), "FunctionName": "lossy"});
    let _sidecar = Sidecar::start(&config.clone().mappings([decided])).await;
    until("what is left is read", async || (function.stored_count() >= before + 10).then_some(())).await;
}
