//! The stream, and what the service said when records were put into it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ScalingType, Shard, StreamStatus};

use crate::{sequence_order, until};

/// Most records of one PutRecords call.
const PAGE: usize = 500;

/// The region of every emulator.
pub(crate) const REGION: &str = "us-east-1";

/// An emulator in the test's own process.
#[derive(Debug)]
pub struct Ferrokinesis {
    url: String,
}

impl Ferrokinesis {
    /// Serves on a free port for as long as the test's runtime lives.
    pub async fn start() -> Self {
        let options = ferrokinesis::store::StoreOptions {
            create_stream_ms: 0,
            delete_stream_ms: 0,
            update_stream_ms: 0,
            shard_limit: 500,
            ..Default::default()
        };
        let (app, _store) = ferrokinesis::create_app(options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The address of an emulator that `cargo xtask test` started, for tests in the modules that need one.
///
/// # Panics
/// The variable is not set.
#[must_use]
pub fn endpoint(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run `cargo xtask test`"))
}

/// `name` made unique, for emulators that several tests share.
#[must_use]
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{name}-{now}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A record that the service accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The shard that it went to.
    pub shard: String,
    /// Its sequence number.
    pub sequence: String,
    /// Its partition key.
    pub key: String,
}

/// A stream, and the records that were put into it.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    endpoint: String,
    name: String,
    arn: String,
    put: Vec<Put>,
}

impl Stream {
    /// Creates a stream with a unique name at `endpoint` and waits until it is active.
    pub async fn create(endpoint: &str, name: &str, shards: i32) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(endpoint);
        let client = Client::from_conf(config.build());
        let name = unique(name);
        client.create_stream().stream_name(&name).shard_count(shards).send().await.unwrap();
        let mut stream =
            Self { client, endpoint: endpoint.to_owned(), name, arn: String::new(), put: Vec::new() };
        stream.arn = stream.active().await;
        stream
    }

    /// Waits until the stream is active; its ARN.
    async fn active(&self) -> String {
        until("the stream is active", async || {
            let summary = self.client.describe_stream_summary().stream_name(&self.name).send().await.unwrap();
            let summary = summary.stream_description_summary()?;
            (*summary.stream_status() == StreamStatus::Active).then(|| summary.stream_arn().to_owned())
        })
        .await
    }

    /// The emulator's address.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The stream's ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SDK's client, for what this type does not do.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Puts `count` records of `bytes` bytes, spread evenly over the open shards.
    pub async fn put(&mut self, count: usize, bytes: usize) {
        let first = self.put.len();
        let records = (first..first + count).map(|n| {
            let mut data = format!("record {n} ").into_bytes();
            data.resize(bytes.max(data.len()), b'.');
            data
        });
        self.put_all(records.collect()).await;
    }

    /// Puts records with these contents, spread evenly over the open shards in turn, the first shard first. What the
    /// service returned comes back in the order of the contents.
    pub async fn put_all(&mut self, contents: Vec<Vec<u8>>) -> Vec<Put> {
        let hash_keys: Vec<String> = self.open_shards().await.iter().map(start_of).collect();
        let entry = |(n, data): (usize, Vec<u8>)| {
            PutRecordsRequestEntry::builder()
                .partition_key(format!("key-{n}"))
                .explicit_hash_key(&hash_keys[n % hash_keys.len()])
                .data(Blob::new(data))
                .build()
                .unwrap()
        };
        self.put_entries(contents.into_iter().enumerate().map(entry).collect()).await
    }

    /// Puts records with these partition keys and contents, each into the shard of its key.
    pub async fn put_keyed(&mut self, records: Vec<(String, Vec<u8>)>) -> Vec<Put> {
        let entry = |(key, data): (String, Vec<u8>)| {
            PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
        };
        self.put_entries(records.into_iter().map(entry).collect()).await
    }

    /// Takes note of a record that was put past this type.
    pub fn note(&mut self, put: Put) {
        self.put.push(put);
    }

