//! Emulators: how each one starts, when it is ready, how it stops.
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{Guarded, Tie, tail};
use crate::provision::Home;

/// How long an emulator may take to become ready.
const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);
const KINESIS: Service =
    Service { name: "kinesis", target: "Kinesis_20131202", content: "application/x-amz-json-1.1" };
const SQS: Service = Service { name: "sqs", target: "AmazonSQS", content: "application/x-amz-json-1.0" };
const DYNAMODB: Service =
    Service { name: "dynamodb", target: "DynamoDB_20120810", content: "application/x-amz-json-1.0" };

/// An emulator that is installed and can be started.
#[derive(Clone, Debug)]
pub(crate) enum Emulator {
    /// The package folder of kinesis-local.
    KinesisLocal(PathBuf),
    /// The installation of LocalStack.
    Localstack(PathBuf),
    /// The folder of Amazon's jar.
    DynamodbLocal(PathBuf),
}

impl Emulator {
    fn name(&self) -> &'static str {
        match self {
            Self::KinesisLocal(_) => "kinesis-local",
            Self::Localstack(_) => "localstack",
            Self::DynamodbLocal(_) => "dynamodb-local",
        }
    }

    /// The environment variable by which the tests learn its address.
    pub(crate) fn variable(&self) -> &'static str {
        match self {
            Self::KinesisLocal(_) => "SHARDMILL_TEST_KINESIS_LOCAL",
            Self::Localstack(_) => "SHARDMILL_TEST_LOCALSTACK",
            Self::DynamodbLocal(_) => "SHARDMILL_TEST_DYNAMODB_LOCAL",
        }
    }

    /// The command that serves on `port`; what it writes goes into `scratch`.
    fn command(&self, port: u16, scratch: &Path) -> Result<Command> {
        Ok(match self {
            Self::KinesisLocal(folder) => {
                let mut node = Command::new("node");
                node.arg("--require").arg(loopback().join("preload.cjs")).arg("main.js").current_dir(folder);
                node.env("KINESIS_MOCK_PLAIN_PORT", port.to_string());
                node.env("KINESIS_MOCK_TLS_PORT", free_port()?.to_string());
                node.env("SHARD_LIMIT", "500").env("LOG_LEVEL", "WARN");
                node
            }
            Self::DynamodbLocal(folder) => {
                let mut java = Command::new("java");
                java.args([
                    "-Djava.library.path=./DynamoDBLocal_lib",
                    "-jar",
                    "DynamoDBLocal.jar",
                    "-inMemory",
                ]);
                java.args(["-sharedDb", "-disableTelemetry", "-port", &port.to_string()]).current_dir(folder);
                java
            }
            Self::Localstack(folder) => localstack(folder, port, scratch)?,
        })
    }

    /// Waits, within limits, until it answers and has loaded what it loads on first use.
    fn wait_until_ready(&self, port: u16) -> Result<()> {
        let started = Instant::now();
        while let Err(reason) = self.probe(port) {
            if started.elapsed() > PATIENCE {
                return Err(format!("after {PATIENCE:?}: {reason}"));
            }
            thread::sleep(POLL);
        }
        self.warm_up(port)
    }

    /// Whether it answers.
    fn probe(&self, port: u16) -> Result<()> {
        match self {
            Self::KinesisLocal(_) => KINESIS.call(port, "ListStreams", "{}"),
            Self::DynamodbLocal(_) => DYNAMODB.call(port, "ListTables", "{}"),
            Self::Localstack(_) => http(port, "GET /_localstack/health HTTP/1.1", "", ""),
        }
        .map(drop)
    }

    fn warm_up(&self, port: u16) -> Result<()> {
        if !matches!(self, Self::Localstack(_)) {
            return Ok(());
        }
        SQS.call(port, "ListQueues", "{}")?;
        let stream = "{\"StreamName\":\"xtask-warm-up\"}";
        KINESIS.call(port, "CreateStream", "{\"StreamName\":\"xtask-warm-up\",\"ShardCount\":1}")?;
        let started = Instant::now();
        while !KINESIS.call(port, "DescribeStreamSummary", stream)?.contains("\"ACTIVE\"") {
            if started.elapsed() > PATIENCE {
                return Err("a stream does not become ACTIVE".to_owned());
            }
            thread::sleep(POLL);
        }
        KINESIS.call(port, "DeleteStream", stream).map(drop)
    }
}

