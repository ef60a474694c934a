//! The keeper's work for one application.

mod answers;
mod finished;
mod listing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shardmill_checkpoint::{Checkpoint, Claim, Renewal};
use shardmill_engine::{LeaseAction, LeaseEvent, LeaseKey, LeasePhase, Mono, ShardId};
use tokio::sync::{mpsc, oneshot};

use super::KeeperOptions;
use super::calls::{Call, Calls, Pending, Ticket};
use super::entry::Entry;
use super::held::{CheckpointOrder, Command, Grant, KeeperError, Served, WeakLeases};
use super::tally::{Change, Loss, Tally};
use super::trouble::StoreTrouble;
use crate::metrics;

/// The longest sleep, so that a keeper that hangs can be told from one with nothing to do.
const TICK: Duration = Duration::from_millis(500);
/// The least time between two calls that store checkpoints. Every shard's checkpoint that comes meanwhile joins the
/// next one: a store in memory would otherwise be called for every batch, and each call costs two thread switches. A
/// durable commit takes about as long.
const CHECKPOINT_SPACING: Duration = Duration::from_millis(5);

pub(super) struct Actor {
    options: KeeperOptions,
    calls: Calls,
    leases: WeakLeases,
    commands: mpsc::UnboundedReceiver<Command>,
    grants: mpsc::UnboundedSender<Grant>,
    entries: Vec<Entry>,
    by_key: HashMap<LeaseKey, usize>,
    /// When which entry wants to be asked again.
    timers: BTreeSet<(Mono, usize)>,
    running: FuturesUnordered<Call>,
    served: Option<Arc<Served>>,
    listing: bool,
    /// Finished leases are being deleted.
    deleting: bool,
    /// Places in `entries` that are free again.
    vacant: Vec<usize>,
    /// The leases changed while they were being listed.
    list_again: bool,
    list_at: Mono,
    renewals: Vec<(Ticket, Renewal)>,
    renewing: bool,
    /// Checkpoints that wait for a call, or for the write that is using their lease's counter.
    orders: Vec<CheckpointOrder>,
    checkpointing: bool,
    /// No call that stores checkpoints before this.
    checkpoint_at: Mono,
    /// Leases that somebody holds.
    held: usize,
    on_idle: Vec<oneshot::Sender<()>>,
    retired: bool,
    trouble: StoreTrouble,
    /// Changes of leases that wait for their line in the log.
    tally: Tally,
    /// Shards whose leases cannot be read.
    unreadable: BTreeSet<ShardId>,
}

impl Actor {
    pub(super) fn new(
        options: KeeperOptions,
        leases: WeakLeases,
        commands: mpsc::UnboundedReceiver<Command>,
        grants: mpsc::UnboundedSender<Grant>,
    ) -> Self {
        let calls = Calls { store: Arc::clone(&options.store), timeout: options.times.lease / 3 };
        Self {
            calls,
            leases,
            commands,
            grants,
            entries: Vec::new(),
            by_key: HashMap::new(),
            timers: BTreeSet::new(),
            running: FuturesUnordered::new(),
            served: None,
            listing: false,
            deleting: false,
            vacant: Vec::new(),
            list_again: false,
            list_at: Mono::default(),
            renewals: Vec::new(),
            renewing: false,
            orders: Vec::new(),
            checkpointing: false,
            checkpoint_at: Mono::default(),
            held: 0,
            on_idle: Vec::new(),
            retired: false,
            trouble: StoreTrouble::new(options.times.lease),
            tally: Tally::default(),
            unreadable: BTreeSet::new(),
            options,
        }
    }

