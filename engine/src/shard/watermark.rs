//! How far a shard has come: the end of the longest prefix of records that are all resolved.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::position::Seq;

/// Records are numbered by ordinal as they come in; resolved runs above the first unresolved one wait here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watermark {
    /// The ordinal of the first unresolved record.
    low: u64,
    /// The ordinal of the next record to come in.
    next: u64,
    /// The last record below `low`.
    reached: Option<Seq>,
    /// Resolved runs at or above `low`: first ordinal to (ordinal after the last, its position).
    ahead: BTreeMap<u64, (u64, Seq)>,
}

impl Watermark {
    /// Gives the next record its ordinal.
    pub(super) fn admit(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Notes that the records of `run`, whose last is at `end`, are resolved.
    pub(super) fn resolve(&mut self, run: Range<u64>, end: Seq) {
        debug_assert!(run.start >= self.low && run.end <= self.next, "I2: {run:?} is not unresolved");
        if run.start == self.low {
            self.low = run.end;
            self.reached = Some(end);
        } else {
            self.ahead.insert(run.start, (run.end, end));
        }
        while let Some((after, end)) = self.ahead.remove(&self.low) {
            self.low = after;
            self.reached = Some(end);
        }
    }

    /// The last record of the resolved prefix; none before the first.
    pub(super) const fn reached(&self) -> Option<&Seq> {
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

    fn seq(n: u64) -> Seq {
        Seq::plain(n.to_string())
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
}
