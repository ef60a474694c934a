//! One lease's state machine: watch a counter, take over by this worker's own clock, renew, lose, release.

use std::time::Duration;

use crate::time::Mono;

/// The times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseTimes {
    /// A lease whose counter does not change for this long is free to take (I11), unless its owner gave a longer time.
    pub lease: Duration,
    /// How much earlier an owner stops than others may take over (I10).
    pub margin: Duration,
}

impl LeaseTimes {
    /// The times for a lease of this length: the owner stops a tenth of it early.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self { lease, margin: lease / 10 }
    }

    /// How long an owner may keep working after its last successful write was sent.
    fn validity(&self) -> Duration {
        self.lease.saturating_sub(self.margin)
    }

    fn renewal(&self) -> Duration {
        self.lease / 3
    }

    /// The wait after a write whose result is unknown: several fit into what is left of the lease.
    fn retry(&self) -> Duration {
        self.lease / 20
    }
}

/// What shows that a lease's owner lives: its heartbeat where that renews all its leases, else the counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LifeSign {
    /// The lease counter.
    pub counter: u64,
    /// The owner's heartbeat, where that renews all its leases at once; 0 elsewhere.
    pub heartbeat: u64,
}

impl LifeSign {
    /// The sign of an owner that renews each of its leases.
    #[must_use]
    pub const fn counter(counter: u64) -> Self {
        Self { counter, heartbeat: 0 }
    }
}

/// A lease as a listing or a refused write shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseView {
    /// The lease counter, and the owner's heartbeat.
    pub sign: LifeSign,
    /// Tells one acquisition from another, which may have the same heartbeat; `None` if the lease is under none.
    pub acquisition: Option<u64>,
    /// Who owns the lease.
    pub owner: OwnerView,
    /// The lease time that the owner gave when it took the lease; `None` if it did not say.
    pub lease: Option<Duration>,
}

/// Who owns a lease, from this worker's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerView {
    /// No worker.
    Nobody,
    /// This worker, by the acquisition that is under way or held.
    Me,
    /// An owner that is known to be dead, or an earlier run under this worker's own name: free to take at once.
    Gone,
    /// Another worker.
    Other,
}

/// The phase of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeasePhase {
    /// Another worker holds it, or none does.
    Watching,
    /// A write that takes it is under way.
    Acquiring,
    /// This worker has it.
    Held,
    /// A write that releases it is in flight.
    Releasing,
}

/// What happened to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseEvent {
    /// A listing showed it.
    Observed(LeaseView),
    /// The write under way succeeded.
    Written {
        /// When it was sent.
        sent: Mono,
        /// The lease counter since.
        counter: u64,
    },
    /// The write under way was refused; the lease is as shown, or gone.
    Refused(Option<LeaseView>),
    /// The worker's heartbeat renewed it, together with all its other leases.
    Renewed {
        /// When the heartbeat was sent.
        sent: Mono,
    },
    /// Other workers have declared this one dead: whatever it held is lost.
    Evicted,
    /// Whether the write under way happened is not known.
    Unknown {
        /// When it was sent.
        sent: Mono,
    },
    /// The write that was asked for was never sent: nothing has happened.
    NotSent,
    /// This worker wants the lease, or no longer does.
    Wanted(bool),
    /// The holder releases the lease.
    Release,
}

/// What to do for a lease. Each but `Lost` is a write that is answered by one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseAction {
    /// Take the lease with a fresh token if its counter and its owner's heartbeat are still these.
    Acquire {
        /// What to expect.
        seen: LifeSign,
    },
    /// Renew the lease; any other write that counts as a renewal may take its place.
    Renew {
        /// The counter to expect.
        counter: u64,
    },
    /// Release the lease.
    Release {
        /// The counter to expect.
        counter: u64,
    },
    /// The lease is no longer this worker's: everything that runs under it stops.
    Lost,
}

