//! Everything that may happen to one lease between two workers, in every order, for both ways to renew it: each lease by
//! itself, and all leases of a worker by its heartbeat.
//!
//! Calls arrive whenever they like or never, also long after their callers have given up; answers get lost; listings are
//! shown late; a worker that is given no turn stands still. A state that was seen before is not walked on from.

mod store;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use self::store::{Call, Outcome, Store};
use super::*;

/// Milliseconds of a step of the clock: half of the lease time.
const TICK: u64 = 1_000;
const TIMES: LeaseTimes =
    LeaseTimes { lease: Duration::from_millis(2 * TICK), margin: Duration::from_millis(TICK / 2) };
/// An exploration of fewer states would be a mistake in its setup.
const SMALL: usize = 50_000;

/// How often each thing may still happen on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    ticks: u8,
    /// Calls that never arrive, and answers that do not.
    losses: u8,
    /// Answers and listings that do not come at once.
    delays: u8,
    /// Calls whose callers give up before they are answered.
    timeouts: u8,
    crashes: u8,
    checkpoints: u8,
    releases: u8,
    beats: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    by_heartbeat: bool,
    store: Store,
    workers: [Worker; 2],
    flying: Vec<Message>,
    left: Budget,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    machine: LeaseMachine,
    /// Names its last acquisition.
    token: Option<u64>,
    /// Its life, where heartbeats renew.
    epoch: Option<u64>,
    /// A listing that it has not been shown yet.
    listing: Option<LeaseView>,
}

/// A call on its way, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    who: usize,
    call: Call,
    sent: u64,
    /// Its caller waits for the answer.
    awaited: bool,
    /// Once it has arrived.
    outcome: Option<Outcome>,
}

/// What an exploration saw.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// Leases that were taken from another worker, by its silence.
    takeovers: usize,
    evictions: usize,
    late_refusals: usize,
}

impl World {
    fn begin(by_heartbeat: bool, left: Budget) -> Self {
        let worker = || Worker { machine: fresh(by_heartbeat), token: None, epoch: None, listing: None };
        let workers = [worker(), worker()];
        Self { now: 0, by_heartbeat, store: Store::default(), workers, flying: Vec::new(), left }
    }

    fn mono(&self) -> Mono {
        at(self.now * TICK)
    }

    /// Whether the worker may start something, by its own judgement.
    fn is_valid(&self, who: usize) -> bool {
        self.workers[who].machine.valid_until().is_some_and(|until| self.mono() < until)
    }

    /// Everything that may happen next.
    fn successors(&self, explored: &mut Explored) -> Vec<Self> {
        let mut next = Vec::new();
        let mut add = |world: Option<Self>| next.extend(world);
        add(self.spend(|left| &mut left.ticks).map(|world| Self { now: world.now + 1, ..world }));
        for who in 0..2 {
            add(self.wake(who));
            let listed = self.looks(who);
            add(listed.as_ref().and_then(|world| world.spend(|left| &mut left.delays)));
            add(listed.as_ref().unwrap_or(self).is_shown(who));
            add(self.beats(who));
            add(self.checkpoints(who));
            for give in [false, true] {
                add(self.releases(who, give));
            }
            add(self.crashes(who));
        }
        for index in 0..self.flying.len() {
            match self.flying[index].outcome {
                None => {
                    let arrived = self.arrives(index, explored);
                    add(self.is_lost(index));
                    if self.flying[index].awaited {
                        add(arrived.is_lost(index));
                        add(arrived.spend(|left| &mut left.delays));
                        add(Some(arrived.is_answered(index)));
                    } else {
                        add(Some(arrived));
                    }
                }
                Some(_) => add(Some(self.is_answered(index))),
            }
            add(self.times_out(index));
        }
        next
    }

    fn spend(&self, of: impl FnOnce(&mut Budget) -> &mut u8) -> Option<Self> {
        let mut world = self.clone();
        let left = of(&mut world.left);
        *left = left.checked_sub(1)?;
        Some(world)
    }

    fn send(&mut self, who: usize, call: Call) {
        self.flying.push(Message { who, call, sent: self.now, awaited: true, outcome: None });
    }

    /// The worker has a turn: it does what its machine wants.
    fn wake(&self, who: usize) -> Option<Self> {
        let mut world = self.clone();
        world.poll(who);
        (world != *self).then_some(world)
    }

