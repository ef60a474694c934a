//! A consumer: one mapping, run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::{LeaseStore, StoreError};
use shardmill_engine::{EventSourceMapping, FailureNames};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::destination::Destination;
use crate::discovery::Listed;
use crate::driver::MappingContext;
use crate::handler::{DynHandler, Handler};
use crate::keeper::KeeperOptions;
use crate::metrics;
use crate::pin::Pin;
use crate::run::Run;
use crate::source::{SourceError, StreamSource};
use crate::status::ConsumerStatus;
use crate::trouble::Troubles;
use crate::unread::Unread;
use crate::worker::{Worker, WorkerOptions};

/// Runs an event source mapping: reads every shard that this worker gets a lease for, and hands batches to the handler.
pub struct Consumer {
    mapping: Arc<EventSourceMapping>,
    source: Arc<dyn StreamSource>,
    handler: Arc<dyn DynHandler>,
    destination: Option<Arc<dyn Destination>>,
    store: Arc<dyn LeaseStore>,
    worker: Arc<Worker>,
    discovery_interval: Duration,
    status: ConsumerStatus,
    troubles: Arc<Troubles>,
    /// LATEST begins when the consumer is built, whatever its run waits for first.
    pin: Pin,
}

/// Puts a [`Consumer`] together.
#[must_use]
pub struct ConsumerBuilder {
    mapping: EventSourceMapping,
    source: Arc<dyn StreamSource>,
    handler: Arc<dyn DynHandler>,
    destination: Option<Arc<dyn Destination>>,
    store: Option<Arc<dyn LeaseStore>>,
    worker: Option<Arc<Worker>>,
    discovery_interval: Duration,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("mapping", &self.mapping).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder").field("mapping", &self.mapping).finish_non_exhaustive()
    }
}

/// Why a consumer cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no lease store.
    #[error(
        "no lease store: call lease_store() with a SqliteStore, or with a MemoryStore if checkpoints may be lost"
    )]
    NoLeaseStore,
    /// The source cannot work for this worker: it belongs to another one.
    #[error("{}", .0.message)]
    Source(SourceError),
    /// The worker's thread could not be started.
    #[error("the worker could not be started: {0}")]
    Worker(#[from] std::io::Error),
}

/// How a run ended that was asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// Invocations that the stop timeout cut off: their records come again.
    pub cut_invocations: usize,
}

/// Why a run ended that was not asked to stop. Faults that may pass never end a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The checkpoint store cannot be used as it is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records were lost before they were read, and `OnGap` is `stop` (I17).
    #[error("{0}; OnGap is stop: set it to continue to go on at the oldest record")]
    Gap(String),
}

impl Consumer {
    /// Starts to put a consumer together. A lease store is needed as well.
    pub fn builder(
        mapping: EventSourceMapping,
        source: impl StreamSource,
        handler: impl Handler,
    ) -> ConsumerBuilder {
        ConsumerBuilder {
            mapping,
            source: Arc::new(source),
            handler: Arc::new(handler),
            destination: None,
            store: None,
            worker: None,
            discovery_interval: Duration::from_secs(30),
        }
    }

    /// What the consumer shows of itself while it runs.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        self.status.clone()
    }

    /// Runs until `shutdown` is cancelled: then nothing new is read or invoked, running invocations may finish within
    /// the worker's stop timeout, the checkpoints are written and the leases released (I16).
    ///
    /// Faults of the stream, the store, the destination and the function are retried with backoff and shown in the
    /// status; a panic of the handler is a function error.
    ///
    /// # Errors
    /// The store cannot be used as it is, or records were lost and `OnGap` is `stop`. Other consumers of the process are not affected.
    pub async fn run(self, shutdown: CancellationToken) -> Result<RunReport, RunError> {
        let name: Arc<str> = self.mapping.application_name().into();
        metrics::mapping_starts(&name);
        let source = self.mapping.event_source();
        let (leases, grants) = self.worker.keeper.register(KeeperOptions {
            store: self.store,
            worker: self.worker.id.clone(),
            process: self.worker.process.clone(),
            times: self.worker.times,
            listing_interval: self.worker.listing_interval,
            slots: Arc::clone(&self.worker.slots),
            clock: self.worker.clock(),
            mapping: Arc::clone(&name),
        });
        self.status.watch(Arc::clone(leases.board()));
        let names = FailureNames {
            function_arn: self.mapping.function_arn().to_owned(),
            executed_version: self.mapping.executed_version().to_owned(),
            stream_arn: source.arn.clone(),
            mapping_uuid: self.mapping.uuid().to_owned(),
        };
        let clock = self.source.clock().unwrap_or_else(|| self.worker.clock());
        let places = self.handler.places();
        let handler: Arc<dyn DynHandler> = match self.mapping.report_batch_item_failures() {
            true => self.handler,
            false => Arc::new(Unread::around(self.handler, &name)),
        };
        let cx = MappingContext {
            function_arn: self.mapping.function_arn().into(),
            names: Arc::new(names),
            mapping: self.mapping,
            name,
            source: self.source,
            places,
            handler,
            destination: self.destination,
            clock,
            leases,
            listed: Listed::default(),
            pin: self.pin,
            stopping_gap: watch::Sender::new(None),
            list_now: Notify::new(),
            troubles: self.troubles,
        };
        Run::new(Arc::new(cx), grants, self.worker, self.status, self.discovery_interval)
            .until(shutdown)
            .await
    }
}

impl ConsumerBuilder {
    /// Where positions and leases live, opened for this application.
    pub fn lease_store(mut self, store: impl LeaseStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Where batches go that are given up. Without one they are logged and counted as dropped (R76).
    pub fn on_failure(mut self, destination: impl Destination) -> Self {
        self.destination = Some(Arc::new(destination));
        self
    }

    /// Shares a worker with the other consumers of the process.
    pub fn worker(mut self, worker: Arc<Worker>) -> Self {
        self.worker = Some(worker);
        self
    }

    /// How often the stream is listed for shards that nothing else told of; default 30 s.
    pub fn discovery_interval(mut self, interval: Duration) -> Self {
        self.discovery_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Builds the consumer; nothing is read before [`Consumer::run`].
    ///
    /// # Errors
    /// A part is missing, the source belongs to another worker, or the worker's thread could not be started.
    pub fn build(self) -> Result<Consumer, BuildError> {
        let worker = match self.worker {
            Some(worker) => worker,
            None => Worker::start(WorkerOptions::default())?,
        };
        self.source.attach(worker.sources()).map_err(BuildError::Source)?;
        let (status, name) = (ConsumerStatus::default(), self.mapping.application_name());
        let troubles = Arc::new(Troubles::new(name.into(), worker.clock()));
        status.attach(Arc::clone(&troubles));
        let pin = Pin::new(&self.source.clock().unwrap_or_else(|| worker.clock()));
        Ok(Consumer {
            mapping: Arc::new(self.mapping),
            source: self.source,
            handler: self.handler,
            destination: self.destination,
            store: self.store.ok_or(BuildError::NoLeaseStore)?,
            worker,
            discovery_interval: self.discovery_interval,
            status,
            troubles,
            pin,
        })
    }
}
