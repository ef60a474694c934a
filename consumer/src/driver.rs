//! Where logic meets IO: carries out a shard machine's actions and hands it what became of them. An `if` about
//! semantics belongs in the engine.

mod discarded;
mod ended;
mod places;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use shardmill_checkpoint::{AppState, Lease, NewLease};
use shardmill_engine::{
    BatchResponse, DiscardId, EventContext, EventSourceMapping, Exit, FetchFault, Gap, GapKind, Invocation,
    LaneId, Mono, Now, OnGap, OnUndecodable, Oversized, Page, Position, Record, Resume, Shard, ShardAction,
    ShardEvent, ShardId, ShardMachine, Wall, intake,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::budget::{Room, Share};
use crate::clock::ServiceClock;
use crate::destination::{Destination, DestinationError, FailureNames};
use crate::discovery::{Listed, PINNED_START};
use crate::handler::{DynHandler, HandlerError, InvokeContext, MayStart};
use crate::keeper::{Held, KeeperError, Leases};
use crate::metrics::{self, ShardMetrics};
use crate::pin::Pin;
use crate::places::{Place, Places};
use crate::source::{ShardReader, SourceError, SourceErrorKind, StreamSource};
use crate::status::ShardCell;
use crate::trouble::{ShardTrouble, Troubles};

/// The longest sleep, so that a shard that hangs can be told from one with nothing to do.
const TICK: Duration = Duration::from_secs(5);

/// Under this name a lease remembers which tumbling windows are closed (I8).
const EARLIEST_WINDOW: &str = "earliestWindow";
/// Under this name a lease remembers the time up to which everything that arrived in the shard is resolved (I17).
const READ_THROUGH: &str = "readThrough";

/// How long the service must say that a shard does not exist before a listing without it is believed.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// What the shards of one mapping share.
pub(crate) struct MappingContext {
    pub(crate) mapping: Arc<EventSourceMapping>,
    /// The `mapping` label of metrics.
    pub(crate) name: Arc<str>,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) places: Places,
    pub(crate) destination: Option<Arc<dyn Destination>>,
    pub(crate) names: Arc<FailureNames>,
    pub(crate) function_arn: Arc<str>,
    pub(crate) clock: ServiceClock,
    pub(crate) leases: Leases,
    pub(crate) listed: Listed,
    /// Where LATEST begins.
    pub(crate) pin: Pin,
    /// A shard's gap after which the mapping is to stop.
    pub(crate) stopping_gap: watch::Sender<Option<(ShardId, Gap)>>,
    /// Asks for a listing before its time.
    pub(crate) list_now: Notify,
    /// What is told of failures, over all shards.
    pub(crate) troubles: Arc<Troubles>,
}

/// Runs one shard.
pub(crate) struct Driver {
    machine: ShardMachine,
    cx: Arc<MappingContext>,
    event: Arc<EventContext>,
    held: Held,
    /// What the leases of children have from this one: where the mapping began.
    inherits: AppState,
    reader: Option<Box<dyn ShardReader>>,
    /// Since when the service says that the shard does not exist.
    missing_since: Option<Instant>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Places that are not used yet.
    granted: Vec<(LaneId, Place)>,
    may_start: MayStart,
    share: Share,
    /// The room of the page that came last, until what it holds is accounted for.
    settled: Option<Room>,
    cancelled: CancellationToken,
    metrics: ShardMetrics,
    status: Arc<ShardCell>,
    trouble: ShardTrouble,
    /// What was warned of last.
    oversized: Option<Oversized>,
}

/// An action that ended.
enum Done {
    Opened(Result<Box<dyn ShardReader>, SourceError>),
    /// The room is free again once what the page holds is accounted for.
    Fetched(Box<dyn ShardReader>, Result<Page, SourceError>, Room),
    Granted(LaneId, Place),
    /// An invocation was dropped because nobody waits for it any more.
    Cut,
    Invoked {
        lane: LaneId,
        result: Result<BatchResponse, HandlerError>,
        took: Duration,
    },
    Delivered {
        id: DiscardId,
        result: Result<(), DestinationError>,
    },
    Dropped(DiscardId),
    Checkpointed(Result<(), KeeperError>),
}

