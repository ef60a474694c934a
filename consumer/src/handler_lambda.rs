//! Functions written for `lambda_runtime` as handlers.

use std::fmt;
use std::marker::PhantomData;
use std::time::SystemTime;

use lambda_runtime::{Context, Diagnostic, LambdaEvent, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shardmill_engine::{Batch, BatchResponse};

use crate::handler::{Handler, HandlerError, InvokeContext};

/// Runs a function that was written for `lambda_runtime`, such as a `service_fn`, in this process.
///
/// The function gets the JSON event that Lambda would send, read as its own type `A`, and a context with request id,
/// deadline and ARN. What it returns is read as Lambda would (R33 to R36); an error, or an event that is no `A`, is a
/// function error. Each invocation calls a clone of the service.
///
/// ```
/// # use lambda_runtime::{LambdaEvent, service_fn};
/// # use serde_json::{Value, json};
/// use shardmill::LambdaHandler;
///
/// async fn function(event: LambdaEvent<Value>) -> Result<Value, lambda_runtime::Error> {
///     let failed = &event.payload["Records"][0]["kinesis"]["sequenceNumber"];
///     Ok(json!({"batchItemFailures": [{"itemIdentifier": failed}]}))
/// }
///
/// let handler = LambdaHandler::new(service_fn(function));
/// # let _ = handler;
/// ```
pub struct LambdaHandler<S, A> {
    service: S,
    payload: PhantomData<fn() -> A>,
}

impl<S, A> LambdaHandler<S, A>
where
    S: Service<LambdaEvent<A>>,
{
    /// Takes the service that would be given to `lambda_runtime::run`.
    pub const fn new(service: S) -> Self {
        Self { service, payload: PhantomData }
    }
}

impl<S, A> fmt::Debug for LambdaHandler<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LambdaHandler").finish_non_exhaustive()
    }
}

impl<S, A> Handler for LambdaHandler<S, A>
where
    S: Service<LambdaEvent<A>> + Clone + Send + Sync + 'static,
    S::Response: Serialize,
    S::Error: Into<Diagnostic>,
    S::Future: Send,
    A: DeserializeOwned + Send + 'static,
{
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        let payload = serde_json::from_slice(&cx.event(&batch)).map_err(|error| {
            HandlerError::function_with_details("the function does not take the event", error.to_string())
        })?;
        let event = LambdaEvent::new(payload, context(&cx));
        let mut service = self.service.clone();
        std::future::poll_fn(|task| service.poll_ready(task).map_err(failed)).await?;
        let answer = service.call(event).await.map_err(failed)?;
        serde_json::to_vec(&answer)
            .map_err(HandlerError::function)
            .and_then(|json| BatchResponse::from_json(&json).map_err(HandlerError::function))
    }
}

fn failed(error: impl Into<Diagnostic>) -> HandlerError {
    let Diagnostic { error_type, error_message } = error.into();
    HandlerError::function_with_details(format!("it returned an error ({error_type})"), error_message)
}

fn context(cx: &InvokeContext) -> Context {
    let left = cx.deadline.saturating_duration_since(tokio::time::Instant::now());
    let deadline = (SystemTime::now() + left).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut context = Context::default();
    context.request_id = cx.request_id.to_string();
    context.deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    context.invoked_function_arn = cx.function_arn.to_string();
    context
}
