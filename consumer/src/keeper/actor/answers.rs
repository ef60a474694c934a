//! What becomes of the calls to the store.

use std::sync::Arc;

use shardmill_checkpoint::{Heartbeat, StoreError, Write};
use shardmill_engine::{LeaseEvent, LeasePhase, Mono, Position};

use super::Actor;
use super::finished::Deletion;
use crate::keeper::calls::{Done, Pending};
use crate::keeper::handle::Grant;
use crate::keeper::handle::{Held, Validity};
use crate::keeper::messages::KeeperError;
use crate::keeper::tally::Loss;
use crate::keeper::ticket::Ticket;
use crate::keeper::trouble::Answer;

impl Actor {
    pub(super) fn done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Listed(result) => self.listed(now, result),
            Done::Acquired { ticket, sent, result } => self.acquired(now, ticket, sent, result),
            Done::Renewed { tickets, sent, result } => {
                self.renewals.ended();
                let results = self.spread(result, tickets.len());
                for (ticket, result) in tickets.into_iter().zip(results) {
                    self.settle(now, ticket, sent, result);
                }
            }
            Done::Checkpointed { orders, sent, result } => self.checkpointed(now, orders, sent, result),
            Done::Released { ticket, sent, result } => {
                self.answer(Answer::of_one(&result));
                self.released(now, ticket, sent, result.ok());
            }
            Done::Beat { sent, result } => self.beaten(now, sent, &result),
            Done::Deleted(leases, answer) => {
                self.deletion = Deletion::Idle;
                self.answer(answer);
                if leases > 0 {
                    self.reports.deleted(leases);
                    self.listing.soon(now);
                }
            }
            Done::Changed(answer) => {
                self.answer(answer);
                self.listing.soon(now);
            }
            Done::Answered(answer) => self.answer(answer),
        }
    }

    fn released(&mut self, now: Mono, ticket: Ticket, sent: Mono, result: Option<Write>) {
        self.settle(now, ticket, sent, result);
        if let Some(entry) = self.entries.current(ticket)
            && entry.machine.phase() == LeasePhase::Watching
        {
            if !entry.ended {
                self.reports.gave_up(now, &entry.lease.key.shard, entry.next.as_ref());
            }
            self.lose(ticket.entry);
        }
        self.listing.soon(now);
    }

    /// Takes in what became of a heartbeat, which may have renewed every lease.
    fn beaten(&mut self, now: Mono, sent: Mono, result: &Result<Heartbeat, StoreError>) {
        self.reports.beaten(now, sent);
        self.answer(Answer::of_write(result, |heartbeat| *heartbeat != Heartbeat::Evicted));
        let was_seen = self.pulse.is_seen(now);
        let written = match result {
            Ok(Heartbeat::Written { heartbeat }) => Some(*heartbeat),
            Ok(Heartbeat::Evicted) | Err(_) => None,
        };
        self.pulse.ended(now, sent, written);
        self.leave();
        if self.options.store.renews_all() && !was_seen && self.pulse.is_seen(now) {
            // It may take leases now.
            self.listing.soon(now);
        }
        let event = match result {
            Ok(Heartbeat::Written { .. }) if self.options.store.renews_all() => LeaseEvent::Renewed { sent },
            Ok(Heartbeat::Evicted) => {
                self.fleet.evicted(now);
                self.claims.drop_all();
                LeaseEvent::Evicted
            }
            Ok(Heartbeat::Written { .. }) | Err(_) => return,
        };
        for id in self.entries.held_ids() {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if event == LeaseEvent::Evicted {
                entry.loss = Some(Loss::Evicted);
            }
            entry.machine.handle_event(now, event);
            self.advance(id, now);
        }
    }

    fn checkpointed(
        &mut self,
        now: Mono,
        orders: Vec<Pending>,
        sent: Mono,
        result: Result<Vec<Write>, StoreError>,
    ) {
        self.checkpoints.ended();
        self.reports.checkpointed(now, sent);
        let reason = result.as_ref().err().map(ToString::to_string);
        let results = self.spread(result, orders.len());
        for (pending, result) in orders.into_iter().zip(results) {
            let answer = match &result {
                Some(Write::Done { .. }) => Ok(()),
                Some(Write::Refused { .. }) => Err(KeeperError::Lost),
                Some(Write::Unknown { reason }) => Err(self.calls.unavailable(reason).into()),
                None => Err(self.calls.unavailable(reason.as_deref().unwrap_or("no answer")).into()),
            };
            if answer.is_ok() && pending.write.position == Position::ShardEnd {
                if let Some(entry) = self.entries.current(pending.ticket) {
                    entry.ended = true;
                }
                // Its children may start now.
                self.listing.soon(now);
            }
            let _ = pending.reply.send(answer);
            self.settle(now, pending.ticket, sent, result);
        }
    }

    /// One result per item; `None` if it is unknown what happened.
    fn spread(&mut self, result: Result<Vec<Write>, StoreError>, items: usize) -> Vec<Option<Write>> {
        self.answer(Answer::of_many(&result));
        let mut writes: Vec<Option<Write>> = result.unwrap_or_default().into_iter().map(Some).collect();
        writes.resize_with(items, || None);
        writes
    }

    /// Hands a write's result to the lease it was for.
    fn settle(&mut self, now: Mono, ticket: Ticket, sent: Mono, result: Option<Write>) {
        let Some(entry) = self.entries.current(ticket) else { return };
        let event = match result {
            Some(Write::Done { counter }) => {
                entry.loss = None;
                LeaseEvent::Written { sent, counter }
            }
            Some(Write::Refused { current }) => {
                entry.loss = Some(if current.is_some() { Loss::Taken } else { Loss::Deleted });
                let view = current
                    .as_deref()
                    .map(|lease| entry.view(lease, &self.options.worker, |_| false, |_| false));
                LeaseEvent::Refused(view)
            }
            Some(Write::Unknown { .. }) | None => LeaseEvent::Unknown { sent },
        };
        entry.machine.handle_event(now, event);
        self.advance(ticket.entry, now);
    }

    fn acquired(&mut self, now: Mono, ticket: Ticket, sent: Mono, result: Result<Write, StoreError>) {
        self.answer(Answer::of_one(&result));
        self.claims.ended();
        if self.entries.current(ticket).is_some() {
            let counter = match &result {
                Ok(Write::Done { counter }) => Some(*counter),
                _ => None,
            };
            self.settle(now, ticket, sent, result.ok());
            if let Some(counter) = counter {
                self.grant(now, ticket, counter);
            }
        }
        self.claim(now);
    }

    /// Hands the lease that was acquired to the run, which starts to read its shard.
    fn grant(&mut self, now: Mono, ticket: Ticket, counter: u64) {
        let Some(entry) = self.entries.current(ticket) else { return };
        let (Some(until), Some(token)) = (entry.machine.valid_until(), entry.token.clone()) else { return };
        let (from, why) = entry.why_free(&self.options.worker, self.led);
        self.reports.took(now, &entry.lease.key.shard, from, why);
        let validity = Arc::new(Validity::new(until));
        if let Some(leases) = self.leases.upgrade() {
            let held = Held::new(&entry.lease, token, counter, Arc::clone(&validity), leases);
            // The receiver is gone while the consumer stops: the grant is dropped and with it the lease.
            let _ = self.grants.send(Grant { lease: entry.lease.clone(), held });
        } else {
            entry.given_up = true;
            entry.machine.handle_event(now, LeaseEvent::Release);
        }
        self.entries.hold(ticket.entry, validity);
        self.reports.holds(self.entries.held());
        self.advance(ticket.entry, now);
    }

    /// Takes in what a call shows about the store.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.reports.answer(self.options.clock.now(), answer);
    }
}
