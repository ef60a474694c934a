//! The plan over random fleets: its rules, the fewest moves, and workers whose views of the fleet differ.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{FleetLease, FleetWorker, MovePlan, plan_moves};

fn workers(maxima: std::ops::Range<usize>) -> impl Strategy<Value = Vec<FleetWorker>> {
    let maximum = prop_oneof![Just(None), maxima.prop_map(Some)];
    let worker = (prop::bool::weighted(0.2), maximum)
        .prop_map(|(stopping, maximum)| FleetWorker { stopping, maximum });
    vec(worker, 1..6)
}

/// Leases in any state, one of a worker that is not listed among them.
fn leases(workers: usize) -> impl Strategy<Value = Vec<FleetLease>> {
    let lease = prop_oneof![
        1 => Just(FleetLease::Free),
        1 => (0..=workers).prop_map(|to| FleetLease::Moving { to }),
        4 => (0..=workers, any::<bool>()).prop_map(|(by, settled)| FleetLease::Held { by, settled }),
    ];
    vec(lease, 0..25)
}

fn any_fleet() -> impl Strategy<Value = (Vec<FleetWorker>, Vec<FleetLease>)> {
    workers(0..8).prop_flat_map(|workers| {
        let leases = leases(workers.len());
        (Just(workers), leases)
    })
}

/// Leases that are free or held and settled.
fn settled_fleet() -> impl Strategy<Value = (Vec<FleetWorker>, Vec<FleetLease>)> {
    any_fleet().prop_map(|(workers, mut leases)| {
        settle(&workers, &mut leases);
        (workers, leases)
    })
}

/// Every handoff is done, every lease may move; one of a worker that is not listed is free.
fn settle(workers: &[FleetWorker], leases: &mut [FleetLease]) {
    for lease in leases {
        *lease = match *lease {
            FleetLease::Held { by, .. } | FleetLease::Moving { to: by } if by < workers.len() => {
                FleetLease::Held { by, settled: true }
            }
            _ => FleetLease::Free,
        };
    }
}

fn apply(plan: &MovePlan, leases: &mut [FleetLease], state: impl Fn(usize) -> FleetLease) {
    for step in &plan.moves {
        leases[step.lease] = state(step.to);
    }
}

fn held(by: usize) -> FleetLease {
    FleetLease::Held { by, settled: true }
}

/// What each worker holds and gets.
fn counts(workers: &[FleetWorker], leases: &[FleetLease]) -> Vec<usize> {
    let of = |worker| {
        let counts = |lease: &&FleetLease| match **lease {
            FleetLease::Held { by, .. } => by == worker,
            FleetLease::Moving { to } => to == worker,
            FleetLease::Free => false,
        };
        leases.iter().filter(counts).count()
    };
    (0..workers.len()).map(of).collect()
}

fn is_full(worker: &FleetWorker, count: usize) -> bool {
    worker.stopping || worker.maximum.is_some_and(|maximum| count >= maximum)
}

/// No worker has two less than another one, or is below another's excess, unless it may not have more.
fn is_fair(workers: &[FleetWorker], counts: &[usize]) -> bool {
    let takers = || workers.iter().zip(counts).filter(|(worker, _)| !worker.stopping);
    takers().all(|(worker, count)| {
        let lacks = |(other, more): (&FleetWorker, &usize)| {
            *more >= count + 2 || other.maximum.is_some_and(|maximum| *more > maximum)
        };
        is_full(worker, *count) || !takers().any(lacks)
    })
}

