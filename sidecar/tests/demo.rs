//! `shardmill demo` as a user runs it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Where a demo ran: an empty working directory, and where the system keeps temporary files.
struct Place {
    work: TempDir,
    temporary: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { work: TempDir::new().unwrap(), temporary: TempDir::new().unwrap() }
    }

    fn demo(&self, environment: &[(&str, &str)]) -> Output {
        self.demo_with(&[], environment)
    }

    fn demo_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
        command
            .arg("demo")
            .args(arguments)
            .current_dir(self.work.path())
            .env("TMPDIR", self.temporary.path());
        command.env_remove("RUST_LOG").envs(environment.iter().copied()).output().unwrap()
    }

    /// The only folder that the demo left.
    fn folder(&self) -> PathBuf {
        let left = entries(self.temporary.path());
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].starts_with("shardmill-demo-"), "{left:?}");
        self.temporary.path().join(&left[0])
    }

    /// What a good demo said, without what differs from run to run.
    fn story(&self, output: &Output) -> String {
        let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{:?}\n{out}\n{log}", output.status);
        assert_eq!(log, "", "a demo that goes well logs nothing");
        masked(&out.replace(self.folder().to_str().unwrap(), "[folder]"))
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// `text` without ports, sequence numbers, request ids and times.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || "-:.".contains(c) {
            word.push(c);
        } else {
            out += &masked_word(&std::mem::take(&mut word));
            out.push(c);
        }
    }
    out.trim_end().to_owned()
}

fn masked_word(word: &str) -> String {
    let is_time =
        matches!(word.len(), 20 | 24) && word.starts_with("20") && word.ends_with('Z') && word.contains('T');
    let is_id = word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let is_label = word.len() == 23 && word.starts_with("20") && word.contains('T');
    let is_number = word.len() > 20 && word.bytes().all(|b| b.is_ascii_digit());
    match word {
        _ if is_time => "[time]".to_owned(),
        _ if is_id => "[request id]".to_owned(),
        _ if is_label => "[label]".to_owned(),
        _ if word.len() == 37 && word.starts_with("shardId-") => "[shard]".to_owned(),
        _ if word.starts_with("shardmill-demo-") => "[table]".to_owned(),
        _ if is_number => "[sequence number]".to_owned(),
        _ if word.starts_with("127.0.0.1:") && word != "127.0.0.1:8080" => "127.0.0.1:[port].".to_owned(),
        _ => word.to_owned(),
    }
}

#[test]
fn the_demo_tells_the_same_story_every_time_and_leaves_nothing_but_the_folder_that_it_names() {
    let place = Place::new();
    let story = place.story(&place.demo(&[]));
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!("demo", story));
    for line in story.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert_eq!(entries(place.work.path()), [""; 0], "nothing in the working directory");
    let left = entries(&place.folder());
    for file in ["dead-letters.jsonl", "handled.jsonl", "shardmill.db", "shardmill.yaml"] {
        assert!(left.iter().any(|name| name == file), "{file} of {left:?}");
    }

    // Again, elsewhere and at the same time as a third one.
    let (other, third) = (Place::new(), Place::new());
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| other.story(&other.demo(&[])));
        let b = scope.spawn(|| third.story(&third.demo(&[])));
        (a.join().unwrap(), b.join().unwrap())
    });
    assert_eq!((&a, &b), (&story, &story));
    assert_eq!(entries(other.work.path()), [""; 0]);
}

#[test]
fn the_demo_reads_no_settings_of_aws_and_no_proxy_from_the_environment() {
    let nowhere = "http://127.0.0.1:1";
    let place = Place::new();
    let output = place.demo(&[
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_PROFILE", "there-is-none"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_REGION", "mars-north-1"),
        ("AWS_ENDPOINT_URL", nowhere),
        ("AWS_ENDPOINT_URL_KINESIS", nowhere),
        ("AWS_MAX_ATTEMPTS", "none"),
        ("HTTP_PROXY", nowhere),
        ("http_proxy", nowhere),
        ("ALL_PROXY", nowhere),
    ]);
    let usual = Place::new();
    assert_eq!(place.story(&output), usual.story(&usual.demo(&[])));
}

#[test]
fn a_demo_without_its_dynamodb_local_says_where_it_looked() {
    let place = Place::new();
    for (address, wrong) in [
        ("http://127.0.0.1:1", "create the table: CreateTable at 127.0.0.1:1: "),
        ("127.0.0.1:8000", "127.0.0.1:8000 is no address of DynamoDB Local; write http://HOST:PORT"),
    ] {
        let output = place.demo_with(&["--dynamodb", address], &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("error: the demo could not ") && text.contains(wrong), "{text}");
    }
}

/// The tour (docs/tour.md) with a DynamoDB stream.
mod dynamodb_local {
    use super::*;

    #[test]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    fn the_demo_with_a_table_tells_the_same_story_every_time_and_leaves_no_table() {
        let address = std::env::var("SHARDMILL_TEST_DYNAMODB_LOCAL").unwrap();
        let place = Place::new();
        let output = place.demo_with(&["--dynamodb", &address], &[]);
        let story = place.story(&output);
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!("demo-dynamodb", story));
        for line in story.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        let other = Place::new();
        assert_eq!(other.story(&other.demo_with(&["--dynamodb", &address], &[])), story);
        let name = place.folder().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!tables(&address).contains(&name), "{name}");
    }

    /// ListTables, as text.
    fn tables(address: &str) -> String {
        use std::io::{Read as _, Write as _};
        let address = address.strip_prefix("http://").unwrap();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        write!(
            socket,
            "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 2\r\n\
             content-type: application/x-amz-json-1.0\r\nx-amz-target: DynamoDB_20120810.ListTables\r\n\
             x-amz-date: 20260101T000000Z\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=demo/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("TableNames"), "{answer}");
        answer
    }
}

#[test]
fn a_demo_without_a_place_for_its_folder_says_what_to_do() {
    let work = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    let missing = work.path().join("missing");
    let output = command.arg("demo").env("TMPDIR", &missing).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: the demo could not make its folder: "), "{text}");
    assert!(text.contains("set TMPDIR"), "{text}");
}

#[test]
fn without_a_command_the_help_is_shown_and_the_demo_comes_first() {
    let output = Command::new(env!("CARGO_BIN_EXE_shardmill")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let (_, commands) = text.split_once("Commands:\n").unwrap_or_else(|| panic!("{text}"));
    assert!(commands.trim_start().starts_with("demo "), "{text}");
}
