//! `cargo xtask test` and `cargo xtask emulators`.
//!
//! A test that needs something beyond Rust is marked `#[ignore = "..."]`, so that a plain `cargo test` counts it as
//! ignored, and lives in a module named after what it needs (`mod localstack`, see [`Suite`]). Here ignored tests run
//! too, and what the machine cannot run is left out by those names, so that nextest counts it as skipped.
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, thread};

use crate::emulator::{Emulator, Fleet, first_use_of_localstack};
use crate::provision::{Home, Machine, Tool};
use crate::{Result, cargo, process};

/// What a test may need beyond Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    KinesisLocal,
    Localstack,
    DynamodbLocal,
    /// A worker of Amazon's KCL for Java.
    KclJava,
    /// A Python that has AWS's runtime for Lambda functions.
    Python,
    Go,
}

impl Suite {
    const ALL: [Self; 6] =
        [Self::KinesisLocal, Self::Localstack, Self::DynamodbLocal, Self::KclJava, Self::Python, Self::Go];

    /// The name of the modules that hold such tests.
    fn module(self) -> &'static str {
        match self {
            Self::KinesisLocal => "kinesis_local",
            Self::Localstack => "localstack",
            Self::DynamodbLocal => "dynamodb_local",
            Self::KclJava => "kcl_java",
            Self::Python => "python",
            Self::Go => "go",
        }
    }

    /// The variable with which the tests find it. Where it is set already, nothing is installed or started.
    fn variable(self) -> String {
        format!("SHARDMILL_TEST_{}", self.module().to_uppercase())
    }

    /// Those that a text names by their modules, separated by commas.
    fn named(names: &str) -> Result<Vec<Self>> {
        let known = || Self::ALL.map(Self::module).join(", ");
        let find = |name| Self::ALL.into_iter().find(|suite| suite.module() == name);
        let suite =
            |name| find(name).ok_or_else(|| format!("there is no suite {name:?}; known: {}", known()));
        names.split(',').map(suite).collect()
    }

    const fn is_guest(self) -> bool {
        matches!(self, Self::Go | Self::KclJava)
    }

    /// What the machine lacks for it.
    fn lacks(self, machine: &Machine) -> Option<&'static str> {
        let node = (!machine.node).then_some("Node with npm");
        let java = (!machine.java).then_some("Java 17");
        let python = machine.python.is_none().then_some("Python 3.11 or newer with venv");
        match self {
            Self::KinesisLocal => node,
            Self::Localstack => python.or(node),
            Self::DynamodbLocal => java.or(node),
            Self::KclJava => java.or(node).or((!machine.maven).then_some("Maven")),
            Self::Python => python,
            Self::Go => (!machine.go).then_some("Go"),
        }
    }
}

/// What to do for each suite on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// To install and start.
    own: Vec<Suite>,
    skipped: Vec<(Suite, &'static str)>,
}

impl Plan {
    /// An error where `ci` forbids to skip. Go and Maven are guests: their tests run only where they happen to be.
    fn make(machine: &Machine, is_given: impl Fn(Suite) -> bool, ci: bool) -> Result<Self> {
        let mut plan = Self { own: Vec::new(), skipped: Vec::new() };
        for suite in Suite::ALL.into_iter().filter(|suite| !is_given(*suite)) {
            match suite.lacks(machine) {
                Some(what) => plan.skipped.push((suite, what)),
                None => plan.own.push(suite),
            }
        }
        let forbidden = plan.skipped.iter().filter(|(suite, _)| ci && !suite.is_guest());
        let forbidden: Vec<_> =
            forbidden.map(|(suite, what)| format!("{} ({what})", suite.module())).collect();
        if forbidden.is_empty() {
            return Ok(plan);
        }
        Err(format!("with CI=true no suite may be skipped, and this machine lacks: {}", forbidden.join(", ")))
    }

    fn here() -> Result<(Machine, Self)> {
        let machine = Machine::look();
        let plan = Self::make(&machine, |suite| env::var_os(suite.variable()).is_some(), crate::is_ci())?;
        plan.show_skipped();
        Ok((machine, plan))
    }

