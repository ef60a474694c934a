//! The loop of a running consumer: discovers shards, starts a driver for each lease that is granted, stops them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::StoreError;
use shardmill_engine::{Counters, EventContext, Exit, HashRange, LeaseKey, Mono, Retry, ShardMachine, Wall};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::beginning::{Beginning, STARTING_POSITION};
use crate::context::MappingContext;
use crate::discovery::{Discovered, DiscoveryError, discover};
use crate::driver::Driver;
use crate::keeper::{Grant, KeeperError};
use crate::metrics;
use crate::notes::{PINNED_START, resume};
use crate::status::{ConsumerStatus, RunState, ShardCell};
use crate::stopping::Stopping;
use crate::worker::Worker;

/// How often the run completes an iteration even if nothing happens.
const TICK: Duration = Duration::from_secs(1);
/// A healthy run says this often what it did.
const SUMMARY: Duration = Duration::from_secs(60);
/// How soon the stream is listed again while the service's clock is in doubt, and how often.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);
const DOUBT_LISTINGS: u32 = 6;
/// What the last checkpoints and releases may take beyond the stop timeout.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How a run ended that was asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunReport {
    /// Invocations that the stop timeout cut off: their records are redelivered.
    pub cut_invocations: usize,
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
    interval: Duration,
    /// Carries the deadline once the shards are to stop.
    stop: Stopping,
    tasks: JoinSet<Exit>,
    keys: HashMap<Id, LeaseKey>,
    shards: HashMap<LeaseKey, Arc<ShardCell>>,
    /// Leases that came back before their last run here has ended.
    early: BTreeMap<LeaseKey, Grant>,
    /// How often in a row a shard's task panicked.
    panics: HashMap<LeaseKey, u32>,
    /// What tells the stream from an earlier one of the same name, once it was listed.
    epoch: Option<String>,
    /// Whether it was said where the shards begin.
    said_beginning: bool,
    /// The log says that the stream takes no more records.
    said_disabled: bool,
    discovery_failures: u32,
    /// The log says that the stream cannot be listed.
    warned: bool,
    discover_at: Instant,
    /// How often the stream was listed because the service's clock is in doubt.
    doubt_listings: u32,
    /// The next discovery lists the stream even if nothing seems to have changed.
    listing_asked: bool,
    report: RunReport,
    /// What shards that have ended counted.
    finished: Counters,
    summarised: Counters,
    summary_at: Instant,
    /// Invocations that had not reached the function when the last minute's line was written.
    not_reached: u64,
}

type Discovery<'a> = futures::future::BoxFuture<'a, Result<Discovered, DiscoveryError>>;

