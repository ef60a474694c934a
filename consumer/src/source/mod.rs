//! The seam to a stream.

#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
mod aws;
mod context;
#[cfg(feature = "dynamodb-streams")]
mod dynamodb;
#[cfg(feature = "kinesis")]
mod kinesis;
mod limiter;
mod permits;

pub use context::SourceContext;
#[cfg(feature = "dynamodb-streams")]
pub use dynamodb::DynamoDbSource;
#[cfg(feature = "kinesis")]
pub use kinesis::KinesisSource;
pub use limiter::ReadLimiter;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardmill_engine::{AnswerEncoding, Page, Position, Shard, ShardId, Wall};

use crate::clock::ServiceClock;

/// A stream that can be listed and read shard by shard.
#[async_trait]
pub trait StreamSource: Send + Sync + 'static {
    /// Takes over the worker's clock and pace of reads. Called once for each consumer that is built with this source,
    /// before any other method of it is. By default nothing happens.
    ///
    /// # Errors
    /// The source cannot work with this context, for example because it belongs to another worker.
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        let _ = cx;
        Ok(())
    }

    /// The ARN of the stream, which must be the mapping's. `None` if the source has no ARN; it then fits any mapping.
    fn stream_arn(&self) -> Option<&str> {
        None
    }

    /// Lists every shard that the stream still knows, and the service's time of the answer.
    async fn shards(&self) -> Result<ShardListing, SourceError>;

    /// Asks with at most one call whether a full listing could show changes. `None` if the service has no such call; the
    /// stream is then listed at every interval.
    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        Ok(None)
    }

    /// Opens a shard. Costs no read: the first page says whether the place could be found.
    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError>;

    /// The service's clock, if the source follows it; else the worker's, which is the host's, counts.
    fn clock(&self) -> Option<ServiceClock> {
        None
    }

    /// Asks whether the shard may be read, without reading it as far as the service offers that: what was found to be
    /// allowed, in words; `None` where there is nothing to ask.
    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        let _ = shard;
        Ok(None)
    }

    /// What and where the stream is, for logs.
    fn describe(&self) -> String;
}

#[async_trait]
impl<S: StreamSource + ?Sized> StreamSource for Arc<S> {
    fn attach(&self, cx: &SourceContext) -> Result<(), SourceError> {
        (**self).attach(cx)
    }

    fn stream_arn(&self) -> Option<&str> {
        (**self).stream_arn()
    }

    async fn shards(&self) -> Result<ShardListing, SourceError> {
        (**self).shards().await
    }

    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        (**self).summary().await
    }

    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        (**self).open(shard, at).await
    }

    fn clock(&self) -> Option<ServiceClock> {
        (**self).clock()
    }

    async fn may_read(&self, shard: &ShardId) -> Result<Option<&'static str>, SourceError> {
        (**self).may_read(shard).await
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Reads one shard in order.
#[async_trait]
pub trait ShardReader: Send {
    /// The next page, of at most `limit` records; may be empty. After an error the reader keeps its position and
    /// may be asked again, except for [`SourceErrorKind::IteratorExpired`], which asks for a new reader (I14).
    ///
    /// After a page with a backlog behind it (`millis_behind` above 0, `limit` records, or 1 MiB) the next page is asked for
    /// at once: the wait for what the service permits is here (I12).
    async fn next_page(&mut self, limit: usize) -> Result<Page, SourceError>;

    /// Waits until a read may start, and keeps that turn for [`next_page`](Self::next_page), which takes one itself if there is
    /// none. What a page may take of [`WorkerOptions::buffer_bytes`](crate::WorkerOptions::buffer_bytes) is reserved only then.
    /// A reader that never waits does nothing.
    async fn take_turn(&mut self) {}

    /// There is no room for a page now: others may read meanwhile.
    fn give_turn_back(&mut self) {}

