//! Which leases this worker takes, and which it gives to others.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use shardmill_checkpoint::{Lease, WorkerId};
use shardmill_engine::{
    FleetLease, FleetWorker, LeaseEvent, LeaseMove, LeasePhase, Mono, MovePlan, plan_moves,
};

use super::{Actor, Phase};
use crate::keeper::fleet::PLAN_INTERVAL;
use crate::keeper::ticket::EntryId;

/// How much longer a free lease is left to the worker that is to take it by the plan, for each lease that is free.
const FOR_A_FREE_LEASE: Duration = Duration::from_millis(10);

/// A lease whose shard can be read now.
#[derive(Debug)]
pub(super) struct Readable {
    id: EntryId,
    state: FleetLease,
}

/// What the plan was made of, for the one that a stop makes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    workers: Vec<WorkerId>,
    limits: Vec<FleetWorker>,
    leases: Vec<Readable>,
}

impl Plan {
    fn index(&self, worker: &WorkerId) -> usize {
        // A worker that is not in the list counts for none.
        self.workers.binary_search(worker).unwrap_or(usize::MAX)
    }

    fn moves(&self) -> MovePlan {
        let states: Vec<FleetLease> = self.leases.iter().map(|lease| lease.state).collect();
        plan_moves(&self.limits, &states)
    }

    /// The worker that has the lease, or gets it.
    fn holder(&self, lease: &Readable) -> Option<String> {
        let worker = match lease.state {
            FleetLease::Free => None,
            FleetLease::Held { by: worker, .. } | FleetLease::Moving { to: worker } => {
                self.workers.get(worker)
            }
        };
        worker.map(ToString::to_string)
    }

    /// How many shards can be read, and how many of them no live worker has.
    fn counts(&self) -> (usize, usize) {
        let unowned = self.leases.iter().filter(|lease| self.holder(lease).is_none());
        (self.leases.len(), unowned.count())
    }
}

impl Actor {
    /// Computes the plan for the leases that can be read now, and does this worker's part of it: takes what it may, gives
    /// what it has too much of.
    pub(super) fn plan(&mut self, now: Mono, readable: &[(EntryId, &Lease)]) {
        let began = Instant::now();
        self.plan = self.look_around(now, readable);
        let MovePlan { moves, unplaced, .. } = self.plan.moves();
        self.reports.planned(began.elapsed());
        // One that stops cannot judge that, and what another program's workers or its leader may take is not known.
        let can_judge = self.phase == Phase::Taking && !self.led && !self.fleet.has_foreign();
        // Those of another one that stops are still read.
        let is_free = |lease: &&usize| self.plan.leases[**lease].state == FleetLease::Free;
        if can_judge {
            self.reports.unplaced(now, unplaced.iter().filter(is_free).count());
        }
        let (leases, unowned) = self.plan.counts();
        self.reports.fleet(self.plan.workers.len(), leases, unowned);
        let me = self.plan.index(&self.options.worker);
        let claims = moves.iter().filter(|planned| planned.from.is_none() && planned.to == me);
        let mine: HashSet<usize> = claims.map(|planned| planned.lease).collect();
        self.take(now, me, &mine);
        self.tell_places(now);
        let holders = self.plan.leases.iter().filter_map(|lease| {
            Some((self.entries.get(lease.id)?.lease.key.clone(), self.plan.holder(lease)))
        });
        if self.fleet.begin_planning(now, holders) && !self.led {
            self.give(me, &moves);
            self.take_over(now, me, &moves);
        }
    }

