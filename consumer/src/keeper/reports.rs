//! What the keeper reports of its work: log lines, metrics and the [`Board`].

use std::collections::BTreeSet;
use std::sync::Arc;

use shardmill_checkpoint::{Lease, LeaseStore, UnreadableLease};
use shardmill_engine::{Mono, Now, ShardId};

use super::board::Board;
use super::tally::{Change, Free, Loss, Tally};
use super::trouble::{Answer, StoreTrouble};
use crate::metrics;

pub(super) struct Reports {
    mapping: Arc<str>,
    store: Arc<dyn LeaseStore>,
    board: Arc<Board>,
    trouble: StoreTrouble,
    /// Changes of leases that wait for their line in the log.
    tally: Tally,
    /// Shards whose leases cannot be read.
    unreadable: BTreeSet<ShardId>,
}

impl Reports {
    pub(super) fn new(
        mapping: Arc<str>,
        store: Arc<dyn LeaseStore>,
        board: Arc<Board>,
        trouble: StoreTrouble,
    ) -> Self {
        Self { mapping, store, board, trouble, tally: Tally::default(), unreadable: BTreeSet::new() }
    }

    /// The keeper's loop has completed an iteration: reports what has waited for long enough.
    pub(super) fn tick(&mut self, now: Mono) {
        self.board.tick(now);
        if let Some(ended) = self.trouble.poll(now) {
            tracing::info!(
                mapping = %self.mapping,
                store = %self.store.describe(),
                failures = ended.failures,
                seconds = ended.lasted.as_secs(),
                "the checkpoint store answers again"
            );
            metrics::store_failing(&self.mapping, false);
            self.board.set_trouble(None);
        }
        self.tally.write(now, false, &self.mapping);
    }

    /// Reports what has waited, however short.
    pub(super) fn flush(&mut self, now: Mono) {
        self.tally.write(now, true, &self.mapping);
    }

    /// Takes in what a call shows about the store; reports once that it fails.
    pub(super) fn answer(&mut self, now: Now, answer: Answer) {
        let failed = matches!(answer, Answer::Failed(..));
        if self.trouble.note(now, answer) {
            let error = self.trouble.report().map(|report| report.message);
            tracing::warn!(
                mapping = %self.mapping, error,
                "the checkpoint store fails; trying again until reads and writes succeed"
            );
            metrics::store_failing(&self.mapping, true);
        }
        if failed {
            metrics::store_failed(&self.mapping);
            self.board.set_trouble(self.trouble.report());
        }
    }

    pub(super) fn checkpointed(&self, now: Mono, sent: Mono) {
        metrics::checkpoint_written(&self.mapping, now.since(sent));
    }

    pub(super) fn took(&mut self, now: Mono, shard: &ShardId, from: Option<String>, why: Free) {
        self.tally.note(now, Change::Taken { from, why }, shard);
    }

    pub(super) fn lost(&mut self, now: Mono, shard: &ShardId, loss: Loss) {
        tracing::debug!(mapping = %self.mapping, %shard, ?loss, "lost the lease");
        self.tally.note(now, Change::Lost(loss), shard);
        metrics::lease_lost(&self.mapping);
    }

    pub(super) fn gave_up(&mut self, now: Mono, shard: &ShardId) {
        self.tally.note(now, Change::GivenUp, shard);
    }

    pub(super) fn holds(&self, leases: usize) {
        metrics::leases_held(&self.mapping, leases);
    }

    pub(super) fn deleted(&self, leases: usize) {
        tracing::debug!(leases, "deleted the leases of finished shards that the stream has forgotten");
        metrics::leases_deleted(&self.mapping, leases);
    }

    pub(super) fn listed(&self, leases: &[Lease]) {
        self.board.set_listed(leases);
    }

    /// Leases of the stream that the store cannot read; reports when there are others than at the last listing.
    pub(super) fn unreadable(&mut self, leases: Vec<UnreadableLease>) {
        let shards: BTreeSet<ShardId> = leases.iter().map(|lease| lease.key.shard.clone()).collect();
        let new = leases.iter().find(|lease| !self.unreadable.contains(&lease.key.shard));
        if let Some(first) = new {
            tracing::warn!(
                mapping = %self.mapping, leases = leases.len(), reason = first.reason,
                "leases cannot be read: their shards wait until their rows are corrected, the others are read"
            );
        } else if !self.unreadable.is_subset(&shards) {
            tracing::info!(
                mapping = %self.mapping, left = shards.len(),
                "leases that could not be read can be read again"
            );
        }
        self.unreadable = shards;
        self.board.set_unreadable(leases);
    }
}
