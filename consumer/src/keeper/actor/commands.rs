//! What the keeper is asked for.

use std::sync::Arc;

use shardmill_engine::{LeaseEvent, LeaseKey, Mono};
use tokio::sync::oneshot;

use super::{Actor, Phase};
use crate::keeper::messages::{Command, Served};

impl Actor {
    pub(super) fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Create { leases, reply } => self.calls.create(leases, reply),
            Command::List { reply } => self.calls.list_for(reply),
            Command::SetChildren { key, children, reply } => self.calls.set_children(key, children, reply),
            Command::Note { name, value, reply } => self.calls.note(name, value, reply),
            Command::Checkpoint(order) => self.checkpoints.ask(order),
            Command::Release { key, token, reply } => self.release(now, &key, &token, reply),
            Command::Bind(stream) => self.options.store.bind(&stream),
            Command::Serve(served) => self.serve(now, served),
            Command::Idle { reply } => self.on_idle.push(reply),
            Command::Retire => {
                self.stop_taking(now, Phase::Retired);
                self.give_all();
                self.pulse.soon(now);
            }
            Command::Leave { reply } => {
                self.leaving = Some(reply);
                if !self.pulse.end() {
                    self.leave();
                }
            }
        }
    }

    /// Deletes this worker's record, if it leaves. Not while a heartbeat is under way, which would change the record.
    pub(super) fn leave(&mut self) {
        if let Some(reply) = self.leaving.take()
            && let Some(heartbeat) = self.pulse.heartbeat()
        {
            self.calls.forget_worker(self.options.worker.clone(), heartbeat, Some(reply));
        }
    }

    fn release(&mut self, now: Mono, key: &LeaseKey, token: &Arc<str>, reply: Option<oneshot::Sender<()>>) {
        let Some(id) = self.entries.held_by(key, token) else {
            // Lost before: there is nothing to release. Dropping the reply wakes the caller.
            return;
        };
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.on_release.extend(reply);
        // A holder that noticed the end of its lease first releases what is lost all the same.
        entry.given_up = entry.is_valid(now);
        // The release need not wait for the renewal's turn.
        if self.renewals.withdraw(id) {
            entry.machine.handle_event(now, LeaseEvent::NotSent);
        }
        entry.machine.handle_event(now, LeaseEvent::Release);
        self.advance(id, now);
    }

    fn serve(&mut self, now: Mono, served: Arc<Served>) {
        for entry in self.entries.all_mut() {
            if entry.lease.key.is_sibling_of(&served.stream) {
                entry.listed(now, served.listed.contains_key(&entry.lease.key.shard));
            } else {
                // Its holder decides when to release it.
                entry.machine.handle_event(now, LeaseEvent::Wanted(false));
            }
        }
        self.served = Some(served);
        self.listing.begin(now);
        if !self.pulse.is_on() {
            self.pulse.soon(now);
        }
    }

    /// Takes no more leases from now on.
    pub(super) fn stop_taking(&mut self, now: Mono, phase: Phase) {
        self.phase = phase;
        self.claims.drop_all();
        for entry in self.entries.all_mut() {
            entry.machine.handle_event(now, LeaseEvent::Wanted(false));
        }
    }
}
