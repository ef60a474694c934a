//! The demo's judge: what PutRecords accepted against what the function wrote down and what the destination got.
//! Nothing that Shardmill counts goes into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A record that PutRecords accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) order: u32,
    pub(super) shard: String,
    pub(super) sequence_number: String,
    pub(super) data: String,
}

/// A record as it was seen somewhere behind the stream.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    pub(super) shard: String,
    pub(super) sequence_number: String,
    pub(super) data: String,
}

/// A shard's checkpoint at a stop: the sequence number, if any.
pub(super) type Checkpoints = BTreeMap<String, Option<String>>;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Lost(Accepted),
    Twice(Accepted, usize),
    OutOfOrder(Accepted),
    Changed(Accepted),
    /// It is no record of the stream.
    Unknown(Seen),
    /// A good record was discarded, or the poison one was handled.
    WrongEnd(Accepted),
    Checkpoint {
        shard: String,
        stored: Option<String>,
        expected: Option<String>,
    },
    /// Something did not happen in time.
    Overdue(&'static str),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "none".to_owned();
        let (what, record) = match self {
            Self::Lost(record) => ("LOST          neither handled nor a dead letter".to_owned(), record),
            Self::Twice(record, times) => (format!("TWICE         came to its end {times} times"), record),
            Self::OutOfOrder(record) => {
                ("OUT OF ORDER  handled after a later one of its shard".to_owned(), record)
            }
            Self::Changed(record) => ("CHANGED       its data is not what was put".to_owned(), record),
            Self::WrongEnd(record) => {
                ("WRONG END     good records are handled, bad ones dead letters".to_owned(), record)
            }
            Self::Unknown(Seen { shard, sequence_number, .. }) => {
                return write!(f, "UNKNOWN       was never put: {shard} {sequence_number}");
            }
            Self::Checkpoint { shard, stored, expected } => {
                let (stored, expected) =
                    (stored.clone().unwrap_or_else(none), expected.clone().unwrap_or_else(none));
                return write!(
                    f,
                    "CHECKPOINT    {shard}\n     stored    {stored}\n     expected  {expected}"
                );
            }
            Self::Overdue(what) => return write!(f, "OVERDUE       {what}"),
        };
        let Accepted { order, shard, sequence_number, .. } = record;
        write!(f, "{what}: order {order}\n     {shard} {sequence_number}")
    }
}

/// What differs: every accepted record must come to exactly one end, in the order of its shard, `poison` as a dead
/// letter and the others handled.
pub(super) fn compare(
    accepted: &[Accepted],
    handled: &[Seen],
    dead: &[Seen],
    poison: u32,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    let same = |a: &Accepted, s: &Seen| a.shard == s.shard && a.sequence_number == s.sequence_number;
    let place = |s: &Seen| accepted.iter().position(|a| same(a, s));
    for record in accepted {
        let times = handled.iter().chain(dead).filter(|seen| same(record, seen)).count();
        match times {
            0 => differences.push(Difference::Lost(record.clone())),
            1 => {}
            _ => differences.push(Difference::Twice(record.clone(), times)),
        }
    }
    let mut reached: BTreeMap<&str, usize> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (seen, is_dead) in handled.iter().map(|s| (s, false)).chain(dead.iter().map(|s| (s, true))) {
        let Some((at, record)) = place(seen).and_then(|at| Some((at, accepted.get(at)?))) else {
            differences.push(Difference::Unknown(seen.clone()));
            continue;
        };
        if seen.data != record.data {
            differences.push(Difference::Changed(record.clone()));
        }
        if is_dead != (record.order == poison) {
            differences.push(Difference::WrongEnd(record.clone()));
        }
        // A second sighting is reported as such, and a dead letter may overtake and be overtaken (R43, R75).
        if known.insert(at) && !is_dead {
            let reached = reached.entry(&seen.shard).or_default();
            if *reached > at {
                differences.push(Difference::OutOfOrder(record.clone()));
            }
            *reached = at.max(*reached);
        }
    }
    differences
}

