//! What is served over TLS, read by the real SDK client.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code")]

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeKinesis, FaultProxy, TlsOptions};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use tokio::task::JoinSet;

/// Kills the program at the end of its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program and reads its address and the certificate that it wrote.
fn start(program: &str, args: &[&str]) -> (Process, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let mut command = Command::new(program);
    let mut child = command.arg("--tls").arg(&file).args(args).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let process = Process(child);
    let mut url = String::new();
    BufReader::new(stdout).read_line(&mut url).unwrap();
    (process, url.trim().to_owned(), std::fs::read_to_string(file).unwrap())
}

fn client(config: SdkConfig) -> Client {
    Client::new(&config.into_builder().retry_config(RetryConfig::disabled()).build())
}

/// A client of the SDK's own that trusts this authority alone.
fn trusting(authority: &str, url: &str) -> Client {
    let trusted = TrustStore::empty().with_pem_certificate(authority);
    let context = TlsContext::builder().with_trust_store(trusted).build().unwrap();
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context);
    let config = FakeKinesis::new().sdk_config().into_builder();
    client(config.http_client(http.build_https()).endpoint_url(url).build())
}

/// How many connections ten reads take that are under way at once after a first one.
async fn connections(options: TlsOptions) -> usize {
    let fake = FakeKinesis::new();
    let server = fake.serve_tls(options).await.unwrap();
    let proxy = FaultProxy::start(server.address()).await.unwrap();
    let url = format!("https://{}", proxy.address());
    let client = client(server.sdk_config().into_builder().endpoint_url(url).build());
    client.list_streams().send().await.unwrap();
    let _hang = fake.faults().on(Operation::GetRecords).hold(Fault::Hang);
    let reads: JoinSet<_> = (0..10).map(|_| client.get_records().shard_iterator("x").send()).collect();
    while fake.calls().of(Operation::GetRecords).max_in_flight() < 10 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(reads);
    proxy.accepted()
}

#[tokio::test]
async fn calls_share_a_connection_of_http2_and_not_one_of_http1() {
    assert_eq!(connections(TlsOptions::default()).await, 1);
    let mut options = TlsOptions::default();
    options.http2 = false;
    assert_eq!(connections(options).await, 10);
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_not_served() {
    let (fake, other) = (FakeKinesis::new(), FakeKinesis::new());
    let server = fake.serve_tls(TlsOptions::default()).await.unwrap();
    let other = other.serve_tls(TlsOptions::default()).await.unwrap();
    let client = trusting(other.certificate().unwrap(), &server.url());
    let error = client.list_streams().send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    assert!(fake.calls().is_empty());
    assert!(fake.serve().await.unwrap().certificate().is_none());
}

#[tokio::test]
async fn the_program_serves_https_and_writes_the_certificate_to_trust() {
    let (_fake, url, authority) = start(env!("CARGO_BIN_EXE_shardmill-fake"), &[]);
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let client = trusting(&authority, &url);
    client.create_stream().stream_name("orders").shard_count(2).send().await.unwrap();
    let shards = client.list_shards().stream_name("orders").send().await.unwrap();
    assert_eq!(shards.shards().len(), 2);
}

#[tokio::test]
async fn prepared_pages_are_the_same_over_tls() {
    let args = ["--records-per-page", "50", "--pages", "2"];
    let (_pages, url, authority) = start(env!("CARGO_BIN_EXE_serve_pages"), &args);
    let client = trusting(&authority, &url);
    let call = client.get_shard_iterator().stream_name("bench").shard_id("shardId-000000000000");
    let opened = call.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    let (mut iterator, mut numbers) = (opened.shard_iterator, Vec::new());
    for expected in [50, 50, 0] {
        let page = client.get_records().set_shard_iterator(iterator).send().await.unwrap();
        assert_eq!(page.records().len(), expected);
        numbers.extend(page.records.iter().map(|record| record.sequence_number.clone()));
        iterator = page.next_shard_iterator;
    }
    assert!(numbers.is_sorted_by(|one, next| one < next));
    let bad = client.get_records().shard_iterator("nonsense").send().await.unwrap_err().into_service_error();
    assert!(bad.is_invalid_argument_exception());
}
