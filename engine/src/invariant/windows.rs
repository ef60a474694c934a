//! Tumbling windows in an observer's books (R64 to R70, I8).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Setting;
use crate::outcome::Outcome;
use crate::position::Seq;
use crate::time::Wall;
use crate::window::WindowCall;

/// A state larger than this ends its window early (R68).
pub(super) const LARGEST_STATE: usize = 1 << 20;
/// How long after a window's end it may be closed although nothing follows (R67).
pub(super) const IDLE_CLOSE: i64 = 100_000;

/// What is known of a run's windows. A window that ended early and continues counts again.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    all: Vec<Window>,
    /// Which window each invoked record belongs to.
    of: BTreeMap<Seq, usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) start: Wall,
    pub(super) state: Bytes,
    end: End,
    is_early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Its final call is discarded, and not yet delivered.
    GivenUp,
    Closed,
}

impl Windows {
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn invoked(&mut self, records: &[Seq], call: Option<&WindowCall>) {
        let Some(call) = call else { return };
        if !call.is_final && self.open().is_none() {
            let state = Bytes::from_static(b"{}");
            self.all.push(Window { start: call.start, state, end: End::Open, is_early: false });
        }
        let number = self.all.len();
        self.of.extend(records.iter().map(|seq| (seq.clone(), number)));
        if let Some(open) = self.all.last_mut() {
            open.is_early |= call.is_terminated_early;
        }
    }

    pub(super) fn adopt(&mut self, outcome: &Outcome) {
        let Outcome::Answered(answer) = outcome else { return };
        if let (Some(open), Some(state)) = (self.all.last_mut(), answer.state()) {
            open.state = state.clone();
        }
    }

    pub(super) fn final_ended(&mut self, succeeded: bool, is_given_up: bool) {
        if let Some(open) = self.all.last_mut() {
            open.end = match (succeeded, is_given_up) {
                (true, _) => End::Closed,
                (false, true) => End::GivenUp,
                (false, false) => End::Open,
            };
        }
    }

    /// Discards are delivered in order.
    pub(super) fn final_discarded(&mut self) {
        if let Some(window) = self.all.iter_mut().find(|window| window.end == End::GivenUp) {
            window.end = End::Closed;
        }
    }

    /// Whether the window of a record is closed, and the window's records.
    pub(super) fn of(&self, record: &Seq) -> Option<(bool, impl DoubleEndedIterator<Item = &Seq>)> {
        let own = *self.of.get(record)?;
        let records = self.of.iter().filter(move |(_, number)| **number == own).map(|(seq, _)| seq);
        Some((self.all.get(own - 1)?.end == End::Closed, records))
    }

    /// Whether this run has closed a window that begins at `start` or later.
    pub(super) fn has_closed(&self, start: Wall) -> bool {
        self.all.iter().any(|window| window.end != End::Open && window.start >= start)
    }

    pub(super) fn is_given_up(&self, start: Wall) -> bool {
        self.all.iter().any(|window| window.end == End::GivenUp && window.start == start)
    }

    /// Where the windows that were closed end; where those start that ended early.
    pub(super) fn closed(&self, size: Option<Duration>) -> impl Iterator<Item = i64> {
        let size = size.map_or(0, millis);
        let closed = self.all.iter().filter(|window| window.end == End::Closed);
        closed.map(move |window| window.start.as_millis() + if window.is_early { 0 } else { size })
    }

    pub(super) fn open(&self) -> Option<&Window> {
        self.all.last().filter(|window| window.end == End::Open)
    }

    /// Where a window that opens with this record starts: its own, but none that is closed for good.
    pub(super) fn opens_at(&self, own: Wall, size: i64) -> Wall {
        let least = self.all.last().map(|last| {
            let next = if last.is_early { 0 } else { size };
            Wall::from_millis(last.start.as_millis() + next)
        });
        least.map_or(own, |least| least.max(own))
    }
}

pub(super) fn own_window(setting: Setting<'_>, seq: &Seq, size: i64) -> Option<Wall> {
    let arrival = setting.record(seq)?.arrival?;
    Some(Wall::from_millis(arrival.as_millis().div_euclid(size) * size))
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
