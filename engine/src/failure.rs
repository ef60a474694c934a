//! The messages for the on-failure destination, as exact JSON (lambda-esm.md, sections 3.5 to 3.9).

use crate::record::{Batch, ShardId};
use crate::request::RequestId;
use crate::time::Wall;

/// A batch that is given up, for its destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FailedBatch {
    /// The records.
    pub batch: Batch,
    /// The shard that they came from.
    pub shard: ShardId,
    /// The request id of the last invocation.
    pub request_id: RequestId,
    /// Why it is given up.
    pub condition: Condition,
    /// How often the batch was invoked; at least 1 (R29).
    pub approximate_invoke_count: u32,
    /// What the function answered last; none if it never saw the batch (R24, R29).
    pub response: Option<FunctionResponse>,
    /// When it was given up, by the service's clock.
    pub at: Wall,
}

/// Why a batch is given up (R78).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// All attempts failed.
    RetryAttemptsExhausted,
    /// The records are older than `MaximumRecordAgeInSeconds`.
    RecordAgeExceeded,
}

/// How the function's last answer is reported (R35, R40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionResponse {
    /// The function answered and named failed records: `functionError` is null.
    Returned,
    /// The function failed: `functionError` is `"Unhandled"`.
    Unhandled,
}
