use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shardmill_checkpoint::{AppState, Lease, LeaseList, NewLease, StoreError, UnreadableLease};
use shardmill_engine::{LeaseKey, Mono, Position, ShardId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::status::ErrorReport;

/// A lease that this worker holds: the permission to read its shard.
///
/// Not `Clone`: a checkpoint needs it and [`release`](Self::release) consumes it, so a checkpoint without a lease does
/// not compile. Dropping it gives the lease up too.
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

/// What the keeper tells the holder without being asked.
#[derive(Debug)]
pub(super) struct Validity {
    /// Nothing is started at or after this time; 0 once the lease is lost (I10).
    until: AtomicU64,
    lost: CancellationToken,
}

impl Validity {
    pub(super) fn new(until: Mono) -> Self {
        Self { until: AtomicU64::new(until.as_millis()), lost: CancellationToken::new() }
    }

    fn holds(&self, now: Mono) -> bool {
        now.as_millis() < self.until.load(Ordering::Acquire)
    }

    pub(super) fn extend(&self, until: Option<Mono>) {
        self.until.store(until.map_or(0, Mono::as_millis), Ordering::Release);
    }

    pub(super) fn lose(&self) {
        self.until.store(0, Ordering::Release);
        self.lost.cancel();
    }
}

/// A lease that was just acquired.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The lease as it was when it was acquired.
    pub(crate) lease: Lease,
    pub(crate) held: Held,
}

/// Why the keeper did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    /// The lease is not this holder's any more.
    #[error("the lease is lost")]
    Lost,
    /// The store did not do it, or it is not known whether it did.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keeper has stopped.
    #[error("the lease keeper has stopped")]
    Stopped,
}

pub(super) enum Command {
    Create {
        leases: Vec<NewLease>,
        reply: oneshot::Sender<Result<usize, StoreError>>,
    },
    List {
        reply: oneshot::Sender<Result<LeaseList, StoreError>>,
    },
    SetChildren {
        key: LeaseKey,
        children: Vec<ShardId>,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Note this beside the leases unless there is a note; without a value, forget the note.
    Note {
        name: String,
        value: Option<String>,
        reply: oneshot::Sender<Result<Option<String>, StoreError>>,
    },
    Checkpoint(CheckpointOrder),
    Release {
        key: LeaseKey,
        token: Arc<str>,
        reply: Option<oneshot::Sender<()>>,
    },
    /// Take the leases of this stream from now on.
    Serve(Arc<Served>),
    /// Take no more leases.
    Retire,
    /// Answer once no lease is held and none is being acquired.
    Idle {
        reply: oneshot::Sender<()>,
    },
}

/// What a listing of the stream showed.
#[derive(Debug)]
pub(crate) struct Served {
    /// The stream; the shard is empty. Leases of another stream, or of an earlier one of the same name, stay untouched.
    pub(crate) stream: LeaseKey,
    /// Its shards and their parents. One of them that has no lease yet is not taken for trimmed (I9).
    pub(crate) listed: BTreeMap<ShardId, Vec<ShardId>>,
}

pub(super) struct CheckpointOrder {
    pub(super) key: LeaseKey,
    pub(super) token: Arc<str>,
    pub(super) position: Position,
    pub(super) app: AppState,
    pub(super) reply: oneshot::Sender<Result<(), KeeperError>>,
}

/// The keeper's door for one application. Once the last clone and the last [`Held`] are gone, the keeper's work for the
/// application ends.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    commands: mpsc::UnboundedSender<Command>,
    board: Arc<Board>,
}

/// What the keeper shows of its work.
#[derive(Debug, Default)]
pub(crate) struct Board {
    ticked: AtomicU64,
    listed: Mutex<Vec<LeaseReport>>,
    unreadable: Mutex<Vec<UnreadableLease>>,
    trouble: Mutex<Option<ErrorReport>>,
}

/// A lease as the store had it when it was last listed, whoever owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// The shard.
    pub shard: ShardId,
    /// The worker that owns it.
    pub owner: Option<String>,
    /// How far it has come.
    pub checkpoint: Position,
}

pub(super) fn channel() -> (Leases, mpsc::UnboundedReceiver<Command>) {
    let (commands, received) = mpsc::unbounded_channel();
    (Leases { commands, board: Arc::default() }, received)
}

impl Board {
    /// When the keeper last went round, on the clock of [`Mono`].
    pub(crate) fn ticked(&self) -> Mono {
        Mono::from_millis(self.ticked.load(Ordering::Relaxed))
    }

