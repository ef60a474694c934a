//! Decides for one shard: what to read, invoke, retry, discard and store, and when.

mod gaps;
mod memory;
mod places;
mod stop;
mod view;
mod writes;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::discard::{Discard, DiscardId, Discards};
use super::exchange::{Invocation, Resume, ShardAction, ShardEvent};
use super::gap::Gap;
use super::lane::{GivenUp, Lane, LaneId, LaneState, PlaceRule, Resolution, Rules, Step, lane_of};
use super::progress::Progress;
use super::reader::{Reader, ReaderState, Wish};
use super::rng::Rng;
use super::slots::Mark;
use super::snapshot::{Counters, LastResult};
use super::watermark::Watermark;
use crate::event::{EventContext, EventSize};
use crate::failure::FailedBatch;
use crate::intake::Intake;
use crate::mapping::{EventSourceMapping, OnDestinationFailure};
use crate::outcome::Outcome;
use crate::position::Position;
use crate::record::{Batch, Record, ShardId, Slab, footprint};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

/// Records that may be read beyond the lowest unresolved one while a lane is stuck (docs/adr/0014).
const FURTHEST_AHEAD: u64 = 100_000;

/// One shard's state machine.
///
/// It does nothing by itself. Its methods are of four kinds: [`handle_event`](Self::handle_event) takes in what
/// happened; [`poll_action`](Self::poll_action) returns what to do next and is called until it returns `None`;
/// [`poll_timeout`](Self::poll_timeout) returns when to call `poll_action` again if nothing happens before;
/// [`snapshot`](Self::snapshot), [`position`](Self::position) and [`counters`](Self::counters) read without changing
/// anything. Each action but `Exit` is answered by exactly one event, unless the machine exits before; events that
/// answer nothing are ignored. After `Exit` nothing follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardMachine {
    mapping: Arc<EventSourceMapping>,
    shard: ShardId,
    phase: Phase,
    /// Invocations that the deadline of a stop cut off.
    cut: usize,
    paused: bool,
    reader: Reader,
    lanes: Vec<Lane>,
    discards: Discards,
    watermark: Watermark,
    progress: Progress,
    buffered_records: usize,
    /// Bytes of the records that are not resolved; what is held for them is more (see `held`).
    buffered_bytes: usize,
    iterator_age_millis: Option<u64>,
    last_result: LastResult,
    counters: Counters,
    retention: Option<Duration>,
    /// The retention is shorter than it was: what was to be read next may be gone.
    retention_cut: bool,
    last_gap: Option<Gap>,
    /// Gaps not reported yet.
    unreported: VecDeque<Gap>,
    /// The shard seems to be gone: a listing would tell.
    wants_listing: bool,
    /// If the mapping limits the size of events.
    event_size: Option<EventSize>,
    places: PlaceRule,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Running,
    Stopping {
        deadline: Mono,
        /// Whether the deadline has passed: what is in flight no longer counts.
        over: bool,
    },
    LeaseLost,
    Exited,
}

impl ShardMachine {
    /// A machine for `shard`, which resumes at the last run's checkpoint. `seed` decides request ids and jitter: fresh
    /// for every run, or two runs would share request ids.
    #[must_use]
    pub fn new(
        mapping: Arc<EventSourceMapping>,
        shard: ShardId,
        resume: impl Into<Resume>,
        seed: u64,
        now: Now,
    ) -> Self {
        let Resume { checkpoint, earliest_window, read_through, retention } = resume.into();
        debug_assert!(checkpoint != Position::Latest, "I15: LATEST is pinned before a run");
        let size = || EventSize::new(&EventContext::new(&mapping, shard.clone()));
        // The windows of the last run may have had another length (R64).
        let aligned = |at: Wall| mapping.tumbling_window.map_or(at, |length| at.floor_to(length));
        let earliest_window = earliest_window.map(aligned);
        Self {
            event_size: mapping.payload_limit.map(|_| size()),
            lanes: vec![Lane::new(now.mono, earliest_window); mapping.parallelization_factor],
            mapping,
            shard,
            phase: Phase::Running,
            cut: 0,
            paused: false,
            reader: Reader::new(checkpoint.clone(), read_through),
            discards: Discards::default(),
            watermark: Watermark::default(),
            progress: Progress::new(checkpoint, read_through),
            buffered_records: 0,
            buffered_bytes: 0,
            iterator_age_millis: None,
            last_result: LastResult::NoRecords,
            counters: Counters::default(),
            retention,
            retention_cut: false,
            wants_listing: false,
            last_gap: None,
            unreported: VecDeque::new(),
            places: PlaceRule::Unlimited,
            rng: Rng(fastrand::Rng::with_seed(seed)),
        }
    }

