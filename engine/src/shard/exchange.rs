//! What goes into a shard machine and what comes out of it, as data.

use std::time::Duration;

use super::discard::DiscardId;
use super::gap::Gap;
use super::lane::LaneId;
use crate::failure::FailedBatch;
use crate::fleet::Shard;
use crate::intake::Intake;
use crate::outcome::Outcome;
use crate::position::Position;
use crate::record::Batch;
use crate::request::RequestId;
use crate::time::{Mono, Wall};
use crate::window::WindowCall;

/// Where a shard's run resumes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    /// The stored checkpoint.
    pub checkpoint: Position,
    /// What was stored with it as [`earliest_window`](ShardAction::Checkpoint::earliest_window).
    pub earliest_window: Option<Wall>,
    /// What was stored with it as [`read_through`](ShardAction::Checkpoint::read_through).
    pub read_through: Option<Wall>,
    /// How long the stream keeps records, where a position that it no longer holds has to be found out that way; `None`
    /// if the service refuses such a position itself.
    pub retention: Option<Duration>,
}

impl From<Position> for Resume {
    fn from(checkpoint: Position) -> Self {
        Self { checkpoint, earliest_window: None, read_through: None, retention: None }
    }
}

/// What happened to a shard. Exhaustive, as [`ShardAction`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardEvent {
    /// The shard was opened.
    Opened,
    /// The shard could not be opened.
    OpenFailed(FetchFault),
    /// A page was read.
    Fetched(Intake),
    /// A page could not be read.
    FetchFailed(FetchFault),
    /// An invocation ended.
    Invoked {
        /// The lane of the invocation.
        lane: LaneId,
        /// How it ended.
        outcome: Outcome,
    },
    /// A lane that asked for it has a place.
    Granted {
        /// The lane.
        lane: LaneId,
    },
    /// The destination took a discard.
    Delivered(DiscardId),
    /// No destination is configured: the discard was logged.
    Dropped(DiscardId),
    /// The destination did not take a discard.
    DeliverFailed(DiscardId),
    /// The checkpoint is stored.
    Checkpointed,
    /// The checkpoint could not be stored; the lease is still held.
    CheckpointFailed,
    /// The lease is lost or its time has run out: nothing more is started (I10).
    LeaseLost,
    /// Stop: nothing new is started, what is in flight may end until `deadline` (I16).
    Stop {
        /// When everything still in flight is cut off.
        deadline: Mono,
    },
    /// Start nothing new until `Resume`.
    Pause,
    /// Continue after `Pause`.
    Resume,
}

/// Why a shard could not be opened or a page not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchFault {
    /// The iterator is too old: the shard is opened again at the last position (I14).
    IteratorExpired,
    /// Records after the position are trimmed (I17).
    Trimmed,
    /// The service does not know the shard. It is gone, and with it whatever was left to read (I17), once a listing without
    /// it began a minute or more after the first of these answers: until then it may be the stream that is missing.
    NotFound {
        /// When the last listing of the stream began, if it lacks the shard.
        unlisted: Option<Mono>,
    },
    /// Anything else: asked again after a backoff.
    Other,
}

/// What to do for a shard. Exhaustive on purpose: a driver that does not know an action must not compile, since the machine
/// waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardAction {
    /// Open the shard for reading.
    Open {
        /// Where.
        at: Position,
    },
    /// Read the next page.
    Fetch {
        /// At most this many records.
        limit: usize,
    },
    /// Ask for a place for the lane's next invocation: only where places are given out, see [`PlaceRule`](super::PlaceRule).
    Reserve {
        /// Names the lane in the answer.
        lane: LaneId,
    },
    /// Give back the place that the lane was granted: nothing is left that it could invoke. Needs no answer.
    Release {
        /// The lane.
        lane: LaneId,
    },
    /// Invoke the function. Uses up the place that the lane was granted, if it asked for one.
    Invoke(Invocation),
    /// Hand a discarded batch to the destination.
    Discard {
        /// Names the discard in the answer.
        id: DiscardId,
        /// The batch and why it is discarded.
        failed: FailedBatch,
    },
    /// Store the checkpoint.
    Checkpoint {
        /// How far.
        upto: Position,
        /// With [`Position::ShardEnd`], the shards that follow, as far as the service named them: their leases are
        /// created before the end is stored.
        children: Vec<Shard>,
        /// To be stored with it: tumbling windows that end before it are closed (I8).
        earliest_window: Option<Wall>,
        /// To be stored with it: everything that arrived in the shard before this time is resolved. `None` if the
        /// run does not know the stream's retention.
        read_through: Option<Wall>,
    },
    /// List the stream soon: the service has not known the shard for a minute. No event answers this action.
    ListStream,
    /// Records were lost unread: tell people (I17). Needs no answer. Where the mapping is to stop, nothing more is read.
    ReportGap(Gap),
    /// The run is over.
    Exit(Exit),
}

/// An invocation to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Names the lane in the answer.
    pub lane: LaneId,
    /// The records.
    pub batch: Batch,
    /// Stays the same while an unchanged batch is retried (R21).
    pub request_id: RequestId,
    /// 1 for the first invocation that counts.
    pub attempt: u32,
    /// When the invocation is over as a function error.
    pub deadline: Mono,
    /// The tumbling window of the records, if the mapping has windows.
    pub window: Option<WindowCall>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Every record is resolved and the end of the shard is stored.
    ShardEnd,
    /// Stopped as asked.
    Stopped {
        /// Invocations that the deadline cut off: their records are redelivered.
        cut: usize,
    },
    /// The lease was lost.
    LeaseLost,
}
