//! Every choice of the surroundings, breadth first, over small configurations of the real machine.
//!
//! Waits are zero, so that only the order of answers and their content differ; time passes where a record's age or a
//! tumbling window needs it. A state that was seen before is not walked on from.

mod coverage;
mod key;
mod state;

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use self::coverage::{Coverage, FEATURES, Feature};
use self::key::Mixed;
use self::state::{NOW, State};
use super::rig::{mapping, ms, seq};
use crate::mapping::{EventSourceMapping, OnDestinationFailure};
use crate::position::Position;
use crate::record::{Data, Record};
use crate::shard::lane::lane_of;
use crate::shard::{Exit, PlaceRule};
use crate::time::Wall;

/// An exploration of fewer states would be a mistake in its setup.
const SMALL: usize = 1000;
/// Milliseconds between the arrivals of two records.
const APART: i64 = 100;
/// Two records arrive in each tumbling window.
const WINDOW: i64 = 200;
/// How old a record may be, in milliseconds.
const AGE: u64 = 250;

/// How often each kind of trouble may still happen on a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Troubles {
    crashes: u8,
    stops: u8,
    deliveries_fail: u8,
    stores_fail: u8,
    reads_fail: u8,
    not_reached: u8,
    too_large: u8,
    /// Answers without a state, or with one that is too large.
    states: u8,
    /// Pages that reach the tip of the shard and not its end.
    tips: u8,
    /// Steps of the clock to the next record's expiry.
    ticks: u8,
}

struct Case {
    mapping: Arc<EventSourceMapping>,
    features: Vec<Feature>,
    stream: Vec<Record>,
    filters: fn(u64) -> bool,
    pages: &'static [usize],
    places: PlaceRule,
}

impl Case {
    /// Until the next record is too old.
    fn tick(&self, now: Wall) -> Option<Duration> {
        let age = i64::try_from(self.mapping.maximum_record_age?.as_millis()).unwrap();
        let arrivals = self.stream.iter().filter_map(|record| record.arrival);
        let steps = arrivals.map(|arrival| arrival.as_millis() + age + 1 - now.as_millis());
        steps.filter(|step| *step > 0).min().map(|step| ms(step.cast_unsigned()))
    }
}

/// What an exploration saw: states, and how its paths ended.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    without_time: usize,
    ends: usize,
    stops: usize,
    /// Explorations that ran out of room before they had seen every state.
    cut_short: usize,
    coverage: Coverage,
}

type Known = HashSet<u64, BuildHasherDefault<Mixed>>;

/// Every state; depth first, since few states then wait at any time.
fn explore(case: &Case, troubles: Troubles) -> Explored {
    let explored = walk(case, troubles, 2_000_000, 0);
    assert_eq!(explored.cut_short, 0, "the configuration is too large: {:?}", case.mapping);
    explored
}

/// Every state, or as many as `room` allows: the first half breadth first, the second half depth first, so that long
/// histories are among them.
fn explore_within(case: &Case, troubles: Troubles, room: usize) -> Explored {
    walk(case, troubles, room, room / 2)
}

/// At most `room` states, the first `breadth` of them breadth first.
fn walk(case: &Case, troubles: Troubles, room: usize, breadth: usize) -> Explored {
    let mut explored = Explored::default();
    let (mut known, mut without_time) = (Known::default(), Known::default());
    let mut first = State::begin(case, Position::TrimHorizon.into(), NOW, troubles);
    first.settle(case);
    let mut queue = VecDeque::from([first]);
    while let Some(state) = if explored.states < breadth { queue.pop_front() } else { queue.pop_back() } {
        if explored.states == room {
            explored.cut_short = 1;
            break;
        }
        explored.states += 1;
        for mut next in state.successors(case, &mut explored.coverage) {
            next.settle(case);
            match next.exited {
                Some(Exit::ShardEnd) => {
                    assert_eq!(next.stored.checkpoint, Position::ShardEnd);
                    assert_eq!(next.resolved.len(), case.stream.len(), "I3");
                    explored.ends += 1;
                    continue;
                }
                Some(Exit::Stopped { .. }) => {
                    explored.stops += 1;
                    // The next run must be able to finish what this one left.
                    next = next.restarted(case, None);
                    next.settle(case);
                }
                Some(Exit::LeaseLost) => unreachable!("no lease is lost here"),
                None => {}
            }
            if known.insert(next.key()) {
                without_time.insert(next.key_without_time());
                queue.push_back(next);
            }
        }
    }
    assert!(explored.ends > 0);
    explored.without_time = without_time.len();
    explored
}

