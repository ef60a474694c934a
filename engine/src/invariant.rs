//! The invariants as pure functions over what an outside observer saw (DESIGN.md, "Invariants").
//!
//! Nothing here asks a machine anything: a history holds what the machine asked for and what its surroundings answered,
//! and the rules are told a second time, in the plainest way. All of them are safety properties, so a history that
//! passes has no prefix that fails. They hold for one lane per shard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::mapping::EventSourceMapping;
use crate::outcome::{ItemFailure, Outcome};
use crate::position::{Position, Seq};
use crate::request::RequestId;
use crate::shard::{Exit, LaneId};
use crate::time::Mono;

/// One thing that was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Mono,
    /// What.
    pub fact: Fact,
}

/// What can be seen of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A run begins at the stored checkpoint; whatever was under way before is forgotten (a start, or a crash).
    Begun(Position),
    /// The shard is opened for reading.
    Opened(Position),
    /// A page is asked for.
    Fetching,
    /// A page came.
    Read {
        /// The records that are to be handled.
        kept: Vec<Seq>,
        /// The records that a filter removed.
        filtered: Vec<Seq>,
    },
    /// The function is invoked.
    Invoked {
        /// On this lane.
        lane: LaneId,
        /// Under this id.
        request_id: RequestId,
        /// With these records.
        records: Vec<Seq>,
    },
    /// The invocation of a lane ended.
    Ended {
        /// The lane.
        lane: LaneId,
        /// How.
        outcome: Outcome,
    },
    /// A batch is handed to the destination.
    Discarding(Vec<Seq>),
    /// The destination took these records, or their loss was logged and counted.
    Discarded(Vec<Seq>),
    /// A checkpoint is being written.
    Storing(Position),
    /// A checkpoint is stored.
    Stored(Position),
    /// A checkpoint could not be stored.
    StoreFailed,
    /// Stop was asked for, with this deadline.
    Stopping(Mono),
    /// The lease is lost.
    LeaseLost,
    /// The run ended.
    Exited(Exit),
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its id in DESIGN.md.
    pub invariant: &'static str,
    /// The index of the fact that broke it.
    pub index: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken by fact {}: {}", self.invariant, self.index, self.what)
    }
}

/// What an observer knows beside the history.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The configuration.
    pub mapping: &'a EventSourceMapping,
    /// Every record that was put into the shard, in order.
    pub stream: &'a [Seq],
}

/// Sees one history as it happens and checks every invariant at each fact.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    books: Books,
    index: usize,
}

impl Observer {
    /// Takes in what was seen next.
    ///
    /// # Errors
    /// The first invariant that it breaks.
    pub fn observe(&mut self, setting: Setting<'_>, seen: &Seen) -> Result<(), Violation> {
        for (invariant, judge) in JUDGES {
            judge(setting, &self.books, seen).map_err(|what| self.violation(invariant, what))?;
        }
        self.enter(setting, seen);
        Ok(())
    }

    fn enter(&mut self, setting: Setting<'_>, seen: &Seen) {
        self.books.enter(setting.mapping, seen);
        self.index += 1;
    }

    const fn violation(&self, invariant: &'static str, what: String) -> Violation {
        Violation { invariant, index: self.index, what }
    }
}

/// Checks every invariant over a history.
///
/// # Errors
/// The first violation.
pub fn check(setting: Setting<'_>, history: &[Seen]) -> Result<(), Violation> {
    let mut observer = Observer::default();
    history.iter().try_for_each(|seen| observer.observe(setting, seen))
}

/// Checks the invariant with this id in DESIGN.md, and no other.
///
/// # Errors
/// The first violation.
pub fn check_one(id: &str, setting: Setting<'_>, history: &[Seen]) -> Result<(), Violation> {
    let mut observer = Observer::default();
    for seen in history {
        for (invariant, judge) in JUDGES.into_iter().filter(|(invariant, _)| *invariant == id) {
            judge(setting, &observer.books, seen).map_err(|what| observer.violation(invariant, what))?;
        }
        observer.enter(setting, seen);
    }
    Ok(())
}

