//! The seam to user code: what is called with a batch.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use shardmill_engine::{Batch, BatchResponse, EventContext, RecordError, RequestId, ShardId, WindowCall};
use tokio_util::sync::CancellationToken;

use crate::places::Places;

/// Processes batches. Implemented by functions and closures `Fn(Batch, InvokeContext) -> Future`, whose output is a
/// [`HandlerOutput`].
///
/// Calls for one shard come one after the other (per lane with `ParallelizationFactor`), calls for different shards at
/// the same time. A panic is a function error: the batch is retried and the shard keeps running.
///
/// # Functions and closures
///
/// In an `async fn` every error works with `?`. Its test needs neither a stream nor an AWS account:
///
/// ```
/// use shardmill::{Batch, HandlerError, InvokeContext};
///
/// async fn handle(batch: Batch, _: InvokeContext) -> Result<(), HandlerError> {
///     for record in batch.records() {
///         let order: serde_json::Value = record.json()?;
///         println!("{order}");
///     }
///     Ok(())
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let cx = || InvokeContext::for_test("shardId-000000000000");
/// assert!(handle(Batch::for_test([r#"{"order": 1}"#, r#"{"order": 2}"#]), cx()).await.is_ok());
/// let error = handle(Batch::for_test(["this is not JSON"]), cx()).await.unwrap_err();
/// assert!(error.to_string().contains("line 1, column 2"));
/// # });
/// ```
///
/// A closure names its arguments' types. Rust cannot infer the error type of its async block; a closure that never fails
/// answers with a [`BatchResponse`], and one that may fail names the error once, at its end:
///
/// ```
/// # use shardmill::{Batch, BatchResponse, Handler, HandlerError, InvokeContext};
/// # fn is_handler(_: impl Handler) {}
/// is_handler(|batch: Batch, _: InvokeContext| async move {
///     println!("{} records", batch.len());
///     BatchResponse::success()
/// });
/// is_handler(|batch: Batch, _: InvokeContext| async move {
///     for record in batch.records() {
///         println!("{}", std::str::from_utf8(&record.bytes()?)?);
///     }
///     Ok::<_, HandlerError>(())
/// });
/// is_handler(async |batch: Batch, cx: InvokeContext| -> Result<(), HandlerError> {
///     println!("{} records of {}", batch.len(), cx.shard);
///     Ok(())
/// });
/// ```
///
/// A future without a value is no handler: a forgotten `?` would pass for success.
///
/// ```compile_fail,E0277
/// # use shardmill::{Batch, Handler, InvokeContext};
/// # fn is_handler(_: impl Handler) {}
/// # async fn process(_: Batch) -> Result<(), std::io::Error> { Ok(()) }
/// is_handler(|batch: Batch, _: InvokeContext| async move {
///     process(batch).await;
/// });
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Processes one batch. `Ok` names the records that are to be redelivered, if any, which is read only if the mapping
    /// has `ReportBatchItemFailures` (R33), and carries a tumbling window's new state, if the mapping has windows (R66).
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
    Fut: Future<Output: HandlerOutput> + Send,
{
    fn handle(
        &self,
        batch: Batch,
        cx: InvokeContext,
    ) -> impl Future<Output = Result<BatchResponse, HandlerError>> + Send {
        let output = self(batch, cx);
        async move { output.await.into_result() }
    }
}

/// What a function or a closure may return to be a [`Handler`]: a [`BatchResponse`], or a `Result` of `()` or a
/// [`BatchResponse`] and any error.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return `Result<(), HandlerError>`, `Result<BatchResponse, HandlerError>` or `BatchResponse`"
)]
pub trait HandlerOutput {
    /// The answer to the invocation.
    ///
    /// # Errors
    /// The batch was not processed.
    fn into_result(self) -> Result<BatchResponse, HandlerError>;
}

impl HandlerOutput for BatchResponse {
    fn into_result(self) -> Result<BatchResponse, HandlerError> {
        Ok(self)
    }
}

impl<T: Into<BatchResponse>, E: Into<HandlerError>> HandlerOutput for Result<T, E> {
    fn into_result(self) -> Result<BatchResponse, HandlerError> {
        self.map(Into::into).map_err(Into::into)
    }
}

