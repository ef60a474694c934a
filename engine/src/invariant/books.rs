//! What follows from a history, derived without the machine's data structures.

use std::collections::{BTreeMap, BTreeSet};

use super::windows::Windows;
use super::{Fact, Given, Seen, Setting};
use crate::mapping::EventSourceMapping;
use crate::outcome::{ItemFailure, Outcome};
use crate::position::{Position, Seq};
use crate::request::RequestId;
use crate::shard::LaneId;
use crate::time::{Mono, Wall};

#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    /// Resolved in runs before this one.
    resolved: BTreeSet<Seq>,
    pub(super) stored: Option<Position>,
    /// Where the first run began: what lies before is not ours.
    pub(super) start: Option<Position>,
    /// Where a window may open at the earliest, by what runs before this one have closed: the machine knows as much of
    /// it as was stored with the checkpoint.
    pub(super) closed: BTreeSet<i64>,
    /// The window that each record was last invoked in, in whichever run.
    pub(super) in_window: BTreeMap<Seq, Wall>,
    pub(super) run: RunBooks,
}

/// Which batch an invocation is about: its lane and records; for a final call also the number of its window.
pub(super) type BatchKey = (LaneId, Vec<Seq>, Option<usize>);

/// What is known of the current run.
#[derive(Clone, Debug, Default)]
pub(super) struct RunBooks {
    pub(super) began_at: Option<Position>,
    /// In order, filtered ones included.
    pub(super) read: Vec<Seq>,
    pub(super) kept: Vec<Seq>,
    pub(super) ended: bool,
    pub(super) in_flight: BTreeMap<LaneId, (RequestId, Vec<Seq>)>,
    pub(super) last: BTreeMap<LaneId, (Vec<Seq>, Outcome)>,
    /// The lane of each key that was invoked.
    pub(super) lanes: BTreeMap<Vec<u8>, LaneId>,
    /// Invocations that counted.
    pub(super) counted: BTreeMap<BatchKey, u32>,
    pub(super) ids: BTreeMap<BatchKey, RequestId>,
    /// Succeeded or filtered.
    pub(super) succeeded: BTreeSet<Seq>,
    pub(super) discarded: BTreeSet<Seq>,
    /// In a batch whose last attempt failed.
    pub(super) given_up: BTreeSet<Seq>,
    pub(super) windows: Windows,
    pub(super) stopping: Option<Mono>,
    /// Invocations that ended at or after the deadline of a stop: cut or not.
    pub(super) late: usize,
    pub(super) store_failed: bool,
    pub(super) lease_lost: bool,
    pub(super) exited: bool,
}

impl Books {
    pub(super) fn enter(&mut self, setting: Setting<'_>, seen: &Seen) {
        let run = &mut self.run;
        match &seen.fact {
            Fact::Begun(at) => {
                self.resolved.extend(run.read.iter().filter(|seq| run.is_resolved(seq)).cloned());
                self.closed.extend(run.windows.closed(setting.mapping.tumbling_window));
                self.stored = Some(at.clone());
                self.start.get_or_insert_with(|| at.clone());
                self.run = RunBooks { began_at: Some(at.clone()), ..RunBooks::default() };
            }
            Fact::Read { kept, filtered, ends } => {
                run.kept.extend(kept.iter().cloned());
                run.read.extend(kept.iter().chain(filtered).cloned());
                run.read.sort();
                run.succeeded.extend(filtered.iter().cloned());
                run.ended |= ends;
            }
            Fact::Invoked { lane, request_id, records, window } => {
                run.windows.invoked(records, window.as_ref());
                let of_window = |seq: &Seq| Some((seq.clone(), window.as_ref()?.start));
                self.in_window.extend(records.iter().filter_map(of_window));
                run.ids.insert(run.key(*lane, records), *request_id);
                run.in_flight.insert(*lane, (*request_id, records.clone()));
                for key in records.iter().filter_map(|seq| setting.record(seq)?.order_key()) {
                    run.lanes.insert(key.to_vec(), *lane);
                }
            }
            Fact::Ended { lane, outcome } => {
                if let Some((_, records)) = run.in_flight.remove(lane) {
                    run.late += usize::from(run.stopping.is_some_and(|deadline| seen.at.mono >= deadline));
                    run.book_end(setting.mapping, *lane, records, outcome);
                }
            }
            Fact::Discarded(Given { records, final_of, .. }) => {
                run.discarded.extend(records.iter().cloned());
                if final_of.is_some() {
                    run.windows.final_discarded();
                }
            }
            Fact::Stored(upto) => self.stored = Some(upto.clone()),
            Fact::StoreFailed => run.store_failed = true,
            Fact::Stopping(deadline) => {
                run.stopping.get_or_insert(*deadline);
                run.store_failed = false;
            }
            Fact::LeaseLost => run.lease_lost = true,
            Fact::Exited(_) => run.exited = true,
            Fact::Opened(_) | Fact::Fetching | Fact::Discarding(_) | Fact::Storing(_) => {}
        }
    }

