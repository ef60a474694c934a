//! Whether the process that owned a lease still runs, so that a successor on the same host need not wait.

use crate::ProcessIdentity;

impl ProcessIdentity {
    /// The running process, where the platform shows it: Linux with a `/proc` of its own process id namespace.
    #[must_use]
    pub fn current() -> Option<Self> {
        let host = proc::host()?;
        let pid = std::process::id();
        let started = proc::stat(pid).ok()?.started;
        Some(Self { host, pid, started })
    }

    /// The same process, as if on another host.
    ///
    /// For tests of takeovers between hosts, and for an embedder that knows its hosts better.
    #[must_use]
    pub fn with_host(self, host: impl Into<String>) -> Self {
        Self { host: host.into(), ..self }
    }

    /// Whether this process is known to be dead, as seen by the running one. See [`is_dead_to`](Self::is_dead_to).
    #[must_use]
    pub fn is_dead(&self) -> bool {
        Self::current().is_some_and(|observer| self.is_dead_to(&observer))
    }

    /// Whether this process is known to be dead to `observer`, which is the running process under the host name that
    /// it goes by.
    ///
    /// `false` means alive or unknown: a process on another host or in another container is always unknown, a stopped
    /// one (SIGSTOP) is alive. A zombie is dead. Reads `/proc`.
    ///
    /// Sound only for a store whose workers cannot run in two copies of one virtual machine snapshot, as those share
    /// every identity: a file, not a table in the network.
    #[must_use]
    pub fn is_dead_to(&self, observer: &Self) -> bool {
        // The host's /proc must be readable and show the processes of all users, or absence proves nothing.
        if self.host != observer.host || proc::host().is_none() || !proc::shows_every_process() {
            return false;
        }
        match proc::stat(self.pid) {
            Ok(stat) => stat.started != self.started || stat.ended,
            Err(proc::Unreadable::Gone) => true,
            Err(proc::Unreadable::Unknown) => false,
        }
    }
}

#[cfg(target_os = "linux")]
mod proc {
    use std::fs;
    use std::io::ErrorKind;

    pub(super) struct Stat {
        pub(super) started: u64,
        pub(super) ended: bool,
    }

    pub(super) enum Unreadable {
        Gone,
        Unknown,
    }

    /// Names the running kernel and what process ids and start times mean to this process.
    pub(super) fn host() -> Option<String> {
        // A /proc of another process id namespace would answer for other processes under the same numbers.
        let own = fs::read_link("/proc/self").ok()?;
        if own.to_str()? != std::process::id().to_string() {
            return None;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let pids = fs::read_link("/proc/self/ns/pid").ok()?;
        // Start times are counted from the time namespace's boot. Old kernels have none.
        let times = fs::read_link("/proc/self/ns/time").unwrap_or_default();
        Some(format!("{} {} {}", boot.trim(), pids.to_str()?, times.to_str()?).trim_end().to_owned())
    }

    /// Whether `/proc` is mounted without `hidepid`, which hides other users' live processes.
    pub(super) fn shows_every_process() -> bool {
        let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
        let on_proc = |line: &&str| line.split(' ').nth(4) == Some("/proc");
        let hides =
            |option: &str| option.strip_prefix("hidepid=").is_some_and(|level| !matches!(level, "0" | "off"));
        !mounts.lines().filter(on_proc).any(|line| line.split([' ', ',']).any(hides))
    }

    pub(super) fn stat(pid: u32) -> Result<Stat, Unreadable> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Unreadable::Gone,
            // ESRCH: it ended between opening and reading.
            _ if error.raw_os_error() == Some(3) => Unreadable::Gone,
            _ => Unreadable::Unknown,
        })?;
        parse(&text).ok_or(Unreadable::Unknown)
    }

    /// Reads proc_pid_stat(5): state is field 3, num_threads field 20, starttime field 22. The name before them may hold
    /// blanks and parentheses.
    fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let threads: u64 = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        // A first thread that ended leaves a "zombie" with live siblings.
        Some(Stat { started, ended: matches!(state, "Z" | "X" | "x") && threads <= 1 })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_process_name_with_parentheses_and_blanks_confuses_nothing() {
            let line = "7 (a) Z (b c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 12 0 4242 9 9";
            let stat = parse(line).unwrap();
            assert_eq!(stat.started, 4242);
            assert!(!stat.ended);
        }

        #[test]
        fn a_zombie_has_ended_unless_other_threads_of_it_run_on() {
            let line =
                |threads| format!("7 (x) Z 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 4242 9");
            assert!(parse(&line(1)).unwrap().ended);
            assert!(!parse(&line(2)).unwrap().ended);
            assert!(parse("7 (x) Z 1").is_none());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod proc {
    pub(super) struct Stat {
        pub(super) started: u64,
        pub(super) ended: bool,
    }

    pub(super) enum Unreadable {
        #[allow(dead_code, reason = "only Linux knows")]
        Gone,
        Unknown,
    }

    pub(super) fn host() -> Option<String> {
        None
    }

    pub(super) fn shows_every_process() -> bool {
        false
    }

    pub(super) fn stat(_: u32) -> Result<Stat, Unreadable> {
        Err(Unreadable::Unknown)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn identity_of(pid: u32) -> ProcessIdentity {
        let started = proc::stat(pid).ok().unwrap().started;
        ProcessIdentity { pid, started, ..ProcessIdentity::current().unwrap() }
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap()
    }

    fn signal(child: &Child, name: &str) {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    }

    fn until(what: impl Fn() -> bool) {
        while !what() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_running_process_is_alive() {
        let current = ProcessIdentity::current().unwrap();
        assert_eq!(current.pid, std::process::id());
        assert_eq!(Some(&current), ProcessIdentity::current().as_ref());
        assert!(!current.is_dead());
    }

    #[test]
    fn a_killed_process_is_dead_as_a_zombie_and_after_it() {
        let mut child = sleeper();
        let identity = identity_of(child.id());
        assert!(!identity.is_dead());
        child.kill().unwrap();
        until(|| identity.is_dead());
        assert!(identity.is_dead(), "not yet waited for: a zombie");
        child.wait().unwrap();
        assert!(identity.is_dead());
    }

    #[test]
    fn a_stopped_process_is_alive() {
        let mut child = sleeper();
        let identity = identity_of(child.id());
        signal(&child, "-STOP");
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.contains(") T ")
        };
        until(stopped);
        assert!(!identity.is_dead());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_id_that_is_used_again_does_not_revive_its_first_owner() {
        let current = ProcessIdentity::current().unwrap();
        let earlier = ProcessIdentity { started: current.started - 1, ..current };
        assert!(earlier.is_dead());
    }

    #[test]
    fn a_process_of_another_host_is_never_known_to_be_dead() {
        let current = ProcessIdentity::current().unwrap();
        let gone = ProcessIdentity { started: current.started - 1, ..current.clone() };
        assert!(!gone.clone().with_host("elsewhere").is_dead());
        assert!(!gone.is_dead_to(&current.clone().with_host("elsewhere")));
        assert!(gone.clone().with_host("elsewhere").is_dead_to(&current.with_host("elsewhere")));
    }
}