    /// Takes in what happened.
    pub fn handle_event(&mut self, now: Now, event: ShardEvent) {
        if matches!(self.phase, Phase::LeaseLost | Phase::Exited) {
            return;
        }
        let retry = self.mapping.retry;
        let rng = &mut self.rng.0;
        match event {
            ShardEvent::Opened => self.reader.opened(),
            ShardEvent::OpenFailed(fault) => self.read_failed(now, ReaderState::Opening, fault),
            ShardEvent::FetchFailed(fault) => self.read_failed(now, ReaderState::Fetching, fault),
            ShardEvent::Fetched(intake) => self.take_in(now, intake),
            ShardEvent::Invoked { lane, outcome } => self.invoked(now, lane, outcome),
            ShardEvent::Granted { lane } => self.granted(lane),
            ShardEvent::Delivered(id) => {
                if let Some(discard) = self.discards.settle(id) {
                    self.counters.delivered += discard.failed.batch.len() as u64;
                    self.resolve(&discard.failed.batch, discard.closes);
                }
            }
            ShardEvent::Dropped(id) => self.dropped(id),
            ShardEvent::DeliverFailed(id) if self.discards.awaits(id) => {
                self.counters.delivery_failures += 1;
                match self.mapping.on_destination_failure {
                    OnDestinationFailure::Block => self.discards.failed(now.mono, &retry, rng),
                    OnDestinationFailure::Drop => self.dropped(id),
                }
            }
            ShardEvent::DeliverFailed(_) => {}
            ShardEvent::Checkpointed => self.progress.written(now.mono, self.mapping.checkpoint_interval),
            ShardEvent::CheckpointFailed => self.progress.failed(now.mono, &retry, rng),
            ShardEvent::LeaseLost => self.phase = Phase::LeaseLost,
            ShardEvent::Stop { deadline } => self.stop(deadline),
            ShardEvent::Pause => self.pause(),
            ShardEvent::Resume => self.paused = false,
        }
    }

    /// What to do next; `None` until something happens or [`poll_timeout`](Self::poll_timeout) has come.
    pub fn poll_action(&mut self, now: Now) -> Option<ShardAction> {
        self.cut_at_deadline(now.mono);
        if let Some(exit) = self.exit() {
            self.phase = Phase::Exited;
            return Some(ShardAction::Exit(exit));
        }
        if self.phase == Phase::Exited {
            return None;
        }
        if std::mem::take(&mut self.wants_listing) {
            return Some(ShardAction::ListStream);
        }
        self.unreported
            .pop_front()
            .map(ShardAction::ReportGap)
            .or_else(|| self.poll_checkpoint(now))
            .or_else(|| self.poll_discard(now))
            .or_else(|| self.poll_invoke(now))
            .or_else(|| self.poll_read(now))
    }

