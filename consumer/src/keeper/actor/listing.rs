//! What a listing of the leases says of each of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use shardmill_checkpoint::{Lease, LeaseList, ProcessIdentity, StoreError, UnreadableLease};
use shardmill_engine::{LeaseEvent, LeasePhase, Mono, Position, ShardId, gone_shards, may_start};

use super::Actor;
use crate::keeper::entry::Entry;
use crate::keeper::trouble::Answer;

/// What each lease adds to the time between two listings.
const LISTING_OF_A_LEASE: Duration = Duration::from_micros(250);

impl Actor {
    pub(super) fn listed(&mut self, now: Mono, result: Result<LeaseList, StoreError>) {
        self.listing = false;
        let again = std::mem::take(&mut self.list_again);
        self.list_at = if again { now } else { now + self.listing_interval() };
        self.note(Answer::of_read(&result));
        let (Ok(list), Some(served)) = (result, self.served.clone()) else { return };
        let LeaseList { mut leases, mut unreadable } = list;
        leases.retain(|lease| lease.key.is_sibling_of(&served.stream));
        unreadable.retain(|lease| lease.key.is_sibling_of(&served.stream));
        self.leases.board.set_listed(&leases);
        self.unreadable(now, unreadable);
        self.forget_deleted(&leases);
        let known: HashMap<&ShardId, &Lease> = leases.iter().map(|lease| (&lease.key.shard, lease)).collect();
        let checkpoint = |shard: &ShardId| known.get(shard).map(|lease| &lease.checkpoint);
        let gone = gone_shards(&served.listed, |shard| {
            known.get(shard).map_or(&[], |lease| lease.parents.as_slice())
        });
        let mut dead = HashMap::new();
        for lease in &leases {
            let ended = lease.checkpoint == Position::ShardEnd;
            let shard = &lease.key.shard;
            let startable = !ended && !self.retired && may_start(shard, &lease.parents, checkpoint, &gone);
            let index = self.index_of(lease);
            let entry = &mut self.entries[index];
            if entry.machine.phase() != LeasePhase::Watching {
                continue;
            }
            let own = self.options.process.as_ref();
            let view = entry.view(lease, &self.options.worker, |process| is_dead(process, own, &mut dead));
            entry.saw(lease, view.owner);
            entry.machine.handle_event(now, LeaseEvent::Wanted(startable));
            entry.machine.handle_event(now, LeaseEvent::Observed(view));
            self.advance(index, now);
        }
        self.delete_finished(now, &leases, &known, &gone);
    }

    /// A listing costs time for each lease: with thousands of them it comes less often, but at least four times in a lease's
    /// time.
    fn listing_interval(&self) -> Duration {
        let leases = u32::try_from(self.by_key.len()).unwrap_or(u32::MAX);
        let longest = (self.options.times.lease / 4).max(self.options.listing_interval);
        (self.options.listing_interval + LISTING_OF_A_LEASE.saturating_mul(leases)).min(longest)
    }

    /// One row that cannot be read costs its shard: that one is not taken until the row is corrected, the others are.
    fn unreadable(&mut self, now: Mono, leases: Vec<UnreadableLease>) {
        for lease in &leases {
            if let Some(index) = self.by_key.get(&lease.key) {
                self.entries[*index].machine.handle_event(now, LeaseEvent::Wanted(false));
            }
        }
        let shards: BTreeSet<ShardId> = leases.iter().map(|lease| lease.key.shard.clone()).collect();
        let news = leases.iter().find(|lease| !self.unreadable.contains(&lease.key.shard));
        if let Some(first) = news {
            tracing::warn!(
                mapping = %self.options.mapping, leases = leases.len(), reason = first.reason,
                "leases cannot be read: their shards wait until their rows are corrected, the others are read"
            );
        } else if !self.unreadable.is_subset(&shards) {
            tracing::info!(
                mapping = %self.options.mapping, left = shards.len(),
                "leases that could not be read can be read again"
            );
        }
        self.unreadable = shards;
        self.leases.board.set_unreadable(leases);
    }

    fn index_of(&mut self, lease: &Lease) -> usize {
        if let Some(index) = self.by_key.get(&lease.key) {
            return *index;
        }
        let mut entry = Entry::new(lease.clone(), self.options.times);
        let index = match self.vacant.pop() {
            Some(index) => {
                // Answers to calls for whatever was here before say nothing about this lease.
                entry.generation = self.entries[index].generation + 1;
                self.entries[index] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.by_key.insert(lease.key.clone(), index);
        index
    }
}

/// Looks each process up at most once per listing.
fn is_dead(
    process: &ProcessIdentity,
    own: Option<&ProcessIdentity>,
    known: &mut HashMap<ProcessIdentity, bool>,
) -> bool {
    let Some(own) = own else { return false };
    *known.entry(process.clone()).or_insert_with(|| process.is_dead_to(own))
}
