//! Streams that are split and merged while they are written, read by several sidecars that are killed and come back:
//! nothing is lost, and the order of every partition key holds from generation to generation.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::types::Shard;
use fastrand::Rng;
use shardmill_testkit::FakeKinesis;
use shardmill_tests::observe::{
    assert_nothing_lost_in_order_per_key_over_reshards, assert_one_at_a_time, assert_one_at_a_time_per_key,
    assert_parents_first, is_complete,
};
use shardmill_tests::{
    Config, End, Function, KEYS, Plan, Sidecar, Stream, Writer, is_open, parents_of, seeded, until,
};

const WORKERS: usize = 3;
/// Two of them can hold the sixteen shards of the widest generation.
const MOST_LEASES: usize = 8;
const KILLS: usize = 8;

fn random(rng: &mut Rng, milliseconds: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(milliseconds))
}

/// Sidecars that share the leases.
struct Fleet {
    config: Config,
    function: Function,
    workers: Vec<Sidecar>,
    names: Vec<String>,
    /// Those that were killed: what they logged is printed with the others' logs.
    gone: Vec<Sidecar>,
}

impl Fleet {
    async fn start(stream: &Stream, function: &Function, lanes: usize) -> Self {
        let config = Config::new(stream).set("BatchSize", 20).set("Worker.MaximumLeases", MOST_LEASES);
        let config = config.set("ParallelizationFactor", lanes);
        let (workers, gone) = (Vec::new(), Vec::new());
        let names = (0..WORKERS).map(|n| format!("worker-{n}")).collect();
        let mut fleet = Self { config, function: function.clone(), workers, names, gone };
        for n in 0..WORKERS {
            let worker = fleet.worker(n).await;
            fleet.workers.push(worker);
        }
        fleet
    }

    async fn worker(&self, n: usize) -> Sidecar {
        Sidecar::worker(&self.config, &self.function, &self.names[n]).await
    }

