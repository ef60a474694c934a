//! What a running consumer shows of itself.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardmill_checkpoint::UnreadableLease;
use shardmill_engine::{Counters, HashRange, Mono, Now, ShardId, ShardSnapshot, Wall};

use crate::error_report::ErrorReport;
use crate::keeper::{Board, FleetReport, LeaseReport};
use crate::trouble::{Facts, Holder, LaneTrouble, TroubleKind, TroubleReport, Troubles};

/// A running consumer, as it is now. Cheap to clone; stays readable after the run.
#[derive(Clone, Debug, Default)]
pub struct ConsumerStatus {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    shards: Vec<Arc<ShardCell>>,
    source_answered: bool,
    store_answered: bool,
    last_error: Option<ErrorReport>,
    stream_gaps: u64,
    last_stream_gap: Option<ErrorReport>,
    uncovered_hash_keys: Vec<HashRange>,
    known_shards: usize,
    board: Option<Arc<Board>>,
    ticked: Mono,
    state: RunState,
    troubles: Option<Arc<Troubles>>,
}

/// Where a consumer is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunState {
    /// Not running yet.
    #[default]
    Creating,
    /// Running.
    Enabled,
    /// Stopping.
    Disabling,
    /// Stopped.
    Disabled,
}

/// A consumer at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerReport {
    /// Where it is in its life.
    pub state: RunState,
    /// Whether the stream has answered at least once.
    pub source_answered: bool,
    /// Whether the checkpoint store has answered at least once.
    pub store_answered: bool,
    /// Shards of the stream that have a lease, regardless of its owner.
    pub known_shards: usize,
    /// Every lease of the application as it was last listed, regardless of its owner.
    pub leases: Vec<LeaseReport>,
    /// The workers of the application, this one first once its first heartbeat is durable; dead ones included until their
    /// records are deleted. The others are missing if the store keeps no records of workers.
    pub workers: Vec<FleetReport>,
    /// Shards that nobody reads because every worker has as many leases as it may have.
    pub unplaced_shards: usize,
    /// The shards that this worker reads.
    pub shards: Vec<ShardReport>,
    /// What fails outside of a shard: the stream, or else the checkpoint store.
    pub last_error: Option<ErrorReport>,
    /// What the checkpoint store fails with, and since when; `None` once reads and writes have succeeded for some
    /// seconds.
    pub store_error: Option<ErrorReport>,
    /// Leases that the store cannot read: their shards are not read until the rows are corrected.
    pub unreadable_leases: Vec<UnreadableLease>,
    /// Streams that were replaced by new ones with something left unread (I17); gaps of single shards are in their
    /// snapshots.
    pub stream_gaps: u64,
    /// What the last of them is about.
    pub last_stream_gap: Option<ErrorReport>,
    /// Hash keys that no shard of the last listing covers, inclusive ranges; Kinesis only. Readers are not held up.
    pub uncovered_hash_keys: Vec<HashRange>,
    /// Trouble that lasts, one entry for each kind.
    pub troubles: Vec<TroubleReport>,
    /// When the run loop last completed an iteration (monotonic clock, [`Mono`]).
    pub ticked: Mono,
    /// When the lease keeper last completed an iteration.
    pub keeper_ticked: Mono,
}

/// One shard at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardReport {
    /// The shard.
    pub shard: ShardId,
    /// What its machine shows; `None` before its first iteration.
    pub snapshot: Option<ShardSnapshot>,
    /// The last error.
    pub last_error: Option<ErrorReport>,
    /// Its lanes whose last invocation failed and whose batch waits to be retried.
    pub troubles: Vec<LaneTrouble>,
    /// How long the oldest record has waited that is not resolved, in milliseconds, those included that could not be
    /// read; `None` before the first iteration.
    pub oldest_waiting_millis: Option<u64>,
    /// When its driver last completed an iteration.
    pub ticked: Mono,
}

/// One shard's place in the status.
#[derive(Debug)]
pub(crate) struct ShardCell {
    shard: ShardId,
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
struct CellState {
    snapshot: Option<ShardSnapshot>,
    last_error: Option<ErrorReport>,
    now: Now,
    /// Invocations that ended with the stop before its deadline.
    cut: usize,
    troubles: Vec<LaneTrouble>,
    oldest_waiting_millis: Option<u64>,
}

impl ShardCell {
    pub(crate) fn new(shard: ShardId) -> Arc<Self> {
        Arc::new(Self { shard, state: Mutex::default() })
    }

    pub(crate) fn publish(
        &self,
        now: Now,
        snapshot: ShardSnapshot,
        troubles: Vec<LaneTrouble>,
        oldest: Duration,
    ) {
        let mut state = self.state.lock();
        state.troubles = troubles;
        state.oldest_waiting_millis = Some(u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX));
        state.now = now;
        state.snapshot = Some(snapshot);
    }

    pub(crate) fn failed(&self, what: &str, error: &dyn Display) {
        let mut state = self.state.lock();
        let at = state.snapshot.is_some().then_some(state.now.wall);
        state.last_error = Some(ErrorReport { what: what.to_owned(), message: error.to_string(), at });
    }

    /// Batches that were given up and have not reached the destination.
    pub(crate) fn undelivered_discards(&self) -> usize {
        self.state.lock().snapshot.as_ref().map_or(0, |snapshot| snapshot.undelivered_discards)
    }

    /// Lanes whose batch failed and is retried.
    pub(crate) fn retrying(&self) -> usize {
        self.state.lock().troubles.len()
    }