    /// Works until nobody can send commands any more and every lease is given up.
    pub(super) async fn run(mut self) {
        let mut open = true;
        loop {
            let now = self.now();
            self.leases.board.tick(now);
            self.start_due(now);
            self.report(now);
            if !(open && self.on_idle.is_empty()) && self.is_idle() {
                self.tally.write(now, true, &self.options.mapping);
                for reply in self.on_idle.drain(..) {
                    let _ = reply.send(());
                }
                if !open {
                    return;
                }
            }
            let wake = self
                .timers
                .first()
                .map_or(now + TICK, |(at, _)| (*at).min(now + TICK))
                .min(self.next_listing(now))
                .min(self.next_checkpoint(now));
            tokio::select! {
                command = self.commands.recv(), if open => match command {
                    Some(command) => self.command(command),
                    None => {
                        open = false;
                        self.command(Command::Retire);
                    }
                },
                Some(done) = self.running.next() => self.done(done),
                () = tokio::time::sleep(wake.since(now)) => {}
            }
            // Whatever else is ready joins the same round, so that writes share a call.
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.entries.iter().all(|entry| entry.machine.phase() == LeasePhase::Watching)
    }

    fn now(&self) -> Mono {
        self.options.clock.now().mono
    }

    fn next_listing(&self, now: Mono) -> Mono {
        if self.listing || self.served.is_none() { now + TICK } else { self.list_at }
    }

    fn list_now(&mut self, now: Mono) {
        self.list_again = self.listing;
        self.list_at = now;
    }

    fn next_checkpoint(&self, now: Mono) -> Mono {
        let idle = self.checkpointing || self.orders.is_empty();
        // Orders that wait although the time has come wait for another write of their lease.
        if idle || self.checkpoint_at <= now { now + TICK } else { self.checkpoint_at }
    }

    fn start_due(&mut self, now: Mono) {
        while let Some((at, entry)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.entries[entry].wakes_at = None;
            self.advance(entry, now);
        }
        if !self.listing && self.served.is_some() && now >= self.list_at {
            self.listing = true;
            self.running.push(self.calls.list());
        }
        self.send_renewals(now);
        self.send_checkpoints(now);
    }

    /// Carries out what an entry's machine wants now.
    fn advance(&mut self, index: usize, now: Mono) {
        let entry = &mut self.entries[index];
        if entry.slot.is_none() {
            entry.slot = Arc::clone(&self.options.slots).try_acquire_owned().ok();
        }
        if entry.slot.is_none() {
            // The worker has as many leases as it may have; the next listing asks again.
            entry.machine.handle_event(now, LeaseEvent::Wanted(false));
        }
        while let Some(action) = self.entries[index].machine.poll_action(now) {
            let entry = &mut self.entries[index];
            let key = entry.lease.key.clone();
            match action {
                LeaseAction::Acquire { seen } => {
                    entry.generation += 1;
                    let token: Arc<str> = uuid::Uuid::new_v4().to_string().into();
                    entry.token = Some(Arc::clone(&token));
                    let claim = Claim {
                        owner: self.options.worker.clone(),
                        token: token.to_string(),
                        process: self.options.process.clone(),
                        lease_time: Some(self.options.times.lease),
                    };
                    let ticket = Ticket { entry: index, generation: entry.generation };
                    self.running.push(self.calls.acquire(ticket, key, seen, claim, now));
                }
                LeaseAction::Renew { counter } => {
                    let ticket = Ticket { entry: index, generation: entry.generation };
                    entry.renewal_waits = true;
                    self.renewals.push((ticket, Renewal { key, counter }));
                }
                LeaseAction::Release { counter } => {
                    let ticket = Ticket { entry: index, generation: entry.generation };
                    self.running.push(self.calls.release(ticket, key, counter, now));
                }
                LeaseAction::Lost => {
                    if !entry.given_up {
                        let loss = entry.loss.unwrap_or(Loss::NotRenewed);
                        tracing::debug!(mapping = %self.options.mapping, shard = %key.shard, ?loss, "lost the lease");
                        self.tally.note(now, Change::Lost(loss), &key.shard);
                        metrics::lease_lost(&self.options.mapping);
                    }
                    self.lose(index);
                }
            }
        }
        self.reschedule(index);
    }

    fn lose(&mut self, index: usize) {
        if self.entries[index].lose() {
            self.held -= 1;
            metrics::leases_held(&self.options.mapping, self.held);
        }
    }

    fn reschedule(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        if entry.machine.phase() == LeasePhase::Watching {
            entry.slot = None;
        }
        let wakes_at = entry.machine.poll_timeout();
        if entry.wakes_at != wakes_at {
            if let Some(old) = entry.wakes_at {
                self.timers.remove(&(old, index));
            }
            if let Some(new) = wakes_at {
                self.timers.insert((new, index));
            }
            entry.wakes_at = wakes_at;
        }
        if let Some(validity) = &entry.validity {
            validity.extend(entry.machine.valid_until());
        }
    }

    fn send_renewals(&mut self, now: Mono) {
        if self.renewing || self.renewals.is_empty() {
            return;
        }
        let (mut tickets, mut renewals) = (Vec::new(), Vec::new());
        for (ticket, renewal) in std::mem::take(&mut self.renewals) {
            // Those of a lease that was lost, and those that a release has taken back, are over.
            if !self.is_current(ticket) || !self.entries[ticket.entry].renewal_waits {
                continue;
            }
            if self.is_valid(ticket.entry, now) {
                self.entries[ticket.entry].renewal_waits = false;
                tickets.push(ticket);
                renewals.push(renewal);
            } else {
                self.entries[ticket.entry].withdraw_renewal(now);
                self.advance(ticket.entry, now);
            }
        }
        if !tickets.is_empty() {
            self.renewing = true;
            self.running.push(self.calls.renew(tickets, renewals, now));
        }
    }

    /// Sends all checkpoints that wait in one call, so that a store can commit them together. Only now their leases'
    /// counters are taken: while another call hangs they can still be renewed.
    fn send_checkpoints(&mut self, now: Mono) {
        if self.checkpointing || now < self.checkpoint_at {
            return;
        }
        let mut writes = Vec::new();
        for order in std::mem::take(&mut self.orders) {
            let index = self.held_index(&order.key, &order.token);
            let Some(index) = index.filter(|index| self.is_valid(*index, now)) else {
                let _ = order.reply.send(Err(KeeperError::Lost));
                continue;
            };
            let entry = &mut self.entries[index];
            let Some(counter) = entry.machine.begin_write(now) else {
                self.orders.push(order);
                continue;
            };
            let ticket = Ticket { entry: index, generation: entry.generation };
            let CheckpointOrder { key, position, app, reply, .. } = order;
            writes.push(Pending { ticket, write: Checkpoint { key, counter, position, app }, reply });
            self.reschedule(index);
        }
        if !writes.is_empty() {
            self.checkpointing = true;
            self.checkpoint_at = now + CHECKPOINT_SPACING;
            self.running.push(self.calls.checkpoint(writes, now));
        }
    }

    fn held_index(&self, key: &LeaseKey, token: &Arc<str>) -> Option<usize> {
        let index = *self.by_key.get(key)?;
        let entry = &self.entries[index];
        (entry.validity.is_some() && entry.token.as_ref() == Some(token)).then_some(index)
    }

    fn is_current(&self, ticket: Ticket) -> bool {
        self.entries[ticket.entry].generation == ticket.generation
    }

    fn is_valid(&self, index: usize, now: Mono) -> bool {
        self.entries[index].machine.valid_until().is_some_and(|until| now < until)
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Create { leases, reply } => self.running.push(self.calls.create(leases, reply)),
            Command::List { reply } => self.running.push(self.calls.list_for(reply)),
            Command::SetChildren { key, children, reply } => {
                self.running.push(self.calls.set_children(key, children, reply));
            }
            Command::Note { name, value, reply } => self.running.push(self.calls.note(name, value, reply)),
            Command::Checkpoint(order) => self.orders.push(order),
            Command::Release { key, token, reply } => match self.held_index(&key, &token) {
                Some(index) => {
                    // A holder that noticed the end of its lease first gives up what is lost all the same.
                    let valid = self.is_valid(index, now);
                    let entry = &mut self.entries[index];
                    entry.on_release.extend(reply);
                    entry.given_up = valid;
                    // The release need not wait for the renewal's turn.
                    entry.withdraw_renewal(now);
                    entry.machine.handle_event(now, LeaseEvent::Release);
                    self.advance(index, now);
                }
                // Lost before: there is nothing to give up. The reply is dropped, which wakes whoever waits.
                None => drop(reply),
            },
            Command::Serve(served) => self.serve(now, served),
            Command::Idle { reply } => self.on_idle.push(reply),
            Command::Retire => {
                self.retired = true;
                for entry in &mut self.entries {
                    entry.machine.handle_event(now, LeaseEvent::Wanted(false));
                }
            }
        }
    }

    fn serve(&mut self, now: Mono, served: Arc<Served>) {
        for entry in &mut self.entries {
            if entry.lease.key.is_sibling_of(&served.stream) {
                entry.listed(now, served.listed.contains_key(&entry.lease.key.shard));
            } else {
                // Whoever still holds it decides when to give it up.
                entry.machine.handle_event(now, LeaseEvent::Wanted(false));
            }
        }
        self.served = Some(served);
        self.list_now(now);
    }
}
