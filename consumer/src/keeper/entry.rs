//! What the keeper knows of one lease.

use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::{Lease, ProcessIdentity, WorkerId};
use shardmill_engine::{LeaseEvent, LeaseMachine, LeaseTimes, LeaseView, Mono, OwnerView};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::handle::Validity;
use super::tally::{Free, Loss};
use super::ticket::{EntryId, Ticket};

/// A listing may be late by seconds. A shard that none has shown for so long is gone, even if none of its descendants is
/// there to prove it: no worker ran for longer than the stream keeps records.
const LONG_ABSENT: Duration = Duration::from_secs(1800);

pub(super) struct Entry {
    pub(super) machine: LeaseMachine,
    /// The lease as it was last listed; while it is held, as it was when it was acquired.
    pub(super) lease: Lease,
    /// The token of the acquisition that is under way or held.
    pub(super) token: Option<Arc<str>>,
    pub(super) validity: Option<Arc<Validity>>,
    /// Rises with every acquisition and loss.
    pub(super) generation: u64,
    /// When the machine is to be polled next.
    pub(super) wakes_at: Option<Mono>,
    /// It is held or being written, as [`Entries`](super::entries::Entries) has counted it.
    pub(super) busy: bool,
    pub(super) on_release: Vec<oneshot::Sender<()>>,
    /// The holder has released the lease: losing it now is no loss.
    pub(super) given_up: bool,
    /// The shard's end is stored: its holder releases it because it is done.
    pub(super) ended: bool,
    /// This run has held it and lost it.
    was_held: bool,
    /// Who owned the lease when it was last looked at.
    seen: OwnerView,
    /// The token of the last acquisition that was seen, this worker's own ones included.
    seen_token: Option<String>,
    /// How many acquisitions were seen: each has another token.
    acquisitions: u64,
    /// The worker that gets the lease as soon as its holder has finished.
    pub(super) next: Option<WorkerId>,
    /// The store itself asks for that: the next owner stands in the row already.
    pub(super) is_asked: bool,
    /// It is taken from a worker of another program, for balance.
    is_taken_over: bool,
    /// The worker that had it last before this one was named its next owner.
    giver: Option<WorkerId>,
    /// Since when it is free and its shard can be read.
    pub(super) free_since: Option<Mono>,
    /// Why the lease will be lost, if that is known.
    pub(super) loss: Option<Loss>,
    /// The last listing showed the lease, which is held, under another acquisition or not at all.
    pub(super) doubted: bool,
    /// Since when listings of the stream lack the shard.
    pub(super) absent_since: Option<Mono>,
    /// Listings have lacked it for so long that it is not only late.
    pub(super) long_absent: bool,
    /// One of the worker's `MaximumLeases`, while the lease is held or a write of it is under way.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Entry {
    pub(super) fn new(lease: Lease, times: LeaseTimes, by_heartbeat: bool) -> Self {
        let machine = LeaseMachine::new(times);
        Self {
            machine: if by_heartbeat { machine.renewed_by_heartbeat() } else { machine },
            lease,
            token: None,
            validity: None,
            generation: 0,
            wakes_at: None,
            busy: false,
            on_release: Vec::new(),
            given_up: false,
            ended: false,
            was_held: false,
            seen: OwnerView::Nobody,
            seen_token: None,
            acquisitions: 0,
            next: None,
            is_asked: false,
            is_taken_over: false,
            giver: None,
            free_since: None,
            loss: None,
            doubted: false,
            absent_since: None,
            long_absent: false,
            slot: None,
        }
    }

    /// A listing of the stream shows the shard, or does not.
    pub(super) fn listed(&mut self, now: Mono, shown: bool) {
        self.absent_since = (!shown).then(|| self.absent_since.unwrap_or(now));
        self.long_absent = self.absent_since.is_some_and(|since| now >= since + LONG_ABSENT);
    }

    /// A listing shows the lease, which this worker does not hold, like this.
    pub(super) fn saw(&mut self, lease: &Lease, owner: OwnerView) {
        // Most listings show what the one before showed.
        if self.lease != *lease {
            if self.lease.owner != lease.owner {
                self.giver = self.lease.owner.take();
            }
            self.lease = lease.clone();
        }
        self.seen = owner;
        self.is_taken_over = false;
    }

    /// The lease is to be taken from a worker of another program, whose way of sharing that is.
    pub(super) fn take_over(&mut self, now: Mono) {
        self.is_taken_over = true;
        let view = LeaseView {
            sign: self.lease.life_sign(),
            acquisition: None,
            owner: OwnerView::Gone,
            lease: self.lease.lease_time,
        };
        self.machine.handle_event(now, LeaseEvent::Observed(view));
        self.machine.handle_event(now, LeaseEvent::Wanted(true));
    }