    pub(crate) fn oldest_waiting_millis(&self) -> Option<u64> {
        self.state.lock().oldest_waiting_millis
    }

    pub(crate) fn counters(&self) -> Counters {
        self.state.lock().snapshot.as_ref().map(|snapshot| snapshot.counters).unwrap_or_default()
    }

    /// Invocations that a stop has cut off; known even if the shard's last checkpoint or release never ends.
    pub(crate) fn cut_invocations(&self) -> usize {
        let state = self.state.lock();
        state.cut + state.snapshot.as_ref().map_or(0, |snapshot| snapshot.cut_invocations)
    }

    /// Counts an invocation that the stop ended before its deadline.
    pub(crate) fn cut(&self) {
        self.state.lock().cut += 1;
    }

    pub(crate) fn children_told(&self) -> bool {
        self.state.lock().snapshot.as_ref().is_some_and(|snapshot| snapshot.children_told)
    }

    pub(crate) fn millis_behind(&self) -> Option<u64> {
        self.state.lock().snapshot.as_ref()?.millis_behind
    }

    fn report(&self) -> ShardReport {
        let state = self.state.lock();
        ShardReport {
            shard: self.shard.clone(),
            snapshot: state.snapshot.clone(),
            last_error: state.last_error.clone(),
            troubles: state.troubles.clone(),
            oldest_waiting_millis: state.oldest_waiting_millis,
            ticked: state.now.mono,
        }
    }
}

impl ConsumerStatus {
    /// The consumer at this moment.
    #[must_use]
    pub fn report(&self) -> ConsumerReport {
        let inner = self.inner.lock();
        let store_error = inner.board.as_ref().and_then(|board| board.trouble());
        ConsumerReport {
            state: inner.state,
            source_answered: inner.source_answered,
            store_answered: inner.store_answered,
            known_shards: inner.known_shards,
            leases: inner.board.as_ref().map(|board| board.listed()).unwrap_or_default(),
            workers: inner.board.as_ref().map(|board| board.fleet()).unwrap_or_default(),
            unplaced_shards: inner.board.as_ref().map(|board| board.unplaced()).unwrap_or_default(),
            shards: inner.shards.iter().map(|cell| cell.report()).collect(),
            last_error: inner.last_error.clone().or_else(|| store_error.clone()),
            store_error,
            unreadable_leases: inner.board.as_ref().map(|board| board.unreadable()).unwrap_or_default(),
            stream_gaps: inner.stream_gaps,
            last_stream_gap: inner.last_stream_gap.clone(),
            uncovered_hash_keys: inner.uncovered_hash_keys.clone(),
            troubles: inner.troubles.as_ref().map(|troubles| troubles.report()).unwrap_or_default(),
            ticked: inner.ticked,
            keeper_ticked: inner.board.as_ref().map(|board| board.ticked()).unwrap_or_default(),
        }
    }

    /// For a program that probes the function before records arrive: why it is not there, or `None` if it is.
    /// Both are logged as for an invocation, and shown in [`ConsumerReport::troubles`].
    pub fn function_probed(&self, problem: Option<&str>) {
        let Some(troubles) = self.inner.lock().troubles.clone() else { return };
        match problem {
            Some(error) => {
                let facts = Facts { error: error.to_owned(), ..Facts::default() };
                troubles.fails(TroubleKind::NotReached, &Holder::Probe, &facts);
            }
            None => troubles.clears(TroubleKind::NotReached, &Holder::Probe),
        }
    }

    pub(crate) fn attach(&self, troubles: Arc<Troubles>) {
        self.inner.lock().troubles = Some(troubles);
    }

    pub(crate) fn set_state(&self, state: RunState) {
        self.inner.lock().state = state;
    }

    /// Notes that the run completed an iteration now.
    pub(crate) fn tick(&self, now: Mono) {
        self.inner.lock().ticked = now;
    }

    pub(crate) fn watch(&self, board: Arc<Board>) {
        self.inner.lock().board = Some(board);
    }

    pub(crate) fn source_answered(&self) {
        self.inner.lock().source_answered = true;
    }

    pub(crate) fn store_answered(&self, known_shards: usize) {
        let mut inner = self.inner.lock();
        inner.store_answered = true;
        inner.known_shards = known_shards;
    }

    pub(crate) fn failed(&self, what: &str, error: &dyn Display, at: Wall) {
        self.inner.lock().last_error =
            Some(ErrorReport { what: what.to_owned(), message: error.to_string(), at: Some(at) });
    }

    /// Notes what the last listing does not cover; returns whether that is a change.
    pub(crate) fn uncovered(&self, holes: &[HashRange]) -> bool {
        let mut inner = self.inner.lock();
        let is_news = inner.uncovered_hash_keys != holes;
        inner.uncovered_hash_keys = holes.to_vec();
        is_news
    }

    pub(crate) fn gap(&self, gap: &str, at: Wall) {
        let mut inner = self.inner.lock();
        inner.stream_gaps += 1;
        inner.last_stream_gap =
            Some(ErrorReport { what: "gap".to_owned(), message: gap.to_owned(), at: Some(at) });
    }

    pub(crate) fn recovered(&self) {
        self.inner.lock().last_error = None;
    }

    pub(crate) fn add(&self, cell: Arc<ShardCell>) {
        self.inner.lock().shards.push(cell);
    }

    pub(crate) fn remove(&self, cell: &Arc<ShardCell>) {
        self.inner.lock().shards.retain(|other| !Arc::ptr_eq(other, cell));
    }
}
