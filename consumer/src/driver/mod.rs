//! Where logic meets IO: carries out a shard machine's actions and hands it what became of them. An `if` about
//! semantics belongs in the engine.

mod actions;
mod answers;
mod discarded;
mod ended;
mod places;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use shardmill_checkpoint::AppState;
use shardmill_engine::{
    EventContext, Exit, LaneId, Mono, Now, Oversized, ShardAction, ShardEvent, ShardMachine,
};
use tokio_util::sync::CancellationToken;

use self::actions::Done;
use crate::budget::{Room, Share};
use crate::context::MappingContext;
use crate::handler::MayStart;
use crate::keeper::Held;
use crate::metrics::ShardMetrics;
use crate::places::Place;
use crate::source::ShardReader;
use crate::status::ShardCell;
use crate::stopping::Stopping;
use crate::trouble::ShardTrouble;

/// The longest sleep, so that a shard that hangs can be told from one with nothing to do.
const TICK: Duration = Duration::from_secs(10);

/// Runs one shard.
pub(crate) struct Driver {
    machine: ShardMachine,
    cx: Arc<MappingContext>,
    event: Arc<EventContext>,
    held: Held,
    /// What the leases of children have from this one: where the mapping began.
    inherits: AppState,
    reader: Option<Box<dyn ShardReader>>,
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
        let (clock, is_valid) = (cx.stream.clock.clone(), held.validity());
        Self {
            may_start: MayStart::new(move || is_valid(clock.now().mono)),
            granted: Vec::new(),
            machine,
            cx,
            event: Arc::new(event),
            held,
            inherits,
            reader: None,
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

    /// Runs until the machine exits; `stop` carries the deadline once the mapping is to stop. In a box: each future that
    /// holds a driver itself has room for one more of it, in every shard.
    pub(crate) async fn run(mut self: Box<Self>, stop: Stopping) -> Exit {
        let (lost, asked) = (self.held.lost(), self.held.asked());
        // Another worker is to have the shard: it stops here as it would with the mapping.
        let mut handoff: Option<Mono> = None;
        let mut away = self.cx.places.watch_away();
        let exit = loop {
            self.refresh();
            let now = self.now();
            if let Some(exit) = self.act(now) {
                break exit;
            }
            let deadline = earlier(stop.deadline(), handoff);
            if deadline.is_some_and(|deadline| now.mono >= deadline) {
                // The machine has counted what is cut off here, even if the last checkpoint still takes its time.
                self.cancelled.cancel();
            }
            self.publish(now);
            let wake = self.machine.poll_timeout(now).map_or(TICK, |at| at.since(now.mono).min(TICK));
            let event = tokio::select! {
                biased;
                () = lost.cancelled() => Some(ShardEvent::LeaseLost),
                Some(done) = self.running.next() => self.done(done),
                () = stop.asked(), if stop.deadline().is_none() => None,
                () = asked.cancelled(), if deadline.is_none() => {
                    handoff = Some(self.cx.stream.clock.now().mono + self.cx.stop_timeout);
                    None
                }
                Ok(()) = away.changed() => None,
                () = tokio::time::sleep(wake) => None,
            };
            self.refresh();
            let now = self.now();
            if let Some(event) = event {
                self.handle(now, event);
            }
            if let Some(deadline) = earlier(stop.deadline(), handoff) {
                self.machine.handle_event(now, ShardEvent::Stop { deadline });
            }
            tokio::task::consume_budget().await;
        };
        self.publish(self.cx.stream.clock.now());
        self.cancelled.cancel();
        // What is in flight is dropped before the lease is released.
        self.running.clear();
        self.leave_places();
        if exit != Exit::LeaseLost {
            self.held.release().await;
        }
        exit
    }

    /// The service's time, and whether the machine may believe it: the doubt first, which ends once the time is settled.
    fn now(&mut self) -> Now {
        self.machine.set_clock_doubt(self.cx.stream.clock.doubt());
        self.cx.stream.clock.now()
    }

    /// Starts everything that the machine asks for now.
    fn act(&mut self, now: Now) -> Option<Exit> {
        while let Some(action) = self.machine.poll_action(now) {
            // Read again for each start: a process that was suspended for a while must not continue (I10).
            if !self.held.is_valid(self.cx.stream.clock.now().mono) && !matches!(action, ShardAction::Exit(_))
            {
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
                ShardAction::ListStream => {
                    self.cx.stream.list_now.notify_one();
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

fn earlier(stop: Option<Mono>, handoff: Option<Mono>) -> Option<Mono> {
    [stop, handoff].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what a function returns.
    fn size_of_result<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_shard_that_runs_takes_little_memory() {
        let bytes = size_of_result(Driver::run) + size_of::<Driver>();
        assert!(bytes <= 3072, "{bytes} bytes, in each of thousands of shards");
    }
}
