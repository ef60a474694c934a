//! One lane: batches one after the other, with retries, cuts, bisection and tumbling windows (R19 to R45, R64 to R70).

mod age;
mod attempt;
mod key;
mod memory;
mod place;
mod queue;
mod result;
mod tumbling;
mod verdict;

use std::ops::Range;
use std::time::Duration;

pub(super) use attempt::Attempt;
pub(super) use key::lane_of;
pub use place::PlaceRule;
pub(super) use result::Resolution;
pub use verdict::{AnswerProblem, Verdict};

use self::age::{Age, Cut};
use self::place::Place;
use self::queue::Queue;
use self::tumbling::Tumbling;
use super::snapshot::{LaneSnapshot, Oversized};
use crate::event::EventSize;
use crate::failure::Condition;
use crate::mapping::EventSourceMapping;
use crate::record::{Batch, Record, Slab};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

/// Names a lane of a shard; 0 without `ParallelizationFactor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u16);

/// The inputs of a lane's decisions other than its own state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) mapping: &'a EventSourceMapping,
    /// How large events are and may be, if they are limited.
    pub(super) size: Option<(&'a EventSize, usize)>,
    /// Nothing more can join a batch that waits for its batching window: all is read, or the buffer has no room (R3).
    pub(super) flushes: bool,
    /// The end of the shard was read.
    pub(super) ended: bool,
    /// When a page was read last that reached the tip of the shard.
    pub(super) tip_read: Option<Wall>,
    /// The service's clock is in doubt: whether a record is too old is unknown.
    pub(super) clock_in_doubt: bool,
    /// Whether an invocation needs a place.
    pub(super) places: PlaceRule,
}

impl Rules<'_> {
    fn age(&self) -> Age {
        if self.clock_in_doubt {
            return Age::Unlimited;
        }
        self.mapping.maximum_record_age.map_or(Age::Unlimited, Age::Limited)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    queue: Queue,
    /// Batches that were formed and are not resolved; the last is the current one, so that a bisection goes depth
    /// first and left to right (R42).
    stack: Vec<Attempt>,
    state: LaneState,
    place: Place,
    /// Consecutive attempts that did not reach the function, across batches (R23).
    misses: u32,
    /// When the last invocation finished, or the lane was made: where batching windows start (R4).
    batching_origin: Mono,
    /// When the batching window of the oldest queued record closes.
    batching_ends: Mono,
    tumbling: Tumbling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LaneState {
    Ready,
    Invoking,
    Waiting { until: Mono, reason: Reason },
}

/// Who waits for a backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// A batch, for its retry.
    Batch,
    /// The next invocation of any batch, because the function was not reached.
    Function,
    /// The next invocation of any batch, because the function requested a back-off.
    Asked,
}

/// What a lane wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for a place.
    Reserve,
    /// Invoke the current batch.
    Invoke {
        window: Option<WindowCall>,
        /// The batch opens a window: the ordinal of its first record.
        opens: Option<u64>,
    },
    GiveUp(GivenUp),
}

/// A batch that is discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    pub(super) attempt: Attempt,
    pub(super) condition: Condition,
    pub(super) window: Option<WindowCall>,
    /// It was the final call of a window, which is closed thereby: the ordinals of the window's records.
    pub(super) closes: Option<Range<u64>>,
}

impl Lane {
    /// `earliest`: no tumbling window begins before it.
    pub(super) fn new(now: Mono, earliest: Option<Wall>) -> Self {
        Self {
            queue: Queue::default(),
            stack: Vec::new(),
            state: LaneState::Ready,
            place: Place::None,
            misses: 0,
            batching_origin: now,
            batching_ends: now,
            tumbling: Tumbling::new(earliest),
        }
    }

    /// Queues records that came in together.
    pub(super) fn push_all(&mut self, now: Now, rules: &Rules<'_>, records: Slab) {
        if records.records().is_empty() {
            return;
        }
        if self.queue.len() == 0 {
            self.batching_ends = window_end(self.batching_origin, now.mono, rules.mapping.batching_window);
        }
        self.queue.push_all(records);
        self.queue.measure(now, rules, &self.tumbling);
    }

