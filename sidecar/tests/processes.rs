//! The binary and the processes of a function: what ends with what, by real signals.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![cfg(target_os = "linux")]

use std::fs::{File, read_to_string};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A runtime that hangs in its first invocation with a child in its group and one apart from it; or, told so, leaves
/// orphans behind and answers.
const FUNCTION: &str = r#"
import http.client, os, subprocess, sys, time
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"

def call(method, path, body=None):
    connection.request(method, base + path, body)
    reply = connection.getresponse()
    reply.read()
    return reply.status, reply.headers

while True:
    status, headers = call("GET", "next")
    if status != 200:
        sys.exit(3)
    if sys.argv[1] == "orphans":
        # The child ends at once, its own child lives until a file appears.
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while not os.path.exists("enough"):
                    time.sleep(0.02)
            os._exit(0)
        os.wait()
        call("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/response", "{}")
        continue
    if sys.argv[1] == "log":
        # As the runtime clients frame it.
        text = ("two\nlines of " + os.environ["LANG"]).encode()
        frame = 0xA55A0003.to_bytes(4, "big") + len(text).to_bytes(4, "big") + bytes(8) + text
        os.write(int(os.environ["_LAMBDA_TELEMETRY_LOG_FD"]), frame)
        print("over\rwritten", flush=True)
        call("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/response", "{}")
        continue
    if sys.argv[1] == "launched":
        print("descriptor:", os.environ.get("_LAMBDA_TELEMETRY_LOG_FD"), flush=True)
        call("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/response", "{}")
        continue
    near = subprocess.Popen(["sleep", "1000"])
    apart = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open("new", "w") as file:
        file.write("%d %d %d" % (os.getpid(), near.pid, apart.pid))
    os.rename("new", "run-%d" % os.getpid())
    time.sleep(1000)
"#;

struct World {
    folder: tempfile::TempDir,
    url: String,
    client: Client,
}

