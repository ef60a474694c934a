//! Puts a consumer together, and refuses what it would have to ignore.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "aws")]
use aws_types::SdkConfig;
use shardmill_checkpoint::LeaseStore;
use shardmill_engine::EventSourceMapping;

use crate::consumer::Consumer;
use crate::destination::{Destination, DestinationError};
use crate::handler::{DynHandler, Handler};
use crate::pin::Pin;
use crate::source::{SourceError, StreamSource};
use crate::status::ConsumerStatus;
use crate::trouble::Troubles;
use crate::worker::{Worker, WorkerError, WorkerOptions};

/// The shortest permitted time between two listings of a stream.
const SHORTEST_DISCOVERY: Duration = Duration::from_millis(100);

/// Puts a [`Consumer`] together, in any order of calls; what is missing or contradictory is an error of
/// [`build`](Self::build).
///
/// ```
/// # use shardmill::checkpoint::MemoryStore;
/// # use shardmill::{Consumer, EventSourceMapping, Handler, StreamSource, Worker, WorkerOptions};
/// # fn build(source: impl StreamSource, handler: impl Handler) -> Result<Consumer, Box<dyn std::error::Error>> {
/// let mapping = EventSourceMapping::builder("arn:aws:kinesis:eu-west-1:123456789012:stream/orders", "orders").build()?;
/// let worker = Worker::start(WorkerOptions::default().id("worker-1"))?; // one for all consumers of the process
/// let consumer = Consumer::builder(mapping, source, handler)
///     .lease_store(MemoryStore::default()) // or SqliteStore, DynamoDbStore, KclStore
///     .worker(worker)
///     .build()?;
/// # Ok(consumer)
/// # }
/// ```
#[must_use]
pub struct ConsumerBuilder {
    mapping: EventSourceMapping,
    source: Arc<dyn StreamSource>,
    handler: Arc<dyn DynHandler>,
    on_failure: OnFailure,
    store: Option<Arc<dyn LeaseStore>>,
    worker: Option<Arc<Worker>>,
    discovery_interval: Duration,
}

/// Where discarded batches go.
enum OnFailure {
    Unset,
    Given(Arc<dyn Destination>),
    /// Where the mapping names one.
    #[cfg(feature = "aws")]
    AsMapped(Box<SdkConfig>),
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
    /// The mapping is disabled, so a run would do nothing (P3).
    #[error(
        "Enabled is false in the mapping {mapping}: a consumer of it would do nothing; call enabled(true), or build no \
         consumer for it"
    )]
    Disabled {
        /// The application's name.
        mapping: String,
    },
    /// The source reads another stream than the mapping's.
    #[error(
        "the source reads {source_arn}, but EventSourceArn of the mapping is {mapping_arn}; make the source with \
         mapping.event_source()"
    )]
    OtherStream {
        /// The source's value.
        source_arn: String,
        /// The mapping's value.
        mapping_arn: String,
    },
    /// There is no lease store.
    #[error(
        "no lease store: call lease_store() with a SqliteStore, or with a MemoryStore if checkpoints may be lost"
    )]
    NoLeaseStore,
    /// The mapping names an on-failure destination, to which nothing would be delivered.
    #[error(
        "the mapping names the on-failure destination {destination}, but the consumer has none; call on_failure_from() \
         with your SdkConfig to deliver there, or on_failure() with a destination of your own"
    )]
    NoDestination {
        /// The mapping's value.
        destination: String,
    },
    /// The on-failure destination that the mapping names cannot be used.
    #[error("the on-failure destination cannot be used: {0}")]
    Destination(#[from] DestinationError),
    /// The interval is shorter than permitted.
    #[error("discovery_interval is {0:?}; permitted: at least {SHORTEST_DISCOVERY:?}")]
    DiscoveryInterval(Duration),
    /// The source cannot work for this worker: it belongs to another one.
    #[error("{}", .0.message)]
    Source(SourceError),
    /// The worker that the consumer needs could not be started.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl Consumer {
    /// Starts to put a consumer together. A lease store is needed as well, and a destination if the mapping names one.
    pub fn builder(
        mapping: EventSourceMapping,
        source: impl StreamSource,
        handler: impl Handler,
    ) -> ConsumerBuilder {
        ConsumerBuilder {
            mapping,
            source: Arc::new(source),
            handler: Arc::new(handler),
            on_failure: OnFailure::Unset,
            store: None,
            worker: None,
            discovery_interval: Duration::from_secs(30),
        }
    }
}

impl ConsumerBuilder {
    /// Where positions and leases live, opened for this application.
    pub fn lease_store(mut self, store: impl LeaseStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Delivers discarded batches to a destination of the caller's choice, regardless of the mapping's own. A mapping
    /// that names no destination needs none: its discarded batches are then logged and counted as dropped (R76).
    pub fn on_failure(mut self, destination: impl Destination) -> Self {
        self.on_failure = OnFailure::Given(Arc::new(destination));
        self
    }

    /// Delivers discarded batches to the destination that the mapping names, with a client made from `config`. If the
    /// mapping names none, nothing changes.
    #[cfg(feature = "aws")]
    pub fn on_failure_from(mut self, config: &SdkConfig) -> Self {
        self.on_failure = OnFailure::AsMapped(Box::new(config.clone()));
        self
    }

    /// Shares a worker with the other consumers of the process; by default the consumer starts its own.
    pub fn worker(mut self, worker: Arc<Worker>) -> Self {
        self.worker = Some(worker);
        self
    }

    /// How often the stream is listed for shards that nothing else reveals: at least 100 ms, default 30 s.
    pub fn discovery_interval(mut self, interval: Duration) -> Self {
        self.discovery_interval = interval;
        self
    }

    /// Builds the consumer; nothing is read before [`Consumer::run`].
    ///
    /// # Errors
    /// A part is missing or cannot be used, or the mapping has a setting that the consumer would have to ignore:
    /// [`BuildError`] has the list.
    pub fn build(self) -> Result<Consumer, BuildError> {
        self.check()?;
        let destination = self.destination()?;
        let store = self.store.ok_or(BuildError::NoLeaseStore)?;
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
            destination,
            store,
            worker,
            discovery_interval: self.discovery_interval,
            status,
            troubles,
            pin,
        })
    }

    /// What the values say by themselves.
    fn check(&self) -> Result<(), BuildError> {
        let mapping = &self.mapping;
        if !mapping.enabled() {
            return Err(BuildError::Disabled { mapping: mapping.application_name().to_owned() });
        }
        let mapping_arn = mapping.event_source().arn.as_str();
        if let Some(source_arn) = self.source.stream_arn().filter(|arn| *arn != mapping_arn) {
            let (source_arn, mapping_arn) = (source_arn.to_owned(), mapping_arn.to_owned());
            return Err(BuildError::OtherStream { source_arn, mapping_arn });
        }
        match self.discovery_interval {
            interval if interval < SHORTEST_DISCOVERY => Err(BuildError::DiscoveryInterval(interval)),
            _ => Ok(()),
        }
    }

    fn destination(&self) -> Result<Option<Arc<dyn Destination>>, BuildError> {
        match (&self.on_failure, self.mapping.failure_destination()) {
            (OnFailure::Given(destination), _) => Ok(Some(Arc::clone(destination))),
            (OnFailure::Unset, Some(named)) => {
                Err(BuildError::NoDestination { destination: named.to_string() })
            }
            #[cfg(feature = "aws")]
            (OnFailure::AsMapped(config), Some(named)) => {
                Ok(Some(crate::destination::connect(named, config)?))
            }
            (_, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
