//! A shard machine in virtual time, with a stream, a function, a destination and a store that do as a test says.

mod peers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::failure::{Condition, FailedBatch, FunctionResponse};
use crate::fleet::Shard;
use crate::intake::{Page, intake};
use crate::invariant::{self, Fact, Given, Seen, Setting};
use crate::mapping::{EventSourceMapping, OnDestinationFailure};
use crate::outcome::{BatchResponse, Outcome};
use crate::position::{Position, Seq};
use crate::record::{Batch, Data, Record};
use crate::request::RequestId;
use crate::shard::{
    DiscardId, Exit, FetchFault, Gap, LaneId, PlaceRule, Resume, ShardAction, ShardEvent, ShardMachine,
};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

/// Virtual time begins away from both clocks' origins.
pub(super) const START: u64 = 10_000_000;
/// Answers at one moment, more than any test needs: a machine that asks on and on is a failure and no endless test.
const MOST_AT_ONCE: usize = 100_000;
/// The least time between two reads, as a source keeps it (I12).
const PACE: u64 = 200;
pub(super) const WALL_START: i64 = 1_700_000_000_000;

/// Lambda's defaults: the one place where tests make mappings.
pub(super) fn mapping(change: impl FnOnce(&mut EventSourceMapping)) -> Arc<EventSourceMapping> {
    let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
    let mut mapping = EventSourceMapping::builder(arn, "orders-worker").build().unwrap();
    change(&mut mapping);
    Arc::new(mapping)
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn seq(n: u64) -> Seq {
    Seq::plain(n.to_string())
}

pub(super) fn after(n: u64) -> Position {
    Position::After(seq(n))
}

pub(super) fn record(n: u64, bytes: usize) -> Record {
    let arrival = Wall::from_millis(WALL_START - 5000);
    Record::new(seq(n), Some("key".into()), Some(arrival), Data::Raw(Bytes::from(vec![b'x'; bytes])))
}

/// A batch's sequence numbers.
pub(super) fn numbers(batch: &Batch) -> Vec<u64> {
    batch.records().iter().map(|record| record.seq.number.as_str().parse().unwrap()).collect()
}

fn seqs(batch: &Batch) -> Vec<Seq> {
    batch.records().iter().map(|record| record.seq.clone()).collect()
}

/// An answer that names these records as failed.
pub(super) fn failed_at(numbers: impl IntoIterator<Item = u64>) -> Outcome {
    Outcome::Answered(BatchResponse::failed(numbers.into_iter().map(|n| n.to_string())))
}

pub(super) const fn success() -> Outcome {
    Outcome::Answered(BatchResponse::success())
}

/// What the machine did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Open(Position),
    Fetch(usize),
    Reserve(LaneId),
    Release(LaneId),
    Invoke {
        records: Vec<u64>,
        attempt: u32,
        id: RequestId,
        lane: LaneId,
        window: Option<WindowCall>,
    },
    Discard {
        records: Vec<u64>,
        count: u32,
        condition: Condition,
        response: Option<FunctionResponse>,
        window: Option<WindowCall>,
    },
    Checkpoint(Position, Vec<Shard>),
    Gap(Gap),
    List,
    Exit(Exit),
}

/// One invocation, as the function sees it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) records: Vec<u64>,
    /// The same records were invoked as often, this time included.
    pub(super) nth: u32,
    pub(super) window: Option<WindowCall>,
}

/// How a peer answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply<T> {
    Now(T),
    After(u64, T),
    Never,
}

impl<T> Reply<T> {
    /// The same, so much later.
    fn delayed(self, by: u64) -> Self {
        match self {
            Self::Now(answer) => Self::After(by, answer),
            Self::After(wait, answer) => Self::After(by + wait, answer),
            Self::Never => Self::Never,
        }
    }
}

pub(super) type Function = Box<dyn FnMut(&Call) -> Reply<Outcome>>;
/// Told the number of the call, from 1; answers whether it succeeds.
type Peer = Box<dyn FnMut(usize) -> Reply<bool>>;
type Reads = Box<dyn FnMut(usize) -> Reply<Result<(), FetchFault>>>;

