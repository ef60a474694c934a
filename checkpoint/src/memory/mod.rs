//! Leases in memory.

mod lives;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use shardmill_engine::{LeaseKey, ShardId};

use self::lives::{Joined, Lives};
use crate::rules;
use crate::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, NewLease, Ownership, Renewal, StoreError,
    WorkerId, WorkerReport, Write,
};

/// Leases and checkpoints in memory: for tests, and for trials that may start over.
///
/// A clone is another handle on the same leases, so several workers of one process share them. Everything is gone when
/// the last handle is.
#[derive(Debug, Default)]
pub struct MemoryStore {
    leases: Arc<Mutex<BTreeMap<LeaseKey, Lease>>>,
    notes: Arc<Mutex<BTreeMap<String, String>>>,
    lives: Arc<Mutex<Lives>>,
    by_heartbeat: bool,
    /// This handle's own: a clone stands for another process.
    joined: Mutex<Joined>,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self {
            leases: Arc::clone(&self.leases),
            notes: Arc::clone(&self.notes),
            lives: Arc::clone(&self.lives),
            by_heartbeat: self.by_heartbeat,
            joined: Mutex::default(),
        }
    }
}

impl MemoryStore {
    /// A store with no leases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store in which a worker's heartbeat renews all its leases at once, as those in SQLite and on DynamoDB do: for tests of
    /// what uses such a store.
    #[must_use]
    pub fn renewed_by_heartbeat() -> Self {
        Self { by_heartbeat: true, ..Self::default() }
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<LeaseKey, Lease>> {
        self.leases.lock()
    }

    fn write(&self, key: &LeaseKey, change: impl FnOnce(&mut Lease) -> bool) -> Write {
        write(&mut self.leases(), key, change)
    }

    fn valid(&self, check: Result<(), String>) -> Result<(), StoreError> {
        check.map_err(|reason| StoreError::Invalid { store: self.describe(), reason })
    }
}

fn write(
    leases: &mut BTreeMap<LeaseKey, Lease>,
    key: &LeaseKey,
    change: impl FnOnce(&mut Lease) -> bool,
) -> Write {
    let Some(lease) = leases.get_mut(key) else { return Write::Refused { current: None } };
    if change(lease) {
        Write::Done { counter: lease.counter }
    } else {
        Write::Refused { current: Some(Box::new(lease.clone())) }
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let mut leases: Vec<Lease> = self.leases().values().cloned().collect();
        if self.by_heartbeat {
            let lives = self.lives.lock();
            leases.iter_mut().for_each(|lease| lease.heartbeat = lives.heartbeat_of(lease));
        }
        Ok(leases)
    }

    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        let workers = self.lives.lock().records();
        Ok(LeaseList::new(self.list().await?, Vec::new()).with_workers(workers))
    }

    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.valid(rules::check_positions(leases.iter().map(|lease| &lease.checkpoint)))?;
        let mut held = self.leases();
        let before = held.len();
        for new in leases {
            held.entry(new.key.clone()).or_insert_with(|| new.clone().into());
        }
        Ok(held.len() - before)
    }

    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.valid(rules::check_claim(claim))?;
        let (mut leases, mut lives) = (self.leases(), self.lives.lock());
        let mut answer = write(&mut leases, key, |lease| {
            let may_go_on = !self.by_heartbeat || lease.counter != seen || lives.evict(lease, claim);
            may_go_on && rules::acquire(lease, seen, claim)
        });
        if self.by_heartbeat {
            match &mut answer {
                Write::Done { .. } => lives.took(&mut self.joined.lock(), key, &claim.owner),
                Write::Refused { current: Some(lease) } => lease.heartbeat = lives.heartbeat_of(lease),
                Write::Refused { current: None } | Write::Unknown { .. } => {}
            }
        }
        Ok(answer)
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        let mut leases = self.leases();
        let renew = |r: &Renewal| write(&mut leases, &r.key, |lease| rules::renew(lease, r.counter));
        Ok(renewals.iter().map(renew).collect())
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        self.valid(rules::check_positions(checkpoints.iter().map(|c| &c.position)))?;
        let mut leases = self.leases();
        let checkpoint = |c: &Checkpoint| write(&mut leases, &c.key, |lease| rules::checkpoint(lease, c));
        Ok(checkpoints.iter().map(checkpoint).collect())
    }

    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_worker(to))?;
        Ok(self.write(key, |lease| rules::assign(lease, seen, to)))
    }

    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_hand_off(from, to))?;
        Ok(self.write(key, |lease| rules::hand_off(lease, from, to)))
    }

    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        Ok(self.write(key, |lease| {
            lease.children = children.to_vec();
            true
        }))
    }

    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        Ok(self.write(key, |lease| rules::release(lease, counter)))
    }

    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        let mut leases = self.leases();
        let answer = write(&mut leases, key, |lease| rules::may_delete_ended(lease, counter));
        if matches!(answer, Write::Done { .. }) {
            leases.remove(key);
        }
        Ok(answer)
    }

    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.leases().remove(key);
        Ok(())
    }

    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        let mut notes = self.notes.lock();
        Ok(Some(notes.entry(name.to_owned()).or_insert_with(|| value.to_owned()).clone()))
    }

    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        self.notes.lock().remove(name);
        Ok(())
    }

    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        self.valid(rules::check_worker(&worker.id))?;
        let mut lives = self.lives.lock();
        if self.by_heartbeat {
            return Ok(lives.beat(&mut self.joined.lock(), worker));
        }
        Ok(Heartbeat::Written { heartbeat: lives.note(worker) })
    }

    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        self.lives.lock().forget(worker, seen);
        Ok(())
    }

    fn renews_all(&self) -> bool {
        self.by_heartbeat
    }

    fn describe(&self) -> String {
        "memory:".into()
    }
}
