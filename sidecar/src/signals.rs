//! Signals: the first one stops the run, a second one ends the process at once.
//!
//! They are received on a thread of their own, and act before anything is logged: a runtime that hangs, or a log
//! that is not read, must not keep the process from ending.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use shardmill::CancellationToken;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::handler::end_all_processes;

/// Signals within this time of the first one have the same cause: `timeout` signals its child and then its own group,
/// and a terminal that is closed sends SIGHUP and SIGTERM.
const ONE_CAUSE: Duration = Duration::from_secs(1);

/// How long the end of the functions' processes, and the last line of the log, may take when everything ends at once.
const LAST_ACTS: Duration = Duration::from_secs(1);

/// A second signal ends the process.
static ENDS_AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Returns at once, unless a second signal is about to end the process: with its functions' processes killed, a stop would end well, and
/// its status would say that nothing was cut.
pub async fn give_way_to_second_signal() {
    if ENDS_AT_ONCE.load(Ordering::SeqCst) {
        tokio::time::sleep(3 * LAST_ACTS).await;
    }
}

/// Receives signals from now on. The token is cancelled by the first SIGTERM, SIGINT or SIGHUP; the second one ends the
/// functions' processes and then this one, with status 1. Signals within a second of the first one count as one with it.
/// A SIGHUP that was ignored when this process was started, as `nohup` has it, stays ignored.
///
/// # Errors
/// The operating system refuses a thread or the handlers.
pub fn shutdown_on_signal() -> io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let (report, started) = channel();
    let receive = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(report.send(Err(error))),
        };
        runtime.block_on(async {
            match Signals::new() {
                Ok(signals) => {
                    let _ = report.send(Ok(()));
                    signals.act(&token).await;
                }
                Err(error) => drop(report.send(Err(error))),
            }
        });
    };
    std::thread::Builder::new().name("shardmill-signals".into()).spawn(receive)?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("their thread ended")))?;
    Ok(shutdown)
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Stop: the first one.
    Stop,
    /// What was requested already.
    Same,
    /// End at once.
    End,
}

/// Distinguishes signals with a cause of their own from those that accompany another.
#[derive(Debug, Default)]
struct Count {
    first: Option<Instant>,
}

impl Count {
    fn receive(&mut self, now: Instant) -> Wish {
        match self.first {
            None => {
                self.first = Some(now);
                Wish::Stop
            }
            Some(first) if now.saturating_duration_since(first) < ONE_CAUSE => Wish::Same,
            Some(_) => Wish::End,
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hang_up => "SIGHUP",
        }
    }

    async fn act(mut self, token: &CancellationToken) {
        let mut count = Count::default();
        loop {
            let signal = self.next().await;
            match count.receive(Instant::now()) {
                Wish::Same => {}
                Wish::Stop => {
                    token.cancel();
                    aside(move || {
                        tracing::info!(
                            signal,
                            "stopping: running invocations may finish; again after a second to end at once"
                        );
                    });
                }
                Wish::End => {
                    ENDS_AT_ONCE.store(true, Ordering::SeqCst);
                    // Each may hang: on a process that cannot be inspected, on a log that is not read.
                    let ended = aside(end_all_processes);
                    let _ = ended.recv_timeout(LAST_ACTS);
                    let logged = aside(move || {
                        tracing::warn!(signal, "ended at once: records in flight are redelivered");
                        crate::logging::flush();
                    });
                    let _ = logged.recv_timeout(LAST_ACTS);
                    std::process::exit(1);
                }
            }
        }
    }
}

/// Does this on a thread of its own. The receiver gets an error when it is done.
fn aside(act: impl FnOnce() + Send + 'static) -> Receiver<()> {
    let (done, is_done) = channel();
    let act = move || {
        let _done = done;
        act();
    };
    // Without a thread it is left out: what matters has been done, or follows from the exit.
    let _ = std::thread::Builder::new().name("shardmill-aside".into()).spawn(act);
    is_done
}

/// Whether this process was started with SIGHUP ignored, where the system shows it.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The mask's first bit is signal 1, which SIGHUP is.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_100_signals_within_a_second_of_the_first_are_one_and_a_later_one_ends() {
        let start = Instant::now();
        let mut count = Count::default();
        let wishes =
            [0, 0, 400, 999, 1000, 1001].map(|millis| count.receive(start + Duration::from_millis(millis)));
        assert_eq!(wishes, [Wish::Stop, Wish::Same, Wish::Same, Wish::Same, Wish::End, Wish::End]);
    }

    #[test]
    fn what_hangs_is_waited_for_no_longer_than_asked() {
        let (hold, held) = channel::<()>();
        let stuck = aside(move || held.recv().unwrap_or_default());
        assert_eq!(stuck.recv_timeout(Duration::ZERO), Err(std::sync::mpsc::RecvTimeoutError::Timeout));
        drop(hold);
        assert_eq!(stuck.recv(), Err(std::sync::mpsc::RecvError), "done");
    }
}
