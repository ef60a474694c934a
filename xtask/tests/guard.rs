//! The guard ends a whole tree of processes when its lifeline goes.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A shell with two children, one of them in a session of its own; all three announce themselves.
const FAMILY: &str = "setsid sleep 600 & echo $!; sleep 600 & echo $!; echo $$; wait";

fn guard(lifeline: &str, script: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["guard", lifeline, "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("the guard starts")
}

fn announced(output: ChildStdout, count: usize) -> Vec<u32> {
    BufReader::new(output)
        .lines()
        .take(count)
        .map(|line| line.ok().and_then(|pid| pid.parse().ok()).expect("a process id"))
        .collect()
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_closed_pipe_ends_the_command_and_all_its_descendants() {
    let mut guard = guard("-", FAMILY);
    let family = announced(guard.stdout.take().unwrap(), 3);
    assert!(family.iter().all(|pid| is_alive(*pid)));
    drop(guard.stdin.take());
    guard.wait().unwrap();
    eventually("the family is gone", || !family.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn a_deleted_lifeline_file_ends_the_command_and_an_open_one_keeps_it() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lifeline-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let mut guard = guard(file.to_str().unwrap(), FAMILY);
    let family = announced(guard.stdout.take().unwrap(), 3);
    drop(guard.stdin.take());
    assert!(guard.try_wait().unwrap().is_none());
    std::fs::remove_file(&file).unwrap();
    guard.wait().unwrap();
    eventually("the family is gone", || !family.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn the_commands_exit_code_comes_through_and_what_it_left_behind_is_ended() {
    let mut guard = guard("-", "sleep 600 & echo $!; exit 7");
    let left = announced(guard.stdout.take().unwrap(), 1);
    assert_eq!(guard.wait().unwrap().code(), Some(7));
    eventually("the stray is gone", || !is_alive(left[0]));
}

#[test]
fn a_command_may_take_its_time_to_end_in_order() {
    let script = "trap 'sleep 1; echo 2; exit' TERM; echo 1; while :; do sleep 0.1; done";
    let mut guard = guard("-", script);
    let mut lines = BufReader::new(guard.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    drop(guard.stdin.take());
    assert_eq!(lines.next().unwrap().unwrap(), "2");
    guard.wait().unwrap();
}

#[test]
fn a_program_that_does_not_exist_is_an_exit_code_and_a_message() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["guard", "-", "/does/not/exist"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot start /does/not/exist"));
}
