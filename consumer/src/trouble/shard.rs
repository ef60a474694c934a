//! What keeps one shard from making progress, lane by lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shardmill_engine::{LaneId, Mono, Now, RequestId, ShardId, ShardSnapshot, Wall};

use super::told::brief;
use super::{BLOCKED_AFTER, CALM, Facts, Holder, TroubleKind, Troubles};
use crate::destination::DestinationError;
use crate::source::{SourceError, SourceErrorKind};

/// A lane whose last invocation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneTrouble {
    /// The lane.
    pub lane: LaneId,
    /// How its last invocation failed.
    pub kind: TroubleKind,
    /// Since when nothing of it has succeeded, by the service's clock.
    pub since: Wall,
    /// Failed invocations since then, those that did not reach the function included.
    pub failures: u32,
    /// What happened last.
    pub message: String,
}

#[derive(Debug)]
struct Lane {
    kinds: BTreeSet<TroubleKind>,
    last: TroubleKind,
    facts: Facts,
    failures: u32,
    since: Wall,
    last_failure: Mono,
    /// Since when the batches at its head fail; `None` once they are discarded.
    stuck: Option<Mono>,
    /// Its trouble was logged with the shard's name.
    is_named: bool,
    is_blocked: bool,
}

/// The trouble of one shard's run. Dropping it takes the shard out of the mapping's.
#[derive(Debug)]
pub(crate) struct ShardTrouble {
    shard: ShardId,
    troubles: Arc<Troubles>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Since when reads fail.
    unreadable: Option<Mono>,
    is_unreadable_told: bool,
    refuses: bool,
    /// When a page was read last, or the run began.
    read_at: Mono,
    has_read: bool,
}

impl ShardTrouble {
    pub(crate) fn new(shard: ShardId, troubles: Arc<Troubles>) -> Self {
        let read_at = troubles.clock().now().mono;
        Self {
            shard,
            troubles,
            lanes: BTreeMap::new(),
            unreadable: None,
            is_unreadable_told: false,
            refuses: false,
            read_at,
            has_read: false,
        }
    }

    fn holder(&self, lane: LaneId) -> Holder {
        Holder::Lane(self.shard.clone(), lane)
    }

    /// An invocation ended without progress.
    pub(crate) fn failed(&mut self, now: Now, lane: LaneId, kind: TroubleKind, facts: Facts) {
        // That a record fails and succeeds with its first retry is what partial responses are for.
        let is_usual = kind == TroubleKind::PartialFailure && !self.lanes.contains_key(&lane);
        let told = !is_usual && self.troubles.fails(kind, &self.holder(lane), &facts);
        let entry = self.lanes.entry(lane).or_insert_with(|| Lane {
            kinds: BTreeSet::new(),
            last: kind,
            facts: Facts::default(),
            failures: 0,
            since: now.wall,
            last_failure: now.mono,
            stuck: None,
            is_named: false,
            is_blocked: false,
        });
        entry.kinds.insert(kind);
        if entry.last.is_functions_absence() && !kind.is_functions_absence() {
            // While the function took nothing, its batch was not tried.
            entry.stuck = Some(now.mono);
        }
        entry.last = kind;
        entry.facts = facts;
        entry.failures = entry.failures.saturating_add(1);
        entry.last_failure = now.mono;
        entry.stuck.get_or_insert(now.mono);
        entry.is_named |= told;
    }

    /// An invocation reached the function.
    pub(crate) fn reached(&self) {
        self.troubles.reaches();
    }

    /// An invocation brought its lane further.
    pub(crate) fn succeeded(&mut self, lane: LaneId) {
        self.forget(lane);
    }

    fn forget(&mut self, lane: LaneId) {
        let Some(entry) = self.lanes.remove(&lane) else { return };
        let holder = self.holder(lane);
        if entry.is_blocked {
            self.troubles.unblocks(&holder);
        }
        for kind in entry.kinds {
            self.troubles.clears(kind, &holder);
        }
    }

