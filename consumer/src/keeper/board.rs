//! What the keeper shows of its work.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shardmill_checkpoint::{Lease, UnreadableLease, WorkerRecord, WorkerReport};
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
    trouble: Mutex<Option<ErrorReport>>,
}

/// A lease as the store had it when it was last listed, regardless of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseReport {
    /// The shard.
    pub shard: ShardId,
    /// The worker that owns it.
    pub owner: Option<String>,
    /// The worker that gets it as soon as this worker, which holds it, has finished what runs.
    pub moving_to: Option<String>,
    /// How far it has come.
    pub checkpoint: Position,
    /// When this worker first saw it with this owner and this sign of the owner's life (monotonic clock, [`Mono`]).
    pub renewed: Mono,
    /// When this worker first saw it with this checkpoint.
    pub checkpointed: Mono,
    sign: LifeSign,
}

/// Another worker of the application, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetReport {
    /// What it reported with its last heartbeat.
    pub worker: WorkerReport,
    /// Whether it is believed to live.
    pub alive: bool,
    /// When this worker saw its last heartbeat (monotonic clock, [`Mono`]).
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

    /// The other workers of the application, as they were last listed.
    pub(crate) fn fleet(&self) -> Vec<FleetReport> {
        self.fleet.lock().clone()
    }

    pub(super) fn set_fleet(&self, fleet: &Fleet) {
        let report = |(record, heartbeat, alive): (&WorkerRecord, Mono, bool)| FleetReport {
            worker: record.report.clone(),
            alive,
            heartbeat,
        };
        *self.fleet.lock() = fleet.peers().map(report).collect();
    }

    /// Takes in the stream's leases, in the order of their shards.
    pub(super) fn set_listed(
        &self,
        now: Mono,
        leases: &[Lease],
        moving_to: impl Fn(&Lease) -> Option<String>,
    ) {
        let mut listed = self.listed.lock();
        let before = std::mem::take(&mut *listed);
        listed.extend(leases.iter().map(|lease| {
            let old =
                before.binary_search_by(|old| old.shard.cmp(&lease.key.shard)).ok().map(|at| &before[at]);
            let owner = lease.owner.as_ref().map(ToString::to_string);
            let sign = lease.life_sign();
            let same_sign = old.filter(|old| old.sign == sign && old.owner == owner);
            let same_place = old.filter(|old| old.checkpoint == lease.checkpoint);
            LeaseReport {
                shard: lease.key.shard.clone(),
                owner,
                moving_to: moving_to(lease),
                checkpoint: lease.checkpoint.clone(),
                renewed: same_sign.map_or(now, |old| old.renewed),
                checkpointed: same_place.map_or(now, |old| old.checkpointed),
                sign,
            }
        }));
    }
}
