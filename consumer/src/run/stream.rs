//! What a run makes of its stream's listings, and says of them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shardmill_engine::HashRange;

use super::RunError;
use super::schedule::Schedule;
use crate::beginning::Beginning;
use crate::context::MappingContext;
use crate::discovery::{Discovered, DiscoveryError, discover};
use crate::keeper::KeeperError;
use crate::metrics;
use crate::status::ConsumerStatus;

/// A look at the stream that is under way.
pub(super) type Look = BoxFuture<'static, Result<Discovered, DiscoveryError>>;

/// Whether the stream is the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    TheSame,
    /// It was deleted and created again under its name: it shares nothing with the old one (incident 43).
    Another,
}

/// One stream of a run.
pub(super) struct Stream {
    cx: Arc<MappingContext>,
    status: ConsumerStatus,
    pub(super) schedule: Schedule,
    /// What tells the stream from an earlier one of the same name, once it was listed.
    epoch: Option<String>,
    /// Whether it was said where the shards begin.
    said_beginning: bool,
    /// The log says that the stream takes no more records.
    said_disabled: bool,
    /// The log says that the stream cannot be listed.
    warned: bool,
}

impl Stream {
    pub(super) fn new(cx: Arc<MappingContext>, status: ConsumerStatus, interval: Duration) -> Self {
        Self {
            cx,
            status,
            schedule: Schedule::new(interval),
            epoch: None,
            said_beginning: false,
            said_disabled: false,
            warned: false,
        }
    }

    /// Begins a look at the stream.
    pub(super) fn look(&mut self) -> Look {
        let (cx, lists) = (Arc::clone(&self.cx), self.schedule.begin());
        async move { discover(&cx, lists).await }.boxed()
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, result: Result<Discovered, DiscoveryError>) -> Result<Found, RunError> {
        metrics::clock_offset(&self.cx.name, self.cx.stream.clock.offset());
        metrics::still_there(&self.cx.name);
        match result {
            Ok(found) => Ok(self.found(found)),
            Err(DiscoveryError::Keeper(KeeperError::Store(error))) if !error.is_retryable() => {
                Err(error.into())
            }
            Err(DiscoveryError::Gap(gap)) => {
                self.gap(&gap);
                Err(self.stopped_by_gap(gap))
            }
            Err(error) => {
                self.failed(&error);
                Ok(Found::TheSame)
            }
        }
    }

    fn found(&mut self, found: Discovered) -> Found {
        if std::mem::take(&mut self.warned) {
            tracing::info!(mapping = %self.cx.name, "the stream's shards are listed again");
        }
        self.say_beginning(found.beginning);
        if found.created > 0 {
            tracing::info!(mapping = %self.cx.name, created = found.created, known = found.known, "found shards");
        }
        self.schedule.succeeded();
        self.status.source_answered();
        self.status.store_answered(found.known);
        self.status.recovered();
        self.audit(&found.uncovered);
        if found.is_disabled && !std::mem::replace(&mut self.said_disabled, true) {
            tracing::warn!(
                mapping = %self.cx.name,
                "the stream is disabled: what it holds is read, and nothing new will come; one that is enabled again has a new ARN for EventSourceArn"
            );
        }
        if found.waits_for_clock {
            self.schedule.soon();
        }
        if let Some(gap) = found.gap {
            self.gap(&gap);
        }
        let old = self.epoch.replace(found.epoch);
        if old.is_some() && old != self.epoch { Found::Another } else { Found::TheSame }
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

    fn failed(&mut self, error: &DiscoveryError) {
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
            self.status.failed(what, error, self.cx.stream.clock.now().wall);
        }
        self.schedule.failed();
    }

    fn gap(&self, gap: &str) {
        tracing::error!(mapping = %self.cx.name, "a gap: {gap}");
        metrics::stream_gap(&self.cx.name);
        self.status.gap(gap, self.cx.stream.clock.now().wall);
    }

    /// Shown for as long as the process runs: the mapping does not continue by itself.
    pub(super) fn stopped_by_gap(&self, text: String) -> RunError {
        let error = RunError::Gap(text);
        self.status.failed("gap", &error, self.cx.stream.clock.now().wall);
        error
    }
}
