//! The public suites against the sources and destinations of this crate, over fakes.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use shardmill::conformance::destination::{self, DestinationCase};
use shardmill::conformance::source::{self, StreamCase};
use shardmill::{Destination, DynamoDbSource, FileDestination, KinesisSource, ShardId, StreamSource};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};
use tempfile::TempDir;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

struct Kinesis(FakeKinesis);

#[async_trait]
impl StreamCase for Kinesis {
    fn source(&self) -> Arc<dyn StreamSource> {
        Arc::new(KinesisSource::new(&self.0.sdk_config(), ARN).unwrap())
    }

    async fn write(&self, records: usize) -> Vec<String> {
        let put = |_| self.0.put("orders", Some("key"), "record").unwrap().sequence_number;
        (0..records).map(put).collect()
    }

    async fn close(&self, shard: &ShardId) {
        self.0.split("orders", shard.as_str()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_kinesis_source_passes() {
    source::run_all(async || {
        let fake = FakeKinesis::new();
        fake.create_stream("orders", 1).unwrap();
        Kinesis(fake)
    })
    .await;
}

struct Table {
    fake: FakeDynamoDbStreams,
    arn: String,
}

#[async_trait]
impl StreamCase for Table {
    fn source(&self) -> Arc<dyn StreamSource> {
        Arc::new(DynamoDbSource::new(&self.fake.sdk_config(), &self.arn).unwrap())
    }

    async fn write(&self, records: usize) -> Vec<String> {
        let from = self.fake.changes("orders").unwrap().len();
        let put = |n: usize| {
            let item = json!({"id": {"S": format!("id-{}", from + n)}});
            self.fake.put_item("orders", &item).unwrap().unwrap().sequence_number
        };
        (0..records).map(put).collect()
    }

    async fn close(&self, shard: &ShardId) {
        self.fake.roll("orders", shard.as_str()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_dynamodb_source_passes() {
    source::run_all(async || {
        let fake = FakeDynamoDbStreams::new();
        let arn = fake.create_table("orders", &["id"], 1).unwrap();
        Table { fake, arn }
    })
    .await;
}

/// A file in a folder that can be moved away.
struct InFolder {
    folder: TempDir,
    destination: Arc<FileDestination>,
}

impl InFolder {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[async_trait]
impl DestinationCase for InFolder {
    fn destination(&self) -> Arc<dyn Destination> {
        Arc::clone(&self.destination) as Arc<dyn Destination>
    }

    async fn arrived(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("there/discarded.jsonl")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn set_broken(&self, broken: bool) {
        let (there, away) = (self.path("there"), self.path("away"));
        let (from, to) = if broken { (there, away) } else { (away, there) };
        std::fs::rename(from, to).unwrap();
    }
}

#[tokio::test]
async fn the_file_destination_passes() {
    destination::run_all(async || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("there")).unwrap();
        let path = folder.path().join("there/discarded.jsonl");
        InFolder { destination: Arc::new(FileDestination::open(path).await.unwrap()), folder }
    })
    .await;
}
