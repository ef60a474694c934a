//! File descriptors: many shards with few of them, and what the process says about its limit.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shardmill_testkit::Fakes;
use shardmill_testkit::kinesis::{Fault, Operation};

/// The binary under limits of its own, and its log so far.
struct Limited {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Limited {
    fn start(folder: &Path, ulimit: &str, url: &str) -> Self {
        let file = format!(
            "EventSourceArn: arn:aws:kinesis:us-east-1:000000000000:stream/orders\nFunctionName: f\n\
             StartingPosition: TRIM_HORIZON\nFunction: {{Stdout: true, Timeout: 5}}\n\
             Checkpoints: \"sqlite:s.db\"\nAws: {{EndpointUrl: \"{url}\"}}\nAdmin: {{Listen: \"127.0.0.1:0\"}}\n"
        );
        std::fs::write(folder.join("c.yaml"), file).unwrap();
        let run = format!("{ulimit} && exec \"$0\" run -c c.yaml");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &run, env!("CARGO_BIN_EXE_shardmill")])
            .current_dir(folder)
            .env_clear()
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .env("HOME", folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { child, log }
    }

    /// The first line whose message begins so, if it was logged.
    fn line(&self, message: &str) -> Option<Value> {
        let log = self.log.lock().unwrap();
        log.iter()
            .find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
            .cloned()
    }

    fn admin(&self) -> SocketAddr {
        until("the admin endpoints listen", || {
            self.line("admin endpoints").map(|line| line["address"].as_str().unwrap().parse().unwrap())
        })
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{:?}", self.log.lock().unwrap().last());
    }
}

fn until<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(found) = reached() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never reached: {what}");
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The sum of a metric's values over its labels.
fn metric(address: SocketAddr, name: &str) -> f64 {
    let metrics = get(address, "/metrics");
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_79_fifteen_hundred_shards_at_1024_descriptors_lose_no_lease() {
    const SHARDS: u32 = 1_500;
    let (fakes, folder) = (Fakes::new(), tempfile::tempdir().unwrap());
    fakes.kinesis().create_stream("orders", SHARDS).unwrap();
    let slow = Fault::Latency(Duration::from_millis(300));
    fakes.kinesis().faults().on(Operation::GetShardIterator).always().inject(slow);
    let server = fakes.serve(0).await.unwrap();
    let url = server.url();
    tokio::task::spawn_blocking(move || {
        let run = Limited::start(folder.path(), "ulimit -Sn 1024 && ulimit -Hn 1024", &url);
        let admin = run.admin();
        until("every shard is read", || {
            assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200"));
            let calls = fakes.kinesis().calls();
            let reads = calls.of(Operation::GetRecords);
            let read: BTreeSet<&str> = reads.iter().filter_map(|call| call.shard.as_deref()).collect();
            (read.len() == SHARDS as usize).then_some(())
        });
        let calls = fakes.kinesis().calls();
        let opened = calls.of(Operation::GetShardIterator);
        assert!(
            opened.len() >= SHARDS as usize && opened.max_in_flight() <= 256,
            "{}",
            opened.max_in_flight()
        );
        until("all leases are held", || (metric(admin, "shardmill_leases_held") == 1_500.0).then_some(()));
        assert!(metric(admin, "shardmill_leases_lost_total") == 0.0);
        assert!(run.line("lost the lease").is_none());
        run.stop();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_79_the_soft_limit_is_raised_and_one_that_is_too_low_is_said_with_what_is_needed() {
    let (fakes, folder) = (Fakes::new(), tempfile::tempdir().unwrap());
    fakes.kinesis().create_stream("orders", 300).unwrap();
    let slow = Fault::Latency(Duration::from_millis(300));
    fakes.kinesis().faults().on(Operation::GetShardIterator).always().inject(slow);
    let server = fakes.serve(0).await.unwrap();
    let url = server.url();
    tokio::task::spawn_blocking(move || {
        let run = Limited::start(folder.path(), "ulimit -Sn 200 && ulimit -Hn 256", &url);
        let admin = run.admin();
        let raised = run.line("raised the limit of open files").unwrap();
        assert_eq!((&raised["from"], &raised["to"]), (&200.into(), &256.into()), "{raised}");
        let low = run.line("Worker.MaximumConcurrentReads is 256").unwrap();
        assert_eq!((&low["level"], &low["needed"]), (&"WARN".into(), &624.into()), "{low}");
        until("every shard is read", || {
            let calls = fakes.kinesis().calls();
            let reads = calls.of(Operation::GetRecords);
            let read: BTreeSet<&str> = reads.iter().filter_map(|call| call.shard.as_deref()).collect();
            (read.len() == 300).then_some(())
        });
        let opened = fakes.kinesis().calls().of(Operation::GetShardIterator);
        assert!((37..=72).contains(&opened.max_in_flight()), "{}", opened.max_in_flight());
        assert!(metric(admin, "shardmill_leases_lost_total") == 0.0);
        run.stop();
    })
    .await
    .unwrap();
}
