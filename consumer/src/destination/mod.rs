//! The seam to an on-failure destination.

mod file;
#[cfg(feature = "s3")]
mod s3;
#[cfg(any(feature = "sqs", feature = "sns", feature = "s3"))]
mod service;
#[cfg(feature = "sns")]
mod sns;
#[cfg(feature = "sqs")]
mod sqs;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use async_trait::async_trait;
#[cfg(feature = "aws")]
use aws_types::SdkConfig;
use bytes::Bytes;
#[cfg(feature = "aws")]
use shardmill_engine::FailureDestination;
use shardmill_engine::{Batch, Condition, EventContext, FailedBatch, Record, RequestId, ShardId, Wall};

pub use file::FileDestination;
#[cfg(feature = "s3")]
pub use s3::S3Destination;
pub use shardmill_engine::FailureNames;
#[cfg(feature = "sns")]
pub use sns::SnsDestination;
#[cfg(feature = "sqs")]
pub use sqs::SqsDestination;

/// Takes discarded batches.
#[async_trait]
pub trait Destination: Send + Sync + 'static {
    /// Delivers one batch; when this returns `Ok`, the checkpoint may pass it (I3). A delivery that fails is
    /// retried and may by then have arrived: destinations get a batch at least once.
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError>;

    /// Whether the destination answers, without delivering anything. Some can only be checked by delivering.
    async fn probe(&self) -> Result<Probe, DestinationError> {
        Ok(Probe::NotAsked("it can only be asked by a delivery".to_owned()))
    }

    /// What and where the destination is, for logs.
    fn describe(&self) -> String;
}

#[async_trait]
impl<D: Destination + ?Sized> Destination for Arc<D> {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        (**self).deliver(discarded).await
    }
    async fn probe(&self) -> Result<Probe, DestinationError> {
        (**self).probe().await
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// The destination that a mapping names, with a client made from `config`. A file is opened, and created if it is missing.
///
/// # Errors
/// The file cannot be appended to, an endpoint is not a URL, or the destination's cargo feature (`sqs`, `sns`, `s3`) is
/// not enabled.
#[cfg(feature = "aws")]
pub fn connect(
    destination: &FailureDestination,
    config: &SdkConfig,
) -> Result<Arc<dyn Destination>, DestinationError> {
    // Without any of the features nothing looks at it.
    let _ = config;
    match destination {
        FailureDestination::File(path) => Ok(Arc::new(FileDestination::open_blocking(path)?)),
        #[cfg(feature = "sqs")]
        FailureDestination::Sqs(queue) => Ok(Arc::new(SqsDestination::of(config, queue)?)),
        #[cfg(not(feature = "sqs"))]
        FailureDestination::Sqs(_) => Err(not_enabled(destination, "sqs")),
        #[cfg(feature = "sns")]
        FailureDestination::Sns(topic) => Ok(Arc::new(SnsDestination::of(config, topic.clone()))),
        #[cfg(not(feature = "sns"))]
        FailureDestination::Sns(_) => Err(not_enabled(destination, "sns")),
        #[cfg(feature = "s3")]
        FailureDestination::S3(bucket) => Ok(Arc::new(S3Destination::of(config, bucket))),
        #[cfg(not(feature = "s3"))]
        FailureDestination::S3(_) => Err(not_enabled(destination, "s3")),
        _ => Err(DestinationError::new(format!("{destination} is of a kind that is not known here"))),
    }
}

#[cfg(all(feature = "aws", not(all(feature = "sqs", feature = "sns", feature = "s3"))))]
fn not_enabled(destination: &FailureDestination, feature: &str) -> DestinationError {
    DestinationError::new(format!(
        "{destination} needs the cargo feature \"{feature}\" of the crate shardmill; enable it, or call on_failure() with \
         a destination of your own"
    ))
}

/// A destination's answer to a probe that delivers nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// It answers.
    Answers,
    /// Why it was not asked, or did not answer.
    NotAsked(String),
}

/// A discarded batch, with the names that its messages carry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Discarded {
    /// The batch, where it is from, and why it is discarded.
    pub batch: FailedBatch,
    /// Names that the messages carry.
    pub names: Arc<FailureNames>,
    pub(crate) event: Arc<EventContext>,
}

impl Discarded {
    /// A discarded batch for a test of a destination: of the stream `orders`, after its last attempt.
    #[must_use]
    pub fn for_test(batch: Batch) -> Self {
        let stream = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
        let shard = ShardId::from("shardId-000000000000");
        let (id, condition) = (RequestId::from_random(0), Condition::RetryAttemptsExhausted);
        Self {
            batch: FailedBatch::new(batch, shard.clone(), id, condition, Wall::from_millis(0)),
            names: Arc::new(FailureNames::new(
                "arn:aws:lambda:us-east-1:000000000000:function:orders-worker",
                "$LATEST",
                stream,
                "00000000-0000-4000-8000-000000000000",
            )),
            event: Arc::new(EventContext {
                event_source_arn: stream.into(),
                region: "us-east-1".into(),
                invoke_identity_arn: "arn:aws:iam::000000000000:role/shardmill".into(),
                shard,
            }),
        }
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.batch.batch.records()
    }

    /// The original event, as the function got it.
    #[must_use]
    pub fn event(&self) -> Bytes {
        let window = self.batch.window.as_ref();
        self.batch.batch.event_or_encode(|batch| shardmill_engine::encode(batch, &self.event, window))
    }

    /// The JSON text for a queue or an SNS topic: positions without records (R73).
    #[must_use]
    pub fn message(&self) -> String {
        shardmill_engine::failure_message(&self.batch, &self.names)
    }

    /// The JSON object in Lambda's S3 layout, on one line: positions and the whole event (R73).
    #[must_use]
    pub fn object(&self) -> Vec<u8> {
        shardmill_engine::failure_object(&self.batch, &self.names, &self.event())
    }

    /// The key of that object in a bucket; the same whenever the delivery of this batch is retried.
    #[must_use]
    pub fn object_key(&self) -> String {
        shardmill_engine::failure_object_key(&self.batch, &self.names)
    }
}

/// Why a delivery failed; it is retried with backoff unless `OnDestinationFailure` is `drop`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct DestinationError {
    /// What happened and, where it helps, what to do.
    pub message: String,
    /// The underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DestinationError {
    /// An error with what happened and what to do about it.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}
