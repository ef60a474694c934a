//! Which leases moved so recently that they must not move again for balance.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::LeaseKey;

/// Planning intervals for which a lease that moved stays where it is, unless a worker joins or leaves.
const SETTLES_AFTER: u64 = 10;

/// What one worker saw of the leases' moves, so that a lease does not go back and forth between plans that differ.
#[derive(Clone, Debug, Default)]
pub struct MoveHistory {
    interval: u64,
    workers: BTreeSet<String>,
    leases: BTreeMap<LeaseKey, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Its holder, or the last one if it is free.
    holder: Option<String>,
    /// The interval in which it was first seen with that holder, if it had another one before.
    moved: Option<u64>,
}

impl MoveHistory {
    /// Begins a planning interval with the workers that live and are not stopping, and all leases with their holders, as
    /// [`plan_moves`](super::plan_moves) is to see them: a lease that is moving counts for the worker that gets it.
    ///
    /// If other workers than in the interval before are there, every lease may move; one that a listing lacks is
    /// forgotten. A free lease that its former holder takes has not moved.
    pub fn observe(
        &mut self,
        workers: BTreeSet<String>,
        leases: impl IntoIterator<Item = (LeaseKey, Option<String>)>,
    ) {
        self.interval += 1;
        let changed = workers != self.workers;
        self.workers = workers;
        let mut before = std::mem::take(&mut self.leases);
        for (lease, holder) in leases {
            let mut seen = before.remove(&lease).unwrap_or_default();
            if changed {
                seen.moved = None;
            }
            if holder.is_some() && holder != seen.holder {
                if seen.holder.is_some() && !changed {
                    seen.moved = Some(self.interval);
                }
                seen.holder = holder;
            }
            self.leases.insert(lease, seen);
        }
    }

    /// Whether the lease may move for balance: it has not moved in the last ten planning intervals, or workers joined or
    /// left since.
    #[must_use]
    pub fn is_settled(&self, lease: &LeaseKey) -> bool {
        let moved = self.leases.get(lease).and_then(|seen| seen.moved);
        moved.is_none_or(|moved| self.interval - moved >= SETTLES_AFTER)
    }
}
