//! The seam to a lease store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use shardmill_engine::{LeaseKey, Position, ShardId};

use crate::{
    AppState, Claim, Heartbeat, Lease, NewLease, OtherApplication, StoreError, Usage, WorkerId, WorkerRecord,
    WorkerReport,
};

/// How a compare-and-set ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The write is durable; the lease's counter is now this.
    Done {
        /// The counter to expect at the next write.
        counter: u64,
    },
    /// The lease was not as expected and nothing changed.
    Refused {
        /// The lease as it is, or `None` if it is gone or cannot be read.
        current: Option<Box<Lease>>,
    },
    /// It is not known whether this element of a batch was written: a timeout or a throttle that concerns it alone.
    /// The others of its call are answered for themselves.
    Unknown {
        /// What happened, for the log.
        reason: String,
    },
}

/// One lease to renew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Which lease.
    pub key: LeaseKey,
    /// The counter that the owner last saw.
    pub counter: u64,
}

/// One checkpoint to write. Counts as a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which lease.
    pub key: LeaseKey,
    /// The counter that the owner last saw.
    pub counter: u64,
    /// How far the shard has come. A store refuses to move backwards (I2).
    pub position: Position,
    /// Values to set next to the checkpoint; names that are not here stay as they are.
    pub app: AppState,
}

/// How a lease was seen that is to be given to another worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The counter: an owner that has lost the lease and taken it again is another one than was seen.
    pub counter: u64,
    /// The owner, or the next one during a handoff.
    pub owner: Option<WorkerId>,
    /// The old owner during a handoff.
    pub checkpoint_owner: Option<WorkerId>,
}

/// A lease that the store has and cannot read, as a row that was changed by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableLease {
    /// Which lease, as far as its name can be read.
    pub key: LeaseKey,
    /// What is wrong with it and what to do.
    pub reason: String,
}

/// The leases of an application, those that cannot be read, and its workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseList {
    /// Those that can be read.
    pub leases: Vec<Lease>,
    /// The others.
    pub unreadable: Vec<UnreadableLease>,
    /// The workers that have reported themselves, dead ones included; empty if the store keeps none. Then a worker is
    /// known by the leases that it owns.
    pub workers: Vec<WorkerRecord>,
    /// A leader of another program decides who gets which lease: a worker takes what is given to it, and nothing else.
    pub led: bool,
}

impl LeaseList {
    /// A list of leases that can be read and of others that cannot.
    #[must_use]
    pub const fn new(leases: Vec<Lease>, unreadable: Vec<UnreadableLease>) -> Self {
        Self { leases, unreadable, workers: Vec::new(), led: false }
    }

    /// The list with the application's workers.
    #[must_use]
    pub fn with_workers(self, workers: Vec<WorkerRecord>) -> Self {
        Self { workers, ..self }
    }

    /// The list where a leader of another program decides who gets which lease, or does not.
    #[must_use]
    pub fn led(self, led: bool) -> Self {
        Self { led, ..self }
    }

    /// The leases of a list in which none may be unreadable: what [`LeaseStore::list`] answers.
    #[cfg(any(feature = "sqlite", feature = "dynamodb"))]
    pub(crate) fn into_readable(self, store: String) -> Result<Vec<Lease>, StoreError> {
        match self.unreadable.into_iter().next() {
            None => Ok(self.leases),
            Some(UnreadableLease { reason, .. }) => Err(StoreError::Unusable { store, reason, source: None }),
        }
    }
}

impl UnreadableLease {
    /// A lease that cannot be read, with what is wrong with it and what to do.
    #[must_use]
    pub fn new(key: LeaseKey, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }
}

