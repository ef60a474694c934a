//! Leases in an SQLite file, shared by the processes of one host.

mod fault;
mod file_system;
mod kept;
mod leases;
mod notes;
mod others;
mod queue;
mod row;
mod schema;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardmill_engine::{LeaseKey, ShardId};

use self::fault::Fault;
use self::kept::Kept;
use self::leases::Leases;
use self::queue::{Access, Queue};
use self::workers::Lives;
use crate::rules;
use crate::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, NewLease, OtherApplication, Ownership,
    Renewal, StoreError, WorkerId, WorkerReport, Write,
};

/// How a [`SqliteStore`] treats its file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How long a call waits while another process holds the file's lock, before it is
    /// [`Unavailable`](StoreError::Unavailable). Default 2 s; keep it below a third of the lease time.
    pub busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(2) }
    }
}

/// Leases and checkpoints in one SQLite file, which several processes of one host may share and which can be read
/// with `sqlite3` (table `leases`).
///
/// One heartbeat renews all leases of a worker (table `workers`).
///
/// A write is durable against the death of the process. A power cut may undo the last commits (write-ahead log with
/// `synchronous=NORMAL`): records are then redelivered, and none is lost. The file must be on a local disk: a
/// write-ahead log does not work between hosts, so network file systems are refused. The file `-wal` next to it belongs
/// to it. Both are made for the worker's user only (mode 0600); a file that exists keeps its mode.
///
/// A clone is another handle on the same connection, which closes after the last handle is dropped.
#[derive(Clone)]
pub struct SqliteStore {
    application: Arc<str>,
    path: Arc<Path>,
    queue: Queue,
    lives: Lives,
    kept: Arc<Kept>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("application", &self.application)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file at `path`, or creates it, for the leases of `application`. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the path is a directory, on a network file system, cannot be written, or holds something
    /// else than an intact file of a known version; [`StoreError::Unavailable`] if another process locks the file for too
    /// long or the disk is full; [`StoreError::Invalid`] if the path or the application's name is empty.
    pub fn open(path: impl AsRef<Path>, application: &str) -> Result<Self, StoreError> {
        Self::open_with(path, application, &SqliteOptions::default())
    }

    /// [`open`](Self::open) with other options than the default ones.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        application: &str,
        options: &SqliteOptions,
    ) -> Result<Self, StoreError> {
        let path = absolute(path.as_ref())?;
        let store = describe(&path);
        check_application(application, &store)?;
        let file = schema::open(&path, options.busy_timeout, &store, &file_system::of)?;
        let queue = Queue::start(file).map_err(|error| StoreError::Unavailable {
            store,
            reason: format!("no thread could be started for it ({error})"),
            source: Some(Box::new(error)),
        })?;
        let kept = Arc::new(Kept::new(Arc::clone(queue.undone())));
        Ok(Self { application: application.into(), path: path.into(), queue, lives: Lives::default(), kept })
    }

    /// The leases of another application in the same file, over the same connection: what both write at the same moment
    /// shares a commit.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the application's name is empty.
    pub fn for_application(&self, application: &str) -> Result<Self, StoreError> {
        check_application(application, &self.describe())?;
        Ok(Self { application: application.into(), ..self.clone() })
    }

    /// The file, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many transactions this store has committed in order to write. Calls that wait at the same moment share one, so
    /// under load this rises slower than the number of calls.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.queue.commits()
    }

    async fn call<T, F>(&self, access: Access, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Leases<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let Self { application, lives, kept, .. } = self.clone();
        let result = self
            .queue
            .call(access, move |connection| {
                work(&Leases { connection, application: &application, lives: &lives, kept: &kept })
            })
            .await;
        result.map_err(|fault| fault.into_error(&self.describe()))
    }

    fn valid(&self, check: Result<(), String>) -> Result<(), StoreError> {
        check.map_err(|reason| StoreError::Invalid { store: self.describe(), reason })
    }
}

fn check_application(application: &str, store: &str) -> Result<(), StoreError> {
    if application.is_empty() {
        return Err(StoreError::Invalid {
            store: store.to_owned(),
            reason: "the application's name is empty".into(),
        });
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    if path == Path::new(":memory:") {
        let reason = "this is the memory store's name, not a file's; use MemoryStore".into();
        return Err(StoreError::Invalid { store: describe(path), reason });
    }
    std::path::absolute(path).map_err(|error| StoreError::Invalid {
        store: describe(path),
        reason: format!("the path has no absolute form ({error})"),
    })
}

fn describe(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.list_readable().await?.into_readable(self.describe())
    }

    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        self.call(Access::Read, |leases| Ok(leases.list()?.with_workers(workers::list(leases)?))).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.valid(rules::check_positions(leases.iter().map(|lease| &lease.checkpoint)))?;
        let new = leases.to_vec();
        self.call(Access::Write, move |leases| leases.create(&new)).await
    }

    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.valid(rules::check_claim(claim))?;
        let (key, claim) = (key.clone(), claim.clone());
        self.call(Access::Write, move |leases| leases.acquire(&key, seen, &claim)).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        let renewals = renewals.to_vec();
        self.call(Access::Write, move |leases| leases.renew(&renewals)).await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        self.valid(rules::check_positions(checkpoints.iter().map(|c| &c.position)))?;
        let checkpoints = checkpoints.to_vec();
        self.call(Access::Write, move |leases| leases.checkpoint(&checkpoints)).await
    }

    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_worker(to))?;
        let (key, seen, to) = (key.clone(), seen.clone(), to.clone());
        self.call(Access::Write, move |leases| leases.assign(&key, &seen, &to)).await
    }

    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_hand_off(from, to))?;
        let (key, from, to) = (key.clone(), from.clone(), to.clone());
        self.call(Access::Write, move |leases| leases.hand_off(&key, &from, &to)).await
    }

    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        let (key, children) = (key.clone(), children.to_vec());
        self.call(Access::Write, move |leases| leases.set_children(&key, &children)).await
    }

    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        let key = key.clone();
        self.call(Access::Write, move |leases| leases.release(&key, counter)).await
    }

    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        let key = key.clone();
        self.call(Access::Write, move |leases| leases.delete_ended(&key, counter)).await
    }

    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.call(Access::Write, move |leases| leases.delete(&key)).await
    }

    async fn others(&self, of: &LeaseKey) -> Result<Vec<OtherApplication>, StoreError> {
        let of = of.clone();
        self.call(Access::Read, move |leases| others::others(leases, &of)).await
    }

    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.call(Access::Write, move |leases| notes::note(leases, &name, &value).map(Some)).await
    }

    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.call(Access::Write, move |leases| notes::forget(leases, &name)).await
    }

    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        self.valid(rules::check_worker(&worker.id))?;
        let worker = worker.clone();
        self.call(Access::Write, move |leases| workers::heartbeat(leases, &worker)).await
    }

    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        let worker = worker.clone();
        self.call(Access::Write, move |leases| workers::forget(leases, &worker, seen)).await
    }

    fn renews_all(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        describe(&self.path)
    }
}
