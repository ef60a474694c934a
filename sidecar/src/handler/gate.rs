//! The time of an invocation.

use tokio::time::Instant;

/// What an invocation still has to wait for before the function's own time begins.
///
/// The function is promised `Function.Timeout`, but the invocation's deadline runs from the moment its place was granted:
/// one whose process is still starting after a tenth of its time is given back as not reached, as a throttled one is (R23).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// When the invocation must have begun.
    pub(crate) start_by: Instant,
    /// When the function times out.
    pub(crate) deadline: Instant,
}

impl Schedule {
    pub(crate) fn new(deadline: Instant) -> Self {
        let now = Instant::now();
        let budget = deadline.saturating_duration_since(now);
        Self { start_by: now + budget / 10, deadline }
    }

    /// The deadline in milliseconds since 1970, for programs that have no part in our clock.
    pub(crate) fn deadline_epoch_millis(&self) -> u128 {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        (since_epoch.unwrap_or_default() + remaining).as_millis()
    }
}
