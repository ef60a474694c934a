//! What a shard machine shows of itself: for status, metrics and tests.

use std::ops::AddAssign;
use std::time::Duration;

use super::gap::Gap;
use crate::position::{Position, Seq};
use crate::request::RequestId;

/// A shard at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// What the store holds.
    pub checkpoint: Position,
    /// How far the shard was read.
    pub read: Position,
    /// How far behind the newest record the last page was, in milliseconds, if the service said so.
    pub millis_behind: Option<u64>,
    /// Records that were read and are not resolved.
    pub buffered_records: usize,
    /// Bytes that are held for them (I13): the pages that they are in, encoded events, states of windows, and what is
    /// remembered of records that are done before others.
    pub buffered_bytes: usize,
    /// Discarded batches that are not yet delivered.
    pub undelivered_discards: usize,
    /// Failures in a row of reads, and of checkpoint writes.
    pub read_failures: u32,
    /// Failures in a row of checkpoint writes.
    pub checkpoint_failures: u32,
    /// The time between a record's arrival in the stream and its invocation, for the last record of the last batch, in
    /// milliseconds.
    pub iterator_age_millis: Option<u64>,
    /// How long ago the oldest record arrived that was read and is not resolved, in milliseconds; `None` if none waits.
    pub oldest_waiting_millis: Option<u64>,
    /// How the last invocation ended (`LastProcessingResult`, R18).
    pub last_result: LastResult,
    /// Invocations that the deadline of a stop has cut off.
    pub cut_invocations: usize,
    /// Whether the end of the shard was read.
    pub ended: bool,
    /// Whether the service named the shards that follow.
    pub children_told: bool,
    /// The last gap that this run noticed (I17).
    pub last_gap: Option<Gap>,
    /// The lanes.
    pub lanes: Vec<LaneSnapshot>,
    /// What was counted since the run began.
    pub counters: Counters,
}

/// `LastProcessingResult` (R18). Discards never change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LastResult {
    /// Nothing was invoked yet.
    #[default]
    NoRecords,
    /// The function answered, also with records that failed.
    Ok,
    /// The function failed, or its answer is not what the mapping asks for: a failure that names no record of the batch
    /// (R35), or no state for its tumbling window (R66).
    FunctionCallFailed,
}

impl LastResult {
    /// Lambda's text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRecords => "No records processed",
            Self::Ok => "OK",
            Self::FunctionCallFailed => "PROBLEM: Function call failed",
        }
    }
}

/// A lane at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneSnapshot {
    /// Records that wait to be put into a batch.
    pub queued: usize,
    /// Whether an invocation is under way.
    pub invoking: bool,
    /// Whether the lane has something to invoke and waits for a place of `Function.MaximumConcurrency`, or for the
    /// function to be reached again.
    pub waits_for_place: bool,
    /// Records of the current batch.
    pub batch: usize,
    /// Its first record; `None` for the final call of a tumbling window.
    pub first: Option<Seq>,
    /// Its last record.
    pub last: Option<Seq>,
    /// The request id of its invocations (R21).
    pub request_id: Option<RequestId>,
    /// Invocations of the current batch that counted.
    pub attempts: u32,
    /// Until the next retry, if one waits.
    pub retry_in: Option<Duration>,
    /// Set while the current batch is one record whose event exceeds the payload limit: its attempts are spent without
    /// an invocation (R24).
    pub oversized: Option<Oversized>,
}

/// A record whose event is larger than the mapping's payload limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Oversized {
    /// The record; `None` for the final call of a tumbling window, whose state is too large.
    pub record: Option<Seq>,
    /// The size of its event, in bytes.
    pub bytes: usize,
}

/// Records and batches, counted by Lambda's rules (docs/semantics.md, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counters {
    /// `PolledEventCount`: records read.
    pub polled: u64,
    /// `FilteredOutEventCount`: records that the filter removed.
    pub filtered: u64,
    /// `InvokedEventCount`: records handed to the function, again for every retry; counted when the invocation has ended
    /// or was cut off. One that did not reach the function does not count.
    pub invoked: u64,
    /// `FailedInvokeEventCount`: records of failed invocations.
    pub failed: u64,
    /// `DroppedEventCount`: discarded records that no destination took.
    pub dropped: u64,
    /// `OnFailureDestinationDeliveredEventCount`: records whose message was delivered.
    pub delivered: u64,
    /// `DestinationDeliveryFailures`: messages that the destination did not take, once per attempt.
    pub delivery_failures: u64,
    /// Gaps: records lost before they were read, once for each time it was noticed (I17).
    pub gaps: u64,
}

impl Counters {
    /// What was counted since `earlier`, an earlier reading of the same counters.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            polled: self.polled.saturating_sub(earlier.polled),
            filtered: self.filtered.saturating_sub(earlier.filtered),
            invoked: self.invoked.saturating_sub(earlier.invoked),
            failed: self.failed.saturating_sub(earlier.failed),
            dropped: self.dropped.saturating_sub(earlier.dropped),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            delivery_failures: self.delivery_failures.saturating_sub(earlier.delivery_failures),
            gaps: self.gaps.saturating_sub(earlier.gaps),
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.polled += other.polled;
        self.filtered += other.filtered;
        self.invoked += other.invoked;
        self.failed += other.failed;
        self.dropped += other.dropped;
        self.delivered += other.delivered;
        self.delivery_failures += other.delivery_failures;
        self.gaps += other.gaps;
    }
}
