//! Signals for programs whose only work is a consumer.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Signals within this time of the first one have the same cause: `timeout` signals its child and then the group.
const ONE_CAUSE: Duration = Duration::from_secs(1);

/// A token for [`Consumer::run`](crate::Consumer::run) that the first SIGTERM or SIGINT (Ctrl-C) cancels; on other systems
/// than Unix only Ctrl-C does.
///
/// Another signal more than a second later ends the process at once, with the status that the signal would have given
/// (128 and its number; on other systems 1): the records in flight are redelivered by the next run. Both are logged. A
/// signal that cannot be received keeps its default action, and a warning is logged.
///
/// The signals are received from the call on, as long as the process lives. A program with other work to end makes its own
/// [`CancellationToken`].
///
/// # Panics
/// Outside of a tokio runtime with its IO and time drivers, which `#[tokio::main]` has.
#[must_use]
pub fn shutdown_on_signals() -> CancellationToken {
    let shutdown = CancellationToken::new();
    let mut signals = Signals::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(
            signal = first.name,
            "stopping: running invocations may finish; another signal after a second ends the process at once"
        );
        token.cancel();
        let stopped = Instant::now();
        loop {
            let signal = signals.next().await;
            if stopped.elapsed() >= ONE_CAUSE {
                tracing::warn!(signal = signal.name, "ended at once: records in flight are redelivered");
                std::process::exit(signal.status);
            }
        }
    });
    shutdown
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    name: &'static str,
    /// The process's exit status if this signal ends it.
    status: i32,
}

#[cfg(unix)]
struct Signals {
    terminate: Option<tokio::signal::unix::Signal>,
    interrupt: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::SignalKind;
        Self {
            terminate: received(SignalKind::terminate(), "SIGTERM"),
            interrupt: received(SignalKind::interrupt(), "SIGINT"),
        }
    }

    async fn next(&mut self) -> Arrived {
        tokio::select! {
            () = arrival(&mut self.terminate) => Arrived { name: "SIGTERM", status: 128 + 15 },
            () = arrival(&mut self.interrupt) => Arrived { name: "SIGINT", status: 128 + 2 },
        }
    }
}

#[cfg(unix)]
fn received(kind: tokio::signal::unix::SignalKind, name: &str) -> Option<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind)
        .inspect_err(|error| {
            tracing::warn!(signal = name, %error, "the signal cannot be received: it ends the process at once");
        })
        .ok()
}

#[cfg(unix)]
async fn arrival(signal: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(signal) = signal
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    const fn new() -> Self {
        Self
    }

    async fn next(&mut self) -> Arrived {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be received: it ends the process at once");
            std::future::pending::<()>().await;
        }
        Arrived { name: "Ctrl-C", status: 1 }
    }
}
