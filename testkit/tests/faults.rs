//! The fault hooks, seen through the real SDK client, in process and over HTTP.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code")]

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::types::ShardIteratorType;
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::{Fault, Operation};
use std::time::Duration;
use tokio::time::Instant;

const SHARD: &str = "shardId-000000000000";

fn without_retries(config: &SdkConfig) -> Client {
    let config = aws_sdk_kinesis::config::Builder::from(config).retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

async fn iterator(client: &Client, shard: &str) -> String {
    let call = client.get_shard_iterator().stream_name("orders").shard_id(shard);
    let answer = call.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
    answer.shard_iterator.unwrap()
}

async fn read(client: &Client, iterator: &str) -> Result<GetRecordsOutput, SdkError<GetRecordsError>> {
    client.get_records().shard_iterator(iterator).send().await
}

fn fake() -> FakeKinesis {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 2).unwrap();
    for i in 0..10 {
        fake.put_to_shard("orders", SHARD, Some("k"), format!("record {i}")).unwrap();
    }
    fake
}

#[tokio::test]
async fn every_error_arrives_as_the_sdk_knows_it() {
    let fake = fake();
    let server = fake.serve().await.unwrap();
    for client in [without_retries(&fake.sdk_config()), without_retries(&server.sdk_config())] {
        let token = iterator(&client, SHARD).await;
        for (fault, code) in [
            (Fault::Throttle, "ProvisionedThroughputExceededException"),
            (Fault::LimitExceeded, "LimitExceededException"),
            (Fault::InternalFailure, "InternalFailure"),
            (Fault::ExpiredIterator, "ExpiredIteratorException"),
            (Fault::ExpiredNextToken, "ExpiredNextTokenException"),
            (Fault::AccessDenied, "AccessDeniedException"),
            (Fault::UnrecognizedClient, "UnrecognizedClientException"),
            (Fault::Error { status: 503, code: "Slow".into(), message: "down".into() }, "Slow"),
        ] {
            fake.faults().on(Operation::GetRecords).inject(fault.clone());
            let error = read(&client, &token).await.unwrap_err();
            assert_eq!(error.code(), Some(code));
            let status = error.raw_response().unwrap().status().as_u16();
            let expected = match fault {
                Fault::InternalFailure => 500,
                Fault::Error { status, .. } => status,
                _ => 400,
            };
            assert_eq!(status, expected, "{code}");
            assert_eq!(read(&client, &token).await.unwrap().records().len(), 10, "{code} struck once");
        }
    }
}

#[tokio::test]
async fn broken_answers_and_connections_are_errors_and_the_next_call_works() {
    let fake = fake();
    let server = fake.serve().await.unwrap();
    for client in [without_retries(&fake.sdk_config()), without_retries(&server.sdk_config())] {
        let token = iterator(&client, SHARD).await;
        for fault in [Fault::CutBody, Fault::CutBodyAfter(0), Fault::CutBodyAfter(17), Fault::GarbageBody] {
            fake.faults().on(Operation::GetRecords).inject(fault.clone());
            let error = read(&client, &token).await.unwrap_err();
            assert!(matches!(error, SdkError::ResponseError(_)), "{fault:?}: {error:?}");
            assert_eq!(read(&client, &token).await.unwrap().records().len(), 10);
        }
        fake.faults().on(Operation::GetRecords).inject(Fault::Disconnect);
        let error = read(&client, &token).await.unwrap_err();
        assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
        assert_eq!(read(&client, &token).await.unwrap().records().len(), 10);
    }
}

#[tokio::test]
async fn a_rule_strikes_its_operation_its_shard_its_calls_and_no_others() {
    let fake = fake();
    let client = without_retries(&fake.sdk_config());
    let first = iterator(&client, SHARD).await;
    let second = iterator(&client, "shardId-000000000001").await;
    let rule = fake.faults().on(Operation::GetRecords).shard(SHARD).skip(1).times(2).inject(Fault::Throttle);
    read(&client, &second).await.unwrap();
    let outcomes = async || read(&client, &first).await.is_ok();
    assert_eq!(
        [outcomes().await, outcomes().await, outcomes().await, outcomes().await],
        [true, false, false, true]
    );
    read(&client, &second).await.unwrap();
    assert_eq!(rule.hits(), 2);
    let calls = fake.calls().of(Operation::GetRecords).shard(SHARD);
    let errors: Vec<_> = calls.iter().map(|c| (c.status, c.error.as_deref())).collect();
    let throttled = (Some(400), Some("ProvisionedThroughputExceededException"));
    assert_eq!(errors, [(Some(200), None), throttled, throttled, (Some(200), None)]);

    let guard = fake.faults().on_any().hold(Fault::InternalFailure);
    for _ in 0..3 {
        read(&client, &first).await.unwrap_err();
    }
    assert_eq!(guard.hits(), 3);
    drop(guard);
    read(&client, &first).await.unwrap();
    let always = fake.faults().on_any().always().inject(Fault::InternalFailure);
    read(&client, &first).await.unwrap_err();
    always.remove();
    read(&client, &first).await.unwrap();
}

