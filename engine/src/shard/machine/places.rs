//! Places for invocations: asked for, granted, given back (docs/adr/0020).

use super::ShardMachine;
use crate::shard::exchange::ShardAction;
use crate::shard::lane::{LaneId, PlaceRule};

impl ShardMachine {
    /// Whether invocations need places from now on. What was asked for stays asked for.
    ///
    /// Once the function cannot be reached ([`PlaceRule::Away`]), lanes that back off by themselves ask for a place
    /// instead, except those for which the function requested a back-off.
    pub fn set_places(&mut self, rule: PlaceRule) {
        let becomes_away = rule == PlaceRule::Away && self.places != rule;
        self.places = rule;
        if becomes_away {
            for lane in &mut self.lanes {
                lane.leave_wait();
            }
        }
    }

    pub(super) fn granted(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
            lane.granted();
        }
    }

    /// A place is used when it is granted or not at all: others wait for it.
    pub(super) fn poll_release(&mut self) -> Option<ShardAction> {
        let unused = self.lanes.iter_mut().position(super::Lane::gives_back)?;
        Some(ShardAction::Release { lane: super::lane_id(unused)? })
    }
}
