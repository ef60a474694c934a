//! How many invocations run at once.

use std::sync::Arc;
use std::time::Duration;

use shardmill::HandlerError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What an invocation still has to wait for before the function's own time begins.
///
/// The function is promised `Function.Timeout`, but the invocation's deadline runs from the moment it was issued: one
/// that could not begin within a tenth of its time is given back as not reached, as a throttled one is (R23).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// When the invocation must have begun.
    pub(crate) start_by: Instant,
    /// When the function is given up.
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

/// `Function.MaximumConcurrency`.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Option<Arc<Semaphore>>,
}

/// The right to run one invocation.
#[derive(Debug)]
pub(crate) struct Permit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// `None`: as many as there are.
    pub(crate) fn new(maximum: Option<usize>) -> Self {
        let permits = maximum.map(|n| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS))));
        Self { permits }
    }

    pub(crate) async fn enter(&self, schedule: Schedule) -> Result<Permit, HandlerError> {
        let Some(permits) = &self.permits else { return Ok(Permit { _permit: None }) };
        match tokio::time::timeout_at(schedule.start_by, Arc::clone(permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit { _permit: Some(permit) }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(HandlerError::NotReached {
                reason: "all of Function.MaximumConcurrency is in use".into(),
                retry_after: Some(Duration::ZERO),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn r23_an_invocation_that_finds_no_free_place_is_not_reached_and_leaves_the_function_its_time() {
        let gate = Gate::new(Some(1));
        let held = gate.enter(Schedule::new(Instant::now() + Duration::from_secs(60))).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let refused = gate.enter(Schedule::new(deadline)).await;
        assert!(matches!(refused, Err(HandlerError::NotReached { .. })));
        assert_eq!(deadline - Instant::now(), Duration::from_secs(54));
        drop(held);
        assert!(gate.enter(Schedule::new(deadline)).await.is_ok());
    }
}
