//! The function's processes: those that wait for work, and when another one may be started.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardmill::HandlerError;
use tokio::sync::watch;
use tokio::time::Instant;

use super::process::Process;
use super::{CommandOptions, Readiness};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAXIMUM_BACKOFF: Duration = Duration::from_secs(60);

/// All processes of one function.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) options: CommandOptions,
    state: Mutex<State>,
    readiness: watch::Sender<Readiness>,
}

#[derive(Debug, Default)]
struct State {
    /// Every process that has been started and not forgotten.
    all: Vec<Arc<Process>>,
    /// Those without an invocation; the one used last is used first.
    idle: Vec<Arc<Process>>,
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
        let readiness = watch::Sender::new(Readiness::Ready);
        Self { options, state: Mutex::default(), readiness }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        state.all.len() > state.idle.len()
    }

    /// A process without an invocation, started if there is none.
    pub(super) fn acquire(&self) -> Result<Arc<Process>, HandlerError> {
        let mut state = self.lock();
        if state.phase != Phase::Running {
            return Err(not_reached("the sidecar stops".into(), None));
        }
        while let Some(process) = state.idle.pop() {
            if process.is_gone() {
                state.forget(&process);
            } else {
                return Ok(process);
            }
        }
        if let Some(wait) = state.start_not_before.map(|at| at.saturating_duration_since(Instant::now()))
            && !wait.is_zero()
        {
            let reason = self.readiness.borrow().to_string();
            return Err(not_reached(reason, Some(wait)));
        }
        match Process::start(&self.options) {
            Ok(process) => {
                let process = Arc::new(process);
                state.all.push(Arc::clone(&process));
                Ok(process)
            }
            Err(reason) => {
                drop(state);
                Err(self.start_failed(reason))
            }
        }
    }

    /// Takes note that no process can be started: the next try has to wait, and `/readyz` turns red.
    pub(super) fn start_failed(&self, reason: String) -> HandlerError {
        let mut state = self.lock();
        let wait = FIRST_BACKOFF.saturating_mul(1 << state.failed_starts.min(16)).min(MAXIMUM_BACKOFF);
        state.failed_starts = state.failed_starts.saturating_add(1);
        state.start_not_before = Some(Instant::now() + wait);
        drop(state);
        let before = self.readiness.send_replace(Readiness::NotReady { reason: reason.as_str().into() });
        if before == Readiness::Ready {
            tracing::warn!(reason, "the function cannot be started; trying again until it starts");
        }
        not_reached(reason, Some(wait))
    }

    /// Takes note that a process has started.
    pub(super) fn start_succeeded(&self) {
        let mut state = self.lock();
        state.failed_starts = 0;
        state.start_not_before = None;
        drop(state);
        let changed = self
            .readiness
            .send_if_modified(|readiness| std::mem::replace(readiness, Readiness::Ready) != Readiness::Ready);
        if changed {
            tracing::info!("the function can be started again");
        }
    }

    /// Takes a process back that has no invocation any more.
    pub(super) fn release(&self, process: Arc<Process>) {
        let mut state = self.lock();
        if process.is_gone() {
            state.forget(&process);
            return;
        }
        if state.phase != Phase::Running {
            process.terminate();
        }
        state.idle.push(process);
    }

    /// Kills a process that cannot be used any more.
    pub(super) fn discard(&self, process: &Arc<Process>) {
        process.kill();
        self.lock().forget(process);
    }

    /// Stops: see [`CommandHandler::shutdown`](super::CommandHandler::shutdown).
    pub(super) async fn shutdown(&self, deadline: Instant) {
        let all = {
            let mut state = self.lock();
            if state.phase == Phase::Running {
                state.phase = Phase::Stopping;
                for process in &state.idle {
                    process.terminate();
                }
            }
            state.all.clone()
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
            state.idle.clear();
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
    fn forget(&mut self, process: &Arc<Process>) {
        self.all.retain(|other| !Arc::ptr_eq(other, process));
        self.idle.retain(|other| !Arc::ptr_eq(other, process));
    }
}

pub(super) fn not_reached(reason: String, retry_after: Option<Duration>) -> HandlerError {
    HandlerError::NotReached { reason, retry_after }
}
