//! The leases that the keeper knows, by key and by when they want something.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use shardmill_checkpoint::Lease;
use shardmill_engine::{LeaseKey, LeasePhase, LeaseTimes, Mono};

use super::entry::Entry;
use super::handle::Validity;
use super::ticket::{EntryId, Ticket};

pub(super) struct Entries {
    times: LeaseTimes,
    /// The worker's heartbeat renews them all.
    by_heartbeat: bool,
    /// Each in memory of its own: ids only grow, and a tree that grows at its end has room for twice what is in it.
    entries: BTreeMap<EntryId, Box<Entry>>,
    by_key: HashMap<LeaseKey, EntryId>,
    /// When each lease is to be polled next.
    timers: BTreeSet<(Mono, EntryId)>,
    next: u64,
    /// Leases that are held or being written.
    busy: usize,
    /// Leases that have a holder.
    held: usize,
}

impl Entries {
    pub(super) fn new(times: LeaseTimes, by_heartbeat: bool) -> Self {
        Self {
            times,
            by_heartbeat,
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            timers: BTreeSet::new(),
            next: 0,
            busy: 0,
            held: 0,
        }
    }

    pub(super) fn find(&self, key: &LeaseKey) -> Option<&Entry> {
        self.get(*self.by_key.get(key)?)
    }

    pub(super) fn find_mut(&mut self, key: &LeaseKey) -> Option<&mut Entry> {
        self.get_mut(*self.by_key.get(key)?)
    }

    /// The entry of a lease that a listing shows.
    pub(super) fn id_of(&mut self, lease: &Lease) -> EntryId {
        if let Some(id) = self.by_key.get(&lease.key) {
            return *id;
        }
        let id = EntryId(self.next);
        self.next += 1;
        self.by_key.insert(lease.key.clone(), id);
        self.entries.insert(id, Box::new(Entry::new(lease.clone(), self.times, self.by_heartbeat)));
        id
    }

    pub(super) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.get_mut(&id).map(Box::as_mut)
    }

    /// The entry, if the acquisition that the ticket was made for is not over.
    pub(super) fn current(&mut self, ticket: Ticket) -> Option<&mut Entry> {
        self.get_mut(ticket.entry).filter(|entry| entry.generation == ticket.generation)
    }

    /// The lease that a holder has by this token, unless it is lost.
    pub(super) fn held_by(&self, key: &LeaseKey, token: &Arc<str>) -> Option<EntryId> {
        let id = self.by_key.get(key)?;
        let entry = self.entries.get(id)?;
        (entry.validity.is_some() && entry.token.as_ref() == Some(token)).then_some(*id)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut().map(Box::as_mut)
    }

    /// The leases that have a holder.
    pub(super) fn held_ids(&self) -> Vec<EntryId> {
        self.entries.iter().filter(|(_, entry)| entry.validity.is_some()).map(|(id, _)| *id).collect()
    }

    /// No lease is held and none is being written.
    pub(super) const fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// How many leases are held or being written: each has one of the worker's places.
    pub(super) const fn busy(&self) -> usize {
        self.busy
    }

    /// How many leases are known.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many leases have a holder.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// The lease has a holder from now on.
    pub(super) fn hold(&mut self, id: EntryId, validity: Arc<Validity>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.held += usize::from(entry.validity.replace(validity).is_none());
        }
    }

    /// The lease has no holder any more. Whether it had one.
    pub(super) fn lose(&mut self, id: EntryId) -> bool {
        let had = self.get_mut(id).is_some_and(Entry::lose);
        self.held -= usize::from(had);
        had
    }

    /// When the first lease is to be polled next.
    pub(super) fn wakes_at(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A lease that is due to be polled.
    pub(super) fn take_due(&mut self, now: Mono) -> Option<EntryId> {
        self.wakes_at().filter(|at| *at <= now)?;
        let (_, id) = self.timers.pop_first()?;
        self.entries.get_mut(&id)?.wakes_at = None;
        Some(id)
    }

    /// Takes in what a lease's machine has decided: when it is to be polled next, and until when it is valid.
    pub(super) fn update(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let busy = entry.machine.phase() != LeasePhase::Watching;
        if !busy {
            entry.slot = None;
        }
        let was_busy = std::mem::replace(&mut entry.busy, busy);
        self.busy = self.busy + usize::from(busy) - usize::from(was_busy);
        let wakes_at = entry.machine.poll_timeout();
        let old = std::mem::replace(&mut entry.wakes_at, wakes_at);
        if let Some(validity) = &entry.validity {
            validity.extend(entry.machine.valid_until());
        }
        if old != wakes_at {
            if let Some(old) = old {
                self.timers.remove(&(old, id));
            }
            if let Some(new) = wakes_at {
                self.timers.insert((new, id));
            }
        }
    }

    /// Forgets what the store no longer has, so that memory does not grow with every reshard.
    pub(super) fn keep_only(&mut self, leases: &[Lease]) {
        if self.by_key.len() <= leases.len() {
            return;
        }
        let there: HashSet<&LeaseKey> = leases.iter().map(|lease| &lease.key).collect();
        let (entries, timers) = (&mut self.entries, &mut self.timers);
        self.by_key.retain(|key, id| {
            let is_left = |entry: &Entry| !entry.busy && entry.validity.is_none();
            let kept = there.contains(key) || !entries.get(id).map(Box::as_ref).is_some_and(is_left);
            if !kept
                && let Some(entry) = entries.remove(id)
                && let Some(at) = entry.wakes_at
            {
                timers.remove(&(at, *id));
            }
            kept
        });
    }
}

