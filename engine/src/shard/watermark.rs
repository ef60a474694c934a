//! How far a shard has come: the end of the longest prefix of records that are all resolved.

use std::collections::BTreeMap;
use std::ops::Range;

use super::slots::{Mark, Slot, Slots};
use crate::time::Wall;

/// Records are numbered by ordinal as they come in; what is resolved above the first unresolved one waits here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watermark {
    /// The ordinal of the first unresolved record.
    low: u64,
    /// The ordinal of the next record to come in.
    next: u64,
    /// The last record below `low` and below every window that `low` is within.
    reached: Option<Mark>,
    /// The last record below `low`, within a window.
    passed: Option<Mark>,
    /// The records from `low` to the last resolved one.
    ahead: Slots,
    /// Tumbling windows by the ordinals of their first records: the watermark may stop before one and behind it.
    holds: BTreeMap<u64, Hold>,
}

/// A tumbling window that the watermark has not passed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Hold {
    /// Where it might have begun at the earliest when it was opened.
    earliest: Option<Wall>,
    /// The ordinal behind its last record, once it is closed.
    end: Option<u64>,
}

impl Watermark {
    /// Gives the next record its ordinal.
    pub(super) fn admit(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Notes that the records of `run` are resolved; `end` returns the last one's position.
    pub(super) fn resolve(&mut self, run: Range<u64>, end: impl FnOnce() -> Mark) {
        debug_assert!(run.start >= self.low && run.end <= self.next, "I2: {run:?} is not unresolved");
        if self.ahead.is_empty() && run.start == self.low && self.holds.is_empty() {
            self.low = run.end;
            self.reached = Some(end());
            return;
        }
        let (first, after) = (self.slot(run.start), self.slot(run.end));
        self.ahead.grow(after);
        let joins = |slot: Option<Slot<'_>>, ordinal| {
            slot.is_some_and(|slot| slot != Slot::Unresolved) && !self.holds.contains_key(&ordinal)
        };
        let is_inner = joins(self.ahead.get(after), run.end);
        let before = first.checked_sub(1).filter(|before| joins(self.ahead.get(*before), run.start));
        for slot in before.into_iter().chain(first..after - 1) {
            self.ahead.set_inner(slot);
        }
        match is_inner {
            true => self.ahead.set_inner(after - 1),
            false => self.ahead.set_end(after - 1, end()),
        }
        self.advance();
    }

    /// Notes that what came in after the newest record, up to here, needs no resolving.
    pub(super) fn skip(&mut self, to: Mark) {
        let newest = self.next.checked_sub(self.low + 1).and_then(|slot| usize::try_from(slot).ok());
        if let Some(slot) = newest.filter(|slot| matches!(self.ahead.get(*slot), Some(Slot::End(_)))) {
            // Behind a record that is stuck, page after page may come of which nothing is kept.
            self.ahead.set_end(slot, to);
            return;
        }
        let ordinal = self.admit();
        self.resolve(ordinal..ordinal + 1, || to);
    }

    fn slot(&self, ordinal: u64) -> usize {
        usize::try_from(ordinal - self.low).expect("what is remembered fits into memory")
    }

    /// Holds the watermark before a window that is opened, whose first record has this ordinal and is unresolved.
    /// `earliest`: no window might begin before it at that moment.
    pub(super) fn hold(&mut self, first: u64, earliest: Option<Wall>) {
        debug_assert!(first >= self.low, "I8: {first} is passed");
        self.holds.insert(first, Hold { earliest, end: None });
    }

    /// A window is closed. The watermark passes it as a whole, once all its records are resolved: a part of it would be
    /// redelivered as a part of the next one (I8).
    pub(super) fn release(&mut self, window: &Range<u64>) {
        if let Some(hold) = self.holds.get_mut(&window.start) {
            hold.end = Some(window.end);
        }
        self.advance();
    }

    fn advance(&mut self) {
        let is_open = |hold: &Hold| hold.end.is_none();
        while !self.holds.get(&self.low).is_some_and(is_open)
            && let Some(end) = self.ahead.pop_resolved()
        {
            self.low += 1;
            if end.is_some() {
                self.passed = end;
            }
            if !self.is_within_a_window()
                && let Some(mark) = self.passed.take()
            {
                self.reached = Some(mark);
            }
        }
    }

    /// Whether `low` is behind a window's first record and not behind its last; forgets the windows that it has passed.
    fn is_within_a_window(&mut self) -> bool {
        while let Some(first) = self.holds.first_entry()
            && *first.key() < self.low
        {
            if first.get().end.is_none_or(|end| end > self.low) {
                return true;
            }
            first.remove();
        }
        false
    }

