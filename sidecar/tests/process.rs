//! The binary as its operator meets it: exit status, signals, addresses, closed pipes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const MAPPING: &str = "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
                       StartingPosition: TRIM_HORIZON\nFunction: {Stdout: true, Timeout: 5}\n\
                       Checkpoints: \"memory:\"\nAws: {EndpointUrl: \"http://127.0.0.1:1\"}\n";

fn shardmill(folder: &Path, command: &[&str], file: &str) -> Command {
    std::fs::write(folder.join("c.yaml"), file).unwrap();
    let mut binary = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    binary
        .args(command)
        .current_dir(folder)
        .env_clear()
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .env("HOME", folder);
    binary
}

/// Ends the process also when the test fails.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to the line with this message.
    fn line(&mut self, message: &str) -> Value {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "never logged {message:?}: {seen}");
            seen.push_str(&line);
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            if value["message"].as_str().is_some_and(|text| text.starts_with(message)) {
                return value;
            }
        }
    }

    fn admin(&mut self) -> SocketAddr {
        self.line("admin endpoints")["address"].as_str().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_reader_that_has_gone_away_does_not_change_the_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["schema"][..], &["completions", "zsh"], &["check", "-c", "c.yaml"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = shardmill(folder.path(), command, MAPPING);
        let output =
            command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn bash_completes_commands_and_options_with_the_script_that_is_printed() {
    let script = "source <(\"$0\" completions bash); COMP_WORDS=(shardmill \"$@\"); COMP_CWORD=$#
                  _shardmill shardmill \"${@: -1}\"; echo \"${COMPREPLY[@]}\"";
    let completed = |typed: &[&str]| {
        let mut bash = Command::new("bash");
        let output = bash.args(["-c", script, env!("CARGO_BIN_EXE_shardmill")]).args(typed).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(completed(&["ch"]), "check\n");
    assert_eq!(completed(&["check", "--on"]), "--online\n");
    assert_eq!(completed(&["completions", "fi"]), "fish\n");
}

#[test]
fn sigterm_before_the_stream_has_answered_is_a_clean_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Running::start(shardmill(folder.path(), &["run", "-c", "c.yaml"], MAPPING));
    let admin = run.admin();
    run.line("cannot list the stream's shards");
    let ready = get(admin, "/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("the stream has not answered yet"),
        "{ready}"
    );
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200"));
    let metrics = get(admin, "/metrics");
    for name in ["shardmill_throttles_total{", "shardmill_polled_events_total{", "shardmill_leases_held{"] {
        assert!(metrics.contains(name), "{name} {metrics}");
    }
    run.signal(Signal::TERM);
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_disabled_mapping_is_idle_ready_and_shown_as_disabled_and_an_address_that_is_taken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = format!("{MAPPING}Enabled: false\nState: Disabled\nAdmin: {{Listen: \"{free}\"}}\n");
    let mut run = Running::start(shardmill(folder.path(), &["run", "-c", "c.yaml"], &file));
    assert_eq!(run.admin(), free);
    run.line("loaded and idle");
    let ready = get(free, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let status = get(free, "/v1/status");
    assert!(status.contains(r#""state":"Disabled""#) && status.contains(r#""ready":true"#), "{status}");
    let second = shardmill(folder.path(), &["run", "-c", "c.yaml"], &file).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let log = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(log.contains(&format!("Admin.Listen: cannot listen on {free}")), "{log}");
    run.signal(Signal::INT);
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_mapping_that_cannot_be_put_together_ends_the_process_before_another_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let mapping = |name: &str, checkpoints: &str| {
        format!(
            "  - EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\n    FunctionName: {name}\n    \
             StartingPosition: LATEST\n    Function: {{Stdout: true}}\n    Checkpoints: \"{checkpoints}\"\n"
        )
    };
    let file = format!(
        "Aws: {{EndpointUrl: \"http://127.0.0.1:1\"}}\nMappings:\n{}{}",
        mapping("good", "memory:"),
        mapping("bad", "sqlite:missing/folder/a.db")
    );
    let output = shardmill(folder.path(), &["run", "-c", "c.yaml"], &file).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("its directory cannot be used"), "{log}");
    assert!(!log.contains("\"starting\""), "nothing has started: {log}");
}

#[test]
fn a_function_that_does_not_answer_is_logged_and_turns_readyz_red() {
    let folder = tempfile::tempdir().unwrap();
    let file = MAPPING.replace("{Stdout: true, Timeout: 5}", "{Url: \"http://127.0.0.1:1/\", Timeout: 5}");
    let mut run = Running::start(shardmill(folder.path(), &["run", "-c", "c.yaml"], &file));
    let admin = run.admin();
    let line = run.line("the function is not reached");
    assert_eq!(line["level"], "WARN");
    assert!(line["mapping"].as_str().is_some_and(|name| !name.is_empty()), "{line}");
    assert!(line["error"].as_str().unwrap().contains("cannot connect to http://127.0.0.1:1/"), "{line}");
    let ready = get(admin, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the function: cannot connect"), "{ready}");
    run.signal(Signal::TERM);
    assert_eq!(run.child.wait().unwrap().code(), Some(0));
}
