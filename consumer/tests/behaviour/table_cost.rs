//! What leases in a table cost: the figures of docs/operations.md are counted here, as DynamoDB would bill them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shardmill::checkpoint::{
    AppState, CallOutcome, Claim, DynamoDbStore, KclStore, LeaseStore, NewLease, WorkerId, WorkerReport,
    Write, conformance,
};
use shardmill::engine::{HashRange, LeaseKey, Page};
use shardmill::{
    Consumer, Data, EventSourceMapping, Position, Record, Seq, Shard, ShardId, ShardListing, ShardReader,
    SourceError, StreamSource, StreamSummary, Worker, WorkerOptions,
};
use shardmill_testkit::FakeDynamoDb;

use crate::support::*;

const TABLE: &str = "shardmill";
const EPOCH: &str = "1700000000";
/// A window begins and ends between two calls.
const TOLERANCE: f64 = 0.04;

/// A stream whose shards have a record a second, or none.
#[derive(Clone, Debug)]
struct Steady {
    shards: u32,
    is_busy: bool,
    last: Arc<AtomicU64>,
}

#[async_trait]
impl StreamSource for Steady {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        let width = u128::MAX / u128::from(self.shards);
        let listed = |n: u32| {
            let mut shard = Shard::new(ShardId::new(format!("shardId-{n:012}")), Vec::new());
            let start = width * u128::from(n);
            shard.hash_range = Some(HashRange { start, end: start + width - 1 });
            shard
        };
        Ok(ShardListing::new(EPOCH, (0..self.shards).map(listed).collect()))
    }

    async fn summary(&self) -> Result<Option<StreamSummary>, SourceError> {
        let mut summary = StreamSummary::new(EPOCH);
        summary.open_shards = usize::try_from(self.shards).ok();
        Ok(Some(summary))
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        "steady".into()
    }
}

