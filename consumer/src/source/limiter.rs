//! How often one process reads one shard, over all of its mappings (I12).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardmill_engine::{Arn, ShardId};
use tokio::time::{Instant, sleep_until};

use super::permits::{Party, Permit, Permits};

/// 5 GetRecords a second and shard (Kinesis, "Quotas and limits"). Nothing else spaces reads: the engine asks for the next
/// page of a backlog at once.
const SPACING: Duration = Duration::from_millis(200);

/// 10 DescribeStream a second over all DynamoDB streams of an account and region (DynamoDB, "Service, account, and table
/// quotas").
#[cfg(feature = "dynamodb-streams")]
const DESCRIBE_SPACING: Duration = Duration::from_millis(100);

/// 2 MiB a second and shard: after a page of 10 MiB the next calls are refused for 5 seconds (GetRecords).
const BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

/// Below this many shards, idle ones are not looked for.
const SMALL_REGISTRY: usize = 64;

/// Paces the reads of a process: at most 5 GetRecords a second and 2 MiB a second per shard, counted over all sources
/// that share this limiter (I12), and optionally a bound on the calls in flight that reading takes.
///
/// Waiting readers of one shard take turns in the order in which they came. Sources have shares of the calls in flight:
/// half of them are divided evenly and kept, so that reads that hang on one stream block no other. Clones share their
/// state.
#[derive(Clone, Debug)]
pub struct ReadLimiter {
    /// `None` switches pacing off.
    pacing: Option<Arc<Mutex<Registry>>>,
    /// `None` leaves the number of calls in flight unbounded.
    permits: Option<Arc<Permits>>,
    /// The source that this limiter was given to.
    party: Option<Arc<Party>>,
}

type ShardKey = (Arc<str>, ShardId);

#[derive(Debug, Default)]
struct Registry {
    shards: HashMap<ShardKey, Arc<Slot>>,
    /// The size at which idle shards are forgotten, so that each registration costs little on average.
    sweep_at: usize,
}

/// The pace of one shard.
#[derive(Debug)]
struct Slot {
    /// The time between two starts.
    spacing: Duration,
    /// When the last read started. The lock is the queue: tokio's mutex is fair.
    last_start: tokio::sync::Mutex<Option<Instant>>,
    /// When the bytes read so far are worked off.
    drained: Mutex<Option<Instant>>,
}

/// With the service's limits.
impl Default for ReadLimiter {
    fn default() -> Self {
        Self::new()
    }
}

impl ReadLimiter {
    /// A limiter with the service's limits.
    #[must_use]
    pub fn new() -> Self {
        Self { pacing: Some(Arc::default()), permits: None, party: None }
    }

    /// A limiter that never waits, for benchmarks against a fake: a real service would throttle.
    #[must_use]
    pub fn without_pacing() -> Self {
        Self { pacing: None, permits: None, party: None }
    }

    /// Bounds the calls in flight over all shards that reading takes, GetRecords and GetShardIterator; 0 counts as 1. A
    /// read that waits for its shard's turn is not in flight.
    #[must_use]
    pub fn with_concurrent_reads(mut self, maximum: usize) -> Self {
        self.permits = Some(Permits::new(maximum));
        self.party = None;
        self
    }

    /// The same limiter for another source, which gets a share of the calls in flight.
    pub(crate) fn for_source(mut self) -> Self {
        self.party = self.permits.as_ref().map(Permits::join);
        self
    }

    fn party(&self) -> Option<Arc<Party>> {
        self.party.clone().or_else(|| self.permits.as_ref().map(Permits::join))
    }

    /// The pace of one shard of a stream.
    pub(crate) fn shard(&self, stream: &Arn, shard: &ShardId) -> ShardPace {
        ShardPace::new(self.slot((stream.into(), shard.clone()), SPACING), self.party())
    }

    /// The pace of DescribeStream in the stream's account and region, which all DynamoDB streams there share. These calls are no
    /// reads and do not count as such.
    #[cfg(feature = "dynamodb-streams")]
    pub(crate) fn describe_stream(&self, stream: &Arn) -> ShardPace {
        let key =
            (Arc::from(format!("{}.{}", stream.account(), stream.region())), ShardId::from("DescribeStream"));
        ShardPace::new(self.slot(key, DESCRIBE_SPACING), None)
    }

