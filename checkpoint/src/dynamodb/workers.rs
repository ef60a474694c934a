//! The items of workers.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::Instant;

use super::names;
use super::row::{process, set_process};
use crate::table::attributes::{Item, Reader, Update, number, text};
use crate::{WorkerId, WorkerRecord, WorkerReport};

/// How long after its last heartbeat a worker's item is removed by the service, at the earliest.
const EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// A life of a worker of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) epoch: u64,
    pub(super) heartbeat: u64,
}

/// A worker's item.
#[derive(Clone, Debug)]
pub(super) struct WorkerRow {
    id: WorkerId,
    /// The life that goes on; `None` after an eviction.
    epoch: Option<u64>,
    pub(super) heartbeat: u64,
    /// The last life that is over, and where the heartbeat stood then.
    ended: Option<(u64, u64)>,
    /// What it reported last, once it has.
    report: Option<WorkerReport>,
    /// Since when it has been seen like this.
    since: Instant,
}

impl WorkerRow {
    /// `None` if the item cannot be read: the worker's next life corrects it.
    pub(super) fn read(item: &Item, now: Instant) -> Option<Self> {
        let read = Reader(item);
        let id = WorkerId::new(read.text("item").ok()??.strip_prefix(names::WORKERS)?);
        let count = |name| read.number(name).ok().flatten();
        Some(Self {
            epoch: read.number("epoch").ok()?,
            heartbeat: read.number("heartbeat").ok()??,
            ended: count("endedEpoch").zip(count("ended")),
            report: read_report(&id, read).ok().flatten(),
            since: now,
            id,
        })
    }

    /// The row as it was listed, with the time since when it has been like this.
    pub(super) fn seen_after(mut self, former: Option<&Self>) -> Self {
        if let Some(former) = former
            && (former.epoch, former.heartbeat) == (self.epoch, self.heartbeat)
        {
            self.since = former.since;
        }
        self
    }

    pub(super) fn id(&self) -> &WorkerId {
        &self.id
    }

    pub(super) fn record(&self) -> Option<WorkerRecord> {
        Some(WorkerRecord::new(self.report.clone()?, self.heartbeat))
    }

    /// The heartbeat of one of its lives; 0 if nothing is known of it.
    pub(super) fn heartbeat_in(&self, epoch: u64) -> u64 {
        match self.ended {
            _ if self.epoch == Some(epoch) => self.heartbeat,
            Some((ended, heartbeat)) if ended == epoch => heartbeat,
            _ => 0,
        }
    }

    /// Whether its heartbeat has stood still for so long that its leases may soon be free, and not for so long that they
    /// have been for long.
    pub(super) fn is_overdue(&self, epoch: u64, lease: Duration, now: Instant) -> bool {
        let still = now.saturating_duration_since(self.since);
        self.epoch == Some(epoch) && still > lease / 2 && still < lease * 3
    }
}

fn read_report(id: &WorkerId, read: Reader<'_>) -> Result<Option<WorkerReport>, String> {
    let Some(millis) = read.number("leaseMillis")? else { return Ok(None) };
    Ok(Some(WorkerReport {
        process: process(read)?,
        stopping: read.flag("stopping")?,
        leases: read.number("leases")?.unwrap_or_default(),
        records_per_minute: read.number("recordsPerMinute")?,
        maximum_leases: read.number("maximumLeases")?,
        version: read.text("version")?.unwrap_or_default().to_owned(),
        host: read.text("host")?.unwrap_or_default().to_owned(),
        started: read.number("started")?.unwrap_or_default(),
        ..WorkerReport::new(id.clone(), Duration::from_millis(millis))
    }))
}

/// The heartbeat that follows, with what the worker reports.
pub(super) fn beat(report: &WorkerReport, life: Life) -> Update {
    let millis = u64::try_from(report.lease_time.as_millis()).unwrap_or(u64::MAX);
    let update = Update::default()
        .if_equal("epoch", number(life.epoch))
        .if_equal("heartbeat", number(life.heartbeat))
        .set("heartbeat", number(life.heartbeat.saturating_add(1)))
        .set("expires", expires())
        .set("leaseMillis", number(millis))
        .set("stopping", AttributeValue::Bool(report.stopping))
        .set("leases", number(report.leases))
        .set_or_remove("recordsPerMinute", report.records_per_minute.map(number))
        .set_or_remove("maximumLeases", report.maximum_leases.map(number))
        .set("version", text(&report.version))
        .set("host", text(&report.host))
        .set("started", number(report.started));
    set_process(update, report.process.as_ref())
}

/// By the wall clock, as the service compares it with its own; a day is more than clocks differ by.
pub(super) fn expires() -> AttributeValue {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    number((now + EXPIRY).as_secs())
}

pub(super) fn epoch_of(item: &Item) -> Option<u64> {
    Reader(item).number("epoch").ok().flatten()
}

pub(super) fn heartbeat_of(item: &Item) -> Option<u64> {
    Reader(item).number("heartbeat").ok().flatten()
}
