//! What a listing of the leases shows about each of them.

use std::collections::{BTreeSet, HashMap};

use shardmill_checkpoint::{Lease, LeaseList, ProcessIdentity, Renewal, StoreError, WorkerRecord};
use shardmill_engine::{LeaseEvent, LeasePhase, Mono, Position, ShardId, gone_shards, may_start};

use super::Actor;
use crate::keeper::trouble::Answer;

impl Actor {
    pub(super) fn listed(&mut self, now: Mono, result: Result<LeaseList, StoreError>) {
        self.listing.ended(now, self.entries.len());
        self.answer(Answer::of_read(&result));
        let (Ok(list), Some(served)) = (result, self.served.clone()) else { return };
        let LeaseList { mut leases, mut unreadable, workers, led, .. } = list;
        self.led = led;
        leases.retain(|lease| lease.key.is_sibling_of(&served.stream));
        unreadable.retain(|lease| lease.key.is_sibling_of(&served.stream));
        leases.sort_by(|one, other| one.key.shard.cmp(&other.key.shard));
        let mut dead = HashMap::new();
        self.meet(now, workers, &mut dead);
        self.reports.listed(now, &leases, &self.entries, &self.fleet);
        // One row that cannot be read costs its shard: it is not taken until the row is corrected, the others are.
        for lease in &unreadable {
            if let Some(entry) = self.entries.find_mut(&lease.key) {
                entry.machine.handle_event(now, LeaseEvent::Wanted(false));
            }
        }
        self.reports.unreadable(unreadable);
        self.entries.keep_only(&leases);
        let known: HashMap<&ShardId, &Lease> = leases.iter().map(|lease| (&lease.key.shard, lease)).collect();
        let gone = gone_shards(&served.listed, |shard| {
            known.get(shard).map_or(&[], |lease| lease.parents.as_slice())
        });
        self.watch(now, &leases, (&known, &gone), &mut dead);
        self.ask_for_doubted(now, &known);
        self.delete_finished(now, &leases, &known, &gone);
    }

    /// Takes in how the leases look that this worker does not hold, and plans with all that can be read.
    fn watch(
        &mut self,
        now: Mono,
        leases: &[Lease],
        (known, gone): (&HashMap<&ShardId, &Lease>, &BTreeSet<&ShardId>),
        dead: &mut HashMap<ProcessIdentity, bool>,
    ) {
        let checkpoint = |shard: &ShardId| known.get(shard).map(|lease| &lease.checkpoint);
        let mut readable = Vec::with_capacity(leases.len());
        for lease in leases {
            let id = self.entries.id_of(lease);
            let can_be_read = lease.checkpoint != Position::ShardEnd
                && may_start(&lease.key.shard, &lease.parents, checkpoint, gone);
            if can_be_read {
                readable.push((id, lease));
            }
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if let Some(next) = entry.asked_for(lease, &self.options.worker) {
                self.finish_handoff(id, next.clone());
                continue;
            }
            if entry.machine.phase() != LeasePhase::Watching {
                continue;
            }
            let own = self.options.process.as_ref();
            let fleet = &self.fleet;
            let view = entry.view(
                lease,
                &self.options.worker,
                |owner| fleet.has_left(owner),
                |process| is_dead(process, own, dead),
            );
            entry.saw(lease, view.owner);
            // The plan wants it again, if it may be read and is this worker's to take.
            entry.machine.handle_event(now, LeaseEvent::Wanted(false));
            entry.machine.handle_event(now, LeaseEvent::Observed(view));
            self.entries.update(id);
        }
        self.plan(now, &readable);
    }

    /// A lease that somebody deleted or freed by hand is renewed by its worker's heartbeat all the same, so nothing would be refused
    /// before its next checkpoint. Its own renewal finds out. A listing may have begun before the lease was acquired, the second one
    /// in a row has not.
    fn ask_for_doubted(&mut self, now: Mono, known: &HashMap<&ShardId, &Lease>) {
        if !self.options.store.renews_all() {
            return;
        }
        let (mut tickets, mut renewals) = (Vec::new(), Vec::new());
        for id in self.entries.held_ids() {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let shown = known.get(&entry.lease.key.shard).and_then(|lease| lease.token.as_deref());
            let differs = shown != entry.token.as_deref();
            let is_second = std::mem::replace(&mut entry.doubted, differs) && differs;
            if is_second && let Some(counter) = entry.machine.begin_write(now) {
                tickets.push(entry.ticket(id));
                renewals.push(Renewal { key: entry.lease.key.clone(), counter });
                self.entries.update(id);
            }
        }
        if !tickets.is_empty() {
            self.calls.renew(tickets, renewals, now);
        }
    }

    /// Takes in how the other workers are.
    fn meet(&mut self, now: Mono, workers: Vec<WorkerRecord>, dead: &mut HashMap<ProcessIdentity, bool>) {
        let process = self.options.process.as_ref();
        let changes = self.fleet.observe(now, workers, |other| is_dead(other, process, dead));
        let own = self.pulse.proven().map(|sent| (self.report(now), sent));
        self.reports.workers(now, &self.fleet, &changes, own);
        if let Some(record) = self.fleet.forgotten(now) {
            self.calls.forget_worker(record.report.id.clone(), record.heartbeat, None);
        }
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