    fn slot(&self, key: ShardKey, spacing: Duration) -> Option<Arc<Slot>> {
        self.pacing.as_ref().map(|registry| {
            let mut registry = registry.lock();
            if registry.shards.len() >= registry.sweep_at.max(SMALL_REGISTRY) {
                let now = Instant::now();
                registry.shards.retain(|_, slot| !slot.is_idle(now));
                registry.sweep_at = registry.shards.len() * 2;
            }
            Arc::clone(registry.shards.entry(key).or_insert_with(|| Arc::new(Slot::new(spacing))))
        })
    }
}

impl Slot {
    fn new(spacing: Duration) -> Self {
        Self { spacing, last_start: tokio::sync::Mutex::default(), drained: Mutex::default() }
    }

    /// When the next read may start, given when the last one did.
    fn ready_at(&self, last_start: Option<Instant>) -> Option<Instant> {
        last_start.map(|at| at + self.spacing).max(*self.drained.lock())
    }

    /// Whether nobody reads the shard any more and its pace holds nobody up.
    fn is_idle(self: &Arc<Self>, now: Instant) -> bool {
        Arc::strong_count(self) == 1
            && self
                .last_start
                .try_lock()
                .is_ok_and(|last| self.ready_at(*last).is_none_or(|ready| ready <= now))
    }
}

/// One reader's view of its shard's pace.
#[derive(Debug)]
pub(crate) struct ShardPace {
    slot: Option<Arc<Slot>>,
    party: Option<Arc<Party>>,
    /// A read that may start.
    turn: Mutex<Option<Reading>>,
}

impl ShardPace {
    fn new(slot: Option<Arc<Slot>>, party: Option<Arc<Party>>) -> Self {
        Self { slot, party, turn: Mutex::default() }
    }

    /// Waits until a read may start, and keeps that turn for the next [`start`](Self::start).
    pub(crate) async fn take_turn(&self) {
        let turn = self.start().await;
        *self.turn.lock() = Some(turn);
    }

    /// The turn that was kept is not used.
    pub(crate) fn give_turn_back(&self) {
        if let Some(turn) = self.turn.lock().take() {
            turn.give_back();
        }
    }

    /// Waits until a read may start, unless a turn was kept. Dropping the future gives the turn to the next reader.
    pub(crate) async fn start(&self) -> Reading {
        if let Some(turn) = self.turn.lock().take() {
            return turn;
        }
        let Some(slot) = &self.slot else {
            return Reading { of: None, _permit: self.permit().await };
        };
        let mut permit = None;
        loop {
            let mut last_start = slot.last_start.lock().await;
            // A page that another reader just finished may move the time on.
            while let Some(ready) = slot.ready_at(*last_start).filter(|ready| *ready > Instant::now()) {
                // A read that waits for its shard's pace is not in flight.
                permit = None;
                sleep_until(ready).await;
            }
            if permit.is_none()
                && let Some(party) = &self.party
            {
                permit = party.try_acquire();
                if permit.is_none() {
                    // Readers of other mappings may have permits and need not wait for the shard's turn behind this one.
                    drop(last_start);
                    permit = Some(party.acquire().await);
                    continue;
                }
            }
            let started = Instant::now();
            *last_start = Some(started);
            return Reading { of: Some((Arc::clone(slot), started)), _permit: permit };
        }
    }

    /// Waits until a call may be in flight that is no read, such as GetShardIterator: it counts among the reads, but not
    /// against the shard's pace.
    pub(super) async fn permit(&self) -> Option<Permit> {
        match &self.party {
            Some(party) => Some(party.acquire().await),
            None => None,
        }
    }
}

/// A read in flight.
#[derive(Debug)]
#[must_use = "the bytes that were read slow down the next read"]
pub(crate) struct Reading {
    of: Option<(Arc<Slot>, Instant)>,
    _permit: Option<Permit>,
}

impl Reading {
    /// The read does not take place: it does not count against the shard's pace.
    fn give_back(self) {
        if let Some((slot, started)) = self.of
            && let Ok(mut last_start) = slot.last_start.try_lock()
        {
            // What was there before has let this one start.
            last_start.take_if(|last| *last == started);
        }
    }

