//! The keeper's work for one application.

mod answers;
mod commands;
mod finished;
mod listed;
mod places;
mod planned;

use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::{Checkpoint, Claim, Ownership, Renewal, WorkerReport};
use shardmill_engine::{LeaseAction, LeaseEvent, Mono};
use tokio::sync::{mpsc, oneshot};

use self::finished::Deletion;
use self::planned::Plan;
use super::KeeperOptions;
use super::calls::{Calls, Pending};
use super::checkpoints::Checkpoints;
use super::claims::Claims;
use super::entries::Entries;
use super::fleet::Fleet;
use super::handle::Grant;
use super::leases::WeakLeases;
use super::listing::Listing;
use super::messages::{CheckpointOrder, Command, KeeperError, Served};
use super::pulse::Pulse;
use super::renewals::Renewals;
use super::reports::Reports;
use super::tally::Loss;
use super::ticket::EntryId;
use super::trouble::StoreTrouble;

/// Upper bound on sleeping, so that a hung keeper can be distinguished from an idle one.
const TICK: Duration = Duration::from_millis(500);

pub(super) struct Actor {
    options: KeeperOptions,
    leases: WeakLeases,
    commands: mpsc::UnboundedReceiver<Command>,
    grants: mpsc::UnboundedSender<Grant>,
    phase: Phase,
    served: Option<Arc<Served>>,
    on_idle: Vec<oneshot::Sender<()>>,
    calls: Calls,
    entries: Entries,
    listing: Listing,
    renewals: Renewals,
    checkpoints: Checkpoints<CheckpointOrder>,
    deletion: Deletion,
    fleet: Fleet,
    plan: Plan,
    claims: Claims,
    /// Another program's leader decides who gets which lease.
    led: bool,
    pulse: Pulse,
    /// What the last heartbeat said of how many leases this worker may have.
    told: Option<usize>,
    /// Waits until this worker's record is deleted.
    leaving: Option<oneshot::Sender<()>>,
    reports: Reports,
}

/// What the keeper still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It takes leases.
    Taking,
    /// It takes no more leases.
    Retired,
    /// No sender of commands is left: it ends once no lease is held.
    Closed,
}

impl Actor {
    pub(super) fn new(
        options: KeeperOptions,
        leases: WeakLeases,
        commands: mpsc::UnboundedReceiver<Command>,
        grants: mpsc::UnboundedSender<Grant>,
    ) -> Self {
        let reports = Reports::new(
            Arc::clone(&options.mapping),
            Arc::clone(&options.store),
            Arc::clone(&leases.board),
            StoreTrouble::new(options.times.lease),
        );
        Self {
            leases,
            commands,
            grants,
            phase: Phase::Taking,
            served: None,
            on_idle: Vec::new(),
            calls: Calls::new(Arc::clone(&options.store), options.times.lease / 3),
            entries: Entries::new(options.times, options.store.renews_all()),
            listing: Listing::new(
                options
                    .store
                    .listing_interval()
                    .map_or(options.listing_interval, |least| least.max(options.listing_interval)),
                options.times.lease,
            ),
            renewals: Renewals::new(),
            checkpoints: Checkpoints::new(),
            deletion: Deletion::Idle,
            fleet: Fleet::new(options.worker.clone(), options.times.lease),
            plan: Plan::default(),
            claims: Claims::default(),
            led: false,
            pulse: Pulse::new(options.times.lease),
            told: None,
            leaving: None,
            reports,
            options,
        }
    }

