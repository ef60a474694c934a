//! Where a mapping's shards begin, in words: what resumes from checkpoints, what starts where, and whether the configured
//! starting position still means anything (R80).

use std::collections::BTreeMap;

use shardmill_checkpoint::{Lease, NewLease, WorkerId};
use shardmill_engine::Position;

use crate::notes::PINNED_START;

/// Under this name a lease remembers the starting position that was configured when it was made.
pub(crate) const STARTING_POSITION: &str = "startingPosition";

/// The starting position as a lease remembers it: `TRIM_HORIZON`, `LATEST`, or `AT_TIMESTAMP` and the milliseconds.
pub(crate) fn configured(position: &Position) -> String {
    match position {
        Position::AtTimestamp(time) => format!("AT_TIMESTAMP {time}"),
        Position::Latest => "LATEST".to_owned(),
        _ => "TRIM_HORIZON".to_owned(),
    }
}

/// What the first listing of a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// Shards with a stored position, finished ones aside.
    resume: usize,
    /// Of all shards that are not at their end, those that other workers own.
    elsewhere: usize,
    /// Shards at their end.
    finished: usize,
    /// Shards that have not been read yet, by the place where they begin.
    begin: BTreeMap<&'static str, usize>,
    /// What the starting position was when leases were made, if it differs from what it is now; and how many.
    changed: BTreeMap<String, usize>,
}

impl Beginning {
    pub(crate) fn of(position: &Position, worker: &WorkerId, known: &[Lease], new: &[NewLease]) -> Self {
        let mut found = Self::default();
        let now = configured(position);
        for lease in known {
            let is_elsewhere = lease.owner.as_ref().is_some_and(|owner| owner != worker);
            if is_elsewhere && lease.checkpoint != Position::ShardEnd {
                found.elsewhere += 1;
            }
            match &lease.checkpoint {
                Position::ShardEnd => found.finished += 1,
                Position::At(_) | Position::After(_) => found.resume += 1,
                _ if lease.app.contains_key(PINNED_START) => *found.begin.entry("LATEST").or_default() += 1,
                place => *found.begin.entry(named(place)).or_default() += 1,
            }
            let before = lease.app.get(STARTING_POSITION).cloned().or_else(|| {
                // An earlier version remembered LATEST only.
                lease.app.contains_key(PINNED_START).then(|| "LATEST".to_owned())
            });
            if let Some(before) = before.filter(|before| *before != now) {
                *found.changed.entry(before).or_default() += 1;
            }
        }
        for lease in new {
            let place = match position {
                Position::Latest if lease.app.contains_key(PINNED_START) => "LATEST",
                _ => named(&lease.checkpoint),
            };
            *found.begin.entry(place).or_default() += 1;
        }
        found
    }

    /// `4 shards resume from checkpoints, 2 begin at TRIM_HORIZON; other workers own 3 of them`.
    pub(crate) fn sentence(&self) -> String {
        let shards = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 shard {one}"),
            _ => format!("{count} shards {many}"),
        };
        let mut parts = Vec::new();
        if self.resume > 0 || self.begin.is_empty() {
            parts.push(shards(self.resume, "resumes from its checkpoint", "resume from checkpoints"));
        }
        for (place, count) in &self.begin {
            let part = shards(*count, "begins at", "begin at");
            parts.push(format!("{part} {place}"));
        }
        if self.finished > 0 {
            parts.push(shards(self.finished, "was finished before", "were finished before"));
        }
        let mut sentence = parts.join(", ");
        if self.elsewhere > 0 {
            // They are not this worker's to read, unless it takes them over.
            sentence.push_str(&format!("; other workers own {} of them", self.elsewhere));
        }
        sentence
    }

    /// A message that a changed starting position has no effect; `None` if it has not changed.
    pub(crate) fn without_effect(&self, position: &Position) -> Option<String> {
        let (before, shards) = self.changed.iter().next()?;
        let total: usize = self.changed.values().sum();
        Some(format!(
            "StartingPosition is {} now and was {before} when the positions of {} shards were first stored ({shards} of them): \
             it has no effect on those; to read them from there, write another Name (and no UUID or another one)",
            configured(position),
            total
        ))
    }
}