    /// Resolved in any run.
    pub(super) fn is_resolved(&self, record: &Seq) -> bool {
        self.resolved.contains(record) || self.run.is_resolved(record)
    }
}

impl RunBooks {
    pub(super) fn key(&self, lane: LaneId, records: &[Seq]) -> BatchKey {
        (lane, records.to_vec(), records.is_empty().then(|| self.windows.count()))
    }

    fn book_end(&mut self, mapping: &EventSourceMapping, lane: LaneId, records: Vec<Seq>, outcome: &Outcome) {
        let done = leading_successes(mapping, &records, outcome);
        self.succeeded.extend(records.iter().take(done).cloned());
        let has_failed = fails(mapping, &records, outcome);
        let mut is_given_up = false;
        if !matches!(outcome, Outcome::NotReached { .. }) {
            let key = self.key(lane, &records);
            let counted = self.counted.entry(key).or_default();
            *counted += 1;
            let is_split = records.len() > 1
                && (mapping.bisect_batch_on_function_error || *outcome == Outcome::TooLarge);
            is_given_up =
                has_failed && !is_split && mapping.maximum_retry_attempts.is_some_and(|max| *counted > max);
            if is_given_up {
                self.given_up.extend(records.iter().cloned());
            }
        }
        if records.is_empty() {
            self.windows.final_ended(!has_failed, is_given_up);
        } else {
            if done > 0 {
                self.windows.adopt(outcome);
            }
            self.last.insert(lane, (records, outcome.clone()));
        }
    }

    /// Succeeded, filtered or discarded, and in no window that is open or would be redelivered in part.
    pub(super) fn is_resolved(&self, record: &Seq) -> bool {
        self.is_off_hands(record)
            && self.windows.of(record).is_none_or(|(is_closed, records)| {
                let mut over_with = records.filter(|seq| self.is_over_with(seq));
                let first = over_with.next();
                let last = over_with.next_back().or(first);
                let is_within = |seq: &&Seq| first <= Some(*seq) && Some(*seq) <= last;
                is_closed && self.kept.iter().filter(is_within).all(|seq| self.is_off_hands(seq))
            })
    }

    pub(super) fn is_off_hands(&self, record: &Seq) -> bool {
        self.succeeded.contains(record) || self.discarded.contains(record)
    }

    pub(super) fn is_over_with(&self, record: &Seq) -> bool {
        self.succeeded.contains(record) || self.given_up.contains(record)
    }
}

/// Whether nothing of an invocation succeeded.
fn fails(mapping: &EventSourceMapping, records: &[Seq], outcome: &Outcome) -> bool {
    if !records.is_empty() {
        return leading_successes(mapping, records, outcome) == 0;
    }
    let Outcome::Answered(answer) = outcome else { return true };
    answer.state().is_none() || (mapping.report_batch_item_failures && !answer.failures().is_empty())
}

/// How many records at the front of a batch succeeded (R33 to R36, R66).
pub(super) fn leading_successes(mapping: &EventSourceMapping, records: &[Seq], outcome: &Outcome) -> usize {
    let Outcome::Answered(answer) = outcome else { return 0 };
    if mapping.tumbling_window.is_some() && answer.state().is_none() {
        return 0;
    }
    if !mapping.report_batch_item_failures {
        return records.len();
    }
    let mut lowest = records.len();
    for failure in answer.failures() {
        let ItemFailure::Identifier(id) = failure else { return 0 };
        let plain = |text: &str| text.trim_start_matches('0').to_owned();
        match records.iter().position(|record| plain(record.number.as_str()) == plain(id)) {
            Some(at) => lowest = lowest.min(at),
            None => return 0,
        }
    }
    lowest
}