/// A record whose key is on the lane that its number says.
fn record(n: u64, lanes: usize) -> Record {
    let arrival = Wall::from_millis(i64::try_from(n).unwrap() * APART);
    let of_key = |key: u32| {
        Record::new(seq(n), Some(format!("key-{key}")), Some(arrival), Data::Raw(Bytes::from_static(b"x")))
    };
    (0..).map(of_key).find(|record| lane_of(record, lanes) == usize::try_from(n).unwrap() % lanes).unwrap()
}

fn case(records: u64, pages: &'static [usize], change: impl FnOnce(&mut EventSourceMapping)) -> Case {
    let mapping = mapping(|m| {
        m.retry.initial_backoff = Duration::ZERO;
        m.retry.maximum_backoff = Duration::ZERO;
        m.polling.idle_interval = Duration::ZERO;
        m.polling.maximum_idle_interval = Duration::ZERO;
        m.maximum_retry_attempts = Some(1);
        change(m);
    });
    let lanes = mapping.parallelization_factor;
    let stream = (1..=records).map(|n| record(n, lanes)).collect();
    Case { mapping, features: Vec::new(), stream, filters: |_| false, pages, places: PlaceRule::Unlimited }
}

/// The mapping with exactly these features.
fn featured(features: &[Feature], records: u64, pages: &'static [usize]) -> Case {
    let has = |feature| features.contains(&feature);
    let mut case = case(records, pages, |m| {
        m.batch_size = 2;
        m.maximum_retry_attempts = Some(u32::from(has(Feature::Retries)));
        m.bisect_batch_on_function_error = has(Feature::Bisect);
        m.report_batch_item_failures = has(Feature::Partial);
        m.maximum_record_age = has(Feature::Age).then(|| ms(AGE));
        m.parallelization_factor = if has(Feature::Lanes) { 2 } else { 1 };
        m.tumbling_window = has(Feature::Window).then(|| ms(WINDOW.cast_unsigned()));
    });
    case.features = features.to_vec();
    if has(Feature::Filter) {
        case.filters = |n| n % 3 == 2;
    }
    case
}

/// All combinations that Lambda permits (R71).
fn combinations() -> Vec<Vec<Feature>> {
    let all = (0..1_u32 << FEATURES.len()).map(|bits| {
        let chosen = FEATURES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
        chosen.map(|(_, feature)| *feature).collect::<Vec<_>>()
    });
    let excludes = |features: &Vec<Feature>| {
        let has = |feature| features.contains(&feature);
        has(Feature::Window) && (has(Feature::Lanes) || has(Feature::Filter))
    };
    all.filter(|features| !excludes(features)).collect()
}

/// The troubles that every combination is explored with, one after the other, and with how many records in which pages.
fn mixes(features: &[Feature]) -> Vec<(u64, &'static [usize], Troubles)> {
    let has = |feature| features.contains(&feature);
    let base = Troubles {
        ticks: u8::from(has(Feature::Age)),
        tips: u8::from(has(Feature::Window)),
        ..Troubles::default()
    };
    // Time alone multiplies the states.
    let timeless = Troubles { ticks: 0, ..base };
    let not_reached = u8::from(!has(Feature::Age));
    vec![
        (3, &[2], Troubles { crashes: 1, deliveries_fail: 1, not_reached, ..base }),
        (3, &[3], Troubles { stores_fail: 1, reads_fail: 1, not_reached: 1, ..timeless }),
        (2, &[2], Troubles { stops: 1, states: 1, too_large: 1, not_reached, ..base }),
        (3, &[1, 3], timeless),
    ]
}

/// States of one case among all combinations: what fits into the minutes that this may take.
const ROOM: usize = 8_000;

#[test]
fn explored_every_combination_of_features_with_every_trouble_and_a_crash_at_any_point() {
    let mut work = Vec::new();
    let mut combinations = combinations();
    // The largest first, so that no worker is left with them at the end.
    combinations.sort_by_key(|features| std::cmp::Reverse(features.len()));
    for features in combinations {
        for (records, pages, troubles) in mixes(&features) {
            let mut case = featured(&features, records, pages);
            if troubles.stops > 0 {
                Arc::make_mut(&mut case.mapping).on_destination_failure = OnDestinationFailure::Drop;
            }
            let troubles =
                if troubles.stops > 0 { Troubles { deliveries_fail: 1, ..troubles } } else { troubles };
            work.push((case, troubles));
        }
    }
    let next = AtomicUsize::new(0);
    let threads = 2;
    let mut all = Explored::default();
    std::thread::scope(|scope| {
        let run = || {
            let mut sum = Explored::default();
            let _stop = StopOthers(&next, work.len());
            while let Some((case, troubles)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let explored = explore_within(case, *troubles, ROOM);
                sum.add(explored);
            }
            sum
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers.into_iter().for_each(|worker| all.add(worker.join().unwrap()));
    });
    let (states, cut_short, cases) = (all.states, all.cut_short, work.len());
    eprintln!("{}\n{states} states, {} not counting time", all.coverage, all.without_time);
    eprintln!("{} of {cases} cases to their last state, the others up to {ROOM} states", cases - cut_short);
    assert_eq!(all.coverage.missing(), []);
    assert!(all.without_time >= 1_000_000, "{} states", all.without_time);
}

/// When one worker finds something, the others stop.
struct StopOthers<'a>(&'a AtomicUsize, usize);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        self.0.fetch_max(self.1, Ordering::Relaxed);
    }
}

