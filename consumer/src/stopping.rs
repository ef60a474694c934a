//! When the shards of a mapping are to stop.

use std::sync::{Arc, OnceLock};

use shardmill_engine::Mono;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Carries the deadline once the shards are to stop. Clones are the same signal.
///
/// Unlike those of a watch channel its waiters wake in the order in which they came, so that a simulation is repeatable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping {
    deadline: Arc<OnceLock<Mono>>,
    asked: CancellationToken,
}

impl Stopping {
    /// Asks all shards to stop by then. The first call counts.
    pub(crate) fn ask(&self, deadline: Mono) {
        self.deadline.get_or_init(|| deadline);
        self.asked.cancel();
    }

    /// When the shards must have stopped, once they are to stop.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.deadline.get().copied()
    }

    /// Waits until the shards are to stop.
    pub(crate) fn asked(&self) -> WaitForCancellationFuture<'_> {
        self.asked.cancelled()
    }
}
