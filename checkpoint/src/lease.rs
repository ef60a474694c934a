//! Leases, and the workers and processes that own them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardmill_engine::{HashRange, LeaseKey, LifeSign, Position, ShardId};

/// The name under which a worker owns leases. Unique among the workers that are alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Takes the name as it is.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which operating system process owns a lease, so that another one on the same host can detect its death at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// Identifies the running kernel and the process id namespace: process ids compare only within one.
    pub host: String,
    /// The process id.
    pub pid: u32,
    /// When the process started, in clock ticks since boot: a process id alone may be used again.
    pub started: u64,
}

/// Room for what the consumer must remember next to a checkpoint (a pinned start, a window's start).
///
/// Small text values under short names; a store keeps names that it does not know.
pub type AppState = BTreeMap<String, String>;

/// A lease as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// What the lease is about.
    pub key: LeaseKey,
    /// Rises with every write by an owner: the fence and the heartbeat.
    pub counter: u64,
    /// The heartbeat of the acquisition's owner, where workers
    /// [renew all leases at once](crate::LeaseStore::renews_all): the owner is dead once this stands still for the lease
    /// time, whatever the counter does. 0 elsewhere: there the counter is what must change.
    pub heartbeat: u64,
    /// The worker that owns the lease, or the next one during a handoff.
    pub owner: Option<WorkerId>,
    /// During a handoff, the old owner, which may still renew and checkpoint.
    pub checkpoint_owner: Option<WorkerId>,
    /// Names one acquisition: two runs of one worker id have different tokens.
    pub token: Option<String>,
    /// The owner's process, if it named one.
    pub process: Option<ProcessIdentity>,
    /// How long the owner holds the lease without renewing it, if it named one; whole milliseconds. Others wait for at
    /// least as long before they take it over.
    pub lease_time: Option<Duration>,
    /// How far the shard has come.
    pub checkpoint: Position,
    /// The shards that must be at their end before this one starts (I9).
    pub parents: Vec<ShardId>,
    /// The shards that follow this one, once known.
    pub children: Vec<ShardId>,
    /// The shard's hash keys; Kinesis only.
    pub hash_range: Option<HashRange>,
    /// How often the owner changed since the last checkpoint.
    pub owner_switches: u64,
    /// What the consumer remembers next to the checkpoint.
    pub app: AppState,
}

impl Lease {
    /// What shows that the owner lives, as this listing has it.
    #[must_use]
    pub const fn life_sign(&self) -> LifeSign {
        LifeSign { counter: self.counter, heartbeat: self.heartbeat }
    }

    /// The worker that has acquired the lease and not lost it: during a handoff the old owner. `None` while nobody has it,
    /// although it may have been given to a worker that has not taken it yet.
    #[must_use]
    pub fn holder(&self) -> Option<&WorkerId> {
        self.token.as_ref()?;
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }
}

impl From<NewLease> for Lease {
    /// The lease as it is created: free, with the counter 0.
    fn from(new: NewLease) -> Self {
        Self {
            key: new.key,
            counter: 0,
            heartbeat: 0,
            owner: None,
            checkpoint_owner: None,
            token: None,
            process: None,
            lease_time: None,
            checkpoint: new.checkpoint,
            parents: new.parents,
            children: Vec::new(),
            hash_range: new.hash_range,
            owner_switches: 0,
            app: new.app,
        }
    }
}

/// A lease to create: no owner, counter 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLease {
    /// What the lease is about.
    pub key: LeaseKey,
    /// Where reading starts. Never [`Position::Latest`]: that is pinned to a time first (I15).
    pub checkpoint: Position,
    /// The shards that must be at their end before this one starts (I9).
    pub parents: Vec<ShardId>,
    /// The shard's hash keys; Kinesis only.
    pub hash_range: Option<HashRange>,
    /// What the consumer remembers next to the checkpoint.
    pub app: AppState,
}

/// Who acquires a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The worker.
    pub owner: WorkerId,
    /// Fresh for every acquisition.
    pub token: String,
    /// The worker's process, where the platform shows it.
    pub process: Option<ProcessIdentity>,
    /// How long the worker holds the lease without renewing it. A store keeps it to the millisecond.
    pub lease_time: Option<Duration>,
    /// The [heartbeat](Lease::heartbeat) of the former owner that stood still; 0 where there is none.
    pub seen_heartbeat: u64,
}