    /// Kills one, inside an invocation if it comes to one soon; after a while it comes back, as itself or under another
    /// name.
    async fn kill_one(&mut self, rng: &mut Rng) {
        let n = rng.usize(..WORKERS);
        for _ in 0..rng.u32(..300) {
            if self.function.open().iter().any(|call| call.caller == self.names[n]) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.workers[n].kill_9();
        tokio::time::sleep(random(rng, 0..700)).await;
        if rng.bool() {
            self.names[n] = format!("worker-{n}-{}", self.gone.len());
        }
        let back = self.worker(n).await;
        self.gone.push(std::mem::replace(&mut self.workers[n], back));
    }
}

/// How the stream grows.
#[derive(Clone, Copy)]
enum Growth {
    /// All shards at once.
    UpdateShardCount,
    /// One after the other, where there is no UpdateShardCount.
    SplitShard,
}

/// 4 -> 8 -> 16 shards, and back to 3.
async fn reshard(stream: &Stream, growth: Growth, rng: &mut Rng) {
    for shards in [8, 16] {
        tokio::time::sleep(random(rng, 300..1500)).await;
        match growth {
            Growth::UpdateShardCount => stream.update_shard_count(shards).await,
            Growth::SplitShard => {
                for shard in stream.open_shards().await {
                    stream.split(shard.shard_id()).await;
                }
            }
        }
    }
    loop {
        tokio::time::sleep(random(rng, 0..600)).await;
        let mut open = stream.open_shards().await;
        if open.len() == 3 {
            return;
        }
        let start =
            |shard: &Shard| shard.hash_key_range().unwrap().starting_hash_key().parse::<u128>().unwrap();
        open.sort_by_key(start);
        let n = rng.usize(..open.len() - 1);
        stream.merge(open[n].shard_id(), open[n + 1].shard_id()).await;
    }
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn a_stream_is_resharded_under_load(endpoint: &str, growth: Growth, lanes: usize) {
    let mut rng = seeded();
    let mut stream = Stream::create(endpoint, "reshard", 4).await;
    let function = Function::behaving(|call| {
        let part = |n| Duration::from_millis((call.number * 7 + n) % 60);
        Plan { before: part(0), after: part(31), ..Plan::success() }
    })
    .await;
    let mut fleet = Fleet::start(&stream, &function, lanes).await;
    let writer = Writer::start(&stream);
    until("the first records", async || (function.stored_count() > 4 * KEYS).then_some(())).await;

    let done = AtomicBool::new(false);
    let mut of_shards = rng.fork();
    let resharding = async {
        reshard(&stream, growth, &mut of_shards).await;
        done.store(true, Ordering::Relaxed);
    };
    let killing = async {
        let mut kills = 0;
        while kills < KILLS || !done.load(Ordering::Relaxed) {
            tokio::time::sleep(random(&mut rng, 100..1200)).await;
            fleet.kill_one(&mut rng).await;
            kills += 1;
        }
        kills
    };
    let ((), kills) = tokio::join!(resharding, killing);
    writer.stop(&mut stream).await;
    until("every record is stored", async || is_complete(&stream, &function.stored()).then_some(())).await;

    let shards = stream.shards().await;
    let (store, all) = (fleet.workers[0].store(), shards.len());
    until("every ended shard is at SHARD_END", async || {
        let leases = store.leases();
        let is_right = |shard: &Shard| {
            let lease = leases.get(shard.shard_id());
            lease.is_some_and(|lease| is_open(shard) != (lease.checkpoint == "SHARD_END"))
        };
        (leases.len() == all && shards.iter().all(is_right)).then_some(())
    })
    .await;

    let (stored, calls) = (function.stored(), function.invocations());
    let abandoned = calls.iter().filter(|call| matches!(call.ended, Some((_, End::Abandoned)))).count();
    println!(
        "{all} shards, {} records, {} stored, {} invocations, {kills} kills, {abandoned} invocations cut",
        stream.records().len(),
        stored.len(),
        calls.len()
    );
    assert_eq!(stream.open_shards().await.len(), 3);
    assert_eq!(all, 4 + 8 + 16 + 13);
    assert!(abandoned > 0, "no kill fell inside an invocation");
    assert_nothing_lost_in_order_per_key_over_reshards(&stream, &stored);
    let parents = parents_of(&shards);
    let with = |count| parents.values().filter(|parents| parents.len() == count).count();
    assert_eq!((with(0), with(1), with(2)), (4, 8 + 16, 13), "first, split and merged shards");
    assert_parents_first(&parents, &calls);
    let answered = calls.into_iter().filter(|call| matches!(call.ended, Some((_, End::Answered))));
    let answered: Vec<_> = answered.collect();
    assert_one_at_a_time_per_key(&answered);
    if lanes == 1 {
        assert_one_at_a_time(&answered);
    }
    let callers: BTreeSet<&str> = answered.iter().map(|call| call.caller.as_str()).collect();
    assert!(callers.len() >= WORKERS, "{callers:?} did the work");
}

/// No `ChildShards` in GetRecords: listings alone tell of the children. Several lanes to a shard.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i1_i9_order_per_key_holds_over_reshards_that_only_listings_tell_of() {
    let fake = FakeKinesis::new();
    fake.set_children_told(false);
    let server = fake.serve().await.unwrap();
    a_stream_is_resharded_under_load(&server.url(), Growth::SplitShard, 3).await;
}

mod kinesis_local {
    use shardmill_tests::endpoint;

    use super::{Growth, a_stream_is_resharded_under_load};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs kinesis-local: cargo xtask test"]
    async fn i1_i9_order_per_key_holds_while_a_stream_is_split_and_merged_and_workers_are_killed() {
        let kinesis = endpoint("SHARDMILL_TEST_KINESIS_LOCAL");
        a_stream_is_resharded_under_load(&kinesis, Growth::UpdateShardCount, 1).await;
    }
}