    /// When [`poll`](Self::poll) may say more than now.
    pub(super) fn wakes_at(&self, now: Now, rules: &Rules<'_>) -> Option<Mono> {
        let over_at = |record: Option<&Record>| rules.age().over_at(record?, now);
        match self.state {
            LaneState::Invoking => None,
            LaneState::Waiting { until, .. } => {
                Some(over_at(self.front()).map_or(until, |over_at| over_at.min(until)))
            }
            LaneState::Ready if self.place == Place::Asked => over_at(self.front()),
            LaneState::Ready if !self.stack.is_empty() => Some(now.mono),
            LaneState::Ready => {
                // What was due when the place was asked for is still due.
                let is_due = rules.flushes || self.queue.is_full() || self.place == Place::Granted;
                let batch = self.queue.front().map(|_| if is_due { now.mono } else { self.batching_ends });
                // A record's age does not wait for a batch to fill (R31).
                [batch, over_at(self.queue.front()), self.closes_at(now, rules)].into_iter().flatten().min()
            }
        }
    }

    /// Whether a batch waits that no other record can join.
    pub(super) const fn has_a_whole_batch(&self) -> bool {
        self.queue.is_full()
    }

    /// The first record of what comes next.
    fn front(&self) -> Option<&Record> {
        self.stack.last().map_or(self.queue.front(), |attempt| attempt.batch.first())
    }

