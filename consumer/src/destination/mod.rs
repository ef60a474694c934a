//! The seam to an on-failure destination.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use shardmill_engine::{EventContext, FailedBatch};

pub use shardmill_engine::FailureNames;

/// Takes batches that are given up.
#[async_trait]
pub trait Destination: Send + Sync + 'static {
    /// Delivers one batch; when this returns `Ok`, the checkpoint may pass it (I3).
    async fn deliver(&self, failed: &Failure) -> Result<(), DestinationError>;

    /// What and where the destination is, for logs.
    fn describe(&self) -> String;
}

/// A batch that is given up, with what its messages say beside it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The batch and why it is given up.
    pub failed: FailedBatch,
    /// Names that the messages carry.
    pub names: Arc<FailureNames>,
    pub(crate) event: Arc<EventContext>,
}

impl Failure {
    /// The original event, as the function got it.
    #[must_use]
    pub fn event(&self) -> Bytes {
        self.failed.batch.event_or_encode(|batch| shardmill_engine::encode(batch, &self.event))
    }
}

/// Why a delivery failed; it is tried again with backoff unless `OnDestinationFailure` is `drop`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DestinationError {
    /// What happened and, where it helps, what to do.
    pub message: String,
    /// The underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
