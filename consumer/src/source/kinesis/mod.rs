//! Polling a Kinesis data stream: ListShards, GetShardIterator, GetRecords.

mod client;
#[cfg(test)]
mod fake;
mod listing;
mod permission;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_types::SdkConfig;
use shardmill_engine::{Position, ShardId};

use super::aws::{Hears, Named, endpoint};
use super::context::Attachment;
use super::limiter::ReadLimiter;
use super::{
    ShardListing, ShardReader, SourceContext, SourceError, SourceErrorKind, StreamSource, StreamSummary,
};
use crate::clock::ServiceClock;

/// A Kinesis data stream, as its ARN names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KinesisStream {
    arn: Arc<str>,
    region: String,
    account: String,
    name: String,
}

impl KinesisStream {
    /// Reads `arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME`.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `arn` has another form.
    pub fn from_arn(arn: &str) -> Result<Self, SourceError> {
        let parsed = || {
            let mut parts = arn.splitn(6, ':');
            let is_arn = parts.next()? == "arn" && !parts.next()?.is_empty() && parts.next()? == "kinesis";
            let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
            let name = resource.strip_prefix("stream/")?;
            let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            let complete = [region, account, name].iter().all(|part| !part.is_empty() && is_name(part));
            (is_arn && complete).then(|| Self {
                arn: arn.into(),
                region: region.to_owned(),
                account: account.to_owned(),
                name: name.to_owned(),
            })
        };
        parsed().ok_or_else(|| SourceError {
            kind: SourceErrorKind::Rejected,
            api: "EventSourceArn",
            message: format!(
                "`{arn}` is not the ARN of a Kinesis data stream; \
                 it has the form arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
            ),
            source: None,
        })
    }

    /// The whole ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The region, such as `eu-west-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The id of the account that owns the stream.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Named for KinesisStream {
    fn arn(&self) -> &str {
        &self.arn
    }

    fn service(&self) -> &'static str {
        "kinesis"
    }
}

impl fmt::Display for KinesisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kinesis stream {} in {} ({})", self.name, self.region, self.account)
    }
}

/// Reads a Kinesis data stream by polling. Cheap to clone.
///
/// Needs `kinesis:DescribeStreamSummary`, `kinesis:ListShards`, `kinesis:GetShardIterator` and `kinesis:GetRecords`.
#[derive(Clone, Debug)]
pub struct KinesisSource {
    shared: Arc<Shared>,
}

/// What a source is before it has a context.
#[derive(Debug)]
struct Shared {
    stream: KinesisStream,
    settings: Builder,
    hears: Hears,
    attachment: Attachment<Inner>,
}

impl Shared {
    fn inner(&self, cx: &SourceContext) -> Inner {
        let clock = self.hears.of(cx.clock());
        Inner {
            client: client::observed(&self.settings, &clock),
            stream: self.stream.clone(),
            limiter: cx.limiter().clone().for_source(),
            clock,
        }
    }
}

#[derive(Debug)]
struct Inner {
    client: Client,
    stream: KinesisStream,
    limiter: ReadLimiter,
    clock: ServiceClock,
}

impl KinesisSource {
    /// A source with a client of its own for the stream's region, whatever region `config` names.
    ///
    /// The SDK's retries are off: the driver backs off without losing its place. A connection may take 5 s, an answer
    /// 30 s, unless `config` sets other timeouts. The service's time is learned from every successful answer, for all
    /// sources of the worker with the same endpoint.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `stream_arn` names no Kinesis data stream.
    pub fn new(config: &SdkConfig, stream_arn: &str) -> Result<Self, SourceError> {
        let stream = KinesisStream::from_arn(stream_arn)?;
        let hears = Hears::Endpoint(endpoint(&stream, stream.region(), config.endpoint_url()));
        let settings = client::from_config(config, &stream);
        Ok(Self::of(stream, settings, hears))
    }

    /// A source with a copy of `client` that keeps its region, endpoint, credentials and HTTP client; otherwise as
    /// [`new`](Self::new), but no other source shares what it learns of the service's time.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `stream_arn` names no Kinesis data stream.
    #[expect(clippy::needless_pass_by_value, reason = "a client is a handle, and destinations keep theirs")]
    pub fn from_client(client: Client, stream_arn: &str) -> Result<Self, SourceError> {
        let stream = KinesisStream::from_arn(stream_arn)?;
        let hears = Hears::Client(endpoint(&stream, stream.region(), None));
        Ok(Self::of(stream, client::from_client(&client), hears))
    }

    fn of(stream: KinesisStream, settings: Builder, hears: Hears) -> Self {
        Self { shared: Arc::new(Shared { stream, settings, hears, attachment: Attachment::new() }) }
    }

    fn inner(&self) -> Arc<Inner> {
        self.shared.attachment.get(|cx| self.shared.inner(cx))
    }

    /// The stream that this source reads.
    #[must_use]
    pub fn stream(&self) -> &KinesisStream {
        &self.shared.stream
    }
}

#[async_trait]
impl StreamSource for KinesisSource {
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        let shared = &self.shared;
        shared.attachment.attach(cx, &shared.stream, |cx| shared.inner(cx))
    }

    fn stream_arn(&self) -> Option<&str> {
        Some(self.shared.stream.arn())
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
        self.shared.stream.to_string()
    }
}
