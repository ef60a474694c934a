//! Long random runs with every kind of trouble: no invariant breaks, every run reaches the shard's end, and the counters
//! are sums over the trace. What exactly is invoked is compared with the [model](super::model).

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rig::{Did, Reply, Rig, failed_at, mapping, ms, success};
use crate::mapping::{EventSourceMapping, OnDestinationFailure};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::shard::{Exit, FetchFault, PlaceRule, ShardEvent};

/// What happens to a run from outside.
#[derive(Clone, Debug)]
enum Trouble {
    Crash { under_way_happened: bool },
    Stop { within: u64 },
    Pause { millis: u64 },
}

/// Everything that a random run is made of.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    records: u64,
    page: usize,
    batch_size: usize,
    window: u64,
    retries: Option<u32>,
    bisect: bool,
    partial: bool,
    drop: bool,
    has_destination: bool,
    interval: u64,
    buffer: usize,
    /// Lanes, or none and tumbling windows of so many milliseconds.
    lanes: usize,
    tumbling: Option<u64>,
    age: Option<u64>,
    /// In percent.
    function_fails: u64,
    destination_fails: u64,
    store_fails: u64,
    read_fails: u64,
    places: PlaceRule,
    /// After so many milliseconds, this.
    troubles: Vec<(u64, Trouble)>,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        any::<bool>().prop_map(|under_way_happened| Trouble::Crash { under_way_happened }),
        (0..3000_u64).prop_map(|within| Trouble::Stop { within }),
        (0..3000_u64).prop_map(|millis| Trouble::Pause { millis }),
    ]
}

fn plan(troubles: usize) -> impl Strategy<Value = Plan> {
    let shape = (any::<u64>(), 0..40_u64, 1..15_usize, 1..9_usize, prop_oneof![Just(0), 0..400_u64]);
    let rules =
        (prop::option::of(0..3_u32), any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.8));
    let budgets = (prop_oneof![Just(0), 0..2000_u64], prop_oneof![Just(16 << 20), 500..3000_usize]);
    let faults = (0..70_u64, 0..60_u64, 0..60_u64, 0..40_u64);
    let features =
        (1..4_usize, prop::option::weighted(0.4, 50..2000_u64), prop::option::weighted(0.4, 50..5000_u64));
    let features = features.prop_map(move |features| if troubles == 0 { (1, None, None) } else { features });
    let troubles = prop::collection::vec((0..4000_u64, trouble()), 0..=troubles);
    let faults = (faults, features);
    (shape, rules, budgets, faults, troubles).prop_map(
        |(shape, rules, budgets, (faults, features), troubles)| Plan {
            seed: shape.0,
            records: shape.1,
            page: shape.2,
            batch_size: shape.3,
            window: shape.4,
            retries: rules.0,
            bisect: rules.1,
            partial: rules.2,
            drop: rules.3,
            has_destination: rules.4,
            interval: budgets.0,
            buffer: budgets.1,
            lanes: if features.1.is_some() { 1 } else { features.0 },
            tumbling: features.1,
            age: features.2,
            function_fails: faults.0,
            destination_fails: faults.1,
            store_fails: faults.2,
            read_fails: faults.3,
            places: if shape.0.is_multiple_of(2) { PlaceRule::Unlimited } else { PlaceRule::Limited },
            troubles,
        },
    )
}

