//! The admin endpoints: health, readiness, metrics, status. Nothing secret is served and nothing changes state.

mod guard;
mod server;
mod view;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use shardmill::{MetricDescription, MetricKind, Worker};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config;
pub use view::MappingView;

/// The default port; the next free one is taken instead.
const PORT: u16 = 9464;
/// So many ports are tried.
const PORTS: u16 = 100;
/// In seconds: from a local call to a batch that takes its whole timeout.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 900.0];

/// A gauge that was not set for so long belongs to a shard that is no longer read here: an idle shard is read more
/// often.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// How often histograms are folded into their buckets; until then every sample is kept.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the admin endpoints cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("Admin.Listen: cannot listen on {address}: {reason}; choose another address, or `Listen: off`")]
pub struct AdminError {
    address: SocketAddr,
    reason: std::io::Error,
}

/// Installs the recorder that `/metrics` shows.
///
/// # Errors
/// A recorder is already installed.
pub fn metrics_recorder() -> Result<PrometheusHandle, String> {
    let metrics = recorder(FORGET_AFTER)?.install_recorder().map_err(|e| e.to_string())?;
    LOG_LINES_LOST.describe();
    Ok(metrics)
}

fn recorder(forget_after: Duration) -> Result<PrometheusBuilder, String> {
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).map_err(|e| e.to_string())?;
    Ok(builder.idle_timeout(MetricKindMask::GAUGE, Some(forget_after)))
}

/// Keeps what the recorder holds bounded even if `/metrics` is never requested: samples are folded in, and the gauges
/// of shards that have ended are removed. Never returns.
pub async fn upkeep(metrics: PrometheusHandle) {
    loop {
        let rendered = tokio::time::Instant::now();
        while rendered.elapsed() < FORGET_AFTER {
            tokio::time::sleep(UPKEEP).await;
            count_lost_lines();
            metrics.run_upkeep();
        }
        // Idle series are looked for when the page is made.
        drop(metrics.render());
    }
}

/// The sidecar's own metric, in addition to [those of the library](shardmill::METRICS).
pub const LOG_LINES_LOST: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_log_lines_lost_total",
    "lines",
    &[],
    "log lines lost because stderr was not read; of the sidecar only",
);

/// The log cannot count its own losses: the recorder may log.
fn count_lost_lines() {
    metrics::counter!(LOG_LINES_LOST.name).absolute(crate::logging::lost());
}

/// The endpoints' socket, bound before anything is read from a stream.
#[derive(Debug)]
pub struct Admin {
    listener: Option<TcpListener>,
}

/// The endpoints at work.
#[derive(Debug)]
pub struct RunningAdmin {
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

struct Shared {
    views: Vec<MappingView>,
    metrics: PrometheusHandle,
    worker: Arc<Worker>,
}

impl Admin {
    /// Binds the requested address, or the first free one of the default ports.
    ///
    /// # Errors
    /// The requested address cannot be bound.
    pub async fn bind(config: config::Admin) -> Result<Self, AdminError> {
        let listener = match config {
            config::Admin::Off => None,
            config::Admin::Listen(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|reason| AdminError { address, reason })?)
            }
            config::Admin::Default => Some(first_free().await?),
        };
        if let Some(address) = listener.as_ref().and_then(|listener| listener.local_addr().ok()) {
            tracing::info!(%address, "admin endpoints: /healthz /readyz /metrics /v1/status");
        }
        Ok(Self { listener })
    }

    /// Serves until [`RunningAdmin::stop`].
    #[must_use]
    pub fn serve(
        self,
        views: Vec<MappingView>,
        metrics: PrometheusHandle,
        worker: Arc<Worker>,
    ) -> RunningAdmin {
        let stop = CancellationToken::new();
        let Some(listener) = self.listener else { return RunningAdmin { stop, task: None } };
        let shared = Arc::new(Shared { views, metrics, worker });
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .route("/v1/status", get(status))
            .with_state(shared);
        let task = tokio::spawn(server::serve(listener, router, stop.clone()));
        RunningAdmin { stop, task: Some(task) }
    }
}

impl RunningAdmin {
    /// Answers what has been asked and stops; a client that keeps its connection open is not waited for.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Some(task) = self.task {
            let _ = tokio::time::timeout(Duration::from_millis(200), task).await;
        }
    }
}

async fn first_free() -> Result<TcpListener, AdminError> {
    let mut last = None;
    for port in PORT..PORT + PORTS {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(reason) => last = Some(AdminError { address, reason }),
        }
    }
    Err(last.unwrap_or_else(|| AdminError {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
        reason: std::io::ErrorKind::AddrInUse.into(),
    }))
}

/// Makes a page off the runtime's threads: it may be about thousands of shards.
async fn page<R: IntoResponse + Send + 'static>(
    shared: Arc<Shared>,
    make: impl FnOnce(&Shared) -> R + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(move || make(&shared)).await {
        Ok(page) => page.into_response(),
        // A panic, which is in the log.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    page(shared, |shared| {
        let now = shared.worker.clock().now().mono;
        problems(shared.views.iter().flat_map(|view| view.health_problems(now)))
    })
    .await
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    page(shared, |shared| problems(shared.views.iter().flat_map(MappingView::readiness_problems))).await
}

fn problems(found: impl Iterator<Item = String>) -> Response {
    let found: Vec<String> = found.collect();
    if found.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, found.join("\n") + "\n").into_response()
}

async fn metrics_page(State(shared): State<Arc<Shared>>) -> Response {
    page(shared, |shared| {
        count_lost_lines();
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render())
    })
    .await
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    page(shared, |shared| {
        let mappings: Vec<_> = shared.views.iter().map(|view| view.json(&shared.worker)).collect();
        axum::Json(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "worker": shared.worker.id().as_str(),
            "clockOffsetMilliseconds": shared.worker.clock().offset(),
            "clockInDoubt": shared.worker.clock().doubt().is_some(),
            "mappings": mappings,
        }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_63_the_gauges_of_shards_that_have_ended_leave_the_metrics_and_counters_stay() {
        let recorder = recorder(Duration::from_millis(20)).unwrap().build_recorder();
        let metrics = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("polled").increment(1);
            let ended = metrics::gauge!("age", "shard" => "ended");
            let open = metrics::gauge!("age", "shard" => "open");
            ended.set(1.0);
            open.set(1.0);
            assert!(metrics.render().contains("ended"));
            let started = std::time::Instant::now();
            while metrics.render().contains("ended") {
                assert!(started.elapsed() < Duration::from_secs(60), "it never goes");
                open.increment(0.0);
            }
            open.set(7.0);
        });
        let page = metrics.render();
        assert!(page.contains("age{shard=\"open\"} 7") && page.contains("polled 1"), "{page}");
    }
}
