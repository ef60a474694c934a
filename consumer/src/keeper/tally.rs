//! What happens to leases, as one line for many: a thousand that are taken or lost together are one line with a count.

use std::collections::BTreeMap;
use std::time::Duration;

use shardmill_engine::{Mono, ShardId};

/// What happens within so long after the first change of its kind shares its line.
const GATHER: Duration = Duration::from_secs(1);
/// The least time between two lines of a kind; twice as much after each that follows the one before closely, so that what
/// flaps for hours does not fill the log.
const SPACING: Duration = Duration::from_secs(10);
const WIDEST: Duration = Duration::from_secs(600);

/// What happened to a lease, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// This worker took it.
    Taken {
        /// Its former owner.
        from: Option<String>,
        why: Free,
    },
    Lost(Loss),
    /// Its holder released it before the shard's end.
    GivenUp,
    /// The same, for another worker.
    Given {
        to: String,
    },
}

/// Why a lease was free to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Free {
    NobodyHadIt,
    EarlierRun,
    Given,
    LostBefore,
    DeadProcess,
    NotRenewed,
    TakenOver,
}

/// Why a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Loss {
    NotRenewed,
    Taken,
    Deleted,
    Evicted,
}

impl Free {
    /// The value of the label `why`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::NobodyHadIt => "free",
            Self::EarlierRun | Self::LostBefore => "own",
            Self::Given => "given",
            Self::DeadProcess => "dead_process",
            Self::NotRenewed => "not_renewed",
            Self::TakenOver => "taken_over",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::NobodyHadIt => "no worker had it",
            Self::EarlierRun => "an earlier run of this worker had it",
            Self::Given => "its owner gave it to this worker",
            Self::LostBefore => "this worker had lost it, and no worker has taken it since",
            Self::DeadProcess => "its owner's process is dead",
            Self::NotRenewed => "its owner did not renew it for a lease time",
            Self::TakenOver => "its owner, a worker of another program, had more than its share",
        }
    }
}

impl Loss {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotRenewed => "it could not be renewed in time",
            Self::Taken => "another worker has taken it",
            Self::Evicted => "other workers saw no sign of life of this one for a lease time",
            Self::Deleted => "it is gone from the store, or cannot be read there",
        }
    }
}

/// Changes that wait for their line.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kinds: BTreeMap<Change, Kind>,
    /// Changes so far.
    noted: u64,
}

#[derive(Debug, Default)]
struct Kind {
    waiting: Option<Group>,
    /// When the last line was written, and the least time until the next one.
    said: Option<(Mono, Duration)>,
}

#[derive(Debug)]
struct Group {
    first: ShardId,
    leases: usize,
    since: Mono,
    /// Which change was the last one of the group: the lines are in this order, so that the last one shows the present
    /// state.
    last: u64,
}

impl Tally {
    pub(super) fn note(&mut self, now: Mono, change: Change, shard: &ShardId) {
        self.noted += 1;
        let group = &mut self.kinds.entry(change).or_default().waiting;
        let group =
            group.get_or_insert_with(|| Group { first: shard.clone(), leases: 0, since: now, last: 0 });
        group.leases += 1;
        group.last = self.noted;
    }

    /// Writes the lines whose time has come, or `all` of them.
    pub(super) fn write(&mut self, now: Mono, all: bool, mapping: &str) {
        for (change, first, leases) in self.due(now, all) {
            log(mapping, &change, &first, leases);
        }
    }