    /// When the open tumbling window closes, with no batch left (R67).
    fn closes_at(&self, now: Now, rules: &Rules<'_>) -> Option<Mono> {
        let size = rules.mapping.tumbling_window?;
        self.tumbling.open()?;
        match self.queue.front() {
            Some(front) => self.tumbling.is_passed_by(front, size, now).then_some(now.mono),
            None if rules.ended => Some(now.mono),
            None => {
                let left = self
                    .tumbling
                    .idle_close(rules.tip_read)?
                    .as_millis()
                    .saturating_sub(now.wall.as_millis());
                Some(now.mono + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
            }
        }
    }

    /// What to do now, if anything. An invocation is marked as under way; its batch is the [current](Self::current) one.
    pub(super) fn poll(&mut self, now: Now, rules: &Rules<'_>, rng: &mut fastrand::Rng) -> Option<Step> {
        while self.wakes_at(now, rules)? <= now.mono {
            if matches!(self.state, LaneState::Waiting { until, .. } if until <= now.mono) {
                self.state = LaneState::Ready;
                continue;
            }
            if self.stack.is_empty() {
                if let Some(expired) = self.queue.take_expired(now, rules.age()) {
                    self.queue.measure_again(now, rules, &self.tumbling);
                    return Some(self.give_up_expired(now, rules, Attempt::new(expired, rng)));
                }
                if self.needs_place(rules) {
                    // The batch keeps growing while it waits.
                    return self.ask();
                }
                self.takes();
                let batch = match self.closes_at(now, rules).is_some_and(|at| at <= now.mono) {
                    true => Batch::empty(),
                    false => self.queue.take_next(now, rules.age())?,
                };
                self.queue.measure_again(now, rules, &self.tumbling);
                self.stack.push(Attempt::new(batch, rng));
            }
            if let Some(step) = self.poll_attempt(now, rules, rng) {
                return Some(step);
            }
        }
        None
    }

    /// The current batch is due, or its first record is too old: cuts off what is too old or too large, else invokes it.
    fn poll_attempt(&mut self, now: Now, rules: &Rules<'_>, rng: &mut fastrand::Rng) -> Option<Step> {
        let attempt = self.stack.pop()?;
        match rules.age().cut(&attempt.batch, now) {
            Cut::Nowhere => {}
            Cut::Expired(count) => {
                let Some((expired, rest)) = attempt.batch.split_at(count) else {
                    if matches!(self.state, LaneState::Waiting { reason: Reason::Batch, .. }) {
                        self.state = LaneState::Ready;
                    }
                    return Some(self.give_up_expired(now, rules, attempt));
                };
                // It keeps waiting, or a function that is down would be tried at each record's expiry.
                self.stack.push(Attempt::new(rest, rng));
                return Some(self.give_up_expired(now, rules, Attempt { batch: expired, ..attempt }));
            }
            Cut::Fresh(count) => {
                self.split(attempt, count, rng);
                return None;
            }
        }
        if let Some((fitting, bytes)) = self.fitting(now, rules, &attempt.batch) {
            if attempt.batch.len() > 1 {
                self.split(attempt, fitting.max(1), rng);
                return None;
            }
            let oversized = Some(bytes);
            return self.spend_on_too_large(now, rules, Attempt { oversized, ..attempt }, rng);
        }
        if self.needs_place(rules) {
            self.stack.push(attempt);
            return self.ask();
        }
        let window = rules.mapping.tumbling_window.zip(attempt.batch.first());
        let opens = window.and_then(|(size, first)| self.tumbling.enter(first, size, now));
        if opens.is_some() {
            self.queue.measure_again(now, rules, &self.tumbling);
        }
        let window = self.call(now, rules, &attempt.batch);
        self.stack.push(attempt);
        self.state = LaneState::Invoking;
        self.place = Place::None;
        Some(Step::Invoke { window, opens })
    }

    /// Puts the first `count` records and the rest in place of a batch, each as a new one.
    fn split(&mut self, attempt: Attempt, count: usize, rng: &mut fastrand::Rng) {
        match attempt.batch.split_at(count) {
            Some((first, rest)) => {
                self.stack.push(Attempt::new(rest, rng));
                self.stack.push(Attempt::new(first, rng));
            }
            None => self.stack.push(attempt),
        }
    }

    /// How many records of a batch fit into an event, if not all of them do (R3c), and the bytes of one more.
    fn fitting(&self, now: Now, rules: &Rules<'_>, batch: &Batch) -> Option<(usize, usize)> {
        let (size, limit) = rules.size?;
        let mut event = size.frame(self.call(now, rules, batch).as_ref());
        for (index, record) in batch.records().iter().enumerate() {
            event += size.record(record) + usize::from(index > 0);
            if event > limit {
                return Some((index, event));
            }
        }
        (event > limit).then_some((0, event))
    }

    fn give_up_expired(&self, now: Now, rules: &Rules<'_>, attempt: Attempt) -> Step {
        let window = self.call(now, rules, &attempt.batch);
        Step::GiveUp(GivenUp { attempt, condition: Condition::RecordAgeExceeded, window, closes: None })
    }

    /// The window of a batch as the event describes it.
    fn call(&self, now: Now, rules: &Rules<'_>, batch: &Batch) -> Option<WindowCall> {
        self.tumbling.call(batch.first(), rules.mapping.tumbling_window?, now)
    }

    /// Forgets an invocation that is cut off: it spent no attempt and its records stay unresolved (I16).
    pub(super) fn abandon(&mut self) {
        self.state = LaneState::Ready;
    }

    pub(super) const fn state(&self) -> LaneState {
        self.state
    }

    pub(super) fn current(&self) -> Option<&Attempt> {
        self.stack.last()
    }

    /// The first record that waits to be resolved: the oldest one of the lane.
    pub(super) fn oldest(&self) -> Option<&Record> {
        let of_batches = self.stack.iter().rev().find_map(|attempt| attempt.batch.first());
        of_batches.or_else(|| self.queue.front())
    }

    pub(super) fn snapshot(&self, now: Mono) -> LaneSnapshot {
        LaneSnapshot {
            queued: self.queue.len(),
            invoking: self.state == LaneState::Invoking,
            waits_for_place: self.place == Place::Asked,
            batch: self.current().map_or(0, |attempt| attempt.batch.len()),
            first: self.current().and_then(|attempt| Some(attempt.batch.first()?.seq.clone())),
            last: self.current().and_then(|attempt| Some(attempt.batch.last()?.seq.clone())),
            request_id: self.current().map(|attempt| attempt.request_id),
            attempts: self.current().map_or(0, |attempt| attempt.invokes),
            retry_in: match self.state {
                LaneState::Waiting { until, .. } => Some(until.since(now)),
                LaneState::Ready | LaneState::Invoking => None,
            },
            oversized: self.current().and_then(|attempt| {
                let record = attempt.batch.first().map(|record| record.seq.clone());
                Some(Oversized { record, bytes: attempt.oversized? })
            }),
        }
    }

    /// The start that no window may have any more, to be stored with the checkpoint.
    pub(super) const fn earliest_window(&self) -> Option<Wall> {
        self.tumbling.earliest()
    }
}

/// When the batching window closes that a record joins at `now`.
///
/// Windows follow each other without gaps from the end of the last invocation (R4), so a record that arrives after a
/// long silence waits for the rest of the running window, never for longer than one window.
fn window_end(origin: Mono, now: Mono, window: Duration) -> Mono {
    if window.is_zero() {
        return now;
    }
    let windows = now.since(origin).as_millis() / window.as_millis();
    let windows = u32::try_from(windows).unwrap_or(u32::MAX).saturating_add(1);
    origin + window.saturating_mul(windows)
}