/// Chance as a function of the plan's seed and of what is asked, so that a run can be told twice.
fn chance(seed: u64, about: &[u64]) -> u64 {
    about.iter().fold(seed, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

impl Plan {
    fn configure(&self, m: &mut EventSourceMapping) {
        m.batch_size = self.batch_size;
        m.batching_window = ms(self.window);
        m.maximum_retry_attempts = self.retries;
        m.bisect_batch_on_function_error = self.bisect;
        m.report_batch_item_failures = self.partial;
        m.checkpoint_interval = ms(self.interval);
        m.polling.buffer_bytes = self.buffer;
        m.parallelization_factor = self.lanes;
        m.tumbling_window = self.tumbling.map(ms);
        m.maximum_record_age = self.age.map(ms);
        m.retry.maximum_backoff = ms(2000);
        m.on_destination_failure =
            if self.drop { OnDestinationFailure::Drop } else { OnDestinationFailure::Block };
    }

    /// What the function does the `nth` time with these records: a function of both.
    fn outcome(&self, records: &[u64], nth: u32) -> Outcome {
        match self.answer(records, nth) {
            // Now and then the state is missing, as long as there are attempts to be spent.
            Outcome::Answered(response) if self.tumbling.is_some() && (nth > 4 || !nth.is_multiple_of(3)) => {
                Outcome::Answered(response.with_state(format!("{{\"n\":{nth}}}")))
            }
            outcome => outcome,
        }
    }

    fn answer(&self, records: &[u64], nth: u32) -> Outcome {
        if records.is_empty() {
            return if nth.is_multiple_of(4) { Outcome::FunctionError } else { success() };
        }
        let about: Vec<_> = records.iter().copied().chain([u64::from(nth)]).collect();
        let dice = chance(self.seed, &about);
        // Some records fail often, so that budgets are used up; without a maximum everything succeeds in the end.
        let poison = records.iter().any(|n| chance(self.seed, &[*n]).is_multiple_of(8));
        let fails = dice % 100 < self.function_fails + if poison { 30 } else { 0 };
        if !fails || (self.retries.is_none() && nth > 4) {
            return success();
        }
        let pick = |salt: u64| records[usize::try_from(chance(dice, &[salt])).unwrap_or(0) % records.len()];
        match chance(dice, &[1]) % 10 {
            0..=2 => Outcome::FunctionError,
            3..=6 => failed_at([pick(2), pick(3)]),
            7 => failed_at([pick(4), 1_000_000]),
            8 => Outcome::TooLarge,
            _ if nth < 6 => {
                Outcome::NotReached { retry_after: dice.is_multiple_of(2).then(|| ms(dice % 900)) }
            }
            _ => Outcome::FunctionError,
        }
    }

    fn rig(&self) -> Rig {
        let mut rig = Rig::new(mapping(|m| self.configure(m)));
        rig.checks_each_step = false;
        rig.page = self.page;
        for n in 1..=self.records {
            let at = n * (chance(self.seed, &[7]) % 150);
            let late = i64::try_from(chance(self.seed, &[n, 8]) % 400).unwrap_or(0);
            let key = format!("key-{}", chance(self.seed, &[n, 9]) % 5);
            rig.put_keyed_at(
                at,
                n,
                Some(&key).filter(|_| n % 7 > 0).map(String::as_str),
                at.cast_signed() - late,
            );
        }
        rig.close_at(5000);
        let plan = self.clone();
        rig.function = Box::new(move |call| {
            let wait = chance(plan.seed, &[call.records.first().copied().unwrap_or(0), 11]) % 300;
            Reply::After(wait, plan.outcome(&call.records, call.nth))
        });
        let peer = |salt: u64, fails: u64| {
            let seed = self.seed;
            move |n: usize| {
                let dice = chance(seed, &[salt, n as u64]);
                Reply::After(dice % 250, chance(dice, &[1]) % 100 >= fails)
            }
        };
        rig.set_places(self.places);
        rig.store = Box::new(peer(21, self.store_fails));
        rig.opens = Box::new(peer(22, self.read_fails));
        rig.destination =
            if self.has_destination { Some(Box::new(peer(23, self.destination_fails))) } else { None };
        rig.places = Box::new(peer(25, 0));
        let reads = peer(24, self.read_fails);
        rig.reads = Box::new(move |n| {
            let fault = if n % 2 == 0 { FetchFault::IteratorExpired } else { FetchFault::Other };
            match reads(n) {
                Reply::After(wait, is_good) => Reply::After(wait, is_good.then_some(()).ok_or(fault)),
                Reply::Now(_) | Reply::Never => Reply::Never,
            }
        });
        rig
    }
}

fn run(plan: &Plan) -> Rig {
    let mut rig = plan.rig();
    for (wait, trouble) in &plan.troubles {
        rig.run(*wait);
        if rig.exit().is_some() {
            break;
        }
        match *trouble {
            Trouble::Crash { under_way_happened } => rig.crash(under_way_happened),
            Trouble::Pause { millis } => {
                rig.inject(ShardEvent::Pause);
                rig.run(millis);
                rig.inject(ShardEvent::Resume);
            }
            Trouble::Stop { within } => {
                rig.stop(within);
                rig.run(within + 1000);
                assert!(rig.exit().is_some(), "I16: a stop ends");
                if rig.exit() == Some(Exit::ShardEnd) {
                    break;
                }
                rig.crash(false);
            }
        }
    }
    rig.run(100_000_000);
    rig.check();
    rig
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_time: 30_000, ..ProptestConfig::default() })]

    #[test]
    fn no_random_run_breaks_an_invariant_and_every_one_reaches_the_shards_end(plan in plan(4)) {
        let rig = run(&plan);
        // The invariants are checked; the end is stored only over records that are all resolved (I3).
        prop_assert_eq!(rig.exit(), Some(Exit::ShardEnd), "a run that never ends");
        prop_assert_eq!(&rig.stored, &Position::ShardEnd);
        let snapshot = rig.machine.snapshot(rig.now());
        prop_assert_eq!((snapshot.buffered_records, snapshot.buffered_bytes), (0, 0));
    }

    #[test]
    fn the_counters_are_sums_over_the_trace(plan in plan(0)) {
        let rig = run(&plan);
        check_counters(&plan, &rig)?;
    }
}

