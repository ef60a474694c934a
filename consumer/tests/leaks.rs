//! What a stopped consumer leaves behind. A process of its own: other tests' threads would be counted, too.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shardmill::checkpoint::SqliteStore;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, EventSourceMapping, HandlerError, InvokeContext,
    KinesisSource, Worker, WorkerOptions,
};
use shardmill_testkit::FakeKinesis;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// Threads and descriptors of this process.
fn held() -> (usize, usize) {
    let count = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Starts a worker and a consumer, has one record handled, and stops them.
async fn run_once(store: &Path) {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 4).unwrap();
    fake.put("orders", Some("key"), "record").unwrap();
    let mapping = EventSourceMapping::builder(ARN, "orders-worker").build().unwrap();
    let worker = Worker::start(WorkerOptions::default()).unwrap();
    let source = KinesisSource::new(&fake.sdk_config(), ARN).unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&handled);
    let handler = move |batch: Batch, _: InvokeContext| {
        seen.fetch_add(batch.len(), Ordering::SeqCst);
        async { Ok::<_, HandlerError>(BatchResponse::success()) }
    };
    let consumer = Consumer::builder(mapping, source, handler)
        .lease_store(SqliteStore::open(store, "orders-worker").unwrap())
        .worker(worker)
        .build()
        .unwrap();
    let stop = CancellationToken::new();
    let run = tokio::spawn(consumer.run(stop.clone()));
    while handled.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn incident_68_a_stopped_consumer_leaves_neither_threads_nor_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    // The first one starts what the process keeps: the pool of blocking threads, lazily opened files.
    run_once(&folder.path().join("0.db")).await;
    let after_the_first = held();
    for n in 1..6 {
        run_once(&folder.path().join(format!("{n}.db"))).await;
    }
    let mut now = held();
    for _ in 0..600 {
        if now.0 <= after_the_first.0 && now.1 <= after_the_first.1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        now = held();
    }
    panic!("(threads, descriptors) were {after_the_first:?} after one run and stay {now:?} after six");
}
