//! The store of one lease and two workers, as every store behaves.

use super::{LeaseView, LifeSign, OwnerView, TIMES};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Call {
    Acquire {
        counter: u64,
        heartbeat: u64,
        token: u64,
        epoch: u64,
    },
    /// A renewal or a checkpoint.
    Renew {
        counter: u64,
    },
    Release {
        counter: u64,
    },
    /// The lease is assigned to another worker.
    Give {
        counter: u64,
        to: usize,
    },
    Beat {
        epoch: u64,
    },
}

impl Call {
    pub(super) const fn is_beat(self) -> bool {
        matches!(self, Self::Beat { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Outcome {
    Done { counter: u64 },
    Refused,
    Evicted,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Store {
    counter: u64,
    owner: Option<usize>,
    /// Of the acquisition; none if the lease is free or was given and not taken.
    token: Option<u64>,
    /// Of the owner's life at the acquisition.
    epoch: u64,
    lives: [Life; 2],
    /// How many numbers each worker has drawn.
    drawn: [u64; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Life {
    epoch: Option<u64>,
    heartbeat: u64,
    /// The last life that is over, and where the heartbeat stood.
    ended: Option<(u64, u64)>,
}

impl Life {
    fn end(&mut self) {
        if let Some(epoch) = self.epoch.take() {
            self.ended = Some((epoch, self.heartbeat));
        }
    }

    fn heartbeat_in(&self, epoch: u64) -> u64 {
        match self.ended {
            _ if self.epoch == Some(epoch) => self.heartbeat,
            Some((ended, heartbeat)) if ended == epoch => heartbeat,
            _ => 0,
        }
    }
}

impl Store {
    /// A number that was not given out before: a token, or the epoch of a life.
    pub(super) const fn draw(&mut self, who: usize) -> u64 {
        self.drawn[who] += 1;
        2 * self.drawn[who] + who as u64
    }

    /// Begins a life of the worker.
    pub(super) fn join(&mut self, who: usize) -> u64 {
        let epoch = self.draw(who);
        let life = &mut self.lives[who];
        life.end();
        life.heartbeat += 1;
        life.epoch = Some(epoch);
        epoch
    }

    /// The worker whose acquisition the lease is under.
    pub(super) fn holder(&self) -> Option<usize> {
        self.owner.filter(|_| self.token.is_some())
    }

    /// The lease as it looks to a worker whose last acquisition has this token.
    pub(super) fn view(&self, who: usize, token: Option<u64>) -> LeaseView {
        let owner = match self.owner {
            None => OwnerView::Nobody,
            Some(owner) if owner != who => OwnerView::Other,
            Some(_) if token.is_some() && token == self.token => OwnerView::Me,
            Some(_) => OwnerView::Gone,
        };
        let heartbeat = self.holder().map_or(0, |holder| self.lives[holder].heartbeat_in(self.epoch));
        let sign = LifeSign { counter: self.counter, heartbeat };
        LeaseView { sign, acquisition: self.token, owner, lease: self.token.map(|_| TIMES.lease) }
    }

    pub(super) fn carry_out(&mut self, who: usize, call: Call) -> Outcome {
        let expected = match call {
            Call::Beat { epoch } => return self.beat(who, epoch),
            Call::Acquire { counter, .. }
            | Call::Renew { counter }
            | Call::Release { counter }
            | Call::Give { counter, .. } => counter,
        };
        if self.counter != expected {
            return Outcome::Refused;
        }
        match call {
            Call::Acquire { heartbeat, token, epoch, .. } => {
                if !self.evict(who, heartbeat) {
                    return Outcome::Refused;
                }
                (self.owner, self.token, self.epoch) = (Some(who), Some(token), epoch);
            }
            Call::Release { .. } => (self.owner, self.token) = (None, None),
            Call::Give { to, .. } => (self.owner, self.token) = (Some(to), None),
            Call::Renew { .. } | Call::Beat { .. } => {}
        }
        self.counter += 1;
        Outcome::Done { counter: self.counter }
    }

    fn beat(&mut self, who: usize, epoch: u64) -> Outcome {
        let life = &mut self.lives[who];
        if life.epoch != Some(epoch) {
            return Outcome::Evicted;
        }
        life.heartbeat += 1;
        Outcome::Done { counter: 0 }
    }

    /// Ends the life under which another worker has the lease, unless it is over. `false` if it goes on.
    fn evict(&mut self, who: usize, heartbeat: u64) -> bool {
        let Some(holder) = self.holder().filter(|holder| *holder != who) else { return true };
        let life = &mut self.lives[holder];
        if life.epoch != Some(self.epoch) {
            return true;
        }
        let is_dead = life.heartbeat == heartbeat;
        if is_dead {
            life.end();
        }
        is_dead
    }
}
