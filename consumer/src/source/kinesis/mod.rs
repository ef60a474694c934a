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
use aws_types::SdkConfig;
use shardmill_engine::{Position, ShardId};

use super::aws::{Named, endpoint};
use super::limiter::ReadLimiter;
use super::{Glance, ShardListing, ShardReader, SourceError, SourceErrorKind, StreamSource};
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
    inner: Arc<Inner>,
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
    /// 30 s, unless `config` sets other timeouts. The endpoint's own [clock](ServiceClock::for_endpoint) of `clock`
    /// learns the service's time from every successful answer.
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `stream_arn` names no Kinesis data stream.
    pub fn new(
        config: &SdkConfig,
        stream_arn: &str,
        clock: &ServiceClock,
        limiter: ReadLimiter,
    ) -> Result<Self, SourceError> {
        let stream = KinesisStream::from_arn(stream_arn)?;
        let clock = clock.for_endpoint(&endpoint(&stream, stream.region(), config.endpoint_url()));
        let client = client::from_config(config, &stream, &clock);
        let limiter = limiter.for_source();
        Ok(Self { inner: Arc::new(Inner { client, stream, limiter, clock }) })
    }

    /// A source with a copy of `client` that keeps its region, endpoint, credentials and HTTP client; otherwise as [`Self::new`].
    ///
    /// # Errors
    /// [`SourceErrorKind::Rejected`] if `stream_arn` names no Kinesis data stream.
    pub fn from_client(
        client: &Client,
        stream_arn: &str,
        clock: &ServiceClock,
        limiter: ReadLimiter,
    ) -> Result<Self, SourceError> {
        let stream = KinesisStream::from_arn(stream_arn)?;
        let clock = clock.for_client(&endpoint(&stream, stream.region(), None));
        let client = client::from_client(client, &clock);
        let limiter = limiter.for_source();
        Ok(Self { inner: Arc::new(Inner { client, stream, limiter, clock }) })
    }

    /// The stream that this source reads.
    #[must_use]
    pub fn stream(&self) -> &KinesisStream {
        &self.inner.stream
    }
}

#[async_trait]
impl StreamSource for KinesisSource {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        listing::list(&self.inner).await
    }

    async fn glance(&self) -> Result<Option<Glance>, SourceError> {
        listing::glance(&self.inner).await.map(Some)
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(reader::KinesisReader::new(&self.inner, shard, at)))
    }

    fn clock(&self) -> Option<ServiceClock> {
        Some(self.inner.clock.clone())
    }

    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        permission::prove(&self.inner, shard).await?;
        Ok(Some("GetShardIterator and GetRecords are allowed"))
    }

    fn describe(&self) -> String {
        self.inner.stream.to_string()
    }
}
