//! The binary's `check` and `--version`, as a user sees them.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::process::{Command, Output};

fn shardmill(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    // Nothing of the user's: credentials, profiles, endpoints.
    command
        .env_clear()
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder);
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(folder: &Path, function: &str, more: &str) {
    let text = format!(
        "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
         StartingPosition: LATEST\nFunction: {function}\nAws: {{EndpointUrl: \"http://127.0.0.1:1\", Profile: stagnig}}\n{more}"
    );
    std::fs::write(folder.join("c.yaml"), text).unwrap();
}

#[test]
fn incident_106_the_version_names_the_program_its_commit_and_its_features() {
    let folder = tempfile::tempdir().unwrap();
    let output = text(&shardmill(&["--version"], folder.path()).stdout);
    let expected = concat!("shardmill ", env!("CARGO_PKG_VERSION"), " (");
    assert!(output.starts_with(expected) && output.contains(", features "), "{output}");
    let has = |feature: bool, name: &str| assert_eq!(output.contains(name), feature, "{output}");
    has(cfg!(feature = "sns"), "sns");
    has(cfg!(feature = "s3"), "s3");
}

#[test]
fn incident_104_check_refuses_what_run_refuses_with_the_same_status() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "{Url: \"http://user:secret@127.0.0.1:8080/\"}", "");
    for command in ["check", "run"] {
        let output = shardmill(&[command, "-c", "c.yaml"], folder.path());
        assert_eq!(output.status.code(), Some(2), "{command}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("remove what is before the @"), "{command}");
    }
}

#[test]
fn incident_104_check_online_starts_the_program_and_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".aws")).unwrap();
    std::fs::write(folder.path().join(".aws/config"), "[profile staging]\nregion = eu-west-1\n").unwrap();
    let dead =
        "DestinationConfig: {OnFailure: {Destination: \"file:dead.jsonl\"}}\nMaximumRetryAttempts: 3\n";
    file(folder.path(), "{Command: [/bin/sh, -c, 'echo no module named app >&2; exit 3']}", dead);
    let output = shardmill(&["check", "-c", "c.yaml", "--online"], folder.path());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = |start: &str| {
        said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {said}"))
    };
    assert!(line("FAILED   function").contains("ended before its first /next"), "{said}");
    assert!(text(&output.stderr).contains("no module named app"), "what it printed is in the log");
    assert!(line("note     Aws.Profile").contains("did you mean \"staging\"?"), "{said}");
    assert!(line("FAILED   Kinesis stream").contains("orders"), "{said}");
    assert!(line("ok       file").ends_with("dead.jsonl: is writable"), "{said}");
    assert!(line("ok       sqlite:").ends_with("0 leases"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn incident_104_a_program_that_cannot_be_executed_is_told_with_the_reason() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("app");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    file(folder.path(), "{Command: [./app]}", "");
    let said = text(&shardmill(&["check", "-c", "c.yaml", "--online"], folder.path()).stdout);
    let line =
        said.lines().find(|line| line.starts_with("FAILED   function")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("cannot start ") && line.contains("No such file"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_create_table_false_a_mistyped_table_is_an_error_and_no_new_table() {
    let fakes = shardmill_testkit::Fakes::new();
    let server = fakes.serve(0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let check = |create: bool| {
        let file = format!(
            "EventSourceArn: arn:aws:kinesis:us-east-1:000000000000:stream/orders\nFunctionName: f\n\
             StartingPosition: LATEST\nFunction: {{Stdout: true}}\nAws: {{EndpointUrl: \"{}\"}}\n\
             Checkpoints: dynamodb:shardmil\nCreateTable: {create}\n",
            server.url()
        );
        std::fs::write(folder.path().join("c.yaml"), file).unwrap();
        let output = shardmill(&["check", "-c", "c.yaml", "--online"], folder.path());
        let said = text(&output.stdout);
        said.lines()
            .find(|line| line.contains("dynamodb:shardmil"))
            .unwrap_or_else(|| panic!("{said}"))
            .to_owned()
    };
    let line = check(false);
    let words = ["FAILED", "there is no table shardmil in us-east-1", "correct its name", "CreateTable"];
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    assert!(!fakes.tables().bill().calls.contains_key("CreateTable"));
    assert!(check(true).starts_with("ok"));
}

#[test]
fn incident_104_check_online_asks_and_starts_nothing_of_a_mapping_that_is_disabled() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "{Command: [/bin/sh, -c, 'touch started; exit 3']}", "Enabled: false\n");
    let output = shardmill(&["check", "-c", "c.yaml", "--online"], folder.path());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("nothing of it is asked or started: Enabled is false"), "{said}");
    assert!(
        !folder.path().join("started").exists() && !folder.path().join("shardmill.db").exists(),
        "{said}"
    );
}
