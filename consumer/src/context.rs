//! What the shards of one mapping share.

use std::sync::Arc;
use std::time::Duration;

use shardmill_engine::{EventSourceMapping, Gap, ShardId};
use tokio::sync::{Notify, watch};

use crate::clock::ServiceClock;
use crate::destination::{Destination, FailureNames};
use crate::handler::DynHandler;
use crate::keeper::Leases;
use crate::listed::Listed;
use crate::pin::Pin;
use crate::places::Places;
use crate::source::StreamSource;
use crate::trouble::Troubles;

/// What the shards of one mapping share.
pub(crate) struct MappingContext {
    pub(crate) mapping: Arc<EventSourceMapping>,
    /// The `mapping` label of metrics.
    pub(crate) name: Arc<str>,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) places: Places,
    pub(crate) destination: Option<Arc<dyn Destination>>,
    pub(crate) names: Arc<FailureNames>,
    pub(crate) function_arn: Arc<str>,
    pub(crate) clock: ServiceClock,
    pub(crate) leases: Leases,
    pub(crate) listed: Listed,
    /// How long running invocations may continue once a shard is to stop.
    pub(crate) stop_timeout: Duration,
    /// Where LATEST begins.
    pub(crate) pin: Pin,
    /// A shard's gap after which the mapping is to stop.
    pub(crate) stopping_gap: watch::Sender<Option<(ShardId, Gap)>>,
    /// Asks for a listing before its time.
    pub(crate) list_now: Notify,
    /// What is told of failures, over all shards.
    pub(crate) troubles: Arc<Troubles>,
}