/// A sidecar that is killed when the test ends, with what it started.
struct Sidecar {
    child: Child,
    log: PathBuf,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed test leaves: only processes that it started itself are named in these files.
        for pid in self.runs().into_iter().flatten() {
            if is_running(pid) {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

impl World {
    /// A stream of one shard and a function. `None` if there is no Python here; with `CI=true` that is a failure.
    async fn start(records: usize) -> Option<Self> {
        let found = Command::new("python3").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python3 is needed");
            println!("skipped: python3 is not installed");
            return None;
        }
        let options = ferrokinesis::store::StoreOptions { create_stream_ms: 0, ..Default::default() };
        let (app, _) = ferrokinesis::create_app(options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let config = aws_sdk_kinesis::config::Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&url)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        let client = Client::from_conf(config);
        client.create_stream().stream_name("orders").shard_count(1).send().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["function.py", "awslambdaric.py"] {
            std::fs::write(folder.path().join(name), FUNCTION).unwrap();
        }
        let world = Self { folder, url, client };
        world.put(records).await;
        Some(world)
    }

    async fn put(&self, records: usize) {
        let mut left = records;
        while left > 0 {
            let put = self.client.put_record().stream_name("orders").partition_key("k");
            // The stream may still be on its way.
            if put.data(Blob::new("data")).send().await.is_ok() {
                left -= 1;
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, mode: &str, stop_seconds: u32) -> Command {
        // Only a runtime client finds a descriptor for its log messages.
        let script = if mode == "log" { "-m, awslambdaric" } else { "function.py" };
        let config = format!(
            "EventSourceArn: arn:aws:kinesis:us-east-1:000000000000:stream/orders\nFunctionName: f\n\
             StartingPosition: TRIM_HORIZON\nBatchSize: 1\nMaximumRetryAttempts: 0\n\
             DestinationConfig: {{OnFailure: {{Destination: \"file:./dead.jsonl\"}}}}\n\
             Function: {{Command: [python3, {script}, {mode}], Timeout: 600}}\n\
             Checkpoints: \"sqlite:./s.db\"\nAdmin: \"off\"\nWorker: {{StopSeconds: {stop_seconds}}}\n\
             Aws: {{EndpointUrl: \"{}\"}}\n",
            self.url
        );
        std::fs::write(self.path("c.yaml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
        command
            .args(["run", "-c", "c.yaml"])
            .current_dir(self.folder.path())
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .env_remove("LANG")
            .env_remove("LC_ALL")
            .env_remove("LC_CTYPE")
            .stdout(Stdio::null());
        command
    }

    fn sidecar(&self, mode: &str, stop_seconds: u32) -> Sidecar {
        let log = self.path("log");
        let file = File::create(&log).unwrap();
        Sidecar { child: self.command(mode, stop_seconds).stderr(file).spawn().unwrap(), log }
    }

    /// The processes of each invocation that hangs: the function's, its child, and the one apart.
    fn runs(&self) -> Vec<[i32; 3]> {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let runs = files.filter(|file| file.file_name().to_string_lossy().starts_with("run-"));
        runs.map(|file| {
            let text = read_to_string(file.path()).unwrap();
            let pids: Vec<i32> = text.split(' ').map(|pid| pid.parse().unwrap()).collect();
            pids.try_into().unwrap()
        })
        .collect()
    }

    async fn run(&self, count: usize) -> Vec<[i32; 3]> {
        until("the function runs", || self.runs().len() >= count).await;
        self.runs()
    }

    fn assert_nothing_discarded(&self) {
        assert_eq!(read_to_string(self.path("dead.jsonl")).unwrap_or_default(), "", "no attempt is spent");
    }
}

impl Sidecar {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    async fn ended(&mut self) -> Option<i32> {
        until("the sidecar has ended", || self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap().code()
    }

    /// The last line of the log with this message.
    fn line(&self, message: &str) -> Value {
        let log = read_to_string(&self.log).unwrap();
        let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut lines = lines.filter(|line| line["message"] == message);
        lines.next().unwrap_or_else(|| panic!("never logged {message:?}: {log}"))
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within two minutes: {what}");
}

/// State, parent: a zombie is a process, too.
fn stat(pid: i32) -> Option<(char, i32)> {
    let text = read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_running(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

async fn all_dead(pids: &[i32]) {
    for &pid in pids {
        until(&format!("{pid} of {pids:?} is dead"), || !is_running(pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_77_kill_9_ends_the_function_and_a_successor_ends_the_rest_before_it_invokes() {
    let Some(world) = World::start(1).await else { return };
    let mut first = world.sidecar("hang", 25);
    let pids = world.run(1).await[0];
    first.signal(Signal::KILL);
    first.child.wait().unwrap();
    all_dead(&pids[..1]).await;
    let mut second = world.sidecar("hang", 1);
    let runs = world.run(2).await;
    for pid in pids {
        assert!(!is_running(pid), "the successor has invoked: {pid} of {pids:?}");
    }
    second.signal(Signal::TERM);
    assert_eq!(second.ended().await, Some(0));
    all_dead(runs.as_flattened()).await;
    let left = world.path("s.db-functions");
    assert!(!left.exists(), "nothing is recorded any more: {left:?}");
    world.assert_nothing_discarded();
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_77_a_second_signal_ends_the_functions_processes_too() {
    let Some(world) = World::start(1).await else { return };
    let mut sidecar = world.sidecar("hang", 600);
    let pids = world.run(1).await[0];
    // One that counts as the second comes after a second; those before it are the first.
    until("the sidecar has ended", || {
        let _ = kill_process(sidecar.pid(), Signal::TERM);
        sidecar.child.try_wait().unwrap().is_some()
    })
    .await;
    assert_eq!(sidecar.ended().await, Some(1));
    all_dead(&pids).await;
    assert_eq!(sidecar.line("ended at once: records in flight are redelivered")["signal"], "SIGTERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_77_a_hang_up_stops_as_sigterm_does() {
    let Some(world) = World::start(1).await else { return };
    let mut sidecar = world.sidecar("hang", 1);
    let pids = world.run(1).await[0];
    sidecar.signal(Signal::HUP);
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(sidecar.line("stopped")["cut_invocations"], 1);
    all_dead(&pids).await;
    world.assert_nothing_discarded();
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_100_signals_of_one_cause_are_one_stop() {
    let Some(world) = World::start(1).await else { return };
    let mut sidecar = world.sidecar("hang", 1);
    world.run(1).await;
    for signal in [Signal::TERM, Signal::TERM, Signal::INT, Signal::HUP] {
        sidecar.signal(signal);
    }
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(sidecar.line("stopped")["cut_invocations"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_100_a_supervisor_that_signals_every_process_cuts_the_invocation() {
    let Some(world) = World::start(1).await else { return };
    // Longer than the test waits: the invocation must not be waited for.
    let mut sidecar = world.sidecar("hang", 3600);
    let pids = world.run(1).await[0];
    // The function first, as systemd may do it.
    kill_process(Pid::from_raw(pids[0]).unwrap(), Signal::TERM).unwrap();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(sidecar.line("stopped")["cut_invocations"], 1);
    all_dead(&pids).await;
    world.assert_nothing_discarded();
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_84_what_a_function_leaves_behind_is_adopted_and_leaves_no_zombie() {
    let Some(world) = World::start(5).await else { return };
    let mut sidecar = world.sidecar("orphans", 1);
    let own = sidecar.pid().as_raw_nonzero().get();
    let children = || {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| stat(pid).is_some_and(|(_, parent)| parent == own)).count()
    };
    until("the function and five orphans", || children() == 6).await;
    File::create(world.path("enough")).unwrap();
    until("the function alone, zombies counted", || children() == 1).await;
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_74_a_log_that_nobody_reads_does_not_keep_signals_from_ending_the_sidecar() {
    let Some(world) = World::start(1).await else { return };
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    let child = world.command("hang", 1).stderr(writer).spawn().unwrap();
    let mut sidecar = Sidecar { child, log: world.path("log") };
    let pids = world.run(1).await[0];
    // It blocks once the pipe is full, until the reader is dropped.
    std::thread::spawn(move || filler.write_all(&[b'\n'; 1 << 20]));
    until("the pipe is full", || rustix::io::ioctl_fionread(&reader).unwrap() >= 60_000).await;
    until("the sidecar has ended", || {
        let _ = kill_process(sidecar.pid(), Signal::TERM);
        sidecar.child.try_wait().unwrap().is_some()
    })
    .await;
    assert!(sidecar.ended().await.is_some(), "by itself");
    all_dead(&pids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_105_a_runtime_clients_log_messages_arrive_whole_and_carriage_returns_split_lines() {
    let Some(world) = World::start(1).await else { return };
    let mut sidecar = world.sidecar("log", 1);
    let log = || read_to_string(&sidecar.log).unwrap();
    until("all is logged", || log().contains("written") && log().contains("lines of")).await;
    let message = sidecar.line("two\nlines of C.UTF-8");
    assert_eq!((&message["stream"], &message["target"]), (&"log".into(), &"shardmill::function".into()));
    assert_eq!(sidecar.line("over")["stream"], "stdout");
    assert_eq!(sidecar.line("written")["stream"], "stdout");
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_107_what_a_launcher_starts_is_told_of_no_descriptor_that_it_lacks() {
    let Some(world) = World::start(1).await else { return };
    let mut sidecar = world.sidecar("launched", 1);
    until("it is logged", || read_to_string(&sidecar.log).unwrap().contains("descriptor: ")).await;
    assert_eq!(sidecar.line("descriptor: None")["stream"], "stdout");
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, Some(0));
    world.assert_nothing_discarded();
}
