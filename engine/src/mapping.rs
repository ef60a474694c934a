//! The validated configuration of an event source mapping, under AWS's names.

use std::time::Duration;

use crate::position::Position;

/// A validated event source mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventSourceMapping {
    pub(crate) batch_size: usize,
    pub(crate) batching_window: Duration,
    pub(crate) bisect_batch_on_function_error: bool,
    pub(crate) maximum_retry_attempts: Option<u32>,
    pub(crate) report_batch_item_failures: bool,
    pub(crate) starting_position: Position,
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) polling: Polling,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) on_destination_failure: OnDestinationFailure,
}

/// How long to wait before a retry: doubling from `initial` to `maximum`, with jitter (R22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// The wait before the first retry.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub maximum_backoff: Duration,
}

/// How a shard is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Polling {
    /// The wait after an empty page at the tip of the shard.
    pub idle_interval: Duration,
    /// What the wait grows to on an open shard that stays empty.
    pub maximum_idle_interval: Duration,
    /// The least time between two reads of one shard, from start to start; zero turns pacing off.
    pub minimum_interval: Duration,
    /// Most records per read.
    pub maximum_records: usize,
    /// Bytes that one shard may buffer.
    pub buffer_bytes: usize,
}

/// What happens to a discarded batch that its destination does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDestinationFailure {
    /// Keep trying; the checkpoint waits (the deviation from R74).
    Block,
    /// Log and count the batch as dropped, as Lambda does (R74).
    Drop,
}
