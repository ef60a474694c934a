//! What a running machine is asked without changing it.

use super::{ShardMachine, age_millis};
use crate::outcome::BatchResponse;
use crate::record::Batch;
use crate::request::RequestId;
use crate::shard::lane::{Lane, LaneId, LaneState, Verdict};
use crate::shard::snapshot::ShardSnapshot;
use crate::time::Now;

impl ShardMachine {
    /// The shard at this moment.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> ShardSnapshot {
        ShardSnapshot {
            checkpoint: self.progress.stored().clone(),
            read: self.reader.at.clone(),
            millis_behind: self.reader.millis_behind,
            buffered_records: self.buffered_records,
            buffered_bytes: self.held(),
            undelivered_discards: self.discards.undelivered(),
            read_failures: self.reader.failures(),
            checkpoint_failures: self.progress.failures(),
            iterator_age_millis: self.iterator_age_millis,
            oldest_waiting_millis: self.oldest_waiting_millis(now),
            last_result: self.last_result,
            cut_invocations: self.cut,
            ended: self.reader_ended(),
            children_told: !self.reader.children.is_empty(),
            last_gap: self.last_gap.clone(),
            lanes: self.lanes.iter().map(|lane| lane.snapshot(now.mono)).collect(),
            counters: self.counters,
        }
    }

    /// Discarded batches that are not yet delivered or dropped.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        self.discards.undelivered()
    }

    /// What an answer to the lane's running invocation says about its batch; `None` if nothing runs there.
    #[must_use]
    pub fn judge(&self, lane: LaneId, answer: &BatchResponse) -> Option<Verdict> {
        let lane = self.lanes.get(usize::from(lane.0)).filter(|lane| lane.state() == LaneState::Invoking)?;
        lane.judge(answer, &self.rules())
    }

    /// The lane's batch at work, and its request id.
    #[must_use]
    pub fn current(&self, lane: LaneId) -> Option<(&Batch, RequestId)> {
        let attempt = self.lanes.get(usize::from(lane.0))?.current()?;
        Some((&attempt.batch, attempt.request_id))
    }

    pub(super) fn oldest_waiting_millis(&self, now: Now) -> Option<u64> {
        let of_lanes = self.lanes.iter().filter_map(Lane::oldest);
        of_lanes.chain(self.discards.oldest()).filter_map(|record| age_millis(now, record)).max()
    }
}
