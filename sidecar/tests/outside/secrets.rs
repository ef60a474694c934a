//! What the sidecar shows of what it knows: no secret and nothing of a record.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use axum::http::StatusCode;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::{Function, Kinesis, Running, free_address, get, mapping, shardmill, until};

const LOCAL: &str = "host: localhost\r\n";
/// As functions do that quote what they could not read.
const QUOTING: &str = r#"{"errorType":"ValueError","errorMessage":"cannot read c2VjcmV0LXBheWxvYWQ="}"#;

#[tokio::test(flavor = "multi_thread")]
async fn incident_86_neither_the_log_nor_the_endpoints_show_a_functions_words_or_the_query_of_its_url() {
    let kinesis = Kinesis::start().await;
    let arn = kinesis.stream("secrets", 1, 5, 10).await;
    let function = Function::answering(StatusCode::INTERNAL_SERVER_ERROR, QUOTING).await;
    for (url, told) in [
        (
            format!("http://{}/orders?code=topsecret", function.address),
            "it answered 500 Internal Server Error (ValueError, ",
        ),
        (format!("http://{}/orders?code=topsecret", free_address()), "/orders: "),
    ] {
        let (folder, admin) = (tempfile::tempdir().unwrap(), free_address());
        let mut file = mapping(&kinesis.url, &arn, admin);
        file["Function"] = json!({"Url": url});
        let mut command = shardmill(&folder, &["run", "-c", "c.json"], &file);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut sidecar = Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let shown = until("it shows why", || {
            let status = get(admin, "/v1/status", LOCAL)?;
            status.contains(told).then_some(status)
        })
        .await;
        let ready = get(admin, "/readyz", LOCAL).unwrap();
        let metrics = get(admin, "/metrics", LOCAL).unwrap();
        sidecar.signal(Signal::TERM);
        sidecar.ended().await;
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        for text in [shown, ready, metrics, log] {
            assert!(!text.contains("topsecret") && !text.contains("c2VjcmV0"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_86_a_check_shows_no_password_of_a_url() {
    let folder = tempfile::tempdir().unwrap();
    let good = "http://127.0.0.1:1/?code=topsecret";
    for (url, endpoint) in
        [(good, "http://me:hunter2@127.0.0.1:1"), ("http://me:hunter2@127.0.0.1:1/", "http://127.0.0.1:1")]
    {
        let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
        let mut file = mapping(endpoint, arn, free_address());
        file["Function"] = json!({"Url": url});
        file["DestinationConfig"] =
            json!({"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:dead"}});
        let output = shardmill(&folder, &["check", "-c", "c.json", "--online"], &file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!output.status.success() && text.len() > 50, "{text}");
        assert!(!text.contains("hunter2") && !text.contains("topsecret"), "{text}");
    }
}

#[test]
fn incident_87_dead_letters_are_for_their_user_only_under_the_usual_umask() {
    let folder = tempfile::tempdir().unwrap();
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let mut file = mapping("http://127.0.0.1:1", arn, free_address());
    file["Function"] = json!({"Stdout": true});
    file["DestinationConfig"] = json!({"OnFailure": {"Destination": "file:./dead.jsonl"}});
    let binary = shardmill(&folder, &["check", "-c", "c.json", "--online"], &file);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 022; exec \"$0\" \"$@\""]).arg(binary.get_program()).args(binary.get_args());
    command.current_dir(folder.path()).env_clear();
    command.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let file =
        std::fs::metadata(folder.path().join("dead.jsonl")).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}
