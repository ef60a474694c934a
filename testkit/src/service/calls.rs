//! The log of calls that reached the fake.

use super::Operation;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// One call that reached the fake.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// What was called.
    pub operation: Operation,
    /// The shard, where the call's parameters show it (see [`FaultRule::shard`](super::FaultRule::shard)).
    pub shard: Option<String>,
    /// When it arrived, by tokio's clock (so virtual under paused time).
    pub at: Instant,
    /// When it was answered or abandoned by the caller; `None` while it is under way.
    pub ended: Option<Instant>,
    /// The HTTP status of the answer; `None` if there was none (yet).
    pub status: Option<u16>,
    /// The error code of the answer.
    pub error: Option<String>,
}

/// Calls in the order of their arrival. A snapshot: it does not grow.
#[derive(Debug, Clone, Default)]
pub struct Calls(Vec<Call>);

impl Calls {
    /// Only those of one operation.
    #[must_use]
    pub fn of(&self, operation: Operation) -> Self {
        Self(self.0.iter().filter(|c| c.operation == operation).cloned().collect())
    }

    /// Only those about one shard.
    #[must_use]
    pub fn shard(&self, id: &str) -> Self {
        Self(self.0.iter().filter(|c| c.shard.as_deref() == Some(id)).cloned().collect())
    }

    /// Only those that arrived at this time or later.
    #[must_use]
    pub fn since(&self, start: Instant) -> Self {
        Self(self.0.iter().filter(|c| c.at >= start).cloned().collect())
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Call> {
        self.0.iter()
    }

    /// The most calls that arrived within any stretch of this length (its end excluded). A client that keeps to 5 calls a
    /// second has `max_within(1 s) <= 5`.
    #[must_use]
    pub fn max_within(&self, length: Duration) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (last, call) in self.0.iter().enumerate() {
            while call.at.duration_since(self.0[first].at) >= length && first < last {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        if length.is_zero() { 0 } else { most }
    }

    /// The most calls that were under way at the same time.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        let mut edges: Vec<(Instant, i8)> = self.0.iter().map(|c| (c.at, 1)).collect();
        edges.extend(self.0.iter().filter_map(|c| c.ended).map(|end| (end, -1)));
        // At the same time, ends come before beginnings.
        edges.sort_unstable();
        let (mut now, mut most) = (0_usize, 0);
        for (_, edge) in edges {
            now = now.saturating_add_signed(edge.into());
            most = most.max(now);
        }
        most
    }
}

impl<'a> IntoIterator for &'a Calls {
    type Item = &'a Call;
    type IntoIter = std::slice::Iter<'a, Call>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[derive(Debug)]
struct State {
    calls: VecDeque<Call>,
    /// Calls that were forgotten: a call's number less this is its place.
    forgotten: u64,
    /// At most so many are kept.
    keep: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { calls: VecDeque::new(), forgotten: 0, keep: usize::MAX }
    }
}

impl State {
    fn forget(&mut self, calls: usize) {
        self.calls.drain(..calls);
        self.forgotten += calls as u64;
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct CallLog(Arc<Mutex<State>>);

impl CallLog {
    pub(crate) fn begin(&self, operation: Operation, shard: Option<String>) -> OpenCall {
        let mut state = self.lock();
        let at = Instant::now();
        state.calls.push_back(Call { operation, shard, at, ended: None, status: None, error: None });
        let number = state.forgotten + state.calls.len() as u64 - 1;
        let surplus = state.calls.len().saturating_sub(state.keep);
        state.forget(surplus);
        OpenCall { log: self.clone(), number }
    }

    pub(crate) fn snapshot(&self) -> Calls {
        Calls(self.lock().calls.iter().cloned().collect())
    }

    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        let all = state.calls.len();
        state.forget(all);
    }

    /// From now on only the last so many calls are kept.
    pub(crate) fn keep(&self, calls: usize) {
        let mut state = self.lock();
        state.keep = calls;
        let surplus = state.calls.len().saturating_sub(calls);
        state.forget(surplus);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// A call under way; dropping it notes its end, also when the caller abandons it.
#[derive(Debug)]
pub(crate) struct OpenCall {
    log: CallLog,
    number: u64,
}

impl OpenCall {
    fn edit(&self, change: impl FnOnce(&mut Call)) {
        let mut state = self.log.lock();
        // A call that was forgotten meanwhile has no place any more.
        let place = self.number.checked_sub(state.forgotten).and_then(|place| usize::try_from(place).ok());
        if let Some(call) = place.and_then(|place| state.calls.get_mut(place)) {
            change(call);
        }
    }

    pub(crate) fn answered(&self, status: u16, error: Option<&str>) {
        self.edit(|call| {
            call.status = Some(status);
            call.error = error.map(Into::into);
        });
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.edit(|call| call.ended = Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_busiest_second_and_the_most_calls_in_flight_are_found() {
        let log = CallLog::default();
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(log.begin(Operation::GetRecords, Some("a".into())));
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        drop(open);
        let _sixth = log.begin(Operation::GetRecords, Some("b".into()));
        let calls = log.snapshot();
        assert_eq!(calls.max_within(Duration::from_secs(1)), 5);
        assert_eq!(calls.max_within(Duration::from_millis(1_001)), 6);
        assert_eq!(calls.max_in_flight(), 5);
        assert_eq!(calls.shard("b").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_keeps_the_last_calls_notes_the_end_of_those_that_it_still_has() {
        let log = CallLog::default();
        let open: Vec<_> =
            ["a", "b", "c"].map(|shard| log.begin(Operation::GetRecords, Some(shard.into()))).into();
        log.keep(2);
        open.iter().for_each(|call| call.answered(200, None));
        let _late = log.begin(Operation::GetRecords, Some("d".into()));
        drop(open);
        let kept: Vec<_> =
            log.snapshot().iter().map(|c| (c.shard.clone().unwrap(), c.status, c.ended.is_some())).collect();
        assert_eq!(kept, [("c".into(), Some(200), true), ("d".into(), None, false)]);
        log.clear();
        assert!(log.snapshot().is_empty());
    }
}
