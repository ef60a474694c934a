//! One state of an exploration: the machine, what is under way, and what the world holds.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use super::coverage::{Coverage, Step};
use super::key::Mix;
use super::{Case, Troubles};
use crate::failure::Condition;
use crate::intake::{Page, intake};
use crate::invariant::{Fact, Given, Observer, Seen, Setting};
use crate::mapping::OnDestinationFailure;
use crate::outcome::{BatchResponse, Outcome};
use crate::position::{Position, Seq};
use crate::shard::tests::rig::{START, failed_at, ms, numbers, success};
use crate::shard::{
    DiscardId, Exit, FetchFault, LaneId, PlaceRule, Resume, ShardAction, ShardEvent, ShardMachine,
};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

pub(super) const NOW: Now = Now { mono: Mono::from_millis(START), wall: Wall::from_millis(0) };
const DEADLINE: Duration = ms(1000);

/// An answer whose state ends its window early.
static TOO_LARGE: LazyLock<BatchResponse> = LazyLock::new(|| {
    let state = format!("{{\"s\":\"{}\"}}", "x".repeat(1 << 20));
    BatchResponse::success().with_state(state)
});

/// What was started and not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum UnderWay {
    Open,
    Fetch(usize),
    Reserve(LaneId),
    Invoke(LaneId, Vec<u64>, Option<WindowCall>),
    Discard(DiscardId, Given),
    Store(Resume),
}

/// A history as a list from its end, shared by all that follow.
struct Link {
    seen: Seen,
    before: Option<Arc<Self>>,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) machine: ShardMachine,
    pub(super) now: Now,
    pub(super) under_way: Vec<UnderWay>,
    cursor: usize,
    pub(super) stored: Resume,
    pub(super) resolved: Vec<u64>,
    /// Invocations of this run by their records: what a budget is judged by.
    invoked: BTreeMap<Vec<u64>, u8>,
    /// Places that were granted and neither used nor given back.
    granted: Vec<LaneId>,
    troubles: Troubles,
    stopping: bool,
    pub(super) exited: Option<Exit>,
    observer: Observer,
    history: Option<Arc<Link>>,
}

impl State {
    pub(super) fn begin(case: &Case, stored: Resume, now: Now, troubles: Troubles) -> Self {
        let mut machine =
            ShardMachine::new(Arc::clone(&case.mapping), "shard".into(), stored.clone(), 1, now);
        machine.set_places(case.places);
        let mut state = Self {
            machine,
            now,
            under_way: Vec::new(),
            cursor: 0,
            stored: stored.clone(),
            resolved: Vec::new(),
            invoked: BTreeMap::new(),
            granted: Vec::new(),
            troubles,
            stopping: false,
            exited: None,
            observer: Observer::default(),
            history: None,
        };
        state.see(case, Fact::Begun(stored.checkpoint));
        state
    }

    pub(super) fn key(&self) -> u64 {
        self.hashed(Mix::<true>::default(), self.troubles)
    }

    /// The same regardless of the time.
    pub(super) fn key_without_time(&self) -> u64 {
        self.hashed(Mix::<false>::default(), Troubles { ticks: 0, ..self.troubles })
    }

    fn hashed(&self, mut hasher: impl Hasher, troubles: Troubles) -> u64 {
        (&self.machine, self.now, &self.under_way, self.cursor, &self.stored).hash(&mut hasher);
        (&self.resolved, &self.invoked, troubles, self.stopping).hash(&mut hasher);
        hasher.finish()
    }

