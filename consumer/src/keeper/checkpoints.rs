//! Checkpoints: those that are ordered at about the same time share a call, so that a store can commit them together.

use std::collections::BTreeMap;
use std::time::Duration;

use shardmill_engine::Mono;

use super::ticket::EntryId;

/// The least time between two calls that store checkpoints. Every shard's checkpoint that comes meanwhile joins the
/// next one: a store in memory would otherwise be called for every batch, and each call costs two thread switches. A
/// durable commit takes about as long.
const SPACING: Duration = Duration::from_millis(5);

/// Orders of checkpoints; one call at a time.
#[derive(Debug)]
pub(super) struct Checkpoints<Order> {
    ready: Vec<Order>,
    /// Orders that wait until the write that is using their lease's counter has ended.
    blocked: BTreeMap<EntryId, Vec<Order>>,
    /// No call before this.
    not_before: Mono,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Idle,
    UnderWay,
}

impl<Order> Checkpoints<Order> {
    pub(super) fn new() -> Self {
        Self { ready: Vec::new(), blocked: BTreeMap::new(), not_before: Mono::default(), state: State::Idle }
    }

    pub(super) fn ask(&mut self, order: Order) {
        self.ready.push(order);
    }

    /// What to store now; empty while a call is under way or too close to the last one.
    pub(super) fn take(&mut self, now: Mono) -> Vec<Order> {
        if self.wakes_at().is_some_and(|at| at <= now) { std::mem::take(&mut self.ready) } else { Vec::new() }
    }

    /// The lease's counter is in use: the order waits for [`unblock`](Self::unblock).
    pub(super) fn block(&mut self, entry: EntryId, order: Order) {
        self.blocked.entry(entry).or_default().push(order);
    }

    /// Something happened to the lease: its orders are retried.
    pub(super) fn unblock(&mut self, entry: EntryId) {
        if let Some(orders) = self.blocked.remove(&entry) {
            self.ready.extend(orders);
        }
    }

    pub(super) fn sent(&mut self, now: Mono) {
        self.state = State::UnderWay;
        self.not_before = now + SPACING;
    }

    pub(super) fn ended(&mut self) {
        self.state = State::Idle;
    }

    /// When [`take`](Self::take) may return more than now.
    pub(super) fn wakes_at(&self) -> Option<Mono> {
        (self.state == State::Idle && !self.ready.is_empty()).then_some(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    #[test]
    fn orders_that_come_during_a_call_share_the_next_one() {
        let mut checkpoints = Checkpoints::new();
        assert_eq!(checkpoints.wakes_at(), None);
        checkpoints.ask("a");
        assert_eq!(checkpoints.take(at(0)), ["a"]);
        checkpoints.sent(at(0));
        checkpoints.ask("b");
        checkpoints.ask("c");
        assert_eq!(checkpoints.wakes_at(), None, "the call's end wakes");
        assert!(checkpoints.take(at(1000)).is_empty());
        checkpoints.ended();
        assert_eq!(checkpoints.take(at(1000)), ["b", "c"]);
    }

    #[test]
    fn a_fast_store_is_called_no_more_often_than_the_spacing() {
        let mut checkpoints = Checkpoints::new();
        checkpoints.ask("a");
        assert_eq!(checkpoints.take(at(10)), ["a"]);
        checkpoints.sent(at(10));
        checkpoints.ended();
        checkpoints.ask("b");
        assert_eq!(checkpoints.wakes_at(), Some(at(15)));
        assert!(checkpoints.take(at(14)).is_empty());
        assert_eq!(checkpoints.take(at(15)), ["b"]);
    }

    #[test]
    fn an_order_whose_lease_is_being_written_wakes_nobody_until_that_has_ended() {
        let [a, b, _] = EntryId::examples();
        let mut checkpoints = Checkpoints::new();
        checkpoints.block(a, "a");
        checkpoints.block(b, "b");
        assert_eq!(checkpoints.wakes_at(), None);
        assert!(checkpoints.take(at(1000)).is_empty());
        checkpoints.unblock(a);
        assert_eq!(checkpoints.take(at(1000)), ["a"]);
        checkpoints.unblock(a);
        assert_eq!(checkpoints.wakes_at(), None);
    }
}