#[async_trait]
impl ShardReader for Steady {
    async fn next_page(&mut self, _: usize) -> Result<Page, SourceError> {
        if !self.is_busy {
            tokio::time::sleep(Duration::from_secs(10)).await;
            return Ok(Page::default().millis_behind(0));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        // As long as those of Kinesis.
        let number = format!("4966{:052}", self.last.fetch_add(1, Ordering::Relaxed));
        let record = Record::new(Seq::plain(number), Some("key".into()), None, Data::Raw(Bytes::new()));
        Ok(Page::new(vec![record]).millis_behind(0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    DynamoDb,
    Kcl,
}

impl Layout {
    fn open(self, fake: &FakeDynamoDb) -> Arc<dyn LeaseStore> {
        match self {
            Self::DynamoDb => {
                Arc::new(DynamoDbStore::new(&fake.sdk_config(), TABLE, "orders-worker").unwrap())
            }
            Self::Kcl => Arc::new(KclStore::new(&fake.sdk_config(), TABLE, "orders-worker").unwrap()),
        }
    }
}

/// What all workers of a fleet cost in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    write_units: f64,
    read_calls: f64,
    read_units: f64,
}

impl Cost {
    fn is_about(&self, other: &Self) -> bool {
        let about = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * b.max(1.0);
        about(self.write_units, other.write_units)
            && about(self.read_calls, other.read_calls)
            && about(self.read_units, other.read_units)
    }

    /// On demand in us-east-1, a month of 730 hours.
    fn dollars(&self) -> f64 {
        self.write_units.mul_add(0.625, self.read_units * 0.125) * 730.0 / 1e6
    }

    fn and_writes(self, write_units: f64) -> Self {
        Self { write_units: self.write_units + write_units, ..self }
    }
}

/// A fleet that is counted.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    layout: Layout,
    leases: u32,
    workers: u32,
    is_busy: bool,
}

const fn idle(layout: Layout, leases: u32, workers: u32) -> Fleet {
    Fleet { layout, leases, workers, is_busy: false }
}

const fn busy(layout: Layout, leases: u32) -> Fleet {
    Fleet { layout, leases, workers: 1, is_busy: true }
}

/// In a runtime of its own, with which everything ends.
fn counted(fleet: Fleet) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(count(fleet))
}

async fn count(Fleet { layout, leases, workers, is_busy }: Fleet) -> Cost {
    // All leases are read once in it, where that is not done by every listing.
    let window = if layout == Layout::DynamoDb { 60 * u64::from((leases / 100).clamp(1, 10)) } else { 60 };
    let fake = FakeDynamoDb::new();
    let source = Steady { shards: leases, is_busy, last: Arc::default() };
    let run = |n: u32| {
        let host = format!("ip-10-0-{n}-17.us-east-1.compute.internal");
        let options = WorkerOptions::default().id(format!("{host}-{n:06}")).host(host);
        let worker = Worker::start(options.keeper_in_current_runtime()).unwrap();
        let interval = Duration::from_secs(CHECKPOINT_INTERVAL);
        let mapping = EventSourceMapping::builder(ARN, "orders-worker").checkpoint_interval(interval);
        let consumer =
            Consumer::builder(mapping.build().unwrap(), source.clone(), Seen::default().handler("a"));
        launch(consumer.lease_store(layout.open(&fake)).worker(worker))
    };
    let runs: Vec<Running> = (0..workers).map(run).collect();
    let (least, all) = ([leases / workers, leases].map(|n| usize::try_from(n).unwrap())).into();
    until("each has its share", || {
        let shares: Vec<usize> = runs.iter().map(|run| run.report().shards.len()).collect();
        shares.iter().sum::<usize>() == all && shares.iter().all(|share| *share >= least)
    })
    .await;
    pass(Duration::from_secs(10)).await;
    fake.clear_bill();
    pass(Duration::from_secs(window)).await;
    let bill = fake.bill();
    let (items, bytes) = fake.measure(TABLE, if layout == Layout::DynamoDb { "lease#" } else { "shardId" });
    let expected = layout.bytes(leases, workers);
    // The first hash key is short.
    let is_as_expected =
        (bytes as f64 - f64::from(expected)).abs() <= TOLERANCE.mul_add(expected.into(), 40.0);
    assert!(is_busy || is_as_expected, "{items} leases of {leases}: {bytes} bytes, not {expected}");
    let reads: u64 = ["GetItem", "Query", "Scan"].iter().filter_map(|name| bill.calls.get(*name)).sum();
    let in_an_hour = |counted: f64| counted * 3_600.0 / window as f64;
    Cost {
        write_units: in_an_hour(bill.write_units),
        read_calls: in_an_hour(reads as f64),
        read_units: in_an_hour(bill.read_units),
    }
}

/// The sidecar's `CheckpointIntervalMilliseconds` for tables, in seconds.
const CHECKPOINT_INTERVAL: u64 = 5;

impl Layout {
    /// The bytes of the leases' items while they are idle.
    fn bytes(self, leases: u32, workers: u32) -> u32 {
        match self {
            Self::DynamoDb => 504 * leases,
            Self::Kcl => 645 * leases + 230 * workers,
        }
    }

    /// What an idle fleet costs by its intervals and the sizes of its items.
    fn model(self, leases: u32, workers: u32) -> Cost {
        let (n, fleet) = (f64::from(leases), f64::from(workers));
        let interval = (self.listing_interval() + n * 0.000_25).min(2.5);
        // And one that discovery asks for, every 30 s.
        let listings = 3_600.0 / interval + 120.0;
        let whole = units(self.bytes(leases, workers));
        match self {
            Self::DynamoDb => {
                // Workers are looked at by the first listing that is a second after the last look.
                let looks = 3_600.0 / (interval * (1.0 / interval).ceil());
                let full = 60.0 / (n / 100.0).floor().clamp(1.0, 10.0);
                let pages = (f64::from(self.bytes(leases, workers)) / 1e6).ceil();
                Cost {
                    write_units: fleet * 1_440.0,
                    read_calls: fleet * (listings + looks + full * pages),
                    read_units: fleet * (listings + looks * units(256 * workers) + full * whole),
                }
            }
            Self::Kcl => {
                let first = (f64::from(self.bytes(1, workers)) / 1_024.0).ceil();
                let pages = (f64::from(self.bytes(leases, workers)) / 1e6).ceil();
                Cost {
                    write_units: 1_080.0 * (n - 1.0 + first) + fleet * 1_440.0 * first,
                    read_calls: fleet * listings * pages,
                    read_units: fleet * listings * whole,
                }
            }
        }
    }

