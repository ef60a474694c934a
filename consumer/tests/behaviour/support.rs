//! What the tests share: a stream, workers, handlers that record, and runs that can be stopped.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
pub(crate) use shardmill::StartingPosition;
use shardmill::checkpoint::{Fault, FaultyStore, Lease, LeaseStore, MemoryStore, Operation};
use shardmill::engine::MappingBuilder;
use shardmill::{
    Batch, BatchResponse, CancellationToken, ConsumerBuilder, ConsumerReport, ConsumerStatus, DynamoDbSource,
    EventSourceMapping, Handler, HandlerError, InvokeContext, KinesisSource, Position, RunError, RunReport,
    Worker, WorkerOptions,
};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
pub(crate) const LEASE: Duration = Duration::from_secs(2);

pub(crate) type Store = FaultyStore<MemoryStore>;

/// With time for handlers that are slow on purpose.
pub(crate) fn mapping() -> MappingBuilder {
    EventSourceMapping::builder(ARN, "orders-worker").timeout(Duration::from_secs(60))
}

pub(crate) fn options(id: &str) -> WorkerOptions {
    WorkerOptions::default().id(id).lease(LEASE).keeper_in_current_runtime()
}

pub(crate) fn worker(id: &str) -> Arc<Worker> {
    Worker::start(options(id)).unwrap()
}

pub(crate) fn stream(shards: u32) -> FakeKinesis {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", shards).unwrap();
    fake
}

pub(crate) fn source(fake: &FakeKinesis) -> KinesisSource {
    KinesisSource::new(&fake.sdk_config(), ARN).unwrap()
}

/// A consumer of the stream that records what it sees.
pub(crate) fn consumer(
    fake: &FakeKinesis,
    worker: &Arc<Worker>,
    mapping: MappingBuilder,
    handler: impl Handler,
    store: &(impl LeaseStore + Clone),
) -> ConsumerBuilder {
    shardmill::Consumer::builder(mapping.build().unwrap(), source(fake), handler)
        .lease_store(store.clone())
        .worker(Arc::clone(worker))
        .discovery_interval(Duration::from_secs(5))
}

/// A consumer of the table's stream `arn`.
pub(crate) fn of_table(
    fake: &FakeDynamoDbStreams,
    arn: &str,
    worker: &Arc<Worker>,
    handler: impl Handler,
    store: &(impl LeaseStore + Clone),
) -> ConsumerBuilder {
    of_table_as(fake, table_mapping(arn), worker, handler, store)
}

pub(crate) fn table_mapping(arn: &str) -> MappingBuilder {
    let mapping = EventSourceMapping::builder(arn, "orders-worker");
    mapping.name("orders-app").timeout(Duration::from_secs(60))
}

/// The same with a mapping of one's own.
pub(crate) fn of_table_as(
    fake: &FakeDynamoDbStreams,
    mapping: MappingBuilder,
    worker: &Arc<Worker>,
    handler: impl Handler,
    store: &(impl LeaseStore + Clone),
) -> ConsumerBuilder {
    let mapping = mapping.build().unwrap();
    let source = DynamoDbSource::new(&fake.sdk_config(), mapping.event_source()).unwrap();
    shardmill::Consumer::builder(mapping, source, handler)
        .lease_store(store.clone())
        .worker(Arc::clone(worker))
        .discovery_interval(Duration::from_secs(5))
}

pub(crate) fn put_items(fake: &FakeDynamoDbStreams, ids: std::ops::Range<u32>) -> Vec<String> {
    let put = |n: u32| fake.put_item("orders", &json!({"id": {"S": format!("id-{n}")}})).unwrap().unwrap();
    ids.map(|n| put(n).sequence_number).collect()
}

/// A run that can be stopped.
pub(crate) struct Running {
    pub(crate) status: ConsumerStatus,
    stop: CancellationToken,
    task: JoinHandle<Result<RunReport, RunError>>,
}

pub(crate) fn launch(builder: ConsumerBuilder) -> Running {
    let consumer = builder.build().unwrap();
    let (status, stop) = (consumer.status(), CancellationToken::new());
    let task = tokio::spawn(consumer.run(stop.clone()));
    Running { status, stop, task }
}

impl Running {
    pub(crate) fn report(&self) -> ConsumerReport {
        self.status.report()
    }