pub(super) struct Rig {
    pub(super) machine: ShardMachine,
    pub(super) mapping: Arc<EventSourceMapping>,
    /// What the store holds.
    pub(super) stored: Position,
    /// What it holds of tumbling windows.
    pub(super) stored_window: Option<Wall>,
    /// What it holds of how far the shard was read in time.
    pub(super) stored_through: Option<Wall>,
    pub(super) retention: Option<Duration>,
    pub(super) trace: Vec<(u64, Did)>,
    pub(super) history: Vec<Seen>,
    pub(super) function: Function,
    /// None: no destination is configured.
    pub(super) destination: Option<Peer>,
    pub(super) store: Peer,
    pub(super) opens: Peer,
    /// Grants places; false never happens.
    pub(super) places: Peer,
    pub(super) reads: Reads,
    pub(super) children: Vec<Shard>,
    /// The filter.
    pub(super) keeps: fn(&Record) -> bool,
    /// The deliveries that were started.
    pub(super) discard_ids: Vec<DiscardId>,
    /// Most records of a page, regardless of the limit.
    pub(super) page: usize,
    /// What the service says about being behind, told the time and the truth.
    pub(super) behind: fn(u64, u64) -> Option<u64>,
    /// Check the invariants at every step; a test that says no calls `check` at its end.
    pub(super) checks_each_step: bool,
    now: u64,
    stream: Vec<(u64, Record)>,
    closes_at: Option<u64>,
    cursor: usize,
    /// No read begins before this.
    next_read: u64,
    due: Vec<(u64, Due)>,
    calls: BTreeMap<Vec<u64>, u32>,
    counts: [usize; 5],
    seed: u64,
    exited: Option<Exit>,
    rule: PlaceRule,
    /// Places that were granted and neither used nor given back.
    granted: Vec<LaneId>,
}

/// Something that is under way and will be answered.
#[derive(Clone, Debug)]
enum Due {
    Open(bool),
    Read(usize, Result<(), FetchFault>),
    Grant(LaneId),
    Invoke(LaneId, Outcome),
    Discard(DiscardId, Given, bool),
    Store(Resume, bool),
}

impl Rig {
    pub(super) fn new(mapping: Arc<EventSourceMapping>) -> Self {
        Self::resuming(mapping, Position::TrimHorizon)
    }

    pub(super) fn resuming(mapping: Arc<EventSourceMapping>, stored: Position) -> Self {
        let now = now_at(0);
        let machine = ShardMachine::new(Arc::clone(&mapping), "shard".into(), stored.clone(), 42, now);
        Self {
            machine,
            mapping,
            history: vec![Seen { at: now, fact: Fact::Begun(stored.clone()) }],
            stored,
            stored_window: None,
            stored_through: None,
            retention: None,
            trace: Vec::new(),
            function: Box::new(|_| Reply::Now(success())),
            destination: Some(Box::new(|_| Reply::Now(true))),
            store: Box::new(|_| Reply::Now(true)),
            opens: Box::new(|_| Reply::Now(true)),
            places: Box::new(|_| Reply::Now(true)),
            rule: PlaceRule::Unlimited,
            granted: Vec::new(),
            reads: Box::new(|_| Reply::Now(Ok(()))),
            children: Vec::new(),
            keeps: |_| true,
            discard_ids: Vec::new(),
            page: 10_000,
            behind: |_, truth| Some(truth),
            checks_each_step: true,
            now: 0,
            stream: Vec::new(),
            closes_at: None,
            cursor: 0,
            next_read: 0,
            due: Vec::new(),
            calls: BTreeMap::new(),
            counts: [0; 5],
            seed: 42,
            exited: None,
        }
    }

    /// Puts records into the stream, to be seen from `at` on.
    pub(super) fn put_at(&mut self, at: u64, numbers: impl IntoIterator<Item = u64>) {
        self.stream.extend(numbers.into_iter().map(|n| (at, record(n, 10))));
    }

    pub(super) fn put(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.put_at(0, numbers);
    }

    /// Puts a record that the service received at this time.
    pub(super) fn put_keyed(&mut self, n: u64, key: Option<&str>, arrival: i64) {
        self.put_keyed_at(0, n, key, arrival);
    }

    /// The same, to be seen from `at` on.
    pub(super) fn put_keyed_at(&mut self, at: u64, n: u64, key: Option<&str>, arrival: i64) {
        let arrival = Some(Wall::from_millis(WALL_START + arrival));
        let data = Data::Raw(Bytes::from_static(b"x"));
        self.stream.push((at, Record::new(seq(n), key.map(Into::into), arrival, data)));
    }

    pub(super) fn put_sized(&mut self, n: u64, bytes: usize) {
        self.put_record(record(n, bytes));
    }

    pub(super) fn put_record(&mut self, record: Record) {
        self.stream.push((0, record));
    }

    pub(super) const fn close_at(&mut self, at: u64) {
        self.closes_at = Some(at);
    }

    pub(super) fn now(&self) -> Now {
        now_at(self.now)
    }

    pub(super) const fn now_millis(&self) -> u64 {
        self.now
    }

    /// Lets time pass without the machine being asked.
    pub(super) const fn tick(&mut self, millis: u64) {
        self.now += millis;
    }

    fn see(&mut self, fact: Fact) {
        self.history.push(Seen { at: self.now(), fact });
    }

