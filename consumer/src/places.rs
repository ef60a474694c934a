//! How many invocations of a function run at once, and in which order those that wait get their turn.

use std::sync::Arc;

use shardmill_engine::PlaceRule;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::reach::{Change, Reach};

/// The places for invocations of one function: `Function.MaximumConcurrency`.
///
/// Places are granted in the order in which they were asked for, over all shards, lanes and consumers that share the
/// value or a clone of it, so that each of them gets its turn. Waiting for a place is no failed try: it spends no
/// attempt, it has no backoff, and the invocation's time begins when the place is granted.
///
/// While the function cannot be reached, one invocation a second tries it, regardless of the number of shards; the
/// first one that gets an answer lets all others proceed at once. Consumers that share places share that knowledge.
#[derive(Clone, Debug)]
pub struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Fair: first come, first served.
    permits: Option<Arc<Semaphore>>,
    maximum: Option<usize>,
    reach: Reach,
}

/// The right to run one invocation, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// At most so many invocations at once, at least 1.
    #[must_use]
    pub fn new(maximum: usize) -> Self {
        Self::with(Some(maximum.clamp(1, Semaphore::MAX_PERMITS)))
    }

    /// As many invocations at once as there are batches.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::with(None)
    }

    fn with(maximum: Option<usize>) -> Self {
        let permits = maximum.map(|n| Arc::new(Semaphore::new(n)));
        Self { shared: Arc::new(Shared { permits, maximum, reach: Reach::new() }) }
    }

    /// How many invocations may run at once; `None`: any number.
    #[must_use]
    pub fn maximum(&self) -> Option<usize> {
        self.shared.maximum
    }

    /// How many places are taken now, by invocations or by what waits for the next attempt to reach the function; 0
    /// without a maximum.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let free = self.shared.permits.as_ref().map_or(0, |permits| permits.available_permits());
        self.shared.maximum.unwrap_or(0).saturating_sub(free)
    }

    /// Watches whether the function cannot be reached: `true` while every shard fails to reach it.
    #[must_use]
    pub fn watch_away(&self) -> watch::Receiver<bool> {
        self.shared.reach.watch()
    }

    /// What a shard's machine has to know.
    pub(crate) fn rule(&self) -> PlaceRule {
        match self.shared.maximum {
            _ if self.shared.reach.is_away() => PlaceRule::Away,
            Some(_) => PlaceRule::Limited,
            None => PlaceRule::Unlimited,
        }
    }

    /// Waits for a place. The longest waiter is first, also for the next attempt to reach a function that is away.
    pub(crate) async fn place(&self) -> Place {
        let permit = match &self.shared.permits {
            // The semaphore is never closed.
            Some(permits) => Arc::clone(permits).acquire_owned().await.ok(),
            None => None,
        };
        self.shared.reach.admitted().await;
        Place { _permit: permit }
    }

    /// A place was given back for which there was nothing left to invoke.
    pub(crate) fn unused(&self) {
        self.shared.reach.unused();
    }

    /// Notes how an invocation ended that began at `started`.
    pub(crate) fn note(&self, started: Instant, reached: Reached) -> Option<Change> {
        match reached {
            Reached::No => self.shared.reach.missed(),
            Reached::Perhaps => None,
            Reached::Yes => self.shared.reach.answered(started),
        }
    }
}

/// Whether an invocation reached the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    /// Nobody was there.
    No,
    /// The function is there and asked for time, or nobody tried to reach it.
    Perhaps,
}

#[cfg(test)]
mod tests {

    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn incident_72_places_are_granted_in_the_order_in_which_they_were_asked_for() {
        let places = Places::new(1);
        let other = places.clone();
        let first = places.place().await;
        let mut second = Box::pin(other.place());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        assert!(places.place().now_or_never().is_none(), "first come, first served");
        let second = second.now_or_never().unwrap();
        assert_eq!(places.in_use(), 1);
        drop(second);
        assert_eq!(places.in_use(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_nobody_waits_for_any_more_goes_to_the_next() {
        let places = Places::new(1);
        let held = places.place().await;
        let mut gone = Box::pin(places.place());
        let mut next = Box::pin(places.place());
        assert!((&mut gone).now_or_never().is_none() && (&mut next).now_or_never().is_none());
        drop(held);
        drop(gone);
        assert!(next.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn r23_what_asks_to_be_left_alone_is_there() {
        let (limited, unlimited) = (Places::new(3), Places::unlimited());
        assert_eq!((limited.rule(), unlimited.rule()), (PlaceRule::Limited, PlaceRule::Unlimited));
        assert_eq!(limited.note(Instant::now(), Reached::Perhaps), None);
        assert_eq!(limited.rule(), PlaceRule::Limited);
        assert_eq!(limited.note(Instant::now(), Reached::No), Some(Change::Away));
        assert_eq!(limited.rule(), PlaceRule::Away);
        assert!(limited.note(Instant::now(), Reached::Yes).is_some());
        assert_eq!(limited.rule(), PlaceRule::Limited);
    }
}