    /// Takes what was given to this worker, what is `mine` by the plan, and what the plan's taker leaves.
    fn take(&mut self, now: Mono, me: usize, mine: &HashSet<usize>) {
        let may_take = self.may_take(now);
        let free = self.plan.leases.iter().filter(|lease| lease.state == FleetLease::Free).count();
        // Who takes many is still at it.
        let patience =
            PLAN_INTERVAL + FOR_A_FREE_LEASE.saturating_mul(u32::try_from(free).unwrap_or(u32::MAX));
        let (mut given, mut planned, mut declined) = (VecDeque::new(), VecDeque::new(), Vec::new());
        for index in 0..self.plan.leases.len() {
            let Readable { id, state } = self.plan.leases[index];
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.machine.phase() != LeasePhase::Watching {
                continue;
            }
            let free_since = (state == FleetLease::Free).then(|| entry.free_since.unwrap_or(now));
            entry.free_since = free_since;
            let is_left = free_since.is_some_and(|since| now >= since + patience);
            if may_take && state == (FleetLease::Moving { to: me }) {
                given.push_back(id);
            } else if self.phase != Phase::Taking && state == (FleetLease::Moving { to: me }) {
                declined.push(id);
            } else if may_take && !self.led && (is_left || mine.contains(&index)) {
                planned.push_back(id);
            }
            self.advance(id, now);
        }
        // It was given while this worker began to stop.
        declined.into_iter().for_each(|id| self.decline(id));
        given.append(&mut planned);
        self.claims.planned(given);
        self.claim(now);
    }

    /// Takes the next ones of the leases that this worker is to take.
    pub(super) fn claim(&mut self, now: Mono) {
        while self.may_take(now)
            && let Some(id) = self.claims.next()
        {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.machine.phase() != LeasePhase::Watching {
                continue;
            }
            if !entry.takes_slot(&self.options.slots) {
                self.decline(id);
                continue;
            }
            entry.machine.handle_event(now, LeaseEvent::Wanted(true));
            self.advance(id, now);
        }
    }

    /// Gives a lease back that this worker was given and does not take: it stops, or it has no place left, because its other mappings
    /// share `MaximumLeases` and had the same one in mind. Unless it is free, nobody would read the shard until it looks as if its owner
    /// were dead.
    fn decline(&self, id: EntryId) {
        let Some(lease) = self.entries.get(id).map(|entry| &entry.lease) else { return };
        let is_given = lease.owner.as_ref() == Some(&self.options.worker) && lease.token.is_none();
        if is_given && !self.led {
            self.calls.decline(lease.key.clone(), lease.counter);
        }
    }

    fn may_take(&self, now: Mono) -> bool {
        // What heartbeats are to renew is not taken by a worker whose heartbeats do not come through.
        let can_renew = !self.options.store.renews_all() || self.pulse.is_seen(now);
        self.phase == Phase::Taking && can_renew && self.fleet.may_claim(now)
    }

    /// Takes a lease that is this worker's by the plan from a worker of another program: that one gives none, and takes
    /// leases from others in the same way. One in an interval, so that neither is left with nothing for a moment.
    fn take_over(&mut self, now: Mono, me: usize, moves: &[LeaseMove]) {
        let from_foreign = |planned: &&LeaseMove| {
            let from = planned.from.and_then(|from| self.plan.workers.get(from));
            planned.to == me && from.is_some_and(|from| self.fleet.is_foreign(from))
        };
        let Some(planned) = moves.iter().find(from_foreign).filter(|_| self.may_take(now)) else { return };
        let id = self.plan.leases[planned.lease].id;
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.take_over(now);
        self.advance(id, now);
    }

    /// Gives what this worker is to give by the plan.
    fn give(&mut self, me: usize, moves: &[LeaseMove]) {
        for planned in moves.iter().filter(|planned| planned.from == Some(me)) {
            let (id, to) = (self.plan.leases[planned.lease].id, self.plan.workers[planned.to].clone());
            self.hand_off(id, to);
        }
    }

