//! One lane: batches one after the other, with retries, cuts and bisection (R19 to R24, R33 to R45).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::failure::{Condition, FunctionResponse};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, ItemFailure, Outcome};
use crate::position::SequenceNumber;
use crate::record::{Batch, Record};
use crate::request::RequestId;
use crate::time::Mono;

/// A function that asks to be left alone for longer is asked again after this: a mistake there must not stop a shard
/// for a day.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(900);

/// Names a lane of a shard; 0 without `ParallelizationFactor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u16);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    queue: VecDeque<Record>,
    /// Batches that were formed and are not resolved; the last is the current one, so that a bisection goes depth
    /// first and left to right (R42).
    stack: Vec<Attempt>,
    state: LaneState,
    /// When the last invocation finished, or the lane was made: where batching windows start (R4).
    window_origin: Mono,
    /// When the window of the oldest queued record closes.
    window_ends: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LaneState {
    Ready,
    Invoking,
    /// A retry waits for its backoff.
    Waiting {
        until: Mono,
    },
}

/// A batch with its budget: a part of a batch is a new batch with a new request id and all attempts left (R21, R43).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) batch: Batch,
    pub(super) request_id: RequestId,
    /// Invocations that counted.
    pub(super) invokes: u32,
    /// Tries in a row that did not reach the function (R23).
    misses: u32,
    response: Option<FunctionResponse>,
}

/// What became of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// These records succeeded; whatever is left of their batch comes again.
    Succeeded(Batch),
    /// This batch is given up.
    GivenUp { attempt: Attempt, condition: Condition },
    /// Nothing is resolved: a retry, or the halves come next.
    Pending,
}

impl Attempt {
    fn new(batch: Batch, rng: &mut fastrand::Rng) -> Self {
        Self {
            batch,
            request_id: RequestId::from_random(rng.u128(..)),
            invokes: 0,
            misses: 0,
            response: None,
        }
    }

    pub(super) const fn response(&self) -> Option<FunctionResponse> {
        self.response
    }
}

