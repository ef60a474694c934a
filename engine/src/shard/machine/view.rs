//! What a running machine is asked without changing it.

use super::{ShardMachine, age_millis};
use crate::outcome::BatchResponse;
use crate::record::Batch;
use crate::request::RequestId;
use crate::shard::lane::{Lane, LaneId, LaneState, Verdict};
use crate::time::Now;

impl ShardMachine {
    /// What an answer to the lane's running invocation says about its batch; none if nothing runs there.
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
