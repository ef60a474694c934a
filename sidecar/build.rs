//! Tells the program which commit it was built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SHARDMILL_COMMIT");
    // A build without a repository, as in an image, may be told. A debug build is not: it would be built anew after each
    // commit.
    let told = std::env::var("SHARDMILL_COMMIT").ok().filter(|text| !text.is_empty());
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = told.or_else(|| release.then(of_repository).flatten());
    println!("cargo::rustc-env=SHARDMILL_BUILD={}", commit.as_deref().unwrap_or("commit unknown"));
}

/// The abbreviated hash of the commit that is checked out; `None` outside of a repository.
fn of_repository() -> Option<String> {
    for path in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
