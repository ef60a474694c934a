//! The workers of an application, next to its leases: one heartbeat renews all leases of a worker.
//!
//! A worker's life begins with its first heartbeat, or the first lease that it takes, and has an epoch of its own. It ends when others
//! evict it. A lease is alive by the life in which it was acquired, and by no other of its owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{OptionalExtension, Row, params};

use super::fault::Fault;
use super::leases::Leases;
use super::row::{Stored, integer};
use crate::{Claim, Heartbeat, Lease, ProcessIdentity, WorkerId, WorkerRecord, WorkerReport};

/// A life that begins raises the heartbeat: a deletion that is late finds another one than it has seen.
const JOIN: &str = "INSERT OR REPLACE INTO workers (application, worker, heartbeat, former_epoch, former_heartbeat) \
     SELECT ?1, ?2, coalesce(max(heartbeat) + 1, 0), max(epoch), max(heartbeat) FROM workers \
     WHERE application = ?1 AND worker = ?2";

const BEAT: &str = "UPDATE workers SET heartbeat = heartbeat + 1, lease_ms = ?2, stopping = ?3, leases = ?4, \
     maximum_leases = ?5, version = ?6, host = ?7, started_ms = ?8, process_host = ?9, process_pid = ?10, \
     process_started = ?11, records_per_minute = ?12 \
     WHERE epoch = ?1 AND application = ?13 AND worker = ?14 AND NOT evicted RETURNING heartbeat";

const LIVES: &str = "SELECT heartbeat = ?2 FROM workers WHERE epoch = ?1 AND application = ?3 AND worker = ?4 AND NOT evicted";

const EVICT: &str = "UPDATE workers SET evicted = 1 WHERE epoch = ?1";

const FORGET: &str = "DELETE FROM workers WHERE application = ?1 AND worker = ?2 AND heartbeat = ?3";

const LIST: &str = "SELECT worker, heartbeat, lease_ms, stopping, leases, maximum_leases, version, host, started_ms, \
     process_host, process_pid, process_started, records_per_minute FROM workers WHERE application = ?1 AND lease_ms IS NOT NULL";

const LIFE: &str = "SELECT worker, epoch, heartbeat, former_epoch, coalesce(former_heartbeat, 0) FROM workers WHERE application = ?1";

/// The last life of a worker, as others judge it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    epoch: i64,
    heartbeat: u64,
    /// The life before, and where its heartbeat stands still.
    former: (Option<i64>, u64),
}

impl Life {
    /// The heartbeat of a lease that was acquired in the worker's life of this epoch. It stands still once that life is over; 0
    /// where nothing is known of it any more.
    fn keeps(&self, owner_epoch: Option<i64>) -> u64 {
        match self.former {
            _ if owner_epoch == Some(self.epoch) => self.heartbeat,
            (Some(former), heartbeat) if owner_epoch == Some(former) => heartbeat,
            _ => 0,
        }
    }
}

/// The heartbeat of a lease whose owner acquired it in the life of this epoch.
pub(super) fn heartbeat_of(lives: &HashMap<WorkerId, Life>, lease: &Lease, owner_epoch: Option<i64>) -> u64 {
    lease.holder().and_then(|holder| lives.get(holder)).map_or(0, |life| life.keeps(owner_epoch))
}

/// The last life of each worker. A row that cannot be read is none: it spoils no lease of its worker.
pub(super) fn lives(leases: &Leases<'_>) -> Result<HashMap<WorkerId, Life>, Fault> {
    let mut statement = leases.connection.prepare_cached(LIFE)?;
    let mut rows = statement.query([leases.application])?;
    let mut lives = HashMap::new();
    while let Some(row) = rows.next()? {
        lives.extend(read_life(row).ok());
    }
    Ok(lives)
}

fn read_life(row: &Row<'_>) -> rusqlite::Result<(WorkerId, Life)> {
    let name: String = row.get(0)?;
    let former = (row.get(3)?, count(row, 4)?);
    let life = Life { epoch: row.get(1)?, heartbeat: count(row, 2)?, former };
    Ok((WorkerId::new(name), life))
}

