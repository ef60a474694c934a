//! What the keeper is asked, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use shardmill_checkpoint::{AppState, LeaseList, NewLease, StoreError};
use shardmill_engine::{LeaseKey, Position, ShardId};
use tokio::sync::oneshot;

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

/// What a listing of the stream showed.
#[derive(Debug)]
pub(crate) struct Served {
    /// The stream; the shard is empty. Leases of another stream, or of an earlier one of the same name, stay untouched.
    pub(crate) stream: LeaseKey,
    /// Its shards and their parents. One of them that has no lease yet is not taken for trimmed (I9).
    pub(crate) listed: BTreeMap<ShardId, Vec<ShardId>>,
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
    /// Note this in addition to the leases unless there is a note; without a value, forget the note.
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
    /// Leases that the store cannot place are of this stream.
    Bind(LeaseKey),
    /// Take the leases of this stream from now on.
    Serve(Arc<Served>),
    /// Take no more leases, and give those that are held to other workers.
    Retire,
    /// Delete this worker's record from the store.
    Leave {
        reply: oneshot::Sender<()>,
    },
    /// Answer once no lease is held and none is being acquired.
    Idle {
        reply: oneshot::Sender<()>,
    },
}

pub(super) struct CheckpointOrder {
    pub(super) key: LeaseKey,
    pub(super) token: Arc<str>,
    pub(super) position: Position,
    pub(super) app: AppState,
    pub(super) reply: oneshot::Sender<Result<(), KeeperError>>,
}