    fn see(&mut self, case: &Case, fact: Fact) {
        let seen = Seen { at: self.now, fact };
        let setting = Setting { mapping: &case.mapping, stream: &case.stream };
        let judged = self.observer.observe(setting, &seen);
        let before = self.history.take();
        self.history = Some(Arc::new(Link { seen, before }));
        if let Err(violation) = judged {
            let told: Vec<_> =
                self.history().iter().map(|seen| format!("{:?} {:?}", seen.at.wall, seen.fact)).collect();
            panic!("{violation}\n{:?}\n{}", case.mapping, told.join("\n"));
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
    pub(super) fn settle(&mut self, case: &Case) {
        for step in 0.. {
            assert!(step < 100, "actions without end");
            let Some(action) = self.machine.poll_action(self.now) else { break };
            self.start(case, action);
        }
        let kept = self.exited.is_none() && !self.granted.is_empty();
        assert!(!kept, "a place is neither used nor given back: {:?}", self.machine);
        let wake = self.machine.poll_timeout(self.now);
        assert!(wake.is_none_or(|wake| wake > self.now.mono), "busy loop: {:?}", self.machine);
        assert!(
            self.exited.is_some() || !self.under_way.is_empty() || wake.is_some(),
            "stuck: {:?}",
            self.machine
        );
    }

    fn start(&mut self, case: &Case, action: ShardAction) {
        let under_way = match action {
            ShardAction::Open { at } => {
                self.cursor = case.stream.iter().take_while(|record| covers(&at, &record.seq)).count();
                self.see(case, Fact::Opened(at));
                UnderWay::Open
            }
            ShardAction::Fetch { limit } => {
                self.see(case, Fact::Fetching);
                UnderWay::Fetch(limit)
            }
            ShardAction::Reserve { lane } => UnderWay::Reserve(lane),
            ShardAction::Release { lane } => {
                assert!(self.take_place(lane), "a place is given back that was not granted");
                return;
            }
            ShardAction::Invoke(invocation) => {
                let has_place = self.take_place(invocation.lane);
                assert_eq!(has_place, case.places != PlaceRule::Unlimited, "invoked without a place");
                let records = numbers(&invocation.batch);
                let (lane, request_id) = (invocation.lane, invocation.request_id);
                let seqs = invocation.batch.records().iter().map(|record| record.seq.clone()).collect();
                let window = invocation.window.clone();
                self.see(case, Fact::Invoked { lane, request_id, records: seqs, window });
                *self.invoked.entry(records.clone()).or_default() += 1;
                UnderWay::Invoke(lane, records, invocation.window)
            }
            ShardAction::Discard { id, failed } => {
                let given = Given::from(&failed);
                self.see(case, Fact::Discarding(given.clone()));
                UnderWay::Discard(id, given)
            }
            ShardAction::Checkpoint { upto, earliest_window, .. } => {
                self.see(case, Fact::Storing(upto.clone()));
                UnderWay::Store(Resume { earliest_window, ..Resume::from(upto) })
            }
            ShardAction::ReportGap(_) | ShardAction::ListStream => {
                unreachable!("the stream keeps everything")
            }
            ShardAction::Exit(exit) => {
                self.see(case, Fact::Exited(exit));
                self.exited = Some(exit);
                return;
            }
        };
        self.under_way.push(under_way);
    }

    fn take_place(&mut self, lane: LaneId) -> bool {
        let place = self.granted.iter().position(|granted| *granted == lane);
        place.map(|at| self.granted.remove(at)).is_some()
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
    pub(super) fn successors(&self, case: &Case, coverage: &mut Coverage) -> Vec<Self> {
        let mut next = Vec::new();
        for (index, under_way) in self.under_way.iter().enumerate() {
            match under_way {
                UnderWay::Open => {
                    coverage.reach(case, Step::Opened);
                    next.push(self.after(case, index, [], ShardEvent::Opened));
                }
                UnderWay::Reserve(lane) => {
                    let mut granted = self.after(case, index, [], ShardEvent::Granted { lane: *lane });
                    granted.granted.push(*lane);
                    next.push(granted);
                }
                UnderWay::Fetch(limit) => self.reads(case, index, *limit, &mut next, coverage),
                UnderWay::Invoke(lane, records, window) => {
                    self.answers(case, index, *lane, (records, window.as_ref()), &mut next, coverage);
                }
                UnderWay::Discard(id, given) => {
                    self.deliveries(case, index, (*id, given), &mut next, coverage);
                }
                UnderWay::Store(upto) => self.stores(case, index, upto, &mut next, coverage),
            }
        }
        self.outside(case, &mut next, coverage);
        next
    }

    fn stores(
        &self,
        case: &Case,
        index: usize,
        upto: &Resume,
        next: &mut Vec<Self>,
        coverage: &mut Coverage,
    ) {
        let is_end = upto.checkpoint == Position::ShardEnd;
        coverage.reach(case, if is_end { Step::EndStored } else { Step::Stored });
        let stored = Fact::Stored(upto.checkpoint.clone());
        let mut done = self.after(case, index, [stored], ShardEvent::Checkpointed);
        done.stored = upto.clone();
        next.push(done);
        if self.troubles.stores_fail > 0 {
            coverage.reach(case, Step::StoreFailed);
            let mut failed = self.after(case, index, [Fact::StoreFailed], ShardEvent::CheckpointFailed);
            failed.troubles.stores_fail -= 1;
            next.push(failed);
        }
    }

    fn reads(&self, case: &Case, index: usize, limit: usize, next: &mut Vec<Self>, coverage: &mut Coverage) {
        for size in case.pages {
            let end = (self.cursor + (*size).min(limit)).min(case.stream.len());
            let is_last = end == case.stream.len();
            let mut page = |ends: bool, tips: u8| {
                let records = case.stream[self.cursor..end].to_vec();
                let all: Vec<_> = records.iter().map(|record| record.seq.clone()).collect();
                let millis_behind = Some(if is_last { 0 } else { 1000 });
                let page = Page { records, end_of_shard: ends, millis_behind, ..Page::default() };
                let taken =
                    intake(page, self.machine.position(), |record| !(case.filters)(number(&record.seq)));
                let kept: Vec<_> = taken.records().iter().map(|record| record.seq.clone()).collect();
                let filtered: Vec<_> = all.into_iter().filter(|seq| !kept.contains(seq)).collect();
                let numbers: Vec<_> = filtered.iter().map(number).collect();
                coverage.reach(case, if ends { Step::EndRead } else { Step::PageRead });
                if !filtered.is_empty() {
                    coverage.reach(case, Step::Filtered);
                }
                let fact = Fact::Read { kept, filtered, ends };
                let mut read = self.after(case, index, [fact], ShardEvent::Fetched(taken));
                read.cursor = end;
                read.troubles.tips = tips;
                read.resolve(&numbers);
                next.push(read);
            };
            page(is_last, self.troubles.tips);
            if is_last && self.troubles.tips > 0 {
                page(false, self.troubles.tips - 1);
            }
        }
        if self.troubles.reads_fail > 0 {
            coverage.reach(case, Step::ReadFailed);
            for fault in [FetchFault::IteratorExpired, FetchFault::Other] {
                let mut failed = self.after(case, index, [], ShardEvent::FetchFailed(fault));
                failed.troubles.reads_fail -= 1;
                next.push(failed);
            }
        }
    }

    fn answers(
        &self,
        case: &Case,
        index: usize,
        lane: LaneId,
        (records, window): (&[u64], Option<&WindowCall>),
        next: &mut Vec<Self>,
        coverage: &mut Coverage,
    ) {
        let is_final = window.is_some_and(|window| window.is_final);
        let mut answer = |step: Step, outcome: Outcome, succeeded: usize, spend: fn(&mut Troubles)| {
            coverage.reach(case, if is_final { step.of_a_final_call() } else { step });
            let fact = Fact::Ended { lane, outcome: outcome.clone() };
            let mut ended = self.after(case, index, [fact], ShardEvent::Invoked { lane, outcome });
            ended.resolve(&records[..succeeded]);
            spend(&mut ended.troubles);
            next.push(ended);
        };
        let none = |_: &mut Troubles| {};
        let stateful = |outcome: Outcome| match (window, outcome) {
            (Some(window), Outcome::Answered(response)) => {
                // Tells how often it was passed on.
                let state =
                    if window.state.len() > 8 { Bytes::from_static(b"{}") } else { more(&window.state) };
                Outcome::Answered(response.with_state(state))
            }
            (_, outcome) => outcome,
        };
        answer(Step::Succeeded, stateful(success()), records.len(), none);
        answer(Step::Failed, Outcome::FunctionError, 0, none);
        if case.mapping.report_batch_item_failures {
            for (at, failed) in records.iter().enumerate() {
                let step = if at > 0 { Step::Cut } else { Step::NoProgress };
                answer(step, stateful(failed_at([*failed])), at, none);
            }
            let unknown = records.last().copied().into_iter().chain([99]);
            answer(Step::Unknown, stateful(failed_at(unknown)), 0, none);
        }
        if self.troubles.not_reached > 0 {
            answer(Step::NotReached, Outcome::NotReached { retry_after: None }, 0, |left| {
                left.not_reached -= 1;
            });
        }
        if self.troubles.too_large > 0 {
            answer(Step::TooLarge, Outcome::TooLarge, 0, |left| left.too_large -= 1);
        }
        if window.is_some() && self.troubles.states > 0 {
            answer(Step::NoState, success(), 0, |left| left.states -= 1);
            if !is_final {
                let too_large = Outcome::Answered(TOO_LARGE.clone());
                answer(Step::StateTooLarge, too_large, records.len(), |left| left.states -= 1);
            }
        }
    }

    fn deliveries(
        &self,
        case: &Case,
        index: usize,
        (id, given): (DiscardId, &Given),
        next: &mut Vec<Self>,
        coverage: &mut Coverage,
    ) {
        let records: Vec<_> = given.records.iter().map(number).collect();
        coverage.reach(
            case,
            match (given.final_of, given.condition) {
                (Some(_), _) => Step::FinalDelivered,
                (None, Condition::RecordAgeExceeded) => Step::OldDelivered,
                (None, Condition::RetryAttemptsExhausted) => Step::SpentDelivered,
            },
        );
        let fact = Fact::Discarded(given.clone());
        let mut taken = self.after(case, index, [fact.clone()], ShardEvent::Delivered(id));
        taken.resolve(&records);
        next.push(taken);
        if self.troubles.deliveries_fail > 0 {
            let drops = case.mapping.on_destination_failure == OnDestinationFailure::Drop;
            coverage.reach(case, if drops { Step::RefusedAndDropped } else { Step::Refused });
            let mut refused = self.after(case, index, drops.then_some(fact), ShardEvent::DeliverFailed(id));
            if drops {
                refused.resolve(&records);
            }
            refused.troubles.deliveries_fail -= 1;
            next.push(refused);
        }
    }

    /// What may happen without being asked for: a crash, a stop, time.
    fn outside(&self, case: &Case, next: &mut Vec<Self>, coverage: &mut Coverage) {
        if self.troubles.crashes > 0 {
            self.crashes(case, next, coverage);
        }
        if self.troubles.stops > 0 && !self.stopping {
            coverage.reach(case, Step::Stop);
            let mut stopping = self.clone();
            let deadline = self.now.mono + DEADLINE;
            stopping.troubles.stops -= 1;
            stopping.stopping = true;
            stopping.see(case, Fact::Stopping(deadline));
            stopping.machine.handle_event(self.now, ShardEvent::Stop { deadline });
            next.push(stopping);
        }
        let wake = self.machine.poll_timeout(self.now).map(|at| at.since(self.now.mono));
        let tick = case.tick(self.now.wall).filter(|_| self.troubles.ticks > 0);
        for (step, ticks) in [(wake, 0), (tick.filter(|tick| Some(*tick) != wake), 1)] {
            let Some(step) = step else { continue };
            coverage.reach(case, Step::Time);
            let mut later = self.clone();
            later.now = Now { mono: self.now.mono + step, wall: self.now.wall + step };
            later.troubles.ticks -= ticks;
            next.push(later);
        }
    }

    fn crashes(&self, case: &Case, next: &mut Vec<Self>, coverage: &mut Coverage) {
        coverage.reach(case, Step::Crash(None));
        for under_way in &self.under_way {
            coverage.reach(case, Step::Crash(Some(under_way.into())));
        }
        next.push(self.restarted(case, None));
        for under_way in &self.under_way {
            match under_way {
                UnderWay::Store(_) | UnderWay::Discard(..) => {
                    next.push(self.restarted(case, Some(under_way)));
                }
                _ => {}
            }
        }
    }

    /// A new run after this one; `happened` was under way and is carried out all the same.
    pub(super) fn restarted(&self, case: &Case, happened: Option<&UnderWay>) -> Self {
        let mut before = self.clone();
        match happened {
            Some(UnderWay::Store(upto)) => {
                before.see(case, Fact::Stored(upto.checkpoint.clone()));
                before.stored = upto.clone();
            }
            Some(UnderWay::Discard(_, given)) => before.see(case, Fact::Discarded(given.clone())),
            _ => {}
        }
        let mut troubles = self.troubles;
        troubles.crashes = troubles.crashes.saturating_sub(1);
        let mut state = Self::begin(case, before.stored.clone(), self.now, troubles);
        (state.history, state.observer) = (before.history, before.observer);
        state.see(case, Fact::Begun(before.stored.checkpoint));
        state.resolved.clone_from(&self.resolved);
        if let Some(UnderWay::Discard(_, given)) = happened {
            state.resolve(&given.records.iter().map(number).collect::<Vec<_>>());
        }
        state
    }
}

/// A state that is one digit longer.
fn more(state: &[u8]) -> Bytes {
    let ones = state.iter().filter(|byte| **byte == b'1').count();
    Bytes::from(format!("{{\"n\":{}}}", "1".repeat(ones + 1)))
}

fn number(seq: &Seq) -> u64 {
    seq.number.as_str().parse().unwrap()
}

fn covers(at: &Position, record: &Seq) -> bool {
    matches!(at, Position::After(done) if record <= done)
}