fn named(place: &Position) -> &'static str {
    match place {
        Position::AtTimestamp(_) => "AT_TIMESTAMP",
        Position::Latest => "LATEST",
        _ => "TRIM_HORIZON",
    }
}

#[cfg(test)]
mod tests {
    use shardmill_checkpoint::AppState;
    use shardmill_engine::{LeaseKey, Seq};

    use super::*;

    fn key(shard: &str) -> LeaseKey {
        LeaseKey {
            account: "1".into(),
            region: "r".into(),
            stream: "s".into(),
            epoch: "e".into(),
            shard: shard.into(),
        }
    }

    fn new(app: &[(&str, &str)], checkpoint: Position) -> NewLease {
        let app: AppState = app.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NewLease { key: key("a"), checkpoint, parents: Vec::new(), hash_range: None, app }
    }

    fn lease(app: &[(&str, &str)], checkpoint: Position) -> Lease {
        new(app, checkpoint).into()
    }

    fn me() -> WorkerId {
        WorkerId::new("me")
    }

    fn after() -> Position {
        Position::After(Seq::plain("7"))
    }

    #[test]
    fn incident_99_a_start_says_how_many_shards_resume_and_where_the_others_begin() {
        let horizon = Position::TrimHorizon;
        let known = [lease(&[], after()), lease(&[], after()), lease(&[], Position::ShardEnd)];
        let found =
            Beginning::of(&horizon, &me(), &known, &[new(&[], horizon.clone()), new(&[], horizon.clone())]);
        assert_eq!(
            found.sentence(),
            "2 shards resume from checkpoints, 2 shards begin at TRIM_HORIZON, 1 shard was finished before"
        );
        let only_new = Beginning::of(&horizon, &me(), &[], &[new(&[], horizon.clone())]);
        assert_eq!(only_new.sentence(), "1 shard begins at TRIM_HORIZON");
        let pinned = [(PINNED_START, "1700000000000")];
        let latest = Beginning::of(&Position::Latest, &me(), &[], &[new(&pinned, Position::AtTimestamp(7))]);
        assert_eq!(latest.sentence(), "1 shard begins at LATEST");
        assert_eq!(Beginning::default().sentence(), "0 shards resume from checkpoints");
    }

    #[test]
    fn a_worker_that_stands_by_says_that_others_own_the_shards() {
        let owned = |owner: &str, checkpoint| {
            let mut lease = lease(&[], checkpoint);
            lease.owner = Some(WorkerId::new(owner));
            lease
        };
        let horizon = Position::TrimHorizon;
        let known = [owned("other", after()), owned("me", after()), owned("other", Position::ShardEnd)];
        let found = Beginning::of(&horizon, &me(), &known, &[]);
        assert_eq!(
            found.sentence(),
            "2 shards resume from checkpoints, 1 shard was finished before; other workers own 1 of them"
        );
    }

    #[test]
    fn incident_99_a_starting_position_that_was_changed_and_has_no_effect_is_said() {
        let stored = [(STARTING_POSITION, "TRIM_HORIZON")];
        let known = [lease(&stored, after()), lease(&[], after())];
        let said =
            |position: Position| Beginning::of(&position, &me(), &known, &[]).without_effect(&position);
        assert_eq!(said(Position::TrimHorizon), None);
        let changed = said(Position::AtTimestamp(7)).unwrap();
        assert!(changed.contains("is AT_TIMESTAMP 7 now and was TRIM_HORIZON"), "{changed}");
        assert!(changed.contains("another Name"), "{changed}");
        // What an earlier version stored distinguishes LATEST from the rest.
        let pinned = [lease(&[(PINNED_START, "7")], after())];
        assert_eq!(
            Beginning::of(&Position::Latest, &me(), &pinned, &[]).without_effect(&Position::Latest),
            None
        );
        let horizon = Beginning::of(&Position::TrimHorizon, &me(), &pinned, &[]);
        assert!(horizon.without_effect(&Position::TrimHorizon).unwrap().contains("was LATEST"));
    }
}