    fn due(&mut self, now: Mono, all: bool) -> Vec<(Change, ShardId, usize)> {
        let is_due = |kind: &Kind| {
            let group = kind.waiting.as_ref()?;
            let next = kind.said.map_or(group.since, |(at, spacing)| at + spacing);
            (all || (now >= group.since + GATHER && now >= next)).then_some(group.last)
        };
        // What happened before goes with it, although its own time may not have come.
        let Some(last) = self.kinds.values().filter_map(is_due).max() else { return Vec::new() };
        let mut due = Vec::new();
        for (change, kind) in &mut self.kinds {
            if let Some(group) = kind.waiting.take_if(|group| group.last <= last) {
                let spacing = match kind.said {
                    Some((at, spacing)) if now.since(at) < spacing * 2 => (spacing * 2).min(WIDEST),
                    _ => SPACING,
                };
                kind.said = Some((now, spacing));
                due.push((group.last, (change.clone(), group.first, group.leases)));
            }
        }
        // Owners' names come and go.
        self.kinds.retain(|_, kind| {
            kind.waiting.is_some() || kind.said.is_some_and(|(at, spacing)| now.since(at) < spacing * 2)
        });
        due.sort_by_key(|(last, _)| *last);
        due.into_iter().map(|(_, line)| line).collect()
    }
}

fn log(mapping: &str, change: &Change, first: &ShardId, leases: usize) {
    match change {
        Change::Taken { from, why } => {
            let from = from.as_deref();
            tracing::info!(mapping, leases, %first, from, why = why.as_str(), "took leases");
        }
        Change::Lost(why) => {
            tracing::warn!(mapping, leases, %first, why = why.as_str(), "lost leases: the work on their shards stops here");
        }
        Change::GivenUp => tracing::info!(mapping, leases, %first, "released leases"),
        Change::Given { to } => tracing::info!(mapping, leases, %first, to, "gave leases to another worker"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn lost() -> Change {
        Change::Lost(Loss::NotRenewed)
    }

    #[test]
    fn incident_89_many_changes_of_one_kind_are_one_line_with_their_number_and_the_first_shard() {
        let mut tally = Tally::default();
        let dead = Change::Taken { from: Some("b".to_owned()), why: Free::DeadProcess };
        for n in 0..3000 {
            tally.note(at(n / 10), lost(), &ShardId::new(format!("shardId-{n}")));
            tally.note(at(n / 10), dead.clone(), &ShardId::new(format!("shardId-{n}")));
        }
        assert_eq!(tally.due(at(999), false), []);
        let lines = tally.due(at(1000), false);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|(_, first, leases)| (first.as_str(), *leases) == ("shardId-0", 3000)));
        tally.note(at(1001), lost(), &ShardId::from("last"));
        assert_eq!(
            tally.due(at(1001), true),
            [(lost(), ShardId::from("last"), 1)],
            "at the end nothing waits"
        );
    }

    #[test]
    fn incident_89_what_flaps_is_written_ever_more_rarely() {
        let mut tally = Tally::default();
        let shard = ShardId::from("shardId-0");
        let (mut lines, mut leases) = (0, 0);
        for second in 0..3600 {
            tally.note(at(second * 1000), lost(), &shard);
            for (_, _, count) in tally.due(at(second * 1000 + 500), false) {
                lines += 1;
                leases += count;
            }
        }
        assert!((5..=16).contains(&lines), "{lines} lines in an hour");
        assert!(leases > 2900, "all of them are counted: {leases}");
        let later = 3_600_000 + 1_300_000;
        tally.due(at(later), true);
        let calm = later + 1_300_000;
        tally.note(at(calm), lost(), &shard);
        assert_eq!(tally.due(at(calm + 1000), false).len(), 1, "after a calm it is written at once");
    }

    #[test]
    fn the_last_line_says_how_it_is_now() {
        let taken = || Change::Taken { from: Some("a".to_owned()), why: Free::LostBefore };
        let mut tally = Tally::default();
        let shard = ShardId::from("shardId-0");
        let kinds =
            |lines: Vec<(Change, ShardId, usize)>| lines.into_iter().map(|line| line.0).collect::<Vec<_>>();
        tally.note(at(0), lost(), &shard);
        tally.note(at(0), taken(), &shard);
        assert_eq!(kinds(tally.due(at(1000), false)), [lost(), taken()]);
        // Its own time has not come, but what follows it is written.
        tally.note(at(9_000), lost(), &shard);
        tally.note(at(9_000), Change::GivenUp, &shard);
        assert_eq!(kinds(tally.due(at(10_000), false)), [lost(), Change::GivenUp]);
        assert_eq!(tally.due(at(60_000), true), []);
    }
}
