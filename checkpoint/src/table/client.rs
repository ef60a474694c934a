//! The clients and their calls: each bounded in time and attempts, whatever the environment says.

use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_types::SdkConfig;
use tokio::time::Instant;

use super::Named;
use super::error::{Failure, Operation, Reach};

/// Attempts of one call.
const ATTEMPTS: u32 = 3;
/// The longest pause before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// The settings of clients by the SDK's configuration.
pub(crate) fn from_config(config: &SdkConfig, limit: Duration) -> Builder {
    bounded(Builder::from(config), limit)
}

/// The settings of clients like the given one.
pub(crate) fn from_client(client: &Client, limit: Duration) -> Builder {
    bounded(client.config().to_builder(), limit)
}

/// The attempts are counted here, not in the SDK: a conditional write that is refused after an attempt without an answer
/// may have been refused by its own first attempt (incident 13), which the SDK does not show.
fn bounded(builder: Builder, limit: Duration) -> Builder {
    let attempt = limit / ATTEMPTS;
    let timeouts = TimeoutConfig::builder().connect_timeout(attempt).operation_timeout(attempt).build();
    builder
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// An answer, and whether an attempt before it may have been carried out.
pub(crate) type Answered<T> = (T, bool);

/// Calls until there is an answer, an error that no further attempt helps, or the end of attempts or time.
pub(crate) async fn call<T, E, F>(
    operation: Operation,
    table: Named<'_>,
    until: Instant,
    mut send: impl FnMut() -> F,
) -> Result<Answered<Result<T, E>>, Failure>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
{
    let mut unsure = false;
    let mut failed = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            let pause = PAUSE.mul_f64(fastrand::f64() * f64::from(1 << (attempt - 1)));
            tokio::time::sleep_until((Instant::now() + pause).min(until)).await;
        }
        if Instant::now() >= until {
            break;
        }
        let failure = match tokio::time::timeout_at(until, Box::pin(send())).await {
            Ok(Ok(answer)) => return Ok((Ok(answer), unsure)),
            Ok(Err(SdkError::ServiceError(answer))) if is_refusal(answer.err()) => {
                return Ok((Err(answer.into_err()), unsure));
            }
            Ok(Err(error)) => Failure::of(operation, table, error),
            Err(_) => {
                return Err(Failure::new(Reach::Item, format!("{operation} failed: no answer in time")));
            }
        };
        unsure |= failure.is_unsure();
        let is_last = !failure.is_retryable();
        failed = Some(failure);
        if is_last {
            break;
        }
    }
    Err(failed.unwrap_or_else(|| Failure::new(Reach::Throttled, format!("{operation} was not sent in time"))))
}

/// A condition that does not hold is an answer.
pub(crate) fn is_refusal(error: &impl ProvideErrorMetadata) -> bool {
    error.code() == Some("ConditionalCheckFailedException")
}
