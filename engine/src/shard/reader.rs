//! When and how much to read next. How often the service permits a read is for the source to wait for (I12).

use std::time::Duration;

use super::exchange::FetchFault;
use crate::fleet::Shard;
use crate::intake::Intake;
use crate::mapping::{Polling, Retry};
use crate::position::Position;
use crate::time::{Mono, Now, Wall};

/// How long the service must not know a shard before a listing without it is believed.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// Empty pages in a row at the tip of a shard before reads slow down beyond the idle interval.
const EMPTY_PAGES_BEFORE_SLOWING: u32 = 5;
/// A page of this size means that there is a backlog, regardless of how far behind the service says the reader is.
const BACKLOG_BYTES: usize = 1 << 20;
/// How often the tip of a shard is read while enough waits.
const ENOUGH_INTERVAL: Duration = Duration::from_secs(60);
/// What a record is assumed to take before the first page tells.
const ASSUMED_RECORD_BYTES: usize = 1 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    /// The last position that was read, or the start: where to open again (I14).
    pub(super) at: Position,
    pub(super) state: ReaderState,
    /// No open and no fetch before this: an idle pause or backoff.
    not_before: Mono,
    /// When the last read was asked for.
    fetch_started: Option<Mono>,
    /// The idle pause after the last page; none in the middle of a shard.
    pause: Duration,
    failures: u32,
    /// Since when the service does not know the shard.
    missing_since: Option<Mono>,
    empty_pages: u32,
    asked: usize,
    /// Running average of a record's footprint, in bytes.
    pub(super) record_bytes: usize,
    pub(super) millis_behind: Option<u64>,
    /// When a page came last that reached the tip, by the service's clock.
    pub(super) tip_read: Option<Wall>,
    /// Everything that arrived before this time was read (I17).
    pub(super) through: Option<Wall>,
    /// What comes after `at` is trimmed: reading continues at the oldest record (I17).
    from_oldest: bool,
    /// How far off the service's clock may be, while that is not known better.
    pub(super) clock_doubt: Option<Duration>,
    pub(super) children: Vec<Shard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReaderState {
    Closed,
    Opening,
    Open,
    Fetching,
    /// The end of the shard was read.
    Ended,
    /// Nothing more is read: records were lost, and the mapping is to stop (I17).
    Halted,
}

/// What was read and is not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Supply {
    /// What it takes of the budget.
    pub(super) bytes: usize,
    /// A whole batch waits in each lane: no other record would be handled before one of them is taken.
    pub(super) is_enough: bool,
}

/// What to think of a shard that the service does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The stream may be missing as well.
    Perhaps,
    /// It has been missing for so long that only a listing has to confirm it.
    Unproved,
    Gone,
}

/// What the reader wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Open(Position),
    Fetch { limit: usize },
}

impl Reader {
    pub(super) fn new(at: Position, through: Option<Wall>) -> Self {
        let state = if at == Position::ShardEnd { ReaderState::Ended } else { ReaderState::Closed };
        Self {
            at,
            state,
            not_before: Mono::default(),
            fetch_started: None,
            pause: Duration::ZERO,
            failures: 0,
            missing_since: None,
            empty_pages: 0,
            asked: 0,
            record_bytes: ASSUMED_RECORD_BYTES,
            millis_behind: None,
            tip_read: None,
            through,
            from_oldest: false,
            clock_doubt: None,
            children: Vec::new(),
        }
    }

    /// What to do now; marks it as under way.
    pub(super) fn take_wish(&mut self, now: Mono, polling: &Polling, supply: Supply) -> Option<Wish> {
        if self.wakes_at(polling, supply)? > now {
            return None;
        }
        if self.state == ReaderState::Closed {
            self.state = ReaderState::Opening;
            let at = if self.from_oldest { Position::TrimHorizon } else { self.at.clone() };
            return Some(Wish::Open(at));
        }
        self.state = ReaderState::Fetching;
        self.fetch_started = Some(now);
        self.asked = self.limit(polling, supply.bytes);
        Some(Wish::Fetch { limit: self.asked })
    }

    /// When [`take_wish`](Self::take_wish) may return more than now.
    pub(super) fn wakes_at(&self, polling: &Polling, supply: Supply) -> Option<Mono> {
        match self.state {
            ReaderState::Closed => Some(self.not_before),
            ReaderState::Open => {
                // With nothing buffered a page is read regardless of the budget: one record may be larger than it.
                let has_room = supply.bytes == 0 || supply.bytes < polling.buffer_bytes;
                let waits = supply.is_enough && !self.pause.is_zero();
                let longer = if waits { ENOUGH_INTERVAL.saturating_sub(self.pause) } else { Duration::ZERO };
                has_room.then_some(self.not_before + longer)
            }
            ReaderState::Opening | ReaderState::Fetching | ReaderState::Ended | ReaderState::Halted => None,
        }
    }

    fn limit(&self, polling: &Polling, buffered: usize) -> usize {
        let room = polling.buffer_bytes.saturating_sub(buffered) / self.record_bytes.max(1);
        room.clamp(1, polling.maximum_records)
    }

    pub(super) fn opened(&mut self) {
        if self.state == ReaderState::Opening {
            self.state = ReaderState::Open;
        }
    }

