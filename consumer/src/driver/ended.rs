//! An invocation has ended, or will never begin: what the machine, the metrics, the status and the log are told.

use std::time::Duration;

use shardmill_engine::{BatchResponse, LaneId, Now, Outcome, ShardEvent, ShardSnapshot};

use super::Driver;
use crate::handler::HandlerError;
use crate::trouble::{Ended, Facts, TroubleKind};

impl Driver {
    /// Hands an event to the machine, and takes note if the machine gives the batch up: its delivery may begin much later,
    /// when the lane works on the next one.
    pub(super) fn handle(&mut self, now: Now, event: ShardEvent) {
        let invoked = match &event {
            ShardEvent::Invoked { lane, .. } => Some(*lane),
            _ => None,
        };
        let before = self.machine.undelivered();
        self.machine.handle_event(now, event);
        if let Some(lane) = invoked.filter(|_| self.machine.undelivered() > before) {
            self.trouble.gave_up(lane);
        }
    }

    /// Whether nobody tried to reach the function: the lease ran out, or the invocation was called off, before it began.
    fn was_not_tried(&self, error: &HandlerError) -> bool {
        let is_off = || self.cancelled.is_cancelled() || !self.may_start.now();
        error.is_not_started() || (matches!(error, HandlerError::NotReached { .. }) && is_off())
    }

    /// Takes note of how an invocation ended.
    pub(super) fn ended(
        &mut self,
        lane: LaneId,
        result: Result<BatchResponse, HandlerError>,
        took: Duration,
    ) -> Outcome {
        let verdict = result.as_ref().ok().and_then(|answer| self.machine.judge(lane, answer));
        let Some((batch, request_id)) = self.machine.current(lane) else { return Outcome::FunctionError };
        let (records, first) = (batch.len(), batch.first().map(|record| &record.seq));
        let is_cut = matches!(result, Err(HandlerError::Cut { .. }));
        if is_cut {
            self.status.cut();
        }
        let was_not_tried = result.as_ref().is_err_and(|error| self.was_not_tried(error));
        let is_unreached = matches!(result, Err(HandlerError::NotReached { .. }));
        let details = result.as_ref().err().and_then(HandlerError::details).map(str::to_owned);
        let timed_out = took >= self.cx.mapping.timeout();
        let ended = Ended::judge(result, verdict.as_ref(), (records, first), timed_out);
        self.metrics.invoked(ended.label, took);
        if was_not_tried {
            return ended.outcome;
        }
        if !is_cut && !is_unreached {
            self.trouble.reached();
        }
        if let Some(error) = &ended.error {
            self.status.failed("function", error);
            tracing::debug!(mapping = %self.cx.name, shard = %self.event.shard, error, details, "an invocation failed");
        }
        match (ended.trouble, ended.error) {
            (Some(kind), Some(error)) => {
                let facts = Facts {
                    request_id: Some(request_id),
                    from: first.cloned(),
                    to: batch.last().map(|record| record.seq.clone()),
                    records: Some(records),
                    error,
                };
                self.trouble.failed(self.cx.stream.clock.now(), lane, kind, facts);
            }
            // More than one record that is too large is halved, which is no progress yet.
            (_, Some(_)) => {}
            (_, None) => self.trouble.succeeded(lane),
        }
        ended.outcome
    }

    /// Says once for each record that no invocation will ever bring it (R24).
    pub(super) fn note_oversized(&mut self, now: Now, snapshot: &ShardSnapshot) {
        let mut lanes = snapshot.lanes.iter().enumerate();
        let oversized = lanes.find_map(|(index, lane)| Some((index, lane, lane.oversized.clone()?)));
        let Some((index, lane, found)) = oversized else { return };
        if self.oversized.as_ref() == Some(&found) {
            return;
        }
        let limit = self.cx.mapping.payload_limit().unwrap_or_default();
        let record = found.record.as_ref().map_or_else(String::new, |seq| format!(" of record {seq}"));
        let error = format!(
            "the event{record} has {} bytes, more than the {limit} that the function takes; MaximumRetryAttempts or \
             MaximumRecordAgeInSeconds ends its attempts",
            found.bytes
        );
        self.status.failed("function", &error);
        let facts = Facts {
            request_id: lane.request_id,
            from: lane.first.clone(),
            to: lane.last.clone(),
            records: Some(lane.batch),
            error,
        };
        let lane = LaneId(u16::try_from(index).unwrap_or(u16::MAX));
        self.oversized = Some(found);
        self.trouble.failed(now, lane, TroubleKind::TooLarge, facts);
    }
}
