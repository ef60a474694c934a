//! A process of the function with everything that it has started, as far as it can be ended.
//!
//! Its process group is one handle, and works on every Unix. What has gone into a session of its own is found by `/proc`:
//! below the leader while that lives, and by the [mark](super::tree::MARK) in its environment.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Pid, Signal, kill_process_group};

use super::tree::{self, Entry};

/// What a process of the function and its descendants are known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// The process that was started; `None` if it is gone.
    pub(super) leader: Option<i32>,
    /// When it started, in clock ticks since boot; 0 where that is not known.
    pub(super) started: u64,
    /// The value of [`tree::MARK`].
    pub(super) mark: String,
}

impl Family {
    fn members(&self, table: &[Entry]) -> Vec<Entry> {
        let mut members = self.leader.map_or_else(Vec::new, |leader| tree::family(table, leader));
        members.extend(tree::marked(table, &self.mark, self.started));
        members
    }
}

/// How often a family is looked through for those that it has started meanwhile.
const ROUNDS: u32 = 50;

/// The groups of this process that have not ended.
static ALL: Mutex<Vec<Weak<Group>>> = Mutex::new(Vec::new());

/// A process group whose leader is a process of the function.
#[derive(Debug)]
pub(super) struct Group {
    /// The value of [`tree::MARK`].
    mark: String,
    /// When the leader started; 0 where that is not known.
    started: u64,
    /// The group can be signalled as long as its leader has not been reaped: later its number may be a stranger's.
    leader: Mutex<Option<Pid>>,
}

impl Group {
    pub(super) fn new(leader: Pid, mark: String) -> Arc<Self> {
        let started = tree::entry(raw(leader)).map_or(0, |entry| entry.started);
        let group = Arc::new(Self { mark, started, leader: Mutex::new(Some(leader)) });
        let mut all = registry();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&group));
        group
    }

    fn leader(&self) -> MutexGuard<'_, Option<Pid>> {
        self.leader.lock()
    }

    pub(super) fn signal(&self, signal: Signal) {
        let leader = self.leader();
        if let Some(leader) = *leader {
            // It may have ended meanwhile.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Ends the leader, its group and everything below them or with their mark. Blocks for some milliseconds.
    pub(super) fn end(&self) {
        end(&[self.family()], || self.signal(Signal::KILL));
    }

    /// The leader has ended and is not reaped yet: ends what it left behind. Afterwards it may be reaped. Blocks.
    pub(super) fn close(&self) {
        self.end();
        *self.leader() = None;
    }

    /// By which its processes are known.
    pub(super) fn family(&self) -> Family {
        let leader = self.leader().map(raw);
        Family { leader, started: self.started, mark: self.mark.clone() }
    }
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

fn registry() -> MutexGuard<'static, Vec<Weak<Group>>> {
    ALL.lock()
}

fn living() -> Vec<Arc<Group>> {
    registry().iter().filter_map(Weak::upgrade).collect()
}

/// Whether this is a process of a function whose end is awaited.
pub(super) fn is_leader(pid: i32) -> bool {
    living().iter().any(|group| group.leader().is_some_and(|leader| raw(leader) == pid))
}

/// Ends every process of every function of this process, for an exit that waits for nothing. Blocks for some
/// milliseconds.
pub fn end_all_processes() {
    let groups = living();
    let families: Vec<Family> = groups.iter().map(|group| group.family()).collect();
    let signal = || groups.iter().for_each(|group| group.signal(Signal::KILL));
    end(&families, signal);
    // Where there is no table of processes.
    signal();
}

/// Ends these families, with `signal` in between. Whether none of them is left.
pub(super) fn end(families: &[Family], signal: impl Fn()) -> bool {
    let own = tree::own_pid();
    for _ in 0..ROUNDS {
        // Looked for before their parents are gone: then they would be children of another process.
        let table = tree::all();
        let mut members: Vec<Entry> = families.iter().flat_map(|family| family.members(&table)).collect();
        members.retain(|entry| !entry.ended && entry.pid != own);
        signal();
        if members.is_empty() {
            return true;
        }
        members.iter().for_each(tree::kill);
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}
