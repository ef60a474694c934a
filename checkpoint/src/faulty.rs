//! A store that fails on demand, for tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use shardmill_engine::{LeaseKey, ShardId};
use tokio::time::Instant;

use crate::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, NewLease, OtherApplication, Ownership,
    Renewal, StoreError, Usage, WorkerId, WorkerReport, Write,
};

/// A method of [`LeaseStore`] that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`LeaseStore::list`] and [`LeaseStore::list_readable`].
    List,
    /// [`LeaseStore::create`].
    Create,
    /// [`LeaseStore::acquire`].
    Acquire,
    /// [`LeaseStore::renew`].
    Renew,
    /// [`LeaseStore::checkpoint`].
    Checkpoint,
    /// [`LeaseStore::assign`].
    Assign,
    /// [`LeaseStore::hand_off`].
    HandOff,
    /// [`LeaseStore::set_children`].
    SetChildren,
    /// [`LeaseStore::release`].
    Release,
    /// [`LeaseStore::delete_ended`].
    DeleteEnded,
    /// [`LeaseStore::delete`].
    Delete,
    /// [`LeaseStore::note`].
    Note,
    /// [`LeaseStore::forget_note`].
    ForgetNote,
    /// [`LeaseStore::heartbeat`].
    Heartbeat,
    /// [`LeaseStore::forget_worker`].
    ForgetWorker,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// [`StoreError::Unavailable`], and nothing was written.
    ErrorBefore,
    /// [`StoreError::Unavailable`] although the write happened: the caller cannot know.
    ErrorAfter,
    /// No answer ever, and nothing was written.
    HangBefore,
    /// No answer ever although the write happened.
    HangAfter,
    /// The write happens and is answered after this time.
    Delay(Duration),
    /// The call waits for all that were begun before it like this, takes this time, and is then made and answered. One
    /// whose caller has given up keeps the others waiting all the same: a store that is busy.
    Queue(Duration),
}

/// A store that fails on demand, for tests of what uses one.
///
/// A clone is another handle on the same store and the same plan. A fault that was [injected](Self::inject) counts for one
/// call of that operation and comes before one that [lasts](Self::fail).
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    inner: Arc<S>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    next: BTreeMap<Operation, VecDeque<Fault>>,
    lasting: BTreeMap<Operation, Fault>,
    everywhere: Option<Fault>,
    calls: BTreeMap<Operation, u64>,
    busy_until: Option<Instant>,
}

impl Plan {
    /// When a call that begins now has had its turn and its time.
    fn queue(&mut self, time: Duration) -> Instant {
        let turn = self.busy_until.into_iter().fold(Instant::now(), Instant::max);
        *self.busy_until.insert(turn + time)
    }
}

impl<S: LeaseStore> FaultyStore<S> {
    /// A store that does what `inner` does until a fault is set.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner: Arc::new(inner), plan: Arc::default() }
    }

    /// The store beneath, which never fails on demand.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Makes the next call of `operation` fail; several wait in line.
    pub fn inject(&self, operation: Operation, fault: Fault) {
        self.plan().next.entry(operation).or_default().push_back(fault);
    }

    /// Makes every call of `operation` fail until [`heal`](Self::heal).
    pub fn fail(&self, operation: Operation, fault: Fault) {
        self.plan().lasting.insert(operation, fault);
    }

    /// Makes every call of every operation fail until [`heal`](Self::heal).
    pub fn fail_all(&self, fault: Fault) {
        self.plan().everywhere = Some(fault);
    }

    /// Forgets every fault that has not happened. Calls that hang already hang on.
    pub fn heal(&self) {
        let mut plan = self.plan();
        plan.next.clear();
        plan.lasting.clear();
        plan.everywhere = None;
    }

    /// How many calls of `operation` were begun, failed ones included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.plan().calls.get(&operation).copied().unwrap_or(0)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock()
    }

    fn begin(&self, operation: Operation) -> Option<Fault> {
        let mut plan = self.plan();
        *plan.calls.entry(operation).or_default() += 1;
        let next = plan.next.get_mut(&operation).and_then(VecDeque::pop_front);
        next.or_else(|| plan.lasting.get(&operation).copied()).or(plan.everywhere)
    }

    fn unavailable(&self, operation: Operation) -> StoreError {
        let reason = format!("{operation:?} failed on demand");
        StoreError::Unavailable { store: self.describe(), reason, source: None }
    }

    async fn run<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.begin(operation) {
            None => call.await,
            Some(Fault::ErrorBefore) => Err(self.unavailable(operation)),
            Some(Fault::ErrorAfter) => {
                call.await?;
                Err(self.unavailable(operation))
            }
            Some(Fault::HangBefore) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                call.await?;
                std::future::pending().await
            }
            Some(Fault::Delay(time)) => {
                let answer = call.await;
                tokio::time::sleep(time).await;
                answer
            }
            Some(Fault::Queue(time)) => {
                let turn = self.plan().queue(time);
                tokio::time::sleep_until(turn).await;
                call.await
            }
        }
    }
}

#[async_trait]
impl<S: LeaseStore> LeaseStore for FaultyStore<S> {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.run(Operation::List, self.inner.list()).await
    }

    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        self.run(Operation::List, self.inner.list_readable()).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.run(Operation::Create, self.inner.create(leases)).await
    }

    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.run(Operation::Acquire, self.inner.acquire(key, seen, claim)).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        self.run(Operation::Renew, self.inner.renew(renewals)).await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        self.run(Operation::Checkpoint, self.inner.checkpoint(checkpoints)).await
    }

    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.run(Operation::Assign, self.inner.assign(key, seen, to)).await
    }

    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.run(Operation::HandOff, self.inner.hand_off(key, from, to)).await
    }

    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        self.run(Operation::SetChildren, self.inner.set_children(key, children)).await
    }

    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.run(Operation::Release, self.inner.release(key, counter)).await
    }

    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.run(Operation::DeleteEnded, self.inner.delete_ended(key, counter)).await
    }

    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.run(Operation::Delete, self.inner.delete(key)).await
    }

    async fn others(&self, of: &LeaseKey) -> Result<Vec<OtherApplication>, StoreError> {
        self.run(Operation::List, self.inner.others(of)).await
    }

    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        self.run(Operation::Note, self.inner.note(name, value)).await
    }

    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        self.run(Operation::ForgetNote, self.inner.forget_note(name)).await
    }

    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        self.run(Operation::Heartbeat, self.inner.heartbeat(worker)).await
    }

    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        self.run(Operation::ForgetWorker, self.inner.forget_worker(worker, seen)).await
    }

    fn bind(&self, stream: &LeaseKey) {
        self.inner.bind(stream);
    }

    fn renews_all(&self) -> bool {
        self.inner.renews_all()
    }

    fn listing_interval(&self) -> Option<Duration> {
        self.inner.listing_interval()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn describe(&self) -> String {
        format!("faulty:{}", self.inner.describe())
    }
}