    /// Takes in a page; returns whether it made progress: a reader that reopened by time sees some records twice.
    pub(super) fn fetched(&mut self, now: Now, intake: &Intake, polling: &Polling) -> bool {
        self.failures = 0;
        self.missing_since = None;
        self.millis_behind = intake.millis_behind;
        let further = intake.scanned.clone().map(Position::After).filter(|to| self.at.may_advance_to(to));
        let is_further = further.as_ref().is_some_and(|to| *to != self.at);
        if let Some(to) = further {
            self.at = to;
        }
        if is_further {
            self.from_oldest = false;
        }
        self.through = self.through.max(intake.last_arrival);
        if !intake.records.is_empty() {
            let average = intake.bytes / intake.records.len();
            self.record_bytes = (self.record_bytes + average).div_ceil(2);
        }
        if intake.end_of_shard {
            self.state = ReaderState::Ended;
            self.children.clone_from(&intake.children);
            return is_further;
        }
        self.state = ReaderState::Open;
        self.pause = self.pause_after(intake, polling);
        self.not_before = self.fetch_started.unwrap_or_default() + self.pause;
        let is_tip = is_empty(intake) && intake.millis_behind.is_none_or(|behind| behind == 0);
        if is_tip && self.clock_doubt.is_none() {
            // What arrived while the page was in flight may not be in it.
            self.tip_read = Some(now.wall - now.mono.since(self.fetch_started.unwrap_or_default()));
            self.through = self.through.max(self.tip_read);
        }
        is_further
    }

    /// The time from when the last read was asked for to when the next one is.
    fn pause_after(&mut self, intake: &Intake, polling: &Polling) -> Duration {
        let backlog = intake.millis_behind.is_some_and(|behind| behind > 0)
            || intake.polled + intake.skipped.len() >= self.asked
            || intake.bytes >= BACKLOG_BYTES;
        if backlog {
            // An empty page in the middle of a shard is normal: the shard is read on as fast as the source permits.
            self.empty_pages = 0;
            return Duration::ZERO;
        }
        self.empty_pages = if is_empty(intake) { self.empty_pages.saturating_add(1) } else { 0 };
        let slower = self.empty_pages.saturating_sub(EMPTY_PAGES_BEFORE_SLOWING).min(16);
        polling
            .idle_interval
            .saturating_mul(1 << slower)
            .min(polling.maximum_idle_interval.max(polling.idle_interval))
    }

    pub(super) fn open_failed(&mut self, now: Mono, retry: &Retry, rng: &mut fastrand::Rng) {
        if self.state == ReaderState::Opening {
            self.state = ReaderState::Closed;
            self.failures = self.failures.saturating_add(1);
            self.not_before = now + retry.delay(self.failures, rng);
        }
    }

    /// The reader stays at its position; it retries after a backoff, or, if its iterator had expired, is opened
    /// again at the last position, the first time at once (I14).
    pub(super) fn fetch_failed(
        &mut self,
        now: Mono,
        fault: FetchFault,
        retry: &Retry,
        rng: &mut fastrand::Rng,
    ) {
        if self.state != ReaderState::Fetching {
            return;
        }
        self.pause = Duration::ZERO;
        let backoffs = match fault {
            FetchFault::Other | FetchFault::NotFound { .. } => self.failures.saturating_add(1),
            FetchFault::IteratorExpired | FetchFault::Trimmed => self.failures,
        };
        self.state = match fault {
            FetchFault::Other | FetchFault::NotFound { .. } => ReaderState::Open,
            FetchFault::IteratorExpired | FetchFault::Trimmed => ReaderState::Closed,
        };
        if backoffs > 0 {
            self.not_before = now + retry.delay(backoffs, rng);
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// The service does not know the shard, and the last listing that lacks it began at `unlisted`.
    pub(super) fn missing(&mut self, now: Mono, unlisted: Option<Mono>) -> Missing {
        let believed = *self.missing_since.get_or_insert(now) + GONE_AFTER;
        match unlisted {
            Some(began) if began >= believed => Missing::Gone,
            _ if now >= believed => Missing::Unproved,
            _ => Missing::Perhaps,
        }
    }

    /// Goes on at the oldest record. Tells whether that is news: the oldest record itself may be trimmed before it is
    /// read, which is the same gap.
    pub(super) const fn skip_to_oldest(&mut self) -> bool {
        !std::mem::replace(&mut self.from_oldest, true)
    }

    /// The service's clock is in doubt, or no longer. A time that was taken while it was trusted may be wrong, too.
    pub(super) const fn doubt_clock(&mut self, doubt: Option<Duration>) {
        if doubt.is_some() {
            self.tip_read = None;
        }
        self.clock_doubt = doubt;
    }

    /// Nothing more is read.
    pub(super) const fn halt(&mut self) {
        self.state = ReaderState::Halted;
    }

    /// There is nothing more to read, and the shards that follow are unknown.
    pub(super) const fn end(&mut self) {
        self.state = ReaderState::Ended;
    }

    /// Whether the shard is about to be opened at a place that is not the oldest record.
    pub(super) fn opens(&self, now: Mono) -> bool {
        self.state == ReaderState::Closed && self.not_before <= now && !self.from_oldest
    }

    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}

/// Whether the page had no records, decodable or not.
const fn is_empty(intake: &Intake) -> bool {
    intake.polled == 0 && intake.skipped.is_empty()
}
