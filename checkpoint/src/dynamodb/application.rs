//! One application's part of the table: what it shares, and what this worker knows of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use shardmill_engine::LeaseKey;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::mirror::Mirror;
use super::names;
use super::row::{self, Row};
use super::table::Table;
use super::workers::{Life, WorkerRow};
use crate::table::Answer;
use crate::table::attributes::{Item, Reader, Update, number};
use crate::table::error::{Failure, Reach};
use crate::{Lease, WorkerId};

/// The format of the items that this version writes.
const FORMAT: u64 = 1;

/// The items of one application.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) name: String,
    pub(super) table: Table,
    ready: OnceCell<()>,
    known: Mutex<Known>,
    /// One listing at a time: the second one would cost the same again.
    pub(super) listing: tokio::sync::Mutex<()>,
    /// One worker joins at a time: two joins under one name would end each other's life.
    pub(super) joining: tokio::sync::Mutex<()>,
    /// Something was written, or may have been, that `changes` does not show yet.
    owed: AtomicBool,
    /// The debts that were to be paid so far.
    debts: AtomicU64,
    payment: tokio::sync::Mutex<Payment>,
}

/// The last time that the others were told: once for all that was written by then.
#[derive(Debug, Default)]
struct Payment {
    /// The debts up to this one.
    through: u64,
    failed: bool,
}

/// What this process knows of the application's items.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) leases: Mirror<LeaseKey, Kept>,
    pub(super) workers: Mirror<WorkerId, WorkerRow>,
    pub(super) changes: Changes,
    /// When the last listing of all leases began.
    pub(super) listed: Option<Instant>,
    /// When the last listing of all workers began.
    pub(super) looked: Option<Instant>,
    /// The lives of the workers of this process.
    pub(super) lives: HashMap<WorkerId, Life>,
    /// The last life of each worker that is known to be over.
    pub(super) over: HashMap<WorkerId, u64>,
    /// The streams that this application is entered for, by the entry's name.
    pub(super) entered: HashSet<String>,
}

/// A lease's item, as far as it can be read.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Readable(Box<Row>),
    Unreadable { key: LeaseKey, reason: String },
}

impl Kept {
    pub(super) fn of(item: &Item) -> Self {
        match row::read(item) {
            Ok(row) => Self::Readable(Box::new(row)),
            Err(reason) => Self::Unreadable { key: row::key_shown(item), reason },
        }
    }

    pub(super) fn key(&self) -> &LeaseKey {
        match self {
            Self::Readable(row) => &row.lease.key,
            Self::Unreadable { key, .. } => key,
        }
    }
}

impl Known {
    /// The lease with its holder's heartbeat: that of the life in which it acquired the lease, which stands still once
    /// that life is over.
    pub(super) fn lease(&self, row: &Row) -> Lease {
        let holder = row.lease.holder().and_then(|holder| self.workers.get(holder));
        let heartbeat = holder.map_or(0, |worker| worker.heartbeat_in(row.owner_epoch));
        Lease { heartbeat, ..row.lease.clone() }
    }
}

/// How far the application's number of changes is known: this worker's own ones hide nothing from it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    known: Option<u64>,
    own: BTreeSet<u64>,
}

impl Changes {
    pub(super) fn is(&self, changes: u64) -> bool {
        self.known == Some(changes)
    }

    /// All changes up to this one are known.
    pub(super) fn listed(&mut self, changes: u64) {
        self.known = Some(changes);
        self.skip_own();
    }

    /// This change is one of our own.
    pub(super) fn made(&mut self, change: u64) {
        self.own.insert(change);
        self.skip_own();
    }

    fn skip_own(&mut self) {
        let Some(known) = &mut self.known else { return };
        while self.own.remove(&known.saturating_add(1)) {
            *known = known.saturating_add(1);
        }
        self.own = self.own.split_off(known);
    }
}

/// A change that the others have not been told of. Dropped unpaid, it is told with the next listing.
#[derive(Debug)]
pub(super) struct Debt<'a> {
    owed: &'a AtomicBool,
    open: bool,
}

impl Debt<'_> {
    /// Nothing was written.
    pub(super) fn forgive(mut self) {
        self.open = false;
    }
}

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        if self.open {
            self.owed.store(true, Ordering::Relaxed);
        }
    }
}