fn localstack(folder: &Path, port: u16, scratch: &Path) -> Result<Command> {
    // Each run has a file system of its own (it empties the temporary part), except for what it installs and computes
    // once and for all.
    let filesystem = scratch.join("localstack");
    let volume = filesystem.join("var/lib/localstack");
    let link = |name: &str| {
        fs::create_dir_all(folder.join(name))?;
        std::os::unix::fs::symlink(folder.join(name), volume.join(name))
    };
    fs::create_dir_all(&volume)
        .and_then(|()| link("lib"))
        .and_then(|()| link("cache"))
        .map_err(|e| format!("cannot prepare {}: {e}", filesystem.display()))?;

    let address = format!("127.0.0.1:{port}");
    let mut python = Command::new(folder.join("venv/bin/python"));
    python.arg(folder.join("venv/bin/localstack-supervisor")).current_dir(scratch);
    let preload = format!("--require=\"{}\"", loopback().join("preload.cjs").display());
    python.envs([
        ("GATEWAY_LISTEN", address.as_str()),
        ("LOCALSTACK_HOST", &address),
        ("SQS_ENDPOINT_STRATEGY", "path"),
        ("KINESIS_SHARD_LIMIT", "500"),
        ("DISABLE_EVENTS", "1"),
        ("SKIP_SSL_CERT_DOWNLOAD", "1"),
        ("EAGER_SERVICE_LOADING", "0"),
        // Else its Kinesis writes every record that it holds into one file every five seconds, and does little else once
        // there are some thousands.
        ("KINESIS_PERSISTENCE", "0"),
        // Where it believes to be in a container it would ignore the file system below and reload old streams.
        ("OVERRIDE_IN_DOCKER", "0"),
        // Else Python writes its caches next to the scripts of this repository.
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("NODE_OPTIONS", &preload),
    ]);
    python.env("FILESYSTEM_ROOT", &filesystem).env("LOCALSTACK_VOLUME_DIR", &volume);
    python.env("CONFIG_DIR", filesystem.join("config")).env("PYTHONPATH", loopback());
    Ok(python)
}

/// Scripts that keep emulators off the network.
fn loopback() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("loopback")
}

/// Starts LocalStack from `folder` and stops it again.
pub(crate) fn first_use_of_localstack(home: &Home, folder: &Path) -> Result<()> {
    Fleet::start(home, &[Emulator::Localstack(folder.to_path_buf())], "provision").map(drop)
}

/// Emulators that run. Dropping it stops them, unless they were started in the background.
pub(crate) struct Fleet {
    members: Vec<Member>,
}

struct Member {
    emulator: Emulator,
    port: u16,
    log: PathBuf,
    guarded: Guarded,
}

impl Fleet {
    /// Starts emulators that end with this program, and waits until all are ready.
    pub(crate) fn start(home: &Home, emulators: &[Emulator], purpose: &str) -> Result<Self> {
        let runs = home.folder().join("runs");
        discard_old_runs(&runs);
        let scratch = runs.join(format!("{}-{purpose}", std::process::id()));
        Self::start_in(&scratch, emulators, None)
    }

    /// Starts emulators that run until the file `lifeline` is deleted, and waits until all are ready.
    pub(crate) fn start_in_background(
        scratch: &Path,
        emulators: &[Emulator],
        lifeline: &Path,
    ) -> Result<Self> {
        Self::start_in(scratch, emulators, Some(lifeline))
    }

    fn start_in(scratch: &Path, emulators: &[Emulator], lifeline: Option<&Path>) -> Result<Self> {
        let _ = fs::remove_dir_all(scratch);
        fs::create_dir_all(scratch).map_err(|e| format!("cannot create {}: {e}", scratch.display()))?;
        let mut fleet = Self { members: Vec::new() };
        for emulator in emulators {
            let port = free_port()?;
            let log = scratch.join(format!("{}.log", emulator.name()));
            let tie = lifeline.map_or(Tie::Log(&log), |lifeline| Tie::Background(&log, lifeline));
            let guarded = Guarded::spawn(&emulator.command(port, scratch)?, &tie)?;
            fleet.members.push(Member { emulator: emulator.clone(), port, log, guarded });
        }
        fleet.wait_until_ready()?;
        Ok(fleet)
    }

