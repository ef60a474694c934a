//! `Function.Command`: a program that is started as a Lambda runtime.

mod api;
mod environment;
mod group;
mod output;
mod peer;
mod pool;
mod process;
#[cfg(test)]
mod python;
mod reaper;
mod records;
mod spawner;
#[cfg(test)]
mod tests;
mod tree;
mod trial;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shardmill::{Batch, BatchResponse, CancellationToken, Handler, HandlerError, InvokeContext, Places};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::ProbeError;
use super::gate::Schedule;
use super::unread::Unread;
use api::{Answer, Ended, Invocation, Life};
pub use group::end_all_processes;
use pool::{Pool, not_reached};
use process::Process;
pub use reaper::adopt_orphans;
pub use records::records_beside;

/// Settings of a [`CommandHandler`].
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// `Function.Command`: the program and its arguments.
    pub command: Vec<String>,
    /// `Function.WorkingDirectory`; the sidecar's own if there is none.
    pub working_directory: Option<PathBuf>,
    /// `Function.Environment`: added to the sidecar's own environment and to what Lambda sets.
    pub environment: BTreeMap<String, String>,
    /// `Function.ConcurrencyPerProcess`: invocations that one process may hold at once, passed to it as
    /// `AWS_LAMBDA_MAX_CONCURRENCY` if there may be several; at least 1.
    pub concurrency_per_process: usize,
    /// `Function.MaximumConcurrency`: processes, at least 1. `None`: 4 for each CPU; there are never more than were
    /// needed at once.
    pub maximum_concurrency: Option<usize>,
    /// Whether an answer is read: with `ReportBatchItemFailures` (R33) and with tumbling windows (R66).
    pub reads_response: bool,
    /// The mapping's name, for the log.
    pub mapping: String,
    /// `AWS_LAMBDA_FUNCTION_NAME`.
    pub function_name: String,
    /// `AWS_LAMBDA_FUNCTION_VERSION`.
    pub function_version: String,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`, in MB; only passed on, not enforced.
    pub memory_megabytes: u32,
    /// `AWS_REGION`; left as it is in the sidecar's environment if there is none.
    pub region: Option<String>,
    /// How long a process may take to its first `/next`.
    pub start_timeout: Duration,
    /// The binary `shardmill`, by way of which processes are started so that they end with this one, however it ends.
    /// `None`: they are started directly, and outlive a `kill -9` of this process.
    pub launcher: Option<PathBuf>,
    /// The folder in which running processes are recorded, so that a successor on this host ends what is left of them
    /// before it invokes: the same for all that may succeed one another. `None`: they are not recorded.
    pub records: Option<PathBuf>,
}

impl CommandOptions {
    /// The defaults for this program.
    #[must_use]
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            working_directory: None,
            environment: BTreeMap::new(),
            concurrency_per_process: 1,
            maximum_concurrency: None,
            reads_response: false,
            mapping: String::new(),
            function_name: "function".into(),
            function_version: "$LATEST".into(),
            memory_megabytes: 128,
            region: None,
            start_timeout: Duration::from_secs(60),
            launcher: None,
            records: None,
        }
    }

    fn concurrency(&self) -> usize {
        self.concurrency_per_process.max(1)
    }
}

/// Why a `Function.Command` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no program.
    #[error("Function.Command: names no program; write [PROGRAM, ARGUMENT, …]")]
    Empty,
    /// A text that no program can be given.
    #[error("{key}: contains a zero byte, or a name that is empty or has = in it")]
    Text {
        /// The key of the configuration.
        key: &'static str,
    },
}

/// Whether the function's processes can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// The last start succeeded, or there was none yet.
    Ready,
    /// The last start failed; it is retried with the next batch.
    NotReady {
        /// What happened.
        reason: Arc<str>,
    },
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotReady { reason } => f.write_str(reason),
        }
    }
}

/// Invokes a function by the Lambda Runtime API in processes of its own, `Function.ConcurrencyPerProcess` invocations at a time in each.
///
/// Must be used inside a tokio runtime with IO and time. A call that is dropped kills the process that it runs in,
/// because an invocation cannot be recalled. Dropping the last clone kills all processes.
#[derive(Clone, Debug)]
pub struct CommandHandler {
    pool: Arc<Pool>,
    /// One for each invocation that the processes may hold.
    places: Places,
    unread: Unread,
}

/// How an attempt to invoke on one process ended without an answer from the function.
enum Lost {
    /// The process went away before it took the invocation.
    NotTaken(Arc<str>),
    Judged(HandlerError),
}

impl CommandHandler {
    /// Checks the settings; no process is started before the first invocation.
    ///
    /// # Errors
    /// [`CommandError`] if the settings cannot be used.
    pub fn new(options: CommandOptions) -> Result<Self, CommandError> {
        if options.command.first().is_none_or(String::is_empty) {
            return Err(CommandError::Empty);
        }
        if options.command.iter().any(|text| text.contains('\0')) {
            return Err(CommandError::Text { key: "Function.Command" });
        }
        let bad_name = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        if options.environment.iter().any(|(name, value)| bad_name(name) || value.contains('\0')) {
            return Err(CommandError::Text { key: "Function.Environment" });
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let maximum = options.maximum_concurrency.unwrap_or(4 * cpus).saturating_mul(options.concurrency());
        let places = Places::new(maximum);
        Ok(Self { pool: Arc::new(Pool::new(options)), places, unread: Unread::default() })
    }

    /// Asks whether the program's file is there and executable, for `check --online` and `/readyz`. Starts nothing.
    ///
    /// # Errors
    /// [`ProbeError`] says what is missing.
    #[expect(clippy::unused_async, reason = "the same form as the other handlers' probes")]
    pub async fn probe(&self) -> Result<(), ProbeError> {
        process::find_program(&self.pool.options).map(|_| ()).map_err(ProbeError)
    }

    /// Watches whether processes can be started.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.pool.readiness()
    }

    /// Sets the token that is cancelled when the sidecar is to stop. Supervisors may signal the functions' processes as
    /// well as the sidecar: an invocation whose process dies of that is cut off by the stop, and no failure of the
    /// function. Without effect from the second time on.
    pub fn stop_with(&self, stop: &CancellationToken) {
        self.pool.stop_with(stop.clone());
    }

    /// Stops: invocations that run may end until `deadline`, no further one is given out, a process gets SIGTERM once
    /// it is idle, and at `deadline` SIGKILL goes to every group that is left. Returns when all processes are gone.
    pub async fn shutdown(&self, deadline: Instant) {
        self.pool.shutdown(deadline).await;
    }

    async fn invoke(&self, event: Bytes, cx: &InvokeContext) -> Result<BatchResponse, HandlerError> {
        let schedule = Schedule::new(cx.deadline);
        self.pool.succeed(cx, schedule.start_by).await?;
        loop {
            let process = self.pool.acquire_by(schedule.start_by).await?;
            let mut running = Running { pool: &self.pool, process, busy: false };
            running.started(schedule).await?;
            match running.invoke(event.clone(), cx, schedule).await {
                Ok(body) if self.pool.options.reads_response => {
                    return BatchResponse::from_json(&body).map_err(HandlerError::function);
                }
                Ok(body) => {
                    self.unread.look(&body);
                    return Ok(BatchResponse::success());
                }
                Err(Lost::Judged(error)) => return Err(error),
                // It ended while it idled; that it could start is proven, so another one is tried at once.
                Err(Lost::NotTaken(_)) if running.process.is_proven() => {}
                Err(Lost::NotTaken(how)) => {
                    return Err(self
                        .pool
                        .start_failed(format!("the process ended before it took work: {how}")));
                }
            }
        }
    }
}

impl Handler for CommandHandler {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        self.invoke(cx.event(&batch), &cx).await
    }

    fn places(&self) -> Places {
        self.places.clone()
    }
}

/// A process that is taken out of the pool; it goes back when this is dropped, or is killed if it is busy.
struct Running<'a> {
    pool: &'a Pool,
    process: Arc<Process>,
    /// Whether it must not be used again as it is.
    busy: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.busy {
            self.pool.discard(&self.process);
        } else {
            self.pool.release(&self.process);
        }
    }
}

impl Running<'_> {
    /// Waits for the first `/next`.
    async fn started(&mut self, schedule: Schedule) -> Result<(), HandlerError> {
        let mut life = self.process.life.clone();
        let give_up = self.process.started + self.pool.options.start_timeout;
        let until = schedule.start_by.min(give_up);
        let reason = match timeout_at(until, life.wait_for(|life| *life != Life::Starting)).await {
            Ok(Ok(life)) => match &*life {
                Life::InitFailed(error) => {
                    format!("the function reported that it cannot start: {}", error.summary)
                }
                Life::Exited(ended) if !self.process.is_proven() => {
                    format!("the process ended before its first /next: {}", ended.how)
                }
                _ => {
                    drop(life);
                    self.pool.start_succeeded();
                    return Ok(());
                }
            },
            Ok(Err(_)) => "its exit was not seen".into(),
            Err(_) if Instant::now() >= give_up => {
                let limit = self.pool.options.start_timeout.as_secs_f32();
                format!("the process did not ask for /next within {limit} s: is it a Lambda runtime?")
            }
            // It starts on, and is there for the next try.
            Err(_) => return Err(not_reached("the process is still starting".into(), Some(Duration::ZERO))),
        };
        self.busy = true;
        Err(self.pool.start_failed(reason))
    }

    async fn invoke(&mut self, event: Bytes, cx: &InvokeContext, schedule: Schedule) -> Result<Bytes, Lost> {
        let (answer, mut answered) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let invocation = Invocation {
            request_id: cx.request_id.to_string().into(),
            invocation_id: uuid::Uuid::new_v4().to_string().into(),
            event,
            deadline_epoch_millis: schedule.deadline_epoch_millis(),
            function_arn: Arc::clone(&cx.function_arn),
            taken: Arc::clone(&taken),
            answer,
            cx: cx.clone(),
        };
        if self.pool.is_stopping() {
            return Err(Lost::Judged(not_reached("the sidecar stops".into(), Some(Duration::ZERO))));
        }
        self.busy = true;
        // There is room for as many as the process may hold, and it has fewer.
        if self.process.work.try_send(invocation).is_err() {
            return Err(Lost::NotTaken("it holds another invocation".into()));
        }
        let process = Arc::clone(&self.process);
        let taken = || taken.load(Ordering::Relaxed);
        let ended = tokio::select! {
            biased;
            answer = &mut answered => match answer {
                Ok(answer) => return self.judge(answer),
                Err(_) => process.exited().await,
            },
            ended = process.exited() => ended,
            () = cx.cancelled.cancelled() => {
                let reason = "the invocation was called off".into();
                return Err(Lost::Judged(not_reached(reason, Some(Duration::ZERO))));
            }
            () = tokio::time::sleep_until(schedule.deadline) => {
                return Err(Lost::Judged(if taken() {
                    HandlerError::function("Sandbox.Timedout: no answer within Function.Timeout")
                } else {
                    not_reached("the process did not ask for its next invocation in time".into(), None)
                }));
            }
        };
        // What it sent before it ended still counts.
        let _ = tokio::time::timeout(Duration::from_secs(1), process.api.drained()).await;
        if let Ok(answer) = answered.try_recv() {
            return self.judge(answer);
        }
        Err(self.unanswered(ended, taken()).await)
    }

    /// The process has ended without an answer.
    async fn unanswered(&self, ended: Ended, taken: bool) -> Lost {
        if self.process.was_killed() && !self.pool.is_stopped() {
            // Another invocation that it held was cancelled, by the stop perhaps; this one is innocent.
            let reason = "the process was ended with another invocation in it".into();
            return Lost::Judged(not_reached(reason, Some(Duration::ZERO)));
        }
        if taken && self.pool.was_cut(&ended).await {
            let reason = format!("the stop of the sidecar ended its process, too: {}", ended.how);
            return Lost::Judged(HandlerError::Cut { reason });
        }
        if self.pool.is_stopped() {
            let reason = "the sidecar stopped before the function answered".into();
            Lost::Judged(not_reached(reason, Some(Duration::ZERO)))
        } else if !taken {
            Lost::NotTaken(ended.how)
        } else {
            let text = format!("Runtime.ExitError: the process ended: {}", ended.how);
            Lost::Judged(HandlerError::function(text))
        }
    }

    fn judge(&mut self, answer: Answer) -> Result<Bytes, Lost> {
        self.busy = false;
        self.process.prove();
        match answer {
            Answer::Response(body) => Ok(body),
            Answer::Error(reported) => Err(Lost::Judged(reported.into())),
            Answer::NotStarted => Err(Lost::Judged(HandlerError::not_started())),
        }
    }
}