    const fn listing_interval(self) -> f64 {
        match self {
            Self::DynamoDb => 0.5,
            Self::Kcl => 1.0,
        }
    }

    /// What a busy shard writes in addition.
    const fn busy(self) -> f64 {
        match self {
            Self::DynamoDb => 720.0,
            // Two writes in five seconds, as a checkpoint counts as a renewal, instead of three in ten.
            Self::Kcl => 360.0,
        }
    }
}

/// Units of a consistent read.
fn units(bytes: u32) -> f64 {
    f64::from(bytes.div_ceil(4_096).max(1))
}

/// What KCL writes for a checkpoint every five seconds, which puts off no renewal.
const BUSY_IN_JAVA: f64 = 720.0;

/// KCL 3.5 with its defaults: a renewal of each lease every 3.3 s, each worker's metrics and the leader's lock every 30 s;
/// the leader scans the table every 20 s, and each worker asks the index for its leases every 10 s. Its reads may be old,
/// which halves them. A row has about 360 bytes, an entry of the index 180.
fn java(leases: u32, workers: u32) -> Cost {
    let fleet = f64::from(workers);
    let (scan, query) = (units(360 * leases) / 2.0, units(180 * leases / workers) / 2.0);
    Cost {
        write_units: f64::from(leases) * 3_600.0 / (10.0 / 3.0 - 0.025) + fleet * 120.0 + 120.0,
        read_calls: 180.0 * (f64::from(360 * leases) / 1e6).ceil() + fleet * 360.0,
        read_units: 180.0 * scan + fleet * 360.0 * query,
    }
}

/// The rows of the manual's tables whose first cell is `kind`, as numbers.
fn rows(kind: &str) -> Vec<Vec<f64>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let of_kind = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (first, rest) = cells.split_first()?;
        (*first == kind).then(|| rest.iter().map(|cell| cell.replace(',', "").parse().unwrap()).collect())
    };
    text.lines().filter_map(of_kind).collect()
}

#[test]
fn what_a_fleet_costs_at_the_table_is_what_its_intervals_and_items_cost() {
    use Layout::{DynamoDb, Kcl};
    let mut fleets = vec![idle(DynamoDb, 1, 1), idle(DynamoDb, 30, 1), idle(DynamoDb, 4, 2)];
    fleets.extend([idle(Kcl, 1, 1), idle(Kcl, 10, 1), idle(Kcl, 4, 2)]);
    fleets.extend([busy(DynamoDb, 10), busy(Kcl, 10)]);
    if std::env::var_os("SHARDMILL_TEST_FLEETS").is_some() {
        for layout in [DynamoDb, Kcl] {
            fleets.extend([idle(layout, 100, 5), idle(layout, 1, 20), idle(layout, 1_000, 1)]);
        }
    }
    for fleet in fleets {
        let Fleet { layout, leases, workers, is_busy } = fleet;
        let cost = counted(fleet);
        let model = layout.model(leases, workers);
        let model = model.and_writes(if is_busy { f64::from(leases) * layout.busy() } else { 0.0 });
        assert!(cost.is_about(&model), "{fleet:?}: the fake bills {cost:?}, the intervals say {model:?}");
    }
}

