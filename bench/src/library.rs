//! The library as these benchmarks run it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardmill::checkpoint::{LeaseStore, MemoryStore};
use shardmill::engine::MappingBuilder;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, EventSourceMapping, HandlerError, InvokeContext,
    RunReport, StreamSource, Worker, WorkerOptions,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::measure::Fallible;

/// The stream that every benchmark reads.
pub(crate) const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/bench";

/// Counts what the handler, which does nothing else, was handed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    inner: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    /// Waiters are woken once so many records were seen.
    mark: AtomicU64,
    reached: Notify,
}

impl Seen {
    fn add(&self, records: usize) {
        let before = self.inner.records.fetch_add(records as u64, Ordering::Relaxed);
        let mark = self.inner.mark.load(Ordering::Relaxed);
        if before < mark && before + records as u64 >= mark {
            self.inner.reached.notify_one();
        }
    }

    pub(crate) fn records(&self) -> u64 {
        self.inner.records.load(Ordering::Relaxed)
    }

    /// Waits until so many records were seen in all.
    pub(crate) async fn reach(&self, records: u64) {
        self.inner.mark.store(records, Ordering::SeqCst);
        while self.records() < records {
            self.inner.reached.notified().await;
        }
    }
}

/// A worker without pacing.
pub(crate) fn worker() -> Fallible<Arc<Worker>> {
    Ok(Worker::start(WorkerOptions::default().pacing(false))?)
}

/// The mapping of every benchmark: Lambda's defaults, batches of 100.
pub(crate) fn mapping() -> MappingBuilder {
    EventSourceMapping::builder(STREAM_ARN, "bench")
}

/// A running consumer whose handler does nothing.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) seen: Seen,
    stop: CancellationToken,
    task: JoinHandle<Result<RunReport, shardmill::RunError>>,
}

impl Running {
    /// Starts it. Checkpoints go to memory, as often as the mapping asks for.
    pub(crate) fn start(
        mapping: MappingBuilder,
        source: impl StreamSource,
        worker: Arc<Worker>,
    ) -> Fallible<Self> {
        Self::with_store(mapping.build()?, source, worker, MemoryStore::new(), Duration::from_secs(3600))
    }

    /// The same with a store and an interval of discoveries of the caller's choice.
    pub(crate) fn with_store(
        mapping: EventSourceMapping,
        source: impl StreamSource,
        worker: Arc<Worker>,
        store: impl LeaseStore,
        discovery: Duration,
    ) -> Fallible<Self> {
        let seen = Seen::default();
        let handled = seen.clone();
        let handler = move |batch: Batch, _: InvokeContext| {
            handled.add(batch.len());
            async { Ok::<_, HandlerError>(BatchResponse::success()) }
        };
        let consumer = Consumer::builder(mapping, source, handler)
            .lease_store(store)
            .discovery_interval(discovery)
            .worker(worker)
            .build()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(consumer.run(stop.clone()));
        Ok(Self { seen, stop, task })
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(self) -> Fallible<()> {
        self.stop.cancel();
        self.task.await??;
        Ok(())
    }
}