impl Lane {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            queue: VecDeque::new(),
            stack: Vec::new(),
            state: LaneState::Ready,
            window_origin: now,
            window_ends: now,
        }
    }

    /// Queues records that came in together.
    pub(super) fn push_all(&mut self, now: Mono, window: Duration, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        if self.queue.is_empty() {
            self.window_ends = window_end(self.window_origin, now, window);
            // Takes the vector over: a page is not copied.
            self.queue = records.into();
        } else {
            self.queue.extend(records);
        }
    }

    /// The batch to invoke now, if any; marks it as under way. `flush`: nothing more will join the queue.
    pub(super) fn take_invocation(
        &mut self,
        now: Mono,
        mapping: &EventSourceMapping,
        flush: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<&Attempt> {
        if self.wakes_at(now, mapping, flush)? > now {
            return None;
        }
        if self.stack.is_empty() {
            let batch = self.form_batch(mapping.batch_size)?;
            self.stack.push(Attempt::new(batch, rng));
        }
        self.state = LaneState::Invoking;
        self.stack.last()
    }

    /// When [`take_invocation`](Self::take_invocation) may say more than now (R3).
    pub(super) fn wakes_at(&self, now: Mono, mapping: &EventSourceMapping, flush: bool) -> Option<Mono> {
        match self.state {
            LaneState::Invoking => None,
            LaneState::Waiting { until } => Some(until),
            LaneState::Ready if !self.stack.is_empty() => Some(now),
            LaneState::Ready if self.queue.is_empty() => None,
            LaneState::Ready if flush || self.queue.len() >= mapping.batch_size => Some(now),
            LaneState::Ready => Some(self.window_ends),
        }
    }

    fn form_batch(&mut self, batch_size: usize) -> Option<Batch> {
        let taken = batch_size.min(self.queue.len());
        // The range's length is known, so that the records move once, straight into their shared place.
        let next = |_| self.queue.pop_front().expect("no more are taken than are queued");
        let records: Arc<[Record]> = (0..taken).map(next).collect();
        if self.queue.is_empty() {
            // An idle shard does not keep the room of a page.
            self.queue = VecDeque::new();
        }
        Batch::new(records)
    }

    /// Takes in how the invocation ended.
    pub(super) fn invoked(
        &mut self,
        now: Mono,
        outcome: Outcome,
        mapping: &EventSourceMapping,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        self.state = LaneState::Ready;
        self.window_origin = now;
        self.window_ends = now + mapping.batching_window;
        let Some(mut attempt) = self.stack.pop() else { return Resolution::Pending };
        match outcome {
            Outcome::NotReached { retry_after } => {
                attempt.misses = attempt.misses.saturating_add(1);
                let backoff = mapping.retry.delay(attempt.misses, rng);
                self.wait(
                    now,
                    attempt,
                    backoff.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)),
                );
                Resolution::Pending
            }
            Outcome::Answered(answer) => {
                attempt.count(Some(FunctionResponse::Returned));
                match judge(&attempt.batch, &answer, mapping.report_batch_item_failures) {
                    Verdict::Succeeded => Resolution::Succeeded(attempt.batch),
                    Verdict::FailedFrom(at) => match attempt.batch.split_at(at) {
                        Some((done, rest)) => {
                            self.stack.push(Attempt::new(rest, rng));
                            Resolution::Succeeded(done)
                        }
                        None => self.no_progress(now, attempt, mapping, rng),
                    },
                }
            }
            Outcome::FunctionError => {
                attempt.count(Some(FunctionResponse::Unhandled));
                self.no_progress(now, attempt, mapping, rng)
            }
            Outcome::TooLarge => {
                attempt.count(None);
                // A part may fit, and making batches fit is not bisection: it needs no configuration (R3c, R24).
                self.halve_or_retry(now, attempt, mapping, rng)
            }
        }
    }

    /// The batch failed and no prefix of it succeeded: halves, else retries, else gives up (R41, R44, R20).
    fn no_progress(
        &mut self,
        now: Mono,
        attempt: Attempt,
        mapping: &EventSourceMapping,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        if mapping.bisect_batch_on_function_error {
            return self.halve_or_retry(now, attempt, mapping, rng);
        }
        self.give_up_or_wait(now, attempt, mapping, rng)
    }

    fn halve_or_retry(
        &mut self,
        now: Mono,
        attempt: Attempt,
        mapping: &EventSourceMapping,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        match self.halve(attempt, rng) {
            Ok(()) => Resolution::Pending,
            Err(attempt) => self.give_up_or_wait(now, attempt, mapping, rng),
        }
    }

    /// Puts both halves in place of the batch: the left first, at once, each with all attempts (R41 to R43). Gives a
    /// batch of one back.
    fn halve(&mut self, attempt: Attempt, rng: &mut fastrand::Rng) -> Result<(), Attempt> {
        let Some((left, right)) = attempt.batch.split_at(attempt.batch.len() / 2) else {
            return Err(attempt);
        };
        self.stack.push(Attempt::new(right, rng));
        self.stack.push(Attempt::new(left, rng));
        Ok(())
    }

    fn give_up_or_wait(
        &mut self,
        now: Mono,
        attempt: Attempt,
        mapping: &EventSourceMapping,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        if mapping.maximum_retry_attempts.is_some_and(|maximum| attempt.invokes > maximum) {
            return Resolution::GivenUp { attempt, condition: Condition::RetryAttemptsExhausted };
        }
        let backoff = mapping.retry.delay(attempt.invokes, rng);
        self.wait(now, attempt, backoff);
        Resolution::Pending
    }

    fn wait(&mut self, now: Mono, attempt: Attempt, backoff: Duration) {
        self.stack.push(attempt);
        self.state = LaneState::Waiting { until: now + backoff };
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

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}

impl Attempt {
    fn count(&mut self, response: Option<FunctionResponse>) {
        self.invokes = self.invokes.saturating_add(1);
        self.misses = 0;
        self.response = response;
    }
}

enum Verdict {
    Succeeded,
    /// The record at this index is the first that comes again; 0 is no progress.
    FailedFrom(usize),
}

/// The lowest reported identifier wins; one that names no record of the batch fails all of it (R35, R36, I7).
fn judge(batch: &Batch, answer: &BatchResponse, report_batch_item_failures: bool) -> Verdict {
    if !report_batch_item_failures || answer.failures().is_empty() {
        return Verdict::Succeeded;
    }
    let records = batch.records();
    let index = |failure: &ItemFailure| match failure {
        ItemFailure::Identifier(id) => {
            // A shard's records come in order; the sub-records of an aggregate share a number, and the first counts.
            let id = SequenceNumber::new(id.as_str());
            let at = records.partition_point(|record| record.seq.number < id);
            records.get(at).filter(|record| record.seq.number == id).map(|_| at)
        }
        ItemFailure::Unreadable => None,
    };
    Verdict::FailedFrom(
        answer.failures().iter().map(|failure| index(failure).unwrap_or(0)).min().unwrap_or(0),
    )
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
