//! The workers of the application: this library's by what they say of themselves, KCL's by the leases that they renew.
//!
//! A worker of this library has an attribute on the first lease's row, because a row of its own would be taken for a lease
//! by KCL before 3.5, which then reads none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;

use super::row::Row;
use crate::table::attributes::{Item, Reader, number, text};
use crate::table::process::{self, ProcessNames};
use crate::{WorkerId, WorkerRecord, WorkerReport};

/// `shardmillWorker#ID`.
const PREFIX: &str = "shardmillWorker#";
const PROCESS: ProcessNames = ["processHost", "processId", "processStarted"];

/// What is known of the workers that report themselves.
#[derive(Debug, Default)]
pub(super) struct Workers {
    /// The rows on which each has its attribute.
    rows: HashMap<WorkerId, HashSet<String>>,
    /// The last number that was given to a heartbeat of this process.
    beat: u64,
}

impl Workers {
    /// Everybody that a listing shows.
    pub(super) fn listed(&mut self, items: &[Item], rows: &[Row]) -> Vec<WorkerRecord> {
        self.rows.clear();
        let mut own: BTreeMap<WorkerId, WorkerRecord> = BTreeMap::new();
        for item in items {
            let Ok(Some(row)) = Reader(item).text(super::names::LEASE_KEY) else { continue };
            for (name, value) in item {
                let Some(id) = name.strip_prefix(PREFIX).map(WorkerId::new) else { continue };
                self.rows.entry(id.clone()).or_default().insert(row.to_owned());
                let Some(record) = value.as_m().ok().and_then(|map| read(&id, Reader(map))) else { continue };
                let newest = own.get(&id).is_none_or(|known| known.heartbeat < record.heartbeat);
                if newest {
                    own.insert(id, record);
                }
            }
        }
        let mut foreign: BTreeMap<&WorkerId, WorkerRecord> = BTreeMap::new();
        for row in rows {
            let Some(holder) = row.foreign_holder().filter(|holder| !own.contains_key(*holder)) else {
                continue;
            };
            let record = foreign.entry(holder).or_insert_with(|| {
                // A leader's worker may take as long until it finds what it was given.
                let patience = row.lease.lease_time.unwrap_or_default() * 2;
                let report = WorkerReport::new(holder.clone(), patience);
                WorkerRecord::new(WorkerReport { foreign: true, version: "KCL".to_owned(), ..report }, 0)
            });
            record.report.leases += 1;
            // Each renewal changes it.
            record.heartbeat = record.heartbeat.wrapping_add(row.lease.counter);
        }
        own.into_values().chain(foreign.into_values()).collect()
    }

    /// The rows on which a worker had its attribute.
    pub(super) fn forget(&mut self, worker: &WorkerId) -> HashSet<String> {
        self.rows.remove(worker).unwrap_or_default()
    }

    /// A number that no earlier heartbeat had, in this run or in one before.
    pub(super) fn next_beat(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.beat = u64::try_from(now.as_millis()).unwrap_or_default().max(self.beat + 1);
        self.beat
    }
}

/// The name of a worker's attribute.
pub(super) fn attribute(worker: &WorkerId) -> String {
    format!("{PREFIX}{worker}")
}

fn read(id: &WorkerId, read: Reader<'_>) -> Option<WorkerRecord> {
    let number = |name| read.number(name).ok().flatten();
    let words = |name| read.text(name).ok().flatten().unwrap_or_default().to_owned();
    let report = WorkerReport {
        process: process::read(read, &PROCESS).ok()?,
        stopping: read.flag("stopping").ok()?,
        leases: number("leases").unwrap_or_default(),
        records_per_minute: number("recordsPerMinute"),
        maximum_leases: number("maximumLeases"),
        version: words("version"),
        host: words("host"),
        started: read.number("started").ok().flatten().unwrap_or_default(),
        ..WorkerReport::new(id.clone(), Duration::from_millis(number("leaseMillis")?))
    };
    Some(WorkerRecord::new(report, number("heartbeat")?))
}

/// The value of a worker's attribute.
pub(super) fn written(report: &WorkerReport, heartbeat: u64) -> AttributeValue {
    let millis = u64::try_from(report.lease_time.as_millis()).unwrap_or(u64::MAX);
    let process = report.process.as_ref();
    let [host, pid, started] = PROCESS;
    let attributes = [
        ("heartbeat", Some(number(heartbeat))),
        ("leaseMillis", Some(number(millis))),
        ("stopping", Some(AttributeValue::Bool(report.stopping))),
        ("leases", Some(number(report.leases))),
        ("recordsPerMinute", report.records_per_minute.map(number)),
        ("maximumLeases", report.maximum_leases.map(number)),
        ("version", Some(text(&report.version))),
        ("host", Some(text(&report.host))),
        ("started", Some(number(report.started))),
        (host, process.map(|process| text(&process.host))),
        (pid, process.map(|process| number(process.pid))),
        (started, process.map(|process| number(process.started))),
    ];
    let present = attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    AttributeValue::M(present.collect())
}
