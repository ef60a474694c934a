//! The launcher: the binary itself, started in place of the function's program, which it becomes.
//!
//! It ties the function to the sidecar: Linux kills the function when the sidecar is gone, however that ended. A process
//! can only ask for that itself (`PR_SET_PDEATHSIG`), and code of ours between fork and exec would be `unsafe`; so the
//! sidecar starts `shardmill __launch PARENT PROGRAM ARGUMENT...`, which asks, sees that its parent is still there, and
//! executes the program in its own place: the process id stays. The signal follows the thread that started the process
//! (see `handler/command/spawner.rs`) and does not survive the execution of a program with the set-user-id bit or with
//! capabilities of its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

/// The first argument of the launcher.
pub const ARGUMENT: &str = "__launch";

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

/// The launcher's arguments up to the program's own.
pub(crate) fn arguments(program: &Path) -> [OsString; 3] {
    [ARGUMENT.into(), std::process::id().to_string().into(), program.into()]
}

/// Becomes the program that `arguments` (those behind [`ARGUMENT`]) name. Returns only if that fails: with 127, as a
/// shell does.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        eprintln!("{ARGUMENT} is for shardmill itself: it starts functions");
        return ExitCode::from(2);
    };
    if !tie_to(parent) {
        // The sidecar has ended meanwhile: nobody waits for this function.
        return ExitCode::from(127);
    }
    let error = become_program(&program, arguments);
    eprintln!("cannot start {}: {error}", program.display());
    ExitCode::from(127)
}

fn become_program(program: &OsStr, arguments: impl Iterator<Item = OsString>) -> std::io::Error {
    Command::new(program).args(arguments).stdin(Stdio::null()).exec()
}

/// Has this process killed when its parent ends. Whether the parent is still `expected`.
#[cfg(target_os = "linux")]
fn tie_to(expected: i32) -> bool {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("the function will outlive a sidecar that is killed: {error}");
    }
    // It may have ended before the line above, and then nobody sends the signal.
    getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == expected)
}

#[cfg(not(target_os = "linux"))]
fn tie_to(_: i32) -> bool {
    true
}
