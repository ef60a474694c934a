//! What a seed draws before its run begins.

use std::time::Duration;

use fastrand::Rng;
use shardmill::engine::MappingBuilder;

use crate::support::mapping;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) workers: usize,
    pub(crate) shards: u32,
    /// A worker's heartbeat renews all its leases; else each lease is renewed.
    pub(crate) by_heartbeat: bool,
    /// Only joins, orderly stops, splits and merges: with one lane nothing is handled twice.
    pub(crate) orderly: bool,
    pub(crate) lanes: usize,
    /// The stream is read by the real source over the SDK, which costs ten times as much.
    pub(crate) wire: bool,
    /// How long a call takes at most, each way, in milliseconds.
    pub(crate) latency: u64,
    batch: usize,
    /// How long a handler takes at most.
    pub(crate) takes: Duration,
    /// How many percent of the invocations fail.
    pub(crate) failing: u32,
    pub(crate) keys: usize,
    pub(crate) writes: Duration,
    /// How long things happen.
    pub(crate) lasts: Duration,
    /// The time between two events at most.
    pub(crate) pace: Duration,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let orderly = rng.u32(0..4) == 0;
        let lanes = *rng.choice(&[1, 1, 2, 4]).unwrap_or(&1);
        Self {
            workers: rng.usize(1..=3),
            shards: rng.u32(1..=5),
            by_heartbeat: rng.bool(),
            orderly,
            lanes,
            wire: rng.u32(0..150) == 0,
            latency: *rng.choice(&[12, 12, 40, 120]).unwrap_or(&12),
            batch: rng.usize(2..=20),
            takes: Duration::from_millis(rng.u64(0..=120)),
            failing: if orderly { 0 } else { *rng.choice(&[0, 0, 3]).unwrap_or(&0) },
            keys: rng.usize(8..=32),
            writes: Duration::from_millis(rng.u64(150..=700)),
            lasts: Duration::from_secs(rng.u64(6..=14)),
            pace: Duration::from_millis(rng.u64(250..=1_200)),
        }
    }

    pub(crate) fn mapping(&self) -> MappingBuilder {
        mapping()
            .batch_size(self.batch)
            .parallelization_factor(self.lanes)
            .idle_interval(Duration::from_millis(500))
            .maximum_idle_interval(Duration::from_secs(2))
    }
}
