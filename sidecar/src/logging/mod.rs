//! Logs on standard error: human-readable on a terminal, JSON lines otherwise.
//!
//! Nothing else of the sidecar writes to standard error: a reader that stalls would hold up the writer, and with it
//! records, leases and the stop. Lines wait in a bounded queue ([`lost`] counts those that find it full) for a thread
//! that may block.

mod lossy;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, registry};

use lossy::{Bounds, Lossy};

/// How long the end of the process waits for a log that is not read.
const FLUSH: Duration = Duration::from_secs(1);

static LOG: OnceLock<Lossy> = OnceLock::new();

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `text` on a terminal, else `json`.
    #[default]
    Auto,
    /// Human-readable.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging; `RUST_LOG` chooses what is logged, else `level` and above, and of the target `quiet` errors only. A
/// second start, as in tests, leaves the first one in place.
///
/// # Errors
/// The operating system refuses the thread that writes.
pub fn start(format: LogFormat, level: LevelFilter, quiet: Option<&str>) -> std::io::Result<()> {
    if LOG.get().is_some() {
        return Ok(());
    }
    let mut filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let is_chosen = std::env::var_os(EnvFilter::DEFAULT_ENV).is_some_and(|chosen| !chosen.is_empty());
    if let Some(directive) =
        quiet.filter(|_| !is_chosen).and_then(|quiet| format!("{quiet}=error").parse().ok())
    {
        filter = filter.add_directive(directive);
    }
    let terminal = std::io::stderr().is_terminal();
    let report = |lines: u64| tracing::warn!(lines, "{lines} log lines were lost while stderr was not read");
    let log = Lossy::start(std::io::stderr(), Bounds::default(), report)?;
    let writer = log.clone();
    let lines = layer().with_writer(move || writer.clone()).log_internal_errors(false);
    // The span of a shard's run: what it names is in every line already.
    let filter = filter.and(filter_fn(|about| about.is_event() || about.name() != "shard"));
    let is_text = matches!((format, terminal), (LogFormat::Text, _) | (LogFormat::Auto, true));
    let started = if is_text {
        registry().with(lines.with_ansi(terminal).with_target(false).with_filter(filter)).try_init()
    } else {
        registry().with(lines.json().flatten_event(true).with_filter(filter)).try_init()
    };
    if started.is_ok() && LOG.set(log).is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// A panic is a line of the log: the hook of the standard library would write to standard error itself. Its message may
/// quote what it was about, a record for example, so it is logged at debug only.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        place,
        thread = thread.name(),
        "panicked: a defect of shardmill; its message is logged at debug"
    );
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::debug!(place, message, "what the panic said");
}

/// Prints why the program ends: a human-readable line, after everything that was logged.
pub fn print_error(error: &dyn std::fmt::Display) {
    let line = format!("error: {error}\n");
    match LOG.get() {
        Some(log) => log.push(line.as_bytes()),
        None => {
            // Its reader may be gone; the exit status still shows it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }
}

/// Waits until the log is written, but never longer than a second: for the end of the process, and before
/// [`std::process::exit`]. Does not need the runtime and blocks its thread; safe to call at any time and repeatedly.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH);
    }
}

/// Lines of the log that were lost because standard error was not read, since the start of the process.
#[must_use]
pub fn lost() -> u64 {
    LOG.get().map_or(0, Lossy::lost)
}
