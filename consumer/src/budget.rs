//! The process's buffer budget, shared by all shards (I13).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A shard without records may read though the budget is used up, or one that is stuck would hold up all others: all
/// shards together may go beyond the budget by this part of it.
const BEYOND: usize = 8;

/// Bytes that all shards of the process may buffer together.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What shards hold.
    used: usize,
    /// What reads under way are expected to bring.
    reserved: usize,
    shards: usize,
    /// Shards that had records when they were read last, or were not read yet.
    active: usize,
}

/// One shard's part of the budget; what it holds is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug)]
struct Own {
    held: usize,
    is_active: bool,
    /// What the next page may come to; unknown before the first one.
    expected: Option<usize>,
}

/// The room for one page.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    reserved: usize,
    /// The page may have so many records, at least one.
    pub(crate) records: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { limit, state: Mutex::default(), freed: Notify::new() }) }
    }

    pub(crate) fn share(&self) -> Share {
        let mut state = self.state();
        state.shards += 1;
        state.active += 1;
        drop(state);
        let own = Own { held: 0, is_active: true, expected: None };
        Share { budget: self.clone(), own: Arc::new(Mutex::new(own)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.shared.state)
    }

    /// Room for a page of at most `asked` records of about `record_bytes` each; `None`: the budget is used up.
    fn take(&self, own: &Own, asked: usize, record_bytes: usize) -> Option<Room> {
        let limit = self.shared.limit;
        let mut state = self.state();
        let free = limit.saturating_sub(state.used + state.reserved);
        if free == 0 && own.held > 0 {
            return None;
        }
        let least = limit / BEYOND / state.shards.max(1);
        let fair = (limit / state.active.max(1)).min(free).max(least);
        let records = (fair / record_bytes).clamp(1, asked.max(1));
        let page = records * record_bytes;
        let reserved = own.expected.map_or(page, |expected| expected.min(page));
        state.reserved += reserved;
        drop(state);
        Some(Room { budget: self.clone(), reserved, records })
    }
}

impl Share {
    /// Notes how much the shard buffers now.
    pub(crate) fn set(&self, bytes: usize) {
        let mut own = locked(&self.own);
        let before = std::mem::replace(&mut own.held, bytes);
        if bytes == before {
            return;
        }
        let mut state = self.budget.state();
        state.used = (state.used + bytes).saturating_sub(before);
        drop(state);
        if bytes < before {
            self.budget.shared.freed.notify_waiters();
        }
    }

    /// Notes how many bytes of records a page brought.
    pub(crate) fn read(&self, bytes: usize) {
        let mut own = locked(&self.own);
        // What comes next may be twice as much.
        own.expected = Some(bytes * 2);
        let is_active = bytes > 0;
        if std::mem::replace(&mut own.is_active, is_active) != is_active {
            let mut state = self.budget.state();
            state.active = if is_active { state.active + 1 } else { state.active.saturating_sub(1) };
        }
    }

    /// Waits until a page of at most `asked` records of about `record_bytes` each may be read, and tells how many it may
    /// have: the active shards divide the budget evenly. A shard that holds nothing does not wait, so that each gets some
    /// records and one larger than the budget still passes.
    pub(crate) fn room(
        &self,
        asked: usize,
        record_bytes: usize,
    ) -> impl Future<Output = Room> + Send + 'static {
        let (budget, own) = (self.budget.clone(), Arc::clone(&self.own));
        async move {
            loop {
                let freed = budget.shared.freed.notified();
                let room = budget.take(&locked(&own), asked, record_bytes);
                if let Some(room) = room {
                    return room;
                }
                freed.await;
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        let is_active = locked(&self.own).is_active;
        let mut state = self.budget.state();
        state.shards = state.shards.saturating_sub(1);
        state.active = state.active.saturating_sub(usize::from(is_active));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.reserved = state.reserved.saturating_sub(self.reserved);
        drop(state);
        self.budget.shared.freed.notify_waiters();
    }
}

/// A panic elsewhere leaves nothing half-written here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const MIB: usize = 1 << 20;
    /// What a record comes to.
    const RECORD: usize = 1 << 10;

    #[test]
    fn i13_a_full_budget_holds_back_shards_that_already_hold_a_page() {
        let budget = Budget::new(100);
        let (busy, idle) = (budget.share(), budget.share());
        busy.set(120);
        assert!(busy.room(10, RECORD).now_or_never().is_none());
        assert!(idle.room(10, RECORD).now_or_never().is_some(), "each shard gets some records");
        busy.set(40);
        assert!(busy.room(10, RECORD).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_waiting_shard_goes_on_when_another_one_ends() {
        let budget = Budget::new(100);
        let (ending, waiting) = (budget.share(), budget.share());
        ending.set(99);
        waiting.set(1);
        let mut room = Box::pin(waiting.room(10, RECORD));
        assert!((&mut room).now_or_never().is_none());
        drop(ending);
        room.await;
    }

    #[tokio::test]
    async fn i13_two_thousand_shards_that_catch_up_at_once_stay_within_the_budget_and_an_eighth() {
        let budget = Budget::new(128 * MIB);
        let shares: Vec<Share> = (0..2_000).map(|_| budget.share()).collect();
        let mut held = 0;
        for round in 0..3 {
            let mut rooms = Vec::new();
            for share in &shares {
                rooms.extend(share.room(10_000, RECORD).now_or_never().map(|room| (share, room)));
            }
            for (share, room) in rooms {
                // Each page is as large as it may be.
                let bytes = room.records * RECORD;
                share.read(bytes);
                drop(room);
                let own = locked(&share.own).held + bytes;
                share.set(own);
            }
            held = budget.state().used;
            assert!(held <= 144 * MIB, "{held} in round {round}");
        }
        assert!(held >= 120 * MIB, "the budget is there to be used: {held}");
        drop(shares);
        let state = budget.state();
        assert_eq!((state.used, state.reserved, state.shards, state.active), (0, 0, 0, 0));
    }

    #[tokio::test]
    async fn one_busy_shard_among_thousands_of_idle_ones_reads_full_pages() {
        let budget = Budget::new(128 * MIB);
        let shares: Vec<Share> = (0..2_000).map(|_| budget.share()).collect();
        for share in &shares {
            drop(share.room(10_000, RECORD).await);
            share.read(0);
        }
        // All of them are being read again.
        let idle: Vec<Room> =
            shares[1..].iter().filter_map(|share| share.room(10_000, RECORD).now_or_never()).collect();
        shares[0].read(10 * MIB);
        let page = shares[0].room(10_000, RECORD).await;
        assert_eq!((idle.len(), page.records), (1_999, 10_000));
    }

    #[tokio::test]
    async fn a_record_larger_than_the_budget_passes_and_the_next_page_is_asked_for_alone() {
        let budget = Budget::new(16 * MIB);
        let (share, _other) = (budget.share(), budget.share());
        share.read(20 * MIB);
        share.read(20 * MIB);
        assert_eq!(share.room(10_000, 15 * MIB).await.records, 1);
    }
}
