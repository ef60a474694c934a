//! The function's processes: those that wait for work, and when another one may be started.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use shardmill::engine::ShardId;
use shardmill::{CancellationToken, HandlerError, InvokeContext};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::api::Ended;
use super::process::Process;
use super::records::Records;
use super::{CommandOptions, Readiness};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// How long after a process a signal of the same cause may reach this one.
const SAME_STOP: Duration = Duration::from_secs(1);
/// Short, so that a function that can be started again is not kept waiting; all shards together try it once a second.
const MAXIMUM_BACKOFF: Duration = Duration::from_secs(1);

/// All processes of one function.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) options: CommandOptions,
    state: Mutex<State>,
    /// Held by the task that looks for a process.
    pub(super) starting: tokio::sync::Mutex<()>,
    /// Cancelled when the sidecar is to stop.
    stop: OnceLock<CancellationToken>,
    records: Option<Arc<Records>>,
    /// Held while a predecessor's processes are looked for, even if the search is no longer awaited.
    pub(super) succession: Arc<tokio::sync::Mutex<()>>,
    /// Under which lease each shard was invoked last.
    leases: Mutex<HashMap<ShardId, u64>>,
    readiness: watch::Sender<Readiness>,
}

/// A process and how many invocations it holds.
#[derive(Debug)]
struct Slots {
    process: Arc<Process>,
    used: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Every process that has been started and not forgotten.
    all: Vec<Slots>,
    /// Those that may take another invocation; the one used last is used first.
    free: Vec<Arc<Process>>,
    /// Those that were killed and may not be gone yet.
    ending: Vec<Arc<Process>>,
    failed_starts: u32,
    start_not_before: Option<Instant>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    /// No new invocations.
    Stopping,
    /// The deadline has passed: everything has been killed.
    Stopped,
}

impl Pool {
    pub(super) fn new(options: CommandOptions) -> Self {
        let records = options.records.clone().and_then(Records::new).map(Arc::new);
        Self {
            options,
            state: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            stop: OnceLock::new(),
            records,
            succession: Arc::default(),
            leases: Mutex::default(),
            readiness: watch::Sender::new(Readiness::Ready),
        }
    }

    pub(super) fn stop_with(&self, stop: CancellationToken) {
        let _ = self.stop.set(stop);
    }

    /// Whether the process ended because the sidecar is to stop: after the stop began, or by such a signal right before
    /// it is heard of here.
    pub(super) async fn was_cut(&self, ended: &Ended) -> bool {
        let Some(stop) = self.stop.get() else { return false };
        stop.is_cancelled()
            || ended.by_signal && tokio::time::timeout(SAME_STOP, stop.cancelled()).await.is_ok()
    }