/// The counters against sums over the trace.
fn check_counters(plan: &Plan, rig: &Rig) -> Result<(), TestCaseError> {
    let counters = rig.machine.counters();
    prop_assert_eq!(counters.polled, plan.records);
    let mut calls = BTreeMap::<Vec<u64>, u32>::new();
    let (mut invoked, mut failed) = (0, 0);
    for records in rig.batches() {
        let nth = calls.entry(records.clone()).or_default();
        *nth += 1;
        let n = records.len() as u64;
        let outcome = plan.outcome(&records, *nth);
        invoked += if matches!(outcome, Outcome::NotReached { .. }) { 0 } else { n };
        failed += match outcome {
            Outcome::NotReached { .. } => 0,
            Outcome::FunctionError | Outcome::TooLarge => n,
            Outcome::Answered(_) if !plan.partial => 0,
            answer @ Outcome::Answered(_) => first_reported(&records, &answer).map_or(0, |at| n - at as u64),
        };
    }
    prop_assert_eq!((counters.invoked, counters.failed), (invoked, failed));
    let tries = rig.trace.iter().filter(|(_, did)| matches!(did, Did::Discard { .. })).count() as u64;
    let mut messages = rig.messages();
    messages.dedup();
    let given_up: u64 = messages.iter().map(|(records, _)| records.len() as u64).sum();
    prop_assert_eq!(counters.delivered + counters.dropped, given_up);
    match (plan.has_destination, plan.drop) {
        (false, _) => prop_assert_eq!((counters.delivered, counters.delivery_failures), (0, 0)),
        (true, false) => {
            prop_assert_eq!(counters.dropped, 0);
            prop_assert_eq!(counters.delivery_failures, tries - messages.len() as u64);
        }
        (true, true) => prop_assert_eq!(tries, messages.len() as u64, "R74: never sent again"),
    }
    Ok(())
}

fn first_reported(records: &[u64], answer: &Outcome) -> Option<usize> {
    if *answer == success() {
        return None;
    }
    // `failed_at` names two records; the pair is found by trying, which asks nothing of the engine.
    let all: Vec<_> = records.iter().copied().chain([1_000_000]).collect();
    let named = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
    let (a, b) = named.into_iter().find(|(a, b)| *answer == failed_at([*a, *b]))?;
    let index = |id| records.iter().position(|n| *n == id).unwrap_or(0);
    Some(index(a).min(index(b)))
}
