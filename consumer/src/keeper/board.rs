//! What the keeper shows of its work.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use shardmill_checkpoint::{Lease, UnreadableLease, WorkerId, WorkerRecord, WorkerReport};
use shardmill_engine::{LifeSign, Mono, Position, ShardId};

use super::fleet::Fleet;
use crate::error_report::ErrorReport;

/// What the keeper shows of its work.
#[derive(Debug, Default)]
pub(crate) struct Board {
    ticked: AtomicU64,
    listed: Mutex<Vec<LeaseReport>>,
    fleet: Mutex<Vec<FleetReport>>,
    unreadable: Mutex<Vec<UnreadableLease>>,
    unplaced: AtomicUsize,
    /// Records that were read in the last minute and 1; 0 before the first minute is over.
    minute: AtomicU64,
    trouble: Mutex<Option<ErrorReport>>,
}

/// A lease as the store had it when it was last listed, regardless of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseReport {
    /// The shard.
    pub shard: ShardId,
    /// The worker that has it: during a handoff the old one.
    pub owner: Option<String>,
    /// Whether that one is believed to live. A dead one's leases are taken after their lease time.
    pub owner_alive: bool,
    /// The worker that gets it: as soon as its owner has finished what runs, or, without an owner, as soon as it sees that it was
    /// given the lease.
    pub moving_to: Option<String>,
    /// How far it has come.
    pub checkpoint: Position,
    /// When this worker first saw it with this owner and this sign of the owner's life (monotonic clock, [`Mono`]).
    pub renewed: Mono,
    /// When this worker first saw it with this checkpoint.
    pub checkpointed: Mono,
    sign: LifeSign,
}

/// A worker of the application, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetReport {
    /// What it reported with its last heartbeat.
    pub worker: WorkerReport,
    /// It is this worker itself.
    pub is_self: bool,
    /// Whether it is believed to live.
    pub alive: bool,
    /// When this worker saw its last heartbeat, or sent its own last one that is durable (monotonic clock, [`Mono`]).
    pub heartbeat: Mono,
}

impl Board {
    /// When the keeper's loop last completed an iteration, on the clock of [`Mono`].
    pub(crate) fn ticked(&self) -> Mono {
        Mono::from_millis(self.ticked.load(Ordering::Relaxed))
    }

    pub(super) fn tick(&self, now: Mono) {
        self.ticked.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Every lease of the stream, as it was last listed.
    pub(crate) fn listed(&self) -> Vec<LeaseReport> {
        self.listed.lock().clone()
    }

    /// Leases of the stream that the store cannot read.
    pub(crate) fn unreadable(&self) -> Vec<UnreadableLease> {
        self.unreadable.lock().clone()
    }

    /// What the store fails with, and since when.
    pub(crate) fn trouble(&self) -> Option<ErrorReport> {
        self.trouble.lock().clone()
    }

    pub(super) fn set_unreadable(&self, unreadable: Vec<UnreadableLease>) {
        *self.unreadable.lock() = unreadable;
    }

    pub(super) fn set_trouble(&self, trouble: Option<ErrorReport>) {
        *self.trouble.lock() = trouble;
    }

    /// The workers of the application, as they were last listed.
    pub(crate) fn fleet(&self) -> Vec<FleetReport> {
        self.fleet.lock().clone()
    }

    /// Takes in the other workers, and this one's last heartbeat that is durable.
    pub(super) fn set_fleet(&self, now: Mono, fleet: &Fleet, own: Option<(WorkerReport, Mono)>) {
        let report = |(record, heartbeat, alive): (&WorkerRecord, Mono, bool)| FleetReport {
            worker: record.report.clone(),
            is_self: false,
            alive,
            heartbeat,
        };
        let own = own.map(|(worker, heartbeat)| {
            let alive = now < heartbeat + worker.lease_time;
            FleetReport { worker, is_self: true, alive, heartbeat }
        });
        *self.fleet.lock() = own.into_iter().chain(fleet.peers().map(report)).collect();
    }

    /// Leases that no worker may take: each has its maximum.
    pub(crate) fn unplaced(&self) -> usize {
        self.unplaced.load(Ordering::Relaxed)
    }

    pub(super) fn set_unplaced(&self, leases: usize) {
        self.unplaced.store(leases, Ordering::Relaxed);
    }

    /// The records that were read in the last minute, once there was one.
    pub(super) fn minute(&self) -> Option<u64> {
        self.minute.load(Ordering::Relaxed).checked_sub(1)
    }

    /// A minute has ended, in which so many records were read.
    pub(crate) fn set_minute(&self, records: u64) {
        self.minute.store(records.saturating_add(1), Ordering::Relaxed);
    }

    /// Takes in the stream's leases, in the order of their shards. `next` is the worker to which this one gives a lease, and
    /// `lives` tells of an owner whether it is believed to live.
    pub(super) fn set_listed(
        &self,
        now: Mono,
        leases: &[Lease],
        next: impl Fn(&Lease) -> Option<String>,
        lives: impl Fn(&Lease, &WorkerId) -> bool,
    ) {
        let mut listed = self.listed.lock();
        let before = std::mem::take(&mut *listed);
        listed.extend(leases.iter().map(|lease| {
            let old =
                before.binary_search_by(|old| old.shard.cmp(&lease.key.shard)).ok().map(|at| &before[at]);
            let holder = lease.holder();
            let owner = holder.map(ToString::to_string);
            let given = lease.owner.as_ref().filter(|owner| holder != Some(*owner));
            let sign = lease.life_sign();
            let same_sign = old.filter(|old| old.sign == sign && old.owner == owner);
            let same_place = old.filter(|old| old.checkpoint == lease.checkpoint);
            LeaseReport {
                shard: lease.key.shard.clone(),
                owner,
                owner_alive: holder.is_some_and(|holder| lives(lease, holder)),
                moving_to: given.map(ToString::to_string).or_else(|| next(lease)),
                checkpoint: lease.checkpoint.clone(),
                renewed: same_sign.map_or(now, |old| old.renewed),
                checkpointed: same_place.map_or(now, |old| old.checkpointed),
                sign,
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_shown_with_who_has_it_and_who_gets_it() {
        let name = |name: &str| Some(WorkerId::new(name));
        let [a, b] = ["a", "b"].map(|name| Some(name.to_owned()));
        let cases = [
            // token, owner, checkpoint owner, given by this worker to: owner, alive, next
            (None, None, None, None, (None, false, None)),
            (Some("t"), name("a"), None, None, (a.clone(), true, None)),
            (Some("t"), name("a"), None, b.clone(), (a.clone(), true, b.clone())),
            (Some("t"), name("b"), name("a"), None, (a.clone(), true, b.clone())),
            (None, name("b"), None, None, (None, false, b.clone())),
            (Some("t"), name("b"), None, None, (b, false, None)),
        ];
        for (token, owner, checkpoint_owner, next, shown) in cases {
            let mut lease: Lease = crate::keeper::tests::new_lease("shardId-0").into();
            lease.token = token.map(str::to_owned);
            (lease.owner, lease.checkpoint_owner) = (owner, checkpoint_owner);
            let board = Board::default();
            board.set_listed(Mono::default(), &[lease], |_| next.clone(), |_, owner| owner.as_str() == "a");
            let LeaseReport { owner, owner_alive, moving_to, .. } = board.listed().remove(0);
            assert_eq!((owner, owner_alive, moving_to), shown);
        }
    }
}