    pub(crate) async fn ended(self) -> Result<RunReport, RunError> {
        self.task.await.unwrap()
    }

    pub(crate) async fn stop(self) -> RunReport {
        self.stop.cancel();
        self.ended().await.unwrap()
    }

    /// Ends the process, as far as one process can: nothing more is written, nothing is released.
    pub(crate) async fn crash(self, store: &Store) {
        store.fail_all(Fault::HangBefore);
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// What a handler saw of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) worker: &'static str,
    pub(crate) shard: String,
    pub(crate) seq: String,
    pub(crate) at: Instant,
}

/// What the handlers of a test saw, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Sight>>>);

impl Seen {
    pub(crate) fn all(&self) -> Vec<Sight> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Different records seen.
    pub(crate) fn distinct(&self) -> usize {
        let mut all = self.pairs();
        all.sort();
        all.dedup();
        all.len()
    }

    fn pairs(&self) -> Vec<(String, String)> {
        self.all().into_iter().map(|s| (s.shard, s.seq)).collect()
    }

    /// (shard, sequence number) in the order of each shard.
    pub(crate) fn by_shard(&self) -> Vec<(String, String)> {
        let mut pairs = self.pairs();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    }

    /// The same without redelivered records.
    pub(crate) fn first_sights(&self) -> Vec<(String, String)> {
        let mut known = std::collections::BTreeSet::new();
        let mut pairs = self.by_shard();
        pairs.retain(|pair| known.insert(pair.clone()));
        pairs
    }

    pub(crate) fn note(&self, worker: &'static str, batch: &Batch, cx: &InvokeContext) {
        let (shard, at) = (cx.shard.to_string(), Instant::now());
        let sight = |seq| Sight { worker, shard: shard.clone(), seq, at };
        self.0.lock().unwrap().extend(batch.records().iter().map(|r| sight(r.seq.number.to_string())));
    }

    /// A handler that notes its records and succeeds.
    pub(crate) fn handler(&self, worker: &'static str) -> impl Handler + use<> {
        self.slow(worker, Duration::ZERO)
    }

    /// The same, but it takes this long before it notes anything.
    pub(crate) fn slow(&self, worker: &'static str, takes: Duration) -> impl Handler + use<> {
        let seen = self.clone();
        move |batch: Batch, cx: InvokeContext| {
            let seen = seen.clone();
            async move {
                if !takes.is_zero() {
                    tokio::time::sleep(takes).await;
                }
                seen.note(worker, &batch, &cx);
                Ok::<_, HandlerError>(BatchResponse::success())
            }
        }
    }
}

pub(crate) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..40_000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never reached: {what}");
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) fn put(fake: &FakeKinesis, n: usize) {
    for i in 0..n {
        fake.put("orders", Some(&format!("key-{}", i % 17)), format!("record {i}")).unwrap();
    }
}

/// What the fake accepted, per shard in order.
pub(crate) fn accepted(fake: &FakeKinesis) -> Vec<(String, String)> {
    let records = fake.records("orders").unwrap();
    let mut all: Vec<_> = records.into_iter().map(|r| (r.shard_id, r.sequence_number)).collect();
    all.sort();
    all
}

pub(crate) fn store() -> Store {
    FaultyStore::new(MemoryStore::new())
}

/// Both kinds of stores: each lease is renewed, or a worker's heartbeat renews all of its leases.
pub(crate) fn stores() -> [Store; 2] {
    [MemoryStore::new(), MemoryStore::renewed_by_heartbeat()].map(FaultyStore::new)
}

/// How many shards the worker reads.
pub(crate) fn shards(run: &Running) -> usize {
    run.report().shards.len()
}

/// Another worker's view of the same leases, with faults of its own.
pub(crate) fn another(store: &Store) -> Store {
    FaultyStore::new(store.inner().clone())
}

pub(crate) async fn leases(store: &Store) -> Vec<Lease> {
    store.inner().list().await.unwrap()
}

pub(crate) fn sequence(position: &Position) -> Option<String> {
    match position {
        Position::After(seq) => Some(seq.number.to_string()),
        _ => None,
    }
}

pub(crate) const WRITES: [Operation; 4] =
    [Operation::Acquire, Operation::Renew, Operation::Checkpoint, Operation::Release];