    fn show_skipped(&self) {
        for (suite, what) in &self.skipped {
            eprintln!("xtask: skipped: the {} tests, this machine lacks {what}", suite.module());
        }
    }
}

/// What is there for the tests, before anything is started.
#[derive(Default)]
struct Installed {
    emulators: Vec<Emulator>,
    variables: Vec<(String, String)>,
    /// Guests that could not be installed.
    absent: Vec<Suite>,
}

impl Installed {
    fn make(home: &Home, machine: &Machine, plan: &Plan) -> Result<Self> {
        let one = |suite: Suite| -> Result<Self> {
            let mut installed = Self::default();
            match (suite, &machine.python) {
                (Suite::KinesisLocal, _) => {
                    installed.emulators.push(Emulator::KinesisLocal(home.kinesis_local()?));
                }
                (Suite::DynamodbLocal, _) => {
                    installed.emulators.push(Emulator::DynamodbLocal(home.dynamodb_local()?));
                }
                (Suite::Localstack, Some(python)) => {
                    let folder = home.localstack(python, |draft| first_use_of_localstack(home, draft))?;
                    installed.emulators.push(Emulator::Localstack(folder));
                }
                (Suite::Python, Some(python)) => {
                    let interpreter = home.lambda_python(python)?.display().to_string();
                    installed.variables.push((suite.variable(), interpreter));
                }
                (Suite::KclJava, _) => match home.kcl() {
                    Ok(classes) => installed.variables.push((suite.variable(), classes)),
                    // A guest that does not come keeps nobody waiting.
                    Err(error) => {
                        eprintln!("xtask: skipped: the {} tests: {error}", suite.module());
                        installed.absent.push(suite);
                    }
                },
                (Suite::Go, _) => installed.variables.push((suite.variable(), "1".to_owned())),
                (Suite::Localstack | Suite::Python, None) => {}
            }
            Ok(installed)
        };
        thread::scope(|scope| {
            let all: Vec<_> = plan.own.iter().map(|suite| scope.spawn(|| one(*suite))).collect();
            all.into_iter().try_fold(Self::default(), |mut sum, part| {
                let part = part.join().map_err(|_| "an installation panicked".to_owned())??;
                sum.emulators.extend(part.emulators);
                sum.variables.extend(part.variables);
                sum.absent.extend(part.absent);
                Ok(sum)
            })
        })
    }
}

/// Installs everything that the machine can run, and the test runner.
pub(crate) fn provision() -> Result<()> {
    let (machine, plan) = Plan::here()?;
    let home = Home::open()?;
    home.path_to(Tool::Nextest)?;
    Installed::make(&home, &machine, &plan)?;
    eprintln!("xtask: everything is in {}", home.folder().display());
    Ok(())
}

/// Starts the emulators in the background and prints their addresses.
pub(crate) fn up() -> Result<()> {
    down()?;
    let (machine, plan) = Plan::here()?;
    let home = Home::open()?;
    let installed = Installed::make(&home, &machine, &plan)?;
    let lifeline = lifeline(&home);
    let write = |text: &str| {
        fs::write(&lifeline, text).map_err(|e| format!("cannot write {}: {e}", lifeline.display()))
    };
    write("")?;
    let scratch = home.folder().join("runs/background");
    let started = Fleet::start_in_background(&scratch, &installed.emulators, &lifeline);
    if started.is_err() {
        down()?;
    }
    let variables = [started?.variables(), installed.variables].concat();
    let exports: String =
        variables.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
    write(&exports)?;
    print!("{exports}");
    Ok(())
}

/// Stops the emulators that run in the background, if any do, and waits until they are gone.
pub(crate) fn down() -> Result<()> {
    let lifeline = lifeline(&Home::open()?);
    let Ok(file) = fs::File::open(&lifeline) else { return Ok(()) };
    let failed = |e: std::io::Error| format!("cannot delete {}: {e}", lifeline.display());
    fs::remove_file(&lifeline).map_err(failed)?;
    // Every guard shares a lock on its lifeline to its end.
    file.lock().map_err(failed)?;
    eprintln!("xtask: stopped the emulators in the background");
    Ok(())
}