    /// Before the first invocation under a new lease: ends what a dead predecessor on this host has left running. Waits
    /// for that until `by` at most: the function's own time is not spent on it.
    pub(super) async fn succeed(&self, cx: &InvokeContext, by: Instant) -> Result<(), HandlerError> {
        let Some(records) = &self.records else { return Ok(()) };
        let is_known = |leases: &HashMap<ShardId, u64>| leases.get(&cx.shard) == Some(&cx.fencing_token);
        if is_known(&self.leases.lock()) {
            return Ok(());
        }
        // A thread of its own: processes of other shards are started and ended meanwhile. One search at a time, however
        // many shards ask.
        let look = async {
            let turn = Arc::clone(&self.succession).lock_owned().await;
            let records = Arc::clone(records);
            let look = move || {
                let _turn = turn;
                records.end_left_behind()
            };
            tokio::task::spawn_blocking(look).await
        };
        match timeout_at(by, look).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(reason))) => return Err(not_reached(reason, None)),
            Ok(Err(_)) => {
                let reason = "the look for a predecessor's processes failed unexpectedly".into();
                return Err(not_reached(reason, None));
            }
            Err(_) => {
                let reason = "a predecessor's processes are still being looked for".into();
                return Err(not_reached(reason, Some(Duration::ZERO)));
            }
        }
        let mut leases = self.leases.lock();
        leases.insert(cx.shard.clone(), cx.fencing_token);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Whether everything has been killed because the stop took too long.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().phase == Phase::Stopped
    }

    /// Whether nothing more is given out.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().phase != Phase::Running
    }

    /// Whether a process is taken out.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.all.iter().any(|slots| slots.used > 0)
    }

    /// [`acquire`](Self::acquire), until `by` at most.
    pub(super) async fn acquire_by(&self, by: Instant) -> Result<Arc<Process>, HandlerError> {
        let late = || not_reached("no process could be had in time".into(), Some(Duration::ZERO));
        timeout_at(by, self.acquire()).await.unwrap_or_else(|_| Err(late()))
    }

    /// How many processes may take another invocation.
    #[cfg(test)]
    pub(super) fn free_processes(&self) -> usize {
        self.lock().free.len()
    }

    /// A process that may take another invocation, started if there is none.
    pub(super) async fn acquire(&self) -> Result<Arc<Process>, HandlerError> {
        // One after the other, so that two do not start a process each where one has room for both.
        let _turn = self.starting.lock().await;
        if let Some(process) = self.take_free()? {
            return Ok(process);
        }
        let process = Arc::new(
            Process::start(&self.options, self.records.as_ref()).await.map_err(|e| self.start_failed(e))?,
        );
        let mut state = self.lock();
        if state.phase != Phase::Running {
            return Err(not_reached("the sidecar stops".into(), Some(Duration::ZERO)));
        }
        state.all.push(Slots { process: Arc::clone(&process), used: 0 });
        state.take(&process, self.options.concurrency());
        Ok(process)
    }

    /// `None`: one has to be started, and may be.
    fn take_free(&self) -> Result<Option<Arc<Process>>, HandlerError> {
        let mut state = self.lock();
        if state.phase != Phase::Running {
            return Err(not_reached("the sidecar stops".into(), Some(Duration::ZERO)));
        }
        while let Some(process) = state.free.last().map(Arc::clone) {
            if process.is_gone() {
                state.forget(&process);
            } else {
                state.take(&process, self.options.concurrency());
                return Ok(Some(process));
            }
        }
        if let Some(wait) = state.start_not_before.map(|at| at.saturating_duration_since(Instant::now()))
            && !wait.is_zero()
        {
            let reason = self.readiness.borrow().to_string();
            return Err(not_reached(reason, None));
        }
        Ok(None)
    }

    /// Takes note that no process can be started: the next attempt has to wait, and `/readyz` turns red.
    pub(super) fn start_failed(&self, reason: String) -> HandlerError {
        let mut state = self.lock();
        let wait = FIRST_BACKOFF.saturating_mul(1 << state.failed_starts.min(16)).min(MAXIMUM_BACKOFF);
        state.failed_starts = state.failed_starts.saturating_add(1);
        state.start_not_before = Some(Instant::now() + wait);
        drop(state);
        // The log shows the invocation that is not reached because of it, under its mapping's name.
        self.readiness.send_replace(Readiness::NotReady { reason: reason.as_str().into() });
        not_reached(reason, None)
    }

    /// Takes note that a process has started.
    pub(super) fn start_succeeded(&self) {
        let mut state = self.lock();
        state.failed_starts = 0;
        state.start_not_before = None;
        drop(state);
        self.readiness
            .send_if_modified(|readiness| std::mem::replace(readiness, Readiness::Ready) != Readiness::Ready);
    }

    /// Takes a process back that has no invocation any more.
    pub(super) fn release(&self, process: &Arc<Process>) {
        let mut state = self.lock();
        if process.is_gone() {
            state.forget(process);
            return;
        }
        let is_idle = state.give_back(process);
        if state.phase != Phase::Running && is_idle {
            process.terminate();
        }
    }

    /// Kills a process that cannot be used any more.
    pub(super) fn discard(&self, process: &Arc<Process>) {
        process.kill();
        let mut state = self.lock();
        state.forget(process);
        state.ending.retain(|other| !other.is_gone());
        state.ending.push(Arc::clone(process));
    }

    /// Stops: see [`CommandHandler::shutdown`](super::CommandHandler::shutdown).
    pub(super) async fn shutdown(&self, deadline: Instant) {
        let all = {
            let mut state = self.lock();
            if state.phase == Phase::Running {
                state.phase = Phase::Stopping;
                for slots in state.all.iter().filter(|slots| slots.used == 0) {
                    slots.process.terminate();
                }
            }
            let running = state.all.iter().map(|slots| &slots.process);
            running.chain(&state.ending).map(Arc::clone).collect::<Vec<_>>()
        };
        let gone = async {
            for process in &all {
                process.exited().await;
            }
        };
        let in_time = tokio::time::timeout_at(deadline, gone).await.is_ok();
        {
            let mut state = self.lock();
            state.phase = Phase::Stopped;
            state.all.clear();
            state.free.clear();
        }
        if !in_time {
            for process in &all {
                process.kill();
            }
            // A killed process is gone at once, unless the kernel holds on to it.
            let reaped = async {
                for process in &all {
                    process.exited().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), reaped).await;
        }
    }
}

impl State {
    fn used(&mut self, process: &Arc<Process>) -> Option<&mut usize> {
        let slots = self.all.iter_mut().find(|slots| Arc::ptr_eq(&slots.process, process));
        slots.map(|slots| &mut slots.used)
    }

    /// One more invocation for the process.
    fn take(&mut self, process: &Arc<Process>, concurrency: usize) {
        let Some(used) = self.used(process) else { return };
        *used += 1;
        let is_full = *used >= concurrency;
        self.free.retain(|other| !Arc::ptr_eq(other, process));
        if !is_full {
            self.free.push(Arc::clone(process));
        }
    }

    /// One invocation fewer. Whether it was the last one.
    fn give_back(&mut self, process: &Arc<Process>) -> bool {
        let Some(used) = self.used(process) else { return false };
        *used = used.saturating_sub(1);
        let is_idle = *used == 0;
        self.free.retain(|other| !Arc::ptr_eq(other, process));
        self.free.push(Arc::clone(process));
        is_idle
    }

    fn forget(&mut self, process: &Arc<Process>) {
        self.all.retain(|slots| !Arc::ptr_eq(&slots.process, process));
        self.free.retain(|other| !Arc::ptr_eq(other, process));
    }
}

pub(super) fn not_reached(reason: String, retry_after: Option<Duration>) -> HandlerError {
    HandlerError::NotReached { reason, retry_after }
}
