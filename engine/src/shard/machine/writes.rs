//! What leaves the machine: checkpoints and discarded batches.

use super::ShardMachine;
use crate::position::Position;
use crate::shard::exchange::ShardAction;
use crate::time::Now;

impl ShardMachine {
    pub(super) fn poll_checkpoint(&mut self, now: Now) -> Option<ShardAction> {
        let (reached, at_once) = (self.reached(), self.is_flushing());
        let read_through = self.read_through();
        let upto = match reached {
            Some(upto) if upto != *self.progress.stored() => {
                self.progress.take_checkpoint(now.mono, upto, read_through, at_once)?
            }
            _ => self.progress.take_refresh(now.mono, read_through)?,
        };
        let children = match upto {
            Position::ShardEnd => self.reader.children.clone(),
            _ => Vec::new(),
        };
        // Windows behind the checkpoint come again after a crash, and must be opened again then.
        let earliest_window = self.watermark.earliest_window().unwrap_or_else(|| self.earliest_window());
        Some(ShardAction::Checkpoint { upto, children, earliest_window, read_through })
    }

    pub(super) fn poll_discard(&mut self, now: Now) -> Option<ShardAction> {
        if !self.may_deliver() {
            return None;
        }
        let (id, failed) = self.discards.take_delivery(now.mono, self.is_stopping())?;
        Some(ShardAction::Discard { id, failed })
    }
}
