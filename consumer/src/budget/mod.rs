//! The process's buffer budget, shared by all shards (I13).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// A shard that buffers nothing may read even when the budget is exhausted; otherwise one stuck shard would block all
/// others. Together such reads may exceed the budget by 1/`BEYOND` of it.
const BEYOND: usize = 8;

/// While much is free, a page may have one of so many parts of it, or of as many as there may be reads under way, if that is
/// more than its even share: handlers that keep up leave most of the budget free, and small pages only cost calls.
const FEWEST_PARTS: usize = 64;

/// A read begins once there is room for one of so many parts of its page.
const LOW_WATER: usize = 2;

/// Bytes that all shards of the process may buffer together.
///
/// The shards that have records divide the budget evenly: that is a page, while little of it is free. A read begins when
/// there is room for half a page, and waits in a queue until then: with whatever room there is, pages would become so small that calls are what limits
/// the shards. Room that becomes free goes to the front of the queue. Only a shard that has no records may be served
/// before it, and get less than a page.
///
/// What a first read brings is not known, and how many shards there will be neither: as many of them as may be under way
/// get half of the budget at most. From there pages may double.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    /// A page is not larger than this, or than twice the one before it.
    first: usize,
    /// What is free is divided into so many pages.
    parts: usize,
    /// Where this and a shard's own are locked, this comes first.
    state: Mutex<State>,
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
    /// Reads that wait for room, in the order in which they came. While there are any, no room is free.
    waiting: BTreeMap<u64, Waiter>,
    /// Those of them whose shard has no records.
    emptied: BTreeSet<u64>,
    /// The number of the last read that had to wait.
    last_ticket: u64,
}

/// A read that waits for room.
#[derive(Debug)]
struct Waiter {
    wish: Wish,
    granted: oneshot::Sender<Room>,
}

/// What a read asks for.
#[derive(Clone, Debug)]
struct Wish {
    own: Arc<Mutex<Own>>,
    /// Records, at most.
    asked: usize,
    /// What a record is expected to come to.
    record_bytes: usize,
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
    /// Records that are not resolved: without any, nothing that this shard does will make room.
    records: usize,
    is_active: bool,
    /// What the next page may come to; unknown before the first one.
    expected: Option<usize>,
    /// The place of its read in the queue.
    ticket: Option<u64>,
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
    pub(crate) fn new(limit: usize, concurrent_reads: usize) -> Self {
        let first = limit / concurrent_reads.max(1).saturating_mul(2);
        let parts = concurrent_reads.max(FEWEST_PARTS);
        Self { shared: Arc::new(Shared { limit, first, parts, state: Mutex::default() }) }
    }

