//! Every choice of the surroundings, breadth first, over small configurations of the real machine.
//!
//! Nothing takes time here: all waits are zero, so that only the order of answers and their content differ. A state that
//! was seen before is not walked on from.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::rig::{START, failed_at, mapping, ms, numbers, record, seq, success};
use crate::intake::{Page, intake};
use crate::invariant::{Fact, Observer, Seen, Setting};
use crate::mapping::{EventSourceMapping, OnDestinationFailure};
use crate::outcome::Outcome;
use crate::position::{Position, Seq};
use crate::shard::{DiscardId, Exit, FetchFault, LaneId, ShardAction, ShardEvent, ShardMachine};
use crate::time::{Mono, Now, Wall};

const NOW: Now = Now { mono: Mono::from_millis(START), wall: Wall::from_millis(0) };
const DEADLINE: Duration = ms(1000);

/// An exploration of fewer states would be a mistake in its setup.
const SMALL: usize = 1000;

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
}

struct Case {
    mapping: Arc<EventSourceMapping>,
    stream: Vec<Seq>,
    pages: &'static [usize],
}

/// What was started and not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum UnderWay {
    Open,
    Fetch(usize),
    Invoke(LaneId, Vec<u64>),
    Discard(DiscardId, Vec<u64>),
    Store(Position),
}

/// A history as a list from its end, shared by all that follow.
struct Link {
    seen: Seen,
    before: Option<Arc<Self>>,
}

#[derive(Clone)]
struct State {
    machine: ShardMachine,
    now: Now,
    under_way: Vec<UnderWay>,
    cursor: usize,
    stored: Position,
    resolved: Vec<u64>,
    /// Invocations of this run by their records: what a budget is judged by.
    invoked: BTreeMap<Vec<u64>, u8>,
    troubles: Troubles,
    stopping: bool,
    exited: Option<Exit>,
    observer: Observer,
    history: Option<Arc<Link>>,
}

