//! Workers as they report themselves to a store.

use std::time::Duration;

use crate::{ProcessIdentity, WorkerId};

/// A worker as it reports itself with each heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Its name.
    pub id: WorkerId,
    /// Its process, where the platform shows it.
    pub process: Option<ProcessIdentity>,
    /// How long it holds leases without a sign of life; whole milliseconds. Others wait for at least as long.
    pub lease_time: Duration,
    /// It gives its leases away and takes no more.
    pub stopping: bool,
    /// How many leases it holds.
    pub leases: u64,
    /// Its load: records that it read in the last minute; `None` before its first minute is over.
    pub records_per_minute: Option<u64>,
    /// Most leases that it takes, if there is a limit.
    pub maximum_leases: Option<u64>,
    /// The version of Shardmill that it runs.
    pub version: String,
    /// The host that it runs on, for people.
    pub host: String,
    /// When it started, in milliseconds since the epoch, by its own clock.
    pub started: i64,
    /// It is another program's: it gives no lease and takes none that it is given, except by that program's own means.
    pub foreign: bool,
}

impl WorkerReport {
    /// A worker that holds nothing and has no limit.
    #[must_use]
    pub fn new(id: WorkerId, lease_time: Duration) -> Self {
        Self {
            id,
            process: None,
            lease_time,
            stopping: false,
            leases: 0,
            records_per_minute: None,
            maximum_leases: None,
            version: String::new(),
            host: String::new(),
            started: 0,
            foreign: false,
        }
    }
}

/// A worker as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerRecord {
    /// What it reported last.
    pub report: WorkerReport,
    /// Changes with each of its heartbeats. Whether it lives is judged by whoever looks: by how long this stands still
    /// on their own clock.
    pub heartbeat: u64,
}

impl WorkerRecord {
    /// A worker with its last report.
    #[must_use]
    pub const fn new(report: WorkerReport, heartbeat: u64) -> Self {
        Self { report, heartbeat }
    }
}

/// What became of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// It is durable.
    Written {
        /// The worker's [heartbeat](WorkerRecord::heartbeat) since; 0 if the store keeps none.
        heartbeat: u64,
    },
    /// Another worker has declared this one dead: the leases that it held may be taken over at any moment. The next
    /// heartbeat is the first one of a new life.
    Evicted,
}
