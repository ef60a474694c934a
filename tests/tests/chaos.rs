//! Three sidecars share a DynamoDB table while each is killed, stopped, restarted, and cut off from table and stream,
//! and the stream is split and merged under them. Nothing is lost, the order of every partition key holds, no
//! checkpoint goes back, and nothing that a stored checkpoint covers comes again.
//!
//! `SHARDMILL_TEST_CHAOS_SECONDS` sets for how long.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use shardmill_testkit::{FakeKinesis, FaultProxy, ProxyMode};
use shardmill_tests::observe::{
    assert_nothing_lost_in_order_per_key_over_reshards, assert_one_at_a_time, assert_parents_first,
    is_complete,
};
use shardmill_tests::{
    Config, End, Function, Invocation, LeaseWatch, Plan, Sidecar, Stream, Writer, is_open, parents_of,
    seeded, unique, until, until_within,
};

const WORKERS: usize = 3;
const SHARDS: i32 = 16;
const LEASE: Duration = Duration::from_secs(3);
/// What is behind when the faults end is read on a machine that does other things too.
const DRAINED: Duration = Duration::from_secs(360);

fn random(rng: &mut Rng, most: Duration) -> Duration {
    most.mul_f64(rng.f64())
}

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Kill,
    Pause,
    Restart,
    Table,
    Stream,
}

const ACTS: [Act; 5] = [Act::Kill, Act::Pause, Act::Restart, Act::Table, Act::Stream];

/// How the network to the table or the stream is bad.
fn weather(rng: &mut Rng) -> ProxyMode {
    match rng.u32(..5) {
        0 => ProxyMode::Reset,
        1 => ProxyMode::Refuse,
        2 => ProxyMode::BlackHole,
        3 => ProxyMode::CutAfter(rng.u64(..2_000)),
        _ => ProxyMode::Latency(random(rng, Duration::from_millis(800))),
    }
}

/// A worker, with a network of its own to the table and to the stream.
struct Node {
    base: Config,
    function: Function,
    name: String,
    sidecar: Sidecar,
    table: FaultProxy,
    stream: FaultProxy,
    acts: BTreeMap<Act, usize>,
    /// Those before it: what they logged is printed if the test fails.
    gone: Vec<Sidecar>,
}

impl Node {
    async fn start(base: &Config, function: &Function, name: &str, endpoints: &Endpoints) -> Self {
        let proxy = async |url: &str| FaultProxy::start(url.strip_prefix("http://").unwrap()).await.unwrap();
        let (table, stream) = (proxy(&endpoints.table).await, proxy(&endpoints.stream).await);
        let base = base
            .clone()
            .environment("AWS_ENDPOINT_URL_KINESIS", &stream.url())
            .environment("AWS_ENDPOINT_URL_DYNAMODB", &table.url());
        let sidecar = Sidecar::worker(&base, function, name).await;
        let (function, name) = (function.clone(), name.to_owned());
        Self { base, function, name, sidecar, table, stream, acts: BTreeMap::new(), gone: Vec::new() }
    }

    /// One trouble after the other, until the time is over; then all is well.
    async fn suffer(mut self, mut rng: Rng, end: Instant) -> Self {
        while Instant::now() < end {
            tokio::time::sleep(random(&mut rng, Duration::from_millis(1500))).await;
            assert_eq!(self.sidecar.try_ended(), None, "{} ended by itself", self.name);
            let act = ACTS[rng.usize(..ACTS.len())];
            *self.acts.entry(act).or_default() += 1;
            match act {
                Act::Kill => {
                    self.sidecar.kill_9();
                    tokio::time::sleep(random(&mut rng, LEASE * 2)).await;
                    if rng.bool() {
                        self.name += "-again";
                    }
                    self.succeed().await;
                }
                Act::Pause => {
                    self.sidecar.pause().await;
                    tokio::time::sleep(random(&mut rng, LEASE * 3)).await;
                    self.sidecar.resume();
                }
                Act::Restart => {
                    self.sidecar.terminate();
                    assert!(self.sidecar.ended().await.success());
                    self.succeed().await;
                }
                Act::Table => Self::cut(&self.table, &mut rng).await,
                Act::Stream => Self::cut(&self.stream, &mut rng).await,
            }
        }
        self
    }

    async fn cut(network: &FaultProxy, rng: &mut Rng) {
        network.set(weather(rng)).await.unwrap();
        tokio::time::sleep(random(rng, LEASE * 2)).await;
        network.set(ProxyMode::Pass).await.unwrap();
    }

    async fn succeed(&mut self) {
        let next = Sidecar::worker(&self.base, &self.function, &self.name).await;
        self.gone.push(std::mem::replace(&mut self.sidecar, next));
    }
}

/// How many leases the logs say were lost, by the reason.
fn lost(nodes: &[Node]) -> BTreeMap<String, u64> {
    let mut lost = BTreeMap::new();
    let lines = nodes.iter().flat_map(|node| node.gone.iter().chain([&node.sidecar])).flat_map(Sidecar::log);
    for line in lines.filter(|line| line.contains("lost leases")) {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        *lost.entry(line["why"].to_string()).or_default() += line["leases"].as_u64().unwrap();
    }
    lost
}

struct Endpoints {
    table: String,
    stream: String,
}

