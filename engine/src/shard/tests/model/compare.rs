//! Machine and model side by side over random runs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::lane::{Act, Event};
use super::plan::{Plan, plan};
use super::shard::{Expected, expect};
use super::stage::{Checkpoint, Ran, Stage};
use crate::position::Position;
use crate::request::RequestId;
use crate::shard::Resume;
use crate::time::Wall;

/// What a run holds that must be held by enough of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    Run,
    Did(Event),
    CrashInsideAWindow,
    CrashWithLanesAhead,
    Crash,
}

/// How many runs held what.
type Coverage = BTreeMap<Held, u64>;

type Told = Result<(), TestCaseError>;

/// Takes one plan through both, run by run.
fn compare(plan: &Plan, coverage: &mut Coverage) -> Told {
    let mut stage = Stage::new(plan);
    let mut held = BTreeSet::from([Held::Run]);
    let mut stored = Resume::from(Position::TrimHorizon);
    let mut crashes = plan.crash_times().into_iter();
    loop {
        let (run, begun) = (stage.run, stage.now);
        let function = |call: &super::Call| plan.reply(run, call);
        let delivery = |records: &[u64], nth| plan.delivery(records, nth);
        let expected = expect(
            stage.rules(),
            stage.pages(),
            begun,
            stored.earliest_window.map(Wall::as_millis),
            &function,
            &delivery,
        );
        if expected.most_undelivered >= 10 || (expected.has_ties && plan.destination_is_slow()) {
            // The model does not say what happens then.
            return Ok(());
        }
        let crash = crashes.next();
        let until = crash.map_or(u64::MAX, |(at, _)| at);
        stage.run_until(until);
        check_acts(&expected, &stage.ran, until)?;
        check_checkpoints(&expected, &stage.ran, &stored.checkpoint, until)?;
        held.extend(
            expected.events.iter().filter(|(at, _)| *at <= until).map(|(_, event)| Held::Did(*event)),
        );
        if let Some(ended) = stage.ran.ended {
            prop_assert_eq!(stage.ran.checkpoints.last().map(|last| &last.upto), Some(&Position::ShardEnd));
            prop_assert!(ended <= until);
            break;
        }
        let (at, happened) = crash.expect("only a crash ends a run before its end");
        held.insert(Held::Crash);
        held.extend((stage.rules().lanes > 1 && expected.is_ahead(at)).then_some(Held::CrashWithLanesAhead));
        held.extend(expected.is_inside_a_window(at).then_some(Held::CrashInsideAWindow));
        stored = stored_after(&stage.ran, stored, happened);
        if stored.checkpoint == Position::ShardEnd {
            break;
        }
        stage.crash(&stored);
    }
    for what in held {
        *coverage.entry(what).or_default() += 1;
    }
    Ok(())
}

fn stored_after(ran: &Ran, before: Resume, happened: bool) -> Resume {
    let is_stored = |checkpoint: &&Checkpoint| happened || checkpoint.stored.is_some();
    ran.checkpoints.iter().rfind(is_stored).map_or(before, |checkpoint| Resume {
        earliest_window: checkpoint.earliest_window.map(Wall::from_millis),
        ..Resume::from(checkpoint.upto.clone())
    })
}

/// Every lane does what it must, when it must; request ids are shared by the same acts.
fn check_acts(expected: &Expected, ran: &Ran, until: u64) -> Told {
    let mut ids = BTreeMap::<RequestId, (usize, usize)>::new();
    for (lane, acts) in expected.lanes.iter().enumerate() {
        let due = acts.iter().filter(|(at, _)| *at <= until);
        let (invocations, discards): (Vec<_>, Vec<_>) =
            due.partition(|(_, act)| matches!(act, Act::Invoke { .. }));
        let seen: Vec<_> = ran.invocations.iter().filter(|(_, seen)| seen.lane == lane).collect();
        let discarded: Vec<_> = ran.discards.iter().filter(|(_, seen)| seen.lane == lane).collect();
        // What waits for the destination when the process crashes is not seen.
        let all = ran.ended.is_some();
        for (seen, due, all) in [(seen, invocations, true), (discarded, discards, all)] {
            for (index, (at, seen)) in seen.iter().enumerate() {
                let Some((due_at, due)) = due.get(index) else {
                    return Err(TestCaseError::fail(format!("lane {lane} at {at}: {seen:?} is not due")));
                };
                let (id, act) = without_id(due);
                prop_assert_eq!((at, &seen.act), (due_at, &act), "lane {}, act {}", lane, index);
                let known = *ids.entry(seen.request_id).or_insert((lane, id));
                prop_assert_eq!(known, (lane, id), "R21: the request id of {:?}", act);
            }
            let missing = due.get(seen.len());
            prop_assert!(!all || missing.is_none(), "lane {} does not do {:?}", lane, missing);
        }
    }
    let distinct: BTreeSet<_> = ids.values().collect();
    prop_assert_eq!(distinct.len(), ids.len(), "R21: a batch changes its request id");
    Ok(())
}