/// Runs a command with the emulators of some suites, which its environment names as it does for the tests, and then stops
/// them. What the machine lacks is skipped.
pub(crate) fn with(names: &str, program: &str, args: &[&str]) -> Result<()> {
    let wanted = Suite::named(names)?;
    let machine = Machine::look();
    let is_given = |suite| !wanted.contains(&suite) || env::var_os(suite.variable()).is_some();
    let plan = Plan::make(&machine, is_given, false)?;
    plan.show_skipped();
    let home = Home::open()?;
    let installed = Installed::make(&home, &machine, &plan)?;
    let fleet = Fleet::start(&home, &installed.emulators, "with")?;
    let mut command = Command::new(program);
    process::run(command.args(args).envs(fleet.variables()).envs(installed.variables), None)
}

/// The file whose existence keeps the emulators in the background alive; it holds their addresses.
fn lifeline(home: &Home) -> PathBuf {
    home.folder().join("background")
}

/// Runs the tests: all of them and the doctests, or those that `args` (for nextest) select.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (machine, plan) = Plan::here()?;
    let home = Home::open()?;
    let path = home.path_to(Tool::Nextest)?;
    let installed = thread::scope(|scope| {
        let installing = scope.spawn(|| Installed::make(&home, &machine, &plan));
        build()?;
        installing.join().map_err(|_| "an installation panicked".to_owned())?
    })?;

    let fleet = Fleet::start(&home, &installed.emulators, "test")?;
    let sidecar = crate::binaries()?.join("shardmill").display().to_string();
    let mut variables = [fleet.variables(), installed.variables].concat();
    variables.push(("SHARDMILL_TEST_SIDECAR".to_owned(), sidecar));

    let mut nextest = cargo(&["nextest", "run", "--locked", "--run-ignored", "all", "--no-tests=fail"]);
    if !args.iter().any(|arg| matches!(*arg, "-p" | "--package")) {
        nextest.arg("--workspace");
    }
    if !args.iter().any(|arg| arg.starts_with("--test-threads")) {
        // Those with whole processes mostly wait: two more than there are cores keep these busy.
        let cores = thread::available_parallelism().map_or(2, usize::from);
        nextest.arg(format!("--test-threads={}", cores + 2));
    }
    let skipped = plan.skipped.iter().map(|(suite, _)| *suite).chain(installed.absent);
    let skipped: Vec<Suite> = skipped.collect();
    process::run(nextest.args(select(args, &skipped)).env("PATH", path).envs(variables.clone()), None)?;
    if args.is_empty() {
        process::run(cargo(&["test", "--doc", "--workspace", "--locked"]).envs(variables), None)?;
    }
    Ok(())
}

/// Shows the tour with a DynamoDB stream. What it needs is installed and started for it.
pub(crate) fn demo() -> Result<()> {
    let machine = Machine::look();
    if let Some(what) = Suite::DynamodbLocal.lacks(&machine) {
        return Err(format!("DynamoDB Local, which this tour needs, needs {what}"));
    }
    let home = Home::open()?;
    let plan = Plan { own: vec![Suite::DynamodbLocal], skipped: Vec::new() };
    let installed = Installed::make(&home, &machine, &plan)?;
    process::run(&cargo(&["build", "--locked"]), None)?;
    let fleet = Fleet::start(&home, &installed.emulators, "demo")?;
    let mut demo = Command::new(crate::binaries()?.join("shardmill"));
    demo.arg("demo");
    for (_, address) in fleet.variables() {
        demo.args(["--dynamodb", &address]);
    }
    process::run(&demo, None)
}

/// Everything in one go: asked for one by one, cargo would build the dependencies several times, with different
/// features. With the tests come the programs of their packages.
pub(crate) fn build() -> Result<()> {
    process::run(&cargo(&["build", "--workspace", "--tests", "--examples", "--locked"]), None)
}