/// Splits and merges, around as many open shards as there were at first.
async fn reshard(stream: &Stream, mut rng: Rng, end: Instant) {
    while Instant::now() < end {
        tokio::time::sleep(random(&mut rng, Duration::from_secs(4))).await;
        let mut open = stream.open_shards().await;
        open.sort_by_key(|shard| {
            shard.hash_key_range().unwrap().starting_hash_key().parse::<u128>().unwrap()
        });
        let n = rng.usize(..open.len() - 1);
        let most = usize::try_from(SHARDS).unwrap();
        if open.len() < most || (open.len() == most && rng.bool()) {
            stream.split(open[n].shard_id()).await;
        } else {
            stream.merge(open[n].shard_id(), open[n + 1].shard_id()).await;
        }
    }
}

/// Invocations that began with a record that a checkpoint already covered.
type Covered = Arc<Mutex<Vec<String>>>;

async fn watching(watch: &Arc<LeaseWatch>, covered: &Covered) -> Function {
    let (watch, covered) = (Arc::clone(watch), Arc::clone(covered));
    Function::behaving(move |call| {
        let first = &call.records[0].sequence;
        if watch.is_past(&call.shard, first) {
            let checkpoint = watch.checkpoint(&call.shard);
            covered
                .lock()
                .unwrap()
                .push(format!("{} {first} to {}: {checkpoint:?}", call.shard, call.caller));
        }
        let part = |n| Duration::from_millis((call.number * 7 + n) % 40);
        Plan { before: part(0), after: part(21), ..Plan::success() }
    })
    .await
}

#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn three_workers_live_through_it(layout: &str) {
    let seconds = std::env::var("SHARDMILL_TEST_CHAOS_SECONDS").ok().map_or(60, |text| text.parse().unwrap());
    let mut rng = seeded();
    // An emulator stops listening once enough connections were reset, and others use it.
    let kinesis = FakeKinesis::new().serve().await.unwrap();
    let table = shardmill_tests::endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL");
    let endpoints = Endpoints { table, stream: kinesis.url() };
    let mut stream = Stream::create(&endpoints.stream, "chaos", SHARDS).await;
    let table = unique("chaos");
    let watch = Arc::new(LeaseWatch::start(&endpoints.table, &table));
    let covered = Covered::default();
    let function = watching(&watch, &covered).await;
    let base = Config::new(&stream)
        .set("BatchSize", 100)
        .set("Checkpoints", format!("{layout}:{table}"))
        .set("CheckpointIntervalMilliseconds", 500)
        .set("Worker.LeaseSeconds", LEASE.as_secs())
        .set("Aws", serde_json::json!({ "Region": "us-east-1" }));
    let writer = Writer::start(&stream);
    let mut nodes = Vec::new();
    for n in 0..WORKERS {
        nodes.push(Node::start(&base, &function, &format!("worker-{n}"), &endpoints).await);
    }
    until("the first records", async || (function.stored_count() > 400).then_some(())).await;

    let end = Instant::now() + Duration::from_secs(seconds);
    let resharding = reshard(&stream, rng.fork(), end);
    let mut suffering = nodes.into_iter().map(|node| node.suffer(rng.fork(), end));
    let mut next = || suffering.next().unwrap();
    let (one, two, three, ()) = tokio::join!(next(), next(), next(), resharding);
    let nodes = [one, two, three];
    writer.stop(&mut stream).await;
    until_within(DRAINED, "every record is stored", async || {
        is_complete(&stream, &function.stored()).then_some(())
    })
    .await;
    let shards = stream.shards().await;
    until("every ended shard is at SHARD_END", async || {
        let has_ended = |shard: &str| watch.checkpoint(shard).as_deref() == Some("SHARD_END");
        shards.iter().all(|shard| is_open(shard) != has_ended(shard.shard_id())).then_some(())
    })
    .await;

    let (stored, calls) = (function.stored(), function.invocations());
    let distinct: BTreeSet<_> = stored.iter().map(|record| (&record.shard, &record.sequence)).collect();
    let acts: Vec<_> = nodes.iter().map(|node| &node.acts).collect();
    println!(
        "{layout}: {seconds} s, {} shards, {} records, {} handled twice, {} invocations, {} looks at the table; {acts:?}; \
         leases lost: {:?}",
        shards.len(),
        distinct.len(),
        stored.len() - distinct.len(),
        calls.len(),
        watch.looks(),
        lost(&nodes),
    );
    assert_nothing_lost_in_order_per_key_over_reshards(&stream, &stored);
    assert_parents_first(&parents_of(&shards), &calls);
    let is_answered = |call: &Invocation| matches!(call.ended, Some((_, End::Answered)));
    assert_one_at_a_time(&calls.into_iter().filter(is_answered).collect::<Vec<_>>());
    assert_eq!(watch.went_back(), [""; 0], "checkpoints only move forward (I2)");
    assert_eq!(*covered.lock().unwrap(), [""; 0], "no invocation begins below a stored checkpoint");
    assert!(watch.looks() > 20, "{} looks", watch.looks());
    for mut node in nodes {
        node.sidecar.terminate();
        assert!(node.sidecar.ended().await.success());
    }
}

mod dynamodb_local {
    use super::three_workers_live_through_it;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn chaos_on_a_table_of_our_own_layout_loses_nothing_and_repeats_nothing_stored() {
        three_workers_live_through_it("dynamodb").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn chaos_on_a_table_of_kcls_layout_loses_nothing_and_repeats_nothing_stored() {
        three_workers_live_through_it("kcl").await;
    }
}
