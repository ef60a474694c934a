//! How a run ends.

use super::{Phase, ShardMachine};
use crate::position::Position;
use crate::shard::exchange::Exit;
use crate::shard::lane::LaneState;
use crate::time::Mono;

impl ShardMachine {
    pub(super) fn stop(&mut self, deadline: Mono) {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping { deadline, over: false };
        }
    }

    pub(super) fn cut_at_deadline(&mut self, now: Mono) {
        let Phase::Stopping { deadline, over } = &mut self.phase else { return };
        if *over || now < *deadline {
            return;
        }
        *over = true;
        for lane in &mut self.lanes {
            if lane.state() == LaneState::Invoking {
                self.counters.invoked += lane.current().map_or(0, |attempt| attempt.batch.len() as u64);
                lane.abandon();
                self.cut += 1;
            }
        }
        self.discards.abandon();
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::LeaseLost => Some(Exit::LeaseLost),
            Phase::Exited => None,
            _ if *self.progress.stored() == Position::ShardEnd => Some(Exit::ShardEnd),
            Phase::Running => None,
            Phase::Stopping { over, .. } => {
                let delivers = self.may_deliver() && self.discards.wakes_at(true).is_some();
                let quiet = self.lanes.iter().all(|lane| lane.state() != LaneState::Invoking)
                    && (over || !(self.discards.in_flight() || delivers));
                let flushed = match self.reached() {
                    // Past the deadline a checkpoint that failed is not retried: its records are redelivered.
                    Some(upto) => upto == *self.progress.stored() || (over && self.progress.failures() > 0),
                    None => true,
                };
                (quiet && flushed && !self.progress.in_flight()).then_some(Exit::Stopped { cut: self.cut })
            }
        }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }
}