    /// The delivery of a discarded batch begins.
    pub(crate) fn given_up(&mut self, request_id: RequestId) {
        let of_batch = |(_, entry): &(&LaneId, &Lane)| entry.facts.request_id == Some(request_id);
        if let Some((lane, _)) = self.lanes.iter().find(of_batch) {
            self.gave_up(*lane);
        }
    }

    /// This lane's batch is discarded: what follows it may proceed, but nothing has succeeded.
    pub(crate) fn gave_up(&mut self, lane: LaneId) {
        let Some(entry) = self.lanes.get_mut(&lane) else { return };
        let was_blocked = std::mem::take(&mut entry.is_blocked);
        entry.stuck = None;
        entry.is_named = false;
        if was_blocked {
            self.troubles.unblocks(&Holder::Lane(self.shard.clone(), lane));
        }
    }

    /// A read failed. It is logged unless that is usual: an expired iterator and a throttle are part of a healthy run,
    /// unless they last, and what is trimmed is reported as a gap.
    pub(crate) fn read_failed(&mut self, error: &SourceError) {
        let now = self.troubles.clock().now().mono;
        let since = *self.unreadable.get_or_insert(now);
        let is_usual = matches!(
            error.kind,
            SourceErrorKind::IteratorExpired | SourceErrorKind::Throttled | SourceErrorKind::Trimmed
        );
        if !is_usual || now.since(since) >= BLOCKED_AFTER {
            let facts = Facts { error: error.to_string(), ..Facts::default() };
            self.troubles.fails(TroubleKind::Reading, &self.holder(LaneId(0)), &facts);
            self.is_unreadable_told = true;
        }
    }

    pub(crate) fn was_read(&mut self, now: Mono) {
        (self.read_at, self.has_read, self.unreadable) = (now, true, None);
        if std::mem::take(&mut self.is_unreadable_told) {
            self.troubles.clears(TroubleKind::Reading, &self.holder(LaneId(0)));
        }
    }

    pub(crate) fn refused(&mut self, error: &DestinationError) {
        let facts = Facts { error: error.to_string(), ..Facts::default() };
        self.troubles.fails(TroubleKind::Destination, &self.holder(LaneId(0)), &facts);
        self.refuses = true;
    }

    pub(crate) fn delivered(&mut self) {
        if std::mem::take(&mut self.refuses) {
            self.troubles.clears(TroubleKind::Destination, &self.holder(LaneId(0)));
        }
    }

    /// Looks at what has lasted for long, either way.
    pub(crate) fn look(&mut self, now: Mono, snapshot: &ShardSnapshot) {
        if self.lanes.is_empty() {
            return;
        }
        let mut calm = Vec::new();
        for (lane, entry) in &mut self.lanes {
            let shown = snapshot.lanes.get(usize::from(lane.0));
            let has_batch = shown.is_some_and(|shown| shown.request_id.is_some());
            let is_stuck = entry.stuck.is_some_and(|since| now.since(since) >= BLOCKED_AFTER);
            if !has_batch && now.since(entry.last_failure) >= CALM {
                calm.push(*lane);
            } else if is_stuck && !entry.is_blocked && !entry.last.is_functions_absence() {
                entry.is_blocked = true;
                let holder = Holder::Lane(self.shard.clone(), *lane);
                self.troubles.blocks(&holder, entry.is_named, &entry.facts);
            }
        }
        for lane in calm {
            self.forget(lane);
        }
    }

    /// How long the oldest record has waited that is not resolved, as far as it is known: of one that was read since it
    /// arrived; of those that could not be read at most since the last page, or since the run began.
    pub(crate) fn oldest_waiting(&self, now: Mono, snapshot: &ShardSnapshot) -> Duration {
        let read = Duration::from_millis(snapshot.oldest_waiting_millis.unwrap_or(0));
        if snapshot.ended {
            return read;
        }
        let behind = Duration::from_millis(snapshot.millis_behind.unwrap_or(0));
        let unread = match self.has_read && snapshot.read_failures == 0 {
            true => behind,
            false => behind + now.since(self.read_at),
        };
        read.max(unread)
    }

