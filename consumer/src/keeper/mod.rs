//! The lease keeper: one per process, on a thread and a runtime of its own, so that a slow handler, the decoding of a
//! large page or ten thousand busy shards never delay a renewal.
//!
//! It owns every lease's counter and serialises renewals, checkpoints and releases per lease, because in KCL's layout
//! each of them is a compare-and-set on that counter: two tasks would fence each other. Shard tasks hold a [`Held`],
//! which is a permission, not the counter.

mod actor;
mod board;
mod calls;
mod checkpoints;
mod claims;
mod entries;
mod entry;
mod fleet;
mod handle;
mod leases;
mod listing;
mod messages;
mod pulse;
mod renewals;
mod reports;
mod tally;
mod ticket;
mod trouble;
mod turn;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::{LeaseStore, ProcessIdentity, WorkerId, WorkerReport};
use shardmill_engine::LeaseTimes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::clock::ServiceClock;
pub(crate) use board::Board;
pub use board::{FleetReport, LeaseReport};
pub(crate) use handle::{Grant, Held};
pub(crate) use leases::Leases;
pub(crate) use messages::{KeeperError, Served};

/// Where the keeper's work runs.
#[derive(Debug)]
pub(crate) struct Keeper {
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the keeper needs to know to look after the leases of one application.
#[derive(Clone, Debug)]
pub(crate) struct KeeperOptions {
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) worker: WorkerId,
    /// This process, where the store can detect a dead owner on the same host.
    pub(crate) process: Option<ProcessIdentity>,
    pub(crate) times: LeaseTimes,
    /// How often all leases are listed.
    pub(crate) listing_interval: Duration,
    /// One permit per lease that the worker may still take.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) clock: ServiceClock,
    /// What the worker says of itself to the others of the application.
    pub(crate) about: WorkerReport,
    /// The `mapping` label of metrics.
    pub(crate) mapping: Arc<str>,
}

impl Keeper {
    /// Starts the keeper's thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        // Stores on a network do their IO here as well.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("shardmill-keeper".to_owned()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            // Calls that hang must not keep the process from ending.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, stop, thread: Some(thread) })
    }

    /// A keeper in the current runtime, for tests under paused time.
    pub(crate) fn in_current_runtime() -> Self {
        Self { runtime: Handle::current(), stop: CancellationToken::new(), thread: None }
    }

    /// Looks after the leases of an application from now on; grants come through the receiver.
    pub(crate) fn register(&self, options: KeeperOptions) -> (Leases, mpsc::UnboundedReceiver<Grant>) {
        let (leases, commands) = leases::channel();
        let (grants, granted) = mpsc::unbounded_channel();
        let actor = actor::Actor::new(options, leases.downgrade(), commands, grants);
        let stop = self.stop.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = actor.run() => {}
            }
        });
        (leases, granted)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the lease keeper's thread panicked");
        }
    }
}
