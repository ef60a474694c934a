//! What the consumer hands to its source.

use std::sync::Arc;

use super::ReadLimiter;
use crate::clock::ServiceClock;

/// What a worker shares with the sources of its consumers: the clock and the pace of reads.
///
/// [`ConsumerBuilder::build`](crate::ConsumerBuilder::build) hands it to [`StreamSource::attach`](crate::StreamSource::attach).
/// [`Default`] is the context of a source that is used without a consumer: the host's clock, and the pace that the
/// service prescribes for each shard.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceContext {
    clock: ServiceClock,
    limiter: ReadLimiter,
    /// Tells workers from each other.
    pub(super) worker: Arc<()>,
}

impl SourceContext {
    /// The context of a worker that is no other's, for tests of sources.
    #[must_use]
    pub fn new(clock: ServiceClock, limiter: ReadLimiter) -> Self {
        Self { clock, limiter, worker: Arc::default() }
    }

    /// The host's clock. A source that learns its service's time uses the [endpoint's](ServiceClock::for_endpoint)
    /// clock of it.
    #[must_use]
    pub const fn clock(&self) -> &ServiceClock {
        &self.clock
    }

    /// The pace of reads, which all sources of the worker share (I12).
    #[must_use]
    pub const fn limiter(&self) -> &ReadLimiter {
        &self.limiter
    }
}
