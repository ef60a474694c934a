//! The invariants as pure functions over what an outside observer saw (docs/invariants.md).
//!
//! Nothing here asks a machine anything: a history holds what the machine asked for and what its surroundings answered,
//! and the rules are stated a second time, in the plainest way. All of them are safety properties, so a history that
//! passes has no prefix that fails.

mod books;
mod judges;
mod windows;

use std::fmt;

use crate::failure::{Condition, FailedBatch};
use crate::mapping::EventSourceMapping;
use crate::outcome::Outcome;
use crate::position::{Position, Seq};
use crate::record::Record;
use crate::request::RequestId;
use crate::shard::{Exit, LaneId};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;
use books::Books;

/// One thing that was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Now,
    /// What.
    pub fact: Fact,
}

/// What can be seen of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A run begins at the stored checkpoint; everything that was in flight before is forgotten (a start, or a crash).
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
        /// Whether this was the shard's last page.
        ends: bool,
    },
    /// The function is invoked.
    Invoked {
        /// On this lane.
        lane: LaneId,
        /// Under this id.
        request_id: RequestId,
        /// With these records.
        records: Vec<Seq>,
        /// In this tumbling window.
        window: Option<WindowCall>,
    },
    /// The invocation of a lane ended.
    Ended {
        /// The lane.
        lane: LaneId,
        /// How.
        outcome: Outcome,
    },
    /// A batch is handed to the destination.
    Discarding(Given),
    /// The destination took a batch, or its loss was logged and counted.
    Discarded(Given),
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

/// A discarded batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Given {
    /// Its records; empty if it was a final call.
    pub records: Vec<Seq>,
    /// Why.
    pub condition: Condition,
    /// When.
    pub at: Wall,
    /// How often it was invoked, according to the message.
    pub count: u32,
    /// The start of the window whose final call it was.
    pub final_of: Option<Wall>,
}

impl From<&FailedBatch> for Given {
    fn from(failed: &FailedBatch) -> Self {
        Self {
            records: failed.batch.records().iter().map(|record| record.seq.clone()).collect(),
            condition: failed.condition,
            at: failed.at,
            count: failed.approximate_invoke_count,
            final_of: failed.window.as_ref().filter(|window| window.is_final).map(|window| window.start),
        }
    }
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its id in docs/invariants.md.
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

/// What an observer knows in addition to the history.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The configuration.
    pub mapping: &'a EventSourceMapping,
    /// Every record that was put into the shard, in order.
    pub stream: &'a [Record],
}

impl<'a> Setting<'a> {
    fn record(&self, seq: &Seq) -> Option<&'a Record> {
        let index = self.stream.binary_search_by(|record| record.seq.cmp(seq)).ok()?;
        self.stream.get(index)
    }

    /// Whether a record is older than it may be.
    fn is_expired(&self, seq: &Seq, now: Wall) -> bool {
        let arrival = self.record(seq).and_then(|record| record.arrival);
        arrival.zip(self.mapping.maximum_record_age).is_some_and(|(arrival, age)| {
            let millis = now.as_millis().saturating_sub(arrival.as_millis());
            millis > i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
        })
    }
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
        for (invariant, judge) in judges::ALL {
            judge(setting, &self.books, seen).map_err(|what| self.violation(invariant, what))?;
        }
        self.enter(setting, seen);
        Ok(())
    }

    fn enter(&mut self, setting: Setting<'_>, seen: &Seen) {
        self.books.enter(setting, seen);
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

/// Checks the invariant with this id in docs/invariants.md, and no other.
///
/// # Errors
/// The first violation.
pub fn check_one(id: &str, setting: Setting<'_>, history: &[Seen]) -> Result<(), Violation> {
    let mut observer = Observer::default();
    for seen in history {
        for (invariant, judge) in judges::ALL.into_iter().filter(|(invariant, _)| *invariant == id) {
            judge(setting, &observer.books, seen).map_err(|what| observer.violation(invariant, what))?;
        }
        observer.enter(setting, seen);
    }
    Ok(())
}
