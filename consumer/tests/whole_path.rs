//! The whole path in one process under virtual time: the real SDK against an in-memory Kinesis, a handler, a memory
//! store. "Nothing lost" is judged by what the fake accepted against what the handler saw.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardmill::checkpoint::{LeaseStore, MemoryStore};
use shardmill::engine::MappingBuilder;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, EventSourceMapping, HandlerError, InvokeContext,
    KinesisSource, Position, Worker, WorkerOptions,
};
use shardmill_testkit::FakeKinesis;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// (shard, sequence number) in the order in which the handler saw them.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

fn mapping(edit: impl FnOnce(MappingBuilder) -> MappingBuilder) -> EventSourceMapping {
    edit(EventSourceMapping::builder(ARN, "orders-worker")).build().unwrap()
}

fn worker() -> Arc<Worker> {
    Worker::start(WorkerOptions::default().lease(Duration::from_secs(2)).keeper_in_current_runtime()).unwrap()
}

fn source(fake: &FakeKinesis) -> KinesisSource {
    KinesisSource::new(&fake.sdk_config(), ARN).unwrap()
}

fn recording(seen: &Seen) -> impl shardmill::Handler + use<> {
    let seen = Arc::clone(seen);
    move |batch: Batch, cx: InvokeContext| {
        let seen = Arc::clone(&seen);
        async move {
            let mut seen = seen.lock().unwrap();
            seen.extend(batch.records().iter().map(|r| (cx.shard.to_string(), r.seq.number.to_string())));
            Ok::<_, HandlerError>(BatchResponse::success())
        }
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never reached: {what}");
}

fn put(fake: &FakeKinesis, n: usize) {
    for i in 0..n {
        fake.put("orders", Some(&format!("key-{}", i % 17)), format!("record {i}")).unwrap();
    }
}

/// What the fake accepted, per shard in order.
fn accepted(fake: &FakeKinesis) -> Vec<(String, String)> {
    let mut all: Vec<_> =
        fake.records("orders").unwrap().into_iter().map(|r| (r.shard_id, r.sequence_number)).collect();
    all.sort();
    all
}

fn stable_by_shard(seen: &Seen) -> Vec<(String, String)> {
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    seen
}

#[tokio::test(start_paused = true)]
async fn every_record_reaches_the_handler_once_and_in_order_per_shard_and_the_checkpoint_follows() {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 4).unwrap();
    put(&fake, 1000);
    let (seen, store, worker) = (Seen::default(), MemoryStore::default(), worker());
    let consumer = Consumer::builder(mapping(|m| m), source(&fake), recording(&seen))
        .lease_store(store.clone())
        .worker(Arc::clone(&worker))
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let run = tokio::spawn(consumer.run(stop.clone()));
    until("all records", || seen.lock().unwrap().len() == 1000).await;
    put(&fake, 500);
    until("the records that came later", || seen.lock().unwrap().len() == 1500).await;
    stop.cancel();
    run.await.unwrap().unwrap();

    assert_eq!(stable_by_shard(&seen), accepted(&fake), "nothing lost, nothing twice, in order per shard");
    for lease in store.list().await.unwrap() {
        let last = accepted(&fake).into_iter().rfind(|(shard, _)| shard == lease.key.shard.as_str());
        let Position::After(seq) = &lease.checkpoint else { panic!("{lease:?}") };
        assert_eq!(Some(seq.number.to_string()), last.map(|(_, seq)| seq));
        assert_eq!(lease.owner, None, "released at the stop (I16)");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_run_goes_on_after_the_checkpoint_of_the_first() {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 2).unwrap();
    let (seen, store) = (Seen::default(), MemoryStore::default());
    for round in 1..=3 {
        put(&fake, 100);
        let worker = worker();
        let consumer = Consumer::builder(mapping(|m| m.batch_size(7)), source(&fake), recording(&seen))
            .lease_store(store.clone())
            .worker(worker)
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let run = tokio::spawn(consumer.run(stop.clone()));
        until("the round's records", || seen.lock().unwrap().len() >= round * 100).await;
        stop.cancel();
        run.await.unwrap().unwrap();
    }
    assert_eq!(stable_by_shard(&seen), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn i9_children_of_a_split_and_a_merge_start_after_their_parents_and_nothing_is_lost() {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 2).unwrap();
    put(&fake, 100);
    let shards = fake.shards("orders").unwrap();
    let (left, right) = fake.split("orders", &shards[0].id).unwrap();
    put(&fake, 100);
    let merged = fake.merge("orders", &left, &right).unwrap();
    put(&fake, 100);
    let (seen, store, worker) = (Seen::default(), MemoryStore::default(), worker());
    let consumer = Consumer::builder(mapping(|m| m.batch_size(10)), source(&fake), recording(&seen))
        .lease_store(store.clone())
        .worker(worker)
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let run = tokio::spawn(consumer.run(stop.clone()));
    until("all records", || seen.lock().unwrap().len() == 300).await;
    // One more generation while the consumer runs.
    let (a, _) = fake.split("orders", &merged).unwrap();
    put(&fake, 100);
    until("the records after the live split", || seen.lock().unwrap().len() == 400).await;
    stop.cancel();
    run.await.unwrap().unwrap();
    assert_eq!(stable_by_shard(&seen), accepted(&fake));
    let order = seen.lock().unwrap().clone();
    let first = |shard: &str| order.iter().position(|(s, _)| s == shard).unwrap();
    let last = |shard: &str| order.iter().rposition(|(s, _)| s == shard).unwrap();
    assert!(
        last(&shards[0].id) < first(&left) && last(&left) < first(&merged) && last(&right) < first(&merged)
    );
    assert!(last(&merged) < first(&a));
    let ended =
        store.list().await.unwrap().into_iter().filter(|l| l.checkpoint == Position::ShardEnd).count();
    assert_eq!(ended, 4, "the split shard, its two children and the merged one");
}
