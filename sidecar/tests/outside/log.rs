//! Standard error that is not read.

use std::io::Read as _;
use std::process::Stdio;

use axum::http::StatusCode;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::{Function, Kinesis, Running, free_address, get, mapping, shardmill, until};

#[tokio::test(flavor = "multi_thread")]
async fn incident_74_a_log_that_nobody_reads_holds_up_neither_records_nor_the_stop() {
    let kinesis = Kinesis::start().await;
    let arn = kinesis.stream("unread", 2, 400, 100).await;
    let function = Function::answering(StatusCode::OK, "{}").await;
    let (folder, admin) = (tempfile::tempdir().unwrap(), free_address());
    let mut file = mapping(&kinesis.url, &arn, admin);
    file["Function"] = json!({"Url": format!("http://{}/", function.address)});
    file["BatchSize"] = json!(10);
    // Every step is logged: more than a pipe holds.
    let mut command = shardmill(&folder, &["run", "-c", "c.json"], &file);
    command.env("RUST_LOG", "trace").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut sidecar = Running(command.spawn().unwrap());
    let mut unread = sidecar.0.stderr.take().unwrap();
    until("every record is delivered", || (function.seen() == 400).then_some(())).await;
    let metrics = get(admin, "/metrics", "host: localhost\r\n").unwrap();
    assert!(metrics.contains("\nshardmill_log_lines_lost_total "), "{metrics}");
    sidecar.signal(Signal::TERM);
    let status = sidecar.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    let mut log = Vec::new();
    unread.read_to_end(&mut log).unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(!log.contains("\"message\":\"stopped\""), "the pipe was full long before the stop");
    let whole = log.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
    assert!(whole > 10 && whole + 1 >= log.lines().count(), "whole lines, the last one cut by the end");
}
