//! What the shards of one stream share.

use std::sync::Arc;

use shardmill_engine::{EventSource, LeaseKey, ShardId};
use tokio::sync::Notify;

use crate::clock::ServiceClock;
use crate::listed::Listed;
use crate::pin::Pin;
use crate::source::StreamSource;

/// What the shards of one stream share: how it is read, what time it is there, what its listings showed. Shards of two
/// streams may have the same id.
pub(crate) struct StreamContext {
    pub(crate) event_source: EventSource,
    pub(crate) source: Arc<dyn StreamSource>,
    /// The time by the stream's service.
    pub(crate) clock: ServiceClock,
    pub(crate) listed: Listed,
    /// Where LATEST begins.
    pub(crate) pin: Pin,
    /// Asks for a listing before its time.
    pub(crate) list_now: Notify,
}

impl StreamContext {
    pub(crate) fn new(
        event_source: EventSource,
        source: Arc<dyn StreamSource>,
        clock: ServiceClock,
        pin: Pin,
    ) -> Self {
        Self { event_source, source, clock, listed: Listed::default(), pin, list_now: Notify::new() }
    }

    /// What the leases of this stream's shards have in common; `epoch` tells it from an earlier stream of its name.
    pub(crate) fn key(&self, epoch: &str) -> LeaseKey {
        let EventSource { arn, stream, .. } = &self.event_source;
        LeaseKey {
            account: arn.account().into(),
            region: arn.region().into(),
            stream: stream.as_str().into(),
            epoch: epoch.into(),
            shard: ShardId::new(""),
        }
    }
}
