//! Discarded batches, until their destination has them.

use std::collections::VecDeque;
use std::ops::Range;

use crate::failure::FailedBatch;
use crate::mapping::Retry;
use crate::record::Record;
use crate::time::Mono;

/// Undelivered discards of one shard before the shard waits (spec: `OnDestinationFailure`).
const MOST_UNDELIVERED: usize = 10;

/// Names a discard of a shard's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscardId(u64);

/// A discarded batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Discard {
    pub(super) failed: FailedBatch,
    /// It was the final call of a tumbling window: the ordinals of the window's records, before which the checkpoint
    /// waits.
    pub(super) closes: Option<Range<u64>>,
}

/// Delivers one after the other, so that dead letters keep the shard's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Discards {
    waiting: VecDeque<Discard>,
    /// The id of the front of `waiting`.
    front: u64,
    in_flight: bool,
    failures: u32,
    not_before: Mono,
}

impl Discards {
    pub(super) fn push(&mut self, discard: Discard) {
        self.waiting.push_back(discard);
    }

    /// The discard to deliver now, if any; marks it as under way. `only_first_tries`: no retry is started.
    pub(super) fn take_delivery(
        &mut self,
        now: Mono,
        only_first_tries: bool,
    ) -> Option<(DiscardId, FailedBatch)> {
        if self.wakes_at(only_first_tries)? > now {
            return None;
        }
        self.in_flight = true;
        self.waiting.front().map(|discard| (DiscardId(self.front), discard.failed.clone()))
    }

    /// When [`take_delivery`](Self::take_delivery) may return more than now.
    pub(super) fn wakes_at(&self, only_first_tries: bool) -> Option<Mono> {
        let idle = self.in_flight || self.waiting.is_empty() || (only_first_tries && self.failures > 0);
        (!idle).then_some(self.not_before)
    }

    /// Removes the discard that was under way.
    pub(super) fn settle(&mut self, id: DiscardId) -> Option<Discard> {
        if !self.awaits(id) {
            return None;
        }
        self.in_flight = false;
        self.failures = 0;
        self.not_before = Mono::default();
        self.front += 1;
        self.waiting.pop_front()
    }

    /// The discard that was under way is retried after a backoff.
    pub(super) fn failed(&mut self, now: Mono, retry: &Retry, rng: &mut fastrand::Rng) {
        self.in_flight = false;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + retry.delay(self.failures, rng);
        if let Some(discard) = self.waiting.front_mut() {
            discard.failed.batch.forget_event();
        }
    }

    /// Bytes that are freed only once their destination has them.
    pub(super) fn held(&self) -> usize {
        let mut last = None;
        let bytes = |discard: &Discard| {
            // Batches of one window share its state, unless the function changed it in between.
            let state = discard.failed.window.as_ref().map(|window| &window.state);
            let at = state.map(|state| state.as_ptr());
            let is_new = std::mem::replace(&mut last, at) != at;
            let state = state.filter(|_| is_new).map_or(0, |state| state.len());
            discard.failed.batch.page().bytes() + discard.failed.batch.event_bytes() + state
        };
        self.waiting.iter().map(bytes).sum()
    }

    /// Whether the delivery of this discard is under way.
    pub(super) fn awaits(&self, id: DiscardId) -> bool {
        self.in_flight && id.0 == self.front
    }

    pub(super) fn abandon(&mut self) {
        self.in_flight = false;
    }

    pub(super) const fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// The first records of the batches that wait.
    pub(super) fn oldest(&self) -> impl Iterator<Item = &Record> {
        self.waiting.iter().filter_map(|discard| discard.failed.batch.first())
    }

    pub(super) fn undelivered(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the shard must wait until a delivery succeeds.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_UNDELIVERED
    }
}
