//! The workers of an application, next to its leases.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::fault::Fault;
use super::leases::Leases;
use super::row::integer;
use crate::{ProcessIdentity, WorkerId, WorkerRecord, WorkerReport};

/// Made with the first heartbeat, so that a file without one stays as every version knows it.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS workers (application TEXT NOT NULL, worker TEXT NOT NULL, \
     heartbeat INTEGER NOT NULL, lease_ms INTEGER NOT NULL, stopping INTEGER NOT NULL, leases INTEGER NOT NULL, \
     maximum_leases INTEGER, version TEXT NOT NULL, host TEXT NOT NULL, started_ms INTEGER NOT NULL, \
     process_host TEXT, process_pid INTEGER, process_started INTEGER, PRIMARY KEY (application, worker)) WITHOUT ROWID";

const THERE: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'workers'";

const WRITE: &str = "INSERT INTO workers VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
     ON CONFLICT DO UPDATE SET heartbeat = heartbeat + 1, lease_ms = ?3, stopping = ?4, leases = ?5, maximum_leases = ?6, \
     version = ?7, host = ?8, started_ms = ?9, process_host = ?10, process_pid = ?11, process_started = ?12 \
     RETURNING heartbeat";

const LIST: &str = "SELECT worker, heartbeat, lease_ms, stopping, leases, maximum_leases, version, host, started_ms, \
     process_host, process_pid, process_started FROM workers WHERE application = ?1";

/// Writes what a worker reports of itself, and returns its heartbeat since.
pub(super) fn heartbeat(leases: &Leases<'_>, worker: &WorkerReport) -> Result<u64, Fault> {
    let Leases { connection, application } = leases;
    connection.execute(TABLE, [])?;
    let process = worker.process.as_ref();
    let lease_ms = u64::try_from(worker.lease_time.as_millis()).unwrap_or(u64::MAX);
    let values = params![
        application,
        worker.id.as_str(),
        integer(lease_ms, "lease time")?,
        worker.stopping,
        integer(worker.leases, "number of leases")?,
        worker.maximum_leases.map(|leases| integer(leases, "most leases")).transpose()?,
        worker.version,
        worker.host,
        worker.started,
        process.map(|process| &process.host),
        process.map(|process| process.pid),
        process.map(|process| integer(process.started, "start time")).transpose()?,
    ];
    Ok(connection.prepare_cached(WRITE)?.query_row(values, |row| count(row, 0))?)
}

/// Removes a worker, if it is there and its heartbeat is still `seen`.
pub(super) fn forget(leases: &Leases<'_>, worker: &WorkerId, seen: u64) -> Result<(), Fault> {
    let Leases { connection, application } = leases;
    connection.execute(TABLE, [])?;
    let this = params![application, worker.as_str(), integer(seen, "heartbeat")?];
    connection
        .execute("DELETE FROM workers WHERE application = ?1 AND worker = ?2 AND heartbeat = ?3", this)?;
    Ok(())
}

/// The workers that have reported themselves. A row that cannot be read is no worker: its next heartbeat corrects it.
pub(super) fn list(leases: &Leases<'_>) -> Result<Vec<WorkerRecord>, Fault> {
    let Leases { connection, application } = leases;
    if connection.prepare_cached(THERE)?.query_row([], |_| Ok(())).optional()?.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(LIST)?;
    let mut rows = statement.query([application])?;
    let mut workers = Vec::new();
    while let Some(row) = rows.next()? {
        workers.extend(read(row).ok());
    }
    Ok(workers)
}

/// A count; one that is negative is no count.
fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let count: i64 = row.get(index)?;
    u64::try_from(count).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, count))
}

fn read(row: &Row<'_>) -> rusqlite::Result<WorkerRecord> {
    let id: String = row.get(0)?;
    let process = match (row.get(9)?, row.get(10)?, row.get::<_, Option<i64>>(11)?) {
        (Some(host), Some(pid), Some(_)) => Some(ProcessIdentity { host, pid, started: count(row, 11)? }),
        _ => None,
    };
    let maximum: Option<i64> = row.get(5)?;
    let report = WorkerReport {
        process,
        stopping: row.get(3)?,
        leases: count(row, 4)?,
        maximum_leases: maximum.map(|_| count(row, 5)).transpose()?,
        version: row.get(6)?,
        host: row.get(7)?,
        started: row.get(8)?,
        ..WorkerReport::new(WorkerId::new(id), Duration::from_millis(count(row, 2)?))
    };
    Ok(WorkerRecord::new(report, count(row, 1)?))
}
