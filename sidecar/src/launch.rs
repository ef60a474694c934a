//! The launcher: the binary itself, started in place of the function's program, which it becomes.
//!
//! It ties the function to the sidecar: Linux kills the function when the sidecar is gone, however that ended. A process
//! can only ask for that itself (`PR_SET_PDEATHSIG`), and code of ours between fork and exec would be `unsafe`; so the
//! sidecar starts `shardmill __launch PARENT LOG PROGRAM ARGUMENT...`, which asks, sees that its parent is still there, and
//! executes the program in its own place: the process id stays. The signal follows the thread that started the process
//! (see `handler/command/spawner.rs`) and does not survive the execution of a program with the set-user-id bit or with
//! capabilities of its own.
//!
//! With `log` as LOG its standard input is a pipe for log messages: it is moved to a descriptor that the program inherits
//! and finds in `_LAMBDA_TELEMETRY_LOG_FD`. The standard library passes on none but the first three.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

/// The first argument of the launcher.
pub const ARGUMENT: &str = "__launch";

/// How the line begins in which the launcher reports that it cannot become the program.
pub(crate) const CANNOT_START: &str = "cannot start ";

/// Its exit status then, as a shell's.
pub(crate) const NOT_STARTED: u8 = 127;

static LAUNCHER: OnceLock<PathBuf> = OnceLock::new();

/// To be called by a binary whose `main` calls [`launch`] when its first argument is [`ARGUMENT`]: functions are started
/// by way of it from now on.
pub fn enable() {
    // Also right when the file was replaced by an update; missing where there is no /proc.
    let own = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && own.exists() {
        let _ = LAUNCHER.set(own.to_path_buf());
    }
}

/// The launcher; `None` if this process has none.
pub(crate) fn launcher() -> Option<PathBuf> {
    LAUNCHER.get().cloned()
}

/// The variable that names the descriptor for log messages, which runtime clients frame.
pub(crate) const LOG_FD: &str = "_LAMBDA_TELEMETRY_LOG_FD";

/// The launcher's arguments up to the program's own. `log`: its standard input is for log messages.
pub(crate) fn arguments(program: &Path, log: bool) -> [OsString; 4] {
    let log = if log { "log" } else { "-" };
    [ARGUMENT.into(), std::process::id().to_string().into(), log.into(), program.into()]
}

/// Becomes the program that `arguments` (those behind [`ARGUMENT`]) name. Returns only if that fails: with 127, as a
/// shell does.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let log = arguments.next().is_some_and(|log| log == "log");
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        eprintln!("{ARGUMENT} is for shardmill itself: it starts functions");
        return ExitCode::from(2);
    };
    if !tie_to(parent) {
        // The sidecar has ended meanwhile: no process waits for this function.
        return ExitCode::from(127);
    }
    let error = become_program(&program, arguments, log);
    eprintln!("{CANNOT_START}{}: {error}", program.display());
    ExitCode::from(NOT_STARTED)
}

fn become_program(program: &OsStr, arguments: impl Iterator<Item = OsString>, log: bool) -> std::io::Error {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    // A copy is inherited, where the original is not.
    let copy = if log { rustix::io::dup(std::io::stdin()).ok() } else { None };
    if let Some(copy) = &copy {
        command.env(LOG_FD, copy.as_raw_fd().to_string());
    }
    command.exec()
}

/// Has this process killed when its parent ends. Whether the parent is still `expected`.
#[cfg(target_os = "linux")]
fn tie_to(expected: i32) -> bool {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("the function will outlive a sidecar that is killed: {error}");
    }
    // It may have ended before the line above, and then the signal is not sent.
    getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == expected)
}

#[cfg(not(target_os = "linux"))]
fn tie_to(_: i32) -> bool {
    true
}
