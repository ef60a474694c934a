//! What an idle shard takes in memory: many shards of a stream in memory, none with a record.

use std::time::Duration;

use crate::library::{self, Running};
use crate::measure::{Fallible, resident_bytes};
use crate::memory_source::MemorySource;

/// Resident bytes that each of `shards` idle shards adds, after each was polled for `settle`.
///
/// A Prometheus recorder is installed, as in the sidecar, because every shard has gauges of its own.
pub(crate) async fn run(shards: usize, settle: Duration) -> Fallible<f64> {
    metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
    // What the first shard brings with it, the runtime's threads for one, is not counted.
    let first = Running::start(library::mapping().name("first"), MemorySource::idle(1), library::worker()?)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = resident_bytes("self")?;
    let many = Running::start(library::mapping(), MemorySource::idle(shards), library::worker()?)?;
    tokio::time::sleep(settle).await;
    let after = resident_bytes("self")?;
    many.stop().await?;
    first.stop().await?;
    Ok(after.saturating_sub(before) as f64 / shards as f64)
}