    /// The earliest start of a window when the first one was opened that the watermark has not passed; `None` if
    /// it has passed them all.
    pub(super) fn earliest_window(&self) -> Option<Option<Wall>> {
        self.holds.first_key_value().map(|(_, hold)| hold.earliest)
    }

    /// Records between the lowest unresolved one and the newest.
    pub(super) const fn span(&self) -> u64 {
        self.next - self.low
    }

    /// Bytes that it takes to remember what is done ahead.
    pub(super) fn held(&self) -> usize {
        self.ahead.held()
    }

    /// The last record of the resolved prefix; `None` before the first.
    pub(super) const fn reached(&self) -> Option<&Mark> {
        self.reached.as_ref()
    }

    /// Whether every record that came in is resolved.
    pub(super) const fn is_complete(&self) -> bool {
        self.low == self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Seq;

    fn seq(n: u64) -> Mark {
        Mark { seq: Seq::plain(n.to_string()), arrival: None }
    }

    #[test]
    fn i2_the_watermark_never_passes_an_unresolved_record() {
        let mut mark = Watermark::default();
        for expected in 0..6 {
            assert_eq!(mark.admit(), expected);
        }
        mark.resolve(2..4, || seq(3));
        assert_eq!(mark.reached(), None, "0 and 1 are unresolved");
        mark.resolve(0..1, || seq(0));
        assert_eq!(mark.reached(), Some(&seq(0)));
        mark.resolve(1..2, || seq(1));
        assert_eq!(mark.reached(), Some(&seq(3)), "2 and 3 were done ahead");
        assert!(!mark.is_complete());
        mark.resolve(4..6, || seq(5));
        assert_eq!(mark.reached(), Some(&seq(5)));
        assert!(mark.is_complete());
    }

    #[test]
    fn i8_a_hold_keeps_the_watermark_before_a_window_until_it_is_released() {
        let mut mark = Watermark::default();
        (0..6).for_each(|expected| assert_eq!(mark.admit(), expected));
        mark.hold(2, None);
        mark.resolve(2..4, || seq(3));
        mark.resolve(0..2, || seq(1));
        assert_eq!(mark.reached(), Some(&seq(1)), "not merged over the hold");
        mark.hold(4, None);
        mark.resolve(4..6, || seq(5));
        mark.release(&(2..4));
        assert_eq!(mark.reached(), Some(&seq(3)), "the next window holds");
        mark.release(&(4..6));
        assert_eq!(mark.reached(), Some(&seq(5)));
        assert!(mark.is_complete());
    }

    #[test]
    fn i8_a_closed_window_is_passed_as_a_whole_with_the_earliest_start_of_its_time() {
        let mut mark = Watermark::default();
        let earliest = |start| Some(Wall::from_millis(start));
        (0..8).for_each(|expected| assert_eq!(mark.admit(), expected));
        mark.hold(0, None);
        mark.resolve(0..1, || seq(0));
        mark.resolve(2..3, || seq(2));
        mark.release(&(0..3));
        mark.hold(3, earliest(10));
        mark.resolve(3..4, || seq(3));
        mark.resolve(5..6, || seq(5));
        mark.release(&(3..6));
        assert_eq!((mark.reached(), mark.earliest_window()), (None, Some(None)), "1 may be redelivered");
        mark.resolve(1..2, || seq(1));
        assert_eq!((mark.reached(), mark.earliest_window()), (Some(&seq(2)), Some(earliest(10))), "4 too");
        mark.resolve(6..7, || seq(6));
        mark.resolve(4..5, || seq(4));
        assert_eq!((mark.reached(), mark.earliest_window()), (Some(&seq(6)), None));
        mark.resolve(7..8, || seq(7));
        assert!(mark.is_complete() && mark.reached() == Some(&seq(7)));
    }

    #[test]
    fn r50_runs_that_touch_become_one() {
        let mut mark = Watermark::default();
        (0..100).for_each(|expected| assert_eq!(mark.admit(), expected));
        for n in (1..100).step_by(2).chain((2..100).step_by(2)) {
            mark.resolve(n..n + 1, || seq(n));
        }
        let ends = (0..100).filter(|n| matches!(mark.ahead.get(*n), Some(Slot::End(_)))).count();
        assert_eq!((ends, mark.span()), (1, 100));
        mark.resolve(0..1, || seq(0));
        assert_eq!(mark.reached(), Some(&seq(99)));
    }
}