/// One lease's state machine.
///
/// [`handle_event`](Self::handle_event) takes in what happened, [`poll_action`](Self::poll_action) returns what to do
/// until it returns `None`, [`poll_timeout`](Self::poll_timeout) returns when to call again. One write at a time is in
/// flight: [`begin_write`](Self::begin_write) starts one on the holder's behalf (a checkpoint).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseMachine {
    times: LeaseTimes,
    /// The worker's heartbeat renews it: its own renewal only finds out what a write of unknown result did, and no other
    /// write proves or shows that its owner lives.
    by_heartbeat: bool,
    wanted: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Watching(Watch),
    Acquiring(Watch),
    Held(Hold),
    Releasing(Hold),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Watch {
    sign: Option<LifeSign>,
    acquisition: Option<u64>,
    /// When this worker may take the lease, if it stays as it is.
    free_at: Mono,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Hold {
    counter: u64,
    /// When the last successful write was sent: validity counts from there.
    proven: Mono,
    renew_at: Mono,
    writing: bool,
    /// When a write was sent whose result is not known.
    unknown: Option<Mono>,
    releasing: bool,
    lost: bool,
}

impl LeaseMachine {
    /// A lease that nothing is known of yet.
    #[must_use]
    pub const fn new(times: LeaseTimes) -> Self {
        Self {
            times,
            by_heartbeat: false,
            wanted: false,
            state: State::Watching(Watch::from(Mono::from_millis(0))),
        }
    }

    /// The same lease where the worker's heartbeat renews all that it holds ([`LeaseEvent::Renewed`]).
    #[must_use]
    pub const fn renewed_by_heartbeat(self) -> Self {
        Self { by_heartbeat: true, ..self }
    }

    /// Takes in what happened.
    pub fn handle_event(&mut self, now: Mono, event: LeaseEvent) {
        match event {
            LeaseEvent::Observed(view) => self.observe(now, view),
            LeaseEvent::Written { sent, counter } => self.written(now, sent, counter),
            LeaseEvent::Refused(view) => self.refused(now, view),
            LeaseEvent::Renewed { sent } => {
                if let State::Held(hold) | State::Releasing(hold) = &mut self.state {
                    hold.proven = hold.proven.max(sent);
                }
            }
            LeaseEvent::Evicted => {
                if let State::Held(hold) | State::Releasing(hold) = &mut self.state {
                    hold.lost = true;
                }
            }
            LeaseEvent::Unknown { sent } => self.unknown(now, sent),
            LeaseEvent::NotSent => self.not_sent(),
            LeaseEvent::Wanted(wanted) => self.wanted = wanted,
            LeaseEvent::Release => {
                if let State::Held(hold) = &mut self.state {
                    hold.releasing = true;
                }
            }
        }
    }

    /// What to do next; marks it as under way.
    pub fn poll_action(&mut self, now: Mono) -> Option<LeaseAction> {
        match &mut self.state {
            State::Watching(watch) => {
                let seen = watch.sign.filter(|_| self.wanted && now >= watch.free_at)?;
                self.state = State::Acquiring(*watch);
                Some(LeaseAction::Acquire { seen })
            }
            State::Held(hold) => {
                if hold.lost || now >= hold.proven + self.times.validity() {
                    self.state = State::Watching(Watch::from(now));
                    return Some(LeaseAction::Lost);
                }
                if hold.writing {
                    return None;
                }
                let counter = hold.counter;
                let is_due = now >= hold.renew_at && hold.renews_itself(self.by_heartbeat);
                // A write of unknown result is asked about again after a pause only, a release as well.
                if !is_due && (!hold.releasing || hold.unknown.is_some()) {
                    return None;
                }
                if hold.releasing {
                    self.state = State::Releasing(hold.clone());
                    return Some(LeaseAction::Release { counter });
                }
                hold.writing = true;
                Some(LeaseAction::Renew { counter })
            }
            State::Acquiring(_) | State::Releasing(_) => None,
        }
    }

    /// When [`poll_action`](Self::poll_action) may return more if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        match &self.state {
            State::Watching(watch) => (self.wanted && watch.sign.is_some()).then_some(watch.free_at),
            State::Held(hold) => {
                let end = hold.proven + self.times.validity();
                let waits = hold.writing || !hold.renews_itself(self.by_heartbeat);
                Some(if waits { end } else { end.min(hold.renew_at) })
            }
            State::Acquiring(_) | State::Releasing(_) => None,
        }
    }

    /// Starts a write on the holder's behalf, which counts as a renewal: the counter to expect, or `None` if a write is
    /// under way, the result of one is not known, or the lease is not to be written any more (I10).
    ///
    /// After a write of unknown result a renewal finds out first: a refusal would not show whether the holder's own
    /// write happened, and writes that hang must not take the renewal's turn again and again.
    pub fn begin_write(&mut self, now: Mono) -> Option<u64> {
        let validity = self.times.validity();
        let State::Held(hold) = &mut self.state else { return None };
        let open = !(hold.writing || hold.releasing || hold.lost || hold.unknown.is_some());
        if !open || now >= hold.proven + validity {
            return None;
        }
        hold.writing = true;
        Some(hold.counter)
    }

    /// Until when the holder may start something new (I10).
    #[must_use]
    pub fn valid_until(&self) -> Option<Mono> {
        match &self.state {
            State::Held(hold) if !hold.lost && !hold.releasing => Some(hold.proven + self.times.validity()),
            _ => None,
        }
    }

    /// Whether the lease is free, as far as this worker can tell: it has no owner, one that is gone, or one that has
    /// not shown that it lives for the longer one of both workers' lease times (I11).
    #[must_use]
    pub fn is_free(&self, now: Mono) -> bool {
        matches!(&self.state, State::Watching(watch) if watch.sign.is_some() && now >= watch.free_at)
    }

    /// The phase of the lease.
    #[must_use]
    pub const fn phase(&self) -> LeasePhase {
        match &self.state {
            State::Watching(_) => LeasePhase::Watching,
            State::Acquiring(_) => LeasePhase::Acquiring,
            State::Held(_) => LeasePhase::Held,
            State::Releasing(_) => LeasePhase::Releasing,
        }
    }

    fn observe(&mut self, now: Mono, view: LeaseView) {
        // A listing may be older than the last write, so it proves nothing about a lease that is held.
        if let State::Watching(watch) = &mut self.state {
            let changed = !watch.is_unmoved(&view, self.by_heartbeat);
            (watch.sign, watch.acquisition) = (Some(view.sign), view.acquisition);
            match view.owner {
                OwnerView::Nobody | OwnerView::Gone | OwnerView::Me => watch.free_at = watch.free_at.min(now),
                // An owner with a longer lease time renews more rarely, and works on for longer, than this worker would.
                OwnerView::Other if changed => {
                    watch.free_at =
                        now + view.lease.map_or(self.times.lease, |own| own.max(self.times.lease));
                }
                OwnerView::Other => {}
            }
        }
    }

    fn written(&mut self, now: Mono, sent: Mono, counter: u64) {
        match &mut self.state {
            State::Acquiring(_) => {
                self.state = State::Held(Hold {
                    counter,
                    proven: sent,
                    renew_at: sent + self.times.renewal(),
                    writing: false,
                    unknown: None,
                    releasing: false,
                    lost: false,
                });
            }
            State::Held(hold) => {
                hold.counter = counter;
                hold.prove(sent, &self.times, self.by_heartbeat);
            }
            State::Releasing(_) => self.watch_again(now, Some(counter)),
            State::Watching(_) => {}
        }
    }

    fn refused(&mut self, now: Mono, view: Option<LeaseView>) {
        match &mut self.state {
            State::Held(hold) => {
                hold.writing = false;
                hold.lost = !hold.explains(now, view, &self.times, self.by_heartbeat);
            }
            State::Releasing(hold) => {
                if hold.explains(now, view, &self.times, self.by_heartbeat) {
                    self.state = State::Held(hold.clone());
                    return;
                }
                self.watch_again(now, None);
                self.observe_if_there(now, view);
            }
            State::Acquiring(watch) => {
                // What was written last by an owner that is dead by its heartbeat costs another attempt, no other wait.
                let before = *watch;
                self.watch_again(now, None);
                if self.by_heartbeat {
                    self.state = State::Watching(before);
                }
                self.observe_if_there(now, view);
            }
            State::Watching(_) => {}
        }
    }

    fn observe_if_there(&mut self, now: Mono, view: Option<LeaseView>) {
        if let Some(view) = view {
            self.observe(now, view);
        }
    }

    fn unknown(&mut self, now: Mono, sent: Mono) {
        match &mut self.state {
            State::Held(hold) => hold.unsure(now, sent, &self.times),
            State::Releasing(hold) => {
                hold.unsure(now, sent, &self.times);
                self.state = State::Held(hold.clone());
            }
            // A listing will show whether it happened.
            State::Acquiring(_) => self.watch_again(now, None),
            State::Watching(_) => {}
        }
    }

    fn not_sent(&mut self) {
        match &mut self.state {
            State::Held(hold) => hold.writing = false,
            State::Releasing(hold) => self.state = State::Held(hold.clone()),
            State::Acquiring(watch) => self.state = State::Watching(*watch),
            State::Watching(_) => {}
        }
    }

    fn watch_again(&mut self, now: Mono, counter: Option<u64>) {
        self.wanted = false;
        let sign = counter.map(LifeSign::counter);
        self.state = State::Watching(Watch { sign, ..Watch::from(now + self.times.lease) });
    }
}

