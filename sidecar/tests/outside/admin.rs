//! Strangers at the admin endpoints.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use axum::http::StatusCode;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::{Function, Kinesis, Running, free_address, get, mapping, shardmill, until};

const LOCAL: &str = "host: 127.0.0.1\r\n";

/// A sidecar that has found its stream and function, with so many descriptors at most, and its admin address.
async fn sidecar(kinesis: &Kinesis, ulimit: u32) -> (Running, SocketAddr, Function, tempfile::TempDir) {
    let arn = kinesis.stream("strangers", 2, 0, 10).await;
    let function = Function::answering(StatusCode::OK, "{}").await;
    let (folder, admin) = (tempfile::tempdir().unwrap(), free_address());
    let mut file = mapping(&kinesis.url, &arn, admin);
    file["Function"] = json!({"Url": format!("http://{}/", function.address)});
    let binary = shardmill(&folder, &["run", "-c", "c.json"], &file);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("ulimit -n {ulimit}; exec \"$0\" \"$@\"")]).arg(binary.get_program());
    command.args(binary.get_args()).current_dir(folder.path()).env_clear();
    command.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    until("it is ready", || get(admin, "/readyz", LOCAL)?.starts_with("HTTP/1.1 200").then_some(())).await;
    (running, admin, function, folder)
}

/// 400 connections that have begun a request and never end it.
fn half_open(admin: SocketAddr) -> Vec<TcpStream> {
    (0..400)
        .map(|_| {
            let mut stream = TcpStream::connect(admin).unwrap();
            // A connection that was closed meanwhile is what is expected.
            let _ = write!(stream, "GET /healthz HTTP/1.1\r\nhost: 127");
            stream
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_83_four_hundred_half_open_requests_hinder_neither_records_nor_health_nor_the_stop() {
    let kinesis = Kinesis::start().await;
    let (mut sidecar, admin, function, _folder) = sidecar(&kinesis, 256).await;
    let half_open = half_open(admin);
    kinesis.put("strangers", 20, 10).await;
    until("every record is delivered", || (function.seen() == 20).then_some(())).await;
    for path in ["/healthz", "/v1/status"] {
        let answer = get(admin, path, LOCAL).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await.code(), Some(0));
    drop(half_open);
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_83_a_page_in_a_browser_reads_nothing_from_the_admin_endpoints() {
    let kinesis = Kinesis::start().await;
    let (_sidecar, admin, _function, _folder) = sidecar(&kinesis, 1024).await;
    for path in ["/healthz", "/readyz", "/metrics", "/v1/status", "/"] {
        let rebound = get(admin, path, "host: evil.example\r\norigin: http://evil.example\r\n").unwrap();
        assert!(rebound.starts_with("HTTP/1.1 421") && rebound.contains("Host"), "{rebound}");
        let foreign = get(admin, path, &format!("{LOCAL}origin: https://evil.example\r\n")).unwrap();
        assert!(foreign.starts_with("HTTP/1.1 403") && foreign.contains("Origin"), "{foreign}");
        assert!(!rebound.contains("strangers") && !foreign.contains("strangers"), "no name of a stream");
    }
    assert!(get(admin, "/v1/status", LOCAL).unwrap().contains("stream/strangers"));
}