    /// Waits for all at once, and no longer than for the first that fails.
    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        let (report, reports) = mpsc::channel();
        for (index, member) in self.members.iter().enumerate() {
            let (emulator, port, report) = (member.emulator.clone(), member.port, report.clone());
            // The receiver is gone if another emulator has failed before.
            thread::spawn(move || report.send((index, emulator.wait_until_ready(port))).ok());
        }
        let mut waiting = self.members.len();
        while waiting > 0 {
            match reports.recv_timeout(POLL) {
                Ok((index, Ok(()))) => {
                    waiting -= 1;
                    let Member { emulator, port, .. } = &self.members[index];
                    eprintln!(
                        "xtask: {} is ready on port {port} after {:.1?}",
                        emulator.name(),
                        started.elapsed()
                    );
                }
                Ok((index, Err(reason))) => return Err(self.members[index].failure(&reason)),
                Err(_) => {
                    let ended = |member: &mut Member| {
                        let status = member.guarded.ended()?;
                        Some(member.failure(&format!("it ended ({status})")))
                    };
                    self.members.iter_mut().find_map(ended).map_or(Ok(()), Err)?;
                }
            }
        }
        Ok(())
    }

    /// The environment variables by which the tests find the emulators.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let address = |m: &Member| (m.emulator.variable().to_owned(), format!("http://127.0.0.1:{}", m.port));
        self.members.iter().map(address).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // All at once, then each is waited for.
        self.members.iter_mut().for_each(|member| member.guarded.let_go());
    }
}

impl Member {
    fn failure(&self, reason: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let (name, port) = (self.emulator.name(), self.port);
        let end = tail(&log);
        format!("{name} on port {port} is not ready: {reason}\nThe end of {}:\n{end}", self.log.display())
    }
}

/// Deletes what runs left behind whose process is gone.
fn discard_old_runs(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-')).and_then(|(pid, _)| pid.parse().ok());
        if owner.is_some_and(|pid| !crate::process::is_alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A loopback port that is not in use at the moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|e| format!("cannot find a free port on 127.0.0.1: {e}"))
}

/// An AWS service as far as this program has to speak its protocol.
struct Service {
    name: &'static str,
    target: &'static str,
    content: &'static str,
}

impl Service {
    fn call(&self, port: u16, operation: &str, body: &str) -> Result<String> {
        let Self { name, target, content } = self;
        // The emulators want a signature to be there, and do not verify it.
        let headers = format!(
            "X-Amz-Target: {target}.{operation}\r\nContent-Type: {content}\r\nX-Amz-Date: 20260101T000000Z\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{name}/aws4_request, \
             SignedHeaders=host, Signature=0\r\n"
        );
        http(port, "POST / HTTP/1.1", &headers, body).map_err(|e| format!("{operation}: {e}"))
    }
}

/// The body of a successful answer from a server on this machine.
fn http(port: u16, request: &str, headers: &str, body: &str) -> Result<String> {
    let answer = || -> std::io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head = format!("{request}\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n");
        connection.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = answer().map_err(|e| format!("no answer: {e}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer that is not HTTP")?;
    match head.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(body.to_owned()),
        _ => Err(format!("{}: {body}", head.lines().next().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves one prepared answer and returns what was asked.
    fn answering(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut connection = listener.accept().unwrap().0;
            let mut request = [0; 2048];
            let length = connection.read(&mut request).unwrap();
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (port, server)
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port().unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn a_call_names_its_operation_and_returns_the_body() {
        let (port, server) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(KINESIS.call(port, "ListStreams", "{}"), Ok("{}".to_owned()));
        let request = server.join().unwrap();
        assert!(request.contains("X-Amz-Target: Kinesis_20131202.ListStreams\r\n"), "{request}");
    }

    #[test]
    fn a_refusal_carries_the_status_and_the_services_text() {
        let (port, server) = answering("HTTP/1.1 400 Bad Request\r\n\r\n{\"message\":\"no\"}");
        let error = SQS.call(port, "ListQueues", "{}").unwrap_err();
        assert_eq!(error, "ListQueues: HTTP/1.1 400 Bad Request: {\"message\":\"no\"}");
        server.join().unwrap();
    }

    #[test]
    fn runs_of_dead_processes_are_deleted_and_those_of_living_ones_kept() {
        let runs = std::env::temp_dir().join(format!("xtask-runs-{}", std::process::id()));
        let (dead, alive) =
            (runs.join(format!("{}-test", u32::MAX)), runs.join(format!("{}-test", std::process::id())));
        fs::create_dir_all(&dead).unwrap();
        fs::create_dir_all(&alive).unwrap();
        fs::create_dir_all(runs.join("background")).unwrap();
        discard_old_runs(&runs);
        assert!(!dead.exists() && alive.exists() && runs.join("background").exists());
        fs::remove_dir_all(runs).unwrap();
    }
}
