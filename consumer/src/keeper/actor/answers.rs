//! What becomes of the calls to the store.

use std::sync::Arc;

use shardmill_checkpoint::{StoreError, Write};
use shardmill_engine::{LeaseEvent, LeasePhase, Mono, Position};

use super::Actor;
use crate::keeper::calls::{Done, Pending, Ticket};
use crate::keeper::held::{Grant, Held, KeeperError, Validity};
use crate::keeper::tally::{Change, Loss};
use crate::keeper::trouble::Answer;
use crate::metrics;

impl Actor {
    pub(super) fn done(&mut self, done: Done) {
        let now = self.now();
        match done {
            Done::Listed(result) => self.listed(now, result),
            Done::Acquired { ticket, sent, result } => self.acquired(now, ticket, sent, result),
            Done::Renewed { tickets, sent, result } => {
                self.renewing = false;
                let results = self.spread(result, tickets.len());
                for (ticket, result) in tickets.into_iter().zip(results) {
                    self.settle(now, ticket, sent, result);
                }
            }
            Done::Checkpointed { orders, sent, result } => self.checkpointed(now, orders, sent, result),
            Done::Released { ticket, sent, result } => {
                self.note(Answer::of_one(&result));
                self.released(now, ticket, sent, result.ok());
            }
            Done::Deleted(leases, answer) => {
                self.deleting = false;
                self.note(answer);
                if leases > 0 {
                    tracing::debug!(
                        leases,
                        "deleted the leases of finished shards that the stream has forgotten"
                    );
                    metrics::leases_deleted(&self.options.mapping, leases);
                    self.list_now(now);
                }
            }
            Done::Changed(answer) => {
                self.note(answer);
                self.list_now(now);
            }
            Done::Answered(answer) => self.note(answer),
        }
    }

    fn released(&mut self, now: Mono, ticket: Ticket, sent: Mono, result: Option<Write>) {
        self.settle(now, ticket, sent, result);
        let entry = &self.entries[ticket.entry];
        if entry.machine.phase() == LeasePhase::Watching && self.is_current(ticket) {
            if !entry.ended {
                self.tally.note(now, Change::GivenUp, &entry.lease.key.shard);
            }
            self.lose(ticket.entry);
        }
        self.list_now(now);
    }

    fn checkpointed(
        &mut self,
        now: Mono,
        orders: Vec<Pending>,
        sent: Mono,
        result: Result<Vec<Write>, StoreError>,
    ) {
        self.checkpointing = false;
        metrics::checkpoint_written(&self.options.mapping, now.since(sent));
        let reason = result.as_ref().err().map(ToString::to_string);
        let results = self.spread(result, orders.len());
        for (pending, result) in orders.into_iter().zip(results) {
            let answer = match &result {
                Some(Write::Done { .. }) => Ok(()),
                Some(Write::Refused { .. }) => Err(KeeperError::Lost),
                None => Err(self.calls.unavailable(reason.as_deref().unwrap_or("no answer")).into()),
            };
            if answer.is_ok() && pending.write.position == Position::ShardEnd {
                if self.is_current(pending.ticket) {
                    self.entries[pending.ticket.entry].ended = true;
                }
                // Its children may start now.
                self.list_now(now);
            }
            let _ = pending.reply.send(answer);
            self.settle(now, pending.ticket, sent, result);
        }
    }

    /// One result per item; none where it is not known what happened.
    fn spread(&mut self, result: Result<Vec<Write>, StoreError>, items: usize) -> Vec<Option<Write>> {
        self.note(Answer::of_many(&result));
        let mut writes: Vec<Option<Write>> = result.unwrap_or_default().into_iter().map(Some).collect();
        writes.resize_with(items, || None);
        writes
    }

    /// Hands a write's result to the lease it was for.
    fn settle(&mut self, now: Mono, ticket: Ticket, sent: Mono, result: Option<Write>) {
        if !self.is_current(ticket) {
            return;
        }
        let entry = &mut self.entries[ticket.entry];
        let event = match result {
            Some(Write::Done { counter }) => {
                entry.loss = None;
                LeaseEvent::Written { sent, counter }
            }
            Some(Write::Refused { current }) => {
                entry.loss = Some(if current.is_some() { Loss::Taken } else { Loss::Deleted });
                let view = current.as_deref().map(|lease| entry.view(lease, &self.options.worker, |_| false));
                LeaseEvent::Refused(view)
            }
            None => LeaseEvent::Unknown { sent },
        };
        entry.machine.handle_event(now, event);
        self.advance(ticket.entry, now);
    }

    fn acquired(&mut self, now: Mono, ticket: Ticket, sent: Mono, result: Result<Write, StoreError>) {
        self.note(Answer::of_one(&result));
        if !self.is_current(ticket) {
            return;
        }
        let counter = match &result {
            Ok(Write::Done { counter }) => Some(*counter),
            _ => None,
        };
        self.settle(now, ticket, sent, result.ok());
        let entry = &mut self.entries[ticket.entry];
        if let (Some(counter), Some(until), Some(token)) =
            (counter, entry.machine.valid_until(), &entry.token)
        {
            let validity = Arc::new(Validity::new(until));
            entry.validity = Some(Arc::clone(&validity));
            let (from, why) = entry.why_free(&self.options.worker);
            self.tally.note(now, Change::Taken { from, why }, &entry.lease.key.shard);
            self.held += 1;
            metrics::leases_held(&self.options.mapping, self.held);
            if let Some(leases) = self.leases.upgrade() {
                let held = Held::new(&entry.lease, Arc::clone(token), counter, validity, leases);
                // Nobody receives while the consumer stops: the grant is dropped and with it the lease.
                let _ = self.grants.send(Grant { lease: entry.lease.clone(), held });
            } else {
                entry.given_up = true;
                entry.machine.handle_event(now, LeaseEvent::Release);
                self.advance(ticket.entry, now);
            }
        }
    }

    /// Takes in what a call says of the store; says once that it fails.
    pub(super) fn note(&mut self, answer: Answer) {
        let failed = matches!(answer, Answer::Failed(..));
        if self.trouble.note(self.options.clock.now(), answer) {
            let error = self.trouble.report().map(|report| report.message);
            tracing::warn!(
                mapping = %self.options.mapping, error,
                "the checkpoint store fails; trying again until reads and writes succeed"
            );
            metrics::store_failing(&self.options.mapping, true);
        }
        if failed {
            metrics::store_failed(&self.options.mapping);
            self.leases.board.set_trouble(self.trouble.report());
        }
    }

    /// Says what is due: that the store's trouble has ended, and what happened to leases.
    pub(super) fn report(&mut self, now: Mono) {
        if let Some(ended) = self.trouble.poll(now) {
            tracing::info!(
                mapping = %self.options.mapping,
                store = %self.options.store.describe(),
                failures = ended.failures,
                seconds = ended.lasted.as_secs(),
                "the checkpoint store answers again"
            );
            metrics::store_failing(&self.options.mapping, false);
            self.leases.board.set_trouble(None);
        }
        self.tally.write(now, false, &self.options.mapping);
    }
}
