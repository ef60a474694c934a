//! The loop of a running consumer: looks at the stream, starts a driver for each lease that is granted, stops them.

mod minute;
mod schedule;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::StoreError;
use shardmill_engine::{EventContext, Exit, LeaseKey, Mono, Retry, ShardMachine};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::minute::Minute;
use self::stream::{Found, Look, Stream};
use crate::beginning::STARTING_POSITION;
use crate::context::MappingContext;
use crate::discovery::{Discovered, DiscoveryError};
use crate::driver::Driver;
use crate::keeper::Grant;
use crate::notes::{PINNED_START, resume};
use crate::status::{ConsumerStatus, RunState, ShardCell};
use crate::stopping::Stopping;
use crate::worker::Worker;

/// How often the run completes an iteration even if nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// What the last checkpoints and releases may take beyond the stop timeout.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How a run ended that was asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// Invocations that the stop timeout cut off: their records are redelivered.
    pub cut_invocations: usize,
    /// Batches that were given up and had not reached the destination when the run ended: they are read and tried again.
    pub undelivered_discards: usize,
}

/// Why a run ended without being asked to. Transient faults never end a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The checkpoint store cannot be used as it is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records were lost before they were read, and `OnGap` is `stop` (I17).
    #[error("{0}; OnGap is stop: set it to continue to resume at the oldest record")]
    Gap(String),
}

pub(crate) struct Run {
    cx: Arc<MappingContext>,
    grants: mpsc::UnboundedReceiver<Grant>,
    worker: Arc<Worker>,
    status: ConsumerStatus,
    /// Carries the deadline once the shards are to stop.
    stop: Stopping,
    tasks: JoinSet<Exit>,
    keys: HashMap<Id, LeaseKey>,
    shards: HashMap<LeaseKey, Arc<ShardCell>>,
    /// Leases that came back before their last run here has ended.
    early: BTreeMap<LeaseKey, Grant>,
    /// How often in a row a shard's task panicked.
    panics: HashMap<LeaseKey, u32>,
    stream: Stream,
    minute: Minute,
    report: RunReport,
}

impl Run {
    pub(crate) fn new(
        cx: Arc<MappingContext>,
        grants: mpsc::UnboundedReceiver<Grant>,
        worker: Arc<Worker>,
        status: ConsumerStatus,
        interval: Duration,
    ) -> Self {
        let stream = Stream::new(Arc::clone(&cx), status.clone(), interval);
        Self {
            cx,
            grants,
            worker,
            status,
            stop: Stopping::default(),
            tasks: JoinSet::new(),
            keys: HashMap::new(),
            shards: HashMap::new(),
            early: BTreeMap::new(),
            panics: HashMap::new(),
            stream,
            minute: Minute::new(),
            report: RunReport::default(),
        }
    }