    fn poll(&mut self, who: usize) {
        while let Some(action) = self.workers[who].machine.poll_action(self.mono()) {
            let call = match action {
                LeaseAction::Acquire { seen } => {
                    let (token, epoch) = (self.store.draw(who), self.life(who));
                    self.workers[who].token = Some(token);
                    let LifeSign { counter, heartbeat } = seen;
                    Call::Acquire { counter, heartbeat, token, epoch }
                }
                LeaseAction::Renew { counter } => Call::Renew { counter },
                LeaseAction::Release { counter } => Call::Release { counter },
                LeaseAction::Lost => {
                    // An answer that is late is none of the next acquisition's.
                    self.drop_calls(who, |call| !call.is_beat());
                    continue;
                }
            };
            self.send(who, call);
        }
    }

    /// The worker's life, which begins now unless it has.
    fn life(&mut self, who: usize) -> u64 {
        if !self.by_heartbeat {
            return 0;
        }
        let store = &mut self.store;
        *self.workers[who].epoch.get_or_insert_with(|| store.join(who))
    }

    fn looks(&self, who: usize) -> Option<Self> {
        let Worker { token, listing: None, .. } = self.workers[who] else { return None };
        let mut world = self.clone();
        world.workers[who].listing = Some(self.store.view(who, token));
        Some(world)
    }

    fn is_shown_at_once(&self, who: usize) -> Self {
        self.looks(who).and_then(|world| world.is_shown(who)).unwrap()
    }

    fn is_shown(&self, who: usize) -> Option<Self> {
        let (mut world, now) = (self.clone(), self.mono());
        let Worker { machine, listing, .. } = &mut world.workers[who];
        machine.handle_event(now, LeaseEvent::Wanted(false));
        machine.handle_event(now, LeaseEvent::Observed(listing.take()?));
        machine.handle_event(now, LeaseEvent::Wanted(true));
        world.poll(who);
        Some(world)
    }

    fn beats(&self, who: usize) -> Option<Self> {
        let is_waiting =
            self.flying.iter().any(|message| message.who == who && message.awaited && message.call.is_beat());
        if !self.by_heartbeat || is_waiting {
            return None;
        }
        let mut world = self.spend(|left| &mut left.beats)?;
        let epoch = world.life(who);
        world.send(who, Call::Beat { epoch });
        Some(world)
    }

    fn checkpoints(&self, who: usize) -> Option<Self> {
        let mut world = self.spend(|left| &mut left.checkpoints)?;
        let counter = world.workers[who].machine.begin_write(self.mono())?;
        world.send(who, Call::Renew { counter });
        Some(world)
    }

    /// The holder releases the lease, or gives it to the other worker.
    fn releases(&self, who: usize, give: bool) -> Option<Self> {
        if self.workers[who].machine.phase() != LeasePhase::Held {
            return None;
        }
        let mut world = self.spend(|left| &mut left.releases)?;
        world.workers[who].machine.handle_event(self.mono(), LeaseEvent::Release);
        world.poll(who);
        if let Some(Message { call, .. }) = world.flying.last_mut()
            && let Call::Release { counter } = *call
            && give
        {
            *call = Call::Give { counter, to: 1 - who };
        }
        Some(world)
    }

    /// The worker's process ends; another one starts under its name. What was sent still arrives.
    fn crashes(&self, who: usize) -> Option<Self> {
        let mut world = self.spend(|left| &mut left.crashes)?;
        let machine = fresh(self.by_heartbeat);
        world.workers[who] = Worker { machine, token: None, epoch: None, listing: None };
        world.drop_calls(who, |_| true);
        Some(world)
    }

    /// The worker waits for these calls no longer; what was sent still arrives.
    fn drop_calls(&mut self, who: usize, which: impl Fn(Call) -> bool) {
        let dropped = self.flying.iter_mut().filter(|message| message.who == who && which(message.call));
        dropped.for_each(|message| message.awaited = false);
        self.flying.retain(|message| message.awaited || message.outcome.is_none());
    }

    fn arrives(&self, index: usize, explored: &mut Explored) -> Self {
        let mut world = self.clone();
        let Message { who, call, awaited, .. } = self.flying[index];
        let before = self.store.holder();
        let outcome = world.store.carry_out(who, call);
        if let (Call::Acquire { .. }, Outcome::Done { .. }, Some(other)) = (call, outcome, before)
            && other != who
        {
            explored.takeovers += 1;
            assert!(!self.is_valid(other), "I11: {who} takes what {other} works on: {self:?}");
        }
        explored.evictions += usize::from(outcome == Outcome::Evicted);
        explored.late_refusals += usize::from(!awaited && outcome == Outcome::Refused);
        world.flying[index].outcome = Some(outcome);
        if !awaited {
            world.flying.remove(index);
        }
        world
    }

    fn is_lost(&self, index: usize) -> Option<Self> {
        let mut world = self.spend(|left| &mut left.losses)?;
        let message = world.flying.remove(index);
        if message.awaited {
            world.is_unknown(message);
        }
        Some(world)
    }

