//! The line in which a healthy run says what it did.

use std::time::Duration;

use shardmill_engine::Counters;
use tokio::time::Instant;

use crate::context::MappingContext;
use crate::keeper::Leases;
use crate::status::ShardCell;

/// How often it is written.
const SUMMARY: Duration = Duration::from_secs(60);

/// What was counted up to the last line.
#[derive(Debug)]
pub(super) struct Minute {
    /// What shards that have ended counted.
    finished: Counters,
    told: Counters,
    /// Invocations that had not reached the function.
    not_reached: u64,
    next: Instant,
}

impl Minute {
    pub(super) fn new() -> Self {
        Self {
            finished: Counters::default(),
            told: Counters::default(),
            not_reached: 0,
            next: Instant::now() + SUMMARY,
        }
    }

    /// A shard's task has ended.
    pub(super) fn ended(&mut self, counters: Counters) {
        self.finished += counters;
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.next
    }

    pub(super) fn tell<'a>(
        &mut self,
        cx: &MappingContext,
        leases: &Leases,
        shards: impl ExactSizeIterator<Item = &'a ShardCell> + Clone,
    ) {
        self.next = Instant::now() + SUMMARY;
        let mut total = self.finished;
        for cell in shards.clone() {
            total += cell.counters();
        }
        let minute = total.since(&self.told);
        let not_reached = cx.troubles.not_reached();
        let (blocked, trouble) = cx.troubles.summary();
        tracing::info!(
            mapping = %cx.name,
            shards = shards.len(),
            polled = minute.polled,
            filtered = minute.filtered,
            invoked = minute.invoked,
            failed = minute.failed,
            not_reached = not_reached - self.not_reached,
            retrying = shards.clone().map(ShardCell::retrying).sum::<usize>(),
            blocked,
            dropped = minute.dropped,
            delivered_to_destination = minute.delivered,
            millis_behind = shards.clone().filter_map(ShardCell::millis_behind).max(),
            oldest_waiting_millis = shards.filter_map(ShardCell::oldest_waiting_millis).max(),
            trouble,
            "the last minute"
        );
        leases.board().set_minute(minute.polled);
        self.told = total;
        self.not_reached = not_reached;
    }
}