#[cfg(test)]
impl EntryId {
    pub(super) const fn examples() -> [Self; 3] {
        [Self(1), Self(2), Self(3)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardmill_engine::{LeaseAction, LeaseEvent, LeaseView, LifeSign, OwnerView};

    use super::*;

    fn lease(shard: &str) -> Lease {
        crate::keeper::tests::new_lease(shard).into()
    }

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn entries() -> Entries {
        Entries::new(LeaseTimes::new(Duration::from_secs(10)), false)
    }

    /// Acquires the lease at this time.
    fn acquire(entries: &mut Entries, id: EntryId, now: Mono) {
        let entry = entries.get_mut(id).unwrap();
        let view = LeaseView {
            sign: LifeSign::counter(0),
            acquisition: None,
            owner: OwnerView::Nobody,
            lease: None,
        };
        entry.machine.handle_event(now, LeaseEvent::Wanted(true));
        entry.machine.handle_event(now, LeaseEvent::Observed(view));
        assert_eq!(entry.machine.poll_action(now), Some(LeaseAction::Acquire { seen: LifeSign::counter(0) }));
        entry.machine.handle_event(now, LeaseEvent::Written { sent: now, counter: 1 });
        let until = entry.machine.valid_until().unwrap();
        entries.update(id);
        entries.hold(id, Arc::new(Validity::new(until)));
    }

    #[test]
    fn a_listed_lease_has_one_entry_and_a_deleted_one_that_is_created_again_has_a_new_one() {
        let mut entries = entries();
        let first = entries.id_of(&lease("a"));
        assert_eq!(entries.id_of(&lease("a")), first);
        let ticket = Ticket { entry: first, generation: entries.get_mut(first).unwrap().generation };
        assert!(entries.current(ticket).is_some());
        entries.keep_only(&[]);
        assert!(entries.find(&lease("a").key).is_none());
        assert_ne!(entries.id_of(&lease("a")), first);
        assert!(entries.current(ticket).is_none(), "a late answer proves nothing about the new lease");
    }

    #[test]
    fn a_lease_that_is_held_is_kept_although_the_store_lacks_it() {
        let mut entries = entries();
        let id = entries.id_of(&lease("a"));
        acquire(&mut entries, id, at(0));
        assert_eq!((entries.held(), entries.is_idle()), (1, false));
        entries.keep_only(&[]);
        assert!(entries.find(&lease("a").key).is_some());
        let entry = entries.get_mut(id).unwrap();
        assert_eq!(entry.machine.poll_action(at(60_000)), Some(LeaseAction::Lost));
        assert!(entries.lose(id));
        assert!(!entries.lose(id), "it is lost once");
        entries.update(id);
        assert_eq!((entries.held(), entries.is_idle(), entries.wakes_at()), (0, true, None));
        entries.keep_only(&[]);
        assert!(entries.find(&lease("a").key).is_none());
    }

    #[test]
    fn leases_are_due_in_the_order_of_their_renewals() {
        let mut entries = entries();
        let [a, b] = ["a", "b"].map(|shard| entries.id_of(&lease(shard)));
        acquire(&mut entries, b, at(0));
        acquire(&mut entries, a, at(100));
        assert_eq!(entries.wakes_at(), Some(at(3333)));
        assert_eq!(entries.take_due(at(3332)), None);
        assert_eq!(entries.take_due(at(5000)), Some(b));
        assert_eq!(entries.take_due(at(5000)), Some(a));
        assert_eq!(entries.take_due(at(5000)), None);
    }
}
