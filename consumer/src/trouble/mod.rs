//! Which trouble of a mapping is logged, and when: one line when it begins, one when it is over, never a line per batch
//! (docs/adr/0027). Decisions only; `told` writes the lines.

mod ended;
mod shard;
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use shardmill_engine::{LaneId, Mono, ShardId, Wall};

pub(crate) use ended::Ended;
pub use shard::LaneTrouble;
pub(crate) use shard::ShardTrouble;
pub(crate) use told::{Facts, Troubles};

/// Trouble that begins again within this time of its end comes and goes: it is logged once more, and is over only when
/// nothing of its kind has failed for as long.
pub(crate) const CALM: Duration = Duration::from_secs(300);

/// A batch that is tried for so long without success blocks its lane.
pub(crate) const BLOCKED_AFTER: Duration = Duration::from_secs(60);

/// At most so many blocked shards of a mapping are named in the log at the same time; the minute's line counts them all.
const NAMED_BLOCKED: usize = 10;

/// The kind of trouble. Each kind is logged once per mapping, regardless of how many shards are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TroubleKind {
    /// The function is not reached; no attempt is spent (R23).
    NotReached,
    /// The function is there and takes no invocation now: it answers 429 or requests a back-off (`Retry-After`). No
    /// attempt is spent (R23).
    Throttled,
    /// The function fails: an error answer, an exception, an answer that is not JSON (R19).
    FunctionError,
    /// The function does not answer within its timeout.
    Timeout,
    /// The function's process ended, or the handler panicked, during an invocation.
    Crash,
    /// A single record's event is larger than the function takes (R24).
    TooLarge,
    /// The answer names something that is no record of the batch (R35).
    UnusableAnswer,
    /// The answer lacks the state of its tumbling window (R66).
    NoState,
    /// The function reports the first record of its batch as failed: there is no progress.
    PartialFailure,
    /// A batch has been tried for a minute without success.
    Blocked,
    /// A shard cannot be read.
    Reading,
    /// The on-failure destination does not take what it is given.
    Destination,
}

impl TroubleKind {
    /// The name in logs, status and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReached => "not_reached",
            Self::Throttled => "throttled",
            Self::FunctionError => "function_error",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
            Self::TooLarge => "too_large",
            Self::UnusableAnswer => "unusable_answer",
            Self::NoState => "no_state",
            Self::PartialFailure => "partial_failure",
            Self::Blocked => "blocked",
            Self::Reading => "reading",
            Self::Destination => "destination",
        }
    }

    /// Whether the function took no invocation, so that its batch was not tried.
    const fn is_functions_absence(self) -> bool {
        matches!(self, Self::NotReached | Self::Throttled)
    }
}

/// What is in trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Holder {
    /// The probe of the function before there are records.
    Probe,
    /// A lane of a shard; the first one also for what concerns the whole shard.
    Lane(ShardId, LaneId),
}

impl Holder {
    pub(crate) const fn shard(&self) -> Option<&ShardId> {
        match self {
            Self::Probe => None,
            Self::Lane(shard, _) => Some(shard),
        }
    }

    /// All lanes of a shard, in the order of holders.
    fn lanes_of(shard: &ShardId) -> std::ops::RangeInclusive<Self> {
        Self::Lane(shard.clone(), LaneId(0))..=Self::Lane(shard.clone(), LaneId(u16::MAX))
    }
}

/// Trouble that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TroubleReport {
    /// What kind.
    pub kind: TroubleKind,
    /// Since when, by the service's clock.
    pub since: Wall,
    /// How many lanes of shards are in it now; 0 while it comes and goes and nothing fails at the moment.
    pub lanes: usize,
    /// Failures since it began.
    pub failures: u64,
    /// The shard that it began with; `None` if it was found without a record.
    pub shard: Option<ShardId>,
    /// What happened last.
    pub message: String,
}

/// Trouble that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) kind: TroubleKind,
    pub(crate) lasted: Duration,
    pub(crate) failures: u64,
    /// The most lanes that were in it at the same time.
    pub(crate) lanes: usize,
}

/// What is to be logged about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// It is logged already.
    Nothing,
    Begins,
    /// It was over not long ago: from now on it is logged only when it has been calm for a while, or has lasted for a
    /// minute.
    ComesAndGoes,
}

/// Trouble that comes and goes has lasted for a minute this time: its end is logged as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lasts {
    pub(crate) kind: TroubleKind,
    pub(crate) shard: Option<ShardId>,
    pub(crate) message: String,
}

#[derive(Debug)]
struct Entry {
    since: Mono,
    since_wall: Wall,
    /// The lanes in it, and since when.
    holders: BTreeMap<Holder, Mono>,
    most: usize,
    failures: u64,
    shard: Option<ShardId>,
    message: String,
    comes_and_goes: bool,
    last_failure: Mono,
}

impl Entry {
    fn over(&self, kind: TroubleKind, at: Mono) -> Over {
        let (lasted, failures) = (at.since(self.since), self.failures);
        Over { kind, lasted, failures, lanes: self.most }
    }
}

/// The trouble of one mapping.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lasting: BTreeMap<TroubleKind, Entry>,
    ended: BTreeMap<TroubleKind, Mono>,
    /// Blocked lanes, since when, and whether they were named.
    blocked: BTreeMap<Holder, (Mono, bool)>,
}