    /// The lanes whose last invocation failed.
    pub(crate) fn lanes(&self) -> Vec<LaneTrouble> {
        let of = |(lane, entry): (&LaneId, &Lane)| LaneTrouble {
            lane: *lane,
            kind: entry.last,
            since: entry.since,
            failures: entry.failures,
            message: brief(&entry.facts.error),
        };
        self.lanes.iter().filter(|(_, entry)| entry.stuck.is_some()).map(of).collect()
    }
}

impl Drop for ShardTrouble {
    fn drop(&mut self) {
        self.troubles.leaves(&self.shard);
    }
}

#[cfg(test)]
mod tests {
    use shardmill_engine::{EventSourceMapping, Position, ShardMachine};

    use super::*;
    use crate::clock::ServiceClock;

    const LANE: LaneId = LaneId(0);

    /// A shard whose lane has no batch, and its mapping's trouble.
    fn shard() -> (ShardTrouble, Arc<Troubles>, ShardSnapshot) {
        let clock = ServiceClock::starting_at(Wall::from_millis(0));
        let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
        let mapping = Arc::new(EventSourceMapping::builder(arn, "orders-worker").build().unwrap());
        let now = clock.now();
        let machine = ShardMachine::new(mapping, "s".into(), Position::TrimHorizon, 1, now);
        let troubles = Arc::new(Troubles::new("orders".into(), clock));
        (ShardTrouble::new("s".into(), Arc::clone(&troubles)), troubles, machine.snapshot(now))
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Mono::from_millis(seconds * 1000), wall: Wall::from_millis(0) }
    }

    fn fails(shard: &mut ShardTrouble, seconds: u64, kind: TroubleKind, batch: u128) {
        let request_id = Some(RequestId::from_random(batch));
        shard.failed(at(seconds), LANE, kind, Facts { request_id, ..Facts::default() });
    }

    #[test]
    fn a_destination_that_is_slower_than_the_failing_function_blocks_no_lane() {
        let (mut shard, troubles, snapshot) = shard();
        for second in 0..200 {
            fails(&mut shard, second, TroubleKind::FunctionError, second.into());
            shard.gave_up(LANE);
            // Only now the delivery of a batch begins that was discarded long ago.
            shard.given_up(RequestId::from_random(second.saturating_sub(50).into()));
            fails(&mut shard, second, TroubleKind::FunctionError, u128::from(second) + 1);
            shard.look(at(second).mono, &snapshot);
        }
        assert_eq!(troubles.summary().0, 0);
        for second in 200..270 {
            fails(&mut shard, second, TroubleKind::FunctionError, 1000);
            shard.look(at(second).mono, &snapshot);
        }
        assert_eq!(troubles.summary().0, 1, "one that is not discarded is blocked");
    }

    #[test]
    fn the_time_for_which_the_function_took_nothing_does_not_block_a_batch() {
        for absence in [TroubleKind::NotReached, TroubleKind::Throttled] {
            let (mut shard, troubles, snapshot) = shard();
            let blocked = |shard: &mut ShardTrouble, second, kind| {
                fails(shard, second, kind, 1);
                shard.look(at(second).mono, &snapshot);
                troubles.summary().0
            };
            assert_eq!(blocked(&mut shard, 0, absence), 0);
            assert_eq!(blocked(&mut shard, 300, absence), 0);
            assert_eq!(blocked(&mut shard, 301, TroubleKind::FunctionError), 0);
            assert_eq!(blocked(&mut shard, 360, TroubleKind::FunctionError), 0);
            assert_eq!(blocked(&mut shard, 361, TroubleKind::FunctionError), 1);
        }
    }
}
