//! What the keeper reports of its work: log lines, metrics and the [`Board`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::{Lease, LeaseStore, UnreadableLease, WorkerId, WorkerReport};
use shardmill_engine::{Mono, Now, ShardId};

use super::board::Board;
use super::entries::Entries;
use super::entry::Entry;
use super::fleet::{Fleet, PLAN_INTERVAL, WorkerChange};
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
    /// Since when there are leases that no worker may take.
    unplaced_since: Option<Mono>,
    unplaced_told: bool,
}

impl Reports {
    pub(super) fn new(
        mapping: Arc<str>,
        store: Arc<dyn LeaseStore>,
        board: Arc<Board>,
        trouble: StoreTrouble,
    ) -> Self {
        Self {
            mapping,
            store,
            board,
            trouble,
            tally: Tally::default(),
            unreadable: BTreeSet::new(),
            unplaced_since: None,
            unplaced_told: false,
        }
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

    pub(super) fn beaten(&self, now: Mono, sent: Mono) {
        metrics::heartbeat_ended(&self.mapping, now.since(sent));
    }

    /// A plan was made, which took so long by the real clock.
    pub(super) fn planned(&self, took: Duration) {
        metrics::planned(&self.mapping, took);
    }

    pub(super) fn took(&mut self, now: Mono, shard: &ShardId, from: Option<String>, why: Free) {
        metrics::lease_taken(&self.mapping, why.label());
        self.tally.note(now, Change::Taken { from, why }, shard);
    }

    pub(super) fn lost(&mut self, now: Mono, shard: &ShardId, loss: Loss) {
        tracing::debug!(mapping = %self.mapping, %shard, ?loss, "lost the lease");
        self.tally.note(now, Change::Lost(loss), shard);
        metrics::lease_lost(&self.mapping);
    }

    /// A lease was released before its shard's end, for its `next` owner if there is one.
    pub(super) fn gave_up(&mut self, now: Mono, shard: &ShardId, next: Option<&WorkerId>) {
        let change = match next {
            Some(next) => {
                metrics::handed_off(&self.mapping);
                Change::Given { to: next.to_string() }
            }
            None => Change::GivenUp,
        };
        self.tally.note(now, change, shard);
    }

    pub(super) fn holds(&self, leases: usize) {
        metrics::leases_held(&self.mapping, leases);
    }

    pub(super) fn deleted(&self, leases: usize) {
        tracing::debug!(leases, "deleted the leases of finished shards that the stream has forgotten");
        metrics::leases_deleted(&self.mapping, leases);
    }

    pub(super) fn listed(&self, now: Mono, leases: &[Lease], entries: &Entries, fleet: &Fleet) {
        metrics::table_used(&self.mapping, &self.store.usage());
        let next = |lease: &Lease| entries.find(&lease.key)?.next.as_ref().map(ToString::to_string);
        let lives = |lease: &Lease, owner: &WorkerId| {
            let entry = entries.find(&lease.key);
            if fleet.is_me(owner) {
                // What this run does not hold, an earlier one has left.
                return entry.is_some_and(|entry| entry.validity.is_some());
            }
            // One without a record is known by its leases.
            let is_free = |entry: &Entry| entry.machine.is_free(now);
            fleet.lives(owner).unwrap_or_else(|| !entry.is_some_and(is_free))
        };
        self.board.set_listed(now, leases, next, lives);
    }

    /// So many leases may be taken by no worker, by this plan: each has its maximum. Reports what lasts for two plans.
    pub(super) fn unplaced(&mut self, now: Mono, leases: usize) {
        self.board.set_unplaced(leases);
        if leases == 0 {
            self.unplaced_since = None;
            if std::mem::take(&mut self.unplaced_told) {
                tracing::info!(mapping = %self.mapping, "every shard has a worker that may take it again");
            }
            return;
        }
        let since = *self.unplaced_since.get_or_insert(now);
        if !self.unplaced_told && now >= since + 2 * PLAN_INTERVAL {
            self.unplaced_told = true;
            tracing::warn!(
                mapping = %self.mapping, leases,
                "no worker may take these shards, and nobody reads them: every worker has as many leases as its MaximumLeases \
                 permits; raise it, or start another worker"
            );
        }
    }

    /// How many workers live, how many shards can be read, and how many of them no live worker has.
    pub(super) fn fleet(&self, workers: usize, readable: usize, unowned: usize) {
        metrics::fleet(&self.mapping, workers, readable, unowned);
    }

    /// Says who came and who went, and shows who is there.
    pub(super) fn workers(
        &self,
        now: Mono,
        fleet: &Fleet,
        changes: &[WorkerChange],
        own: Option<(WorkerReport, Mono)>,
    ) {
        for change in changes {
            match change {
                WorkerChange::Joined(worker) => {
                    tracing::info!(mapping = %self.mapping, %worker, "a worker joined");
                }
                WorkerChange::Left(worker) => {
                    tracing::info!(mapping = %self.mapping, %worker, "a worker left");
                }
                WorkerChange::Died(worker) => tracing::warn!(
                    mapping = %self.mapping, %worker,
                    "a worker is dead: it gave no sign of life for its lease time, or its process is gone"
                ),
            }
        }
        self.board.set_fleet(now, fleet, own);
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
