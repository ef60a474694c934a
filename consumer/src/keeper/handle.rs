//! The permission to read a shard and to store how far that has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardmill_checkpoint::{AppState, Lease};
use shardmill_engine::{LeaseKey, Mono, Position};
use tokio_util::sync::CancellationToken;

use super::leases::Leases;
use super::messages::{CheckpointOrder, Command, KeeperError};

/// A lease that this worker holds: the permission to read its shard.
///
/// Not `Clone`: a checkpoint needs it and [`release`](Self::release) consumes it, so a checkpoint without a lease does
/// not compile. Dropping it releases the lease too.
#[derive(Debug)]
pub(crate) struct Held {
    key: LeaseKey,
    token: Arc<str>,
    fencing_token: u64,
    shared: Arc<Validity>,
    leases: Leases,
    released: bool,
}

/// The permission to store one checkpoint. It is worth nothing once the lease is lost.
#[derive(Debug)]
pub(crate) struct CheckpointPermit {
    key: LeaseKey,
    token: Arc<str>,
    leases: Leases,
}

/// What the keeper reports to the holder without being asked.
#[derive(Debug)]
pub(super) struct Validity {
    /// Nothing is started at or after this time; 0 once the lease is lost (I10).
    until: AtomicU64,
    lost: CancellationToken,
    /// Another worker is to have the lease.
    asked: CancellationToken,
}

impl Validity {
    pub(super) fn new(until: Mono) -> Self {
        Self {
            until: AtomicU64::new(until.as_millis()),
            lost: CancellationToken::new(),
            asked: CancellationToken::new(),
        }
    }

    fn holds(&self, now: Mono) -> bool {
        now.as_millis() < self.until.load(Ordering::Acquire)
    }

    pub(super) fn extend(&self, until: Option<Mono>) {
        self.until.store(until.map_or(0, Mono::as_millis), Ordering::Release);
    }

    /// Asks the holder to finish what runs and to release the lease.
    pub(super) fn ask(&self) {
        self.asked.cancel();
    }

    pub(super) fn lose(&self) {
        self.until.store(0, Ordering::Release);
        self.lost.cancel();
    }
}

impl Held {
    pub(super) fn new(
        lease: &Lease,
        token: Arc<str>,
        counter: u64,
        shared: Arc<Validity>,
        leases: Leases,
    ) -> Self {
        Self { key: lease.key.clone(), token, fencing_token: counter, shared, leases, released: false }
    }

    pub(crate) const fn key(&self) -> &LeaseKey {
        &self.key
    }

    /// The lease counter at the acquisition: higher for every later owner.
    pub(crate) const fn fencing_token(&self) -> u64 {
        self.fencing_token
    }

    /// Whether something may be started now (I10).
    pub(crate) fn is_valid(&self, now: Mono) -> bool {
        self.shared.holds(now)
    }

    /// The same question for a caller that starts something later.
    pub(crate) fn validity(&self) -> impl Fn(Mono) -> bool + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |now| shared.holds(now)
    }

    /// Cancelled when the lease is lost.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.shared.lost.clone()
    }

    /// Cancelled when another worker is to have the lease: the holder finishes what runs and releases it.
    pub(crate) fn asked(&self) -> CancellationToken {
        self.shared.asked.clone()
    }

    /// The permission to store one checkpoint, to be used by the task that writes it.
    pub(crate) fn permit(&self) -> CheckpointPermit {
        CheckpointPermit {
            key: self.key.clone(),
            token: Arc::clone(&self.token),
            leases: self.leases.clone(),
        }
    }

    /// Releases the lease and waits until the store knows, or does not answer.
    pub(crate) async fn release(mut self) {
        self.released = true;
        let (key, token) = (self.key.clone(), Arc::clone(&self.token));
        // A keeper that has stopped releases nothing; the lease then expires.
        let _ = self.leases.ask(|reply| Command::Release { key, token, reply: Some(reply) }).await;
    }
}

impl CheckpointPermit {
    /// Stores how far the shard has come.
    pub(crate) async fn write(self, position: Position, app: AppState) -> Result<(), KeeperError> {
        let Self { key, token, leases } = self;
        leases.ask(|reply| Command::Checkpoint(CheckpointOrder { key, token, position, app, reply })).await?
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.released {
            let (key, token) = (self.key.clone(), Arc::clone(&self.token));
            self.leases.tell(Command::Release { key, token, reply: None });
        }
    }
}

/// A lease that was just acquired.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The lease as it was when it was acquired.
    pub(crate) lease: Lease,
    pub(crate) held: Held,
}