impl Application {
    pub(super) fn new(name: &str, table: Table) -> Self {
        Self {
            name: name.to_owned(),
            table,
            ready: OnceCell::new(),
            known: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            owed: AtomicBool::new(false),
            debts: AtomicU64::new(0),
            payment: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// Makes sure, once, that the table is there and the application's items are of a format that is known here.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        self.ready.get_or_try_init(|| Box::pin(self.prepare())).await.copied()
    }

    async fn prepare(&self) -> Result<(), Failure> {
        self.table.ready().await?;
        let first = Update::default().set_first("format", number(FORMAT)).set_first("changes", number(0));
        match self.table.update(&self.name, names::APPLICATION, first, self.table.deadline()).await? {
            Answer::Done(item) => check_format(&self.name, &item),
            Answer::Refused { .. } => Ok(()),
        }
    }

    /// The application's number of changes now.
    pub(super) async fn changes(&self) -> Result<u64, Failure> {
        let item = self.table.get(&self.name, names::APPLICATION).await?.unwrap_or_default();
        check_format(&self.name, &item)?;
        Ok(Reader(&item).number("changes").ok().flatten().unwrap_or_default())
    }

    /// Raises the number of changes and returns it: no two calls get the same one.
    pub(super) async fn raise(&self) -> Result<u64, Failure> {
        let raise = Update::default().increment("changes");
        let answer = self.table.update(&self.name, names::APPLICATION, raise, self.table.deadline()).await?;
        let Answer::Done(item) = answer else {
            return Err(Failure::new(Reach::Item, "an update without a condition was refused"));
        };
        let changes = Reader(&item).required_number("changes").map_err(|problem| {
            let reason = format!("the item {:?} of {} {problem}; correct it", names::APPLICATION, self.name);
            Failure::new(Reach::Setup, reason)
        })?;
        self.known().changes.made(changes);
        Ok(changes)
    }

    /// To be held over a write that others must see, and [paid](Self::pay) once it is done.
    pub(super) fn debt(&self) -> Debt<'_> {
        Debt { owed: &self.owed, open: true }
    }

    /// Tells the others. If that fails, the write is done all the same, and they are told later.
    ///
    /// While one call tells them, all whose writes end meanwhile wait, and the next call tells of them together: a worker
    /// that takes a thousand leases does not raise one item a thousand times, which the service would throttle.
    pub(super) async fn pay(&self, mut debt: Debt<'_>) {
        let own = self.debts.fetch_add(1, Ordering::Relaxed) + 1;
        let mut payment = self.payment.lock().await;
        if payment.through < own {
            let through = self.debts.load(Ordering::Relaxed);
            let failed = self.raise().await.is_err();
            *payment = Payment { through, failed };
        }
        debt.open = payment.failed;
    }

    /// Tells the others of what they were not told of.
    pub(super) async fn pay_what_is_owed(&self) {
        if self.owed.swap(false, Ordering::Relaxed) {
            self.pay(self.debt()).await;
        }
    }

    /// Keeps a lease's item as an answer has shown it.
    pub(super) fn keep(&self, kept: &Kept) {
        let mut known = self.known();
        if let (Kept::Readable(new), Some(Kept::Readable(old))) = (kept, known.leases.get(kept.key()))
            && new.lease.counter < old.lease.counter
        {
            // Two answers that have overtaken each other.
            return;
        }
        known.leases.put(kept.key().clone(), kept.clone());
    }
}

fn check_format(application: &str, item: &Item) -> Result<(), Failure> {
    match Reader(item).number::<u64>("format") {
        Ok(Some(format)) if format > FORMAT => Err(Failure::new(
            Reach::Setup,
            format!(
                "the items of {application} have the format {format} and this version of Shardmill knows up to {FORMAT}; use \
                 a newer Shardmill, or another table"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_changes_in_a_row_are_known_and_hide_none_of_others() {
        let mut changes = Changes::default();
        changes.made(3);
        assert!(!changes.is(3), "nothing is known before a listing");
        changes.listed(5);
        changes.made(7);
        assert!(changes.is(5), "6 is another worker's");
        changes.made(6);
        assert!(changes.is(7), "6 was our own after all");
        changes.made(9);
        changes.listed(8);
        assert!(changes.is(9), "a change of our own since the listing");
        changes.listed(20);
        assert!(changes.is(20) && changes.own.is_empty());
    }

    #[test]
    fn items_of_a_newer_format_are_refused_with_a_remedy() {
        let of = |format| check_format("orders", &Item::from([("format".to_owned(), number(format))]));
        assert!(of(1).is_ok() && check_format("orders", &Item::new()).is_ok());
        let failure = of(2).unwrap_err();
        assert!(failure.reach == Reach::Setup && failure.reason.contains("newer Shardmill"), "{failure:?}");
    }
}
