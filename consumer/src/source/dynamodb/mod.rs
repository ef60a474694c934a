//! Polling a DynamoDB stream: DescribeStream, GetShardIterator, GetRecords.

mod attributes;
mod client;
mod listing;
mod reader;
mod salvage;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::Builder;
use aws_types::SdkConfig;
use parking_lot::Mutex;
use shardmill_engine::{EventSource, MappingError, Position, ShardId, StreamKind};
use tokio::sync::Semaphore;

use super::aws::{Address, Attachment, Call, Hears, Repeat, endpoint, stream_named};
use super::limiter::ReadLimiter;
use super::{ShardListing, ShardReader, SourceContext, SourceError, StreamSource, StreamSummary};
use crate::clock::ServiceClock;

/// Shards of one stream that are asked about their end at the same time. These calls have a pace of their own, for which
/// they would wait with permits that reads need.
const CONCURRENT_ENDS: usize = 8;

/// The epoch of a stream: its label, which is when it was enabled.
fn epoch(stream: &EventSource) -> String {
    stream.label().unwrap_or_default().to_owned()
}

/// Reads a DynamoDB stream by polling. Cheap to clone.
///
/// Needs `dynamodb:DescribeStream`, `dynamodb:GetShardIterator` and `dynamodb:GetRecords`. The service lets about two
/// readers read a shard at the same time, and one that of a global table: each mapping reads a shard only once, but
/// several mappings and other readers add up.
#[derive(Clone, Debug)]
pub struct DynamoDbSource {
    attachment: Arc<Attachment<Builder, Inner>>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    /// Makes most calls of `GetRecords`.
    repeat: Repeat,
    address: Address,
    stream: EventSource,
    limiter: ReadLimiter,
    clock: ServiceClock,
    /// Shards that take no more records, as far as descriptions told.
    closed: Mutex<HashSet<ShardId>>,
    /// Descriptions under way that find out whether a shard has ended.
    ends: Semaphore,
}

impl DynamoDbSource {
    /// A source of `stream`, an ARN or a mapping's [`event_source`](crate::EventSourceMapping::event_source), with a client
    /// of its own for the stream's region, regardless of the region in `config`.
    ///
    /// The SDK's retries are off: the driver backs off without losing its place. A connection may take 5 s, an answer
    /// 30 s, unless `config` sets other timeouts. The service's time is learned from every successful answer, for all
    /// sources of the worker with the same endpoint.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`](crate::SourceErrorKind::Rejected) if `stream` names no DynamoDB stream.
    pub fn new<S>(config: &SdkConfig, stream: S) -> Result<Self, SourceError>
    where
        S: TryInto<EventSource, Error = MappingError>,
    {
        let stream = stream_named(stream, StreamKind::DynamoDb)?;
        let hears = Hears::Endpoint(endpoint(&stream, config.endpoint_url()));
        let settings = client::from_config(config, &stream);
        Ok(Self::of(stream, settings, hears))
    }

    /// A source with a copy of `client` that keeps its region, endpoint, credentials and HTTP client; otherwise as
    /// [`new`](Self::new), but no other source shares what it learns of the service's time.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`](crate::SourceErrorKind::Rejected) if `stream` names no DynamoDB stream.
    #[expect(clippy::needless_pass_by_value, reason = "a client is a handle, and destinations keep theirs")]
    pub fn from_client<S>(client: Client, stream: S) -> Result<Self, SourceError>
    where
        S: TryInto<EventSource, Error = MappingError>,
    {
        let stream = stream_named(stream, StreamKind::DynamoDb)?;
        let hears = Hears::Client(endpoint(&stream, None));
        Ok(Self::of(stream, client::from_client(&client), hears))
    }

    fn of(stream: EventSource, settings: Builder, hears: Hears) -> Self {
        Self { attachment: Arc::new(Attachment::new(stream, settings, hears, Inner::new)) }
    }

    fn inner(&self) -> Arc<Inner> {
        self.attachment.part()
    }

    /// The stream that this source reads.
    #[must_use]
    pub fn stream(&self) -> &EventSource {
        &self.attachment.stream
    }
}

impl Inner {
    /// A call, for messages.
    fn call<'a>(&'a self, api: &'static str, shard: Option<&'a ShardId>) -> Call<'a> {
        Call { api, stream: &self.stream, shard, address: &self.address, at: None }
    }

    fn new(settings: &Builder, stream: EventSource, limiter: ReadLimiter, clock: ServiceClock) -> Self {
        let address = Address::default();
        let (client, repeat) = client::observed(settings, &clock, &address);
        Self {
            client,
            repeat,
            address,
            stream,
            limiter,
            clock,
            closed: Mutex::default(),
            ends: Semaphore::new(CONCURRENT_ENDS),
        }
    }

    fn is_closed(&self, shard: &ShardId) -> bool {
        self.closed.lock().contains(shard)
    }

    fn add_closed(&self, closed: impl IntoIterator<Item = ShardId>) {
        self.closed.lock().extend(closed);
    }

    fn set_closed(&self, closed: HashSet<ShardId>) {
        *self.closed.lock() = closed;
    }
}

#[async_trait]
impl StreamSource for DynamoDbSource {
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        self.attachment.attach(cx)
    }

    fn stream_arn(&self) -> Option<&str> {
        Some(self.attachment.stream.arn.as_str())
    }

    async fn shards(&self) -> Result<ShardListing, SourceError> {
        listing::list(&self.inner()).await
    }

    /// There is no call that tells it, and none is needed: a stream that is enabled again has another ARN, and every
    /// new shard follows one that somebody reads to its end.
    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        let epoch = epoch(&self.attachment.stream);
        Ok(Some(StreamSummary { epoch, open_shards: None, retention: None }))
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(reader::DynamoDbReader::new(&self.inner(), shard, at)))
    }

    fn clock(&self) -> Option<ServiceClock> {
        Some(self.inner().clock.clone())
    }

    /// The service has no dry runs: an iterator is asked for, which reads nothing.
    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        reader::DynamoDbReader::new(&self.inner(), shard, &Position::TrimHorizon).iterator_at_start().await?;
        Ok(Some("GetShardIterator is allowed, GetRecords was not asked for"))
    }

    fn describe(&self) -> String {
        self.attachment.stream.to_string()
    }
}
