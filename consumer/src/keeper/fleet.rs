//! The workers of the application, as this one sees them: who lives, and when leases may move between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardmill_checkpoint::{ProcessIdentity, WorkerId, WorkerRecord};
use shardmill_engine::{LeaseKey, Mono, MoveHistory};

/// How often leases are given to other workers for balance.
pub(super) const PLAN_INTERVAL: Duration = Duration::from_secs(5);
/// A dead worker's record is deleted after so many lease times, and not before [`FORGOTTEN_AFTER`].
const FORGOTTEN_LEASES: u32 = 10;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What changed among the other workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WorkerChange {
    /// It was not there, or was dead.
    Joined(WorkerId),
    /// It has removed its record, as it does at the end of an orderly stop.
    Left(WorkerId),
    /// Its process is dead, or it gave no sign of life for its lease time.
    Died(WorkerId),
}

#[derive(Debug)]
struct Peer {
    record: WorkerRecord,
    /// When its heartbeat was first seen as it is.
    changed: Mono,
    alive: bool,
}

/// The other workers, judged by this worker's own monotonic clock.
#[derive(Debug)]
pub(super) struct Fleet {
    me: WorkerId,
    lease: Duration,
    peers: BTreeMap<WorkerId, Peer>,
    history: MoveHistory,
    plan_at: Mono,
    /// No lease is taken before this: after an eviction.
    claims_from: Mono,
    looked: bool,
    /// The store keeps records of workers: this one's is there.
    recorded: bool,
}

impl Fleet {
    pub(super) fn new(me: WorkerId, lease: Duration) -> Self {
        Self {
            me,
            lease,
            peers: BTreeMap::new(),
            history: MoveHistory::default(),
            plan_at: Mono::from_millis(0),
            claims_from: Mono::from_millis(0),
            looked: false,
            recorded: false,
        }
    }

    /// Takes in the workers of a listing. Those that were there at the first look have not joined.
    pub(super) fn observe(
        &mut self,
        now: Mono,
        records: Vec<WorkerRecord>,
        mut is_dead: impl FnMut(&ProcessIdentity) -> bool,
    ) -> Vec<WorkerChange> {
        let mut changes = Vec::new();
        let mut before = std::mem::take(&mut self.peers);
        for record in records {
            let id = record.report.id.clone();
            if id == self.me {
                self.recorded = true;
                continue;
            }
            let old = before.remove(&id);
            let same = old.as_ref().filter(|old| old.record.heartbeat == record.heartbeat);
            let changed = same.map_or(now, |old| old.changed);
            let patience = record.report.lease_time.max(self.lease);
            let process_died = record.report.process.as_ref().is_some_and(&mut is_dead);
            let alive = !process_died && now < changed + patience;
            match (old.is_some_and(|old| old.alive), alive) {
                (false, true) if self.looked => changes.push(WorkerChange::Joined(id.clone())),
                (true, false) => changes.push(WorkerChange::Died(id.clone())),
                _ => {}
            }
            self.peers.insert(id, Peer { record, changed, alive });
        }
        changes
            .extend(before.into_iter().filter(|(_, peer)| peer.alive).map(|(id, _)| WorkerChange::Left(id)));
        self.looked = true;
        changes
    }

    /// The workers that live, except this one.
    pub(super) fn alive(&self) -> impl Iterator<Item = &WorkerRecord> {
        self.peers.values().filter(|peer| peer.alive).map(|peer| &peer.record)
    }

    /// Whether the worker has a record, dead or alive.
    pub(super) fn knows(&self, worker: &WorkerId) -> bool {
        self.peers.contains_key(worker)
    }

    /// Whether the worker is this one, or an earlier run under its name.
    pub(super) fn is_me(&self, worker: &WorkerId) -> bool {
        *worker == self.me
    }

    /// Whether another worker is believed to live; `None` if it has no record.
    pub(super) fn lives(&self, worker: &WorkerId) -> Option<bool> {
        self.peers.get(worker).map(|peer| peer.alive)
    }

    /// Whether a worker of another program lives.
    pub(super) fn has_foreign(&self) -> bool {
        self.alive().any(|record| record.report.foreign)
    }

    /// Whether the worker is another program's.
    pub(super) fn is_foreign(&self, worker: &WorkerId) -> bool {
        self.peers.get(worker).is_some_and(|peer| peer.record.report.foreign)
    }

    /// Whether the worker may get a lease now: nothing speaks against its being alive.
    pub(super) fn may_get(&self, worker: &WorkerId) -> bool {
        self.peers.get(worker).is_none_or(|peer| peer.alive && !peer.record.report.stopping)
    }

    /// Whether the worker is gone for certain: it is dead, or has removed its record.
    pub(super) fn has_left(&self, worker: &WorkerId) -> bool {
        self.recorded && *worker != self.me && self.peers.get(worker).is_none_or(|peer| !peer.alive)
    }

