//! Standard output as a function.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Kinesis, Running, free_address, mapping, shardmill};

/// One mapping of each stream, all with standard output as their function.
fn mappings(endpoint: &str, arns: &[String]) -> Value {
    let mut file = mapping(endpoint, "", free_address());
    let mut one = json!({});
    for key in ["EventSourceArn", "FunctionName", "StartingPosition"] {
        one[key] = file.as_object_mut().unwrap().remove(key).unwrap();
    }
    one["Function"] = json!({"Stdout": true, "Timeout": 10});
    one["BatchSize"] = json!(1);
    let mappings = arns.iter().map(|arn| {
        let mut one = one.clone();
        one["EventSourceArn"] = json!(arn);
        one
    });
    file["Mappings"] = mappings.collect();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_73_two_mappings_on_one_stdout_never_write_into_each_others_lines() {
    let kinesis = Kinesis::start().await;
    let mut arns = Vec::new();
    for name in ["left", "right"] {
        arns.push(kinesis.stream(name, 4, 1_000, 3_000).await);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = shardmill(&folder, &["run", "-c", "c.json"], &mappings(&kinesis.url, &arns));
    let mut sidecar = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let output = BufReader::new(sidecar.0.stdout.take().unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        for line in output.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            for record in event["Records"].as_array().unwrap() {
                let (arn, id) = (&record["eventSourceARN"], &record["eventID"]);
                seen.insert((arn.as_str().unwrap().to_owned(), id.as_str().unwrap().to_owned()));
            }
            if seen.len() == 2_000 {
                break;
            }
        }
        seen.len()
    });
    assert_eq!(reading.await.unwrap(), 2_000, "every line is an event");
    sidecar.signal(Signal::TERM);
    sidecar.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_73_a_reader_of_stdout_that_ends_ends_the_run_with_one_and_nothing_is_lost() {
    let kinesis = Kinesis::start().await;
    let arn = kinesis.stream("head", 1, 50, 3_000).await;
    let (folder, file) = (tempfile::tempdir().unwrap(), mappings(&kinesis.url, &[arn]));
    let mut command = shardmill(&folder, &["run", "-c", "c.json"], &file);
    let mut sidecar = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = sidecar.0.stderr.take().unwrap();
    // As `head -1` does.
    let mut head = BufReader::with_capacity(16, sidecar.0.stdout.take().unwrap());
    let mut first = String::new();
    head.read_line(&mut first).unwrap();
    drop(head);
    let status = sidecar.ended().await;
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    let told = text.lines().filter(|line| line.starts_with("error: stdout is closed: ")).count();
    assert_eq!(told, 1, "{text}");
    assert_eq!(text.matches("stdout is closed: the program that read it").count(), 1, "one line: {text}");
    // The next run goes on with what was not read: at least what did not fit into the pipe.
    let mut command = shardmill(&folder, &["run", "-c", "c.json"], &file);
    let mut again = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let output = BufReader::new(again.0.stdout.take().unwrap());
    let numbers = tokio::task::spawn_blocking(move || {
        let mut numbers = Vec::new();
        for line in output.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap();
            numbers.push(event["Records"][0]["kinesis"]["partitionKey"].as_str().unwrap().to_owned());
            if numbers.last().is_some_and(|key| key == "key-49") {
                break;
            }
        }
        numbers
    });
    let numbers = numbers.await.unwrap();
    let first_key: usize = numbers[0].trim_start_matches("key-").parse().unwrap();
    let expected: Vec<String> = (first_key..50).map(|n| format!("key-{n}")).collect();
    assert_eq!(numbers, expected, "in order and without a hole");
    // 65,536 bytes of a pipe and the line that was read.
    assert!(first_key <= 1 + 65_536 / 4_000, "what fits into the pipe counts as taken, no more: {first_key}");
    again.signal(Signal::TERM);
    again.ended().await;
}
