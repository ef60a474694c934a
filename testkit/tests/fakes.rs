//! `shardmill-fake` as docs/testing.md shows it: a process of its own, commands over HTTP, the real SDK clients.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_kinesis::error::ProvideErrorMetadata as _;
use serde_json::{Value, json};
use shardmill_testkit::Fakes;

/// The program at work.
struct Fake {
    process: Child,
    url: String,
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Fake {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill-fake"));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { process, url: url.trim().to_owned() }
    }

    fn sdk(&self) -> SdkConfig {
        let credentials = Credentials::new("any", "any", None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .retry_config(RetryConfig::disabled())
            .endpoint_url(&self.url)
            .build()
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = post(&format!("{}/control/{path}", self.url), &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }
}

/// A POST as curl does it: status and body.
fn post(url: &str, body: &str) -> (u16, String) {
    post_with(url, "", body)
}

/// With more header lines, each ended.
fn post_with(url: &str, headers: &str, body: &str) -> (u16, String) {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "POST /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Whether `text` is `pattern`, in which `…` matches anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (n, part) in parts.iter().enumerate() {
        let at = if n + 1 == parts.len() { rest.strip_suffix(part).map(str::len) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// A line `curl $FAKE/PATH -d 'BODY'`: path and body.
fn curl(line: &str) -> (&str, &str) {
    let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
    let body = rest.strip_prefix("-d '").and_then(|rest| rest.strip_suffix('\'')).unwrap_or_default();
    assert_eq!(rest.is_empty(), body.is_empty(), "{line}");
    (path, body)
}

#[test]
fn every_command_in_the_guide_answers_what_the_guide_says() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/testing.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let fake = Fake::start();
    let mut lines = guide.lines().peekable();
    let mut seen = 0;
    while let Some(line) = lines.next() {
        let Some(call) = line.strip_prefix("$ curl $FAKE") else { continue };
        let (path, body) = curl(call);
        let (status, answer) = post(&format!("{}{path}", fake.url), body);
        let expected = lines.next().unwrap();
        assert!(matches(expected, answer.trim_end()), "{line}\nexpected {expected}\nfound    {answer}");
        assert_eq!(status == 200, !expected.contains("\"error\""), "{line}: {status}");
        seen += 1;
    }
    assert!(seen >= 15, "{seen} examples");
    // Every command of the tables is known: what is wrong with an empty one is its fields, not its name.
    let commands = guide.lines().scan("", |service, line| {
        if let Some(head) = line.strip_prefix("| `/control/") {
            *service = head.split('/').next().unwrap_or_default();
        } else if line.starts_with("| command |") {
            *service = "kinesis";
        } else if !line.starts_with('|') {
            *service = "";
        }
        let first = line.split('|').nth(1).filter(|_| !service.is_empty() && !line.contains("/control/"));
        let names = first.unwrap_or_default().split('`').skip(1).step_by(2);
        Some(names.map(|name| format!("/control/{service}/{name}")).collect::<Vec<_>>())
    });
    let commands: Vec<String> = commands.flatten().collect();
    assert!(commands.len() >= 30, "{commands:?}");
    for command in commands {
        let (_, answer) = post(&format!("{}{command}", fake.url), "");
        assert!(!answer.contains("unknown name"), "{command}: {answer}");
    }
}

#[tokio::test]
async fn faults_of_both_services_reach_a_client_in_another_process_and_reset_ends_them() {
    let fake = Fake::start();
    let kinesis = aws_sdk_kinesis::Client::new(&fake.sdk());
    let dynamodb = aws_sdk_dynamodbstreams::Client::new(&fake.sdk());
    fake.command("kinesis/create-stream", &json!({"stream": "orders", "shards": 3}));
    let table =
        fake.command("dynamodb/create-table", &json!({"table": "orders", "keys": ["id"], "shards": 1}));
    let arn = table["streamArn"].as_str().unwrap();
    fake.command("kinesis/inject-fault", &json!({"operation": "ListShards", "fault": "Throttle"}));
    fake.command(
        "dynamodb/inject-fault",
        &json!({"fault": {"Error": {"status": 503, "code": "Slow", "message": "down"}}}),
    );
    let throttled = kinesis.list_shards().stream_name("orders").send().await.unwrap_err();
    assert_eq!(throttled.code(), Some("ProvisionedThroughputExceededException"));
    let down = dynamodb.describe_stream().stream_arn(arn).send().await.unwrap_err();
    assert_eq!(down.code(), Some("Slow"));
    assert_eq!(kinesis.list_shards().stream_name("orders").send().await.unwrap().shards().len(), 3);
    let described = dynamodb.describe_stream().stream_arn(arn).send().await.unwrap();
    assert_eq!(described.stream_description().unwrap().shards().len(), 1);
    let calls = fake.command("kinesis/calls", &json!({"operation": "ListShards"}));
    assert_eq!(
        (&calls["count"], &calls["last"][0]["status"], &calls["last"][1]["status"]),
        (&json!(2), &json!(400), &json!(200))
    );
    let faults = fake.command("dynamodb/faults", &json!({}));
    assert_eq!(faults["faults"][0]["hits"], 1);

    fake.command("kinesis/inject-fault", &json!({"always": true, "fault": "AccessDenied"}));
    fake.command("reset", &json!({}));
    let gone = kinesis.list_shards().stream_name("orders").send().await.unwrap_err();
    assert_eq!(gone.code(), Some("ResourceNotFoundException"), "no fault any more, and no stream");
    assert!(dynamodb.describe_stream().stream_arn(arn).send().await.is_err());
}

#[test]
fn a_mistake_in_a_command_is_answered_with_what_is_wrong_and_changes_nothing() {
    let fake = Fake::start();
    fake.command("kinesis/create-stream", &json!({"stream": "orders", "shards": 1}));
    for (path, body, wrong) in [
        ("kinesis/put", r#"{"stream": "orders"}"#, "exactly one of data, base64, bytes"),
        ("kinesis/put", r#"{"stream": "orders", "bytes": 10485761}"#, "must be between 0 and 10485760"),
        ("kinesis/put", r#"{"stream": "orders", "base64": "?"}"#, "base64 is not base64"),
        ("kinesis/put", r#"{"stream": "orders", "data": "x", "shrad": "s"}"#, "unknown field `shrad`"),
        ("kinesis/create-stream", r#"{"stream": "others"}"#, "missing field `shards`"),
        ("kinesis/create-stream", r#"{"stream": "others", "shards": 0}"#, "10000"),
        ("kinesis/create-stream", "stream=others", "no JSON"),
        ("kinesis/inject-fault", r#"{"fault": "Trottle"}"#, "`Throttle`"),
        ("kinesis/inject-fault", r#"{"fault": "Hang", "operation": "GetRecord"}"#, "GetRecords"),
        ("kinesis/inject-fault", r#"{"fault": "Hang", "times": 2, "always": true}"#, "not both"),
        ("kinesis/inject-fault", r#"{"fault": "Hang", "times": 0}"#, "at least 1"),
        ("kinesis/remove-fault", r#"{"id": 7}"#, "no fault 7"),
        ("dynamodb/put-item", r#"{"table": "orders", "item": {}}"#, "not found"),
        ("sqs/send", "{}", "/control/kinesis/COMMAND"),
    ] {
        let (status, answer) = post(&format!("{}/control/{path}", fake.url), body);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(status, 400, "{path} {body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(wrong), "{path} {body}: {answer}");
    }
    assert_eq!(fake.command("kinesis/records", &json!({"stream": "orders"}))["records"], json!([]));
    assert_eq!(fake.command("kinesis/faults", &json!({}))["faults"], json!([]));
    let (status, answer) = post(&format!("{}/", fake.url), "{}");
    assert_eq!(status, 400, "a call of no service");
    assert!(answer.contains("of no service that is here"), "{answer}");
    let put_item = "x-amz-target: DynamoDB_20120810.PutItem\r\n";
    let (status, answer) = post_with(&format!("{}/", fake.url), put_item, "{}");
    assert_eq!(status, 400, "a table with a stream is another one's");
    assert!(answer.contains("/control/dynamodb/put-item"), "{answer}");
}

#[tokio::test]
async fn a_body_may_come_slowly_or_be_another_and_the_client_of_the_same_process_feels_it_too() {
    let fakes = Fakes::new();
    fakes.kinesis().create_stream("orders", 1).unwrap();
    let server = fakes.serve(0).await.unwrap();
    let text = json!({"fault": {"SlowBodyMs": 50}}).to_string();
    let url = format!("{}/control/kinesis/inject-fault", server.url());
    let injected = tokio::task::spawn_blocking(move || post(&url, &text)).await.unwrap();
    assert_eq!(injected.0, 200, "{}", injected.1);
    let client = aws_sdk_kinesis::Client::new(&server.sdk_config());
    assert_eq!(client.list_shards().stream_name("orders").send().await.unwrap().shards().len(), 1);
    let faults = fakes.kinesis().faults();
    for body in ["", "[]", "{\"Shards\": 7}"] {
        faults.on_any().inject(shardmill_testkit::kinesis::Fault::Body(body.to_owned()));
        let config = aws_sdk_kinesis::config::Builder::from(&fakes.kinesis().sdk_config());
        let once = aws_sdk_kinesis::Client::from_conf(config.retry_config(RetryConfig::disabled()).build());
        let answer = once.list_shards().stream_name("orders").send().await;
        assert!(answer.is_err() || answer.unwrap().shards.is_none(), "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_takes_its_time_in_virtual_time() {
    let fakes = Fakes::new();
    fakes.kinesis().create_stream("orders", 1).unwrap();
    let fault = shardmill_testkit::kinesis::Fault::SlowBody(Duration::from_secs(60));
    fakes.kinesis().faults().on_any().inject(fault);
    let config = aws_sdk_kinesis::config::Builder::from(&fakes.kinesis().sdk_config())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    let client = aws_sdk_kinesis::Client::from_conf(config.build());
    let begin = tokio::time::Instant::now();
    assert_eq!(client.list_shards().stream_name("orders").send().await.unwrap().shards().len(), 1);
    assert_eq!(begin.elapsed().as_secs(), 60);
}
