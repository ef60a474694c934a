//! `cargo xtask ci`: everything that has to hold, cheap checks first.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::process::quiet;
use crate::provision::{Home, Tool};
use crate::{Result, cargo, files, process, root, suite};

/// How long one example may run.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(180);

/// What the step "feature matrix" compiles: a package, and its features. The sidecar alone has the library's defaults.
const MATRIX: [(&str, &str); 17] = [
    ("shardmill-checkpoint", ""),
    ("shardmill-checkpoint", "sqlite"),
    ("shardmill-checkpoint", "dynamodb"),
    ("shardmill-checkpoint", "conformance"),
    ("shardmill", ""),
    ("shardmill", "conformance"),
    ("shardmill", "lambda"),
    ("shardmill", "aws"),
    ("shardmill", "dynamodb"),
    ("shardmill", "kinesis"),
    ("shardmill", "dynamodb-streams"),
    ("shardmill", "sqs"),
    ("shardmill", "sns"),
    ("shardmill", "s3"),
    ("shardmill-sidecar", ""),
    ("shardmill-sidecar", "sns"),
    ("shardmill-sidecar", "s3"),
];

/// Runs every step up to the first that fails, and shows what each took.
pub(crate) fn run() -> Result<()> {
    // In CI the checkout is clean at the start; at a desk it only has to stay as it was.
    let before = if crate::is_ci() { String::new() } else { changes()? };
    let is_clean = move || {
        let after = changes()?;
        if after == before { Ok(()) } else { Err(format!("git status changed to:\n{after}")) }
    };
    type Step<'a> = (&'static str, Box<dyn FnOnce() -> Result<()> + 'a>);
    let steps: Vec<Step<'_>> = vec![
        ("formatting", Box::new(|| process::run(&cargo(&["fmt", "--all", "--check"]), None))),
        ("source files", Box::new(files::check)),
        ("engine's dependencies", Box::new(engine_is_pure)),
        ("seeded bugs apply", Box::new(seeded_bugs_apply)),
        ("unused dependencies", Box::new(unused)),
        ("cargo deny", Box::new(deny)),
        ("cargo audit", Box::new(audit)),
        ("clippy", Box::new(clippy)),
        ("feature matrix", Box::new(features)),
        ("documentation", Box::new(documentation)),
        ("tests", Box::new(|| suite::run(&[]))),
        ("examples", Box::new(examples)),
        ("seeds of fuzzing", Box::new(fuzz_seeds)),
        ("git status", Box::new(is_clean)),
    ];
    let mut table = String::new();
    let mut outcome = Ok(());
    for (name, step) in steps {
        eprintln!("\n==> {name}");
        let started = Instant::now();
        outcome = step().map_err(|e| format!("{name}: {e}"));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        table += &format!("{name:<24}{word:<8}{:>8.1} s\n", started.elapsed().as_secs_f64());
        if outcome.is_err() {
            break;
        }
    }
    eprint!("\n{table}");
    outcome
}

fn changes() -> Result<String> {
    quiet(Command::new("git").args(["status", "--porcelain"]).current_dir(root()))
}

/// The engine decides and does nothing: no runtime and no SDK may reach it, directly or not.
fn engine_is_pure() -> Result<()> {
    let mut tree = cargo(&["tree", "-p", "shardmill-engine", "-e", "normal", "--prefix", "none", "--locked"]);
    let listing = quiet(&mut tree)?;
    let found = impure(&listing);
    if found.is_empty() { Ok(()) } else { Err(format!("shardmill-engine depends on {}", found.join(", "))) }
}

/// The crates in a listing of `cargo tree` that bring a runtime or an SDK.
fn impure(listing: &str) -> Vec<&str> {
    let names = listing.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| *name == "tokio" || name.starts_with("tokio-") || name.starts_with("aws-")).collect()
}

/// A patch that no longer applies shows nothing about the tests that are to catch it.
fn seeded_bugs_apply() -> Result<()> {
    process::run(Command::new("bash").args(["engine/mutations/run.sh", "check"]).current_dir(root()), None)
}

/// Dependencies that no source names, of the workspace's table too, and those that only tests name.
fn unused() -> Result<()> {
    let path = Home::open()?.path_to(Tool::Shear)?;
    let shear = ["shear", "--locked", "--deny-warnings", "--exclude", "shardmill-third-party"];
    process::run(cargo(&shear).env("PATH", path), None)
}

