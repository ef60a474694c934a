//! When a record is too old to be invoked (R26).

use std::time::Duration;

use crate::record::{Batch, Record};
use crate::time::{Mono, Now};

/// `MaximumRecordAgeInSeconds`, judged by the service's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Unlimited,
    Limited(Duration),
}

/// Where a batch must be cut because of its records' age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nowhere: all are young enough.
    Nowhere,
    /// The first so many are too old.
    Expired(usize),
    /// The first so many are young enough; one that is too old follows.
    Fresh(usize),
}

impl Age {
    /// Whether a record is older than permitted. One without an arrival time never is.
    pub(super) fn is_over(self, record: &Record, now: Now) -> bool {
        let Self::Limited(maximum) = self else { return false };
        record.arrival.is_some_and(|arrival| arrival + maximum < now.wall)
    }

    /// When a record will be too old.
    pub(super) fn over_at(self, record: &Record, now: Now) -> Option<Mono> {
        let Self::Limited(maximum) = self else { return None };
        let last = record.arrival? + maximum;
        let left = u64::try_from(last.as_millis().saturating_sub(now.wall.as_millis()).saturating_add(1));
        Some(now.mono + Duration::from_millis(left.unwrap_or(0)))
    }

    /// Where to cut a batch before it is invoked (R27, I5).
    pub(super) fn cut(self, batch: &Batch, now: Now) -> Cut {
        if self == Self::Unlimited {
            return Cut::Nowhere;
        }
        let mut runs = batch.records().chunk_by(|a, b| self.is_over(a, now) == self.is_over(b, now));
        match runs.next() {
            Some(run) if run.iter().any(|record| self.is_over(record, now)) => Cut::Expired(run.len()),
            Some(run) if run.len() < batch.len() => Cut::Fresh(run.len()),
            _ => Cut::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::Seq;
    use crate::record::Data;
    use crate::time::Wall;

    const AGE: Age = Age::Limited(Duration::from_secs(60));

    fn at(arrival: Option<i64>) -> Record {
        Record::new(Seq::plain("1"), None, arrival.map(Wall::from_millis), Data::Raw(Bytes::new()))
    }

    fn now(wall: i64) -> Now {
        Now { wall: Wall::from_millis(wall), mono: Mono::from_millis(5) }
    }

    #[test]
    fn r26_a_record_is_too_old_one_millisecond_after_its_maximum_age() {
        assert!(!AGE.is_over(&at(Some(1000)), now(61_000)));
        assert!(AGE.is_over(&at(Some(1000)), now(61_001)));
        assert!(!AGE.is_over(&at(None), now(i64::MAX)));
        assert!(!Age::Unlimited.is_over(&at(Some(0)), now(i64::MAX)), "R32");
        assert_eq!(AGE.over_at(&at(Some(1000)), now(60_000)), Some(Mono::from_millis(5 + 1001)));
        assert_eq!(AGE.over_at(&at(Some(1000)), now(99_000)), Some(Mono::from_millis(5)));
    }

    #[test]
    fn r27_the_expired_prefix_is_cut_off_and_i5_an_expired_record_behind_fresh_ones_too() {
        let cut = |arrivals: &[i64]| {
            let records: Vec<_> = arrivals.iter().map(|arrival| at(Some(*arrival))).collect();
            AGE.cut(&Batch::new(records).unwrap(), now(70_000))
        };
        assert_eq!(cut(&[20_000, 30_000]), Cut::Nowhere);
        assert_eq!(cut(&[0, 9_999, 10_000]), Cut::Expired(2));
        assert_eq!(cut(&[0]), Cut::Expired(1));
        assert_eq!(cut(&[20_000, 0, 30_000]), Cut::Fresh(1));
        assert_eq!(Age::Limited(Duration::ZERO).cut(&Batch::empty(), now(0)), Cut::Nowhere);
    }
}