    /// Whether a record that cannot be decoded is left out and named in [`Page::skipped`] from now on. A reader that knows
    /// no such records does nothing.
    fn skip_undecodable(&mut self, skips: bool) {
        let _ = skips;
    }

    /// In which encoding the service is asked to answer from now on; until then [`AnswerEncoding::Auto`]. A reader that
    /// knows only one does nothing.
    fn ask_for(&mut self, encoding: AnswerEncoding) {
        let _ = encoding;
    }
}

/// The shards of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardListing {
    /// What tells this stream from an earlier one of the same name: its creation time in epoch seconds, or the label of a
    /// DynamoDB stream.
    pub epoch: String,
    /// Every shard that the stream still knows.
    pub shards: Vec<Shard>,
    /// The service's time of the answer, if it said so.
    pub service_time: Option<Wall>,
    /// How long the stream keeps records, for a service that silently resumes at the oldest record when a reader's position
    /// is older than that; `None` if the service refuses such a position with [`SourceErrorKind::Trimmed`] (I17).
    pub retention: Option<Duration>,
    /// Whether the stream takes no more records: a DynamoDB stream that was disabled. What it holds can still be read.
    pub is_disabled: bool,
}

impl ShardListing {
    /// A listing that says neither the service's time nor a retention.
    #[must_use]
    pub fn new(epoch: impl Into<String>, shards: Vec<Shard>) -> Self {
        Self { epoch: epoch.into(), shards, service_time: None, retention: None, is_disabled: false }
    }
}

/// What tells whether a stream's shards have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSummary {
    /// As in [`ShardListing::epoch`].
    pub epoch: String,
    /// How many shards take new records. `None` if that is not known without a listing, and new shards only ever follow
    /// others: then the stream is listed when a shard has ended and none that follows it has a lease.
    pub open_shards: Option<usize>,
    /// As in [`ShardListing::retention`].
    pub retention: Option<Duration>,
}

impl StreamSummary {
    /// A summary that says neither how many shards are open nor a retention.
    #[must_use]
    pub fn new(epoch: impl Into<String>) -> Self {
        Self { epoch: epoch.into(), open_shards: None, retention: None }
    }
}

/// The shards of a listing that follow `shard`.
#[cfg(any(feature = "dynamodb-streams", feature = "kinesis"))]
fn children_of(shard: &ShardId, listed: &[Shard]) -> Vec<Shard> {
    listed.iter().filter(|listed| listed.parents.contains(shard)).cloned().collect()
}

/// Why a stream could not be listed or read. Every kind is retried with backoff and shown in metrics and status.
#[derive(Debug, thiserror::Error)]
#[error("{api}: {message}")]
#[non_exhaustive]
pub struct SourceError {
    /// What to do about it.
    pub kind: SourceErrorKind,
    /// The call that failed: `GetRecords`.
    pub api: &'static str,
    /// What happened and, where it helps, what to do.
    pub message: String,
    /// The underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// An error of one call, with what happened and what to do about it.
    #[must_use]
    pub fn new(kind: SourceErrorKind, api: &'static str, message: impl Into<String>) -> Self {
        Self { kind, api, message: message.into(), source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

/// What a [`SourceError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// The service asks to slow down.
    Throttled,
    /// No answer, a broken answer, or an error inside the service.
    Unavailable,
    /// The iterator is too old: open again at the last position (I14).
    IteratorExpired,
    /// The position is older than what the service still holds: records between the two are gone (I17).
    Trimmed,
    /// The stream or the shard does not exist.
    NotFound,
    /// Credentials are missing, expired or do not suffice.
    AccessDenied,
    /// The service does not accept the request: a position that it does not know, a wrong name.
    Rejected,
    /// A record of the answer has a form that the service's interface does not describe.
    Undecodable,
}

impl SourceErrorKind {
    /// The kind as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::IteratorExpired => "iterator_expired",
            Self::Trimmed => "trimmed",
            Self::NotFound => "not_found",
            Self::AccessDenied => "access_denied",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
        }
    }
}