/// The caller's arguments for nextest, less the suites that cannot run. Nextest runs what *any* filter expression
/// names, so the caller's own and the exclusion have to become one.
fn select(args: &[&str], skipped: &[Suite]) -> Vec<String> {
    let absent: Vec<_> = skipped.iter().map(|s| format!("test(/(^|::){}::/)", s.module())).collect();
    if absent.is_empty() {
        return args.iter().map(|arg| (*arg).to_owned()).collect();
    }
    let (mut wanted, mut rest) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--filterset=").or_else(|| arg.strip_prefix("-E")) {
            Some("") => wanted.extend(args.next().map(|value| format!("({value})"))),
            Some(value) => wanted.push(format!("({value})")),
            None if *arg == "--filterset" => wanted.extend(args.next().map(|value| format!("({value})"))),
            None => rest.push((*arg).to_owned()),
        }
    }
    let wanted = if wanted.is_empty() { "all()".to_owned() } else { wanted.join(" | ") };
    let mut selection = vec!["-E".to_owned(), format!("({wanted}) - ({})", absent.join(" | "))];
    selection.append(&mut rest);
    selection
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(plan: &Plan) -> Vec<&'static str> {
        plan.skipped.iter().map(|(suite, _)| suite.module()).collect()
    }

    #[test]
    fn a_full_machine_skips_nothing() {
        let plan = Plan::make(&Machine::full(), |_| false, true).unwrap();
        assert_eq!((plan.own.as_slice(), plan.skipped.len()), (&Suite::ALL[..], 0));
    }

    #[test]
    fn a_machine_with_rust_alone_skips_every_suite_by_name() {
        let plan = Plan::make(&Machine::bare(), |_| false, false).unwrap();
        assert_eq!(
            modules(&plan),
            ["kinesis_local", "localstack", "dynamodb_local", "kcl_java", "python", "go"]
        );
        assert!(plan.own.is_empty());
    }

    #[test]
    fn localstack_needs_node_too_because_its_kinesis_does() {
        let machine = Machine { node: false, ..Machine::full() };
        let plan = Plan::make(&machine, |_| false, false).unwrap();
        assert_eq!(modules(&plan), ["kinesis_local", "localstack", "dynamodb_local", "kcl_java"]);
    }

    #[test]
    fn in_ci_a_missing_runtime_is_an_error_that_names_suite_and_runtime() {
        let machine = Machine { java: false, ..Machine::full() };
        let error = Plan::make(&machine, |_| false, true).unwrap_err();
        assert!(error.contains("dynamodb_local (Java 17)"), "{error}");
    }

    #[test]
    fn go_and_maven_may_be_absent_even_in_ci() {
        let machine = Machine { go: false, maven: false, ..Machine::full() };
        assert_eq!(modules(&Plan::make(&machine, |_| false, true).unwrap()), ["kcl_java", "go"]);
    }

    #[test]
    fn what_the_environment_already_gives_is_neither_skipped_nor_started() {
        let plan = Plan::make(&Machine::bare(), |suite| suite == Suite::Localstack, false).unwrap();
        assert!(!modules(&plan).contains(&"localstack") && !plan.own.contains(&Suite::Localstack));
    }

    #[test]
    fn suites_are_named_by_their_modules_and_an_unknown_name_is_an_error_with_the_known_ones() {
        assert_eq!(Suite::named("dynamodb_local,kcl_java"), Ok(vec![Suite::DynamodbLocal, Suite::KclJava]));
        let error = Suite::named("dynamodb_local,dynamodb").unwrap_err();
        assert!(error.contains("\"dynamodb\"") && error.contains("dynamodb_local, kcl_java"), "{error}");
    }

    #[test]
    fn with_nothing_skipped_the_arguments_stay_as_they_are() {
        assert_eq!(select(&["-E", "test(a)", "b"], &[]), ["-E", "test(a)", "b"]);
    }

    #[test]
    fn skipped_suites_are_taken_out_of_whatever_the_caller_selects() {
        let skipped = [Suite::Localstack];
        let absent = "(test(/(^|::)localstack::/))";
        assert_eq!(select(&[], &skipped), ["-E", &format!("(all()) - {absent}")]);
        let own = ["-E", "test(a)", "--filterset=test(b)", "-Etest(c)", "--filterset", "test(d)", "name"];
        let expression = format!("((test(a)) | (test(b)) | (test(c)) | (test(d))) - {absent}");
        assert_eq!(select(&own, &skipped), ["-E", &expression, "name"]);
    }
}