    /// Ends the read, which brought so many bytes. A read that failed is just dropped.
    pub(crate) fn finish(self, bytes: usize) {
        if let Some((slot, started)) = self.of {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            let mut drained = slot.drained.lock();
            let from = drained.map_or(started, |at| at.max(started));
            *drained = Some(from + Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use tokio::time::{advance, timeout};

    fn pace(limiter: &ReadLimiter, shard: &str) -> ShardPace {
        limiter.shard(&arn("eu-west-1"), &ShardId::from(shard))
    }

    fn arn(region: &str) -> Arn {
        Arn::parse(&format!("arn:aws:kinesis:{region}:123456789012:stream/orders")).unwrap()
    }

    /// Reads until `end` and returns when each read started.
    async fn read_until(pace: ShardPace, end: Instant, bytes: usize, takes: Duration) -> Vec<Instant> {
        let mut starts = Vec::new();
        while let Ok(reading) = tokio::time::timeout_at(end, pace.start()).await {
            starts.push(Instant::now());
            tokio::time::sleep(takes).await;
            reading.finish(bytes);
        }
        starts
    }

    #[tokio::test(start_paused = true)]
    async fn i12_three_readers_never_start_more_than_five_reads_in_any_second_and_all_progress() {
        let limiter = ReadLimiter::new();
        let end = Instant::now() + Duration::from_secs(10);
        let readers =
            [3, 70, 190].map(|ms| read_until(pace(&limiter, "s"), end, 100, Duration::from_millis(ms)));
        let starts = join_all(readers).await;
        let mut all: Vec<Instant> = starts.iter().flatten().copied().collect();
        all.sort();
        for (i, start) in all.iter().enumerate() {
            let within = all[i..].iter().take_while(|at| **at - *start < Duration::from_secs(1)).count();
            assert!(within <= 5, "{within} reads within a second");
        }
        assert!(all.len() >= 50, "the limit is used up: {} reads", all.len());
        assert!(starts.iter().all(|reader| reader.len() >= 16), "the readers take turns");
    }

    #[tokio::test(start_paused = true)]
    async fn i12_a_page_of_ten_mebibytes_keeps_every_reader_of_the_shard_waiting_for_five_seconds() {
        let limiter = ReadLimiter::new();
        let (a, b, other) = (pace(&limiter, "s"), pace(&limiter, "s"), pace(&limiter, "t"));
        let begin = Instant::now();
        a.start().await.finish(10 * 1024 * 1024);
        other.start().await.finish(1);
        assert_eq!(begin.elapsed(), Duration::ZERO, "another shard is not held up");
        b.start().await.finish(10 * 1024 * 1024);
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        a.start().await.finish(0);
        assert_eq!(begin.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn i12_a_shard_that_is_closed_and_opened_again_keeps_its_pace() {
        let limiter = ReadLimiter::new();
        let begin = Instant::now();
        pace(&limiter, "s").start().await.finish(2 * 1024 * 1024);
        pace(&limiter, "s").start().await.finish(0);
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn i12_reads_that_fail_keep_their_distance_also_across_new_readers() {
        let limiter = ReadLimiter::default();
        let begin = Instant::now();
        let mut starts = Vec::new();
        for _ in 0..4 {
            let reader = pace(&limiter, "s");
            drop(reader.start().await);
            drop(reader.start().await);
            starts.push(begin.elapsed().as_millis());
        }
        assert_eq!(starts, [200, 600, 1000, 1400]);
    }

    #[cfg(feature = "dynamodb-streams")]
    #[tokio::test(start_paused = true)]
    async fn incident_62_descriptions_of_all_streams_of_an_account_share_ten_calls_a_second() {
        let limiter = ReadLimiter::new().with_concurrent_reads(1);
        let shard = pace(&limiter, "s");
        let reading = shard.start().await;
        let begin = Instant::now();
        let streams: Vec<ShardPace> = (0..100).map(|_| limiter.describe_stream(&arn("eu-west-1"))).collect();
        join_all(streams.iter().map(ShardPace::start)).await;
        assert_eq!(begin.elapsed(), Duration::from_millis(9_900), "reads do not hold them up");
        limiter.describe_stream(&arn("us-east-1")).start().await.finish(0);
        assert_eq!(begin.elapsed(), Duration::from_millis(9_900), "another region has its own budget");
        reading.finish(0);
    }

    #[tokio::test(start_paused = true)]
    async fn i12_a_turn_that_is_given_back_costs_nobody_anything() {
        let limiter = ReadLimiter::new().with_concurrent_reads(1);
        let (a, b) = (pace(&limiter, "s"), pace(&limiter, "s"));
        let begin = Instant::now();
        drop(a.start().await);
        a.take_turn().await;
        a.give_turn_back();
        assert_eq!(begin.elapsed(), SPACING);
        let reading = b.start().await;
        assert_eq!(begin.elapsed(), SPACING, "neither the pace nor the permit");
        reading.finish(0);
        drop(a.start().await);
        assert_eq!(begin.elapsed(), SPACING * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_gives_up_waiting_does_not_hold_up_the_others() {
        let limiter = ReadLimiter::new();
        let (a, b) = (pace(&limiter, "s"), pace(&limiter, "s"));
        let begin = Instant::now();
        a.start().await.finish(0);
        assert!(timeout(Duration::from_millis(50), a.start()).await.is_err());
        b.start().await.finish(0);
        assert_eq!(begin.elapsed(), SPACING);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_shards_are_forgotten_but_those_in_use_or_still_waiting_are_not() {
        let limiter = ReadLimiter::new();
        let kept = pace(&limiter, "kept");
        for i in 0..1000 {
            pace(&limiter, &format!("idle-{i}")).start().await.finish(0);
            advance(SPACING).await;
        }
        let registry = limiter.pacing.as_ref().unwrap();
        let known = registry.lock().shards.len();
        assert!(known <= SMALL_REGISTRY, "{known} shards are remembered");
        assert!(registry.lock().shards.values().any(|slot| Arc::ptr_eq(slot, kept.slot.as_ref().unwrap())));
    }

    #[tokio::test(start_paused = true)]
    async fn without_pacing_nobody_waits() {
        let limiter = ReadLimiter::without_pacing();
        let begin = Instant::now();
        for _ in 0..1000 {
            pace(&limiter, "s").start().await.finish(10 * 1024 * 1024);
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_in_flight_are_bounded_over_all_shards_but_waiting_for_a_turn_is_not_in_flight() {
        let limiter = ReadLimiter::new().with_concurrent_reads(1);
        let (a, b) = (pace(&limiter, "a"), pace(&limiter, "b"));
        a.start().await.finish(10 * 1024 * 1024);
        let waits = a.start();
        tokio::pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        let reading =
            timeout(Duration::from_millis(1), b.start()).await.expect("the waiting reader holds no permit");
        assert!(timeout(Duration::from_secs(60), &mut waits).await.is_err(), "one read is in flight");
        drop(reading);
        assert!(timeout(Duration::from_millis(1), waits).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_whose_shard_was_slowed_down_while_it_waited_for_a_permit_holds_none_meanwhile() {
        let limiter = ReadLimiter::new().with_concurrent_reads(2);
        let (s, same, other, last) =
            (pace(&limiter, "s"), pace(&limiter, "s"), pace(&limiter, "other"), pace(&limiter, "last"));
        let begin = Instant::now();
        let (large, _held) = (s.start().await, other.start().await);
        let waits = same.start();
        tokio::pin!(waits);
        assert!(timeout(SPACING * 2, &mut waits).await.is_err(), "both permits are in use");
        large.finish(10 * 1024 * 1024);
        assert!(timeout(SPACING, &mut waits).await.is_err(), "the page is to be worked off first");
        let free = timeout(Duration::from_millis(1), last.start()).await;
        free.expect("the waiting read holds no permit").finish(0);
        waits.await.finish(0);
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn incident_82_a_mapping_without_permits_holds_up_no_other_mapping_of_the_same_shard() {
        let limiter = ReadLimiter::new().with_concurrent_reads(4);
        let (hanging, healthy) = (limiter.clone().for_source(), limiter.clone().for_source());
        let hung: Vec<ShardPace> = (0..8).map(|n| pace(&hanging, &format!("s{n}"))).collect();
        let mut reads: Vec<_> = hung.iter().map(|shard| Box::pin(shard.start())).collect();
        let held: Vec<_> = reads.iter_mut().filter_map(futures::FutureExt::now_or_never).collect();
        assert_eq!(held.len(), 3, "one permit is kept for the other mapping");
        for n in 0..8 {
            let shard = pace(&healthy, &format!("s{n}"));
            let read = timeout(Duration::from_secs(1), shard.start()).await;
            read.expect("no shard's turn is held by a read that waits for a permit").finish(0);
        }
    }
}
