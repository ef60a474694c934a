//! Leases that are no longer needed.

use std::collections::{BTreeSet, HashMap};

use shardmill_checkpoint::Lease;
use shardmill_engine::{LeaseKey, LeaseNode, Mono, Position, ShardId, finished_leases};

use super::{Actor, Phase};

/// The deletion of finished leases: one call at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    Idle,
    UnderWay,
}

impl Actor {
    /// Deletes the leases of shards that are read to their end and gone from the stream, so that the store does not grow
    /// with every reshard. Every worker does: a lease that another one has just deleted is no longer there.
    pub(super) fn delete_finished<'l>(
        &mut self,
        now: Mono,
        leases: &'l [Lease],
        by_shard: &HashMap<&ShardId, &Lease>,
        gone: &BTreeSet<&ShardId>,
    ) {
        if self.deletion == Deletion::UnderWay || self.phase != Phase::Taking {
            return;
        }
        let is_gone = |lease: &Lease| {
            let long_absent =
                |lease: &Lease| self.entries.find(&lease.key).is_some_and(|entry| entry.long_absent);
            gone.contains(&lease.key.shard) || long_absent(lease)
        };
        if !leases.iter().any(|lease| lease.checkpoint == Position::ShardEnd && is_gone(lease)) {
            return;
        }
        let node = |lease: &'l Lease| LeaseNode {
            shard: &lease.key.shard,
            parents: &lease.parents,
            checkpoint: &lease.checkpoint,
            free: self.entries.find(&lease.key).is_some_and(|entry| entry.machine.is_free(now)),
            gone: is_gone(lease),
        };
        let nodes: Vec<LeaseNode<'_>> = leases.iter().map(node).collect();
        let finished: Vec<(LeaseKey, u64)> = finished_leases(&nodes)
            .into_iter()
            .filter_map(|shard| by_shard.get(shard))
            .map(|lease| (lease.key.clone(), lease.counter))
            .collect();
        if !finished.is_empty() {
            self.deletion = Deletion::UnderWay;
            self.calls.delete_ended(finished);
        }
    }
}