impl State {
    fn begin(case: &Case, stored: Position, troubles: Troubles) -> Self {
        let machine = ShardMachine::new(Arc::clone(&case.mapping), "shard".into(), stored.clone(), 1, NOW);
        let mut state = Self {
            machine,
            now: NOW,
            under_way: Vec::new(),
            cursor: 0,
            stored: stored.clone(),
            resolved: Vec::new(),
            invoked: BTreeMap::new(),
            troubles,
            stopping: false,
            exited: None,
            observer: Observer::default(),
            history: None,
        };
        state.see(case, Fact::Begun(stored));
        state
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.machine, self.now, &self.under_way, self.cursor, &self.stored).hash(&mut hasher);
        (&self.resolved, &self.invoked, self.troubles, self.stopping).hash(&mut hasher);
        hasher.finish()
    }

    fn see(&mut self, case: &Case, fact: Fact) {
        let seen = Seen { at: self.now.mono, fact };
        let setting = Setting { mapping: &case.mapping, stream: &case.stream };
        let judged = self.observer.observe(setting, &seen);
        let before = self.history.take();
        self.history = Some(Arc::new(Link { seen, before }));
        if let Err(violation) = judged {
            let told: Vec<_> = self.history().iter().map(|seen| format!("{:?}", seen.fact)).collect();
            panic!("{violation}\n{}", told.join("\n"));
        }
    }

    fn history(&self) -> Vec<Seen> {
        let links = std::iter::successors(self.history.as_deref(), |link| link.before.as_deref());
        let mut history: Vec<_> = links.map(|link| link.seen.clone()).collect();
        history.reverse();
        history
    }

    fn resolve(&mut self, records: &[u64]) {
        self.resolved.extend(records);
        self.resolved.sort_unstable();
        self.resolved.dedup();
    }

    /// Carries out all actions.
    fn settle(&mut self, case: &Case) {
        for step in 0.. {
            assert!(step < 100, "actions without end");
            let Some(action) = self.machine.poll_action(self.now) else { break };
            self.start(case, action);
        }
        let wake = self.machine.poll_timeout(self.now);
        assert!(wake.is_none_or(|wake| wake > self.now.mono), "busy loop");
        assert!(
            self.exited.is_some() || !self.under_way.is_empty() || wake.is_some(),
            "stuck: {:?}",
            self.machine
        );
    }

    fn start(&mut self, case: &Case, action: ShardAction) {
        let to_seqs = |records: &[u64]| records.iter().map(|n| seq(*n)).collect::<Vec<_>>();
        let under_way = match action {
            ShardAction::Open { at } => {
                self.cursor = case.stream.iter().take_while(|seq| covers(&at, seq)).count();
                self.see(case, Fact::Opened(at));
                UnderWay::Open
            }
            ShardAction::Fetch { limit } => {
                self.see(case, Fact::Fetching);
                UnderWay::Fetch(limit)
            }
            ShardAction::Invoke(invocation) => {
                let records = numbers(&invocation.batch);
                let (lane, request_id) = (invocation.lane, invocation.request_id);
                self.see(case, Fact::Invoked { lane, request_id, records: to_seqs(&records) });
                *self.invoked.entry(records.clone()).or_default() += 1;
                UnderWay::Invoke(lane, records)
            }
            ShardAction::Discard { id, failed } => {
                let records = numbers(&failed.batch);
                self.see(case, Fact::Discarding(to_seqs(&records)));
                UnderWay::Discard(id, records)
            }
            ShardAction::ReportGap(_) => unreachable!("the stream keeps everything"),
            ShardAction::Checkpoint { upto, .. } => {
                self.see(case, Fact::Storing(upto.clone()));
                UnderWay::Store(upto)
            }
            ShardAction::Exit(exit) => {
                self.see(case, Fact::Exited(exit));
                self.exited = Some(exit);
                return;
            }
        };
        self.under_way.push(under_way);
    }

    /// The state after `event`, which answers what was under way at `index`.
    fn after(
        &self,
        case: &Case,
        index: usize,
        facts: impl IntoIterator<Item = Fact>,
        event: ShardEvent,
    ) -> Self {
        let mut next = self.clone();
        next.under_way.remove(index);
        for fact in facts {
            next.see(case, fact);
        }
        next.machine.handle_event(next.now, event);
        next
    }

    /// Every state that may follow.
    fn successors(&self, case: &Case) -> Vec<Self> {
        let mut next = Vec::new();
        for (index, under_way) in self.under_way.iter().enumerate() {
            match under_way {
                UnderWay::Open => next.push(self.after(case, index, [], ShardEvent::Opened)),
                UnderWay::Fetch(limit) => self.reads(case, index, *limit, &mut next),
                UnderWay::Invoke(lane, records) => self.answers(case, index, *lane, records, &mut next),
                UnderWay::Discard(id, records) => self.deliveries(case, index, *id, records, &mut next),
                UnderWay::Store(upto) => {
                    let stored = Fact::Stored(upto.clone());
                    let mut done = self.after(case, index, [stored], ShardEvent::Checkpointed);
                    done.stored = upto.clone();
                    next.push(done);
                    if self.troubles.stores_fail > 0 {
                        let mut failed =
                            self.after(case, index, [Fact::StoreFailed], ShardEvent::CheckpointFailed);
                        failed.troubles.stores_fail -= 1;
                        next.push(failed);
                    }
                }
            }
        }
        self.outside(case, &mut next);
        next
    }

    fn reads(&self, case: &Case, index: usize, limit: usize, next: &mut Vec<Self>) {
        for size in case.pages {
            let end = (self.cursor + (*size).min(limit)).min(case.stream.len());
            let range = self.cursor..end;
            let records: Vec<_> = range.map(|at| record(at as u64 + 1, 1)).collect();
            let page = Page { records, end_of_shard: end == case.stream.len(), ..Page::default() };
            let taken = intake(page, self.machine.position(), |_| true);
            let kept = taken.records().iter().map(|record| record.seq.clone()).collect();
            let fact = Fact::Read { kept, filtered: Vec::new() };
            let mut read = self.after(case, index, [fact], ShardEvent::Fetched(taken));
            read.cursor = end;
            next.push(read);
        }
        if self.troubles.reads_fail > 0 {
            for fault in [FetchFault::IteratorExpired, FetchFault::Other] {
                let mut failed = self.after(case, index, [], ShardEvent::FetchFailed(fault));
                failed.troubles.reads_fail -= 1;
                next.push(failed);
            }
        }
    }

    fn answers(&self, case: &Case, index: usize, lane: LaneId, records: &[u64], next: &mut Vec<Self>) {
        let mut answer = |outcome: Outcome, succeeded: usize, spend: fn(&mut Troubles)| {
            let fact = Fact::Ended { lane, outcome: outcome.clone() };
            let mut ended = self.after(case, index, [fact], ShardEvent::Invoked { lane, outcome });
            ended.resolve(&records[..succeeded]);
            spend(&mut ended.troubles);
            next.push(ended);
        };
        let none = |_: &mut Troubles| {};
        answer(success(), records.len(), none);
        answer(Outcome::FunctionError, 0, none);
        if case.mapping.report_batch_item_failures {
            for (at, failed) in records.iter().enumerate() {
                answer(failed_at([*failed]), at, none);
            }
            answer(failed_at([records[records.len() - 1], 99]), 0, none);
        }
        if self.troubles.not_reached > 0 {
            answer(Outcome::NotReached { retry_after: None }, 0, |left| left.not_reached -= 1);
        }
        if self.troubles.too_large > 0 {
            answer(Outcome::TooLarge, 0, |left| left.too_large -= 1);
        }
    }

    fn deliveries(&self, case: &Case, index: usize, id: DiscardId, records: &[u64], next: &mut Vec<Self>) {
        let fact = Fact::Discarded(records.iter().map(|n| seq(*n)).collect());
        let mut taken = self.after(case, index, [fact.clone()], ShardEvent::Delivered(id));
        taken.resolve(records);
        next.push(taken);
        if self.troubles.deliveries_fail > 0 {
            let drops = case.mapping.on_destination_failure == OnDestinationFailure::Drop;
            let mut refused = self.after(case, index, drops.then_some(fact), ShardEvent::DeliverFailed(id));
            if drops {
                refused.resolve(records);
            }
            refused.troubles.deliveries_fail -= 1;
            next.push(refused);
        }
    }

    /// What may happen without being asked for: a crash, a stop, the deadline of a stop.
    fn outside(&self, case: &Case, next: &mut Vec<Self>) {
        if self.troubles.crashes > 0 {
            next.push(self.restarted(case, None));
            for under_way in &self.under_way {
                if let UnderWay::Store(upto) = under_way {
                    next.push(self.restarted(case, Some(upto)));
                }
            }
        }
        if self.troubles.stops > 0 && !self.stopping {
            let mut stopping = self.clone();
            let deadline = self.now.mono + DEADLINE;
            stopping.troubles.stops -= 1;
            stopping.stopping = true;
            stopping.see(case, Fact::Stopping(deadline));
            stopping.machine.handle_event(self.now, ShardEvent::Stop { deadline });
            next.push(stopping);
        }
        if let Some(at) = self.machine.poll_timeout(self.now) {
            let mut later = self.clone();
            later.now.mono = at;
            next.push(later);
        }
    }

    fn restarted(&self, case: &Case, written: Option<&Position>) -> Self {
        let mut before = self.clone();
        if let Some(upto) = written {
            before.see(case, Fact::Stored(upto.clone()));
            before.stored = upto.clone();
        }
        let mut troubles = self.troubles;
        troubles.crashes = troubles.crashes.saturating_sub(1);
        let mut state = Self::begin(case, before.stored.clone(), troubles);
        (state.history, state.observer) = (before.history, before.observer);
        state.see(case, Fact::Begun(before.stored));
        state.resolved.clone_from(&self.resolved);
        state
    }
}

