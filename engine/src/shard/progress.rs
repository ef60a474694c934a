//! When the checkpoint is written: never past an unresolved record, one write at a time, coalesced (I2).

use std::time::Duration;

use crate::mapping::Retry;
use crate::position::Position;
use crate::time::{Mono, Wall};

/// How old the stored time may grow up to which an idle shard was read.
const REFRESH_MILLIS: i64 = 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// What the store holds.
    stored: Position,
    /// Up to when the shard was read, as it was stored with it (I17).
    through: Option<Wall>,
    /// What is being written.
    in_flight: Option<(Position, Option<Wall>)>,
    not_before: Mono,
    failures: u32,
}

impl Progress {
    pub(super) fn new(stored: Position, through: Option<Wall>) -> Self {
        Self { stored, through, in_flight: None, not_before: Mono::default(), failures: 0 }
    }

    /// Whether `upto` is to be written now, with `through`; marks it as under way. `at_once`: does not wait for the
    /// interval.
    pub(super) fn take_checkpoint(
        &mut self,
        now: Mono,
        upto: Position,
        through: Option<Wall>,
        at_once: bool,
    ) -> Option<Position> {
        if self.wakes_at(Some(&upto), now, at_once)? > now {
            return None;
        }
        debug_assert!(self.stored.may_advance_to(&upto), "I2: {} to {upto}", self.stored);
        self.in_flight = Some((upto.clone(), through));
        Some(upto)
    }

    /// What to write now although nothing was resolved: the same position again, so that a shard that stays empty does
    /// not look as if it had not been read for longer than the stream keeps records (I17).
    pub(super) fn take_refresh(&mut self, now: Mono, through: Option<Wall>) -> Option<Position> {
        let is_old = |through: Wall| {
            self.through
                .is_none_or(|old| through.as_millis().saturating_sub(old.as_millis()) >= REFRESH_MILLIS)
        };
        let waits = self.in_flight.is_some() || now < self.not_before;
        if waits || self.stored == Position::ShardEnd || !through.is_some_and(is_old) {
            return None;
        }
        self.in_flight = Some((self.stored.clone(), through));
        Some(self.stored.clone())
    }

    /// When [`take_checkpoint`](Self::take_checkpoint) may return more than now.
    pub(super) fn wakes_at(&self, reached: Option<&Position>, now: Mono, at_once: bool) -> Option<Mono> {
        let due = self.in_flight.is_none() && reached.is_some_and(|upto| *upto != self.stored);
        // A failed write waits for its backoff even at the end.
        due.then_some(if at_once && self.failures == 0 { now } else { self.not_before })
    }

    pub(super) fn written(&mut self, now: Mono, interval: Duration) {
        if let Some((position, through)) = self.in_flight.take() {
            self.stored = position;
            self.through = through.or(self.through);
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

    pub(super) const fn through(&self) -> Option<Wall> {
        self.through
    }

    pub(super) const fn in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}