/// Judges a fact by what was booked before it.
type Judge = fn(Setting<'_>, &Books, &Seen) -> Result<(), String>;

const JUDGES: [(&str, Judge); 8] =
    [("I1", i1), ("I2", i2), ("I3", i3), ("I4", i4), ("I6", i6), ("I7", i7), ("I14", i14), ("I16", i16)];

/// What follows from a history, told without the machine's data structures.
#[derive(Clone, Debug, Default)]
struct Books {
    /// Over all runs: succeeded, filtered or discarded.
    resolved: BTreeSet<Seq>,
    stored: Option<Position>,
    /// Where the first run began: what lies before is not ours.
    start: Option<Position>,
    run: RunBooks,
}

/// What is known of the current run.
#[derive(Clone, Debug, Default)]
struct RunBooks {
    began_at: Option<Position>,
    read: Vec<Seq>,
    in_flight: BTreeMap<LaneId, (RequestId, Vec<Seq>)>,
    last: BTreeMap<LaneId, (RequestId, Vec<Seq>, Outcome)>,
    /// Invocations that counted, by the batch's exact records.
    counted: BTreeMap<Vec<Seq>, u32>,
    ids: BTreeMap<Vec<Seq>, RequestId>,
    succeeded: BTreeSet<Seq>,
    discarded: BTreeSet<Seq>,
    /// In a batch whose last attempt failed.
    given_up: BTreeSet<Seq>,
    stopping: Option<Mono>,
    /// Invocations that ended at or after the deadline of a stop: cut or not.
    late: usize,
    store_failed: bool,
    lease_lost: bool,
    exited: bool,
}

impl Books {
    fn enter(&mut self, mapping: &EventSourceMapping, seen: &Seen) {
        let run = &mut self.run;
        match &seen.fact {
            Fact::Begun(at) => {
                self.stored = Some(at.clone());
                self.start.get_or_insert_with(|| at.clone());
                self.run = RunBooks { began_at: Some(at.clone()), ..RunBooks::default() };
            }
            Fact::Read { kept, filtered } => {
                run.read.extend(kept.iter().chain(filtered).cloned());
                run.read.sort();
                self.resolved.extend(filtered.iter().cloned());
                run.succeeded.extend(filtered.iter().cloned());
            }
            Fact::Invoked { lane, request_id, records } => {
                run.ids.insert(records.clone(), *request_id);
                run.in_flight.insert(*lane, (*request_id, records.clone()));
            }
            Fact::Ended { lane, outcome } => {
                if let Some((id, records)) = run.in_flight.remove(lane) {
                    run.late += usize::from(run.stopping.is_some_and(|deadline| seen.at >= deadline));
                    let done = leading_successes(mapping, &records, outcome);
                    self.resolved.extend(records.iter().take(done).cloned());
                    run.book_end(mapping, *lane, (id, records), outcome, done);
                }
            }
            Fact::Discarded(records) => {
                self.resolved.extend(records.iter().cloned());
                run.discarded.extend(records.iter().cloned());
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
}

impl RunBooks {
    fn book_end(
        &mut self,
        mapping: &EventSourceMapping,
        lane: LaneId,
        (id, records): (RequestId, Vec<Seq>),
        outcome: &Outcome,
        done: usize,
    ) {
        self.succeeded.extend(records.iter().take(done).cloned());
        if !matches!(outcome, Outcome::NotReached { .. }) {
            let counted = self.counted.entry(records.clone()).or_default();
            *counted += 1;
            let is_split = records.len() > 1
                && (mapping.bisect_batch_on_function_error || *outcome == Outcome::TooLarge);
            if done == 0 && !is_split && mapping.maximum_retry_attempts.is_some_and(|max| *counted > max) {
                self.given_up.extend(records.iter().cloned());
            }
        }
        self.last.insert(lane, (id, records, outcome.clone()));
    }

    fn is_resolved(&self, record: &Seq) -> bool {
        self.succeeded.contains(record) || self.discarded.contains(record)
    }

    fn is_over_with(&self, record: &Seq) -> bool {
        self.succeeded.contains(record) || self.given_up.contains(record)
    }
}

/// How many records at the front of a batch succeeded (R33 to R36).
fn leading_successes(mapping: &EventSourceMapping, records: &[Seq], outcome: &Outcome) -> usize {
    let Outcome::Answered(answer) = outcome else { return 0 };
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

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whether a checkpoint at `upto` covers `record`.
fn covers(upto: &Position, record: &Seq) -> bool {
    match upto {
        Position::After(seq) => record <= seq,
        Position::ShardEnd => true,
        Position::At(seq) => record < seq,
        Position::TrimHorizon | Position::Latest | Position::AtTimestamp(_) => false,
    }
}

/// I1: one invocation at a time; a batch is an unbroken run of the shard; nothing is invoked before all that came
/// before it has succeeded or is given up.
fn i1(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { lane, records, .. } = &seen.fact else { return Ok(()) };
    let run = &books.run;
    ensure(!run.in_flight.contains_key(lane), || format!("{lane:?} has an invocation in flight"))?;
    let Some(first) = records.first() else { return Err("an empty batch".into()) };
    let Some(at) = run.read.iter().position(|seq| seq == first) else {
        return Err(format!("{first} was not read"));
    };
    let end = at + records.len();
    ensure(run.read.get(at..end) == Some(records), || format!("{records:?} is not a run of the shard"))?;
    let early = run.read.iter().take(at).find(|seq| !run.is_over_with(seq));
    ensure(early.is_none(), || format!("{first} is invoked before {early:?} is over with"))
}

/// I2: the checkpoint moves forward, and never passes a record that was read and is not resolved.
fn i2(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let (Fact::Storing(upto) | Fact::Stored(upto)) = &seen.fact else { return Ok(()) };
    if let Some(stored) = &books.stored {
        ensure(stored.may_advance_to(upto), || format!("{stored} moves to {upto}"))?;
    }
    let open = books.run.read.iter().find(|seq| covers(upto, seq) && !books.run.is_resolved(seq));
    ensure(open.is_none(), || format!("{upto} passes {open:?}"))
}

/// I3: a stored checkpoint covers no record of the stream that was not resolved, read or not; a run begins where the
/// store says; nothing is resolved that was not invoked as often as it may be.
fn i3(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    match &seen.fact {
        Fact::Begun(at) => match &books.stored {
            Some(stored) => ensure(at == stored, || format!("begins at {at}, stored is {stored}")),
            None => Ok(()),
        },
        Fact::Stored(upto) => {
            let ours = |seq: &&Seq| !books.start.as_ref().is_some_and(|start| covers(start, seq));
            let lost = setting
                .stream
                .iter()
                .filter(ours)
                .find(|seq| covers(upto, seq) && !books.resolved.contains(*seq));
            ensure(lost.is_none(), || format!("{upto} loses {lost:?}"))
        }
        Fact::Discarding(records) => {
            let given_up = |seq: &&Seq| !books.run.given_up.contains(*seq);
            let early = records.iter().find(given_up);
            ensure(early.is_none(), || format!("{early:?} is discarded with attempts left"))
        }
        _ => Ok(()),
    }
}

/// I4: a batch is invoked at most 1 + `MaximumRetryAttempts` times, tries that did not reach the function aside; an
/// unchanged batch keeps its request id, and no other batch has it (R20, R21, R23).
fn i4(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { records, request_id, .. } = &seen.fact else { return Ok(()) };
    let spent = books.run.counted.get(records).copied().unwrap_or(0);
    let over = setting.mapping.maximum_retry_attempts.is_some_and(|maximum| spent > maximum);
    ensure(!over, || format!("{records:?} is invoked after {spent} attempts"))?;
    match books.run.ids.get(records) {
        Some(id) => ensure(id == request_id, || format!("{records:?} changes its request id")),
        None => {
            let taken = books.run.ids.values().any(|id| id == request_id);
            ensure(!taken, || format!("{records:?} has another batch's request id"))
        }
    }
}

/// I6: a batch of n records is split at most n-1 times, so that it and its parts are at most 2n-1 batches.
fn i6(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { records, .. } = &seen.fact else { return Ok(()) };
    let known = &books.run.ids;
    let within = |part: &[Seq], whole: &[Seq]| part.first() >= whole.first() && part.last() <= whole.last();
    let whole = known.keys().filter(|whole| within(records, whole)).max_by_key(|whole| whole.len());
    let Some(whole) = whole else { return Ok(()) };
    let parts = known.keys().filter(|part| within(part, whole)).count();
    let parts = parts + usize::from(!known.contains_key(records));
    ensure(parts < 2 * whole.len(), || format!("{} records became {parts} batches", whole.len()))
}

/// I7: what comes next is what the last answer left: nothing that succeeded, and first the lowest record that failed.
fn i7(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { lane, records, .. } = &seen.fact else { return Ok(()) };
    let again = records.iter().find(|seq| books.run.is_over_with(seq));
    ensure(again.is_none(), || format!("{again:?} is over with and comes again"))?;
    let Some((_, before, outcome)) = books.run.last.get(lane) else { return Ok(()) };
    let left = before.get(leading_successes(setting.mapping, before, outcome)..).unwrap_or_default();
    match left.first() {
        Some(lowest) if !books.run.given_up.contains(lowest) => {
            ensure(records.first() == Some(lowest), || format!("{lowest} failed, {records:?} follows"))
        }
        _ => Ok(()),
    }
}

/// I14: within a run every record of the stream is read once and in order; the shard is opened again after the last
/// record that was read, or at the run's start if none was.
fn i14(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    match &seen.fact {
        Fact::Opened(at) => {
            let expected = match books.run.read.last() {
                Some(last) => Some(Position::After(last.clone())),
                None => books.run.began_at.clone(),
            };
            ensure(expected.as_ref() == Some(at), || format!("opened at {at}, expected {expected:?}"))
        }
        Fact::Read { kept, filtered } => {
            let mut page: Vec<_> = kept.iter().chain(filtered).collect();
            page.sort();
            let read = books.run.read.last();
            let began = books.run.began_at.as_ref();
            let is_new = |seq: &&Seq| match read {
                Some(last) => *seq > last,
                None => !began.is_some_and(|began| covers(began, seq)),
            };
            // A start by time begins with whatever came first.
            let by_time = read.is_none() && matches!(began, Some(Position::AtTimestamp(_)));
            let first = page.first().copied();
            let due = setting.stream.iter().filter(is_new).skip_while(|seq| by_time && Some(*seq) != first);
            let gap = page.iter().zip(due).find(|(read, due)| **read != *due);
            ensure(gap.is_none(), || format!("read and due differ: {gap:?}"))
        }
        _ => Ok(()),
    }
}

/// I16: after a stop no open, fetch or invocation starts; the run ends when nothing is in flight or the deadline has
/// passed, with the checkpoint at the last resolved record unless the store failed. A lost lease and an exit start
/// nothing at all (I10).
fn i16(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let run = &books.run;
    match &seen.fact {
        Fact::Begun(_) => return Ok(()),
        Fact::Opened(_) | Fact::Fetching | Fact::Invoked { .. } => {
            ensure(run.stopping.is_none(), || "started after a stop".into())?;
        }
        Fact::Exited(Exit::Stopped { cut }) => {
            let deadline = run.stopping.ok_or("stopped unasked")?;
            let in_flight = run.in_flight.len();
            ensure((in_flight..=in_flight + run.late).contains(cut), || {
                format!("{in_flight} in flight, {cut} said to be cut")
            })?;
            ensure(*cut == 0 || seen.at >= deadline, || "cut before the deadline".into())?;
            let prefix = run.read.iter().take_while(|seq| run.is_resolved(seq)).last();
            let flushed = prefix.is_none_or(|last| books.stored.as_ref().is_some_and(|at| covers(at, last)));
            let excused = run.store_failed || seen.at >= deadline;
            ensure(flushed || excused, || format!("{prefix:?} is resolved and not stored"))?;
        }
        Fact::Exited(Exit::ShardEnd) => {
            ensure(books.stored == Some(Position::ShardEnd), || "the end is not stored".into())?;
        }
        _ => {}
    }
    let starts = matches!(
        seen.fact,
        Fact::Opened(_) | Fact::Fetching | Fact::Invoked { .. } | Fact::Discarding(_) | Fact::Storing(_)
    );
    ensure(!run.exited, || "something after the exit".into())?;
    ensure(!(starts && run.lease_lost), || "started without a lease".into())
}