    /// Hands an event to the machine that answers nothing.
    pub(super) fn inject(&mut self, event: ShardEvent) {
        match &event {
            ShardEvent::Stop { deadline } => self.see(Fact::Stopping(*deadline)),
            ShardEvent::LeaseLost => self.see(Fact::LeaseLost),
            _ => {}
        }
        self.machine.handle_event(self.now(), event);
    }

    /// Whether invocations need places from now on.
    pub(super) fn set_places(&mut self, rule: PlaceRule) {
        self.rule = rule;
        self.machine.set_places(rule);
    }

    pub(super) fn stop(&mut self, within: u64) {
        let deadline = self.now().mono + ms(within);
        self.inject(ShardEvent::Stop { deadline });
    }

    /// Ends the process and starts another; a checkpoint or delivery under way has happened or not.
    pub(super) fn crash(&mut self, under_way_happened: bool) {
        for (_, due) in std::mem::take(&mut self.due) {
            match due {
                Due::Store(upto, _) if under_way_happened => {
                    self.store_now(upto);
                }
                Due::Discard(_, given, _) if under_way_happened => self.see(Fact::Discarded(given)),
                _ => {}
            }
        }
        self.granted.clear();
        self.see(Fact::Begun(self.stored.clone()));
        self.seed += 1;
        self.exited = None;
        let (mapping, now) = (Arc::clone(&self.mapping), self.now());
        let resume = Resume {
            checkpoint: self.stored.clone(),
            earliest_window: self.stored_window,
            read_through: self.stored_through,
            retention: self.retention,
        };
        self.machine = ShardMachine::new(mapping, "shard".into(), resume, self.seed, now);
        self.machine.set_places(self.rule);
    }

    /// Runs for `millis` of virtual time, or until the machine exits.
    pub(super) fn run(&mut self, millis: u64) {
        let until = self.now + millis;
        self.run_while(until, |_| true);
    }

    /// Runs until the condition fails, the machine exits, or virtual time is over.
    pub(super) fn run_while(&mut self, until: u64, goes_on: impl Fn(&Self) -> bool) {
        let mut standing = 0;
        while self.exit().is_none() && goes_on(self) {
            self.settle();
            if self.exit().is_some() {
                break;
            }
            let answer = self.due.iter().map(|(at, _)| *at).min();
            let timeout =
                self.machine.poll_timeout(self.now()).map(|at| at.as_millis().saturating_sub(START));
            let Some(next) = [answer, timeout].into_iter().flatten().min().filter(|next| *next <= until)
            else {
                self.now = self.now.max(until);
                break;
            };
            standing = if next > self.now { 0 } else { standing + 1 };
            assert!(standing < MOST_AT_ONCE, "no end at {}: {:?}", self.now, self.trace.last());
            self.now = self.now.max(next);
            if let Some(at) = self.due.iter().position(|(at, _)| *at <= self.now) {
                let (_, due) = self.due.remove(at);
                self.answer(due);
            }
        }
        self.settle();
        if self.checks_each_step {
            self.check();
        }
    }

    /// Carries out all actions of this moment.
    pub(super) fn settle(&mut self) {
        for step in 0.. {
            assert!(step < 1000, "actions without end at {}: {:?}", self.now, self.trace.last());
            let Some(action) = self.machine.poll_action(self.now()) else { break };
            self.carry_out(action);
        }
        let kept = self.granted.len();
        assert!(kept == 0 || self.exit().is_some(), "a place is neither used nor given back at {}", self.now);
        if let Some(wake) = self.machine.poll_timeout(self.now()) {
            assert!(wake > self.now().mono, "busy loop at {}", self.now);
        }
        // A check costs the history's length: long ones are checked at their end.
        if self.checks_each_step && self.history.len() < 200 {
            self.check();
        }
    }

    pub(super) fn check(&self) {
        let stream: Vec<_> = self.stream.iter().map(|(_, record)| record.clone()).collect();
        let setting = Setting { mapping: &self.mapping, stream: &stream };
        if let Err(violation) = invariant::check(setting, &self.history) {
            let told: Vec<_> =
                self.history[..=violation.index].iter().map(|seen| format!("{seen:?}")).collect();
            panic!("{violation}\n{}", told.join("\n"));
        }
    }

    fn count(&mut self, which: usize) -> usize {
        self.counts[which] += 1;
        self.counts[which]
    }

    fn later<T>(&mut self, reply: Reply<T>, due: impl FnOnce(T) -> Due) {
        let (wait, answer) = match reply {
            Reply::Now(answer) => (0, answer),
            Reply::After(wait, answer) => (wait, answer),
            Reply::Never => return,
        };
        self.due.push((self.now + wait, due(answer)));
    }
}

fn now_at(millis: u64) -> Now {
    Now {
        mono: Mono::from_millis(START + millis),
        wall: Wall::from_millis(WALL_START + i64::try_from(millis).unwrap()),
    }
}
