//! Tumbling windows in an observer's books (R64 to R70, I8).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{Fact, Seen, Setting};
use crate::outcome::Outcome;
use crate::position::Seq;
use crate::time::Wall;
use crate::window::WindowCall;

use super::books::Books;
use super::judges::ensure;

/// A state larger than this ends its window early (R68).
const LARGEST_STATE: usize = 1 << 20;
/// How long after a window's end it may be closed although nothing follows (R67).
const IDLE_CLOSE: i64 = 100_000;

/// What is known of a run's windows. A window that ended early and goes on counts again.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    all: Vec<Window>,
    /// Which window each invoked record belongs to.
    of: BTreeMap<Seq, usize>,
}

#[derive(Clone, Debug)]
struct Window {
    start: Wall,
    state: Bytes,
    end: End,
    is_early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Its final call is given up, and not yet delivered.
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
    fn has_closed(&self, start: Wall) -> bool {
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

    fn open(&self) -> Option<&Window> {
        self.all.last().filter(|window| window.end == End::Open)
    }

    /// Where a window that opens with this record starts: its own, but none that is closed for good.
    fn opens_at(&self, own: Wall, size: i64) -> Wall {
        let least = self.all.last().map(|last| {
            let next = if last.is_early { 0 } else { size };
            Wall::from_millis(last.start.as_millis() + next)
        });
        least.map_or(own, |least| least.max(own))
    }
}

fn own_window(setting: Setting<'_>, seq: &Seq, size: i64) -> Option<Wall> {
    let arrival = setting.record(seq)?.arrival?;
    Some(Wall::from_millis(arrival.as_millis().div_euclid(size) * size))
}

/// I8: a window's state passes from call to call, from `{}`; one final call per window, when the window is over or its
/// state too large; no record is in a window before its own, and none comes again in a later one than before.
pub(super) fn i8(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let size = setting.mapping.tumbling_window.map(millis);
    if let Fact::Exited(crate::shard::Exit::ShardEnd) = seen.fact {
        return ensure(books.run.windows.open().is_none(), || "the shard ends with an open window".into());
    }
    let Fact::Invoked { records, window, .. } = &seen.fact else { return Ok(()) };
    let (size, call) = match (size, window) {
        (None, None) => return ensure(!records.is_empty(), || "an empty batch".into()),
        (Some(size), Some(call)) => (size, call),
        _ => return Err(format!("windows are {size:?}, the invocation's is {window:?}")),
    };
    let (start, end) = (call.start.as_millis(), call.end.as_millis());
    ensure(start.rem_euclid(size) == 0 && end == start + size, || format!("{start} to {end} is no window"))?;
    ensure(records.is_empty() == call.is_final, || "final calls and no others are empty".into())?;
    let open = books.run.windows.open();
    let state = open.map_or(&b"{}"[..], |open| &open.state);
    ensure(call.state == state, || format!("the state is {} bytes, not {}", call.state.len(), state.len()))?;
    let is_too_large = state.len() > LARGEST_STATE;
    ensure(call.is_terminated_early == is_too_large, || format!("early: {is_too_large}"))?;
    if let Some(open) = open {
        ensure(open.start == call.start, || "another window is open".into())?;
    }
    if call.is_final {
        ensure(open.is_some(), || "a final call, and no window is open".into())?;
        let later = |seq: &Seq| own_window(setting, seq, size).is_some_and(|own| own > call.start);
        let is_over = is_too_large
            || books.run.ended
            || seen.at.wall.as_millis() >= end + IDLE_CLOSE
            || books.run.kept.iter().any(later);
        return ensure(is_over, || "a final call before its time".into());
    }
    let own = records.iter().map(|seq| own_window(setting, seq, size));
    let early = own.flatten().find(|own| *own > call.start);
    ensure(early.is_none(), || format!("a record of {early:?} in the window {start}"))?;
    // What comes again does not come in a later window, unless it is late for its own this time.
    let strayed = records.iter().filter(|seq| setting.record(seq).is_some_and(|r| r.arrival.is_some()));
    let strayed = strayed
        .filter_map(|seq| books.in_window.get(seq))
        .find(|before| **before < call.start && !books.run.windows.has_closed(**before));
    ensure(strayed.is_none(), || format!("a record of the window {strayed:?} comes again in {start}"))?;
    match (open, records.first().and_then(|first| own_window(setting, first, size))) {
        (None, Some(own)) => {
            let expected = books.run.windows.opens_at(own, size);
            // A window that an earlier run has closed stays closed, if that is stored.
            let is_closed_for_good =
                books.run.windows.count() == 0 && start > own.as_millis() && books.closed.contains(&start);
            ensure(call.start == expected || is_closed_for_good, || {
                format!("opens {start}, not {expected:?}")
            })
        }
        _ => Ok(()),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