    fn times_out(&self, index: usize) -> Option<Self> {
        let message = self.flying[index];
        if !message.awaited || self.now == message.sent {
            return None;
        }
        let mut world = self.spend(|left| &mut left.timeouts)?;
        world.flying[index].awaited = false;
        if message.outcome.is_some() {
            world.flying.remove(index);
        }
        world.is_unknown(message);
        Some(world)
    }

    fn is_unknown(&mut self, message: Message) {
        if !message.call.is_beat() {
            let sent = at(message.sent * TICK);
            self.tell(message.who, LeaseEvent::Unknown { sent });
        }
    }

    fn is_answered(&self, index: usize) -> Self {
        let mut world = self.clone();
        let Message { who, call, sent, outcome, .. } = world.flying.remove(index);
        let sent = at(sent * TICK);
        let event = match outcome {
            Some(Outcome::Done { .. }) if call.is_beat() => LeaseEvent::Renewed { sent },
            Some(Outcome::Done { counter }) => LeaseEvent::Written { sent, counter },
            Some(Outcome::Evicted) => {
                world.workers[who].epoch = None;
                LeaseEvent::Evicted
            }
            // As the lease is when the answer comes, or earlier: nothing else depends on when.
            _ => LeaseEvent::Refused(Some(world.store.view(who, world.workers[who].token))),
        };
        world.tell(who, event);
        assert!(
            event != LeaseEvent::Evicted || !world.is_valid(who),
            "I10: an evicted worker works on: {world:?}"
        );
        world
    }

    fn tell(&mut self, who: usize, event: LeaseEvent) {
        self.workers[who].machine.handle_event(self.mono(), event);
        self.poll(who);
    }
}

fn fresh(by_heartbeat: bool) -> LeaseMachine {
    let machine = LeaseMachine::new(TIMES);
    if by_heartbeat { machine.renewed_by_heartbeat() } else { machine }
}

fn explore(by_heartbeat: bool, left: Budget) -> Explored {
    let mut explored = Explored::default();
    // The first worker has the lease.
    let mut first = World::begin(by_heartbeat, left).is_shown_at_once(0);
    first = first.arrives(0, &mut explored).is_answered(0);
    let (hasher, mut known, mut open) = (RandomState::new(), HashSet::new(), vec![first]);
    while let Some(world) = open.pop() {
        explored.states += 1;
        for mut next in world.successors(&mut explored) {
            assert!(
                !(next.is_valid(0) && next.is_valid(1)),
                "I10: both workers may start something: {next:?}"
            );
            next.flying.sort_unstable();
            if known.insert(hasher.hash_one(&next)) {
                open.push(next);
            }
        }
    }
    explored
}

/// Nothing is lost, nothing is late, and nobody ends.
const CALM: Budget =
    Budget { ticks: 4, losses: 0, delays: 0, timeouts: 0, crashes: 0, checkpoints: 0, releases: 0, beats: 0 };

fn explore_all(by_heartbeat: bool, budgets: &[Budget]) {
    let mut total = Explored::default();
    for left in budgets {
        let explored = explore(by_heartbeat, *left);
        assert!(explored.takeovers > 0, "{left:?}: {explored:?}");
        total.states += explored.states;
        total.evictions += explored.evictions;
        total.late_refusals += explored.late_refusals;
    }
    println!("by heartbeat {by_heartbeat}: {total:?}");
    assert!(total.states > SMALL && total.late_refusals > 0, "{total:?}");
    assert_eq!(total.evictions > 0, by_heartbeat, "{total:?}");
}

#[test]
fn i10_i11_explored_two_workers_that_renew_their_lease_in_every_order() {
    let budgets = [
        Budget { ticks: 5, ..CALM },
        Budget { losses: 1, timeouts: 1, ticks: 3, ..CALM },
        Budget { delays: 1, timeouts: 1, ticks: 3, ..CALM },
        Budget { crashes: 1, ..CALM },
        Budget { releases: 1, ..CALM },
        Budget { checkpoints: 1, ticks: 3, ..CALM },
    ];
    explore_all(false, &budgets);
}

#[test]
fn i10_i11_explored_two_workers_whose_heartbeats_renew_their_leases_in_every_order() {
    let calm = Budget { beats: 1, ..CALM };
    let budgets = [
        Budget { beats: 2, ..calm },
        Budget { losses: 1, ticks: 3, ..calm },
        Budget { timeouts: 1, ticks: 3, ..calm },
        Budget { delays: 1, ticks: 3, ..calm },
        Budget { crashes: 1, ticks: 3, ..calm },
        Budget { releases: 1, ticks: 3, ..calm },
        Budget { checkpoints: 1, ticks: 3, ..calm },
    ];
    explore_all(true, &budgets);
}
