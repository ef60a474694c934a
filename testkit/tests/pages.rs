//! The page server as a process of its own, read by the real SDK client.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code")]

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::types::ShardIteratorType;
use serde_json::{Value, json};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::cbor::Item;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// Kills the server at the end of its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(args: &[&str]) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve_pages"));
    let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let process = Process(child);
    let mut url = String::new();
    BufReader::new(stdout).read_line(&mut url).unwrap();
    (process, url.trim().to_owned())
}

fn start(args: &[&str]) -> (Process, Client) {
    let (process, url) = serve(args);
    // Credentials and region of the fake's configuration, the network and the endpoint of this process.
    let base = FakeKinesis::new().sdk_config();
    let config = aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(base.region().cloned())
        .endpoint_url(url);
    let config = config.credentials_provider(base.credentials_provider().unwrap()).build();
    (process, Client::new(&config))
}

async fn iterator(call: GetShardIteratorFluentBuilder, kind: ShardIteratorType) -> String {
    let call = call.stream_name("bench").shard_iterator_type(kind);
    call.send().await.unwrap().shard_iterator.unwrap()
}

#[tokio::test]
async fn pages_have_distinct_increasing_numbers_and_then_nothing() {
    let (_server, client) = start(&["--shards", "3", "--records-per-page", "50", "--pages", "4"]);
    let shards = client.list_shards().stream_name("bench").send().await.unwrap();
    assert_eq!(shards.shards().len(), 3);
    let mut seen = HashSet::new();
    for shard in shards.shards() {
        let call = client.get_shard_iterator().shard_id(shard.shard_id());
        let mut token = iterator(call, ShardIteratorType::TrimHorizon).await;
        let start = shard.sequence_number_range().unwrap().starting_sequence_number();
        let mut last = start.to_owned();
        for expected in [50, 50, 50, 50, 0, 0] {
            let page = client.get_records().shard_iterator(&token).send().await.unwrap();
            assert_eq!(page.records().len(), expected);
            assert_eq!(page.millis_behind_latest() == Some(0), expected == 0);
            for record in page.records() {
                assert!(record.sequence_number() > last.as_str() && record.sequence_number().len() == 56);
                last = record.sequence_number().to_owned();
                assert!(seen.insert(last.clone()));
                assert_eq!(record.data().as_ref().len(), 1_024);
            }
            token = page.next_shard_iterator.unwrap();
        }
    }
    assert_eq!(seen.len(), 600);
}

#[tokio::test]
async fn a_limit_is_respected_and_reading_resumes_after_a_number() {
    let (_server, client) = start(&["--records-per-page", "10", "--record-bytes", "20", "--pages", "2"]);
    let shard = "shardId-000000000000";
    let call = client.get_shard_iterator().shard_id(shard);
    let first = iterator(call, ShardIteratorType::TrimHorizon).await;
    let short = client.get_records().shard_iterator(first).limit(3).send().await.unwrap();
    assert_eq!(short.records().len(), 3);
    let number = short.records()[1].sequence_number();
    let call = client.get_shard_iterator().shard_id(shard).starting_sequence_number(number);
    let token = iterator(call, ShardIteratorType::AfterSequenceNumber).await;
    let next = client.get_records().shard_iterator(token).send().await.unwrap();
    assert_eq!(next.records()[0].sequence_number(), short.records()[2].sequence_number());
    assert_eq!(next.records().len(), 10);
    let rest = client.get_records().shard_iterator(next.next_shard_iterator().unwrap()).send().await.unwrap();
    assert_eq!(rest.records().len(), 8);
    let bad = client.get_records().shard_iterator("nonsense").send().await.unwrap_err().into_service_error();
    assert!(bad.is_invalid_argument_exception());
}

/// Calls an operation in CBOR, as the AWS SDK for Java does: status, content type and the answer.
fn call_in_cbor(url: &str, operation: &str, input: &Value) -> (String, String, Value) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let body = Item::from_json(input).to_cbor();
    let head = format!(
        "POST / HTTP/1.1\r\ncontent-type: application/x-amz-cbor-1.1\r\ncontent-length: {}\r\n\
         x-amz-target: Kinesis_20131202.{operation}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut headers = Vec::new();
    while headers.last().is_none_or(|line| line != "\r\n") {
        headers.push(String::new());
        reader.read_line(headers.last_mut().unwrap()).unwrap();
    }
    let value =
        |name: &str| headers.iter().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let mut body = vec![0; value("content-length: ").parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let answer = Item::from_cbor(&body).unwrap().to_json();
    (value("HTTP/1.1 "), value("content-type: "), serde_json::from_str(&answer).unwrap())
}

#[test]
fn every_operation_is_answered_in_cbor_if_it_came_in_cbor() {
    let (_server, url) = serve(&["--shards", "2", "--records-per-page", "3", "--record-bytes", "20"]);
    let ok = |operation: &str, input: Value| {
        let (status, content_type, answer) = call_in_cbor(&url, operation, &input);
        assert_eq!((status.as_str(), content_type.as_str()), ("200 OK", "application/x-amz-cbor-1.1"));
        answer
    };
    let stream = json!({ "StreamName": "bench" });
    let summary = ok("DescribeStreamSummary", stream.clone());
    assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 2);
    let shards = ok("ListShards", stream);
    let shard = &shards["Shards"][1]["ShardId"];
    assert_eq!(shard, "shardId-000000000001");
    let input = json!({ "StreamName": "bench", "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
    let page = ok("GetRecords", ok("GetShardIterator", input));
    assert_eq!(page["Records"].as_array().unwrap().len(), 3);
    let (status, content_type, error) = call_in_cbor(&url, "GetRecords", &json!({ "ShardIterator": "no" }));
    assert_eq!((status.as_str(), content_type.as_str()), ("400 Bad Request", "application/x-amz-cbor-1.1"));
    assert_eq!(error["__type"], "InvalidArgumentException");
}

#[test]
fn a_bad_option_ends_the_process_with_its_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_serve_pages")).arg("--shards").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--shards lacks a value"));
}
