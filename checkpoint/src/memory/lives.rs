//! Workers whose heartbeat renews all their leases, in memory.

use std::collections::BTreeMap;

use shardmill_engine::LeaseKey;

use crate::{Claim, Heartbeat, Lease, WorkerId, WorkerRecord, WorkerReport};

/// The workers of a store, and which of a worker's lives took which lease.
#[derive(Debug, Default)]
pub(super) struct Lives {
    workers: BTreeMap<WorkerId, Life>,
    /// The owner's epoch at the acquisition.
    leases: BTreeMap<LeaseKey, u64>,
    /// The last epoch that was given out: none is given out twice, also after its worker was forgotten.
    last: u64,
}

#[derive(Debug, Default)]
struct Life {
    /// What it reported; `None` while it has only taken leases.
    report: Option<WorkerReport>,
    heartbeat: u64,
    /// Another one with each start of the worker, and when others declare it dead.
    epoch: u64,
    /// The heartbeat at which the last epoch ended.
    ended: u64,
}

impl Life {
    fn end_epoch(&mut self, next: u64) {
        self.epoch = next;
        self.ended = self.heartbeat;
    }
}

/// The epochs that one process has begun.
pub(super) type Joined = BTreeMap<WorkerId, u64>;

impl Lives {
    pub(super) fn records(&self) -> Vec<WorkerRecord> {
        let record = |life: &Life| Some(WorkerRecord::new(life.report.clone()?, life.heartbeat));
        self.workers.values().filter_map(record).collect()
    }

    pub(super) fn forget(&mut self, worker: &WorkerId, seen: u64) {
        if self.workers.get(worker).is_some_and(|life| life.heartbeat == seen) {
            self.workers.remove(worker);
        }
    }

    /// A heartbeat that renews nothing but the worker's own record.
    pub(super) fn note(&mut self, worker: &WorkerReport) -> u64 {
        let life = self.workers.entry(worker.id.clone()).or_default();
        life.heartbeat += 1;
        life.report = Some(worker.clone());
        life.heartbeat
    }

    pub(super) fn beat(&mut self, joined: &mut Joined, worker: &WorkerReport) -> Heartbeat {
        let epoch = self.join(joined, &worker.id);
        if self.workers.get(&worker.id).is_none_or(|life| life.epoch != epoch) {
            joined.remove(&worker.id);
            return Heartbeat::Evicted;
        }
        Heartbeat::Written { heartbeat: self.note(worker) }
    }

    /// The epoch of this process's worker, which begins now if it has not begun.
    fn join(&mut self, joined: &mut Joined, worker: &WorkerId) -> u64 {
        *joined.entry(worker.clone()).or_insert_with(|| {
            self.last += 1;
            let epoch = self.last;
            let began = |life: &mut Life| {
                life.end_epoch(epoch);
                life.heartbeat += 1;
            };
            let life = self.workers.entry(worker.clone()).and_modify(began);
            life.or_insert(Life { epoch, ..Life::default() }).epoch
        })
    }

    /// The heartbeat that keeps the lease alive.
    pub(super) fn heartbeat_of(&self, lease: &Lease) -> u64 {
        let Some(life) = lease.holder().and_then(|holder| self.workers.get(holder)) else { return 0 };
        match self.leases.get(&lease.key) {
            Some(epoch) if *epoch == life.epoch => life.heartbeat,
            Some(epoch) if *epoch < life.epoch => life.ended,
            _ => 0,
        }
    }

    /// Declares the lease's owner dead unless it lives. Whether the claim may go on.
    pub(super) fn evict(&mut self, lease: &Lease, claim: &Claim) -> bool {
        let another = lease.holder().filter(|holder| **holder != claim.owner);
        let epoch = self.leases.get(&lease.key);
        let Some(life) = another.and_then(|holder| self.workers.get_mut(holder)) else { return true };
        if epoch != Some(&life.epoch) {
            return true;
        }
        let dead = life.heartbeat == claim.seen_heartbeat;
        if dead {
            self.last += 1;
            life.end_epoch(self.last);
        }
        dead
    }

    pub(super) fn took(&mut self, joined: &mut Joined, key: &LeaseKey, worker: &WorkerId) {
        let epoch = self.join(joined, worker);
        self.leases.insert(key.clone(), epoch);
    }
}
