//! The library and a bare `GetRecords` loop of the SDK against the same server in a process of its own.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_kinesis::types::ShardIteratorType;
use shardmill::{AnswerEncoding, KinesisSource};

use crate::library::{self, Running, STREAM_ARN};
use crate::measure::{Fallible, Lap, Stopwatch};

/// The configuration of both clients: no retries, bounded calls, no second watcher over bodies.
pub(crate) fn sdk_config(endpoint: &str) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(30));
    let credentials = Credentials::new("test", "test", None, None, "bench");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// Reads `records` after `warm_up` with the library, whose answers come in an encoding.
pub(crate) async fn library(
    endpoint: &str,
    encoding: AnswerEncoding,
    warm_up: u64,
    records: u64,
) -> Fallible<(u64, Lap)> {
    let worker = library::worker()?;
    let source = KinesisSource::new(&sdk_config(endpoint), STREAM_ARN)?;
    let mapping = library::mapping().answer_encoding(encoding);
    let running = Running::start(mapping, source, worker)?;
    running.seen.reach(warm_up).await;
    let (watch, before) = (Stopwatch::start(), running.seen.records());
    running.seen.reach(before + records).await;
    let (lap, after) = (watch.lap(), running.seen.records());
    running.stop().await?;
    Ok((after - before, lap))
}

/// Reads `records` after `warm_up` with nothing but the SDK, and drops each page.
pub(crate) async fn bare(endpoint: &str, warm_up: u64, records: u64) -> Fallible<(u64, Lap)> {
    let client = Client::new(&sdk_config(endpoint));
    let opened = client
        .get_shard_iterator()
        .stream_arn(STREAM_ARN)
        .shard_id("shardId-000000000000")
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await?;
    // A task of the runtime, as a shard of the library is.
    let reading = tokio::spawn(async move {
        let mut iterator = opened.shard_iterator;
        let (mut read, mut watch) = (0, None::<(Stopwatch, u64)>);
        loop {
            let page = client
                .get_records()
                .set_shard_iterator(iterator)
                .limit(10_000)
                .stream_arn(STREAM_ARN)
                .send()
                .await?;
            read += page.records.len() as u64;
            iterator = page.next_shard_iterator;
            match watch {
                None if read >= warm_up => watch = Some((Stopwatch::start(), read)),
                Some((watch, before)) if read >= before + records => {
                    return Ok::<_, aws_sdk_kinesis::Error>((read - before, watch.lap()));
                }
                _ => {}
            }
        }
    });
    Ok(reading.await??)
}
