//! A client of the keeper for one application.

use std::sync::Arc;

use shardmill_checkpoint::{LeaseList, NewLease};
use shardmill_engine::{LeaseKey, ShardId};
use tokio::sync::{mpsc, oneshot};

use super::board::Board;
use super::messages::{Command, KeeperError, Served};

/// A client of the keeper for one application. Once the last clone and the last [`Held`](super::Held) are gone, the
/// keeper's work for the application ends.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    commands: mpsc::UnboundedSender<Command>,
    board: Arc<Board>,
}

pub(super) fn channel() -> (Leases, mpsc::UnboundedReceiver<Command>) {
    let (commands, received) = mpsc::unbounded_channel();
    (Leases { commands, board: Arc::default() }, received)
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

    /// Notes a value in addition to the leases unless there is a note of that name; what is noted then, if the store keeps
    /// notes.
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

    /// Takes no more leases from now on; those that are held go to the workers that the plan names.
    pub(crate) fn retire(&self) {
        self.tell(Command::Retire);
    }

    /// Leases whose rows name no stream are of this one, in every listing from now on.
    pub(crate) fn bind(&self, stream: &LeaseKey) {
        self.tell(Command::Bind(stream.clone()));
    }

    /// Takes the leases of this stream from now on; before the first call none is taken.
    pub(crate) fn serve(&self, served: Served) {
        self.tell(Command::Serve(Arc::new(served)));
    }

    /// Waits until no lease is held and none is being acquired.
    pub(crate) async fn idle(&self) {
        let _ = self.ask(|reply| Command::Idle { reply }).await;
    }

    /// Deletes this worker's record, so that the others know that it is gone.
    pub(crate) async fn leave(&self) {
        let _ = self.ask(|reply| Command::Leave { reply }).await;
    }

    pub(crate) const fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// A client that does not keep the keeper's work alive.
    pub(super) fn downgrade(&self) -> WeakLeases {
        WeakLeases { commands: self.commands.downgrade(), board: Arc::clone(&self.board) }
    }

    /// Sends a command that has no answer.
    pub(super) fn tell(&self, command: Command) {
        // A keeper that has stopped takes no leases, and those that it had expire.
        let _ = self.commands.send(command);
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, KeeperError> {
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