    async fn put_entries(&mut self, mut entries: Vec<PutRecordsRequestEntry>) -> Vec<Put> {
        let keys: Vec<String> =
            entries.iter().map(|entry| entry.partition_key().unwrap().to_owned()).collect();
        let mut answers: Vec<Put> = Vec::with_capacity(entries.len());
        while !entries.is_empty() {
            let page: Vec<_> = entries.drain(..entries.len().min(PAGE)).collect();
            let put = self.client.put_records().stream_name(&self.name).set_records(Some(page));
            let put = put.send().await.unwrap();
            assert_eq!(put.failed_record_count().unwrap_or(0), 0, "the emulator throttles: {put:?}");
            let first = answers.len();
            answers.extend(put.records().iter().zip(&keys[first..]).map(|(record, key)| Put {
                shard: record.shard_id().unwrap().to_owned(),
                sequence: record.sequence_number().unwrap().to_owned(),
                key: key.clone(),
            }));
        }
        self.put.extend(answers.iter().cloned());
        answers
    }

    /// Splits a shard in the middle.
    pub async fn split(&self, shard: &str) {
        let shards = self.open_shards().await;
        let range = shards.iter().find(|open| open.shard_id() == shard).unwrap().hash_key_range().unwrap();
        let bound = |text: &str| text.parse::<u128>().unwrap();
        let (start, end) = (bound(range.starting_hash_key()), bound(range.ending_hash_key()));
        let middle = start + (end - start) / 2 + 1;
        let split = self.client.split_shard().stream_name(&self.name).shard_to_split(shard);
        split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
        self.active().await;
    }

    /// Merges two neighbouring shards.
    pub async fn merge(&self, shard: &str, adjacent: &str) {
        let merge = self.client.merge_shards().stream_name(&self.name);
        merge.shard_to_merge(shard).adjacent_shard_to_merge(adjacent).send().await.unwrap();
        self.active().await;
    }

    /// Splits or merges all shards evenly until there are so many open ones.
    pub async fn update_shard_count(&self, shards: i32) {
        let update = self.client.update_shard_count().stream_name(&self.name).target_shard_count(shards);
        update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        self.active().await;
    }

    /// All shards, ordered by name.
    pub async fn shards(&self) -> Vec<Shard> {
        let listed = self.client.list_shards().stream_name(&self.name).send().await.unwrap();
        let mut shards = listed.shards.unwrap_or_default();
        shards.sort_by(|a, b| a.shard_id().cmp(b.shard_id()));
        shards
    }

    /// The open shards, ordered by name.
    pub async fn open_shards(&self) -> Vec<Shard> {
        let mut shards = self.shards().await;
        shards.retain(is_open);
        shards
    }

    /// What the service returned for all records, in the order in which they were put.
    #[must_use]
    pub fn records(&self) -> &[Put] {
        &self.put
    }

    /// The sequence numbers per shard, in the shard's order.
    #[must_use]
    pub fn by_shard(&self) -> BTreeMap<String, Vec<String>> {
        let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for put in &self.put {
            shards.entry(put.shard.clone()).or_default().push(put.sequence.clone());
        }
        for numbers in shards.values_mut() {
            numbers.sort_by(|a, b| sequence_order(a, b));
        }
        shards
    }
}

/// Whether a shard takes records.
#[must_use]
pub fn is_open(shard: &Shard) -> bool {
    shard.sequence_number_range().unwrap().ending_sequence_number().is_none()
}

/// The parents of each shard.
#[must_use]
pub fn parents_of(shards: &[Shard]) -> BTreeMap<String, Vec<String>> {
    let parents = |shard: &Shard| {
        let parents = [shard.parent_shard_id(), shard.adjacent_parent_shard_id()];
        (shard.shard_id().to_owned(), parents.into_iter().flatten().map(str::to_owned).collect())
    };
    shards.iter().map(parents).collect()
}

fn start_of(shard: &Shard) -> String {
    shard.hash_key_range().unwrap().starting_hash_key().to_owned()
}
