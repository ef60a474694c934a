//! `shardmill run`: runs the mappings of a file until a signal.

mod closed;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use shardmill::{CancellationToken, RunError, RunReport, Worker};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::{Admin, AdminError, MappingView};
use crate::assembly::{self, AssemblyError, Parts};
use crate::config::{self, Loaded, MappingConfig};
use crate::descriptors::Descriptors;
use crate::handler::FunctionState;
use crate::identity::Positions;
use crate::signals;

/// Why a run could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The file is not valid.
    #[error(transparent)]
    Config(#[from] config::ConfigErrors),
    /// A part cannot be used as it is configured.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The admin endpoints cannot listen.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Signals cannot be received, or a recorder is already installed.
    #[error("{0}")]
    Setup(String),
    /// The demo cannot be shown.
    #[error(transparent)]
    Demo(#[from] crate::demo::DemoError),
    /// Standard output, which is the function of a mapping, has no reader any more.
    #[error(
        "stdout is closed: the program that read it has ended; what it did not take is delivered by the next run"
    )]
    StdoutClosed,
    /// Every mapping has stopped by itself.
    #[error("every mapping has stopped: {0}")]
    Stopped(String),
}

impl SidecarError {
    /// 2 for a configuration error, 1 for anything else.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Assembly(AssemblyError::Function(_) | AssemblyError::Source(_)) => {
                ExitCode::from(2)
            }
            _ => ExitCode::from(1),
        }
    }
}

/// Runs the mappings of the file at `path` until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// The file is not valid, a part cannot be used, or every mapping stopped by itself.
pub async fn run(path: &Path) -> Result<(), SidecarError> {
    let loaded = config::load(path, &|name| std::env::var(name).ok())?;
    assembly::log_notes(&loaded);
    let result = run_config(loaded).await;
    signals::give_way_to_second_signal().await;
    result
}

async fn run_config(mut loaded: Loaded) -> Result<(), SidecarError> {
    let metrics = crate::admin::metrics_recorder().map_err(SidecarError::Setup)?;
    let signalled = signals::shutdown_on_signal()
        .map_err(|error| SidecarError::Setup(format!("cannot receive signals: {error}")))?;
    // Ends the run also without a signal.
    let shutdown = signalled.child_token();
    crate::handler::adopt_orphans();
    let reads = bound_reads(&mut loaded.config);
    let worker = assembly::worker(&loaded.config.worker)?;
    let (stop, lease) = (loaded.config.worker.stop, loaded.config.worker.lease);
    let aws = assembly::aws(&loaded.config.aws, assembly::stream_region(&loaded.config)).await;
    let aws = aws.into_builder().http_client(shardmill::Connections::for_reads(reads).http_client()).build();
    let mut stores = assembly::Stores::of(&loaded.config);
    let admin = Admin::bind(loaded.config.admin).await?;
    let taken = Arc::new(assembly::identities(&loaded.config.mappings));
    let (enabled, disabled) = assembly::split_enabled(loaded.config);
    let mut views: Vec<_> = disabled.iter().map(idle).collect();
    let mut running = JoinSet::new();
    let mut handlers = Vec::new();
    // A mapping that cannot be put together ends the process before another one has begun to work.
    let mut all = Vec::new();
    for mapping in enabled {
        all.push(assembly::parts(mapping, &aws, &mut stores)?);
    }
    for parts in all {
        log_start(&parts, &worker);
        parts.function.stop_with(&shutdown);
        let positions = Positions::new(&parts, &taken);
        let consumer = assembly::consumer(&parts, Arc::clone(&worker))?;
        let function = FunctionState::watch(parts.function.clone(), consumer.status(), shutdown.clone());
        views.push(MappingView::enabled(&parts.config, consumer.status(), function));
        closed::ends(&parts.function, &shutdown);
        handlers.push(parts.function);
        let (shutdown, name) = (shutdown.clone(), parts.config.mapping.application_name().to_owned());
        running.spawn(async move {
            let result = match shutdown.run_until_cancelled(positions.settle(lease)).await {
                Some(Ok(())) => consumer.run(shutdown).await,
                Some(Err(error)) => Err(error.into()),
                None => Ok(RunReport::default()),
            };
            (name, result)
        });
    }
    let has_none = running.is_empty();
    let upkeep = tokio::spawn(crate::admin::upkeep(metrics.clone()));
    let admin = admin.serve(views, metrics, Arc::clone(&worker));
    let stop_begins = tokio::spawn(end_of(shutdown.clone()));
    let failure = wait(&mut running, has_none, &shutdown).await;
    upkeep.abort();
    let stop_began = match shutdown.is_cancelled() {
        true => stop_begins.await.unwrap_or_else(|_| Instant::now()),
        false => Instant::now(),
    };
    stop_functions(&handlers, stop_began + stop).await;
    admin.stop().await;
    match failure {
        _ if signalled.is_cancelled() => Ok(()),
        _ if shutdown.is_cancelled() => Err(SidecarError::StdoutClosed),
        Some(failure) => Err(SidecarError::Stopped(failure)),
        None => Ok(()),
    }
}

/// A mapping that is loaded and does not run.
fn idle(mapping: &MappingConfig) -> MappingView {
    tracing::info!(mapping = mapping.mapping.application_name(), "loaded and idle: Enabled is false");
    MappingView::disabled(mapping)
}

/// When the run was ended.
async fn end_of(shutdown: CancellationToken) -> Instant {
    shutdown.cancelled().await;
    Instant::now()
}

/// As many reads at once as the process has descriptors for.
fn bound_reads(config: &mut config::Config) -> usize {
    let descriptors = Descriptors::raise();
    descriptors.log(config);
    config.worker.maximum_concurrent_reads = descriptors.reads(config);
    config.worker.maximum_concurrent_reads
}

/// Waits until the mappings have ended: all of them by themselves, or after the signal. Returns why the last one
/// ended by itself.
async fn wait(
    running: &mut JoinSet<(String, Result<RunReport, RunError>)>,
    idle: bool,
    shutdown: &CancellationToken,
) -> Option<String> {
    if idle {
        shutdown.cancelled().await;
    }
    let mut failure = None;
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((name, Ok(report))) => {
                tracing::info!(mapping = name, cut_invocations = report.cut_invocations, "stopped");
            }
            Ok((name, Err(error))) => {
                tracing::error!(mapping = name, %error, "the mapping has stopped; the others keep running");
                failure = Some(error.to_string());
            }
            // What it said is in the log, at debug.
            Err(error) if error.is_panic() => {
                failure = Some("a defect of shardmill: its task panicked".to_owned());
            }
            Err(error) => failure = Some(error.to_string()),
        }
    }
    failure
}

/// Invocations have ended or were cut by now: what is left are idle processes. They have what is left of `Worker.StopSeconds`
/// for what they do at their end, and at least a moment.
async fn stop_functions(handlers: &[crate::handler::FunctionHandler], deadline: Instant) {
    let deadline = deadline.max(Instant::now() + Duration::from_secs(1));
    futures::future::join_all(handlers.iter().map(|handler| handler.shutdown(deadline))).await;
}

fn log_start(parts: &Parts, worker: &Worker) {
    let mapping = &parts.config.mapping;
    tracing::info!(
        mapping = mapping.application_name(),
        stream = %mapping.event_source().arn,
        identity = mapping.identity(),
        checkpoints = parts.store.describe(),
        destination = parts.destination.as_ref().map(|d| d.0.describe()),
        worker = %worker.id(),
        "starting"
    );
}