fn without_id(act: &Act) -> (usize, Act) {
    match act.clone() {
        Act::Invoke { id, attempt, call } => (id, Act::Invoke { id: 0, attempt, call }),
        Act::Discard { id, records, count, condition, response } => {
            (id, Act::Discard { id: 0, records, count, condition, response })
        }
    }
}

/// Each checkpoint is what was reached at its time, and none is missing.
fn check_checkpoints(expected: &Expected, ran: &Ran, stored: &Position, until: u64) -> Told {
    let below = |upto: &Position| match upto {
        Position::After(seq) => expected.below(seq.number.as_str().parse().unwrap()),
        Position::ShardEnd => expected.records() + 1,
        _ => 0,
    };
    let mut stored = below(stored);
    let mut idle_since = 0;
    for Checkpoint { asked, stored: done, upto, earliest_window } in &ran.checkpoints {
        let before = |at: &u64| at.checked_sub(1).map_or(0, |at| expected.reached_at_least(at));
        let (least, most) = (before(asked), expected.reached(*asked));
        let upto = below(upto);
        prop_assert!((least..=most).contains(&upto), "{} at {}: {} to {}", upto, asked, least, most);
        prop_assert!(upto > stored, "{} again or backwards at {}", upto, asked);
        prop_assert!(idle_since == *asked || least <= stored, "{} was due before {}", least, asked);
        let earliest = |at: u64| expected.earliest_window(at);
        let range = earliest(asked.saturating_sub(1))..=earliest(*asked);
        prop_assert!(range.contains(earliest_window), "{:?} at {}, not {:?}", earliest_window, asked, range);
        stored = upto;
        idle_since = done.unwrap_or(u64::MAX);
    }
    let last = if ran.ended.is_some() { u64::MAX } else { until };
    if idle_since <= last {
        let range = expected.reached_at_least(last)..=expected.reached(last);
        prop_assert!(range.contains(&stored), "{:?} is reached, {} is stored", range, stored);
    }
    Ok(())
}

/// Random runs in one thread; `seed` tells threads apart.
fn runs(count: u32, seed: u8) -> Coverage {
    // A machine in an endless loop fails slowly, and so does each of the shorter plans.
    let (max_shrink_iters, max_shrink_time) = (20_000, 30_000);
    let config = Config {
        cases: count,
        failure_persistence: None,
        max_shrink_iters,
        max_shrink_time,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let coverage = std::cell::RefCell::new(Coverage::default());
    let outcome = runner.run(&plan(), |plan| compare(&plan, &mut coverage.borrow_mut()));
    if let Err(TestError::Fail(why, plan)) = outcome {
        panic!("{why}\n{plan:#?}");
    }
    outcome.unwrap();
    coverage.into_inner()
}

/// 100,000 runs, or as many as `SHARDMILL_TEST_TRACES` says.
#[test]
fn machine_and_model_agree_on_a_hundred_thousand_random_runs() {
    let count: u32 = option_env!("SHARDMILL_TEST_TRACES").map_or(100_000, |text| text.parse().unwrap());
    let threads = 4_u8;
    let share = count / u32::from(threads);
    let mut all = Coverage::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || runs(share, thread + 1))).collect();
        for worker in workers {
            for (what, count) in worker.join().unwrap() {
                *all.entry(what).or_default() += count;
            }
        }
    });
    eprintln!("{all:#?}");
    let least = u64::from(count) / 100;
    let did = [Event::Bisection, Event::Cut, Event::Expiry, Event::EarlyEnd].map(Held::Did);
    for what in did.into_iter().chain([Held::CrashInsideAWindow, Held::CrashWithLanesAhead]) {
        assert!(all.get(&what).is_some_and(|count| *count >= least), "too few with {what:?}: {all:?}");
    }
}