impl Explored {
    fn add(&mut self, more: Self) {
        self.states += more.states;
        self.without_time += more.without_time;
        self.cut_short += more.cut_short;
        self.ends += more.ends;
        self.stops += more.stops;
        self.coverage.merge(more.coverage);
    }
}

fn bisecting_partial(batch_size: usize) -> Case {
    case(4, &[4], |m| {
        m.batch_size = batch_size;
        m.bisect_batch_on_function_error = true;
        m.report_batch_item_failures = true;
    })
}

#[test]
fn explored_bisection_with_partial_responses_and_a_crash_at_any_point() {
    let explored = explore(&bisecting_partial(2), Troubles { crashes: 1, ..Troubles::default() });
    assert!(explored.states > SMALL, "{}", explored.states);
}

#[test]
fn explored_larger_batches_with_bisection_partial_responses_and_every_trouble() {
    let troubles = Troubles { crashes: 1, deliveries_fail: 1, not_reached: 1, ..Troubles::default() };
    let explored = explore(&bisecting_partial(3), troubles);
    assert!(explored.states > 10 * SMALL, "{}", explored.states);
}

#[test]
fn explored_every_policy_for_a_destination_that_fails_once() {
    for policy in [OnDestinationFailure::Block, OnDestinationFailure::Drop] {
        let case = case(4, &[2], |m| {
            m.batch_size = 2;
            m.maximum_retry_attempts = Some(0);
            m.bisect_batch_on_function_error = true;
            m.on_destination_failure = policy;
        });
        let explored = explore(&case, Troubles { deliveries_fail: 1, crashes: 1, ..Troubles::default() });
        assert!(explored.states > SMALL, "{}", explored.states);
    }
}

#[test]
fn explored_faults_of_reader_and_store_with_pages_of_any_size() {
    let case = case(3, &[1, 2], |m| {
        m.batch_size = 2;
        m.maximum_retry_attempts = Some(0);
    });
    let explored = explore(&case, Troubles { stores_fail: 1, reads_fail: 1, ..Troubles::default() });
    assert!(explored.states > SMALL, "{}", explored.states);
}

#[test]
fn explored_a_stop_at_any_point_and_the_run_after_it() {
    let case = case(3, &[2], |m| {
        m.batch_size = 2;
        m.report_batch_item_failures = true;
        m.maximum_retry_attempts = Some(0);
    });
    let troubles = Troubles { stops: 1, stores_fail: 1, deliveries_fail: 1, ..Troubles::default() };
    let explored = explore(&case, troubles);
    assert!(explored.stops > 0);
    assert!(explored.states > SMALL, "{}", explored.states);
}

#[test]
fn explored_places_that_are_granted_at_any_time_are_used_at_once_or_given_back() {
    for places in [PlaceRule::Limited, PlaceRule::Away] {
        let mut aged = case(3, &[3], |m| {
            m.batch_size = 2;
            m.parallelization_factor = 2;
            m.maximum_record_age = Some(ms(AGE));
        });
        aged.places = places;
        let troubles = Troubles {
            stops: 1,
            crashes: 1,
            deliveries_fail: 1,
            not_reached: 1,
            ticks: 2,
            ..Troubles::default()
        };
        let explored = explore_within(&aged, troubles, ROOM);
        assert!(explored.stops > 0);
        assert!(explored.states > SMALL, "{}", explored.states);
        let mut windows = featured(&[Feature::Bisect, Feature::Partial, Feature::Window], 2, &[2]);
        windows.places = places;
        let troubles = Troubles { states: 1, too_large: 1, tips: 1, ..Troubles::default() };
        let explored = explore_within(&windows, troubles, ROOM);
        assert!(explored.states > SMALL, "{}", explored.states);
    }
}
