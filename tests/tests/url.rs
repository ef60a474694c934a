//! `shardmill run` with a `Url` handler on four shards: what PutRecords returned is what the function's own file holds,
//! in order per shard, nothing twice.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use shardmill_tests::observe::assert_exactly_once_in_order;
use shardmill_tests::{Config, Ferrokinesis, Function, Sidecar, Stream, until};

/// Puts `count` records of 1 KB while the sidecar runs, and compares.
async fn every_record_arrives_once_and_in_order(endpoint: &str, count: usize) {
    let mut stream = Stream::create(endpoint, "url", 4).await;
    let function = Function::start().await;
    let config = Config::new(&stream).url(function.url("")).set("BatchSize", 1000);
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
    every_record_arrives_once_and_in_order(kinesis.url(), 100_000).await;
}

mod kinesis_local {
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs kinesis-local: cargo xtask test"]
    async fn twenty_thousand_records_arrive_once_and_in_order() {
        let endpoint = shardmill_tests::endpoint("SHARDMILL_TEST_KINESIS_LOCAL");
        super::every_record_arrives_once_and_in_order(&endpoint, 20_000).await;
    }
}

mod localstack {
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn twenty_thousand_records_arrive_once_and_in_order() {
        let endpoint = shardmill_tests::endpoint("SHARDMILL_TEST_LOCALSTACK");
        super::every_record_arrives_once_and_in_order(&endpoint, 20_000).await;
    }
}
