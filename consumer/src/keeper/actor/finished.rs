//! Leases that nobody needs any more.

use std::collections::{BTreeSet, HashMap, HashSet};

use shardmill_checkpoint::Lease;
use shardmill_engine::{
    LeaseEvent, LeaseKey, LeaseNode, LeasePhase, Mono, Position, ShardId, finished_leases,
};

use super::Actor;
use crate::keeper::entry::Entry;

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
        if self.deleting || self.retired {
            return;
        }
        let entry = |lease: &Lease| self.by_key.get(&lease.key).map(|index| &self.entries[*index]);
        let node = |lease: &'l Lease| LeaseNode {
            shard: &lease.key.shard,
            parents: &lease.parents,
            checkpoint: &lease.checkpoint,
            free: entry(lease).is_some_and(|entry| entry.machine.is_free(now)),
            gone: gone.contains(&lease.key.shard) || entry(lease).is_some_and(|entry| entry.long_absent),
        };
        let nodes: Vec<LeaseNode<'_>> = leases.iter().map(node).collect();
        if !nodes.iter().any(|node| node.gone && *node.checkpoint == Position::ShardEnd) {
            return;
        }
        let finished: Vec<(LeaseKey, u64)> = finished_leases(&nodes)
            .into_iter()
            .filter_map(|shard| by_shard.get(shard))
            .map(|lease| (lease.key.clone(), lease.counter))
            .collect();
        if !finished.is_empty() {
            self.deleting = true;
            self.running.push(self.calls.delete_ended(finished));
        }
    }

    /// Forgets what the store no longer has, so that memory does not grow with every reshard.
    pub(super) fn forget_deleted(&mut self, leases: &[Lease]) {
        if self.by_key.len() <= leases.len() {
            return;
        }
        let there: HashSet<&LeaseKey> = leases.iter().map(|lease| &lease.key).collect();
        let is_left =
            |entry: &Entry| entry.machine.phase() == LeasePhase::Watching && entry.validity.is_none();
        let deleted: Vec<(LeaseKey, usize)> = self
            .by_key
            .iter()
            .filter(|(key, index)| !there.contains(key) && is_left(&self.entries[**index]))
            .map(|(key, index)| (key.clone(), *index))
            .collect();
        for (key, index) in deleted {
            self.by_key.remove(&key);
            let entry = &mut self.entries[index];
            entry.machine.handle_event(self.list_at, LeaseEvent::Wanted(false));
            if let Some(at) = entry.wakes_at.take() {
                self.timers.remove(&(at, index));
            }
            self.vacant.push(index);
        }
    }
}
