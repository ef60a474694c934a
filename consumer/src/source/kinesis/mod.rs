//! Polling a Kinesis data stream: ListShards, GetShardIterator, GetRecords.

mod client;
mod encoding;
#[cfg(test)]
mod fake;
mod listing;
mod permission;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_types::SdkConfig;
use shardmill_engine::{EventSource, MappingError, Position, ShardId, StreamKind};

use encoding::Spoken;

use super::aws::{Address, Attachment, Call, Hears, Repeat, endpoint, stream_named};
use super::limiter::ReadLimiter;
use super::{ShardListing, ShardReader, SourceContext, SourceError, StreamSource, StreamSummary};
use crate::clock::ServiceClock;

/// Reads a Kinesis data stream by polling. Cheap to clone.
///
/// Needs `kinesis:DescribeStreamSummary`, `kinesis:ListShards`, `kinesis:GetShardIterator` and `kinesis:GetRecords`.
#[derive(Clone, Debug)]
pub struct KinesisSource {
    attachment: Arc<Attachment<Builder, Inner>>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    /// Makes most calls of `GetRecords`.
    repeat: Repeat,
    address: Address,
    /// What the client's endpoint understands.
    spoken: Spoken,
    stream: EventSource,
    limiter: ReadLimiter,
    clock: ServiceClock,
}

impl Inner {
    fn new(settings: &Builder, stream: EventSource, limiter: ReadLimiter, clock: ServiceClock) -> Self {
        let address = Address::default();
        let (client, repeat) = client::observed(settings, &clock, &address);
        Self { client, repeat, address, spoken: Spoken::default(), stream, limiter, clock }
    }

    /// A call, for messages.
    fn call<'a>(&'a self, api: &'static str, shard: Option<&'a ShardId>) -> Call<'a> {
        Call { api, stream: &self.stream, shard, address: &self.address, at: None }
    }
}

impl KinesisSource {
    /// A source of `stream`, an ARN or a mapping's [`event_source`](crate::EventSourceMapping::event_source), with a client
    /// of its own for the stream's region, regardless of the region in `config`.
    ///
    /// The SDK's retries are off: the driver backs off without losing its place. A connection may take 5 s, an answer
    /// 30 s, unless `config` sets other timeouts. The service's time is learned from every successful answer, for all
    /// sources of the worker with the same endpoint.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`](crate::SourceErrorKind::Rejected) if `stream` names no Kinesis data stream.
    pub fn new<S>(config: &SdkConfig, stream: S) -> Result<Self, SourceError>
    where
        S: TryInto<EventSource, Error = MappingError>,
    {
        let stream = stream_named(stream, StreamKind::Kinesis)?;
        let hears = Hears::Endpoint(endpoint(&stream, config.endpoint_url()));
        let settings = client::from_config(config, &stream);
        Ok(Self::of(stream, settings, hears))
    }

    /// A source with a copy of `client` that keeps its region, endpoint, credentials and HTTP client; otherwise as
    /// [`new`](Self::new), but no other source shares what it learns of the service's time.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`](crate::SourceErrorKind::Rejected) if `stream` names no Kinesis data stream.
    #[expect(clippy::needless_pass_by_value, reason = "a client is a handle, and destinations keep theirs")]
    pub fn from_client<S>(client: Client, stream: S) -> Result<Self, SourceError>
    where
        S: TryInto<EventSource, Error = MappingError>,
    {
        let stream = stream_named(stream, StreamKind::Kinesis)?;
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

#[async_trait]
impl StreamSource for KinesisSource {
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        self.attachment.attach(cx)
    }

    fn stream_arn(&self) -> Option<&str> {
        Some(self.attachment.stream.arn.as_str())
    }

    async fn shards(&self) -> Result<ShardListing, SourceError> {
        listing::list(&self.inner()).await
    }

    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        listing::summary(&self.inner()).await.map(Some)
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(reader::KinesisReader::new(&self.inner(), shard, at)))
    }

    fn clock(&self) -> Option<ServiceClock> {
        Some(self.inner().clock.clone())
    }

    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        permission::prove(&self.inner(), shard).await?;
        Ok(Some("GetShardIterator and GetRecords are allowed"))
    }

    fn describe(&self) -> String {
        self.attachment.stream.to_string()
    }
}