impl Watch {
    /// Nothing is known yet of the lease, which is free at `free_at`.
    const fn from(free_at: Mono) -> Self {
        Self { sign: None, acquisition: None, free_at }
    }

    /// Whether the owner has shown no sign of life since the lease was last seen.
    fn is_unmoved(&self, view: &LeaseView, by_heartbeat: bool) -> bool {
        match self.sign {
            Some(sign) if by_heartbeat && view.acquisition.is_some() => {
                self.acquisition == view.acquisition && sign.heartbeat == view.sign.heartbeat
            }
            sign => sign == Some(view.sign),
        }
    }
}

impl Hold {
    /// Whether a renewal of its own may be due.
    const fn renews_itself(&self, by_heartbeat: bool) -> bool {
        !by_heartbeat || self.unknown.is_some()
    }

    /// Whether a refusal only shows that the write of unknown result did happen, and no other worker wrote since
    /// (incident 13).
    fn explains(
        &mut self,
        now: Mono,
        refusal: Option<LeaseView>,
        times: &LeaseTimes,
        by_heartbeat: bool,
    ) -> bool {
        match (self.unknown, refusal) {
            (Some(sent), Some(LeaseView { sign, owner: OwnerView::Me, .. }))
                if sign.counter == self.counter + 1 =>
            {
                self.counter = sign.counter;
                self.prove(sent, times, by_heartbeat);
                // It proves the lease from when it was sent only: a fresh write follows at once.
                self.renew_at = now;
                true
            }
            _ => false,
        }
    }

    fn unsure(&mut self, now: Mono, sent: Mono, times: &LeaseTimes) {
        self.writing = false;
        // The first one counts: a later attempt may have been refused because of it.
        self.unknown.get_or_insert(sent);
        self.renew_at = now + times.retry();
    }

    fn prove(&mut self, sent: Mono, times: &LeaseTimes, by_heartbeat: bool) {
        self.writing = false;
        self.unknown = None;
        // Where others look at the heartbeat, no other write keeps them away.
        if !by_heartbeat {
            self.proven = self.proven.max(sent);
        }
        self.renew_at = sent + times.renewal();
    }
}

#[cfg(test)]
mod tests;
