//! The seam to user code: what is called with a batch.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use shardmill_engine::{Batch, BatchResponse, EventContext, RequestId, ShardId, WindowCall};
use tokio_util::sync::CancellationToken;

use crate::places::Places;

/// Processes batches. Implemented by closures `Fn(Batch, InvokeContext) -> Future`.
///
/// Calls for one shard come one after the other (per lane with `ParallelizationFactor`), calls for different shards at
/// the same time. A panic is a function error: the batch is retried and the shard goes on.
pub trait Handler: Send + Sync + 'static {
    /// Processes one batch. `Ok` names the records that are to come again, if any, which is read only if the mapping has
    /// `ReportBatchItemFailures` (R33), and carries a tumbling window's new state, if the mapping has windows (R66).
    fn handle(
        &self,
        batch: Batch,
        cx: InvokeContext,
    ) -> impl Future<Output = Result<BatchResponse, HandlerError>> + Send;

    /// How many invocations may run at once over all shards and consumers that share the function. Asked for once, when
    /// the consumer starts; by default any number.
    fn places(&self) -> Places {
        Places::unlimited()
    }
}

impl<F, Fut> Handler for F
where
    F: Fn(Batch, InvokeContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BatchResponse, HandlerError>> + Send,
{
    fn handle(
        &self,
        batch: Batch,
        cx: InvokeContext,
    ) -> impl Future<Output = Result<BatchResponse, HandlerError>> + Send {
        self(batch, cx)
    }
}

/// What a handler is told about an invocation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvokeContext {
    /// Stays the same while an unchanged batch is retried (R21).
    pub request_id: RequestId,
    /// 1 for the first invocation of a batch.
    pub attempt: u32,
    /// When the invocation is given up as a function error: `Function.Timeout` after its start.
    pub deadline: tokio::time::Instant,
    /// The shard.
    pub shard: ShardId,
    /// Rises with every change of the lease's owner: hand it to a store that refuses writes with a lower one.
    pub fencing_token: u64,
    /// Cancelled when the lease is lost or the process stops without waiting for this call any longer.
    pub cancelled: CancellationToken,
    /// The ARN of the function, as configured.
    pub function_arn: Arc<str>,
    /// The tumbling window of the records, with the state that its last invocation answered; `None` without
    /// `TumblingWindowInSeconds` (R65). The answer must carry the new state (R66).
    pub window: Option<WindowCall>,
    pub(crate) event: Arc<EventContext>,
    pub(crate) may_start: MayStart,
}

impl InvokeContext {
    /// The event that Lambda would send for `batch`, as JSON. Encoded at most once per batch.
    #[must_use]
    pub fn event(&self, batch: &Batch) -> Bytes {
        batch.event_or_encode(|batch| shardmill_engine::encode(batch, &self.event, self.window.as_ref()))
    }

    /// Whether the invocation may begin at this moment: the shard's lease is valid and nobody called it off (I10).
    ///
    /// A handler that waits before it hands the event over, for a connection or a process say, asks right before it does,
    /// each time it does; if the answer is no, it returns [`HandlerError::not_started`]. Meanwhile the machine may have been
    /// suspended, and another worker may have taken the shard.
    #[must_use]
    pub fn may_start(&self) -> bool {
        !self.cancelled.is_cancelled() && (self.may_start.0)()
    }

    /// A context for testing a handler: attempt 1, a deadline one minute away, a lease that is always valid.
    #[must_use]
    pub fn for_test(shard: &str) -> Self {
        Self::for_test_while(shard, || true)
    }

    /// The same with a lease that is valid whenever `may_start` says so.
    #[must_use]
    pub fn for_test_while(shard: &str, may_start: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let event = EventContext {
            event_source_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/test".into(),
            region: "us-east-1".into(),
            invoke_identity_arn: "arn:aws:iam::000000000000:role/shardmill".into(),
            shard: shard.into(),
        };
        Self {
            request_id: RequestId::from_random(0),
            attempt: 1,
            deadline: tokio::time::Instant::now() + Duration::from_secs(60),
            shard: shard.into(),
            fencing_token: 1,
            cancelled: CancellationToken::new(),
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:test".into(),
            window: None,
            event: Arc::new(event),
            may_start: MayStart::new(may_start),
        }
    }
}

/// Whether a shard's lease is valid at the moment of the call.
#[derive(Clone)]
pub(crate) struct MayStart(Arc<dyn Fn() -> bool + Send + Sync>);

