//! Polling a DynamoDB stream: DescribeStream, GetShardIterator, GetRecords.

mod attributes;
mod client;
mod listing;
mod reader;
mod salvage;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_dynamodbstreams::Client;
use aws_types::SdkConfig;
use shardmill_engine::{Position, ShardId};
use tokio::sync::Semaphore;

use super::aws::{Named, endpoint};
use super::limiter::ReadLimiter;
use super::{Glance, ShardListing, ShardReader, SourceError, SourceErrorKind, StreamSource};
use crate::clock::ServiceClock;

/// Shards of one stream that are asked about their end at the same time. These calls have a pace of their own, for which
/// they would wait with permits that reads need.
const CONCURRENT_ENDS: usize = 8;

/// The stream of a DynamoDB table, as its ARN names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DynamoDbStream {
    arn: Arc<str>,
    region: String,
    account: String,
    table: String,
    label: String,
}

impl DynamoDbStream {
    /// Reads `arn:PARTITION:dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL`.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `arn` has another form.
    pub fn from_arn(arn: &str) -> Result<Self, SourceError> {
        let parsed = || {
            let mut parts = arn.splitn(6, ':');
            let is_arn = parts.next()? == "arn" && !parts.next()?.is_empty() && parts.next()? == "dynamodb";
            let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
            let (table, label) = resource.strip_prefix("table/")?.split_once("/stream/")?;
            let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            let named = [region, account, table].iter().all(|part| !part.is_empty() && is_name(part));
            let complete = is_arn && named && !label.is_empty() && !label.contains('/');
            complete.then(|| Self {
                arn: arn.into(),
                region: region.to_owned(),
                account: account.to_owned(),
                table: table.to_owned(),
                label: label.to_owned(),
            })
        };
        parsed().ok_or_else(|| SourceError {
            kind: SourceErrorKind::Rejected,
            api: "EventSourceArn",
            message: format!(
                "`{arn}` is not the ARN of a DynamoDB stream; \
                 it has the form arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL"
            ),
            source: None,
        })
    }

    /// The whole ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The region, such as `eu-west-1`; `ddblocal` in DynamoDB Local.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The id of the account that owns the table.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The stream's label: when it was enabled. A stream that is disabled and enabled again has a new one.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl Named for DynamoDbStream {
    fn arn(&self) -> &str {
        &self.arn
    }

    fn service(&self) -> &'static str {
        "dynamodb"
    }
}

impl fmt::Display for DynamoDbStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, label, region, account, .. } = self;
        write!(f, "DynamoDB stream {label} of table {table} in {region} ({account})")
    }
}

/// Reads a DynamoDB stream by polling. Cheap to clone.
///
/// Needs `dynamodb:DescribeStream`, `dynamodb:GetShardIterator` and `dynamodb:GetRecords`. The service lets about two
/// readers read a shard at the same time, and one that of a global table: each mapping reads a shard only once, but
/// several mappings and other readers add up.
#[derive(Clone, Debug)]
pub struct DynamoDbSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    stream: DynamoDbStream,
    limiter: ReadLimiter,
    clock: ServiceClock,
    /// Shards that take no more records, as far as descriptions told.
    closed: Mutex<HashSet<ShardId>>,
    /// Descriptions under way that find out whether a shard has ended.
    ends: Semaphore,
}

impl DynamoDbSource {
    /// A source with a client of its own for the stream's region, whatever region `config` names.
    ///
    /// The SDK's retries are off: the driver backs off without losing its place. A connection may take 5 s, an answer
    /// 30 s, unless `config` sets other timeouts. The endpoint's own [clock](ServiceClock::for_endpoint) of `clock`
    /// learns the service's time from every successful answer.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `stream_arn` names no DynamoDB stream.
    pub fn new(
        config: &SdkConfig,
        stream_arn: &str,
        clock: &ServiceClock,
        limiter: ReadLimiter,
    ) -> Result<Self, SourceError> {
        let stream = DynamoDbStream::from_arn(stream_arn)?;
        let clock = clock.for_endpoint(&endpoint(&stream, stream.region(), config.endpoint_url()));
        let client = client::from_config(config, &stream, &clock);
        Ok(Self::of(client, stream, &clock, limiter))
    }

    /// A source with a copy of `client` that keeps its region, endpoint, credentials and HTTP client; otherwise as [`Self::new`].
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `stream_arn` names no DynamoDB stream.
    pub fn from_client(
        client: &Client,
        stream_arn: &str,
        clock: &ServiceClock,
        limiter: ReadLimiter,
    ) -> Result<Self, SourceError> {
        let stream = DynamoDbStream::from_arn(stream_arn)?;
        let clock = clock.for_client(&endpoint(&stream, stream.region(), None));
        let client = client::from_client(client, &clock);
        Ok(Self::of(client, stream, &clock, limiter))
    }

    fn of(client: Client, stream: DynamoDbStream, clock: &ServiceClock, limiter: ReadLimiter) -> Self {
        let (clock, closed, limiter) = (clock.clone(), Mutex::default(), limiter.for_source());
        let ends = Semaphore::new(CONCURRENT_ENDS);
        Self { inner: Arc::new(Inner { client, stream, limiter, clock, closed, ends }) }
    }

    /// The stream that this source reads.
    #[must_use]
    pub fn stream(&self) -> &DynamoDbStream {
        &self.inner.stream
    }
}

impl Inner {
    fn is_closed(&self, shard: &ShardId) -> bool {
        // A panic elsewhere leaves nothing half-written here.
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains(shard)
    }

    fn add_closed(&self, closed: impl IntoIterator<Item = ShardId>) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).extend(closed);
    }

    fn set_closed(&self, closed: HashSet<ShardId>) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
    }
}

#[async_trait]
impl StreamSource for DynamoDbSource {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        listing::list(&self.inner).await
    }

    /// There is no call that tells it, and none is needed: a stream that is enabled again has another ARN, and every
    /// new shard follows one that somebody reads to its end.
    async fn glance(&self) -> Result<Option<Glance>, SourceError> {
        let epoch = self.inner.stream.label().to_owned();
        Ok(Some(Glance { epoch, open_shards: None, retention: None }))
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(reader::DynamoDbReader::new(&self.inner, shard, at)))
    }

    fn clock(&self) -> Option<ServiceClock> {
        Some(self.inner.clock.clone())
    }

    /// The service has no dry runs: an iterator is asked for, which reads nothing.
    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        reader::DynamoDbReader::new(&self.inner, shard, &Position::TrimHorizon).iterator_at_start().await?;
        Ok(Some("GetShardIterator is allowed, GetRecords was not asked for"))
    }

    fn describe(&self) -> String {
        self.inner.stream.to_string()
    }
}
