//! What the keeper shows of its work.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shardmill_checkpoint::{Lease, UnreadableLease};
use shardmill_engine::{Mono, Position, ShardId};

use crate::error_report::ErrorReport;

/// What the keeper shows of its work.
#[derive(Debug, Default)]
pub(crate) struct Board {
    ticked: AtomicU64,
    listed: Mutex<Vec<LeaseReport>>,
    unreadable: Mutex<Vec<UnreadableLease>>,
    trouble: Mutex<Option<ErrorReport>>,
}

/// A lease as the store had it when it was last listed, regardless of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// The shard.
    pub shard: ShardId,
    /// The worker that owns it.
    pub owner: Option<String>,
    /// How far it has come.
    pub checkpoint: Position,
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

    pub(super) fn set_listed(&self, leases: &[Lease]) {
        let report = |lease: &Lease| LeaseReport {
            shard: lease.key.shard.clone(),
            owner: lease.owner.as_ref().map(ToString::to_string),
            checkpoint: lease.checkpoint.clone(),
        };
        let listed = leases.iter().map(report).collect();
        *self.listed.lock() = listed;
    }
}
