//! How far a shard has come: the end of the longest prefix of records that are all resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::position::Seq;
use crate::time::Wall;

/// A record's position and when it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) arrival: Option<Wall>,
}

/// Records are numbered by ordinal as they come in; resolved runs above the first unresolved one wait here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watermark {
    /// The ordinal of the first unresolved record.
    low: u64,
    /// The ordinal of the next record to come in.
    next: u64,
    /// The last record below `low`.
    reached: Option<Mark>,
    /// Resolved runs at or above `low`, none touching another but at a hold: first ordinal to (ordinal after the last,
    /// its position).
    ahead: BTreeMap<u64, (u64, Mark)>,
    /// Ordinals that must not be passed although the records behind them may be resolved.
    holds: BTreeSet<u64>,
}

impl Watermark {
    /// Gives the next record its ordinal.
    pub(super) fn admit(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Notes that the records of `run`, whose last is at `end`, are resolved.
    pub(super) fn resolve(&mut self, run: Range<u64>, end: Mark) {
        debug_assert!(run.start >= self.low && run.end <= self.next, "I2: {run:?} is not unresolved");
        if self.ahead.is_empty() && run.start == self.low && !self.holds.contains(&run.start) {
            self.low = run.end;
            self.reached = Some(end);
            return;
        }
        let (mut run, mut end) = (run, end);
        // Runs that touch become one, so that what is remembered is bounded by what is unresolved.
        if !self.holds.contains(&run.end)
            && let Some((after, later)) = self.ahead.remove(&run.end)
        {
            (run.end, end) = (after, later);
        }
        if !self.holds.contains(&run.start)
            && let Some((first, (after, _))) = self.ahead.range(..run.start).next_back()
            && *after == run.start
        {
            run.start = *first;
        }
        self.ahead.insert(run.start, (run.end, end));
        self.advance();
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
            && let Some((after, end)) = self.ahead.remove(&self.low)
        {
            self.low = after;
            self.reached = Some(end);
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
        mark.resolve(2..4, seq(3));
        assert_eq!(mark.reached(), None, "0 and 1 are unresolved");
        mark.resolve(0..1, seq(0));
        assert_eq!(mark.reached(), Some(&seq(0)));
        mark.resolve(1..2, seq(1));
        assert_eq!(mark.reached(), Some(&seq(3)), "2 and 3 were done ahead");
        assert!(!mark.is_complete());
        mark.resolve(4..6, seq(5));
        assert_eq!(mark.reached(), Some(&seq(5)));
        assert!(mark.is_complete());
    }

    #[test]
    fn i8_a_hold_keeps_the_watermark_before_a_window_until_it_is_released() {
        let mut mark = Watermark::default();
        (0..6).for_each(|expected| assert_eq!(mark.admit(), expected));
        mark.hold(2);
        mark.resolve(2..4, seq(3));
        mark.resolve(0..2, seq(1));
        assert_eq!(mark.reached(), Some(&seq(1)), "not merged over the hold");
        mark.hold(4);
        mark.resolve(4..6, seq(5));
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
            mark.resolve(n..n + 1, seq(n));
        }
        assert_eq!(mark.ahead.len(), 1);
        assert_eq!(mark.span(), 100);
        mark.resolve(0..1, seq(0));
        assert_eq!(mark.reached(), Some(&seq(99)));
    }
}
