//! The leases that this worker is to take, a few at a time.

use std::collections::VecDeque;

use super::ticket::EntryId;

/// Acquisitions that are under way at the same time. More would only wait at the store, each against its time, and what
/// the next listing shows would come too late for them.
const AT_ONCE: usize = 64;

/// What is to be taken by the last plan, and how much is being taken.
#[derive(Debug, Default)]
pub(super) struct Claims {
    waiting: VecDeque<EntryId>,
    under_way: usize,
}

impl Claims {
    /// A new plan replaces what waits by the one before.
    pub(super) fn planned(&mut self, leases: VecDeque<EntryId>) {
        self.waiting = leases;
    }

    /// The next one to take now.
    pub(super) fn next(&mut self) -> Option<EntryId> {
        if self.under_way < AT_ONCE { self.waiting.pop_front() } else { None }
    }

    /// An acquisition was sent.
    pub(super) const fn began(&mut self) {
        self.under_way += 1;
    }

    /// It was answered, or is not waited for any more.
    pub(super) const fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Nothing more is taken.
    pub(super) fn drop_all(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_leases_are_taken_at_a_time_and_the_last_plan_counts() {
        let mut claims = Claims::default();
        let ids = |from: u64, to: u64| (from..to).map(EntryId).collect::<VecDeque<_>>();
        let take = |claims: &mut Claims| {
            let id = claims.next();
            id.iter().for_each(|_| claims.began());
            id.map(|id| id.0)
        };
        claims.planned(ids(0, 1_000));
        let taken: Vec<u64> = std::iter::from_fn(|| take(&mut claims)).collect();
        assert_eq!(taken, (0..64).collect::<Vec<_>>());
        claims.ended();
        claims.planned(ids(500, 502));
        assert_eq!([take(&mut claims), take(&mut claims)], [Some(500), None]);
        claims.ended();
        claims.drop_all();
        assert_eq!(take(&mut claims), None);
    }
}