    pub(crate) fn share(&self) -> Share {
        let mut state = self.state();
        state.shards += 1;
        state.active += 1;
        drop(state);
        let own = Own { held: 0, records: 0, is_active: true, expected: None, ticket: None };
        Share { budget: self.clone(), own: Arc::new(Mutex::new(own)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// Room for a page of at most `asked` records of about `record_bytes` each; `None` if it has to wait.
    fn take(&self, state: &mut State, wish: &Wish) -> Option<Room> {
        let own = wish.own.lock();
        let limit = self.shared.limit;
        let free = limit.saturating_sub(state.used + state.reserved);
        let most = own.expected.unwrap_or(0).max(self.shared.first);
        let least = (limit / BEYOND / state.shards.max(1)).min(most);
        let share = (limit / state.active.max(1)).max(free / self.shared.parts).min(most).max(least);
        let page = |bytes: usize| {
            let records = (bytes / wish.record_bytes).clamp(1, wish.asked.max(1));
            let page = records * wish.record_bytes;
            (records, own.expected.map_or(page, |expected| expected.min(page)))
        };
        let (mut records, mut reserved) = page(share);
        // One record may be larger than a share.
        if free == 0 || reserved.min(share) / LOW_WATER > free {
            // Reads under way end, and what they reserved may become free. What is held may be held for long.
            if own.records > 0 || state.reserved > limit / BEYOND {
                return None;
            }
            (records, reserved) = page(share.min(free).max(least));
        } else if reserved > free {
            (records, reserved) = page(share.min(free));
        }
        state.reserved += reserved;
        Some(Room { budget: self.clone(), reserved, records })
    }

    /// Takes room, or a place in the queue.
    fn enter(&self, wish: &Wish) -> Result<Room, Place> {
        let mut state = self.state();
        let is_empty = wish.own.lock().records == 0;
        if (state.waiting.is_empty() || is_empty)
            && let Some(room) = self.take(&mut state, wish)
        {
            return Ok(room);
        }
        let (granted, room) = oneshot::channel();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        wish.own.lock().ticket = Some(ticket);
        state.waiting.insert(ticket, Waiter { wish: wish.clone(), granted });
        if is_empty {
            state.emptied.insert(ticket);
        }
        Err(Place { budget: self.clone(), ticket, room })
    }

    /// Gives free room to the front of the queue, and to reads of shards that have no records any more.
    fn serve(&self, mut state: MutexGuard<'_, State>) {
        // Room that is no longer waited for is returned without the lock.
        let mut unwanted = Vec::new();
        while let Some((ticket, room)) = self.next_served(&mut state) {
            if let Some(waiter) = state.leave(ticket) {
                unwanted.extend(waiter.granted.send(room).err());
            }
        }
        drop(state);
        drop(unwanted);
    }

    fn next_served(&self, state: &mut State) -> Option<(u64, Room)> {
        let fronts = [state.waiting.keys().next().copied(), state.emptied.first().copied()];
        fronts.into_iter().flatten().find_map(|ticket| {
            let wish = state.waiting.get(&ticket)?.wish.clone();
            Some((ticket, self.take(state, &wish)?))
        })
    }
}

impl State {
    /// Takes a read out of the queue.
    fn leave(&mut self, ticket: u64) -> Option<Waiter> {
        self.emptied.remove(&ticket);
        self.waiting.remove(&ticket)
    }
}

/// A read's place in the queue; dropping it leaves the queue.
#[derive(Debug)]
struct Place {
    budget: Budget,
    ticket: u64,
    room: oneshot::Receiver<Room>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        if state.leave(self.ticket).is_some() {
            // The next one may have waited for this one's turn alone.
            self.budget.serve(state);
        }
    }
}

impl Share {
    /// Notes how much the shard holds now, in bytes, and how many records of it are not resolved.
    pub(crate) fn set(&self, bytes: usize, records: usize) {
        let unchanged = {
            let own = self.own.lock();
            own.held == bytes && own.records == records
        };
        if unchanged {
            return;
        }
        let mut state = self.budget.state();
        let mut own = self.own.lock();
        let before = std::mem::replace(&mut own.held, bytes);
        let is_emptied = std::mem::replace(&mut own.records, records) > 0 && records == 0;
        let emptied = own.ticket.filter(|ticket| is_emptied && state.waiting.contains_key(ticket));
        drop(own);
        state.emptied.extend(emptied);
        state.used = (state.used + bytes).saturating_sub(before);
        if bytes < before || emptied.is_some() {
            self.budget.serve(state);
        }
    }

    /// Notes how many bytes of records a page brought.
    pub(crate) fn read(&self, bytes: usize) {
        let mut state = self.budget.state();
        let mut own = self.own.lock();
        // What comes next may be twice as much.
        own.expected = Some(bytes * 2);
        let is_active = bytes > 0;
        if std::mem::replace(&mut own.is_active, is_active) != is_active {
            state.active = if is_active { state.active + 1 } else { state.active.saturating_sub(1) };
        }
    }

    /// Waits until a page of at most `asked` records of about `record_bytes` each may be read, and returns how many it
    /// may have: the active shards divide the budget evenly. A shard that has no records waits for reads under way at
    /// most, so that each gets some records and one larger than the budget still passes. A shard reads one page after
    /// the other.
    pub(crate) fn room(
        &self,
        asked: usize,
        record_bytes: usize,
    ) -> impl Future<Output = Room> + Send + 'static {
        let budget = self.budget.clone();
        let wish = Wish { own: Arc::clone(&self.own), asked, record_bytes: record_bytes.max(1) };
        async move {
            loop {
                let mut place = match budget.enter(&wish) {
                    Ok(room) => return room,
                    Err(place) => place,
                };
                // The task that takes a read out of the queue grants it room.
                if let Ok(room) = (&mut place.room).await {
                    return room;
                }
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0, 0);
        let is_active = self.own.lock().is_active;
        let mut state = self.budget.state();
        state.shards = state.shards.saturating_sub(1);
        state.active = state.active.saturating_sub(usize::from(is_active));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.reserved = state.reserved.saturating_sub(self.reserved);
        self.budget.serve(state);
    }
}
