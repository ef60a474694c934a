//! The real machine in the same surroundings as the model.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::super::rig::{failed_at, mapping, ms};
use super::lane::Act;
use super::plan::{JUST_FITS, Plan, TOO_LARGE};
use super::scenario::{Answer, Call, Page, Rules, WindowSeen};
use crate::event::{EventContext, encoded_len};
use crate::failure::Condition;
use crate::intake::{Page as Raw, intake};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::position::{Position, Seq};
use crate::record::{Batch, Data, Record};
use crate::request::RequestId;
use crate::shard::lane::lane_of;
use crate::shard::{DiscardId, Exit, LaneId, Resume, ShardAction, ShardEvent, ShardMachine};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

/// The stream, as the machine and as the model see it.
pub(super) struct Stream {
    pub(super) real: Vec<Record>,
    pub(super) told: Vec<super::Rec>,
}

/// What was seen of one run.
#[derive(Default)]
pub(super) struct Ran {
    pub(super) invocations: Vec<(u64, Seen)>,
    /// In the order in which they were first handed over, with the time at which they were discarded.
    pub(super) discards: Vec<(u64, Seen)>,
    /// When each checkpoint was asked for and stored, and the records below it; none for the end of the shard.
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) ended: Option<u64>,
}

/// An act, under its real request id.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) request_id: RequestId,
    pub(super) lane: usize,
    /// Its id is 0.
    pub(super) act: Act,
}

#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    pub(super) asked: u64,
    pub(super) stored: Option<u64>,
    pub(super) upto: Position,
    pub(super) earliest_window: Option<i64>,
}

enum Due {
    Opened,
    Fetched(usize),
    Granted(LaneId),
    Invoked(LaneId, Outcome),
    Delivered(DiscardId, bool),
    Stored,
}

pub(super) struct Stage<'a> {
    plan: &'a Plan,
    rules: Rules,
    mapping: Arc<EventSourceMapping>,
    pub(super) stream: Stream,
    machine: ShardMachine,
    pub(super) now: u64,
    pub(super) run: usize,
    pages: Vec<Page>,
    page: usize,
    due: Vec<(u64, Due)>,
    calls: BTreeMap<(Vec<u64>, Option<i64>), u32>,
    tries: BTreeMap<DiscardId, u32>,
    pub(super) ran: Ran,
}

fn configured(rules: &Rules) -> Arc<EventSourceMapping> {
    mapping(|m| {
        m.batch_size = rules.batch_size;
        m.batching_window = ms(rules.batching_window);
        m.maximum_retry_attempts = rules.retries;
        m.bisect_batch_on_function_error = rules.bisect;
        m.report_batch_item_failures = rules.partial;
        m.maximum_record_age = rules.age.map(ms);
        m.tumbling_window = rules.tumbling.map(|size| ms(size.cast_unsigned()));
        m.parallelization_factor = rules.lanes;
        m.payload_limit = rules.payload_limit;
        m.retry.initial_backoff = ms(rules.backoff);
        m.retry.maximum_backoff = ms(rules.backoff);
        m.polling.idle_interval = ms(0);
        m.polling.maximum_idle_interval = ms(0);
        m.checkpoint_interval = ms(0);
    })
}

impl Stream {
    fn of(plan: &Plan, rules: &Rules, mapping: &EventSourceMapping) -> Self {
        let cx = EventContext::new(mapping, "shard".into());
        let empty = encoded_len(&Batch::empty(), &cx, None);
        assert_eq!(empty, rules.envelope);
        let real = |n: u64, put: &super::plan::Put, arrival: Option<i64>| {
            let key = put.key.map(|key| format!("key-{key}"));
            let data = Data::Raw(Bytes::from(vec![b'x'; put.bytes]));
            Record::new(Seq::plain(n.to_string()), key, arrival.map(Wall::from_millis), data)
        };
        let place = |n: u64, put: &super::plan::Put| {
            let record = real(n, put, Some(rules.wall));
            let lane = lane_of(&record, rules.lanes);
            (lane, encoded_len(&Batch::new(vec![record]).unwrap(), &cx, None) - empty)
        };
        let mut told = plan.records(place);
        let mut records = Vec::new();
        for (rec, put) in told.iter_mut().zip(plan.puts()) {
            let record = real(rec.n, put, rec.arrival);
            rec.size = encoded_len(&Batch::new(vec![record.clone()]).unwrap(), &cx, None) - empty;
            records.push(record);
        }
        Self { real: records, told }
    }
}