/// The fewest leases that must arrive anywhere so that the fleet is fair and holds `left` more: every way is tried.
fn fewest_moves(workers: &[FleetWorker], before: &[usize], left: usize) -> Option<usize> {
    fn fill(
        workers: &[FleetWorker],
        before: &[usize],
        after: &mut Vec<usize>,
        left: usize,
        best: &mut Option<usize>,
    ) {
        let Some(worker) = workers.get(after.len()) else {
            if left == 0 && is_fair(workers, after) {
                let arrive: usize = after.iter().zip(before).map(|(a, b)| a.saturating_sub(*b)).sum();
                *best = Some(best.map_or(arrive, |best| best.min(arrive)));
            }
            return;
        };
        let most = if worker.stopping { 0 } else { worker.maximum.unwrap_or(left).min(left) };
        for count in 0..=most {
            after.push(count);
            fill(workers, before, after, left - count, best);
            after.pop();
        }
    }
    let mut best = None;
    fill(workers, before, &mut Vec::new(), left, &mut best);
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_rule((workers, leases) in any_fleet()) {
        let plan = plan_moves(&workers, &leases);
        prop_assert_eq!(&plan, &plan_moves(&workers, &leases), "the same input, another plan");
        let mut after = leases.clone();
        apply(&plan, &mut after, |to| FleetLease::Moving { to });
        let (before, after) = (counts(&workers, &leases), counts(&workers, &after));
        let mut touched = BTreeSet::new();
        let mut unsettled = vec![0; workers.len()];
        for step in &plan.moves {
            prop_assert!(touched.insert(step.lease), "lease {} moves twice", step.lease);
            let taker = &workers[step.to];
            prop_assert!(!taker.stopping, "to a worker that is stopping");
            prop_assert!(taker.maximum.is_none_or(|maximum| after[step.to] <= maximum), "to a full worker");
            let (from, settled) = match leases[step.lease] {
                FleetLease::Free => (None, true),
                FleetLease::Held { by, settled } => (Some(by), settled),
                FleetLease::Moving { .. } => return Err(TestCaseError::fail("a lease that moves already")),
            };
            prop_assert_eq!(step.from, from);
            if let Some(from) = from.filter(|from| !workers[*from].stopping) {
                let giver = &workers[from];
                let full = giver.maximum.is_some_and(|maximum| after[from] >= maximum);
                prop_assert!(full || after[step.to] <= after[from] + 1, "it gave more than needed");
                unsettled[from] += usize::from(!settled);
                let above = giver.maximum.map_or(0, |maximum| before[from].saturating_sub(maximum));
                prop_assert!(unsettled[from] <= above, "an unsettled lease moves for balance");
            }
        }
        let must_move = (0..leases.len()).filter(|lease| match leases[*lease] {
            FleetLease::Free => true,
            FleetLease::Held { by, .. } => workers.get(by).is_some_and(|worker| worker.stopping),
            FleetLease::Moving { .. } => false,
        });
        let left: BTreeSet<usize> = must_move.filter(|lease| !touched.contains(lease)).collect();
        prop_assert_eq!(plan.unplaced.iter().copied().collect::<BTreeSet<_>>(), left.clone());
        let no_room = workers.iter().zip(&after).all(|(worker, count)| is_full(worker, *count));
        prop_assert!(left.is_empty() || no_room, "a lease is unplaced although a worker has room");
    }

    #[test]
    fn one_plan_with_the_fewest_moves_makes_a_settled_fleet_fair((workers, leases) in settled_fleet()) {
        let plan = plan_moves(&workers, &leases);
        let before = counts(&workers, &leases);
        let room: usize = workers
            .iter()
            .map(|worker| if worker.stopping { 0 } else { worker.maximum.unwrap_or(leases.len()) })
            .sum();
        let fewest = fewest_moves(&workers, &before, leases.len().min(room));
        prop_assert_eq!(Some(plan.moves.len()), fewest);
        let (mut moving, mut done) = (leases.clone(), leases);
        apply(&plan, &mut moving, |to| FleetLease::Moving { to });
        apply(&plan, &mut done, held);
        prop_assert!(is_fair(&workers, &counts(&workers, &done)), "{:?}", counts(&workers, &done));
        prop_assert!(plan_moves(&workers, &moving).moves.is_empty(), "moves while handoffs are under way");
        prop_assert!(plan_moves(&workers, &done).moves.is_empty(), "moves although all is done");
    }

    #[test]
    fn any_fleet_is_fair_once_what_moves_has_arrived_and_settled((workers, leases) in any_fleet()) {
        let mut leases = leases;
        for _ in 0..2 {
            let plan = plan_moves(&workers, &leases);
            apply(&plan, &mut leases, held);
            settle(&workers, &mut leases);
        }
        let plan = plan_moves(&workers, &leases);
        apply(&plan, &mut leases, held);
        prop_assert!(is_fair(&workers, &counts(&workers, &leases)));
        prop_assert!(plan_moves(&workers, &leases).moves.is_empty());
    }

    #[test]
    fn a_join_moves_only_the_share_of_the_worker_that_joins(count in 0..200_usize, n in 1..20_usize) {
        let mut workers = vec![FleetWorker::default(); n];
        let leases: Vec<FleetLease> = (0..count).map(|lease| held(lease % n)).collect();
        workers.push(FleetWorker::default());
        let plan = plan_moves(&workers, &leases);
        prop_assert!(plan.moves.len() <= count.div_ceil(n + 1), "{} moves", plan.moves.len());
        prop_assert!(plan.moves.iter().all(|step| step.to == n));
    }

    #[test]
    fn workers_whose_views_differ_never_share_a_lease_and_agree_later(
        workers in workers(0..8), count in 0..25_usize, rounds in vec(any::<u64>(), 0..6)
    ) {
        let mut fleet = Fleet { rows: vec![Row::default(); count], holds: BTreeMap::new(), workers };
        for seed in rounds {
            fleet.round(Some(seed))?;
        }
        for _ in 0..4 {
            fleet.round(None)?;
        }
        let held = |worker| fleet.holds.get(&worker).map_or(0, BTreeSet::len);
        let counts: Vec<usize> = (0..fleet.workers.len()).map(held).collect();
        prop_assert!(is_fair(&fleet.workers, &counts), "{counts:?}");
    }
}