#[test]
fn what_a_fleet_costs_at_the_table_in_the_operations_manual_is_that() {
    let fleets = [1, 100, 1_000, 10_000].map(|leases| [1, 5, 20].map(|workers| (leases, workers)));
    type CostOf<'a> = &'a dyn Fn(u32, u32) -> Cost;
    let java: CostOf<'_> = &java;
    let [own, kcl]: [CostOf<'_>; 2] =
        [&|leases, workers| Layout::DynamoDb.model(leases, workers), &|leases, workers| {
            Layout::Kcl.model(leases, workers)
        }];
    for (kind, cost) in [("`dynamodb:`", own), ("`kcl:`", kcl), ("KCL 3.5", java)] {
        let expected = fleets.as_flattened().iter().map(|(leases, workers)| {
            let Cost { write_units, read_calls, read_units } = cost(*leases, *workers);
            let counts = [write_units, read_calls, read_units].map(f64::round);
            [[f64::from(*leases), f64::from(*workers)].as_slice(), &counts].concat()
        });
        assert_eq!(rows(kind), expected.collect::<Vec<_>>(), "{kind}");
    }
    let busy = [Layout::DynamoDb.busy(), Layout::Kcl.busy(), BUSY_IN_JAVA];
    assert_eq!(rows("a busy shard, in addition"), [busy]);
    let fleet = [own, kcl, java].map(|cost| cost(1_000, 5));
    let dollars = |writes: [f64; 3]| {
        let of = |n: usize| (fleet[n].and_writes(1_000.0 * writes[n]).dollars() * 100.0).round() / 100.0;
        [[0, 1, 2].map(of).to_vec()]
    };
    assert_eq!(rows("1,000 idle leases, 5 workers"), dollars([0.0; 3]));
    assert_eq!(rows("1,000 busy leases, 5 workers"), dollars(busy));
}

#[tokio::test(start_paused = true)]
async fn both_stores_pass_on_the_fake_that_counts_what_they_cost() {
    let fake = FakeDynamoDb::new();
    // That one makes thousands of calls.
    for check in conformance::CHECKS.iter().filter(|check| check.name != "many_leases_are_all_listed") {
        let store = DynamoDbStore::new(&fake.sdk_config(), check.name, "orders").unwrap();
        check.run(Arc::new(store)).await;
        let store = KclStore::new(&fake.sdk_config(), &format!("{}-kcl", check.name), "orders").unwrap();
        check.run(Arc::new(store)).await;
    }
    assert!(fake.bill().write_units > 100.0);
}

#[tokio::test(start_paused = true)]
async fn leases_that_are_taken_together_are_told_of_together() {
    let fake = FakeDynamoDb::new();
    let open = || DynamoDbStore::new(&fake.sdk_config(), TABLE, "orders").unwrap();
    let (store, other) = (open(), open());
    let key = |n: u32| LeaseKey {
        account: "123456789012".into(),
        region: "us-east-1".into(),
        stream: "orders".into(),
        epoch: EPOCH.into(),
        shard: ShardId::new(format!("shardId-{n:012}")),
    };
    let new = |n| NewLease {
        key: key(n),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    };
    let leases: Vec<NewLease> = (0..100).map(new).collect();
    store.create(&leases).await.unwrap();
    other.list().await.unwrap();
    fake.clear_bill();
    let claim = Claim {
        owner: WorkerId::new("a"),
        token: "token".into(),
        process: None,
        lease_time: Some(Duration::from_secs(10)),
        seen_heartbeat: 0,
    };
    let taken = leases.iter().map(|new| store.acquire(&new.key, 0, &claim));
    for write in futures::future::join_all(taken).await {
        assert_eq!(write.unwrap(), Write::Done { counter: 1 });
    }
    let writes = fake.bill().calls["UpdateItem"];
    assert!((101..120).contains(&writes), "{writes} instead of two for each lease");
    let listed = other.list().await.unwrap();
    assert!(listed.iter().all(|lease| lease.owner.is_some()), "the other worker is told of all");
}

#[tokio::test(start_paused = true)]
async fn a_stores_usage_is_what_the_service_bills_for_its_application() {
    let fake = FakeDynamoDb::new();
    let store = DynamoDbStore::new(&fake.sdk_config(), TABLE, "orders").unwrap();
    let another = store.for_application("payments").unwrap();
    another.list().await.unwrap();
    let others = another.usage();
    fake.clear_bill();
    store.note("name", "value").await.unwrap();
    store.heartbeat(&WorkerReport::new(WorkerId::new("a"), Duration::from_secs(10))).await.unwrap();
    store.list().await.unwrap();
    store.forget_worker(&WorkerId::new("a"), 7).await.unwrap();
    let (bill, usage) = (fake.bill(), store.usage());
    let calls: BTreeMap<String, u64> = usage.calls.iter().fold(BTreeMap::new(), |mut calls, call| {
        let ((operation, _), count) = call;
        *calls.entry((*operation).to_owned()).or_default() += count;
        calls
    });
    assert_eq!(calls, bill.calls);
    assert_eq!(usage.calls[&("DeleteItem", CallOutcome::Refused)], 1, "another heartbeat was seen");
    // A refusal is billed and says nothing of it.
    assert_eq!((usage.read_units, usage.write_units + 1.0), (bill.read_units, bill.write_units));
    assert_eq!(another.usage(), others);
}