impl<'a> Stage<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let mut rules = plan.rules();
        let mapping = configured(&rules);
        let cx = EventContext::new(&mapping, "shard".into());
        rules.envelope = encoded_len(&Batch::empty(), &cx, None);
        let stream = Stream::of(plan, &rules, &mapping);
        let mut machine = new_machine(&mapping, &Position::TrimHorizon.into(), 0, now_at(&rules, 0));
        machine.set_places(plan.places());
        let pages = plan.pages(&stream.told, 0, 0);
        Self {
            plan,
            rules,
            mapping,
            stream,
            machine,
            now: 0,
            run: 0,
            pages,
            page: 0,
            due: Vec::new(),
            calls: BTreeMap::new(),
            tries: BTreeMap::new(),
            ran: Ran::default(),
        }
    }

    pub(super) const fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Ends the process, and starts another at the stored checkpoint.
    pub(super) fn crash(&mut self, stored: &Resume) {
        self.run += 1;
        self.page = 0;
        self.due.clear();
        self.calls.clear();
        self.tries.clear();
        self.ran = Ran::default();
        let after = match &stored.checkpoint {
            Position::After(seq) => self.stream.real.iter().take_while(|record| record.seq <= *seq).count(),
            _ => 0,
        };
        self.pages = self.plan.pages(&self.stream.told, self.now, after);
        self.machine = new_machine(&self.mapping, stored, self.run as u64, now_at(&self.rules, self.now));
        self.machine.set_places(self.plan.places());
    }

    /// Runs up to and including this time, or until the machine exits.
    pub(super) fn run_until(&mut self, until: u64) {
        for step in 0.. {
            assert!(step < 20_000, "a run without end at {}", self.now);
            self.settle();
            if self.ran.ended.is_some() {
                return;
            }
            let answer = self.due.iter().map(|(at, _)| *at).min();
            let wake = self.machine.poll_timeout(now_at(&self.rules, self.now)).map(Mono::as_millis);
            let wake = wake.map(|at| at.saturating_sub(START));
            let Some(next) = answer.into_iter().chain(wake).min().filter(|next| *next <= until) else {
                assert!(until != u64::MAX, "the machine waits for nothing: {:?}", self.machine);
                self.now = until;
                return;
            };
            assert!(
                answer == Some(next) || next > self.now,
                "busy loop at {}: {wake:?} {:?}",
                self.now,
                self.machine
            );
            self.now = next;
            if let Some(index) = self.due.iter().position(|(at, _)| *at <= self.now) {
                let (_, due) = self.due.remove(index);
                self.answer(due);
            }
        }
    }

    fn settle(&mut self) {
        for step in 0.. {
            assert!(step < 1000, "actions without end at {}", self.now);
            match self.machine.poll_action(now_at(&self.rules, self.now)) {
                Some(action) => self.carry_out(action),
                None => return,
            }
        }
    }

    fn carry_out(&mut self, action: ShardAction) {
        match action {
            ShardAction::Open { .. } => self.due.push((self.now, Due::Opened)),
            ShardAction::Fetch { .. } => {
                let page = &self.pages[self.page];
                assert_eq!(self.now, page.asked, "reading goes on at once");
                self.due.push((page.at, Due::Fetched(self.page)));
                self.page += 1;
            }
            // Places that are granted at once change nothing.
            ShardAction::Reserve { lane } => self.due.insert(0, (self.now, Due::Granted(lane))),
            ShardAction::Release { .. } => {}
            ShardAction::Invoke(invocation) => {
                let (lane, attempt) = (invocation.lane, invocation.attempt);
                let records = super::super::rig::numbers(&invocation.batch);
                let window = invocation.window.as_ref().map(seen);
                let call = self.call(lane, records, window);
                let reply = self.plan.reply(self.run, &call);
                let outcome = outcome(&reply.answer);
                self.due.push((self.now + reply.after, Due::Invoked(lane, outcome)));
                let act = Act::Invoke { id: 0, attempt, call };
                let (request_id, lane) = (invocation.request_id, lane.0.into());
                self.ran.invocations.push((self.now, Seen { request_id, lane, act }));
            }
            ShardAction::Discard { id, failed } => self.discard(id, &failed),
            ShardAction::Checkpoint { upto, earliest_window, .. } => {
                let earliest_window = earliest_window.map(Wall::as_millis);
                self.ran.checkpoints.push(Checkpoint {
                    asked: self.now,
                    stored: None,
                    upto,
                    earliest_window,
                });
                self.due.push((self.now + self.plan.store_takes, Due::Stored));
            }
            ShardAction::ReportGap(_) | ShardAction::ListStream => {
                unreachable!("the stream keeps everything")
            }
            ShardAction::Exit(exit) => {
                assert_eq!(exit, Exit::ShardEnd);
                self.ran.ended = Some(self.now);
            }
        }
    }

    fn call(&mut self, lane: LaneId, records: Vec<u64>, window: Option<WindowSeen>) -> Call {
        let key = (records.clone(), window.as_ref().map(|window| window.start));
        let nth = self.calls.entry(key).or_default();
        *nth += 1;
        Call { at: self.now, lane: lane.0.into(), records, nth: *nth, window }
    }

    fn discard(&mut self, id: DiscardId, failed: &crate::failure::FailedBatch) {
        let records = super::super::rig::numbers(&failed.batch);
        let nth = self.tries.entry(id).or_default();
        *nth += 1;
        let (takes, accepts) = self.plan.delivery(&records, *nth);
        if *nth == 1 {
            let given_up = u64::try_from(failed.at.as_millis() - self.rules.wall).unwrap();
            let lane = records.first().map_or(0, |n| self.stream.told[usize::try_from(n - 1).unwrap()].lane);
            let act = Act::Discard {
                id: 0,
                records,
                count: failed.approximate_invoke_count,
                condition: failed.condition,
                // The message leaves it out (R28).
                response: failed.response.filter(|_| failed.condition != Condition::RecordAgeExceeded),
            };
            let request_id = failed.request_id;
            self.ran.discards.push((given_up, Seen { request_id, lane, act }));
        }
        self.due.push((self.now + takes, Due::Delivered(id, accepts)));
    }

    fn answer(&mut self, due: Due) {
        let event = match due {
            Due::Opened => ShardEvent::Opened,
            Due::Fetched(page) => self.fetched(page),
            Due::Granted(lane) => ShardEvent::Granted { lane },
            Due::Invoked(lane, outcome) => ShardEvent::Invoked { lane, outcome },
            Due::Delivered(id, true) => ShardEvent::Delivered(id),
            Due::Delivered(id, false) => ShardEvent::DeliverFailed(id),
            Due::Stored => {
                self.ran.checkpoints.last_mut().expect("one was asked for").stored = Some(self.now);
                ShardEvent::Checkpointed
            }
        };
        self.machine.handle_event(now_at(&self.rules, self.now), event);
    }

    fn fetched(&self, page: usize) -> ShardEvent {
        let page = &self.pages[page];
        let of = |rec: &super::Rec| self.stream.real[usize::try_from(rec.n - 1).unwrap()].clone();
        let raw = Raw {
            records: page.records.iter().map(of).collect(),
            skipped: Vec::new(),
            continuation: None,
            children: Vec::new(),
            end_of_shard: page.is_end,
            millis_behind: Some(if page.is_tip { 0 } else { 1000 }),
            // As if they were read in place, which must change nothing.
            answer: Some(1000),
        };
        let told = &self.stream.told;
        let keep = |record: &Record| {
            let n: usize = record.seq.number.as_str().parse().unwrap();
            !told[n - 1].filtered
        };
        ShardEvent::Fetched(intake(raw, self.machine.position(), keep))
    }
}