/// The lives that this process's workers have begun, by application and worker. If the transaction in which one began is undone,
/// another worker may get its epoch; the next heartbeat finds no such life of its own, as after an eviction: a new one begins then.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives(Arc<Mutex<HashMap<(String, WorkerId), i64>>>);

/// The epoch of this process's worker, whose life begins now if it has not begun.
pub(super) fn join(leases: &Leases<'_>, worker: &WorkerId) -> Result<i64, Fault> {
    let Leases { connection, application, lives, .. } = leases;
    let name = ((*application).to_owned(), worker.clone());
    if let Some(epoch) = lives.0.lock().get(&name) {
        return Ok(*epoch);
    }
    connection.prepare_cached(JOIN)?.execute(params![application, worker.as_str()])?;
    let epoch = connection.last_insert_rowid();
    lives.0.lock().insert(name, epoch);
    Ok(epoch)
}

/// Writes what a worker reports of itself, unless its life has ended.
pub(super) fn heartbeat(leases: &Leases<'_>, worker: &WorkerReport) -> Result<Heartbeat, Fault> {
    let Leases { connection, application, lives, .. } = leases;
    let epoch = join(leases, &worker.id)?;
    let process = worker.process.as_ref();
    let lease_ms = u64::try_from(worker.lease_time.as_millis()).unwrap_or(u64::MAX);
    let values = params![
        epoch,
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
        worker.records_per_minute.map(|records| integer(records, "number of records")).transpose()?,
        application,
        worker.id.as_str(),
    ];
    let written = connection.prepare_cached(BEAT)?.query_row(values, |row| count(row, 0)).optional()?;
    Ok(match written {
        Some(heartbeat) => Heartbeat::Written { heartbeat },
        None => {
            lives.0.lock().remove(&((*application).to_owned(), worker.id.clone()));
            Heartbeat::Evicted
        }
    })
}

/// Declares the lease's holder dead unless it lives. Whether the claim may go on.
pub(super) fn evict(leases: &Leases<'_>, stored: &Stored, claim: &Claim) -> Result<bool, Fault> {
    let another = stored.lease.holder().filter(|holder| **holder != claim.owner);
    let (Some(holder), Some(epoch)) = (another, stored.owner_epoch) else { return Ok(true) };
    let seen = integer(claim.seen_heartbeat, "heartbeat")?;
    let life = params![epoch, seen, leases.application, holder.as_str()];
    let stands_still: Option<bool> =
        leases.connection.prepare_cached(LIVES)?.query_row(life, |row| row.get(0)).optional()?;
    match stands_still {
        // That life is over.
        None => Ok(true),
        Some(true) => {
            leases.connection.prepare_cached(EVICT)?.execute([epoch])?;
            Ok(true)
        }
        Some(false) => Ok(false),
    }
}

/// Removes a worker, if it is there and its heartbeat is still `seen`.
pub(super) fn forget(leases: &Leases<'_>, worker: &WorkerId, seen: u64) -> Result<(), Fault> {
    let this = params![leases.application, worker.as_str(), integer(seen, "heartbeat")?];
    leases.connection.prepare_cached(FORGET)?.execute(this)?;
    Ok(())
}

/// The workers that have reported themselves. A row that cannot be read is no worker: its next heartbeat corrects it.
pub(super) fn list(leases: &Leases<'_>) -> Result<Vec<WorkerRecord>, Fault> {
    let mut statement = leases.connection.prepare_cached(LIST)?;
    let mut rows = statement.query([leases.application])?;
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
    let [maximum, records]: [Option<i64>; 2] = [row.get(5)?, row.get(12)?];
    let report = WorkerReport {
        process,
        stopping: row.get(3)?,
        leases: count(row, 4)?,
        records_per_minute: records.map(|_| count(row, 12)).transpose()?,
        maximum_leases: maximum.map(|_| count(row, 5)).transpose()?,
        version: row.get(6)?,
        host: row.get(7)?,
        started: row.get(8)?,
        ..WorkerReport::new(WorkerId::new(id), Duration::from_millis(count(row, 2)?))
    };
    Ok(WorkerRecord::new(report, count(row, 1)?))
}
