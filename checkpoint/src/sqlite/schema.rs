//! Opening the file: is it ours, is it whole, is it of a version that we know.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::fault::Fault;
use super::file_system::{self, FileSystem};
use crate::StoreError;

/// "ShMl": distinguishes our files from other programs' databases.
const APPLICATION_ID: i32 = 0x5368_4d6c;

/// `PRAGMA user_version` of the tables that this version writes.
const VERSION: i32 = 3;

/// The step from each version to the next; index 0 makes version 1.
const STEPS: [&str; VERSION as usize] =
    [include_str!("schema_v1.sql"), include_str!("schema_v2.sql"), include_str!("schema_v3.sql")];

/// An open file of the current version.
pub(super) struct File {
    pub(super) connection: Connection,
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl File {
    /// Whether the path still leads to the file that is open. Where it does not, other processes lock another file.
    pub(super) fn is_in_place(&self) -> bool {
        self.identity.is_none() || identity(&self.path) == self.identity
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Opens or creates the file at the absolute `path`, which is on the file system that `look_up` returns.
pub(super) fn open(
    path: &Path,
    busy_timeout: Duration,
    store: &str,
    look_up: &dyn Fn(&Path) -> Option<FileSystem>,
) -> Result<File, StoreError> {
    let unusable = |reason| StoreError::Unusable { store: store.to_owned(), reason, source: None };
    check_path(path).map_err(unusable)?;
    if let Some(reason) = look_up(path).as_ref().and_then(file_system::refusal) {
        return Err(unusable(reason));
    }
    create_private(path);
    let deadline = Instant::now() + busy_timeout;
    loop {
        match try_open(path, busy_timeout) {
            Ok(Ok(connection)) => {
                return Ok(File { connection, identity: identity(path), path: path.to_owned() });
            }
            Ok(Err(reason)) => return Err(unusable(reason)),
            // Changing the journal mode does not always wait for its lock.
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(Fault::from(error).into_error_of_opening(store)),
        }
    }
}

/// Makes a new file that only its owner may read: it shows the position of every shard of every stream. SQLite gives
/// the files next to it the same mode.
fn create_private(path: &Path) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // One that exists stays as it is. What else hinders this hinders SQLite as well, which says what it is.
    drop(options.open(path));
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn check_path(path: &Path) -> Result<(), String> {
    if let Ok(found) = fs::metadata(path) {
        if found.is_dir() {
            return Err(format!(
                "it is a directory; name a file in it, such as {}",
                path.join("shardmill.db").display()
            ));
        }
        if !found.is_file() {
            return Err("it is no ordinary file; choose another path".into());
        }
        return Ok(());
    }
    match path.parent().map(fs::metadata) {
        Some(Ok(parent)) if parent.is_dir() => Ok(()),
        Some(Ok(_)) => Err("its parent is a file, not a directory; choose another path".into()),
        Some(Err(error)) => Err(format!(
            "its directory cannot be used ({error}); create it, or choose another path (in a container, mount a volume \
             there)"
        )),
        None => Err("the path names no file".into()),
    }
}

type Verdict<T> = Result<T, String>;

fn try_open(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Verdict<Connection>> {
    // Without SQLITE_OPEN_URI the path means what it says.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    // A statement is planned once, not anew for each value that is bound: that costs more than our statements do.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Before anything is written: the file may be someone else's. In one transaction, as another process may be about to
    // make it ours.
    let looking = connection.transaction()?;
    if let Err(reason) = recognise(&looking)? {
        return Ok(Err(reason));
    }
    looking.finish()?;
    if connection.is_readonly("main")? {
        return Ok(
            Err("the file is read-only; let the worker's user write both it and its directory".into()),
        );
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Ok(Err(format!(
            "its file system allows no write-ahead log (journal mode {mode:?}); put the file on a local disk, not on a \
             network share"
        )));
    }
    // A crash of the process loses nothing. A power cut may undo the last commits, which means duplicates, never loss.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // What a large transaction may have to undo would otherwise go to a temporary file, for which a container with a
    // read-only root has no place.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(migrate(&mut connection)?.and(check(&connection)?).map(|()| connection))
}

/// Finds the version of our tables, 0 for a new file.
fn recognise(connection: &Connection) -> rusqlite::Result<Verdict<i32>> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let new = application == 0 && version == 0 && tables == 0;
    if application != APPLICATION_ID && !new {
        return Ok(Err("it is a SQLite database of another program; choose another path".into()));
    }
    if version > VERSION {
        return Ok(Err(format!(
            "its schema version is {version} and this version of Shardmill knows up to {VERSION}; use a newer Shardmill, or \
             another file"
        )));
    }
    Ok(Ok(version))
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<Verdict<()>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, under the lock: another process may have been faster.
    let version = match recognise(&transaction)? {
        Ok(version) => version,
        Err(reason) => return Ok(Err(reason)),
    };
    if version < VERSION {
        for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()?;
    Ok(Ok(()))
}

fn check(connection: &Connection) -> rusqlite::Result<Verdict<()>> {
    let finding: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if finding == "ok" {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "the file is damaged ({finding}); put a backup in its place, try `sqlite3 FILE .recover`, or move it away, so that \
         every shard starts again from StartingPosition"
    )))
}
