//! What runs on this machine, as Linux' `/proc` shows it: which processes belong to a function.
//!
//! Elsewhere there is no such table: every list is empty, and what is known of a function is its process group.

use std::path::PathBuf;

use rustix::process::{Pid, Signal};

/// The environment variable that marks all processes that a function has started, in any session: its value is
/// drawn anew for every process of the function.
pub(super) const MARK: &str = "_SHARDMILL_PROCESS";

/// A process, as proc_pid_stat(5) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// Whether it has ended and only waits to be reaped.
    pub(super) ended: bool,
    /// In clock ticks since boot: a process id alone may be used again.
    pub(super) started: u64,
}

/// The processes that this one may see.
pub(super) fn all() -> Vec<Entry> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(entry).collect()
}

/// The process with this id, if there is one.
pub(super) fn entry(pid: i32) -> Option<Entry> {
    parse(pid, &std::fs::read_to_string(file(pid, "stat")).ok()?)
}

pub(super) fn file(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

fn parse(pid: i32, stat: &str) -> Option<Entry> {
    // The name before the last parenthesis may hold blanks and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let threads: u64 = fields.nth(14)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    // A first thread that ended leaves a "zombie" with live siblings.
    let ended = matches!(state, "Z" | "X" | "x") && threads <= 1;
    Some(Entry { pid, parent, group, ended, started })
}

/// The leader, its group and everything below them.
pub(super) fn family(table: &[Entry], leader: i32) -> Vec<Entry> {
    let mut members: Vec<Entry> =
        table.iter().filter(|entry| entry.pid == leader || entry.group == leader).copied().collect();
    let mut next = 0;
    while let Some(parent) = members.get(next).map(|entry| entry.pid) {
        let below = table.iter().filter(|entry| entry.parent == parent);
        let new: Vec<Entry> = below.filter(|entry| !members.contains(entry)).copied().collect();
        members.extend(new);
        next += 1;
    }
    members
}

/// Whether the process was started with this mark in its environment. Only its own user and root may ask.
pub(super) fn has_mark(pid: i32, mark: &str) -> bool {
    let Ok(environment) = std::fs::read(file(pid, "environ")) else { return false };
    let wanted = format!("{MARK}={mark}");
    environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// Those with this mark that still run. `since`: when the first of them started.
pub(super) fn marked(table: &[Entry], mark: &str, since: u64) -> Vec<Entry> {
    let own = own_pid();
    let candidates = table.iter().filter(|e| !e.ended && e.started >= since && e.pid != own);
    candidates.filter(|entry| has_mark(entry.pid, mark)).copied().collect()
}

pub(super) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Ends this very process: not one that has got its number meanwhile.
pub(super) fn kill(entry: &Entry) {
    let Some(pid) = Pid::from_raw(entry.pid) else { return };
    #[cfg(target_os = "linux")]
    if let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        if is_same(entry) {
            let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
        }
        return;
    }
    if is_same(entry) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

fn is_same(entry: &Entry) -> bool {
    self::entry(entry.pid).is_some_and(|now| now.started == entry.started && !now.ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name_is() {
        let line = "7 (a) Z (b c) S 3 5 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 12 0 4242 9 9";
        let entry = Entry { pid: 7, parent: 3, group: 5, ended: false, started: 4242 };
        assert_eq!(parse(7, line), Some(entry));
        assert_eq!(parse(7, "7 (x) Z 1"), None);
    }

    #[test]
    fn a_family_is_the_leaders_group_and_all_descendants_of_both() {
        let process = |pid, parent, group| Entry { pid, parent, group, ended: false, started: 1 };
        let table = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
            process(13, 1, 10),
            process(14, 13, 14),
            process(20, 1, 20),
        ];
        let pids: Vec<i32> = family(&table, 10).iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [10, 11, 13, 12, 14]);
    }
}
