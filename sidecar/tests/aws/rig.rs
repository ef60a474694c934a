//! The binary at work on a stream, with the environment of a test's choice.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Reaching it means that the condition is never met, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until it is reached.
pub(crate) async fn until(what: &str, reached: impl Fn() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `shardmill run` on the stream `orders`, whose events go to its standard output.
pub(crate) struct Sidecar {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    log: Arc<Mutex<Vec<Value>>>,
    _folder: TempDir,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in self.log.lock().unwrap().iter() {
                println!("{line}");
            }
        }
    }
}

impl Sidecar {
    /// `settings` are further lines of the file; the environment is this one alone, but for `HOME`.
    pub(crate) fn start(folder: TempDir, settings: &str, environment: &[(&str, &str)]) -> Self {
        let file = format!(
            "EventSourceArn: arn:aws:kinesis:us-east-1:000000000000:stream/orders\nFunctionName: f\n\
             StartingPosition: TRIM_HORIZON\nFunction: {{Stdout: true}}\n{settings}"
        );
        std::fs::write(folder.path().join("c.yaml"), file).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_shardmill"))
            .args(["run", "-c", "c.yaml"])
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (events, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, events, log, _folder: folder }
    }

    /// How many records were delivered.
    pub(crate) fn delivered(&self) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().map(|event| event["Records"].as_array().map_or(0, Vec::len)).sum()
    }

    /// Whether a line was logged whose message begins so.
    pub(crate) fn logged(&self, message: &str) -> bool {
        let log = self.log.lock().unwrap();
        log.iter().any(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
    }

    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<Value>>> {
    let kept = Arc::<Mutex<Vec<Value>>>::default();
    let all = Arc::clone(&kept);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            all.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
        }
    });
    kept
}