fn covers(at: &Position, seq: &Seq) -> bool {
    matches!(at, Position::After(done) if seq <= done)
}

/// What an exploration saw: states, and how its paths ended.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    ends: usize,
    stops: usize,
}

fn explore(case: &Case, troubles: Troubles) -> Explored {
    let mut explored = Explored::default();
    let mut known = HashSet::new();
    let mut first = State::begin(case, Position::TrimHorizon, troubles);
    first.settle(case);
    let mut queue = VecDeque::from([first]);
    while let Some(state) = queue.pop_front() {
        explored.states += 1;
        assert!(explored.states < 1_000_000, "the configuration is too large: {:?}", case.mapping);
        for mut next in state.successors(case) {
            next.settle(case);
            match next.exited {
                Some(Exit::ShardEnd) => {
                    assert_eq!(next.stored, Position::ShardEnd);
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
                queue.push_back(next);
            }
        }
    }
    assert!(explored.ends > 0);
    explored
}

fn case(records: u64, pages: &'static [usize], change: impl FnOnce(&mut EventSourceMapping)) -> Case {
    let mapping = mapping(|m| {
        m.retry.initial_backoff = Duration::ZERO;
        m.retry.maximum_backoff = Duration::ZERO;
        m.polling.minimum_interval = Duration::ZERO;
        m.polling.idle_interval = Duration::ZERO;
        m.polling.maximum_idle_interval = Duration::ZERO;
        m.maximum_retry_attempts = Some(1);
        change(m);
    });
    Case { mapping, stream: (1..=records).map(seq).collect(), pages }
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
    assert!(explored.states > SMALL, "{explored:?}");
}

#[test]
fn explored_larger_batches_with_bisection_partial_responses_and_a_destination_that_fails_once() {
    let explored = explore(&bisecting_partial(3), Troubles { deliveries_fail: 1, ..Troubles::default() });
    assert!(explored.states > SMALL, "{explored:?}");
}

#[test]
#[ignore = "takes many seconds in a debug build"]
fn explored_larger_batches_with_bisection_partial_responses_and_every_trouble() {
    let troubles = Troubles { crashes: 1, deliveries_fail: 1, not_reached: 1, ..Troubles::default() };
    let explored = explore(&bisecting_partial(3), troubles);
    assert!(explored.states > 10 * SMALL, "{explored:?}");
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
        assert!(explored.states > SMALL, "{explored:?}");
    }
}

#[test]
fn explored_faults_of_reader_and_store_with_pages_of_any_size() {
    let case = case(3, &[1, 2], |m| {
        m.batch_size = 2;
        m.maximum_retry_attempts = Some(0);
    });
    let explored = explore(&case, Troubles { stores_fail: 1, reads_fail: 1, ..Troubles::default() });
    assert!(explored.states > SMALL, "{explored:?}");
}

#[test]
fn explored_a_function_that_is_not_reached_and_events_that_are_too_large() {
    let case = case(3, &[3], |m| {
        m.batch_size = 2;
        m.report_batch_item_failures = true;
    });
    let explored = explore(&case, Troubles { not_reached: 1, too_large: 2, ..Troubles::default() });
    assert!(explored.states > SMALL, "{explored:?}");
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
    assert!(explored.states > SMALL, "{explored:?}");
}