/// A lease in the store.
#[derive(Clone, Debug, Default)]
struct Row {
    owner: Option<usize>,
    /// The worker that is given it.
    next: Option<usize>,
}

/// Workers over one store.
struct Fleet {
    workers: Vec<FleetWorker>,
    rows: Vec<Row>,
    /// The leases that each worker believes to hold.
    holds: BTreeMap<usize, BTreeSet<usize>>,
}

impl Fleet {
    /// Each worker plans from the rows as they were when the round began and does its part; with `seed` each may miss one
    /// other worker, which it believes to be dead or not there, and some handoffs take longer than the round.
    fn round(&mut self, seed: Option<u64>) -> Result<(), TestCaseError> {
        let seen = self.rows.clone();
        for me in 0..self.workers.len() {
            let luck = seed.map(|seed| usize::from(seed.to_le_bytes()[me]));
            let missed = luck.map(|luck| luck % (self.workers.len() + 1)).filter(|missed| *missed != me);
            let view: Vec<usize> = (0..self.workers.len()).filter(|n| Some(*n) != missed).collect();
            let dead = luck.is_some_and(|luck| luck & 0x80 != 0);
            let plan = plan_moves(
                &view.iter().map(|n| self.workers[*n]).collect::<Vec<_>>(),
                &seen.iter().map(|row| listed(row, &view, dead)).collect::<Vec<_>>(),
            );
            for step in plan.moves {
                let (from, to) = (step.from.map(|from| view[from]), view[step.to]);
                let row = &mut self.rows[step.lease];
                if from == Some(me) {
                    prop_assert_eq!(row.owner, Some(me));
                    row.next = Some(to);
                } else if from.is_none() && to == me && row.owner.is_none() {
                    row.owner = Some(me);
                    self.holds.entry(me).or_default().insert(step.lease);
                }
            }
        }
        for (lease, row) in self.rows.iter_mut().enumerate() {
            let late = seed.is_some_and(|seed| (seed >> lease) & 1 == 1);
            if let (Some(owner), Some(next), false) = (row.owner, row.next, late) {
                self.holds.entry(owner).or_default().remove(&lease);
                self.holds.entry(next).or_default().insert(lease);
                *row = Row { owner: Some(next), next: None };
            }
        }
        let mut held = BTreeSet::new();
        for lease in self.holds.values().flatten() {
            prop_assert!(held.insert(*lease), "lease {lease} has two owners");
        }
        Ok(())
    }
}

/// A row as a worker with this view sees it; what a worker that it misses holds is free if it believes that one dead.
fn listed(row: &Row, view: &[usize], dead: bool) -> FleetLease {
    let index = |worker: usize| view.iter().position(|seen| *seen == worker);
    match (row.owner, row.next) {
        (None, _) => FleetLease::Free,
        (Some(_), Some(next)) => {
            index(next).map_or(FleetLease::Moving { to: view.len() }, |to| FleetLease::Moving { to })
        }
        (Some(owner), None) => match index(owner) {
            Some(by) => FleetLease::Held { by, settled: true },
            None if dead => FleetLease::Free,
            None => FleetLease::Held { by: view.len(), settled: true },
        },
    }
}
