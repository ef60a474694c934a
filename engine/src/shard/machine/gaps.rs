//! Records that were lost before they were read (I17).

use std::time::Duration;

use super::ShardMachine;
use crate::intake::Intake;
use crate::mapping::OnGap;
use crate::position::{Position, Seq};
use crate::shard::exchange::FetchFault;
use crate::shard::gap::{Gap, GapKind};
use crate::shard::reader::{Missing, ReaderState};
use crate::time::{Now, Wall};

impl ShardMachine {
    /// A page could not be read, or the shard not be opened; `during` is the reader's state in which that happened.
    pub(super) fn read_failed(&mut self, now: Now, during: ReaderState, fault: FetchFault) {
        if self.reader.state != during {
            return;
        }
        if let FetchFault::NotFound { unlisted } = fault {
            match self.reader.missing(now.mono, unlisted) {
                Missing::Gone => {
                    self.reader.end();
                    return self.note_gap(now, GapKind::ShardGone);
                }
                Missing::Unproved => self.wants_listing = true,
                Missing::Perhaps => {}
            }
        }
        let is_news = fault == FetchFault::Trimmed && self.reader.skip_to_oldest();
        let retry = self.mapping.retry;
        match during {
            ReaderState::Opening => self.reader.open_failed(now.mono, &retry, &mut self.rng.0),
            _ => self.reader.fetch_failed(now.mono, fault, &retry, &mut self.rng.0),
        }
        if is_news {
            self.note_gap(now, GapKind::Trimmed);
        }
    }

    /// The stream's current retention, if the service silently resumes at the oldest record when a position has
    /// expired.
    pub fn set_retention(&mut self, retention: Option<Duration>) {
        self.retention_cut |= retention < self.retention && retention.is_some();
        self.retention = retention;
    }

    /// How far off the service's clock may be; `None` once that is known, as it is at the start.
    ///
    /// While it is in doubt no record is discarded for its age, no window is closed because its time is over, and where
    /// a gap beyond the retention may or may not be, reading waits for the clock.
    pub fn set_clock_doubt(&mut self, doubt: Option<Duration>) {
        if doubt != self.reader.clock_doubt {
            self.reader.doubt_clock(doubt);
        }
    }

    /// The shard is about to be opened at a position after which the stream may have trimmed records, where the service
    /// would silently resume at its oldest record; or it is read, and the stream has begun to keep records for a
    /// shorter time.
    pub(super) fn check_retention(&mut self, now: Now) {
        let Some(retention) = self.retention_to_check(now) else { return };
        self.retention_cut = false;
        if self.reader.through.is_some_and(|through| through < now.wall - retention) {
            // Until something is read nothing more is known.
            self.reader.through = None;
            self.note_gap(now, GapKind::BeyondRetention);
        }
    }

    /// Whether there is a gap depends on a clock that is in doubt.
    pub(super) fn waits_for_clock(&self, now: Now) -> bool {
        let Some(doubt) = self.reader.clock_doubt else { return false };
        let latest = now.wall + doubt;
        let may_be_gap = |retention| self.reader.through.is_some_and(|through| through < latest - retention);
        self.retention_to_check(now).is_some_and(may_be_gap)
    }

    /// The retention, if it is to be looked at before the next read.
    fn retention_to_check(&self, now: Now) -> Option<Duration> {
        let is_cut = self.retention_cut && self.reader.state == ReaderState::Open;
        self.retention.filter(|_| is_cut || self.reader.opens(now.mono))
    }

    /// Records that could not be decoded are lost, and the mapping continues behind them regardless of `OnGap`.
    pub(super) fn note_skipped(&mut self, now: Now, skipped: Vec<Seq>) {
        for seq in skipped {
            self.count_gap(Gap {
                kind: GapKind::Undecodable,
                from: Position::At(seq),
                to: None,
                at: now.wall,
            });
        }
    }

    fn count_gap(&mut self, gap: Gap) {
        self.counters.gaps += 1;
        self.last_gap = Some(gap.clone());
        self.unreported.push_back(gap);
    }

    fn note_gap(&mut self, now: Now, kind: GapKind) {
        self.count_gap(Gap { kind, from: self.reader.at.clone(), to: None, at: now.wall });
        if self.mapping.on_gap == OnGap::Stop {
            self.reader.halt();
        }
    }

    /// The first record after a gap shows how far it extends.
    pub(super) fn close_gap(&mut self, intake: &Intake) {
        if let (Some(gap), Some(first)) =
            (self.last_gap.as_mut().filter(|gap| gap.to.is_none()), &intake.first)
        {
            gap.to = Some(first.clone());
        }
    }

    /// Up to when everything that arrived in the shard is resolved.
    pub(super) fn read_through(&self) -> Option<Wall> {
        self.retention?;
        let read = match self.watermark.is_complete() {
            true => self.reader.through,
            false => self.watermark.reached().and_then(|mark| mark.arrival),
        };
        read.max(self.progress.through())
    }
}
