//! Questions to a rig's trace.

use super::rig::{Did, Rig};
use crate::position::Position;
use crate::request::RequestId;

impl Rig {
    /// When which records were invoked, in order.
    pub(super) fn invocations(&self) -> Vec<(u64, Vec<u64>)> {
        let invoked = |(at, did): &(u64, Did)| match did {
            Did::Invoke { records, .. } => Some((*at, records.clone())),
            _ => None,
        };
        self.trace.iter().filter_map(invoked).collect()
    }

    /// Which records were invoked, in order.
    pub(super) fn batches(&self) -> Vec<Vec<u64>> {
        self.invocations().into_iter().map(|(_, records)| records).collect()
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        let id = |(_, did): &(u64, Did)| match did {
            Did::Invoke { id, .. } => Some(*id),
            _ => None,
        };
        self.trace.iter().filter_map(id).collect()
    }

    /// The records and the invoke count of each message, in order.
    pub(super) fn messages(&self) -> Vec<(Vec<u64>, u32)> {
        let message = |(_, did): &(u64, Did)| match did {
            Did::Discard { records, count, .. } => Some((records.clone(), *count)),
            _ => None,
        };
        self.trace.iter().filter_map(message).collect()
    }

    pub(super) fn checkpoints(&self) -> Vec<(u64, Position)> {
        let checkpoint = |(at, did): &(u64, Did)| match did {
            Did::Checkpoint(upto, _) => Some((*at, upto.clone())),
            _ => None,
        };
        self.trace.iter().filter_map(checkpoint).collect()
    }

    /// When reads began, which may be later than they were asked for.
    pub(super) fn fetches(&self) -> Vec<u64> {
        self.trace.iter().filter(|(_, did)| matches!(did, Did::Fetch(_))).map(|(at, _)| *at).collect()
    }

    pub(super) fn opened(&self) -> Vec<(u64, Position)> {
        let opened = |(at, did): &(u64, Did)| match did {
            Did::Open(position) => Some((*at, position.clone())),
            _ => None,
        };
        self.trace.iter().filter_map(opened).collect()
    }
}
