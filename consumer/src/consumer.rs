//! A consumer: one mapping, run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::LeaseStore;
use shardmill_engine::{EventSourceMapping, FailureNames};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::MappingContext;
use crate::destination::Destination;
use crate::handler::DynHandler;
use crate::keeper::KeeperOptions;
use crate::metrics;
use crate::pin::Pin;
use crate::run::{Run, RunError, RunReport};
use crate::source::StreamSource;
use crate::status::ConsumerStatus;
use crate::stream::StreamContext;
use crate::trouble::Troubles;
use crate::unread::Unread;
use crate::worker::Worker;

/// Runs an event source mapping: reads every shard that this worker gets a lease for, and hands batches to the handler.
///
/// Workers that use one lease store share the stream's shards; each shard has one owner at a time. The [crate's page](crate) has
/// a whole example, and says what numbers such as I16 stand for.
pub struct Consumer {
    pub(crate) mapping: Arc<EventSourceMapping>,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) destination: Option<Arc<dyn Destination>>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) discovery_interval: Duration,
    pub(crate) status: ConsumerStatus,
    pub(crate) troubles: Arc<Troubles>,
    /// LATEST begins when the consumer is built, even if its run has to wait first.
    pub(crate) pin: Pin,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("mapping", &self.mapping).finish_non_exhaustive()
    }
}

impl Consumer {
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
        let (leases, grants) = self.worker.keeper.register(KeeperOptions {
            store: self.store,
            worker: self.worker.id.clone(),
            process: self.worker.process.clone(),
            times: self.worker.times,
            listing_interval: self.worker.listing_interval,
            slots: Arc::clone(&self.worker.slots),
            clock: self.worker.clock(),
            mapping: Arc::clone(&name),
            about: self.worker.about(),
        });
        self.status.watch(Arc::clone(leases.board()));
        let names = FailureNames::of(&self.mapping);
        let clock = self.source.clock().unwrap_or_else(|| self.worker.clock());
        let stream = StreamContext::new(self.mapping.event_source().clone(), self.source, clock, self.pin);
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
            stream,
            places,
            handler,
            destination: self.destination,
            worker: self.worker.id.clone(),
            leases,
            stop_timeout: self.worker.stop_timeout,
            stopping_gap: watch::Sender::new(None),
            troubles: self.troubles,
        };
        Run::new(Arc::new(cx), grants, self.worker, self.status, self.discovery_interval)
            .until(shutdown)
            .await
    }
}
