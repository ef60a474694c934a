//! A Kinesis emulator and a function in the test's process, and the binary between them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamStatus};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const REGION: &str = "us-east-1";
/// Reaching it means that the condition is never met, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until there is a value.
pub(crate) async fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A Kinesis emulator.
pub(crate) struct Kinesis {
    pub(crate) url: String,
    client: Client,
}

impl Kinesis {
    pub(crate) async fn start() -> Self {
        let options = ferrokinesis::store::StoreOptions { create_stream_ms: 0, ..Default::default() };
        let (app, _) = ferrokinesis::create_app(options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&url);
        Self { client: Client::from_conf(config.build()), url }
    }

    /// Creates a stream with this many shards and puts `records` records of `bytes` bytes; its ARN.
    pub(crate) async fn stream(&self, name: &str, shards: i32, records: usize, bytes: usize) -> String {
        self.client.create_stream().stream_name(name).shard_count(shards).send().await.unwrap();
        loop {
            let answer = self.client.describe_stream_summary().stream_name(name).send().await.unwrap();
            let summary = answer.stream_description_summary().unwrap();
            if *summary.stream_status() == StreamStatus::Active {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.put(name, records, bytes).await;
        format!("arn:aws:kinesis:{REGION}:000000000000:stream/{name}")
    }

    /// Puts `records` records of `bytes` bytes.
    pub(crate) async fn put(&self, name: &str, records: usize, bytes: usize) {
        let records: Vec<_> = (0..records)
            .map(|n| {
                let data = format!("{name}-{n:08}-").repeat(bytes / 10 + 1);
                let entry = PutRecordsRequestEntry::builder().partition_key(format!("key-{n}"));
                entry.data(Blob::new(&data[..bytes])).build().unwrap()
            })
            .collect();
        for page in records.chunks(500) {
            let put = self.client.put_records().stream_name(name).set_records(Some(page.to_vec()));
            assert_eq!(put.send().await.unwrap().failed_record_count(), Some(0));
        }
    }
}

/// A function behind a URL that remembers the sequence numbers of what it was called with.
pub(crate) struct Function {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl Function {
    /// Answers every call in the same way.
    pub(crate) async fn answering(status: StatusCode, body: &'static str) -> Self {
        let seen = Arc::<Mutex<BTreeSet<String>>>::default();
        let notes = Arc::clone(&seen);
        let router = axum::Router::new().fallback(move |event: axum::Json<Value>| {
            for record in event["Records"].as_array().unwrap() {
                notes.lock().unwrap().insert(record["eventID"].as_str().unwrap().to_owned());
            }
            async move { (status, body).into_response() }
        });
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    /// Distinct records that it was called with.
    pub(crate) fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// A mapping of `arn` at `endpoint`, without its function; the admin endpoints listen on `admin`.
pub(crate) fn mapping(endpoint: &str, arn: &str, admin: SocketAddr) -> Value {
    json!({
        "EventSourceArn": arn,
        "FunctionName": "orders-worker",
        "StartingPosition": "TRIM_HORIZON",
        "Polling": {"IdleIntervalMilliseconds": 200},
        "Checkpoints": "sqlite:./shardmill.db",
        "Worker": {"LeaseSeconds": 2, "StopSeconds": 10},
        "Admin": {"Listen": admin.to_string()},
        "Aws": {"EndpointUrl": endpoint, "Region": REGION},
    })
}

/// An address without a listener.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// `shardmill` with these arguments, in `folder`, with `file` as its configuration `c.json`.
pub(crate) fn shardmill(folder: &TempDir, arguments: &[&str], file: &Value) -> Command {
    std::fs::write(folder.path().join("c.json"), file.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    command.args(arguments).current_dir(folder.path()).env_clear();
    command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    command.envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")]);
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", folder.path());
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.stdin(Stdio::null());
    command
}

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        until("it ends", || self.0.try_wait().unwrap()).await
    }
}

/// The answer to one GET with these headers, or nothing if there is none.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}