    pub(crate) async fn until(mut self, shutdown: CancellationToken) -> Result<RunReport, RunError> {
        self.status.set_state(RunState::Enabled);
        let result = self.work(&shutdown).await;
        self.stop_all().await;
        self.status.set_state(RunState::Disabled);
        result.map(|()| self.report)
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), RunError> {
        let mut look: Option<Look> = None;
        let mut stopping_gap = self.cx.stopping_gap.subscribe();
        loop {
            self.status.tick(self.now());
            if self.minute.is_over() {
                self.minute.tell(&self.cx, &self.cx.leases, self.shards.values().map(|cell| &**cell));
            }
            self.stream.schedule.settle_clock(self.cx.stream.clock.doubt().is_some());
            self.cx.troubles.tick();
            if look.is_none() && Instant::now() >= self.stream.schedule.next() {
                look = Some(self.stream.look());
            }
            let tick = Instant::now() + TICK;
            let wake = if look.is_none() { self.stream.schedule.next().min(tick) } else { tick };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Ok(gap) = stopping_gap.wait_for(Option::is_some) => {
                    let text = gap.as_ref().map(|(shard, gap)| format!("shard {shard}: {gap}")).unwrap_or_default();
                    return Err(self.stream.stopped_by_gap(text));
                }
                () = self.cx.stream.list_now.notified() => self.stream.schedule.list_now(),
                Some(grant) = self.grants.recv() => self.granted(grant),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                result = poll(&mut look), if look.is_some() => {
                    look = None;
                    if self.stream.looked(result)? == Found::Another {
                        self.stop_old_shards();
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn granted(&mut self, grant: Grant) {
        let key = &grant.lease.key;
        if self.shards.contains_key(key) {
            // The last run has lost the lease but may still be in the middle of something (incident 10).
            self.early.insert(key.clone(), grant);
        } else {
            self.start(grant);
        }
    }

    fn start(&mut self, grant: Grant) {
        let Grant { lease, held } = grant;
        let (shard, key) = (lease.key.shard.clone(), lease.key.clone());
        let event = EventContext::new(&self.cx.mapping, shard.clone());
        tracing::debug!(mapping = %self.cx.name, %shard, checkpoint = %lease.checkpoint, "got the lease");
        let seed = fastrand::u64(..);
        let inherited = |name: &str| Some((name.to_owned(), lease.app.get(name)?.clone()));
        let inherits = [PINNED_START, STARTING_POSITION].into_iter().filter_map(inherited).collect();
        let mapping = Arc::clone(&self.cx.mapping);
        let machine = ShardMachine::new(
            mapping,
            shard.clone(),
            resume(lease, self.cx.stream.listed.retention()),
            seed,
            self.cx.stream.clock.now(),
        );
        let cell = ShardCell::new(shard.clone());
        self.status.add(Arc::clone(&cell));
        let share = self.worker.budget.share();
        let (cx, status) = (Arc::clone(&self.cx), Arc::clone(&cell));
        let driver = Box::new(Driver::new(machine, cx, event, held, inherits, share, status));
        let pause = self.panics.get(&key).map(|panics| backoff(*panics));
        let stop = self.stop.clone();
        let run = async move {
            if let Some(pause) = pause {
                // A stop ends the pause.
                let _ = tokio::time::timeout(pause, stop.asked()).await;
            }
            driver.run(stop).await
        };
        let span = tracing::info_span!("shard", %shard, mapping = %self.cx.name);
        let task = self.tasks.spawn(run.instrument(span));
        self.keys.insert(task.id(), key.clone());
        self.shards.insert(key, cell);
    }

    fn ended(&mut self, ended: Result<(Id, Exit), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(key) = self.keys.remove(&id) else { return };
        let cell = self.shards.remove(&key);
        let children_told = cell.as_ref().is_some_and(|cell| cell.children_told());
        let undelivered = cell.as_ref().map_or(0, |cell| cell.undelivered_discards());
        if let Some(cell) = cell {
            self.status.remove(&cell);
            self.minute.ended(cell.counters());
            self.report.cut_invocations += cell.cut_invocations();
        }
        match ended {
            Ok((_, exit)) => {
                self.panics.remove(&key);
                if matches!(exit, Exit::Stopped { .. }) {
                    self.report.undelivered_discards += undelivered;
                }
                if exit == Exit::ShardEnd && !children_told {
                    // Its children may be known to nobody yet. Those that the service told have their leases.
                    self.stream.schedule.list_now();
                }
            }
            Err(error) if error.is_cancelled() => {}
            // The lease was released with the task; its next owner resumes at the checkpoint.
            Err(error) => {
                let panics = self.panics.entry(key.clone()).or_default();
                *panics = panics.saturating_add(1);
                tracing::error!(mapping = %self.cx.name, shard = %key.shard, "a shard's task panicked: a defect of shardmill or of a custom source");
                // What a panic says may quote what it stumbled over.
                tracing::debug!(mapping = %self.cx.name, shard = %key.shard, %error, "what the panic said");
            }
        }
        if let Some(grant) = self.early.remove(&key) {
            self.start(grant);
        }
    }

    /// The shards of a stream that was deleted stop: what is left of them is not read.
    fn stop_old_shards(&mut self) {
        tracing::warn!(
            mapping = %self.cx.name,
            shards = self.shards.len(),
            "the stream was deleted and created again under its name: its shards are read from the starting position, what is left of the old ones is not read"
        );
        let old = std::mem::take(&mut self.stop);
        old.ask(self.now() + self.worker.stop_timeout);
    }

    /// Nothing new; running invocations may finish; checkpoints; releases (I16).
    async fn stop_all(&mut self) {
        self.status.set_state(RunState::Disabling);
        self.cx.leases.retire();
        // Grants that were not taken are released as they are dropped.
        self.grants.close();
        while self.grants.try_recv().is_ok() {}
        self.early.clear();
        let timeout = self.worker.stop_timeout;
        self.stop.ask(self.now() + timeout);
        let all = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended);
            }
            // Leases that arrived too late are released as well.
            self.cx.leases.idle().await;
            self.cx.leases.leave().await;
        };
        if tokio::time::timeout(timeout + STOP_GRACE, all).await.is_err() {
            tracing::warn!(
                mapping = %self.cx.name,
                shards = self.tasks.len(),
                "the checkpoint store did not take the last checkpoints and releases in time: records may be redelivered"
            );
            self.tasks.abort_all();
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended);
            }
        }
        if self.report.cut_invocations > 0 {
            tracing::warn!(
                mapping = %self.cx.name,
                invocations = self.report.cut_invocations,
                "the stop cut invocations off: their records are redelivered, no attempt is spent"
            );
        }
        if self.report.undelivered_discards > 0 {
            tracing::warn!(
                mapping = %self.cx.name,
                batches = self.report.undelivered_discards,
                "batches that were given up had not reached the destination at the stop: they are read and tried again after the next start"
            );
        }
    }

    fn now(&self) -> Mono {
        self.cx.stream.clock.now().mono
    }
}

async fn poll(look: &mut Option<Look>) -> Result<Discovered, DiscoveryError> {
    match look {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

/// The wait before something that failed so often in a row is tried again.
fn backoff(failures: u32) -> Duration {
    let retry =
        Retry { initial_backoff: Duration::from_millis(200), maximum_backoff: Duration::from_secs(15) };
    retry.delay(failures, &mut fastrand::Rng::new())
}
