//! The leases as this connection knows them: a listing reads the file only if another connection has changed it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;
use shardmill_engine::LeaseKey;

use super::fault::Fault;
use super::row::Stored;
use super::workers::{self, Life};
use crate::{Lease, LeaseList, UnreadableLease, WorkerId};

/// The leases of each application that was listed, kept up to date by this connection's own writes.
#[derive(Debug)]
pub(super) struct Kept {
    /// Rises when writes of this connection are undone.
    undone: Arc<AtomicU64>,
    applications: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    as_of: AsOf,
    leases: BTreeMap<LeaseKey, KnownLease>,
    unreadable: Vec<UnreadableLease>,
}

/// A lease without its heartbeat, and the life in which it was acquired.
#[derive(Debug)]
struct KnownLease {
    lease: Lease,
    owner_epoch: Option<i64>,
}

/// While this is equal, only this connection has changed the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AsOf {
    data_version: i64,
    undone: u64,
}

impl Kept {
    pub(super) fn new(undone: Arc<AtomicU64>) -> Self {
        Self { undone, applications: Mutex::default() }
    }

    fn as_of(&self, connection: &Connection) -> Result<AsOf, Fault> {
        let mut version = connection.prepare_cached("PRAGMA data_version")?;
        let data_version = version.query_row([], |row| row.get(0))?;
        Ok(AsOf { data_version, undone: self.undone.load(Ordering::Relaxed) })
    }

    /// The leases of the application, which are `read` unless they are known, with the heartbeats of these lives.
    pub(super) fn list(
        &self,
        connection: &Connection,
        application: &str,
        lives: &HashMap<WorkerId, Life>,
        read: impl FnOnce() -> Result<(Vec<Stored>, Vec<UnreadableLease>), Fault>,
    ) -> Result<LeaseList, Fault> {
        let as_of = self.as_of(connection)?;
        let mut applications = self.applications.lock();
        let known = match applications.remove(application).filter(|known| known.as_of == as_of) {
            Some(known) => known,
            None => {
                let (leases, unreadable) = read()?;
                Known { as_of, leases: leases.into_iter().map(KnownLease::with_key).collect(), unreadable }
            }
        };
        let list = known.list(lives);
        applications.insert(application.to_owned(), known);
        Ok(list)
    }

    /// Takes in a lease as this connection has written it.
    pub(super) fn wrote(&self, application: &str, stored: Stored) {
        if let Some(known) = self.applications.lock().get_mut(application) {
            let (key, lease) = KnownLease::with_key(stored);
            known.leases.insert(key, lease);
        }
    }

    /// This connection has written leases and does not know what they are now.
    pub(super) fn forget(&self, application: &str) {
        self.applications.lock().remove(application);
    }
}

impl KnownLease {
    fn with_key(stored: Stored) -> (LeaseKey, Self) {
        let Stored { lease, owner_epoch, .. } = stored;
        (lease.key.clone(), Self { lease, owner_epoch })
    }
}

impl Known {
    fn list(&self, lives: &HashMap<WorkerId, Life>) -> LeaseList {
        let alive = |known: &KnownLease| {
            let heartbeat = workers::heartbeat_of(lives, &known.lease, known.owner_epoch);
            Lease { heartbeat, ..known.lease.clone() }
        };
        LeaseList::new(self.leases.values().map(alive).collect(), self.unreadable.clone())
    }
}
