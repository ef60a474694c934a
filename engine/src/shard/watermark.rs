//! How far a shard has come: the end of the longest prefix of records that are all resolved.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use crate::position::Seq;
use crate::time::Wall;

/// A record's position and when it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) arrival: Option<Wall>,
}

/// Records are numbered by ordinal as they come in; what is resolved above the first unresolved one waits here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watermark {
    /// The ordinal of the first unresolved record.
    low: u64,
    /// The ordinal of the next record to come in.
    next: u64,
    /// The last record below `low`.
    reached: Option<Mark>,
    /// The records from `low` to the last resolved one.
    ahead: VecDeque<Slot>,
    /// Ordinals that must not be passed although the records behind them may be resolved.
    holds: BTreeSet<u64>,
}

/// A record at or above the first unresolved one. Only where a resolved run ends can the watermark come to stand, so only
/// there a position is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Unresolved,
    /// Resolved, and so is the next one.
    Inner,
    /// Resolved; the next one is not, or holds the watermark.
    End(Mark),
}

impl Watermark {
    /// Gives the next record its ordinal.
    pub(super) fn admit(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Notes that the records of `run` are resolved; `end` tells the last one's position.
    pub(super) fn resolve(&mut self, run: Range<u64>, end: impl FnOnce() -> Mark) {
        debug_assert!(run.start >= self.low && run.end <= self.next, "I2: {run:?} is not unresolved");
        if self.ahead.is_empty() && run.start == self.low && !self.holds.contains(&run.start) {
            self.low = run.end;
            self.reached = Some(end());
            return;
        }
        let (first, after) = (self.slot(run.start), self.slot(run.end));
        if self.ahead.len() < after {
            self.ahead.resize(after, Slot::Unresolved);
        }
        let joins = |slot: Option<&Slot>, ordinal| {
            slot.is_some_and(|slot| *slot != Slot::Unresolved) && !self.holds.contains(&ordinal)
        };
        let last = if joins(self.ahead.get(after), run.end) { Slot::Inner } else { Slot::End(end()) };
        let before = first.checked_sub(1).filter(|before| joins(self.ahead.get(*before), run.start));
        for slot in before.into_iter().chain(first..after - 1) {
            self.ahead[slot] = Slot::Inner;
        }
        self.ahead[after - 1] = last;
        self.advance();
    }

    fn slot(&self, ordinal: u64) -> usize {
        usize::try_from(ordinal - self.low).expect("what is remembered fits into memory")
    }

    /// Holds the watermark before the record of this ordinal, which is unresolved.
    pub(super) fn hold(&mut self, ordinal: u64) {
        debug_assert!(ordinal >= self.low, "I8: {ordinal} is passed");
        self.holds.insert(ordinal);
    }

    /// Ends a hold.
    pub(super) fn release(&mut self, ordinal: u64) {
        self.holds.remove(&ordinal);
        self.advance();
    }

    fn advance(&mut self) {
        while !self.holds.contains(&self.low)
            && let Some(slot) = self.ahead.pop_front_if(|slot| *slot != Slot::Unresolved)
        {
            self.low += 1;
            if let Slot::End(mark) = slot {
                self.reached = Some(mark);
            }
        }
    }

    /// Records between the lowest unresolved one and the newest.
    pub(super) const fn span(&self) -> u64 {
        self.next - self.low
    }

    /// The last record of the resolved prefix; none before the first.
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
        mark.hold(2);
        mark.resolve(2..4, || seq(3));
        mark.resolve(0..2, || seq(1));
        assert_eq!(mark.reached(), Some(&seq(1)), "not merged over the hold");
        mark.hold(4);
        mark.resolve(4..6, || seq(5));
        mark.release(2);
        assert_eq!(mark.reached(), Some(&seq(3)), "the next window holds");
        mark.release(4);
        assert_eq!(mark.reached(), Some(&seq(5)));
        assert!(mark.is_complete());
    }

    #[test]
    fn r50_runs_that_touch_become_one() {
        let mut mark = Watermark::default();
        (0..100).for_each(|expected| assert_eq!(mark.admit(), expected));
        for n in (1..100).step_by(2).chain((2..100).step_by(2)) {
            mark.resolve(n..n + 1, || seq(n));
        }
        let ends = mark.ahead.iter().filter(|slot| matches!(slot, Slot::End(_))).count();
        assert_eq!((ends, mark.span()), (1, 100));
        mark.resolve(0..1, || seq(0));
        assert_eq!(mark.reached(), Some(&seq(99)));
    }
}
