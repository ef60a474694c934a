//! What many shards and several mappings of one process share: the calls in flight.

use std::time::Duration;

use shardmill::checkpoint::MemoryStore;
use shardmill::{EventSourceMapping, KinesisSource, Worker};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::{Fault, Operation};
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn incident_79_opening_many_shards_takes_no_more_calls_at_once_than_reads_are_permitted() {
    const SHARDS: u32 = 600;
    let (fake, seen) = (stream(SHARDS), Seen::default());
    let slow = Fault::Latency(Duration::from_millis(300));
    fake.faults().on_any().always().inject(slow);
    let a = Worker::start(options("a").maximum_concurrent_reads(16)).unwrap();
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &MemoryStore::new()));
    until("every shard was opened", || fake.calls().of(Operation::GetShardIterator).len() >= SHARDS as usize)
        .await;
    assert_eq!(fake.calls().of(Operation::GetShardIterator).max_in_flight(), 16);
    assert!(fake.calls().of(Operation::GetRecords).max_in_flight() <= 16);
    run.stop().await;
}

#[cfg(feature = "dynamodb-streams")]
#[tokio::test(start_paused = true)]
async fn incident_79_so_it_is_with_the_shards_of_a_table() {
    let (fake, seen) = (shardmill_testkit::FakeDynamoDbStreams::new(), Seen::default());
    let arn = fake.create_table("orders", &["id"], 100).unwrap();
    let slow = Fault::Latency(Duration::from_millis(300));
    fake.faults().on(Operation::GetShardIterator).always().inject(slow);
    let a = Worker::start(options("a").maximum_concurrent_reads(16)).unwrap();
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &MemoryStore::new()));
    until("every shard was opened", || fake.calls().of(Operation::GetShardIterator).len() >= 100).await;
    assert_eq!(fake.calls().of(Operation::GetShardIterator).max_in_flight(), 16);
    run.stop().await;
}

/// A stream of another mapping, to which nothing else belongs.
fn payments(fake: &FakeKinesis) -> (EventSourceMapping, KinesisSource) {
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/payments";
    let mapping = EventSourceMapping::builder(arn, "payments-worker").build().unwrap();
    let source = KinesisSource::new(&fake.sdk_config(), arn).unwrap();
    (mapping, source)
}

#[tokio::test(start_paused = true)]
async fn incident_82_reads_that_hang_on_one_stream_hold_up_no_other_mapping() {
    let (hanging, healthy) = (stream(40), FakeKinesis::new());
    healthy.create_stream("payments", 2).unwrap();
    hanging.faults().on(Operation::GetRecords).always().inject(Fault::Hang);
    let a = Worker::start(options("a").maximum_concurrent_reads(16)).unwrap();
    let (none, seen) = (Seen::default(), Seen::default());
    let stuck = launch(consumer(&hanging, &a, mapping(), none.handler("a"), &MemoryStore::new()));
    let (of_payments, source) = payments(&healthy);
    let builder = shardmill::Consumer::builder(of_payments, source, seen.handler("a"))
        .lease_store(MemoryStore::new())
        .worker(std::sync::Arc::clone(&a));
    let run = launch(builder);
    until("as many reads hang as may", || hanging.calls().of(Operation::GetRecords).len() >= 12).await;
    pass(Duration::from_secs(5)).await;
    for n in 1..=10 {
        let put = Instant::now();
        healthy.put("payments", Some(&format!("key-{n}")), "record").unwrap();
        until("the record is invoked", || seen.len() == n).await;
        assert!(put.elapsed() < Duration::from_secs(3), "{:?} for record {n}", put.elapsed());
        pass(Duration::from_secs(3)).await;
    }
    assert!(hanging.calls().of(Operation::GetRecords).max_in_flight() <= 12);
    run.stop().await;
    stuck.stop().await;
}