    /// Whether the lease has one of the worker's `slots`, or gets one now.
    pub(super) fn takes_slot(&mut self, slots: &Arc<Semaphore>) -> bool {
        if self.slot.is_none() {
            self.slot = Arc::clone(slots).try_acquire_owned().ok();
        }
        self.slot.is_some()
    }

    /// A fresh token for the acquisition that begins now.
    pub(super) fn begin_acquisition(&mut self) -> Arc<str> {
        self.generation += 1;
        let token: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        self.token = Some(Arc::clone(&token));
        self.doubted = false;
        token
    }

    pub(super) const fn ticket(&self, entry: EntryId) -> Ticket {
        Ticket { entry, generation: self.generation }
    }

    /// Whether the holder may start something new, and whether a write for it may be sent (I10).
    pub(super) fn is_valid(&self, now: Mono) -> bool {
        self.machine.valid_until().is_some_and(|until| now < until)
    }

    /// Why it was free to take, and its former owner. Where a leader decides, what is this worker's was given to it.
    pub(super) fn why_free(&self, me: &WorkerId, led: bool) -> (Option<String>, Free) {
        let from = self.lease.owner.as_ref();
        let why = match self.seen {
            _ if from.is_none() => Free::NobodyHadIt,
            _ if from == Some(me) && (led || self.lease.token.is_none()) => {
                return (self.giver.as_ref().map(ToString::to_string), Free::Given);
            }
            _ if from == Some(me) && self.was_held => Free::LostBefore,
            _ if from == Some(me) => Free::EarlierRun,
            _ if self.is_taken_over => Free::TakenOver,
            OwnerView::Gone => Free::DeadProcess,
            _ => Free::NotRenewed,
        };
        (from.map(ToString::to_string), why)
    }

    /// The worker that the holder is to hand the lease over to, if a listing shows that another program's leader asks for
    /// it under this very acquisition.
    pub(super) fn asked_for<'l>(&self, lease: &'l Lease, me: &WorkerId) -> Option<&'l WorkerId> {
        let is_held = self.validity.is_some() && self.token.as_deref() == lease.token.as_deref();
        let next = lease.owner.as_ref().filter(|next| *next != me)?;
        (is_held && lease.checkpoint_owner.as_ref() == Some(me)).then_some(next)
    }

    /// How `lease` looks to this worker.
    pub(super) fn view(
        &mut self,
        lease: &Lease,
        me: &WorkerId,
        has_left: impl FnOnce(&WorkerId) -> bool,
        is_dead: impl FnOnce(&ProcessIdentity) -> bool,
    ) -> LeaseView {
        let owner = match &lease.owner {
            _ if lease.checkpoint_owner.is_some() => OwnerView::Other,
            None => OwnerView::Nobody,
            Some(owner)
                if owner == me && self.token.is_some() && lease.token.as_deref() == self.token.as_deref() =>
            {
                OwnerView::Me
            }
            // It was given to a worker that has left or died before it took it.
            Some(owner) if lease.token.is_none() && has_left(owner) => OwnerView::Gone,
            // A worker's name is unique among those alive, so its earlier owner is gone.
            Some(owner) if owner == me => OwnerView::Gone,
            Some(_) if lease.process.as_ref().is_some_and(is_dead) => OwnerView::Gone,
            Some(_) => OwnerView::Other,
        };
        let acquisition = self.acquisition(lease);
        LeaseView { sign: lease.life_sign(), acquisition, owner, lease: lease.lease_time }
    }

    /// Numbers the acquisitions of the lease as they are seen.
    fn acquisition(&mut self, lease: &Lease) -> Option<u64> {
        let token = lease.token.as_deref()?;
        if self.seen_token.as_deref() != Some(token) {
            self.seen_token = Some(token.to_owned());
            self.acquisitions += 1;
        }
        Some(self.acquisitions)
    }

    /// The holder may start nothing more. Returns whether there was one.
    pub(super) fn lose(&mut self) -> bool {
        self.generation += 1;
        self.token = None;
        self.given_up = false;
        self.ended = false;
        self.next = None;
        self.is_asked = false;
        self.loss = None;
        let validity = self.validity.take();
        if let Some(validity) = &validity {
            validity.lose();
        }
        for reply in self.on_release.drain(..) {
            let _ = reply.send(());
        }
        self.was_held |= validity.is_some();
        validity.is_some()
    }
}