impl Ledger {
    /// Something failed.
    pub(crate) fn fails(
        &mut self,
        now: Mono,
        wall: Wall,
        kind: TroubleKind,
        holder: &Holder,
        message: &str,
    ) -> Say {
        if let Some(entry) = self.lasting.get_mut(&kind) {
            entry.failures += 1;
            entry.last_failure = now;
            message.clone_into(&mut entry.message);
            entry.holders.entry(holder.clone()).or_insert(now);
            entry.most = entry.most.max(entry.holders.len());
            return Say::Nothing;
        }
        let comes_and_goes = self.ended.remove(&kind).is_some_and(|ended| now.since(ended) < CALM);
        let entry = Entry {
            since: now,
            since_wall: wall,
            holders: BTreeMap::from([(holder.clone(), now)]),
            most: 1,
            failures: 1,
            shard: holder.shard().cloned(),
            message: message.to_owned(),
            comes_and_goes,
            last_failure: now,
        };
        self.lasting.insert(kind, entry);
        if comes_and_goes { Say::ComesAndGoes } else { Say::Begins }
    }

    /// This holder is out of this kind of trouble.
    pub(crate) fn clears(&mut self, now: Mono, kind: TroubleKind, holder: &Holder) -> Option<Over> {
        let entry = self.lasting.get_mut(&kind)?;
        entry.holders.remove(holder);
        self.end_if_over(now, kind)
    }

    /// All shards are out of this kind of trouble.
    pub(crate) fn clears_all(&mut self, now: Mono, kind: TroubleKind) -> Option<Over> {
        let entry = self.lasting.get_mut(&kind)?;
        entry.holders.clear();
        self.end_if_over(now, kind)
    }

    fn end_if_over(&mut self, now: Mono, kind: TroubleKind) -> Option<Over> {
        let entry = self.lasting.get(&kind).filter(|entry| entry.holders.is_empty())?;
        if entry.comes_and_goes && now.since(entry.last_failure) < CALM {
            return None;
        }
        let at = if entry.comes_and_goes { entry.last_failure } else { now };
        let over = entry.over(kind, at);
        // A function that is not there yet at the start has not come and gone.
        let is_known = entry.shard.is_some();
        self.lasting.remove(&kind);
        if is_known {
            self.ended.insert(kind, now);
        }
        Some(over)
    }

    /// What came and went and has been calm for long enough.
    pub(crate) fn calms(&mut self, now: Mono) -> Vec<Over> {
        let kinds: Vec<TroubleKind> = self.lasting.keys().copied().collect();
        kinds.into_iter().filter_map(|kind| self.end_if_over(now, kind)).collect()
    }

    /// What comes and goes, and has lasted for a minute without a pause for one lane.
    pub(crate) fn lasts_again(&mut self, now: Mono) -> Vec<Lasts> {
        let mut found = Vec::new();
        for (kind, entry) in &mut self.lasting {
            let longest = entry.holders.iter().min_by_key(|(_, since)| **since);
            let Some((holder, since)) = longest.filter(|_| entry.comes_and_goes) else { continue };
            if now.since(*since) >= BLOCKED_AFTER {
                entry.comes_and_goes = false;
                let (shard, message) = (holder.shard().cloned(), entry.message.clone());
                found.push(Lasts { kind: *kind, shard, message });
            }
        }
        found
    }

    /// This lane's batch is blocked; whether its shard is to be named now.
    pub(crate) fn blocks(&mut self, now: Mono, holder: &Holder, is_named: bool) -> bool {
        if self.blocked.contains_key(holder) {
            return false;
        }
        let named = self.blocked.values().filter(|(_, named)| *named).count();
        let names = !is_named && named < NAMED_BLOCKED;
        self.blocked.insert(holder.clone(), (now, names));
        names
    }

    /// The lane makes progress: since when it was blocked, if that was logged.
    pub(crate) fn unblocks(&mut self, holder: &Holder) -> Option<Mono> {
        self.blocked.remove(holder).filter(|(_, named)| *named).map(|(since, _)| since)
    }

    /// This worker no longer reads the shard: the trouble that ends with it here.
    pub(crate) fn leaves(&mut self, now: Mono, shard: &ShardId) -> Vec<Over> {
        let lanes = Holder::lanes_of(shard);
        let blocked: Vec<Holder> =
            self.blocked.range(lanes.clone()).map(|(holder, _)| holder.clone()).collect();
        for holder in &blocked {
            self.blocked.remove(holder);
        }
        let mut kinds = Vec::new();
        for (kind, entry) in &mut self.lasting {
            let gone: Vec<Holder> =
                entry.holders.range(lanes.clone()).map(|(holder, _)| holder.clone()).collect();
            for holder in &gone {
                entry.holders.remove(holder);
            }
            if !gone.is_empty() {
                kinds.push(*kind);
            }
        }
        kinds.into_iter().filter_map(|kind| self.end_if_over(now, kind)).collect()
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = TroubleKind> + '_ {
        self.lasting.keys().copied()
    }

    pub(crate) fn lasts(&self, kind: TroubleKind) -> bool {
        self.lasting.get(&kind).is_some_and(|entry| !entry.holders.is_empty())
    }

    /// How many lanes are in it.
    pub(crate) fn lanes(&self, kind: TroubleKind) -> usize {
        self.lasting.get(&kind).map_or(0, |entry| entry.holders.len())
    }

    pub(crate) fn blocked(&self) -> usize {
        self.blocked.len()
    }

    pub(crate) fn report(&self) -> Vec<TroubleReport> {
        let of = |(kind, entry): (&TroubleKind, &Entry)| TroubleReport {
            kind: *kind,
            since: entry.since_wall,
            lanes: entry.holders.len(),
            failures: entry.failures,
            shard: entry.shard.clone(),
            message: entry.message.clone(),
        };
        self.lasting.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests;
