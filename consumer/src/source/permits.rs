//! Which stream's call goes next when only so many may be in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Half of the permits are divided evenly among the sources and kept for them; the other half goes to any source that asks.
const KEPT: usize = 2;

/// A bound on calls in flight, shared by sources.
///
/// Calls of one source go in the order in which they came. Among sources the one with the fewest calls in flight goes
/// first, and each has some permits that no other can take, so that calls that hang at one endpoint block no other.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    free: usize,
    sources: BTreeMap<u64, Line>,
    last_source: u64,
    last_ticket: u64,
}

/// The calls of one source.
#[derive(Debug, Default)]
struct Line {
    in_flight: usize,
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

/// One source's part of the permits.
#[derive(Debug)]
pub(super) struct Party {
    permits: Arc<Permits>,
    source: u64,
}

/// A call may be in flight.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    source: u64,
}

impl Permits {
    pub(super) fn new(total: usize) -> Arc<Self> {
        let total = total.max(1);
        Arc::new(Self { state: Mutex::new(State { total, free: total, ..State::default() }) })
    }

    /// Another source takes part.
    pub(super) fn join(self: &Arc<Self>) -> Arc<Party> {
        let mut state = self.state();
        state.last_source += 1;
        let source = state.last_source;
        state.sources.insert(source, Line::default());
        Arc::new(Party { permits: Arc::clone(self), source })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Permits that are kept for each source.
    fn kept(&self) -> usize {
        match self.sources.len() {
            0 | 1 => 0,
            sources if sources <= self.total => (self.total / KEPT / sources).max(1),
            _ => 0,
        }
    }

    /// Whether a call of this source may begin.
    fn permits(&self, source: u64) -> bool {
        let kept = self.kept();
        let Some(own) = self.sources.get(&source) else { return false };
        if kept == 0 && self.sources.len() > 1 && self.total > 1 {
            // Too many sources to keep a permit for each: one stays free for those that have none.
            return self.free > usize::from(own.in_flight > 0);
        }
        if self.free == 0 || own.in_flight < kept {
            return self.free > 0;
        }
        let others = self.sources.iter().filter(|(other, _)| **other != source);
        let for_others: usize = others.map(|(_, line)| kept.saturating_sub(line.in_flight)).sum();
        self.free > for_others
    }

    fn begin(&mut self, source: u64) {
        self.free -= 1;
        if let Some(line) = self.sources.get_mut(&source) {
            line.in_flight += 1;
        }
    }

    /// The source whose call goes next: of those that may, the one with the fewest in flight, then the one that waits
    /// longest.
    fn next(&self) -> Option<u64> {
        let waiting = self.sources.iter().filter_map(|(source, line)| {
            let (ticket, _) = line.waiting.front()?;
            Some((line.in_flight, *ticket, *source))
        });
        waiting.filter(|(_, _, source)| self.permits(*source)).min().map(|(_, _, source)| source)
    }
}

impl Permits {
    fn take(self: &Arc<Self>, state: &mut State, source: u64) -> Option<Permit> {
        let is_first = state.sources.get(&source).is_none_or(|line| line.waiting.is_empty());
        (is_first && state.permits(source)).then(|| {
            state.begin(source);
            Permit { permits: Arc::clone(self), source }
        })
    }

    fn enter(self: &Arc<Self>, source: u64) -> Result<Permit, Place> {
        let mut state = self.state();
        if let Some(permit) = self.take(&mut state, source) {
            return Ok(permit);
        }
        let (granted, permit) = oneshot::channel();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        if let Some(line) = state.sources.get_mut(&source) {
            line.waiting.push_back((ticket, granted));
        }
        Err(Place { permits: Arc::clone(self), source, ticket, permit })
    }

    /// Lets calls begin that may.
    fn serve(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        // Permits that nobody waits for any more are given back without the lock.
        let mut unwanted = Vec::new();
        while let Some(source) = state.next() {
            let front = state.sources.get_mut(&source).and_then(|line| line.waiting.pop_front());
            let Some((_, granted)) = front else { break };
            state.begin(source);
            let permit = Permit { permits: Arc::clone(self), source };
            unwanted.extend(granted.send(permit).err());
        }
        drop(state);
        drop(unwanted);
    }
}

impl Party {
    /// A permit if one is free now.
    pub(super) fn try_acquire(&self) -> Option<Permit> {
        let mut state = self.permits.state();
        self.permits.take(&mut state, self.source)
    }