#[tokio::test]
async fn bent_pages_keep_their_place() {
    let fake = fake();
    let client = without_retries(&fake.sdk_config());
    let rules = [Fault::EmptyPage, Fault::PartialPage(3), Fault::EmptyPage, Fault::PartialPage(4)];
    for (skip, fault) in (0..).zip(rules) {
        fake.faults().on(Operation::GetRecords).skip(skip).inject(fault);
    }
    let mut token = iterator(&client, SHARD).await;
    let mut got = Vec::new();
    for expected in [0, 3, 0, 4, 3] {
        let page = read(&client, &token).await.unwrap();
        assert_eq!(page.records().len(), expected);
        got.extend(page.records().iter().map(|r| r.sequence_number().to_owned()));
        token = page.next_shard_iterator.unwrap();
    }
    let all = fake.records("orders").unwrap();
    assert_eq!(got, all.iter().map(|r| r.sequence_number.as_str()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_null_iterator_without_children_and_incomplete_listings() {
    let fake = fake();
    let client = without_retries(&fake.sdk_config());
    fake.faults().on(Operation::GetRecords).inject(Fault::NullIterator);
    let page = read(&client, &iterator(&client, SHARD).await).await.unwrap();
    assert_eq!((page.records().len(), page.next_shard_iterator(), page.child_shards().len()), (10, None, 0));

    let (low, high) = fake.split("orders", SHARD).unwrap();
    let listed = async || {
        let answer = client.list_shards().stream_name("orders").send().await.unwrap();
        answer.shards().iter().map(|s| s.shard_id().to_owned()).collect::<Vec<_>>()
    };
    let other = "shardId-000000000001";
    fake.faults().on(Operation::ListShards).inject(Fault::OmitChildrenOf(SHARD.into()));
    assert_eq!(listed().await, [SHARD, other]);
    fake.faults().on(Operation::ListShards).inject(Fault::OmitShard(SHARD.into()));
    assert_eq!(listed().await, [other, &low, &high]);
    assert_eq!(listed().await, [SHARD, other, &low, &high]);
}

#[tokio::test(start_paused = true)]
async fn latency_and_hanging_run_on_virtual_time_and_the_read_timeout_counts() {
    let fake = fake();
    let timeouts = TimeoutConfig::builder().read_timeout(Duration::from_secs(30)).build();
    let config = aws_sdk_kinesis::config::Builder::from(&fake.sdk_config())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    let client = Client::from_conf(config.build());
    let token = iterator(&client, SHARD).await;
    let start = Instant::now();
    fake.faults().on(Operation::GetRecords).inject(Fault::Latency(Duration::from_secs(7)));
    fake.faults().on(Operation::GetRecords).inject(Fault::Latency(Duration::from_secs(1)));
    read(&client, &token).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(8), "latencies add up");

    fake.faults().on(Operation::GetRecords).inject(Fault::Hang);
    let error = read(&client, &token).await.unwrap_err();
    let timed_out = matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout());
    assert!(timed_out, "{error:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(38));
    let calls = fake.calls().of(Operation::GetRecords);
    let hung = calls.iter().last().unwrap();
    assert_eq!((hung.status, hung.ended), (None, Some(Instant::now())));
    assert_eq!(calls.max_in_flight(), 1);
    assert_eq!(calls.since(start + Duration::from_secs(8)).len(), 1);
}

#[tokio::test]
async fn a_hanging_call_does_not_hold_up_the_others_of_a_served_fake() {
    let fake = fake();
    let server = fake.serve().await.unwrap();
    let client = without_retries(&server.sdk_config());
    let token = iterator(&client, SHARD).await;
    fake.faults().on(Operation::GetRecords).inject(Fault::Hang);
    let hanging = tokio::spawn({
        let (client, token) = (client.clone(), token.clone());
        async move { read(&client, &token).await.is_ok() }
    });
    while fake.calls().of(Operation::GetRecords).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&client, &token).await.unwrap().records().len(), 10);
    assert!(!hanging.is_finished());
    assert_eq!(fake.calls().of(Operation::GetRecords).max_in_flight(), 2);
    drop(server);
    assert!(!hanging.await.unwrap(), "dropping the server ends its connections");
}

#[tokio::test]
async fn a_fault_strikes_the_calls_of_an_access_key_or_of_a_wrong_time() {
    let fake = fake();
    let server = fake.serve().await.unwrap();
    for config in [fake.sdk_config(), server.sdk_config()] {
        fake.set_clock_offset(0);
        let client = without_retries(&config);
        let call = async || client.list_streams().send().await;
        let other = fake.faults().on_any().signed_by("other").hold(Fault::Throttle);
        let own = fake.faults().on_any().signed_by("test").times(1).inject(Fault::Throttle);
        call().await.unwrap_err();
        call().await.unwrap();
        assert_eq!((other.hits(), own.hits()), (0, 1));

        let off = fake.faults().on_any().signed_off(Duration::from_secs(300)).hold(Fault::Throttle);
        call().await.unwrap();
        assert_eq!(off.hits(), 0);
        fake.set_clock_offset(600_000);
        // The refusal shows the client how late it is.
        call().await.unwrap_err();
        call().await.unwrap();
        assert_eq!(off.hits(), 1);
    }
}
