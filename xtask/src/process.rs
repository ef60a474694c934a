//! Running commands so that none of them outlives this program.
//!
//! Every command that may run long is started by a small second copy of this program, the *guard*: it sits in a process
//! group of its own, watches its *lifeline*, and ends the command with everything the command started as soon as the
//! lifeline is gone. The lifeline is a pipe that this program holds: the system closes it on a normal end, a panic,
//! Ctrl-C and kill -9 alike. For emulators in the background it is a file, and deleting the file stops them.
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::Result;

/// How long a command may take to end by itself, before it is killed; nextest gives its tests 10 s of this.
const GRACE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(40);

/// What a command's output and lifeline are tied to.
pub(crate) enum Tie<'a> {
    /// Output on this terminal; ends with this program.
    Terminal,
    /// Output in a file; ends with this program.
    Log(&'a Path),
    /// Output in a file; ends when the second file is deleted.
    Background(&'a Path, &'a Path),
}

/// A command that runs under a guard. Dropping it ends the command and waits until it is gone.
pub(crate) struct Guarded {
    guard: Child,
    background: bool,
}

impl Guarded {
    /// Starts `command` (its program, arguments, folder and environment; its streams are decided by `tie`).
    pub(crate) fn spawn(command: &Command, tie: &Tie<'_>) -> Result<Self> {
        let lifeline = match tie {
            Tie::Background(_, file) => file.as_os_str(),
            _ => OsStr::new("-"),
        };
        let program =
            std::env::current_exe().map_err(|e| format!("cannot tell where xtask runs from: {e}"))?;
        let mut guard = Command::new(program);
        guard.arg("guard").arg(lifeline).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guard.env(key, value),
                None => guard.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            guard.current_dir(folder);
        }
        if let Tie::Log(log) | Tie::Background(log, _) = tie {
            let output = File::create(log).map_err(|e| format!("cannot write {}: {e}", log.display()))?;
            let errors = output.try_clone().map_err(|e| format!("cannot write {}: {e}", log.display()))?;
            guard.stdout(output).stderr(errors);
        }
        let background = matches!(tie, Tie::Background(..));
        guard.stdin(if background { Stdio::null() } else { Stdio::piped() }).process_group(0);
        let guard = guard.spawn().map_err(|e| format!("cannot start {}: {e}", show(command)))?;
        Ok(Self { guard, background })
    }

    /// The command's exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().ok().flatten()
    }

    /// Asks the command to end and does not wait for it.
    pub(crate) fn let_go(&mut self) {
        drop(self.guard.stdin.take());
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.background {
            self.let_go();
            // The guard's own patience is bounded, so this is too. An error here means that it is already gone.
            let _ = self.guard.wait();
        }
    }
}

/// Runs `command` on this terminal to its end; an error if it fails or needs longer than `limit`.
pub(crate) fn run(command: &Command, limit: Option<Duration>) -> Result<()> {
    let started = Instant::now();
    let mut guarded = Guarded::spawn(command, &Tie::Terminal)?;
    loop {
        match guarded.ended() {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("`{}` failed ({status})", show(command))),
            None if limit.is_some_and(|limit| started.elapsed() > limit) => {
                return Err(format!("`{}` did not end within {:?}", show(command), started.elapsed()));
            }
            None => thread::sleep(POLL),
        }
    }
}

/// Runs `command` to its end without showing its output, which is returned; an error shows the output's tail.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run `{}`: {e}", show(command)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(text.into_owned());
    }
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Err(format!("`{}` failed ({})\n{}", show(command), output.status, tail(&all)))
}

/// The last lines of a program's output.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// The command as one would type it.
fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let words = program.file_name().into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The guard's own main function: runs the program until it ends or `lifeline` is gone (`-`: standard input).
pub(crate) fn guard(lifeline: &str, program: &str, args: &[&str]) -> ExitCode {
    let mut child = match Command::new(program).args(args).stdin(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot start {program}: {error}");
            return ExitCode::from(127);
        }
    };
    let lost = watch(lifeline.to_owned());
    let mut tree = BTreeSet::from([child.id()]);
    let mut asked: Option<Instant> = None;
    let status = loop {
        if let Ok(Some(status)) = child.try_wait() {
            break Some(status);
        }
        match asked {
            None if lost.is_finished() => {
                // A process that loses its parent from now on is still known.
                grow(&mut tree, std::process::id(), &processes());
                signal("TERM", [child.id()]);
                asked = Some(Instant::now());
            }
            Some(asked) if asked.elapsed() > GRACE => break None,
            _ => thread::sleep(POLL),
        }
    };
    // The command had its time to end what it started; what is left has to go.
    let table = processes();
    grow(&mut tree, std::process::id(), &table);
    tree.retain(|pid| table.iter().any(|process| process.pid == *pid));
    if !tree.is_empty() {
        signal("KILL", tree);
    }
    let _ = child.wait();
    exit_code(status)
}