/// What a handler knows about an invocation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InvokeContext {
    /// Stays the same while an unchanged batch is retried (R21).
    pub request_id: RequestId,
    /// 1 for the first invocation of a batch.
    pub attempt: u32,
    /// When the invocation ends as a function error: `Function.Timeout` after its start.
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

    /// Whether the invocation may begin at this moment: the shard's lease is valid and it was not called off (I10).
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

    /// The same with a lease that is valid while `may_start` returns true.
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
/// `?` makes [`Function`](Self::Function) of any error; it is no `Error` itself for that. What only converts into a boxed
/// error, such as `anyhow::Error` or a text, becomes one with [`function`](Self::function).
///
/// Its text (`Display`) is public: it is shown in the log at every level, in [`ConsumerStatus`](crate::ConsumerStatus),
/// and by the sidecar in `/readyz` and `/v1/status`. It must hold nothing secret and nothing of a record. What a function
/// said in its own words may quote both: that belongs into [`details`](Self::details), which are logged at debug only. The
/// text of an error that `?` converts is shown as it is; those of [`Record::json`](crate::Record::json) quote nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError {
    /// The function failed: spends an attempt (R19).
    Function(Box<dyn std::error::Error + Send + Sync>),
    /// The function was not reached: the batch is retried later without spending an attempt (R23).
    NotReached {
        /// What happened.
        reason: String,
        /// The back-off that the function requested (`Retry-After`): this shard waits at least so long, with a backoff
        /// of its own. `None` if the function did not answer; if no other shard reaches it either, all shards together
        /// try it once a second (see [`Places`]).
        retry_after: Option<Duration>,
    },
    /// The stop of this process ended the function, too, before it answered: spends no attempt and counts as cut (I16).
    Cut {
        /// What happened.
        reason: String,
    },
    /// The function's transport refuses an event of this size: spends an attempt (R24).
    TooLarge(String),
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(error) => write!(f, "the function failed: {error}"),
            Self::NotReached { reason, .. } => write!(f, "the function was not reached: {reason}"),
            Self::Cut { reason } => write!(f, "the invocation was cut off: {reason}"),
            Self::TooLarge(text) => write!(f, "the event is larger than the function takes: {text}"),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::function(error)
    }
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

    /// Whether it means that reaching the function was not attempted.
    pub(crate) fn is_not_started(&self) -> bool {
        matches!(self, Self::NotReached { reason, .. } if reason == NOT_STARTED)
    }

    /// A function error with a public text and, apart from it, the function's own words.
    #[must_use]
    pub fn function_with_details(summary: impl Into<String>, details: impl Into<String>) -> Self {
        Self::Function(Box::new(Detailed { summary: summary.into(), details: details.into() }))
    }

    /// What the function said in its own words; may quote records or hold secrets. `None` if nothing was set apart.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        let Self::Function(error) = self else { return None };
        let of_record = || error.downcast_ref().and_then(RecordError::details);
        error.downcast_ref().map(|detailed: &Detailed| detailed.details.as_str()).or_else(of_record)
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
    use shardmill_engine::Record;

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
    fn a_record_that_cannot_be_read_is_quoted_in_the_details_alone() {
        let read = || -> Result<u64, HandlerError> { Ok(Record::for_test("1", "\"c2VjcmV0\"").json()?) };
        let error = read().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error:?}");
        assert!(error.details().unwrap().contains("c2VjcmV0"));
    }

    #[tokio::test]
    async fn a_function_may_return_nothing_or_an_answer_with_any_error() {
        async fn nothing(_: Batch, _: InvokeContext) -> Result<(), std::fmt::Error> {
            Err(std::fmt::Error)
        }
        async fn answer(_: Batch, _: InvokeContext) -> BatchResponse {
            BatchResponse::failed(["1"])
        }
        let call = || (Batch::for_test(["x"]), InvokeContext::for_test("shard"));
        let (batch, cx) = call();
        assert!(matches!(Handler::handle(&nothing, batch, cx).await, Err(HandlerError::Function(_))));
        let (batch, cx) = call();
        assert!(Handler::handle(&answer, batch, cx).await.unwrap().names_failures());
    }

    #[test]
    fn what_did_not_start_is_told_from_what_was_not_reached() {
        assert!(HandlerError::not_started().is_not_started());
        let reason = "cannot connect".to_owned();
        assert!(!HandlerError::NotReached { reason, retry_after: None }.is_not_started());
        assert!(!HandlerError::function(NOT_STARTED).is_not_started());
    }
}
