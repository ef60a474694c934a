//! SQLite's errors, in words that help the worker's operator.

use std::sync::Arc;

use rusqlite::ErrorCode;
use shardmill_engine::LeaseKey;

use crate::StoreError;

/// What stopped a call, before it is reported to the caller. Cloned to every call of a group that fails as a whole.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Sqlite(Arc<rusqlite::Error>),
    /// A lease's row holds what this version cannot read.
    Row(Box<BadRow>),
    /// A number beyond what an INTEGER column holds.
    TooLarge(&'static str),
    /// The file at the path is no longer the one that is open.
    Replaced,
    /// The thread that owns the connection is gone.
    Stopped,
}

#[derive(Clone, Debug)]
pub(super) struct BadRow {
    pub(super) key: LeaseKey,
    pub(super) column: &'static str,
    /// What the column has: "the negative number -4".
    pub(super) problem: String,
}

impl BadRow {
    /// What is wrong and what to do.
    pub(super) fn reason(&self) -> String {
        format!(
            "the lease {} has {} in column {}; correct or delete that row of table leases (a deleted shard starts again from \
             StartingPosition)",
            self.key, self.problem, self.column
        )
    }
}

/// When SQLite refused something: before the file was open, no call has used it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Opening,
    Open,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl Fault {
    /// The caller's error, about the store that `describe()` names `store`.
    pub(super) fn into_error(self, store: &str) -> StoreError {
        self.error_at(Moment::Open, store)
    }

    /// The same while the file is being opened: what the path cannot be is final then.
    pub(super) fn into_error_of_opening(self, store: &str) -> StoreError {
        self.error_at(Moment::Opening, store)
    }

    fn error_at(self, moment: Moment, store: &str) -> StoreError {
        let store = store.to_owned();
        match self {
            Self::Sqlite(error) => from_sqlite(store, error, moment),
            Self::Row(row) => StoreError::Unusable { store, reason: row.reason(), source: None },
            Self::TooLarge(what) => {
                StoreError::Invalid { store, reason: format!("the {what} is above {}", i64::MAX) }
            }
            Self::Replaced => StoreError::Unusable {
                store,
                reason: "the file was removed or replaced while in use, so its leases keep no other worker away any \
                         more; put it back if it was moved, and restart every worker that uses it"
                    .into(),
                source: None,
            },
            Self::Stopped => StoreError::Unusable {
                store,
                reason: "its thread has ended; restart the worker".into(),
                source: None,
            },
        }
    }
}

fn from_sqlite(store: String, error: Arc<rusqlite::Error>, moment: Moment) -> StoreError {
    let (retryable, remedy) = classify(&error, moment);
    let reason = format!("{remedy} ({error})");
    let source: Option<Box<dyn std::error::Error + Send + Sync>> = Some(Box::new(error));
    if retryable {
        StoreError::Unavailable { store, reason, source }
    } else {
        StoreError::Unusable { store, reason, source }
    }
}

/// Whether the same call may succeed later, and what to do.
fn classify(error: &rusqlite::Error, moment: Moment) -> (bool, &'static str) {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            true,
            "another process has held the file's lock for too long; end the open transaction of a sqlite3 shell, a \
             backup or another program that uses the file",
        ),
        Some(ErrorCode::DiskFull) => (
            true,
            "the disk is full; free some space: until then checkpoints stay where they are and nothing is lost",
        ),
        Some(ErrorCode::SystemIoFailure) => {
            (true, "the file could not be read or written; check the disk and its quota")
        }
        Some(
            ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted | ErrorCode::FileLockingProtocolFailed,
        ) => (true, "SQLite could not finish the call"),
        Some(ErrorCode::DatabaseCorrupt) => (
            false,
            "the file is damaged; put a backup in its place, try `sqlite3 FILE .recover`, or move it away, so that every \
             shard starts again from StartingPosition",
        ),
        Some(ErrorCode::NotADatabase) => {
            (false, "the file is no SQLite database; choose another path, or move the file away")
        }
        // A file that was in use a moment ago can be brought back, and until then nothing is lost.
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            moment == Moment::Open,
            "the file cannot be written; let the worker's user write both the file and its directory",
        ),
        Some(ErrorCode::CannotOpen) if moment == Moment::Open => (
            true,
            "a file that it needs cannot be opened; see whether the process is out of file descriptors (ulimit -n) and \
             whether the disk is still there",
        ),
        Some(ErrorCode::CannotOpen) => (
            false,
            "the file cannot be opened or created; check that its directory exists and that the worker's user may write \
             there",
        ),
        _ => (
            false,
            "the tables are not as this version of Shardmill made them; was the file changed by hand?",
        ),
    }
}
