//! `shardmill run` with a `Url` handler on four shards: what PutRecords returned is what the function's own file holds,
//! in order per shard, nothing twice.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use shardmill_testkit::{FaultProxy, ProxyMode};
use shardmill_tests::observe::assert_exactly_once_in_order;
use shardmill_tests::{Config, Ferrokinesis, Function, Sidecar, Stream, until};

/// Puts `count` records of 1 KB while the sidecar runs, and compares.
async fn every_record_arrives_once_and_in_order(endpoint: &str, encoding: &str, count: usize) {
    let mut stream = Stream::create(endpoint, &format!("url-{encoding}"), 4).await;
    let function = Function::start().await;
    let config = Config::new(&stream).url(function.url("")).set("BatchSize", 1000);
    let config = config.set("Polling.Encoding", encoding);
    stream.put(count / 2, 1024).await;
    let mut sidecar = Sidecar::start(&config).await;
    stream.put(count - count / 2, 1024).await;
    until("every record is stored", async || (function.stored_count() >= count).then_some(())).await;
    sidecar.terminate();
    assert!(sidecar.ended().await.success());

    assert_eq!(stream.records().len(), count);
    assert_eq!(stream.by_shard().len(), 4, "records went to every shard");
    assert_exactly_once_in_order(&stream, &function.stored());
    for (shard, lease) in sidecar.store().leases() {
        assert_eq!(Some(&lease.checkpoint), stream.by_shard()[&shard].last(), "{shard}: the last record's");
        assert_eq!(lease.owner, None, "{shard}: released at the stop (I16)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_records_arrive_once_and_in_order() {
    let kinesis = Ferrokinesis::start().await;
    every_record_arrives_once_and_in_order(kinesis.url(), "auto", 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r17_a_function_that_is_deleted_and_comes_back_has_missed_nothing() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "deleted-function", 4).await;
    let function = Function::start().await;
    let proxy = FaultProxy::start(function.address()).await.unwrap();
    let config = Config::new(&stream)
        .url(proxy.url())
        .set("MaximumRetryAttempts", 0)
        .set("Retry.MaximumBackoffSeconds", 1)
        .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
    let sidecar = Sidecar::start(&config).await;
    stream.put(400, 100).await;
    until("the records before are done with", async || {
        let (last, leases) = (stream.by_shard(), sidecar.store().leases());
        let is_done = |shard: &String| leases.get(shard).map(|lease| &lease.checkpoint) == last[shard].last();
        last.keys().all(is_done).then_some(())
    })
    .await;
    proxy.set(ProxyMode::Refuse).await.unwrap();
    stream.put(400, 100).await;
    until("every shard has tried in vain more than twice", async || {
        let misses = sidecar.metric_with("shardmill_invocations_total", "not_reached").await?;
        (misses >= 12.0).then_some(())
    })
    .await;
    assert_eq!(sidecar.get("/healthz").await.unwrap().status, 200, "it waits, and that is healthy");
    assert_eq!(function.stored_count(), 400);
    proxy.set(ProxyMode::Pass).await.unwrap();
    until("the records since", async || (function.stored_count() >= 800).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_eq!(std::fs::read(config.folder().join("discarded.jsonl")).unwrap_or_default(), b"", "R23");
}

mod kinesis_local {
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs kinesis-local: cargo xtask test"]
    async fn five_thousand_records_arrive_once_and_in_order_in_json_and_in_cbor() {
        let endpoint = shardmill_tests::endpoint("SHARDMILL_TEST_KINESIS_LOCAL");
        for encoding in ["json", "cbor"] {
            super::every_record_arrives_once_and_in_order(&endpoint, encoding, 2_500).await;
        }
    }
}

mod localstack {
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn five_thousand_records_arrive_once_and_in_order_in_json_and_in_cbor() {
        let endpoint = shardmill_tests::endpoint("SHARDMILL_TEST_LOCALSTACK");
        for encoding in ["json", "cbor"] {
            super::every_record_arrives_once_and_in_order(&endpoint, encoding, 2_500).await;
        }
    }
}
