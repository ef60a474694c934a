//! What the shards of one mapping share.

use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::WorkerId;
use shardmill_engine::{EventSourceMapping, Gap, ShardId};
use tokio::sync::watch;

use crate::destination::{Destination, FailureNames};
use crate::handler::DynHandler;
use crate::keeper::Leases;
use crate::places::Places;
use crate::stream::StreamContext;
use crate::trouble::Troubles;

/// What the shards of one mapping share.
pub(crate) struct MappingContext {
    pub(crate) mapping: Arc<EventSourceMapping>,
    /// The name under which this worker owns leases.
    pub(crate) worker: WorkerId,
    /// The `mapping` label of metrics.
    pub(crate) name: Arc<str>,
    /// The stream that it reads.
    pub(crate) stream: StreamContext,
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) places: Places,
    pub(crate) destination: Option<Arc<dyn Destination>>,
    pub(crate) names: Arc<FailureNames>,
    pub(crate) function_arn: Arc<str>,
    pub(crate) leases: Leases,
    /// How long running invocations may continue once a shard is to stop.
    pub(crate) stop_timeout: Duration,
    /// A shard's gap after which the mapping is to stop.
    pub(crate) stopping_gap: watch::Sender<Option<(ShardId, Gap)>>,
    /// What is told of failures, over all shards.
    pub(crate) troubles: Arc<Troubles>,
}