    /// When [`poll_action`](Self::poll_action) may return more if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self, now: Now) -> Option<Mono> {
        if self.phase == Phase::Exited {
            return None;
        }
        let checkpoint = self.progress.wakes_at(self.reached().as_ref(), now.mono, self.is_flushing());
        let deadline = match self.phase {
            Phase::Stopping { deadline, over: false, .. } => Some(deadline),
            _ => None,
        };
        let discard = self.may_deliver().then(|| self.discards.wakes_at(self.is_stopping())).flatten();
        let lanes = self.may_invoke().then(|| self.lanes.iter()).into_iter().flatten();
        let rules = self.rules();
        let invoke = lanes.filter_map(|lane| lane.wakes_at(now, &rules)).min();
        let read = (self.may_read() && !self.waits_for_clock(now))
            .then(|| self.reader.wakes_at(&self.mapping.polling, self.supply()))
            .flatten();
        [checkpoint, deadline, discard, invoke, read].into_iter().flatten().min()
    }

    fn poll_invoke(&mut self, now: Now) -> Option<ShardAction> {
        for index in 0..self.lanes.len() {
            // Each discard may fill the room for undelivered ones.
            while self.may_invoke() {
                let (lane, rules, rng) = self.lane_with_rules(index)?;
                match lane.poll(now, &rules, rng) {
                    Some(Step::GiveUp(given_up)) => {
                        self.give_up(now, given_up);
                        if let Some(discard) = self.poll_discard(now) {
                            return Some(discard);
                        }
                    }
                    Some(Step::Reserve) => return Some(ShardAction::Reserve { lane: lane_id(index)? }),
                    Some(Step::Invoke { window, opens }) => {
                        if let Some(first) = opens {
                            let earliest = self.earliest_window();
                            self.watermark.hold(first, earliest);
                        }
                        return self.invocation(now, index, window);
                    }
                    None => break,
                }
            }
        }
        self.poll_release()
    }

    fn invocation(&mut self, now: Now, index: usize, window: Option<WindowCall>) -> Option<ShardAction> {
        let attempt = self.lanes.get(index)?.current()?;
        if let Some(last) = attempt.batch.last() {
            self.iterator_age_millis = age_millis(now, last);
        }
        Some(ShardAction::Invoke(Invocation {
            lane: lane_id(index)?,
            batch: attempt.batch.clone(),
            request_id: attempt.request_id,
            attempt: attempt.invokes.saturating_add(1),
            deadline: now.mono + self.mapping.timeout,
            window,
        }))
    }

    fn poll_read(&mut self, now: Now) -> Option<ShardAction> {
        if !self.may_read() {
            return None;
        }
        if self.waits_for_clock(now) {
            return None;
        }
        self.check_retention(now);
        if let Some(gap) = self.unreported.pop_front() {
            return Some(ShardAction::ReportGap(gap));
        }
        match self.reader.take_wish(now.mono, &self.mapping.polling, self.supply())? {
            Wish::Open(at) => Some(ShardAction::Open { at }),
            Wish::Fetch { limit } => Some(ShardAction::Fetch { limit }),
        }
    }

    fn take_in(&mut self, now: Now, intake: Intake) {
        if self.reader.state != ReaderState::Fetching {
            return;
        }
        let is_further = self.reader.fetched(now, &intake, &self.mapping.polling);
        self.close_gap(&intake);
        self.note_skipped(now, intake.skipped);
        self.counters.polled += intake.polled as u64;
        self.counters.filtered += intake.filtered as u64;
        self.buffered_records += intake.records.len();
        self.buffered_bytes += intake.bytes;
        let beyond = match (&intake.scanned, intake.records.last()) {
            (Some(scanned), last) if is_further && last.is_none_or(|last| last.seq < *scanned) => {
                Some(scanned.clone())
            }
            _ => None,
        };
        let mut records = intake.records;
        for record in &mut records {
            record.ordinal = self.watermark.admit();
        }
        self.queue(now, Slab::new(records, intake.bytes, intake.answer));
        // Records that were dropped behind the last kept one count as processed (R15).
        if let Some(seq) = beyond {
            self.watermark.skip(Mark { seq, arrival: intake.last_arrival });
        }
    }

    /// Hands records to their lanes, in order.
    fn queue(&mut self, now: Now, page: Slab) {
        let lanes = self.lanes.len();
        if lanes == 1 {
            if let Some((lane, rules, _)) = self.lane_with_rules(0) {
                lane.push_all(now, &rules, page);
            }
            return;
        }
        // One lane that is stuck must not keep the others' records.
        let records = page.into_records();
        let lane_of_each: Vec<usize> = records.iter().map(|record| lane_of(record, lanes)).collect();
        let mut counts = vec![0; lanes];
        lane_of_each.iter().for_each(|lane| counts[*lane] += 1);
        // Room that no record takes would be held until the last one of this page is resolved (I13).
        let mut parts: Vec<(Vec<Record>, usize)> =
            counts.into_iter().map(|count| (Vec::with_capacity(count), 0)).collect();
        for (record, lane) in records.into_iter().zip(lane_of_each) {
            let (part, bytes) = &mut parts[lane];
            *bytes += record.footprint();
            part.push(record);
        }
        for (index, (part, bytes)) in parts.into_iter().enumerate() {
            if let Some((lane, rules, _)) = self.lane_with_rules(index) {
                lane.push_all(now, &rules, Slab::new(part, bytes, None));
            }
        }
    }

    fn invoked(&mut self, now: Now, lane: LaneId, outcome: Outcome) {
        let Some((lane, rules, rng)) = self.lane_with_rules(usize::from(lane.0)) else { return };
        if lane.state() != LaneState::Invoking {
            return;
        }
        let result = match &outcome {
            Outcome::Answered(answer) if lane.accepts(answer, &rules) => Some(LastResult::Ok),
            Outcome::Answered(_) | Outcome::FunctionError | Outcome::TooLarge => {
                Some(LastResult::FunctionCallFailed)
            }
            Outcome::NotReached { .. } => None,
        };
        let invoked = lane.current().map_or(0, |attempt| attempt.batch.len());
        let resolution = lane.invoked(now, outcome, &rules, rng);
        let failed = match &resolution {
            Resolution::Succeeded { batch, .. } => invoked - batch.len(),
            Resolution::Pending if result.is_none() => 0,
            Resolution::GivenUp(_) | Resolution::Pending => invoked,
        };
        self.counters.failed += failed as u64;
        if result.is_some() {
            self.counters.invoked += invoked as u64;
        }
        self.last_result = result.unwrap_or(self.last_result);
        match resolution {
            Resolution::Succeeded { batch, closes } => self.resolve(&batch, closes),
            Resolution::GivenUp(given_up) => self.give_up(now, given_up),
            Resolution::Pending => {}
        }
    }

    fn give_up(&mut self, now: Now, given_up: GivenUp) {
        let GivenUp { attempt, condition, window, closes } = given_up;
        let failed = FailedBatch {
            // It may wait long for its destination, and must not keep its page from being freed (I13).
            batch: attempt.batch.detached(),
            shard: self.shard.clone(),
            request_id: attempt.request_id,
            condition,
            // A batch that was never invoked reports 1 as well (R29).
            approximate_invoke_count: attempt.invokes.max(1),
            response: attempt.response,
            at: now.wall,
            window,
        };
        self.discards.push(Discard { failed, closes });
        if self.discards.is_full() {
            self.shed();
        }
    }

    fn dropped(&mut self, id: DiscardId) {
        if let Some(discard) = self.discards.settle(id) {
            self.counters.dropped += discard.failed.batch.len() as u64;
            self.resolve(&discard.failed.batch, discard.closes);
        }
    }

    /// These records are done, and with `closes`, the window with the records of these ordinals.
    fn resolve(&mut self, batch: &Batch, closes: Option<Range<u64>>) {
        self.buffered_records -= batch.len();
        self.buffered_bytes -= footprint(batch.records());
        // Ordinals between two records of a lane may belong to other lanes, so each unbroken run is its own.
        for run in batch.records().chunk_by(|a, b| a.ordinal + 1 == b.ordinal) {
            if let [first, ..] = run
                && let Some(last) = run.last()
            {
                let mark = || Mark { seq: last.seq.clone(), arrival: last.arrival };
                self.watermark.resolve(first.ordinal..last.ordinal + 1, mark);
            }
        }
        if let Some(window) = closes {
            self.watermark.release(&window);
        }
    }

    /// Where a window may begin that is opened now.
    fn earliest_window(&self) -> Option<Wall> {
        self.lanes.first().and_then(Lane::earliest_window)
    }

    /// How far the checkpoint may go: the end only when nothing is left (I2, I9).
    fn reached(&self) -> Option<Position> {
        if self.reader_ended() && self.watermark.is_complete() {
            return Some(Position::ShardEnd);
        }
        self.watermark.reached().map(|mark| Position::After(mark.seq.clone()))
    }

    /// Whether the checkpoint is written without waiting for its interval.
    fn is_flushing(&self) -> bool {
        self.is_stopping() || (self.reader_ended() && self.watermark.is_complete())
    }

    fn reader_ended(&self) -> bool {
        self.reader.state == ReaderState::Ended
    }

    fn rules(&self) -> Rules<'_> {
        rules(&self.mapping, self.event_size.as_ref(), &self.reader, self.buffered_bytes, self.places)
    }

    fn lane_with_rules(&mut self, index: usize) -> Option<(&mut Lane, Rules<'_>, &mut fastrand::Rng)> {
        let size = self.event_size.as_ref();
        let rules = rules(&self.mapping, size, &self.reader, self.buffered_bytes, self.places);
        Some((self.lanes.get_mut(index)?, rules, &mut self.rng.0))
    }

    fn may_invoke(&self) -> bool {
        self.phase == Phase::Running && !self.paused && !self.discards.is_full()
    }

    fn may_read(&self) -> bool {
        // A stuck lane lets the others go ahead, within a limit: all of that is redelivered after a crash.
        let may_go_ahead = self.lanes.len() == 1 || self.watermark.span() < FURTHEST_AHEAD;
        self.phase == Phase::Running && !self.paused && may_go_ahead
    }

    const fn may_deliver(&self) -> bool {
        !self.paused && !matches!(self.phase, Phase::Stopping { over: true, .. })
    }

    /// How far the shard was read: what a page is taken in against.
    #[must_use]
    pub const fn position(&self) -> &Position {
        &self.reader.at
    }

    /// What the shard's records came to lately: a running average of [`Record::footprint`], in bytes, at least 1.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.reader.record_bytes.max(1)
    }

    /// What was counted since the run began.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn rules<'a>(
    mapping: &'a EventSourceMapping,
    event_size: Option<&'a EventSize>,
    reader: &Reader,
    buffered: usize,
    places: PlaceRule,
) -> Rules<'a> {
    let ended = reader.state == ReaderState::Ended;
    Rules {
        mapping,
        size: event_size.zip(mapping.payload_limit),
        flushes: ended || buffered >= mapping.polling.buffer_bytes,
        ended,
        tip_read: reader.tip_read,
        clock_in_doubt: reader.clock_doubt.is_some(),
        places,
    }
}

fn lane_id(index: usize) -> Option<LaneId> {
    u16::try_from(index).ok().map(LaneId)
}

fn age_millis(now: Now, record: &Record) -> Option<u64> {
    let arrival = record.arrival?;
    Some(u64::try_from(now.wall.as_millis().saturating_sub(arrival.as_millis())).unwrap_or(0))
}