fn exit_code(status: Option<ExitStatus>) -> ExitCode {
    let ended = |status: ExitStatus| status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    let code = status.and_then(ended).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// A thread that ends when the lifeline is gone. A lifeline that is a file stays locked, shared, to the guard's end.
fn watch(lifeline: String) -> thread::JoinHandle<Option<File>> {
    thread::spawn(move || {
        if lifeline == "-" {
            let mut nothing = [0; 64];
            while std::io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
            return None;
        }
        let file = File::open(&lifeline).ok();
        if let Some(file) = &file {
            let _ = file.lock_shared();
        }
        while Path::new(&lifeline).exists() {
            thread::sleep(POLL);
        }
        file
    })
}

/// One line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    group: u32,
}

/// Adds to `tree` everything that descends from it, and everything that shares the guard's process group.
fn grow(tree: &mut BTreeSet<u32>, guard: u32, table: &[Process]) {
    loop {
        let before = tree.len();
        let found = table.iter().filter(|p| p.pid != guard && (p.group == guard || tree.contains(&p.parent)));
        let found: Vec<u32> = found.map(|process| process.pid).collect();
        tree.extend(found);
        if tree.len() == before {
            return;
        }
    }
}

/// Whether a process of this id exists.
pub(crate) fn is_alive(pid: u32) -> bool {
    processes().iter().any(|process| process.pid == pid)
}

/// The machine's live processes, from /proc, or from ps where there is no /proc.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        let listing = quiet(Command::new("ps").args(["-A", "-o", "pid=,ppid=,pgid=,state="]));
        return listing.unwrap_or_default().lines().filter_map(parse_ps).collect();
    };
    let stats = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter_map(|stat| parse_stat(&stat)).collect()
}

/// `pid (name) state parent group ...`; the name may hold anything, so only the last parenthesis counts.
fn parse_stat(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(')')?;
    let pid = head.split_once(' ')?.0.parse().ok()?;
    let mut fields = rest.split_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X");
    let process = Process { pid, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? };
    alive.then_some(process)
}

fn parse_ps(line: &str) -> Option<Process> {
    let mut fields = line.split_whitespace();
    let mut number = || fields.next()?.parse().ok();
    let process = Process { pid: number()?, parent: number()?, group: number()? };
    (!fields.next()?.starts_with('Z')).then_some(process)
}

/// Sends a signal through the shell, whose `kill` is there even where the program is not.
fn signal(name: &str, pids: impl IntoIterator<Item = u32>) {
    let pids = pids.into_iter().map(|pid| pid.to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$0\" \"$@\"", name]).args(pids);
    // A process that is already gone is no failure.
    let _ = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, group: u32) -> Process {
        Process { pid, parent, group }
    }

    #[test]
    fn a_stat_line_is_read_past_a_name_with_spaces_and_parentheses() {
        assert_eq!(parse_stat("42 (a) (b c) S 7 9 9 0"), Some(process(42, 7, 9)));
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        assert_eq!(parse_stat("42 (sh) Z 7 9 9 0"), None);
        assert_eq!(parse_ps("  42   7   9 Z+"), None);
    }

    #[test]
    fn a_ps_line_gives_the_same_fields() {
        assert_eq!(parse_ps("  42   7   9 Ss"), Some(process(42, 7, 9)));
        assert_eq!(parse_ps("PID"), None);
    }

    #[test]
    fn the_tree_holds_descendants_in_other_groups_and_strays_in_the_guards_group_but_not_the_guard() {
        let table = [
            process(10, 1, 10),  // the guard
            process(11, 10, 10), // its command
            process(12, 11, 12), // a child that opened a group of its own
            process(13, 12, 12),
            process(14, 1, 10), // lost its parent, kept the group
            process(20, 1, 20), // another process
        ];
        let mut tree = BTreeSet::from([11]);
        grow(&mut tree, 10, &table);
        assert_eq!(tree, BTreeSet::from([11, 12, 13, 14]));
    }

    #[test]
    fn this_process_is_alive_and_an_impossible_one_is_not() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX));
    }

    #[test]
    fn a_failing_quiet_command_shows_its_output() {
        let error = quiet(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("    out\n    err"), "{error}");
    }

    #[test]
    fn a_tail_keeps_the_last_forty_lines() {
        let text: String = (0..50).map(|n| format!("{n}\n")).collect();
        assert!(tail(&text).starts_with("    10\n") && tail(&text).ends_with("    49\n"));
    }
}
