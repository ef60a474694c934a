//! `shardmill-fake` in a process of its own, and commands for it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::measure::Fallible;
use crate::sidecar::{Running, sibling};

/// The fake at work.
pub(crate) struct Fake {
    _process: Running,
    pub(crate) url: String,
}

impl Fake {
    pub(crate) fn start() -> Fallible<Self> {
        let mut command = Command::new(sibling("shardmill-fake")?);
        let mut process = command.args(["--keep-calls", "10000000"]).stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().ok_or("the fake has no output")?;
        let process = Running(process);
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url)?;
        Ok(Self { _process: process, url: url.trim().to_owned() })
    }

    /// Carries out a command of docs/testing.md.
    pub(crate) fn command(&self, path: &str, body: &Value) -> Fallible<Value> {
        let address = self.url.strip_prefix("http://").ok_or("no address")?;
        let mut stream = TcpStream::connect(address)?;
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "POST /control/{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if head.split(' ').nth(1) != Some("200") {
            return Err(format!("{path}: {body}").into());
        }
        Ok(serde_json::from_str(body)?)
    }

    /// How many calls of an operation came so far.
    pub(crate) fn calls(&self, operation: &str) -> Fallible<u64> {
        let found = self.command("kinesis/calls", &json!({"operation": operation, "last": 0}))?;
        Ok(found["count"].as_u64().ok_or("no count")?)
    }
}
