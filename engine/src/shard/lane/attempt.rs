//! A batch with its budget, and what an answer says about it.

use crate::failure::FunctionResponse;
use crate::outcome::{BatchResponse, ItemFailure};
use crate::position::SequenceNumber;
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

pub(super) enum Verdict {
    Succeeded,
    /// The record at this index is the first that comes again; 0 is no progress.
    FailedFrom(usize),
}

/// The lowest reported identifier wins; one that names no record of the batch fails all of it (R35, R36, I7).
pub(super) fn judge(batch: &Batch, answer: &BatchResponse, report_batch_item_failures: bool) -> Verdict {
    if !report_batch_item_failures || answer.failures().is_empty() {
        return Verdict::Succeeded;
    }
    let places = answer.failures().iter().map(|failure| place(batch, failure).unwrap_or(0));
    Verdict::FailedFrom(places.min().unwrap_or(0))
}

/// Which record of the batch a reported failure names.
pub(super) fn place(batch: &Batch, failure: &ItemFailure) -> Option<usize> {
    let ItemFailure::Identifier(id) = failure else { return None };
    // A shard's records come in order; the sub-records of an aggregate share a number, and the first counts.
    let id = SequenceNumber::new(id.as_str());
    let at = batch.records().partition_point(|record| record.seq.number < id);
    batch.records().get(at).filter(|record| record.seq.number == id).map(|_| at)
}