/// What differs between the stored checkpoints and the last record of each shard that came to its end.
pub(super) fn compare_checkpoints(
    stored: &Checkpoints,
    accepted: &[Accepted],
    handled: &[Seen],
    dead: &[Seen],
) -> Vec<Difference> {
    let ended: BTreeSet<_> =
        handled.iter().chain(dead).map(|seen| (&seen.shard, &seen.sequence_number)).collect();
    let mut expected: Checkpoints = accepted.iter().map(|record| (record.shard.clone(), None)).collect();
    for record in accepted {
        if ended.contains(&(&record.shard, &record.sequence_number)) {
            expected.insert(record.shard.clone(), Some(record.sequence_number.clone()));
        }
    }
    let shards: BTreeSet<_> = expected.keys().chain(stored.keys()).collect();
    let of = |checkpoints: &Checkpoints, shard: &String| checkpoints.get(shard).cloned().flatten();
    shards
        .into_iter()
        .map(|shard| (shard, of(stored, shard), of(&expected, shard)))
        .filter(|(_, stored, expected)| stored != expected)
        .map(|(shard, stored, expected)| Difference::Checkpoint { shard: shard.clone(), stored, expected })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POISON: u32 = 5;

    /// Orders 1 to 8, odd ones on shard a, even ones on shard b; 5 is poison.
    fn accepted() -> Vec<Accepted> {
        let shard = |order| if order % 2 == 1 { "a" } else { "b" };
        let record = |order: u32| Accepted {
            order,
            shard: shard(order).to_owned(),
            sequence_number: format!("{}", 1000 + order),
            data: format!("data of {order}"),
        };
        (1..=8).map(record).collect()
    }

    fn seen(orders: &[u32]) -> Vec<Seen> {
        let record = |order: &u32| {
            let Accepted { shard, sequence_number, data, .. } = accepted()[*order as usize - 1].clone();
            Seen { shard, sequence_number, data }
        };
        orders.iter().map(record).collect()
    }

    fn order(order: u32) -> Accepted {
        accepted()[order as usize - 1].clone()
    }

    fn verdict(handled: &[u32], dead: &[u32]) -> Vec<Difference> {
        compare(&accepted(), &seen(handled), &seen(dead), POISON)
    }

    #[test]
    fn every_record_once_in_its_shards_order_is_well_however_the_shards_interleave() {
        assert_eq!(verdict(&[1, 3, 7, 2, 4, 6, 8], &[5]), []);
        assert_eq!(verdict(&[2, 1, 4, 3, 6, 7, 8], &[5]), []);
    }

    #[test]
    fn a_lost_record_is_told() {
        assert_eq!(verdict(&[1, 2, 3, 6, 7, 8], &[5]), [Difference::Lost(order(4))]);
        assert_eq!(verdict(&[1, 2, 3, 4, 6, 7, 8], &[]), [Difference::Lost(order(5))], "the dead letter");
    }

    #[test]
    fn a_record_that_came_twice_is_told_wherever_it_came_again() {
        assert_eq!(verdict(&[1, 2, 3, 4, 3, 6, 7, 8], &[5]), [Difference::Twice(order(3), 2)]);
        assert_eq!(verdict(&[1, 2, 3, 4, 6, 7, 8], &[5, 5]), [Difference::Twice(order(5), 2)]);
        let both = verdict(&[1, 2, 3, 4, 6, 7, 8], &[5, 8]);
        assert_eq!(both, [Difference::Twice(order(8), 2), Difference::WrongEnd(order(8))]);
    }

    #[test]
    fn a_record_that_overtook_another_of_its_shard_is_told() {
        assert_eq!(verdict(&[3, 2, 1, 4, 6, 7, 8], &[5]), [Difference::OutOfOrder(order(1))]);
    }

    #[test]
    fn a_record_that_nobody_put_or_that_changed_or_that_ended_wrongly_is_told() {
        let mut handled = seen(&[1, 2, 3, 4, 6, 7, 8]);
        handled[0].data.push('!');
        handled[1].shard = "c".to_owned();
        let expected = [
            Difference::Lost(order(2)),
            Difference::Changed(order(1)),
            Difference::Unknown(Seen { shard: "c".to_owned(), ..seen(&[2]).remove(0) }),
        ];
        assert_eq!(compare(&accepted(), &handled, &seen(&[5]), POISON), expected);
        assert_eq!(verdict(&[1, 2, 3, 4, 5, 6, 7, 8], &[]), [Difference::WrongEnd(order(5))]);
    }

    #[test]
    fn a_checkpoint_that_is_not_at_the_last_record_that_ended_is_told() {
        let (handled, dead) = (seen(&[1, 3, 2, 4]), seen(&[5]));
        let stored = |a: &str| -> Checkpoints {
            [("a".to_owned(), Some(a.to_owned())), ("b".to_owned(), Some("1004".to_owned()))].into()
        };
        assert_eq!(compare_checkpoints(&stored("1005"), &accepted(), &handled, &dead), []);
        let behind = compare_checkpoints(&stored("1003"), &accepted(), &handled, &dead);
        assert_eq!(behind.len(), 1);
        assert!(behind[0].to_string().contains("stored    1003\n     expected  1005"), "{}", behind[0]);
    }
}
