//! Consumers, and a function, that print how many records they have had, for bench/peers.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use shardmill::{AnswerEncoding, KinesisSource};
use tokio::task::JoinSet;

use crate::library::{self, Running, STREAM_ARN};
use crate::measure::Fallible;
use crate::sidecar;
use crate::throughput::sdk_config;

/// How soon a new count is printed.
const TICK: Duration = Duration::from_millis(10);

/// The SDK alone: one loop for each shard calls `GetRecords` and drops the page.
pub(crate) async fn bare(endpoint: &str) -> Fallible<()> {
    let client = Client::new(&sdk_config(endpoint));
    let records = Arc::new(AtomicU64::new(0));
    let mut reading = JoinSet::new();
    for shard in client.list_shards().stream_arn(STREAM_ARN).send().await?.shards() {
        let shard = shard.shard_id().to_owned();
        reading.spawn(read(client.clone(), shard, Arc::clone(&records)));
    }
    tokio::select! {
        ended = reading.join_next() => ended.ok_or("the stream has no shards")??,
        printed = print(|| records.load(Ordering::Relaxed)) => printed,
    }
}

async fn read(client: Client, shard: String, records: Arc<AtomicU64>) -> Fallible<()> {
    let opened = client
        .get_shard_iterator()
        .stream_arn(STREAM_ARN)
        .shard_id(shard)
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await?;
    let mut iterator = opened.shard_iterator;
    while iterator.is_some() {
        let read = client.get_records().set_shard_iterator(iterator).limit(10_000).stream_arn(STREAM_ARN);
        let page = read.send().await?;
        records.fetch_add(page.records.len() as u64, Ordering::Relaxed);
        iterator = page.next_shard_iterator;
    }
    Err("a shard has ended".into())
}

/// The library with a handler that does nothing.
pub(crate) async fn library(endpoint: &str, encoding: AnswerEncoding) -> Fallible<()> {
    let source = KinesisSource::new(&sdk_config(endpoint), STREAM_ARN)?;
    let running = Running::start(library::mapping().answer_encoding(encoding), source, library::worker()?)?;
    print(|| running.seen.records()).await
}

/// A function for a sidecar: prints its address, then counts what it is invoked with.
pub(crate) async fn function() -> Fallible<()> {
    let records = Arc::new(AtomicU64::new(0));
    println!("{}", sidecar::function(Arc::clone(&records), None, Duration::ZERO).await?);
    print(|| records.load(Ordering::Relaxed)).await
}

/// Prints each new count until its reader is gone.
async fn print(records: impl Fn() -> u64) -> Fallible<()> {
    let mut shown = 0;
    loop {
        let now = records();
        if now != shown {
            writeln!(std::io::stdout(), "{now}")?;
            shown = now;
        }
        tokio::time::sleep(TICK).await;
    }
}
