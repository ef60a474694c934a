//! The sidecar when its log is no longer read.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const CONFIG: &str = r#"{
    "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/orders",
    "FunctionName": "orders-worker",
    "StartingPosition": "TRIM_HORIZON",
    "Function": {"Url": "http://127.0.0.1:9/"},
    "Checkpoints": "memory:",
    "Admin": "off",
    "Aws": {"EndpointUrl": "http://127.0.0.1:9", "Region": "us-east-1"}
}"#;

#[test]
fn a_closed_standard_error_neither_ends_the_sidecar_nor_keeps_it_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    let mut sidecar = Command::new(env!("CARGO_BIN_EXE_shardmill"))
        .args(["run", "-c", "config.json"])
        .current_dir(folder.path())
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(sidecar.stderr.take().unwrap());
    let listed =
        log.lines().map_while(Result::ok).find(|line| line.contains("cannot list the stream's shards"));
    assert!(listed.is_some(), "it reads and fails, as planned");
    // The pipe is closed now, and the stop is worth a line.
    kill_process(Pid::from_child(&sidecar), Signal::TERM).unwrap();
    let status = sidecar.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}