/// A place for the leases and checkpoints of one application.
///
/// Every write is a compare-and-set and durable when it returns, as far as the store promises durability at all. A
/// write whose result is unknown (a timeout, a lost connection) is an error, never a refusal; the caller finds out by
/// retrying. Implementations are cancel-safe: a dropped call has happened or has not, never half. (In a batch, each
/// element counts as a write of its own.)
///
/// A third-party store runs the `conformance` module's suite, which covers every sentence here.
#[async_trait]
pub trait LeaseStore: fmt::Debug + Send + Sync + 'static {
    /// Every lease of the application; an error if one of them cannot be read.
    async fn list(&self) -> Result<Vec<Lease>, StoreError>;

    /// The same where one lease that cannot be read is no failure of the others. A store whose leases can be spoilt one
    /// by one has its own; every write to such a lease is refused as if it were gone.
    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        Ok(LeaseList::new(self.list().await?, Vec::new()))
    }

    /// Creates those of `leases` that do not exist, each whole or not at all, and returns how many. One that exists
    /// stays as it is: losing is success.
    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError>;

    /// Makes `claim` the owner if the counter is still `seen`: counter + 1, owner, token, process and lease time from the
    /// claim, no checkpoint owner, and one more owner switch if another worker had it. Where workers renew
    /// [all leases at once](Self::renews_all), an owner that is another worker is evicted first, which is refused if its
    /// heartbeat is not the one that the claim has seen.
    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError>;

    /// Adds 1 to each counter that is as expected. The answers are in the order of `renewals`; one refusal does not
    /// hinder the others.
    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError>;

    /// Moves checkpoints forward where the counter is as expected: counter + 1, position, owner switches 0. A position
    /// before the stored one is refused (I2). The answers are in the order of `checkpoints`.
    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError>;

    /// Gives the lease to `to` if its counter and both its owners are as `seen`, ending a handoff: counter + 1, no
    /// checkpoint owner, no token, process or lease time until `to` acquires it, and one more owner switch if another
    /// worker had it.
    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError>;

    /// Starts a handoff if `from` owns the lease and none is under way: owner `to`, checkpoint owner `from`, the counter
    /// unchanged so that the old owner can keep working until it is done. Token, process and lease time stay the old
    /// owner's.
    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError>;

    /// Records the shards that follow this one, if the lease exists. The counter is unchanged. Parents and children
    /// are sets: a store may return them in another order.
    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError>;

    /// Releases the lease if the counter is as expected: counter + 1, no owner, token, process, lease time or
    /// checkpoint owner.
    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError>;

    /// Removes a finished lease: one at `SHARD_END`, outside a handoff, whose counter is as expected, so that no worker
    /// has acquired or renewed it since. The answer's counter is that one.
    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError>;

    /// Removes a lease regardless of its owner. A lease that does not exist is no error.
    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError>;

    /// The other applications of the same store that have leases of the stream of `of`, in any epoch: called once at
    /// a start, so that one under a new name does not start over unnoticed. Empty if a store cannot tell.
    async fn others(&self, of: &LeaseKey) -> Result<Vec<OtherApplication>, StoreError> {
        let _ = of;
        Ok(Vec::new())
    }

    /// Notes `value` under `name` for the application, next to its leases, unless there is a note of that name; returns
    /// what is noted then. `None`, the default, if the store keeps no notes. Without them a start at LATEST is not
    /// remembered before the first lease exists.
    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        let (_, _) = (name, value);
        Ok(None)
    }

    /// Forgets a note. One that does not exist is no error.
    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        let _ = name;
        Ok(())
    }

    /// Notes that a worker lives, and how it is. Where it [renews all leases](Self::renews_all), it is one write that
    /// renews every lease that the worker holds. The default keeps nothing: workers are then known by their leases.
    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        let _ = worker;
        Ok(Heartbeat::Written { heartbeat: 0 })
    }

    /// Removes what [`heartbeat`](Self::heartbeat) keeps of a worker that has stopped, or has been dead for long, if its
    /// heartbeat is still `seen`: a call that is late must not end a later life under the same name. A worker that is not
    /// there, or has another heartbeat, is no error.
    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        let (_, _) = (worker, seen);
        Ok(())
    }

    /// Leases whose stream the store does not know are of this one from now on: those of another program, whose layout
    /// does not name it. The default has none.
    fn bind(&self, stream: &LeaseKey) {
        let _ = stream;
    }

    /// Whether a heartbeat renews every lease of its worker, so that [`renew`](Self::renew) need not be called. Then the
    /// heartbeat is part of each [`Lease`].
    fn renews_all(&self) -> bool {
        false
    }

    /// How often the leases may be listed at most, where a listing costs more than a look into memory or a local file;
    /// `None`: as often as the caller likes.
    fn listing_interval(&self) -> Option<Duration> {
        None
    }

    /// What the store has asked of its service for this application; nothing, the default, if it counts nothing.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// What and where the store is, for logs: `sqlite:/var/lib/app/shardmill.db`.
    fn describe(&self) -> String;
}

#[async_trait]
impl<S: LeaseStore + ?Sized> LeaseStore for std::sync::Arc<S> {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        (**self).list().await
    }
    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        (**self).list_readable().await
    }
    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        (**self).create(leases).await
    }
    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        (**self).acquire(key, seen, claim).await
    }
    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        (**self).renew(renewals).await
    }
    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        (**self).checkpoint(checkpoints).await
    }
    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        (**self).assign(key, seen, to).await
    }
    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        (**self).hand_off(key, from, to).await
    }
    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        (**self).set_children(key, children).await
    }
    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        (**self).release(key, counter).await
    }
    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        (**self).delete_ended(key, counter).await
    }
    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        (**self).delete(key).await
    }
    async fn others(&self, of: &LeaseKey) -> Result<Vec<OtherApplication>, StoreError> {
        (**self).others(of).await
    }

    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        (**self).note(name, value).await
    }
    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        (**self).forget_note(name).await
    }
    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        (**self).heartbeat(worker).await
    }
    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        (**self).forget_worker(worker, seen).await
    }
    fn bind(&self, stream: &LeaseKey) {
        (**self).bind(stream);
    }
    fn renews_all(&self) -> bool {
        (**self).renews_all()
    }
    fn listing_interval(&self) -> Option<Duration> {
        (**self).listing_interval()
    }
    fn usage(&self) -> Usage {
        (**self).usage()
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
}
