//! Development tasks, run as `cargo xtask COMMAND`. Standard library only, so that the first command of a fresh
//! clone starts at once.
//!
//! `process` runs commands so that nothing outlives this program, `provision` installs what the tests need,
//! `emulator` starts emulators, `suite` runs the tests, `files` judges the length and
//! the first line of source files, `ci` runs everything.
mod ci;
mod emulator;
mod files;
mod process;
mod provision;
mod suite;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [NEXTEST ARGS]    install and start the emulators, run all tests and doctests, stop the emulators;
                         with arguments (a test name, -E EXPRESSION, ...) run only those tests, no doctests
  demo                   the tour of the README with a DynamoDB stream: installs and starts DynamoDB Local for it
  ci                     test, and formatting, lints, documentation, dependencies, examples
  emulators provision    install the emulators into .emulators/
  emulators up           start them in the background; prints their addresses as shell exports:
                         eval \"$(cargo xtask emulators up)\"
  emulators down         stop them again
  emulators with SUITES COMMAND
                         run a command with the emulators of these suites (dynamodb_local,kcl_java), then stop them
";

/// What went wrong, as a text for the person at the terminal.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["guard", lifeline, program, rest @ ..] => return process::guard(lifeline, program, rest),
        ["test", rest @ ..] => suite::run(rest),
        ["demo"] => suite::demo(),
        ["ci"] => ci::run(),
        ["emulators", "provision"] => suite::provision(),
        ["emulators", "up"] => suite::up(),
        ["emulators", "down"] => suite::down(),
        ["emulators", "with", suites, program, args @ ..] => suite::with(suites, program, args),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the xtask crate lives in a folder of the repository")
}

/// The folder where cargo put this program, and puts the other binaries of the workspace.
fn binaries() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|e| format!("cannot tell where xtask runs from: {e}"))?;
    Ok(program.parent().unwrap_or(Path::new(".")).to_path_buf())
}

/// The cargo that runs this program.
fn cargo(args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo")));
    cargo.args(args).current_dir(root());
    cargo
}

/// Whether this is a run that must not skip anything.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}