/// The monotonic clock at time 0.
const START: u64 = 10_000_000;

fn now_at(rules: &Rules, at: u64) -> Now {
    Now { mono: Mono::from_millis(START + at), wall: Wall::from_millis(rules.wall_at(at)) }
}

fn new_machine(mapping: &Arc<EventSourceMapping>, at: &Resume, seed: u64, now: Now) -> ShardMachine {
    ShardMachine::new(Arc::clone(mapping), "shard".into(), at.clone(), seed, now)
}

fn seen(window: &WindowCall) -> WindowSeen {
    WindowSeen {
        start: window.start.as_millis(),
        end: window.end.as_millis(),
        state: window.state.clone(),
        is_final: window.is_final,
        is_early: window.is_terminated_early,
    }
}

/// An answer with a large state is read once.
fn with_state(response: BatchResponse, state: &Bytes) -> BatchResponse {
    static LARGE: LazyLock<[(Bytes, BatchResponse); 2]> = LazyLock::new(|| {
        [TOO_LARGE.clone(), JUST_FITS.clone()]
            .map(|state| (state.clone(), BatchResponse::success().with_state(state)))
    });
    let known = LARGE.iter().find(|(large, _)| large.as_ptr() == state.as_ptr());
    match known {
        Some((_, known)) if response == BatchResponse::success() => known.clone(),
        _ => response.with_state(state.clone()),
    }
}

fn outcome(answer: &Answer) -> Outcome {
    match answer {
        Answer::Error => Outcome::FunctionError,
        Answer::TooLarge => Outcome::TooLarge,
        Answer::NotReached { retry_after } => Outcome::NotReached { retry_after: retry_after.map(ms) },
        Answer::Returned { failures, state } => {
            let response = match failed_at(failures.iter().copied()) {
                Outcome::Answered(response) => response,
                _ => BatchResponse::success(),
            };
            Outcome::Answered(match state {
                Some(state) => with_state(response, state),
                None => response,
            })
        }
    }
}