    /// Waits until a call may begin. Dropping the future leaves the line.
    pub(super) async fn acquire(&self) -> Permit {
        loop {
            let mut place = match self.permits.enter(self.source) {
                Ok(permit) => return permit,
                Err(place) => place,
            };
            if let Ok(permit) = (&mut place.permit).await {
                return permit;
            }
        }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        // Its calls in flight give their permits back all the same.
        let line = state.sources.remove(&self.source);
        self.permits.serve(state);
        drop(line);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        state.free += 1;
        if let Some(line) = state.sources.get_mut(&self.source) {
            line.in_flight -= 1;
        }
        self.permits.serve(state);
    }
}

/// A call's place in its source's line; dropping it leaves the line.
#[derive(Debug)]
struct Place {
    permits: Arc<Permits>,
    source: u64,
    ticket: u64,
    permit: oneshot::Receiver<Permit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        let Some(line) = state.sources.get_mut(&self.source) else { return };
        // Tickets only grow. One that was granted stands there no more.
        if let Ok(at) = line.waiting.binary_search_by_key(&self.ticket, |(ticket, _)| *ticket) {
            line.waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn take(party: &Party, most: usize) -> Vec<Permit> {
        std::iter::from_fn(|| party.acquire().now_or_never()).take(most).collect()
    }

    #[test]
    fn incident_82_calls_of_one_source_that_hang_leave_permits_for_every_other() {
        let permits = Permits::new(16);
        let hanging = permits.join();
        assert_eq!(take(&hanging, 40).len(), 16, "a source that is alone has all of them");
        let [healthy, other] = [permits.join(), permits.join()];
        let mut hung = take(&hanging, 40);
        assert_eq!((hung.len(), take(&healthy, 40).len(), take(&other, 40).len()), (12, 2, 2));
        let held = take(&healthy, 40);
        hung.truncate(8);
        assert_eq!(take(&other, 40).len(), 6, "and what is not kept for anybody");
        drop((held, healthy, other));
        assert_eq!(take(&hanging, 40).len(), 8, "alone again");
    }

    #[test]
    fn incident_82_the_source_with_the_fewest_calls_in_flight_goes_first_and_its_calls_in_their_order() {
        let permits = Permits::new(8);
        let [many, few] = [permits.join(), permits.join()];
        let mut held = take(&many, 40);
        assert_eq!(held.len(), 6);
        let own = take(&few, 40);
        assert_eq!(own.len(), 2);
        let mut of_many = [Box::pin(many.acquire()), Box::pin(many.acquire())];
        assert!(of_many.iter_mut().all(|call| call.now_or_never().is_none()));
        let mut of_few = [Box::pin(few.acquire()), Box::pin(few.acquire())];
        assert!(of_few.iter_mut().all(|call| call.now_or_never().is_none()));
        held.truncate(5);
        let [first, second] = &mut of_few;
        assert!(second.as_mut().now_or_never().is_none());
        let permit = first.as_mut().now_or_never();
        assert!(permit.is_some(), "it came later, but has two in flight and the other five");
        held.truncate(4);
        assert!(second.as_mut().now_or_never().is_some());
        let [first, second] = of_many;
        drop(first);
        assert!(second.now_or_never().is_some(), "a call that gives up leaves the line");
    }

    #[test]
    fn incident_82_of_more_sources_than_permits_none_takes_the_last_one_beside_another_call_of_its_own() {
        let permits = Permits::new(2);
        let parties: Vec<_> = (0..5).map(|_| permits.join()).collect();
        let held = take(&parties[0], 5);
        assert_eq!(held.len(), 1, "it hangs, and the others go on");
        let other = take(&parties[1], 5);
        assert_eq!((other.len(), take(&parties[2], 5).len()), (1, 0));
        drop(other);
        assert_eq!(take(&parties[4], 5).len(), 1);
        drop(held);
        let alone = Permits::new(1);
        let parties: Vec<_> = (0..2).map(|_| alone.join()).collect();
        assert_eq!(take(&parties[1], 5).len(), 1, "with a single permit there is nothing to keep");
    }
}