    /// All workers with a record, with when they were last seen to live and whether they are believed to.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&WorkerRecord, Mono, bool)> {
        self.peers.values().map(|peer| (&peer.record, peer.changed, peer.alive))
    }

    /// A worker that has been dead for so long that its record may go.
    pub(super) fn forgotten(&self, now: Mono) -> Option<&WorkerRecord> {
        let patience = (self.lease * FORGOTTEN_LEASES).max(FORGOTTEN_AFTER);
        let long_dead = |peer: &&Peer| !peer.alive && now >= peer.changed + patience;
        self.peers.values().find(long_dead).map(|peer| &peer.record)
    }

    /// Whether it is time to give leases to other workers; if so, the next time is an interval later.
    pub(super) fn begin_planning(
        &mut self,
        now: Mono,
        holders: impl Iterator<Item = (LeaseKey, Option<String>)>,
    ) -> bool {
        if now < self.plan_at {
            return false;
        }
        self.plan_at = now + PLAN_INTERVAL;
        let taking = self.alive().filter(|record| !record.report.stopping);
        let mut workers: BTreeSet<String> = taking.map(|record| record.report.id.to_string()).collect();
        workers.insert(self.me.to_string());
        self.history.observe(workers, holders);
        true
    }

    /// Whether the lease may move for balance.
    pub(super) fn is_settled(&self, lease: &LeaseKey) -> bool {
        self.history.is_settled(lease)
    }

    /// This worker was declared dead: it waits for a part of a lease time before it takes leases again, so that a worker
    /// with a bad connection does not take and lose them in turn.
    pub(super) fn evicted(&mut self, now: Mono) {
        self.claims_from = now + self.lease.mul_f64(fastrand::f64());
    }

    /// Whether this worker may take leases.
    pub(super) fn may_claim(&self, now: Mono) -> bool {
        now >= self.claims_from
    }
}

#[cfg(test)]
mod tests {
    use shardmill_checkpoint::WorkerReport;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn record(name: &str, heartbeat: u64) -> WorkerRecord {
        WorkerRecord::new(WorkerReport::new(WorkerId::new(name), LEASE), heartbeat)
    }

    fn fleet() -> Fleet {
        Fleet::new(WorkerId::new("me"), LEASE)
    }

    fn names(fleet: &Fleet) -> Vec<String> {
        fleet.alive().map(|record| record.report.id.to_string()).collect()
    }

    #[test]
    fn a_worker_lives_for_a_lease_time_after_its_heartbeat_was_seen_to_change() {
        let mut fleet = fleet();
        let look = |fleet: &mut Fleet, now, heartbeat| {
            fleet.observe(at(now), vec![record("a", heartbeat)], |_| false)
        };
        assert_eq!(look(&mut fleet, 0, 7), [], "who is there at the first look has not joined");
        assert_eq!(look(&mut fleet, 9_000, 8), []);
        assert_eq!(look(&mut fleet, 18_999, 8), []);
        assert_eq!(names(&fleet), ["a"]);
        let a = || WorkerId::new("a");
        assert_eq!(look(&mut fleet, 19_000, 8), [WorkerChange::Died(a())]);
        assert!(names(&fleet).is_empty() && !fleet.may_get(&a()));
        assert_eq!(look(&mut fleet, 20_000, 9), [WorkerChange::Joined(a())]);
        assert_eq!(fleet.observe(at(21_000), Vec::new(), |_| false), [WorkerChange::Left(a())]);
        assert!(!fleet.knows(&a()));
    }

    #[test]
    fn a_longer_lease_time_of_the_other_worker_counts() {
        let mut fleet = fleet();
        let mut slow = record("a", 1);
        slow.report.lease_time = LEASE * 6;
        fleet.observe(at(0), vec![slow.clone()], |_| false);
        assert_eq!(fleet.observe(at(59_999), vec![slow.clone()], |_| false), []);
        assert_eq!(
            fleet.observe(at(60_000), vec![slow], |_| false),
            [WorkerChange::Died(WorkerId::new("a"))]
        );
    }

    #[test]
    fn a_worker_whose_process_is_dead_is_dead_at_once() {
        let mut fleet = fleet();
        let mut here = record("a", 1);
        here.report.process = Some(ProcessIdentity { host: "h".into(), pid: 1, started: 1 });
        fleet.observe(at(0), vec![here.clone()], |_| false);
        assert_eq!(fleet.observe(at(1), vec![here], |_| true), [WorkerChange::Died(WorkerId::new("a"))]);
    }

    #[test]
    fn this_worker_is_none_of_the_others_and_a_dead_ones_record_goes_after_a_while() {
        let mut fleet = fleet();
        fleet.observe(at(0), vec![record("a", 1), record("me", 1)], |_| false);
        assert_eq!(names(&fleet), ["a"]);
        for (now, gone) in [(10_000, None), (599_999, None), (600_000, Some(&record("a", 1)))] {
            fleet.observe(at(now), vec![record("a", 1), record("me", 2)], |_| false);
            assert_eq!(fleet.forgotten(at(now)), gone);
        }
    }

    #[test]
    fn after_an_eviction_no_lease_is_taken_for_a_part_of_a_lease_time() {
        let mut fleet = fleet();
        assert!(fleet.may_claim(at(0)));
        fleet.evicted(at(1_000));
        assert!(fleet.may_claim(at(11_000)));
    }

    #[test]
    fn leases_are_given_once_in_an_interval_and_one_that_moved_stays_for_ten() {
        let (mut fleet, lease) = (fleet(), crate::keeper::tests::key("shardId-0"));
        let plan = |fleet: &mut Fleet, now, holder: &str| {
            fleet.begin_planning(at(now), std::iter::once((lease.clone(), Some(holder.to_owned()))))
        };
        fleet.observe(at(0), vec![record("a", 1)], |_| false);
        assert!(plan(&mut fleet, 0, "a"));
        assert!(!plan(&mut fleet, 4_999, "a"), "one plan in an interval");
        assert!(plan(&mut fleet, 5_000, "a") && fleet.is_settled(&lease));
        for round in 2..12 {
            assert!(plan(&mut fleet, round * 5_000, "me"));
            assert!(!fleet.is_settled(&lease), "it has just moved: round {round}");
        }
        assert!(plan(&mut fleet, 60_000, "me") && fleet.is_settled(&lease));
    }
}
