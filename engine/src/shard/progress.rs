//! When the checkpoint is written: never past an unresolved record, one write at a time, coalesced (I2).

use std::time::Duration;

use crate::mapping::Retry;
use crate::position::Position;
use crate::time::Mono;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// What the store holds.
    stored: Position,
    /// What is being written.
    in_flight: Option<Position>,
    not_before: Mono,
    failures: u32,
}

impl Progress {
    pub(super) fn new(stored: Position) -> Self {
        Self { stored, in_flight: None, not_before: Mono::default(), failures: 0 }
    }

    /// What to write now, if anything; marks it as under way. `at_once`: does not wait for the interval.
    pub(super) fn take_checkpoint(
        &mut self,
        now: Mono,
        reached: Option<Position>,
        at_once: bool,
    ) -> Option<Position> {
        let upto = reached?;
        if self.wakes_at(Some(&upto), now, at_once)? > now {
            return None;
        }
        debug_assert!(self.stored.may_advance_to(&upto), "I2: {} to {upto}", self.stored);
        self.in_flight = Some(upto.clone());
        Some(upto)
    }

    /// When [`take_checkpoint`](Self::take_checkpoint) may say more than now.
    pub(super) fn wakes_at(&self, reached: Option<&Position>, now: Mono, at_once: bool) -> Option<Mono> {
        let due = self.in_flight.is_none() && reached.is_some_and(|upto| *upto != self.stored);
        // A failed write waits for its backoff even at the end.
        due.then_some(if at_once && self.failures == 0 { now } else { self.not_before })
    }

    pub(super) fn written(&mut self, now: Mono, interval: Duration) {
        if let Some(position) = self.in_flight.take() {
            self.stored = position;
            self.failures = 0;
            self.not_before = now + interval;
        }
    }

    pub(super) fn failed(&mut self, now: Mono, retry: &Retry, rng: &mut fastrand::Rng) {
        if self.in_flight.take().is_some() {
            self.failures = self.failures.saturating_add(1);
            self.not_before = now + retry.delay(self.failures, rng);
        }
    }

    pub(super) const fn stored(&self) -> &Position {
        &self.stored
    }

    pub(super) const fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}
