//! What a shard holds in memory (I13).

use super::ShardMachine;
use crate::shard::lane::Lane;
use crate::shard::reader::Supply;

impl ShardMachine {
    /// Bytes that are held until records are resolved. More than the records come to: a page is freed only as a whole.
    pub(super) fn held(&self) -> usize {
        let lanes: usize = self.lanes.iter().map(Lane::held).sum();
        lanes + self.discards.held() + self.watermark.held()
    }

    pub(super) fn supply(&self) -> Supply {
        Supply { bytes: self.buffered_bytes, is_enough: self.lanes.iter().all(Lane::has_a_whole_batch) }
    }

    /// Nothing more is invoked for a while: lets go of what is not needed until then.
    pub(super) fn shed(&mut self) {
        self.lanes.iter_mut().for_each(Lane::shed);
    }

    pub(super) fn pause(&mut self) {
        self.paused = true;
        self.shed();
    }
}

#[cfg(test)]
impl ShardMachine {
    /// The batch that the first lane works on.
    pub(in crate::shard) fn current_batch(&self) -> Option<crate::record::Batch> {
        self.lanes.first()?.current().map(|attempt| attempt.batch.clone())
    }

    /// When a page was read last that reached the tip.
    pub(in crate::shard) const fn tip_read(&self) -> Option<crate::time::Wall> {
        self.reader.tip_read
    }

    /// Bytes of the records that are not resolved.
    pub(in crate::shard) const fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }
}
