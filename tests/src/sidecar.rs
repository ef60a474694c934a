//! The program under test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{Config, Function, Store, until};

/// A sidecar that runs. Dropping it kills its process group; if the test fails, what it logged is printed.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// What it printed on standard output.
    output: Arc<Mutex<Vec<String>>>,
    admin: String,
    store: Store,
    /// Keeps the folder.
    _config: Config,
}

/// An answer of the admin endpoints.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Sidecar {
    /// Starts `shardmill run` with this configuration and waits until its admin endpoints listen.
    pub async fn start(config: &Config) -> Self {
        let mut sidecar = Self::spawn(config);
        sidecar.admin = until("the admin endpoints listen", async || {
            if let Some(status) = sidecar.child.try_wait().unwrap() {
                panic!("the sidecar ended at its start: {status}");
            }
            sidecar.logged("admin endpoints")?["address"].as_str().map(str::to_owned)
        })
        .await;
        sidecar
    }

    /// Starts a worker that leases and the function's invocations know by the same name.
    pub async fn worker(config: &Config, function: &Function, name: &str) -> Self {
        Self::start(&config.clone().url(function.url(name)).set("Worker.Id", name)).await
    }

    /// Starts `shardmill run` and waits for nothing.
    #[must_use]
    pub fn spawn(config: &Config) -> Self {
        let mut command = Command::new(program());
        command.arg("run").arg("-c").arg(config.write()).current_dir(config.folder()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_none_or(|name| name.starts_with("AWS_") || name.starts_with("SHARDMILL_")) {
                command.env_remove(name);
            }
        }
        command.envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
        command.envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")]);
        command.env("AWS_EC2_METADATA_DISABLED", "true").env_remove("RUST_LOG");
        command.envs(config.variables().iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().unwrap();
        let log = collect(child.stderr.take().unwrap());
        let output = collect(child.stdout.take().unwrap());
        let store = Store::new(config.store());
        Self { child, log, output, admin: String::new(), store, _config: config.clone() }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it and its group, and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.signal_group(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends the process a signal: `STOP`, `CONT`.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Stops it at once, and waits until the kernel has done so.
    pub async fn pause(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid());
        until("the process is stopped", async || {
            let text = std::fs::read_to_string(&stat).unwrap();
            text.rsplit_once(") ")?.1.starts_with('T').then_some(())
        })
        .await;
    }

    /// Lets it continue after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the sidecar ends", async || self.child.try_wait().unwrap()).await
    }

    /// Whether it has ended, and how.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The lines that it logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The lines that it printed on standard output so far.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.output.lock().unwrap().clone()
    }

    /// The first log line whose text contains `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> Option<Value> {
        let log = self.log.lock().unwrap();
        log.iter().find(|line| line.contains(text)).and_then(|line| serde_json::from_str(line).ok())
    }

    /// The checkpoint store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Asks an admin endpoint; `None` if it does not answer within ten seconds.
    pub async fn get(&self, path: &str) -> Option<Reply> {
        let asked = tokio::time::timeout(Duration::from_secs(10), get(&self.admin, path)).await;
        asked.ok().and_then(Result::ok)
    }

    /// `/v1/status`.
    pub async fn status(&self) -> Value {
        let reply = self.get("/v1/status").await.expect("/v1/status answers");
        serde_json::from_str(&reply.body).unwrap()
    }

    /// The only mapping's `/v1/status`: its shards by name.
    pub async fn shards(&self) -> BTreeMap<String, Value> {
        let status = self.status().await;
        let shards = status["mappings"][0]["shards"].as_array().cloned().unwrap_or_default();
        shards.into_iter().map(|shard| (shard["shardId"].as_str().unwrap().to_owned(), shard)).collect()
    }

    /// Whether `/readyz` is green.
    pub async fn ready(&self) -> bool {
        self.get("/readyz").await.is_some_and(|reply| reply.status == 200)
    }

    /// The sum of a metric over its labels; `None` if there is no such line.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        self.metric_with(name, "").await
    }

    /// The sum of a metric's lines that contain `label`, for example `shard="shardId-000000000000"`.
    pub async fn metric_with(&self, name: &str, label: &str) -> Option<f64> {
        let text = self.get("/metrics").await.expect("/metrics answers").body;
        let value = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            line.contains(label).then_some(rest.rsplit_once(' ')?.1.parse::<f64>().ok()?)
        };
        text.lines().filter_map(value).reduce(|a, b| a + b)
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal_group(&self, signal: Signal) {
        // A group that is gone needs no signal.
        let _ = kill_process_group(self.id(), signal);
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.signal_group(Signal::KILL);
        let ended = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sidecar {} ({ended:?}) ---", self.child.id());
            for line in self.log() {
                eprintln!("{line}");
            }
        }
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let sink = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}

/// The binary: `SHARDMILL_TEST_SIDECAR`, or the one that was built next to the test.
fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("SHARDMILL_TEST_SIDECAR") {
        return given.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile =
        test.ancestors().find(|folder| folder.file_name() != Some(OsStr::new("deps")) && folder.is_dir());
    let program = profile.unwrap().join("shardmill");
    assert!(
        program.is_file(),
        "{} is not there: run `cargo build -p shardmill-sidecar`, or all tests with `cargo test --workspace`",
        program.display()
    );
    program
}

/// One GET of HTTP/1.1 on a connection of its own.
async fn get(address: &str, path: &str) -> std::io::Result<Reply> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Reply { status, body: body.to_owned() })
    });
    parsed.ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {answer:?}")))
}
