//! The results of actions, as reported to the machine, the metrics, the status and the log.

use shardmill_engine::{FetchFault, Gap, GapKind, OnGap, OnUndecodable, Record, ShardEvent, intake};

use super::Driver;
use super::actions::Done;
use crate::keeper::KeeperError;
use crate::metrics;
use crate::source::{SourceError, SourceErrorKind};

impl Driver {
    /// What to tell the machine about an action that ended.
    pub(super) fn done(&mut self, done: Done) -> Option<ShardEvent> {
        Some(match done {
            Done::Opened(Ok(mut reader)) => {
                reader.skip_undecodable(self.cx.mapping.on_undecodable() == OnUndecodable::Skip);
                reader.ask_for(self.cx.mapping.polling().answer_encoding);
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
                self.trouble.was_read(self.cx.stream.clock.now().mono);
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

    fn fault(&self, error: &SourceError) -> FetchFault {
        match error.kind {
            SourceErrorKind::IteratorExpired => FetchFault::IteratorExpired,
            SourceErrorKind::Trimmed => FetchFault::Trimmed,
            SourceErrorKind::NotFound => {
                FetchFault::NotFound { unlisted: self.cx.stream.listed.lacks(self.held.key()) }
            }
            _ => FetchFault::Other,
        }
    }

    pub(super) fn report_gap(&self, gap: Gap) {
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
}