    pub(super) fn tick(&self, now: Mono) {
        self.ticked.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Every lease of the stream, as it was last listed.
    pub(crate) fn listed(&self) -> Vec<LeaseReport> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leases of the stream that the store cannot read.
    pub(crate) fn unreadable(&self) -> Vec<UnreadableLease> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the store fails with, and since when.
    pub(crate) fn trouble(&self) -> Option<ErrorReport> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_unreadable(&self, unreadable: Vec<UnreadableLease>) {
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = unreadable;
    }

    pub(super) fn set_trouble(&self, trouble: Option<ErrorReport>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn set_listed(&self, leases: &[Lease]) {
        let report = |lease: &Lease| LeaseReport {
            shard: lease.key.shard.clone(),
            owner: lease.owner.as_ref().map(ToString::to_string),
            checkpoint: lease.checkpoint.clone(),
        };
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = leases.iter().map(report).collect();
    }
}

impl Leases {
    /// Creates those leases that do not exist.
    pub(crate) async fn create(&self, leases: Vec<NewLease>) -> Result<usize, KeeperError> {
        Ok(self.ask(|reply| Command::Create { leases, reply }).await??)
    }

    /// Every lease of the application, as the store has it now.
    pub(crate) async fn list(&self) -> Result<LeaseList, KeeperError> {
        Ok(self.ask(|reply| Command::List { reply }).await??)
    }

    /// Notes a value beside the leases unless there is a note of that name; what is noted then, if the store keeps notes.
    pub(crate) async fn note(&self, name: String, value: String) -> Result<Option<String>, KeeperError> {
        Ok(self.ask(|reply| Command::Note { name, value: Some(value), reply }).await??)
    }

    /// Forgets a note.
    pub(crate) async fn forget_note(&self, name: String) -> Result<(), KeeperError> {
        self.ask(|reply| Command::Note { name, value: None, reply }).await??;
        Ok(())
    }

    /// Notes which shards follow a shard.
    pub(crate) async fn set_children(
        &self,
        key: LeaseKey,
        children: Vec<ShardId>,
    ) -> Result<(), KeeperError> {
        Ok(self.ask(|reply| Command::SetChildren { key, children, reply }).await??)
    }

    /// Takes no more leases from now on.
    pub(crate) fn retire(&self) {
        // A keeper that has stopped takes none anyway.
        let _ = self.commands.send(Command::Retire);
    }

    /// Takes the leases of this stream from now on; before the first call none is taken.
    pub(crate) fn serve(&self, served: Served) {
        let _ = self.commands.send(Command::Serve(Arc::new(served)));
    }

    /// Waits until no lease is held and none is being acquired.
    pub(crate) async fn idle(&self) {
        let _ = self.ask(|reply| Command::Idle { reply }).await;
    }

    pub(crate) const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// For whoever must not keep the keeper's work alive.
    pub(super) fn downgrade(&self) -> WeakLeases {
        WeakLeases { commands: self.commands.downgrade(), board: Arc::clone(&self.board) }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, KeeperError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| KeeperError::Stopped)?;
        answer.await.map_err(|_| KeeperError::Stopped)
    }
}

/// [`Leases`] that do not keep the keeper's work alive.
#[derive(Debug)]
pub(super) struct WeakLeases {
    commands: mpsc::WeakUnboundedSender<Command>,
    pub(super) board: Arc<Board>,
}

impl WeakLeases {
    pub(super) fn upgrade(&self) -> Option<Leases> {
        Some(Leases { commands: self.commands.upgrade()?, board: Arc::clone(&self.board) })
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

    /// The same question for whoever starts something later on.
    pub(crate) fn validity(&self) -> impl Fn(Mono) -> bool + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |now| shared.holds(now)
    }

    /// Cancelled when the lease is lost.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.shared.lost.clone()
    }

    /// The permission to store one checkpoint, to be used by the task that writes it.
    pub(crate) fn permit(&self) -> CheckpointPermit {
        CheckpointPermit {
            key: self.key.clone(),
            token: Arc::clone(&self.token),
            leases: self.leases.clone(),
        }
    }

    /// Gives the lease up and waits until the store knows, or does not answer.
    pub(crate) async fn release(mut self) {
        self.released = true;
        let (key, token) = (self.key.clone(), Arc::clone(&self.token));
        // A keeper that has stopped gives nothing up; the lease then expires.
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
            let _ = self.leases.commands.send(Command::Release { key, token, reply: None });
        }
    }
}