    /// Works until all senders of commands are gone and every lease is released.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.now();
            self.start_due(now);
            self.reports.tick(now);
            if self.entries.is_idle() && self.answer_idle(now) {
                return;
            }
            let wake = self.wakes_at(now);
            tokio::select! {
                // No chance: what a simulation shows must be shown again by its seed. Commands first: a store that answers at
                // once would otherwise hide that the last sender of commands is gone.
                biased;
                command = self.commands.recv(), if self.phase != Phase::Closed => match command {
                    Some(command) => self.command(command),
                    None => self.stop_taking(now, Phase::Closed),
                },
                Some(done) = self.calls.next() => self.done(done),
                () = tokio::time::sleep(wake.since(now)) => {}
            }
            // Everything else that is ready joins the same iteration, so that writes share a call.
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
        }
    }

    /// No lease is held: whether the work has ended with it.
    fn answer_idle(&mut self, now: Mono) -> bool {
        let ends = self.phase == Phase::Closed;
        if ends || !self.on_idle.is_empty() {
            self.reports.flush(now);
        }
        for reply in self.on_idle.drain(..) {
            let _ = reply.send(());
        }
        ends
    }

    fn now(&self) -> Mono {
        self.options.clock.now().mono
    }

    fn wakes_at(&self, now: Mono) -> Mono {
        [self.entries.wakes_at(), self.listing.wakes_at(), self.checkpoints.wakes_at(), self.pulse.wakes_at()]
            .into_iter()
            .flatten()
            .fold(now + TICK, Mono::min)
    }

    /// What this worker says of itself now.
    fn report(&self, now: Mono) -> WorkerReport {
        let mut report = self.options.about.clone();
        report.stopping = self.phase != Phase::Taking;
        report.leases = self.entries.held() as u64;
        report.records_per_minute = self.leases.board.minute();
        report.maximum_leases = self.places(now).map(|most| most as u64);
        report
    }

    fn start_due(&mut self, now: Mono) {
        while let Some(id) = self.entries.take_due(now) {
            self.advance(id, now);
        }
        if self.pulse.take(now) {
            self.told = self.places(now);
            self.calls.heartbeat(self.report(now), now);
        }
        if self.listing.take(now) {
            self.calls.list();
        }
        self.send_renewals(now);
        self.send_checkpoints(now);
    }

    /// Carries out what a lease's machine wants now.
    fn advance(&mut self, id: EntryId, now: Mono) {
        self.checkpoints.unblock(id);
        let Some(entry) = self.entries.get_mut(id) else { return };
        if !entry.takes_slot(&self.options.slots) {
            // The worker has as many leases as it may have; the next listing tries again.
            entry.machine.handle_event(now, LeaseEvent::Wanted(false));
        }
        while let Some(action) = self.entries.get_mut(id).and_then(|entry| entry.machine.poll_action(now)) {
            self.act(id, now, action);
        }
        self.entries.update(id);
    }

    fn act(&mut self, id: EntryId, now: Mono, action: LeaseAction) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        match action {
            LeaseAction::Acquire { seen } => {
                let token = entry.begin_acquisition();
                let claim = Claim {
                    owner: self.options.worker.clone(),
                    token: token.to_string(),
                    process: self.options.process.clone(),
                    lease_time: Some(self.options.times.lease),
                    seen_heartbeat: seen.heartbeat,
                };
                self.claims.began();
                self.calls.acquire(entry.ticket(id), entry.lease.key.clone(), seen.counter, claim, now);
            }
            LeaseAction::Renew { counter } => self.renewals.ask(id, counter),
            LeaseAction::Release { counter } => {
                let (ticket, key) = (entry.ticket(id), entry.lease.key.clone());
                match entry.next.take_if(|next| !entry.ended && self.fleet.may_get(next)) {
                    Some(next) => {
                        let me = Some(self.options.worker.clone());
                        let seen = match entry.is_asked {
                            false => Ownership { counter, owner: me, checkpoint_owner: None },
                            true => Ownership { counter, owner: Some(next.clone()), checkpoint_owner: me },
                        };
                        self.calls.give(ticket, key, seen, next.clone(), now);
                        entry.next = Some(next);
                    }
                    None => {
                        entry.next = None;
                        self.calls.release(ticket, key, counter, now);
                    }
                }
            }
            LeaseAction::Lost => {
                if !entry.given_up {
                    let loss = entry.loss.unwrap_or(Loss::NotRenewed);
                    self.reports.lost(now, &entry.lease.key.shard, loss);
                }
                self.lose(id);
            }
        }
    }

    /// The holder may start nothing more.
    fn lose(&mut self, id: EntryId) {
        self.renewals.withdraw(id);
        if self.entries.lose(id) {
            self.reports.holds(self.entries.held());
        }
    }

    fn send_renewals(&mut self, now: Mono) {
        let (mut tickets, mut renewals) = (Vec::new(), Vec::new());
        for (id, counter) in self.renewals.take() {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.is_valid(now) {
                tickets.push(entry.ticket(id));
                renewals.push(Renewal { key: entry.lease.key.clone(), counter });
            } else {
                entry.machine.handle_event(now, LeaseEvent::NotSent);
                self.advance(id, now);
            }
        }
        if !tickets.is_empty() {
            self.renewals.sent();
            self.calls.renew(tickets, renewals, now);
        }
    }

    /// Sends all checkpoints that wait in one call, so that a store can commit them together. Only now their leases'
    /// counters are taken: while another call hangs they can still be renewed.
    fn send_checkpoints(&mut self, now: Mono) {
        let mut writes = Vec::new();
        for order in self.checkpoints.take(now) {
            let held = self.entries.held_by(&order.key, &order.token);
            let valid = held.and_then(|id| self.entries.get_mut(id).map(|entry| (id, entry)));
            let Some((id, entry)) = valid.filter(|(_, entry)| entry.is_valid(now)) else {
                let _ = order.reply.send(Err(KeeperError::Lost));
                continue;
            };
            let Some(counter) = entry.machine.begin_write(now) else {
                self.checkpoints.block(id, order);
                continue;
            };
            let ticket = entry.ticket(id);
            let CheckpointOrder { key, position, app, reply, .. } = order;
            writes.push(Pending { ticket, write: Checkpoint { key, counter, position, app }, reply });
            self.entries.update(id);
        }
        if !writes.is_empty() {
            self.checkpoints.sent(now);
            self.calls.checkpoint(writes, now);
        }
    }
}