    /// The workers that live, and who has which lease.
    fn look_around(&mut self, now: Mono, readable: &[(EntryId, &Lease)]) -> Plan {
        let me = &self.options.worker;
        let mut workers: BTreeMap<WorkerId, FleetWorker> = BTreeMap::new();
        for record in self.fleet.alive() {
            let report = &record.report;
            let maximum = report.maximum_leases.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
            // What another program's worker has is all that it gets by this plan.
            let held = readable.iter().filter(|(_, lease)| lease.owner.as_ref() == Some(&report.id));
            let maximum = if report.foreign { Some(held.count()) } else { maximum };
            workers.insert(report.id.clone(), FleetWorker { stopping: report.stopping, maximum });
        }
        let maximum = self.places(now);
        workers.insert(me.clone(), FleetWorker { stopping: self.phase != Phase::Taking, maximum });
        // Workers that report nothing, as those of an older version, are known by their leases.
        for (id, lease) in readable {
            let Some(owner) = lease.owner.as_ref().filter(|owner| *owner != me) else { continue };
            let is_free = self.entries.get(*id).is_none_or(|entry| entry.machine.is_free(now));
            if !is_free && lease.token.is_some() && !self.fleet.knows(owner) {
                workers.entry(owner.clone()).or_default();
            }
        }
        let (workers, limits) = workers.into_iter().unzip();
        let mut plan = Plan { workers, limits, leases: Vec::with_capacity(readable.len()) };
        for (id, lease) in readable {
            let state = self.state(now, *id, lease, &plan);
            plan.leases.push(Readable { id: *id, state });
        }
        plan
    }

    fn state(&self, now: Mono, id: EntryId, lease: &Lease, plan: &Plan) -> FleetLease {
        let me = &self.options.worker;
        let mine = plan.index(me);
        let Some(entry) = self.entries.get(id) else { return FleetLease::Free };
        let settled = self.fleet.is_settled(&entry.lease.key);
        match (entry.machine.phase(), &lease.owner) {
            (LeasePhase::Held | LeasePhase::Releasing, _) => match &entry.next {
                Some(next) => FleetLease::Moving { to: plan.index(next) },
                None => FleetLease::Held { by: mine, settled },
            },
            (LeasePhase::Acquiring, _) => FleetLease::Moving { to: mine },
            (LeasePhase::Watching, Some(owner)) if owner == me && (self.led || lease.token.is_none()) => {
                FleetLease::Moving { to: mine }
            }
            (LeasePhase::Watching, Some(owner)) if !entry.machine.is_free(now) => match &lease.token {
                Some(_) => FleetLease::Held { by: plan.index(owner), settled },
                None => FleetLease::Moving { to: plan.index(owner) },
            },
            (LeasePhase::Watching, _) => FleetLease::Free,
        }
    }

    /// This worker stops: the plan says who gets what it holds.
    pub(super) fn give_all(&mut self) {
        if self.led {
            // What is released is its leader's to give.
            return;
        }
        let me = self.plan.index(&self.options.worker);
        if let Some(own) = self.plan.limits.get_mut(me) {
            own.stopping = true;
        }
        for lease in &mut self.plan.leases {
            let Some(entry) = self.entries.get(lease.id) else { continue };
            if entry.validity.is_some() && entry.next.is_none() {
                lease.state = FleetLease::Held { by: me, settled: true };
            }
        }
        let MovePlan { moves, .. } = self.plan.moves();
        self.give(me, &moves);
    }

    /// Another program's leader has named the next owner in the lease: its holder finishes.
    pub(super) fn finish_handoff(&mut self, id: EntryId, to: WorkerId) {
        if let Some(entry) = self.entries.get_mut(id)
            && let Some(validity) = &entry.validity
        {
            validity.ask();
            entry.next = Some(to);
            entry.is_asked = true;
        }
    }

    /// Asks the holder to finish; its release then names the next owner.
    fn hand_off(&mut self, id: EntryId, to: WorkerId) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.next.is_none()
            && let Some(validity) = &entry.validity
        {
            validity.ask();
            entry.next = Some(to);
        }
    }
}