impl MayStart {
    pub(crate) fn new(may_start: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_start))
    }

    pub(crate) fn now(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for MayStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MayStart").field(&(self.0)()).finish()
    }
}

/// Why a batch was not processed.
///
/// Its text (`Display`) is shown to everybody: in the log at every level, in [`ConsumerStatus`](crate::ConsumerStatus),
/// and by the sidecar in `/readyz` and `/v1/status`. It must hold nothing secret and nothing of a record. What a function
/// said in its own words may quote both: that belongs into [`details`](Self::details), which are logged at debug only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// The function failed: spends an attempt (R19).
    #[error("the function failed: {0}")]
    Function(Box<dyn std::error::Error + Send + Sync>),
    /// The function was not reached: waits and tries again without spending an attempt (R23).
    #[error("the function was not reached: {reason}")]
    NotReached {
        /// What happened.
        reason: String,
        /// How long the function asked to be left alone: this shard waits at least so long, with a backoff of its own.
        /// `None`: nothing was there to ask; if it answers nobody else either, all shards together try it once a second
        /// (see [`Places`]).
        retry_after: Option<Duration>,
    },
    /// The stop of this process ended the function, too, before it answered: spends no attempt and counts as cut (I16).
    #[error("the invocation was cut off: {reason}")]
    Cut {
        /// What happened.
        reason: String,
    },
    /// The function's transport refuses an event of this size: spends an attempt (R24).
    #[error("the event is larger than the function takes: {0}")]
    TooLarge(String),
}

const NOT_STARTED: &str = "the shard's lease ran out, or the invocation was called off, before it began";

impl HandlerError {
    /// A function error with this text.
    #[must_use]
    pub fn function(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Function(error.into())
    }

    /// An invocation that did not begin because it no longer [may](InvokeContext::may_start).
    #[must_use]
    pub fn not_started() -> Self {
        Self::NotReached { reason: NOT_STARTED.to_owned(), retry_after: Some(Duration::ZERO) }
    }

    /// Whether it says that nobody tried to reach the function.
    pub(crate) fn is_not_started(&self) -> bool {
        matches!(self, Self::NotReached { reason, .. } if reason == NOT_STARTED)
    }

    /// A function error whose text everybody may read, with what the function said in its own words.
    #[must_use]
    pub fn function_with_details(summary: impl Into<String>, details: impl Into<String>) -> Self {
        Self::Function(Box::new(Detailed { summary: summary.into(), details: details.into() }))
    }

    /// What the function said in its own words; may quote records or hold secrets. None if nothing was set apart.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        let Self::Function(error) = self else { return None };
        error.downcast_ref().map(|detailed: &Detailed| detailed.details.as_str())
    }
}

/// A failure in two parts. Its `Debug` is its text, too: errors are often printed that way.
#[derive(thiserror::Error)]
#[error("{summary}")]
struct Detailed {
    summary: String,
    details: String,
}

impl std::fmt::Debug for Detailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// [`Handler`] as an object.
pub(crate) trait DynHandler: Send + Sync {
    fn call(&self, batch: Batch, cx: InvokeContext) -> BoxFuture<'_, Result<BatchResponse, HandlerError>>;
    fn places(&self) -> Places;
}

impl<H: Handler> DynHandler for H {
    fn call(&self, batch: Batch, cx: InvokeContext) -> BoxFuture<'_, Result<BatchResponse, HandlerError>> {
        Box::pin(self.handle(batch, cx))
    }

    fn places(&self) -> Places {
        Handler::places(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_86_what_a_function_said_in_its_own_words_is_in_the_details_alone() {
        let error = HandlerError::function_with_details("it answered 500 (17 bytes)", "payload: c2VjcmV0");
        assert_eq!(error.to_string(), "the function failed: it answered 500 (17 bytes)");
        assert!(!format!("{error:?}").contains("c2VjcmV0"), "{error:?}");
        assert_eq!(error.details(), Some("payload: c2VjcmV0"));
        assert_eq!(HandlerError::function("a text of one's own").details(), None);
    }

    #[test]
    fn what_did_not_start_is_told_from_what_was_not_reached() {
        assert!(HandlerError::not_started().is_not_started());
        let reason = "cannot connect".to_owned();
        assert!(!HandlerError::NotReached { reason, retry_after: None }.is_not_started());
        assert!(!HandlerError::function(NOT_STARTED).is_not_started());
    }
}
