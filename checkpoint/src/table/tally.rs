//! Counts the calls to a table and what they cost.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::ConsumedCapacity;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use parking_lot::Mutex;

use super::client::is_refusal;
use super::error::{Operation, is_throttle};
use crate::{CallOutcome, Usage};

#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Usage>);

impl Tally {
    /// An attempt of a call has ended.
    pub(crate) fn ended<T, E: ProvideErrorMetadata>(
        &self,
        operation: Operation,
        result: &Result<T, SdkError<E, HttpResponse>>,
    ) {
        let outcome = match result {
            Ok(_) => CallOutcome::Done,
            Err(SdkError::ServiceError(answer)) if is_refusal(answer.err()) => CallOutcome::Refused,
            Err(SdkError::ServiceError(answer))
                if is_throttle(answer.err().code(), answer.raw().status().as_u16()) =>
            {
                CallOutcome::Throttled
            }
            Err(_) => CallOutcome::Failed,
        };
        *self.0.lock().calls.entry((operation, outcome)).or_default() += 1;
    }

    /// What an answer says that a read has cost.
    pub(crate) fn read(&self, consumed: Option<&ConsumedCapacity>) {
        self.0.lock().read_units += units(consumed);
    }

    /// What an answer says that a write has cost.
    pub(crate) fn wrote(&self, consumed: Option<&ConsumedCapacity>) {
        self.0.lock().write_units += units(consumed);
    }

    pub(crate) fn usage(&self) -> Usage {
        self.0.lock().clone()
    }
}

fn units(consumed: Option<&ConsumedCapacity>) -> f64 {
    consumed.and_then(ConsumedCapacity::capacity_units).unwrap_or_default()
}
