//! Reads the checkpoint store's file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// A lease as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The shard.
    pub shard: String,
    /// The worker that owns it.
    pub owner: Option<String>,
    /// The lease counter.
    pub counter: i64,
    /// The heartbeat of its owner, which renews it; `None` once the life in which it was acquired is over.
    pub heartbeat: Option<i64>,
    /// A sequence number, `TRIM_HORIZON`, `AT_TIMESTAMP` or `SHARD_END`.
    pub checkpoint: String,
    /// The name of the acquisition.
    pub token: Option<String>,
}

/// The checkpoint store's file, seen from outside.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The file need not exist yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The rows by shard; empty while there is no file or no table.
    #[must_use]
    pub fn leases(&self) -> BTreeMap<String, LeaseRow> {
        let Ok(connection) = self.open(OpenFlags::SQLITE_OPEN_READ_ONLY) else { return BTreeMap::new() };
        let sql = "SELECT shard, lease_owner, counter, heartbeat, checkpoint, concurrency_token FROM leases \
                   LEFT JOIN workers ON workers.epoch = owner_epoch AND NOT evicted";
        let Ok(mut statement) = connection.prepare(sql) else { return BTreeMap::new() };
        let row = |row: &rusqlite::Row<'_>| {
            let lease = LeaseRow {
                shard: row.get(0)?,
                owner: row.get(1)?,
                counter: row.get(2)?,
                heartbeat: row.get(3)?,
                checkpoint: row.get(4)?,
                token: row.get(5)?,
            };
            Ok((lease.shard.clone(), lease))
        };
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// Makes the leases of `owner` look as if its process ran on another host, so that no worker can decide whether it
    /// lives. Its owner does not notice.
    pub fn pretend_remote(&self, owner: &str) {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        let sql = "UPDATE leases SET owner_host = 'another host' WHERE lease_owner = ?1";
        assert!(connection.execute(sql, [owner]).unwrap() > 0, "{owner} owns no lease");
    }

    /// Keeps all other processes from writing until the value is dropped, as another program does that holds the file.
    #[must_use]
    pub fn lock(&self) -> StoreLock {
        let connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        StoreLock { _connection: connection }
    }

    fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        Ok(connection)
    }
}

/// The write lock of a store's file.
#[derive(Debug)]
pub struct StoreLock {
    _connection: Connection,
}
