//! How an invocation ended, and what comes next (R19 to R24, R33 to R45).

use std::ops::Range;
use std::time::Duration;

use super::attempt::Attempt;
use super::verdict::{Verdict, judge};
use super::{GivenUp, Lane, LaneState, PlaceRule, Reason, Rules, Step};
use crate::failure::{Condition, FunctionResponse};
use crate::outcome::{BatchResponse, Outcome};
use crate::record::Batch;
use crate::time::{Mono, Now};

/// A function that requests a longer back-off is retried after this time: a mistake there must not stop a shard
/// for a day.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(900);

/// What became of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Resolution {
    /// These records succeeded; the rest of their batch is retried.
    Succeeded {
        batch: Batch,
        /// It was the final call of a window: the ordinals of the window's records.
        closes: Option<Range<u64>>,
    },
    /// This batch is discarded.
    GivenUp(GivenUp),
    /// Nothing is resolved: a retry, or the halves come next.
    Pending,
}

impl Lane {
    /// Takes in how the invocation ended.
    pub(in crate::shard) fn invoked(
        &mut self,
        now: Now,
        outcome: Outcome,
        rules: &Rules<'_>,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        self.state = LaneState::Ready;
        self.batching_origin = now.mono;
        self.batching_ends = now.mono + rules.mapping.batching_window;
        let Some(mut attempt) = self.stack.pop() else { return Resolution::Pending };
        self.misses = match outcome {
            Outcome::NotReached { .. } => self.misses.saturating_add(1),
            Outcome::Answered(_) | Outcome::FunctionError | Outcome::TooLarge => 0,
        };
        match outcome {
            Outcome::NotReached { retry_after: None } if rules.places == PlaceRule::Away => {
                self.misses = 0;
                self.stack.push(attempt);
                // It waits for its place, and that may be for as long as the function is away.
                self.shed();
                Resolution::Pending
            }
            Outcome::NotReached { retry_after } => {
                let reason = if retry_after.is_some() { Reason::Asked } else { Reason::Function };
                let backoff = rules.mapping.retry.delay(self.misses, rng);
                let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                self.wait(now.mono, attempt, backoff.max(asked), reason);
                Resolution::Pending
            }
            Outcome::Answered(answer) => {
                attempt.count(Some(FunctionResponse::Returned));
                self.answered(now, &answer, attempt, rules, rng)
            }
            Outcome::FunctionError => {
                attempt.count(Some(FunctionResponse::Unhandled));
                self.no_progress(now, attempt, rules, rng)
            }
            Outcome::TooLarge => {
                attempt.count(None);
                // A part may fit, and making batches fit is not bisection: it needs no configuration (R3c, R24).
                self.halve_or_retry(now, attempt, rules, rng)
            }
        }
    }

    /// The verdict of an answer about the current batch: what it means here, in `LastProcessingResult` and in the log.
    pub(in crate::shard) fn judge(&self, answer: &BatchResponse, rules: &Rules<'_>) -> Option<Verdict> {
        Some(judge(&self.current()?.batch, answer, rules))
    }

    /// Whether an answer to the current batch is what its mapping asks for (R18).
    pub(in crate::shard) fn accepts(&self, answer: &BatchResponse, rules: &Rules<'_>) -> bool {
        !matches!(self.judge(answer, rules), None | Some(Verdict::Unusable(_)))
    }

    fn answered(
        &mut self,
        now: Now,
        answer: &BatchResponse,
        attempt: Attempt,
        rules: &Rules<'_>,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        let has_windows = rules.mapping.tumbling_window.is_some();
        let done = match judge(&attempt.batch, answer, rules) {
            // Without a state that it can be called with the window could not continue (R66).
            Verdict::Unusable(_) => return self.no_progress(now, attempt, rules, rng),
            Verdict::Succeeded if attempt.batch.is_empty() => {
                let closes = self.tumbling.close();
                self.queue.measure_again(now, rules, &self.tumbling);
                return Resolution::Succeeded { batch: attempt.batch, closes };
            }
            Verdict::Succeeded => attempt.batch,
            Verdict::FailedFrom(at) => match attempt.batch.split_at(at) {
                Some((done, rest)) => {
                    self.stack.push(Attempt::new(rest, rng));
                    done
                }
                None => return self.no_progress(now, attempt, rules, rng),
            },
        };
        self.tumbling.reach(&done);
        if let Some(state) = answer.state().filter(|_| has_windows) {
            if self.tumbling.adopt(state.clone()) {
                // The window ends before the rest of the batch (R68).
                self.stack.push(Attempt::new(Batch::empty(), rng));
            }
            self.queue.measure_again(now, rules, &self.tumbling);
        }
        Resolution::Succeeded { batch: done, closes: None }
    }

    /// The batch failed and no prefix of it succeeded: halves, else retries, else discards (R41, R44, R20).
    fn no_progress(
        &mut self,
        now: Now,
        attempt: Attempt,
        rules: &Rules<'_>,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        if rules.mapping.bisect_batch_on_function_error {
            return self.halve_or_retry(now, attempt, rules, rng);
        }
        self.give_up_or_wait(now, attempt, rules, rng)
    }

    /// Puts both halves in place of the batch: the left first, at once, each with all attempts (R41 to R43).
    fn halve_or_retry(
        &mut self,
        now: Now,
        attempt: Attempt,
        rules: &Rules<'_>,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        if attempt.batch.len() < 2 {
            return self.give_up_or_wait(now, attempt, rules, rng);
        }
        let half = attempt.batch.len() / 2;
        self.split(attempt, half, rng);
        Resolution::Pending
    }

    fn give_up_or_wait(
        &mut self,
        now: Now,
        attempt: Attempt,
        rules: &Rules<'_>,
        rng: &mut fastrand::Rng,
    ) -> Resolution {
        if rules.mapping.maximum_retry_attempts.is_some_and(|maximum| attempt.invokes > maximum) {
            let window = self.call(now, rules, &attempt.batch);
            let closes = attempt.batch.is_empty().then(|| self.tumbling.close()).flatten();
            // It may be invoked after a crash, also if it was too large together with the window's state, and then as a
            // part of this window.
            self.tumbling.reach(&attempt.batch);
            self.queue.measure_again(now, rules, &self.tumbling);
            let condition = Condition::RetryAttemptsExhausted;
            return Resolution::GivenUp(GivenUp { attempt, condition, window, closes });
        }
        let backoff = rules.mapping.retry.delay(attempt.invokes, rng);
        self.wait(now.mono, attempt, backoff, Reason::Batch);
        Resolution::Pending
    }

    /// An event of one record, or of none, that is over the limit: an attempt that the function does not see (R24).
    pub(super) fn spend_on_too_large(
        &mut self,
        now: Now,
        rules: &Rules<'_>,
        mut attempt: Attempt,
        rng: &mut fastrand::Rng,
    ) -> Option<Step> {
        attempt.count(None);
        match self.give_up_or_wait(now, attempt, rules, rng) {
            Resolution::GivenUp(given_up) => Some(Step::GiveUp(given_up)),
            Resolution::Succeeded { .. } | Resolution::Pending => None,
        }
    }

    fn wait(&mut self, now: Mono, attempt: Attempt, backoff: Duration, reason: Reason) {
        self.stack.push(attempt);
        self.state = LaneState::Waiting { until: now + backoff, reason };
        self.shed();
    }
}
