//! A batch with its budget.

use crate::failure::FunctionResponse;
use crate::record::Batch;
use crate::request::RequestId;

/// A batch with its budget: a part of a batch is a new batch with a new request id and all attempts left (R21, R43).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::shard) struct Attempt {
    /// Empty for the final call of a tumbling window.
    pub(in crate::shard) batch: Batch,
    pub(in crate::shard) request_id: RequestId,
    /// Invocations that counted.
    pub(in crate::shard) invokes: u32,
    pub(in crate::shard) response: Option<FunctionResponse>,
    /// The size of the event, if it was found too large to be sent.
    pub(super) oversized: Option<usize>,
}

impl Attempt {
    pub(super) fn new(batch: Batch, rng: &mut fastrand::Rng) -> Self {
        Self {
            batch,
            request_id: RequestId::from_random(rng.u128(..)),
            invokes: 0,
            response: None,
            oversized: None,
        }
    }

    pub(super) fn count(&mut self, response: Option<FunctionResponse>) {
        self.invokes = self.invokes.saturating_add(1);
        self.response = response;
    }
}