impl Driver {
    pub(crate) fn new(
        machine: ShardMachine,
        cx: Arc<MappingContext>,
        event: EventContext,
        held: Held,
        inherits: AppState,
        share: Share,
        status: Arc<ShardCell>,
    ) -> Self {
        let metrics = ShardMetrics::new(&cx.name, &event.shard);
        let trouble = ShardTrouble::new(event.shard.clone(), Arc::clone(&cx.troubles));
        let (clock, is_valid) = (cx.clock.clone(), held.validity());
        Self {
            may_start: MayStart::new(move || is_valid(clock.now().mono)),
            granted: Vec::new(),
            machine,
            cx,
            event: Arc::new(event),
            held,
            inherits,
            reader: None,
            missing_since: None,
            running: FuturesUnordered::new(),
            share,
            settled: None,
            cancelled: CancellationToken::new(),
            metrics,
            status,
            trouble,
            oversized: None,
        }
    }

    /// Runs until the machine exits; `stop` carries the deadline once the mapping is to stop.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<Option<Mono>>) -> Exit {
        let lost = self.held.lost();
        let mut away = self.cx.places.watch_away();
        let exit = loop {
            self.refresh();
            let now = self.now();
            if let Some(exit) = self.act(now) {
                break exit;
            }
            if stop.borrow().is_some_and(|deadline| now.mono >= deadline) {
                // The machine has counted what is cut off here, even if the last checkpoint still takes its time.
                self.cancelled.cancel();
            }
            self.publish(now);
            let wake = self.machine.poll_timeout(now).map_or(TICK, |at| at.since(now.mono).min(TICK));
            let deadline = *stop.borrow_and_update();
            let event = tokio::select! {
                biased;
                () = lost.cancelled() => Some(ShardEvent::LeaseLost),
                Some(done) = self.running.next() => self.done(done),
                Ok(()) = stop.changed(), if deadline.is_none() => None,
                Ok(()) = away.changed() => None,
                () = tokio::time::sleep(wake) => None,
            };
            self.refresh();
            let now = self.now();
            if let Some(event) = event {
                self.handle(now, event);
            }
            if let Some(deadline) = *stop.borrow() {
                self.machine.handle_event(now, ShardEvent::Stop { deadline });
            }
            tokio::task::consume_budget().await;
        };
        self.publish(self.cx.clock.now());
        self.cancelled.cancel();
        // What is in flight is dropped before the lease is given up.
        self.running.clear();
        self.leave_places();
        if exit != Exit::LeaseLost {
            self.held.release().await;
        }
        exit
    }

    /// The service's time, and whether the machine may believe it: the doubt first, which ends once the time is settled.
    fn now(&mut self) -> Now {
        self.machine.set_clock_doubt(self.cx.clock.doubt());
        self.cx.clock.now()
    }

    /// Starts whatever the machine wants now.
    fn act(&mut self, now: Now) -> Option<Exit> {
        while let Some(action) = self.machine.poll_action(now) {
            // Read again for each start: whoever was stopped for a while must not go on (I10).
            if !self.held.is_valid(self.cx.clock.now().mono) && !matches!(action, ShardAction::Exit(_)) {
                self.machine.handle_event(now, ShardEvent::LeaseLost);
                continue;
            }
            let work = match action {
                ShardAction::Open { at } => self.open(at),
                ShardAction::Fetch { limit } => self.fetch(limit),
                ShardAction::Reserve { lane } => self.reserve(lane),
                ShardAction::Release { lane } => {
                    self.give_back(lane);
                    continue;
                }
                ShardAction::Invoke(invocation) => {
                    let place = self.take_place(invocation.lane);
                    self.invoke(invocation, place, now)
                }
                ShardAction::Discard { id, failed } => {
                    self.trouble.given_up(failed.request_id);
                    self.discard(id, failed)
                }
                ShardAction::ReportGap(gap) => {
                    self.report_gap(gap);
                    continue;
                }
                ShardAction::Checkpoint { upto, children, earliest_window, read_through } => {
                    self.checkpoint(upto, children, (earliest_window, read_through))
                }
                ShardAction::Exit(exit) => return Some(exit),
            };
            self.running.push(work);
        }
        None
    }

    fn open(&self, at: Position) -> BoxFuture<'static, Done> {
        let (cx, shard) = (Arc::clone(&self.cx), self.event.shard.clone());
        async move { Done::Opened(cx.source.open(&shard, &at).await) }.boxed()
    }

    fn fetch(&mut self, limit: usize) -> BoxFuture<'static, Done> {
        let room = self.share.room(limit, self.machine.record_bytes());
        let reader = self.reader.take();
        async move {
            let Some(mut reader) = reader else { unreachable!("the machine fetches from an open shard") };
            let room = room.await;
            let result = reader.next_page(room.records).await;
            Done::Fetched(reader, result, room)
        }
        .boxed()
    }

    fn invoke(&self, invocation: Invocation, place: Option<Place>, now: Now) -> BoxFuture<'static, Done> {
        let Invocation { lane, batch, request_id, attempt, deadline, window } = invocation;
        let started = Instant::now();
        let deadline = started + deadline.since(now.mono);
        let cx = InvokeContext {
            request_id,
            attempt,
            deadline,
            shard: self.event.shard.clone(),
            fencing_token: self.held.fencing_token(),
            cancelled: self.cancelled.child_token(),
            function_arn: Arc::clone(&self.cx.function_arn),
            window,
            event: Arc::clone(&self.event),
            may_start: self.may_start.clone(),
        };
        let span = tracing::debug_span!("invocation", %request_id, attempt, records = batch.len());
        let handler = Arc::clone(&self.cx.handler);
        let (cancelled, places) = (self.cancelled.clone(), self.cx.places.clone());
        async move {
            // Given back when the invocation has ended, however it does.
            let _place = place;
            let call = async {
                match cx.may_start() {
                    true => handler.call(batch, cx).await,
                    false => Err(HandlerError::not_started()),
                }
            };
            let call = AssertUnwindSafe(call).catch_unwind();
            let ended = tokio::select! {
                biased;
                () = cancelled.cancelled() => return Done::Cut,
                ended = tokio::time::timeout_at(deadline, call) => ended,
            };
            let result = match ended {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(HandlerError::function_with_details(
                    "the handler panicked",
                    panic_text("handler", &*panic),
                )),
                Err(_) => Err(HandlerError::function("no answer within the function's timeout")),
            };
            if let Some(change) = places.note(started, &result) {
                tracing::debug!(?change, "whether anybody reaches the function");
            }
            Done::Invoked { lane, result, took: started.elapsed() }
        }
        .instrument(span)
        .boxed()
    }

    fn checkpoint(
        &self,
        upto: Position,
        children: Vec<Shard>,
        (earliest_window, read_through): (Option<Wall>, Option<Wall>),
    ) -> BoxFuture<'static, Done> {
        let permit = self.held.permit();
        let (leases, key) = (self.cx.leases.clone(), self.held.key().clone());
        let position = child_start(self.cx.mapping.starting_position());
        let noted = |name: &str, at: Option<Wall>| at.map(|at| (name.to_owned(), at.as_millis().to_string()));
        let window = noted(EARLIEST_WINDOW, earliest_window);
        // What arrives in a child arrives after everything in its parents.
        let read_through = noted(READ_THROUGH, read_through);
        // Children outlive their parents' leases, and with them the pinned start (I15).
        let inherited = AppState::from_iter(self.inherits.clone().into_iter().chain(read_through.clone()));
        async move {
            if !children.is_empty() {
                // The children's leases exist before the end is stored, so a crash in between forgets none (I9).
                let names = children.iter().map(|child| child.id.clone()).collect();
                let new = children.into_iter().map(|child| NewLease {
                    key: key.sibling(child.id),
                    checkpoint: position.clone(),
                    parents: child.parents,
                    hash_range: child.hash_range,
                    app: inherited.clone(),
                });
                let created = leases.create(new.collect()).await;
                let noted = match created {
                    Ok(_) => leases.set_children(key, names).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = noted {
                    return Done::Checkpointed(Err(error));
                }
            }
            Done::Checkpointed(
                permit.write(upto, AppState::from_iter(window.into_iter().chain(read_through))).await,
            )
        }
        .boxed()
    }

    /// What to tell the machine about an action that ended.
    fn done(&mut self, done: Done) -> Option<ShardEvent> {
        Some(match done {
            Done::Opened(Ok(mut reader)) => {
                reader.skip_undecodable(self.cx.mapping.on_undecodable() == OnUndecodable::Skip);
                self.reader = Some(reader);
                ShardEvent::Opened
            }
            Done::Opened(Err(error)) => {
                self.source_failed(&error);
                ShardEvent::OpenFailed(self.fault(&error))
            }
            Done::Fetched(reader, Ok(page), room) => {
                self.reader = Some(reader);
                self.settled = Some(room);
                self.trouble.was_read(self.cx.clock.now().mono);
                self.missing_since = None;
                let filter = self.cx.mapping.filter();
                let mut passes = filter.map(|filter| filter.of_shard(&self.event.shard));
                let keep = |record: &Record| passes.as_mut().is_none_or(|passes| passes(record));
                let intake = intake(page, self.machine.position(), keep);
                self.share.read(intake.bytes());
                ShardEvent::Fetched(intake)
            }
            Done::Fetched(reader, Err(error), _room) => {
                self.reader = Some(reader);
                self.source_failed(&error);
                ShardEvent::FetchFailed(self.fault(&error))
            }
            Done::Invoked { lane, result, took } => {
                let outcome = self.ended(lane, result, took);
                ShardEvent::Invoked { lane, outcome }
            }
            Done::Delivered { id, result: Ok(()) } => {
                self.trouble.delivered();
                ShardEvent::Delivered(id)
            }
            Done::Delivered { id, result: Err(error) } => {
                self.status.failed("destination", &error);
                self.trouble.refused(&error);
                ShardEvent::DeliverFailed(id)
            }
            Done::Granted(lane, place) => {
                self.granted.push((lane, place));
                ShardEvent::Granted { lane }
            }
            Done::Cut => return None,
            Done::Dropped(id) => ShardEvent::Dropped(id),
            Done::Checkpointed(Ok(())) => ShardEvent::Checkpointed,
            Done::Checkpointed(Err(KeeperError::Lost | KeeperError::Stopped)) => ShardEvent::LeaseLost,
            Done::Checkpointed(Err(KeeperError::Store(error))) => {
                self.status.failed("checkpoint", &error);
                ShardEvent::CheckpointFailed
            }
        })
    }

    /// What a failure to read means. A shard that the service does not know any more is gone only if the stream is there
    /// and a listing that was made well after lacks it: until then it may be the stream that is missing.
    fn fault(&mut self, error: &SourceError) -> FetchFault {
        match error.kind {
            SourceErrorKind::IteratorExpired => FetchFault::IteratorExpired,
            SourceErrorKind::Trimmed => FetchFault::Trimmed,
            SourceErrorKind::NotFound => {
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                let believed = since + GONE_AFTER;
                if self.cx.listed.lacks(self.held.key(), believed) {
                    return FetchFault::Gone;
                }
                if Instant::now() >= believed {
                    self.cx.list_now.notify_one();
                }
                FetchFault::Other
            }
            _ => FetchFault::Other,
        }
    }

    fn report_gap(&self, gap: Gap) {
        let shard = &self.event.shard;
        tracing::error!(mapping = %self.cx.name, %shard, kind = gap.kind.as_str(), certain = gap.kind.is_certain(), "a gap: {gap}");
        self.status.failed("gap", &gap);
        if self.cx.mapping.on_gap() == OnGap::Stop && gap.kind != GapKind::Undecodable {
            self.cx.stopping_gap.send_replace(Some((shard.clone(), gap)));
        }
    }

    fn source_failed(&mut self, error: &SourceError) {
        metrics::source_failed(&self.cx.name, error);
        self.status.failed(error.api, error);
        self.trouble.read_failed(error);
    }

    fn publish(&mut self, now: Now) {
        let snapshot = self.machine.snapshot(now);
        self.share.set(snapshot.buffered_bytes, snapshot.buffered_records);
        // Given back before, the page's room would be granted to another shard as well.
        self.settled = None;
        self.note_oversized(now, &snapshot);
        self.trouble.look(now.mono, &snapshot);
        let oldest = self.trouble.oldest_waiting(now.mono, &snapshot);
        self.metrics.publish(&snapshot, oldest);
        self.status.publish(now, snapshot, self.trouble.lanes(), oldest);
    }
}

/// Where the run of a lease that was just acquired goes on.
pub(crate) fn resume(lease: Lease, retention: Option<Duration>) -> Resume {
    let time = |name| lease.app.get(name).and_then(|text| text.parse().ok()).map(Wall::from_millis);
    // Whatever arrived before the time to which LATEST was pinned is not wanted.
    let pinned = || match lease.checkpoint {
        Position::AtTimestamp(_) => time(PINNED_START),
        _ => None,
    };
    Resume {
        earliest_window: time(EARLIEST_WINDOW),
        read_through: time(READ_THROUGH).or_else(pinned),
        checkpoint: lease.checkpoint,
        retention,
    }
}

/// Where a shard starts whose parent was read to its end: its beginning, but never before a configured time.
pub(crate) fn child_start(starting_position: &Position) -> Position {
    match starting_position {
        Position::AtTimestamp(time) => Position::AtTimestamp(*time),
        _ => Position::TrimHorizon,
    }
}

fn panic_text(what: &str, panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the {what} panicked: {}", text.unwrap_or("no message"))
}