impl Run {
    pub(crate) fn new(
        cx: Arc<MappingContext>,
        grants: mpsc::UnboundedReceiver<Grant>,
        worker: Arc<Worker>,
        status: ConsumerStatus,
        interval: Duration,
    ) -> Self {
        Self {
            cx,
            grants,
            worker,
            status,
            interval,
            stop: Stopping::default(),
            tasks: JoinSet::new(),
            keys: HashMap::new(),
            shards: HashMap::new(),
            early: BTreeMap::new(),
            panics: HashMap::new(),
            epoch: None,
            said_beginning: false,
            said_disabled: false,
            discovery_failures: 0,
            warned: false,
            discover_at: Instant::now(),
            doubt_listings: 0,
            listing_asked: true,
            report: RunReport::default(),
            finished: Counters::default(),
            summarised: Counters::default(),
            summary_at: Instant::now() + SUMMARY,
            not_reached: 0,
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
        let cx = Arc::clone(&self.cx);
        let mut discovery: Option<Discovery<'_>> = None;
        let mut stopping_gap = cx.stopping_gap.subscribe();
        loop {
            self.status.tick(self.now());
            self.summarise();
            self.settle_clock();
            self.cx.troubles.tick();
            if discovery.is_none() && Instant::now() >= self.discover_at {
                // A request for the next one that comes meanwhile is not forgotten.
                self.discover_at = Instant::now() + self.interval;
                discovery = Some(Box::pin(discover(&cx, std::mem::take(&mut self.listing_asked))));
            }
            let tick = Instant::now() + TICK;
            let wake = if discovery.is_none() { self.discover_at.min(tick) } else { tick };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Ok(gap) = stopping_gap.wait_for(Option::is_some) => {
                    let text = gap.as_ref().map(|(shard, gap)| format!("shard {shard}: {gap}")).unwrap_or_default();
                    return Err(self.stopped_by_gap(text));
                }
                () = cx.list_now.notified() => self.list_now(),
                Some(grant) = self.grants.recv() => self.granted(grant),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                result = poll(&mut discovery), if discovery.is_some() => {
                    discovery = None;
                    self.discovered(result)?;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// A clock in doubt is settled by more answers: the stream is listed for their sake, a few times.
    fn settle_clock(&mut self) {
        if self.cx.clock.doubt().is_none() {
            self.doubt_listings = 0;
            return;
        }
        let soon = Instant::now() + DOUBT_INTERVAL;
        if self.doubt_listings < DOUBT_LISTINGS && self.discovery_failures == 0 && self.discover_at > soon {
            self.doubt_listings += 1;
            self.listing_asked = true;
            self.discover_at = soon;
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
            resume(lease, self.cx.listed.retention()),
            seed,
            self.cx.clock.now(),
        );
        let cell = ShardCell::new(shard.clone());
        self.status.add(Arc::clone(&cell));
        let share = self.worker.budget.share();
        let driver =
            Driver::new(machine, Arc::clone(&self.cx), event, held, inherits, share, Arc::clone(&cell));
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
        if let Some(cell) = cell {
            self.status.remove(&cell);
            self.finished += cell.counters();
            self.report.cut_invocations += cell.cut_invocations();
        }
        match ended {
            Ok((_, exit)) => {
                self.panics.remove(&key);
                if exit == Exit::ShardEnd && !children_told {
                    // Its children may be known to nobody yet. Those that the service told have their leases.
                    self.list_now();
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

    fn discovered(&mut self, result: Result<Discovered, DiscoveryError>) -> Result<(), RunError> {
        metrics::clock_offset(&self.cx.name, self.cx.clock.offset());
        metrics::still_there(&self.cx.name);
        match result {
            Ok(found) => {
                if std::mem::take(&mut self.warned) {
                    tracing::info!(mapping = %self.cx.name, "the stream's shards are listed again");
                }
                self.say_beginning(found.beginning);
                if found.created > 0 {
                    tracing::info!(mapping = %self.cx.name, created = found.created, known = found.known, "found shards");
                }
                self.discovery_failures = 0;
                self.status.source_answered();
                self.status.store_answered(found.known);
                self.status.recovered();
                self.check_epoch(found.epoch);
                self.audit(&found.uncovered);
                if found.is_disabled && !std::mem::replace(&mut self.said_disabled, true) {
                    tracing::warn!(
                        mapping = %self.cx.name,
                        "the stream is disabled: what it holds is read, and nothing new will come; one that is enabled again has a new ARN for EventSourceArn"
                    );
                }
                if found.waits_for_clock {
                    // A whole interval may be longer than the stream's start is to wait.
                    self.listing_asked = true;
                    self.discover_at = self.discover_at.min(Instant::now() + DOUBT_INTERVAL);
                }
                if let Some(gap) = found.gap {
                    self.stream_gap(&gap);
                }
                Ok(())
            }
            Err(DiscoveryError::Keeper(KeeperError::Store(error))) if !error.is_retryable() => {
                Err(error.into())
            }
            Err(DiscoveryError::Gap(gap)) => {
                self.stream_gap(&gap);
                Err(self.stopped_by_gap(gap))
            }
            Err(error) => {
                self.discovery_failed(&error);
                Ok(())
            }
        }
    }

    /// Once a run, where each shard begins; what a changed `StartingPosition` does not do.
    fn say_beginning(&mut self, beginning: Option<Beginning>) {
        let Some(beginning) = beginning.filter(|_| !std::mem::replace(&mut self.said_beginning, true)) else {
            return;
        };
        tracing::info!(mapping = %self.cx.name, "{}", beginning.sentence());
        if let Some(text) = beginning.without_effect(self.cx.mapping.starting_position()) {
            tracing::warn!(mapping = %self.cx.name, "{text}");
        }
    }

    fn list_now(&mut self) {
        self.listing_asked = true;
        self.discover_at = Instant::now();
    }

    /// A listing that does not cover all hash keys lags behind, or the stream is broken: shown, and nothing waits for it.
    fn audit(&self, holes: &[HashRange]) {
        if !self.status.uncovered(holes) {
            return;
        }
        match holes.first() {
            Some(HashRange { start: from, end: to }) => tracing::warn!(
                mapping = %self.cx.name, holes = holes.len(), %from, %to,
                "the listing lacks the shards of some hash keys: their records are read once it shows them"
            ),
            None => tracing::info!(mapping = %self.cx.name, "the listing covers all hash keys again"),
        }
    }

    fn stream_gap(&self, gap: &str) {
        tracing::error!(mapping = %self.cx.name, "a gap: {gap}");
        metrics::stream_gap(&self.cx.name);
        self.status.gap(gap, self.wall());
    }

    /// Shown for as long as the process runs: the mapping does not continue by itself.
    fn stopped_by_gap(&self, text: String) -> RunError {
        let error = RunError::Gap(text);
        self.status.failed("gap", &error, self.wall());
        error
    }

    /// A stream that was deleted and created again under its name shares nothing with the old one (incident 43).
    fn check_epoch(&mut self, epoch: String) {
        if self.epoch.as_ref().is_some_and(|old| *old != epoch) {
            tracing::warn!(
                mapping = %self.cx.name,
                shards = self.shards.len(),
                "the stream was deleted and created again under its name: its shards are read from the starting position, what is left of the old ones is not read"
            );
            let old = std::mem::take(&mut self.stop);
            old.ask(self.now() + self.worker.stop_timeout);
        }
        self.epoch = Some(epoch);
    }

    fn discovery_failed(&mut self, error: &DiscoveryError) {
        let what = match error {
            DiscoveryError::Source(error) => {
                metrics::source_failed(&self.cx.name, error);
                error.api
            }
            DiscoveryError::Keeper(_) | DiscoveryError::Gap(_) => "checkpoint store",
        };
        // The keeper says and shows what the store fails with.
        if !matches!(error, DiscoveryError::Keeper(KeeperError::Store(_))) {
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(mapping = %self.cx.name, %error, "cannot list the stream's shards; trying again until it succeeds");
            }
            self.status.failed(what, error, self.wall());
        }
        self.discovery_failures = self.discovery_failures.saturating_add(1);
        self.listing_asked = true;
        self.discover_at = Instant::now() + backoff(self.discovery_failures);
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
    }

    fn summarise(&mut self) {
        if Instant::now() < self.summary_at {
            return;
        }
        self.summary_at = Instant::now() + SUMMARY;
        let mut total = self.finished;
        for cell in self.shards.values() {
            total += cell.counters();
        }
        let minute = total.since(&self.summarised);
        let behind = self.shards.values().filter_map(|cell| cell.millis_behind()).max();
        let oldest = self.shards.values().filter_map(|cell| cell.oldest_waiting_millis()).max();
        let retrying: usize = self.shards.values().map(|cell| cell.retrying()).sum();
        let not_reached = self.cx.troubles.not_reached();
        let (blocked, trouble) = self.cx.troubles.summary();
        tracing::info!(
            mapping = %self.cx.name,
            shards = self.shards.len(),
            polled = minute.polled,
            filtered = minute.filtered,
            invoked = minute.invoked,
            failed = minute.failed,
            not_reached = not_reached - self.not_reached,
            retrying,
            blocked,
            dropped = minute.dropped,
            delivered_to_destination = minute.delivered,
            millis_behind = behind,
            oldest_waiting_millis = oldest,
            trouble,
            "the last minute"
        );
        self.summarised = total;
        self.not_reached = not_reached;
    }

    fn now(&self) -> Mono {
        self.cx.clock.now().mono
    }

    fn wall(&self) -> Wall {
        self.cx.clock.now().wall
    }
}

async fn poll(discovery: &mut Option<Discovery<'_>>) -> Result<Discovered, DiscoveryError> {
    match discovery {
        Some(discovery) => discovery.await,
        None => std::future::pending().await,
    }
}

/// The wait before something that failed so often in a row is tried again.
fn backoff(failures: u32) -> Duration {
    let retry =
        Retry { initial_backoff: Duration::from_millis(200), maximum_backoff: Duration::from_secs(15) };
    retry.delay(failures, &mut fastrand::Rng::new())
}
