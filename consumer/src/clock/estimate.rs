//! What the dates of answers say about the service's clock, and when a jump is believed.

use std::collections::VecDeque;
use std::time::Duration;

use shardmill_engine::Mono;

use super::DATE_WIDTH_MS;

/// An answer that is further off the estimate than this many milliseconds means that the clock has jumped, or is wrong.
const JUMP_MS: i64 = 3000;
/// Answers agree on an offset if none of them is further from it than this many milliseconds.
const AGREEMENT_MS: i64 = 1000;
/// So many answers must agree on a jump.
const AGREEING: usize = 3;
/// The first and the last of them are at least this far apart.
const SPREAD: Duration = Duration::from_secs(5);
/// Answers that come closer than this count as one, so that those that are kept span more than [`SPREAD`].
const APART: Duration = Duration::from_millis(500);
/// So many answers are kept.
const KEPT: usize = 16;
/// Older answers say nothing about the clock of now.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// The date of an answer that took longer than this many milliseconds is too imprecise to confirm anything.
const SHARP_MS: i64 = DATE_WIDTH_MS + 4000;

/// The date of one answer: the offset that it calls for lies between two, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) at: Mono,
    pub(super) at_least: i64,
    pub(super) at_most: i64,
}

impl Sighting {
    /// The nearest offset to `to` that fits.
    fn nearest(&self, to: i64) -> i64 {
        to.clamp(self.at_least, self.at_most.max(self.at_least))
    }

    fn middle(&self) -> i64 {
        self.at_least.saturating_add(self.at_most.saturating_sub(self.at_least) / 2)
    }

    fn is_off(&self, from: i64) -> i64 {
        self.nearest(from).saturating_sub(from).saturating_abs()
    }
}

/// What an answer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The clock is off by so many milliseconds from the host's.
    Agrees(i64),
    /// The clock may be so many milliseconds off its estimate, and the lowest offset in question is this one.
    Doubt { off: u64, lowest: i64 },
    /// It took too long to say anything.
    Nothing,
}

/// The answers that contradict the present estimate.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    against: VecDeque<Sighting>,
}

impl Estimate {
    /// Takes in an answer, given the offset that is believed now.
    pub(super) fn take(&mut self, present: i64, seen: Sighting) -> Verdict {
        if seen.is_off(present) <= JUMP_MS {
            if !self.against.is_empty() && seen.at_most.saturating_sub(seen.at_least) > SHARP_MS {
                return Verdict::Nothing;
            }
            self.against.clear();
            return Verdict::Agrees(seen.nearest(present));
        }
        self.against.retain(|old| seen.at.since(old.at) <= FORGOTTEN);
        if self.against.back().is_none_or(|last| seen.at.since(last.at) >= APART) {
            if self.against.len() == KEPT {
                self.against.pop_front();
            }
            self.against.push_back(seen);
        }
        if let Some(offset) = self.agreed(present) {
            self.against.clear();
            return Verdict::Agrees(offset);
        }
        let in_question = || self.against.iter().chain([&seen]).map(|seen| seen.nearest(present));
        let off = in_question().map(|offset| offset.saturating_sub(present).unsigned_abs()).max();
        let lowest = in_question().fold(present, i64::min);
        Verdict::Doubt { off: off.unwrap_or_default(), lowest }
    }

    /// The offset that most of the answers agree on, if they are enough and have come over some time.
    fn agreed(&self, present: i64) -> Option<i64> {
        let mut middles: Vec<i64> = self.against.iter().map(Sighting::middle).collect();
        middles.sort_unstable();
        let median = *middles.get(middles.len() / 2)?;
        let agreeing = || self.against.iter().filter(|seen| seen.is_off(median) <= AGREEMENT_MS);
        let (count, first, last) = (agreeing().count(), agreeing().next()?, agreeing().next_back()?);
        if count < AGREEING || count * 2 <= self.against.len() || last.at.since(first.at) < SPREAD {
            return None;
        }
        let at_least = agreeing().map(|seen| seen.at_least).max()?;
        let at_most = agreeing().map(|seen| seen.at_most).min()?;
        Some(if at_least <= at_most { present.clamp(at_least, at_most) } else { median })
    }
}