fn deny() -> Result<()> {
    let path = Home::open()?.path_to(Tool::Deny)?;
    process::run(
        cargo(&["deny", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
            .env("PATH", path),
        None,
    )
}

/// With the advisory database that `SHARDMILL_ADVISORY_DB` names, else with one that cargo audit fetches.
fn audit() -> Result<()> {
    let home = Home::open()?;
    let mut audit = cargo(&["audit"]);
    if let Some(source) = env::var_os("SHARDMILL_ADVISORY_DB").filter(|source| !source.is_empty()) {
        let database = advisories(&home, Path::new(&source))?;
        audit.arg("--db").arg(database).args(["--no-fetch", "--stale"]);
    }
    process::run(audit.env("PATH", home.path_to(Tool::Audit)?), None)
}

/// A folder with the database: `source` itself, or what the archive `source` holds, as the repository that cargo
/// audit wants.
fn advisories(home: &Home, source: &Path) -> Result<PathBuf> {
    let unreadable = |e: std::io::Error| format!("SHARDMILL_ADVISORY_DB={}: {e}", source.display());
    let source = source.canonicalize().map_err(unreadable)?;
    let about = fs::metadata(&source).map_err(unreadable)?;
    if about.is_dir() {
        return Ok(source);
    }
    let modified = about.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let identity = format!("{} {} {:?}", source.display(), about.len(), modified.unwrap_or_default());
    let place = home.install("advisories", &[&identity], |draft| {
        let database = draft.join("database");
        fs::create_dir(&database).map_err(|e| e.to_string())?;
        quiet(Command::new("tar").arg("-xJf").arg(&source).arg("-C").arg(&database))?;
        let git = |args: &[&str]| quiet(Command::new("git").args(args).current_dir(top(&database)));
        git(&["init", "--quiet"])?;
        git(&["add", "--all", "--force"])?;
        let author =
            ["-c", "user.name=xtask", "-c", "user.email=xtask@localhost", "-c", "commit.gpgsign=false"];
        git(&[&author[..], &["commit", "--quiet", "--message", "advisories"]].concat()).map(drop)
    })?;
    Ok(top(&place.join("database")))
}

/// `folder`, or the single folder in it: archives come both ways.
fn top(folder: &Path) -> PathBuf {
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    match (entries.next(), entries.next()) {
        (Some(only), None) if only.path().is_dir() => only.path(),
        _ => folder.to_path_buf(),
    }
}

fn clippy() -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
    process::run(cargo(&clippy).args(["--", "-D", "warnings"]), None)
}

/// The combinations of features that users may have and no other step compiles. Checked as clippy checks and beside
/// every third-party crate, so that they share what clippy has compiled of those.
fn features() -> Result<()> {
    for (package, features) in MATRIX {
        eprintln!("--> {package}: {}", if features.is_empty() { "no features" } else { features });
        let check =
            ["clippy", "--quiet", "--locked", "--package", "shardmill-third-party", "--package", package];
        let features = ["--no-default-features", "--features", features, "--", "-D", "warnings"];
        process::run(cargo(&check).args(features), None)?;
    }
    Ok(())
}

/// As docs.rs renders it: with the script by which the numbers of rules and invariants are links.
fn documentation() -> Result<()> {
    let mut doc = cargo(&["doc", "--workspace", "--all-features", "--no-deps", "--locked"]);
    let script = root().join("engine/docs/links.html").display().to_string();
    let flags = ["-Dwarnings", "--html-in-header", &script].join("\x1f");
    process::run(doc.env("CARGO_ENCODED_RUSTDOCFLAGS", flags), None)
}

/// The fuzz targets on their seeds, without a fuzzer.
fn fuzz_seeds() -> Result<()> {
    let test =
        ["test", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"];
    process::run(&cargo(&test), None)
}

/// Runs each example to its end; each ends by itself and fails if it did not do what it shows.
fn examples() -> Result<()> {
    suite::build()?;
    let folder = crate::binaries()?.join("examples");
    for name in example_names(&root().join("examples/examples")) {
        eprintln!("--> {name}");
        process::run(Command::new(folder.join(&name)).current_dir(root()), Some(EXAMPLE_LIMIT))?;
    }
    Ok(())
}

fn example_names(sources: &Path) -> Vec<String> {
    let files = fs::read_dir(sources).into_iter().flatten().flatten().map(|entry| entry.path());
    let rust = files.filter(|file| file.extension() == Some(OsStr::new("rs")));
    let mut names: Vec<String> = rust.filter_map(|f| Some(f.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_or_an_sdk_anywhere_in_the_tree_is_found_and_lookalikes_are_not() {
        let listing = "shardmill-engine v0.1.0 (engine)\nbytes v1.0.0\ntokio v1.0.0\ntokio-util v0.7.0\n\
                       aws-smithy-types v1.0.0\ntokiota v1.0.0\nlaws-x v1.0.0\n";
        assert_eq!(impure(listing), ["tokio", "tokio-util", "aws-smithy-types"]);
    }

    #[test]
    fn the_package_of_third_party_crates_has_every_one_of_the_workspace() {
        let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
        let names = |text: &str| -> Vec<String> {
            let section = text.split("dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
            let name = |line: &str| line.split([' ', '.']).next().unwrap_or_default().to_owned();
            let lines = section.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
            lines.map(name).filter(|name| !name.starts_with("shardmill")).collect()
        };
        let mut all = names(&read("Cargo.toml"));
        all.sort();
        assert!(all.len() > 40, "{all:?}");
        assert_eq!(names(&read("xtask/third-party/Cargo.toml")), all, "in this order");
    }

    #[test]
    fn examples_are_the_rust_files_of_their_folder_in_order() {
        let folder = env::temp_dir().join(format!("xtask-examples-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["hello.rs", "axum.rs", "README.md"] {
            fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(example_names(&folder), ["axum", "hello"]);
        assert!(example_names(&folder.join("missing")).is_empty());
        fs::remove_dir_all(folder).unwrap();
    }
}
