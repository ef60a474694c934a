//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine: reaching it means that the condition is never met.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// Polls until there is a value.
///
/// # Panics
/// There is none after two minutes; `what` names what was waited for.
pub async fn until<T>(what: &str, poll: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, poll).await
}

/// Polls until there is a value.
///
/// # Panics
/// There is none within `limit`.
pub async fn until_within<T>(limit: Duration, what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
