//! Which processes run for this sidecar, in a file next to the checkpoint store: so that a successor on the same host
//! ends what a sidecar that was killed has left, before it invokes for the same shards (I1).
//!
//! The parent-death signal ends the process that was started; what that one had started itself is found by its mark. Each
//! sidecar writes a file of its own and removes it at its end. Other hosts' files are not touched: their processes cannot
//! be seen.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shardmill::checkpoint::ProcessIdentity;

use super::group::{self, Family};
use super::tree;

/// How many times ending what is left is tried before an invocation is put off: each try has rounds of its own.
const TRIES: u32 = 3;

/// The folder for records next to an SQLite file.
#[must_use]
pub fn records_beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push("-functions");
    name.into()
}

/// The processes of one function of this sidecar.
#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
    file: PathBuf,
    record: Mutex<Record>,
    complained: AtomicBool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// See [`ProcessIdentity`].
    host: String,
    pid: u32,
    started: u64,
    processes: Vec<Recorded>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    pid: i32,
    started: u64,
    mark: String,
}

impl Records {
    /// `None` where processes have no identity: there a successor could not know them again.
    pub(super) fn new(folder: PathBuf) -> Option<Self> {
        let ProcessIdentity { host, pid, started, .. } = ProcessIdentity::current()?;
        let file = folder.join(format!("{}.json", uuid::Uuid::new_v4().simple()));
        let record = Mutex::new(Record { host, pid, started, processes: Vec::new() });
        Some(Self { folder, file, record, complained: AtomicBool::new(false) })
    }

    /// Notes a process that was started. Blocks.
    pub(super) fn add(&self, family: Family) {
        let Some(pid) = family.leader else { return };
        let recorded = Recorded { pid, started: family.started, mark: family.mark };
        self.change(|processes| processes.push(recorded));
    }

    /// Notes that a process and all that it started is gone. Blocks.
    pub(super) fn remove(&self, leader: i32) {
        self.change(|processes| processes.retain(|process| process.pid != leader));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Recorded>)) {
        let mut record = self.record.lock();
        change(&mut record.processes);
        if record.processes.is_empty() {
            return self.remove_file();
        }
        // Another sidecar may remove the folder, which is empty to it, in between.
        let written = match self.write(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write(&record),
            written => written,
        };
        if let Err(error) = written
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            let file = self.file.display();
            tracing::warn!(%file, %error, "a successor will not know of the function's processes");
        }
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let text = serde_json::to_vec(record)?;
        let new = self.file.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        drop(file);
        fs::rename(&new, &self.file)
    }

    fn remove_file(&self) {
        let _ = fs::remove_file(&self.file);
        // Unless others' are in it.
        let _ = fs::remove_dir(&self.folder);
    }

    /// Ends what sidecars that have died on this host have left running, and forgets it. Blocks until it is gone.
    ///
    /// # Errors
    /// Something is left that cannot be ended.
    pub(super) fn end_left_behind(&self) -> Result<(), String> {
        let Ok(folder) = fs::read_dir(&self.folder) else { return Ok(()) };
        for file in folder.filter_map(|entry| Some(entry.ok()?.path())) {
            if file == self.file || file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Some(record) = read(&file) else { continue };
            let owner = ProcessIdentity { host: record.host, pid: record.pid, started: record.started };
            if !owner.is_dead() {
                continue;
            }
            let families: Vec<Family> = record.processes.iter().map(Recorded::family).collect();
            if !(0..TRIES).any(|_| group::end(&families, || {})) {
                return Err(format!(
                    "processes that sidecar {} has left behind cannot be ended; end them by hand",
                    owner.pid
                ));
            }
            let _ = fs::remove_file(&file);
            if !families.is_empty() {
                tracing::info!(
                    sidecar = owner.pid,
                    "ended the processes that a killed sidecar had left running"
                );
            }
        }
        Ok(())
    }
}

impl Recorded {
    fn family(&self) -> Family {
        // Its number may be a stranger's by now.
        let lives = tree::entry(self.pid).is_some_and(|entry| entry.started == self.started);
        Family { leader: lives.then_some(self.pid), started: self.started, mark: self.mark.clone() }
    }
}

/// Only a file of this user's: another's must not have it end processes.
fn read(file: &Path) -> Option<Record> {
    let metadata = fs::symlink_metadata(file).ok()?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

impl Drop for Records {
    fn drop(&mut self) {
        self.remove_file();
    }
}
