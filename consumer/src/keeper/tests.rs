//! What only the keeper's own view shows.

use std::collections::BTreeMap;

use shardmill_checkpoint::{
    AppState, Checkpoint, Claim, Fault, FaultyStore, LeaseStore, MemoryStore, NewLease, Operation, Renewal,
    Write,
};
use shardmill_engine::{LeaseKey, Position, Seq, ShardId};
use tokio::time::Instant;

use super::*;

pub(super) fn key(shard: &str) -> LeaseKey {
    LeaseKey {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        stream: "orders".into(),
        epoch: "1700000000".into(),
        shard: ShardId::from(shard),
    }
}

pub(super) fn new_lease(shard: &str) -> NewLease {
    NewLease {
        key: key(shard),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    }
}

fn options(store: impl LeaseStore) -> KeeperOptions {
    KeeperOptions {
        store: Arc::new(store),
        worker: WorkerId::new("a"),
        process: None,
        times: LeaseTimes::new(Duration::from_secs(10)),
        listing_interval: Duration::from_millis(500),
        slots: Arc::new(Semaphore::new(10)),
        clock: ServiceClock::new(),
        mapping: "m".into(),
        about: shardmill_checkpoint::WorkerReport::new(WorkerId::new("a"), Duration::from_secs(10)),
    }
}

#[tokio::test(start_paused = true)]
async fn incident_91_a_machine_that_was_suspended_for_longer_than_its_lease_starts_nothing_more() {
    let store = MemoryStore::new();
    let options = options(store);
    let clock = options.clock.clone();
    let keeper = Keeper::in_current_runtime();
    let (leases, mut grants) = keeper.register(options);
    leases.create(vec![new_lease("shardId-0")]).await.unwrap();
    let listed = BTreeMap::from([(ShardId::from("shardId-0"), Vec::new())]);
    leases.serve(Served { stream: key(""), listed });
    let Grant { held, .. } = grants.recv().await.unwrap();
    assert!(held.is_valid(clock.now().mono));
    // The monotonic clock stands still meanwhile; another host has taken the shard over long ago.
    let before = clock.now();
    crate::suspended::pretend(600_000);
    assert!(!held.is_valid(clock.now().mono), "before the keeper itself has woken up");
    assert!(clock.now().wall.as_millis() - before.wall.as_millis() >= 600_000, "the wall clock went on, too");
    held.lost().cancelled().await;
}

/// How many listings 20 seconds bring.
async fn listings(leases: usize) -> u64 {
    let store = FaultyStore::new(MemoryStore::new());
    let keeper = Keeper::in_current_runtime();
    let (handle, _grants) = keeper.register(options(store.clone()));
    let names: Vec<String> = (0..leases).map(|n| format!("shardId-{n}")).collect();
    handle.create(names.iter().map(|name| new_lease(name)).collect()).await.unwrap();
    let listed = names.iter().map(|name| (ShardId::from(name.as_str()), Vec::new())).collect();
    handle.serve(Served { stream: key(""), listed });
    let before = store.calls(Operation::List);
    tokio::time::sleep(Duration::from_secs(20)).await;
    store.calls(Operation::List) - before
}

#[tokio::test(start_paused = true)]
async fn thousands_of_leases_are_listed_less_often() {
    assert!((36..=42).contains(&listings(10).await), "every 500 ms");
    assert!((11..=15).contains(&listings(4_000).await), "every 1.5 s");
    assert!((7..=10).contains(&listings(20_000).await), "four times in a lease's time");
}

/// Registers a worker that may take any number of leases of shards that have these names.
fn takes_all(
    keeper: &Keeper,
    store: impl LeaseStore,
    names: &[String],
) -> (Leases, mpsc::UnboundedReceiver<Grant>) {
    let slots = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    let (leases, grants) = keeper.register(KeeperOptions { slots, ..options(store) });
    let listed = names.iter().map(|name| (ShardId::from(name.as_str()), Vec::new())).collect();
    leases.serve(Served { stream: key(""), listed });
    (leases, grants)
}

#[tokio::test(start_paused = true)]
async fn a_busy_table_is_asked_for_a_thousand_leases_no_faster_than_it_answers() {
    let store = FaultyStore::new(MemoryStore::renewed_by_heartbeat());
    let names: Vec<String> = (0..1_000).map(|n| format!("shardId-{n:04}")).collect();
    store.create(&names.iter().map(|name| new_lease(name)).collect::<Vec<_>>()).await.unwrap();
    // All of them take three times as long as a call may.
    store.fail_all(Fault::Queue(Duration::from_millis(10)));
    let keeper = Keeper::in_current_runtime();
    let (_leases, mut grants) = takes_all(&keeper, store.clone(), &names);
    let mut held = Vec::new();
    for _ in &names {
        held.push(grants.recv().await.unwrap().held);
    }
    assert_eq!(store.calls(Operation::Acquire), 1_000, "each was answered in time");
    assert!(held.iter().all(|held| !held.lost().is_cancelled()), "heartbeats did not wait behind them");
}

#[tokio::test(start_paused = true)]
async fn workers_that_start_together_on_thousands_of_shards_share_the_creation_of_their_leases() {
    let store = FaultyStore::new(MemoryStore::renewed_by_heartbeat());
    let names: Vec<String> = (0..4_000).map(|n| format!("shardId-{n:04}")).collect();
    let new = || names.iter().map(|name| new_lease(name)).collect();
    store.fail(Operation::Create, Fault::Delay(Duration::from_secs(1)));
    let keeper = Keeper::in_current_runtime();
    let (one, _grants) = takes_all(&keeper, store.clone(), &names);
    let (other, _grants) = takes_all(&keeper, store.clone(), &names);
    let (one, other) = tokio::join!(one.create(new()), other.create(new()));
    assert_eq!(one.unwrap() + other.unwrap(), 4_000);
    let calls = store.calls(Operation::Create);
    assert!((16..=26).contains(&calls), "{calls} of 250 leases each; 32 if each created all");
}

const LEASE: Duration = Duration::from_secs(10);
const LISTING: Duration = Duration::from_millis(500);

/// A busy owner that stops to live, as the store shows it.
struct Busy {
    store: MemoryStore,
    counter: u64,
    handled: u64,
}

impl Busy {
    async fn start(store: MemoryStore) -> Self {
        store.create(&[new_lease("shardId-0")]).await.unwrap();
        let claim = Claim {
            owner: WorkerId::new("b"),
            token: "t".into(),
            process: None,
            lease_time: Some(LEASE),
            seen_heartbeat: 0,
        };
        let write = store.acquire(&key("shardId-0"), 0, &claim).await.unwrap();
        assert_eq!(write, Write::Done { counter: 1 });
        Self { store, counter: 1, handled: 0 }
    }

    async fn beat(&self) {
        self.store.heartbeat(&WorkerReport::new(WorkerId::new("b"), LEASE)).await.unwrap();
    }

    async fn renew(&mut self) {
        let renewal = Renewal { key: key("shardId-0"), counter: self.counter };
        self.store.renew(&[renewal]).await.unwrap();
        self.counter += 1;
    }

    async fn checkpoint(&mut self) {
        self.handled += 1;
        let position = Position::After(Seq::plain(self.handled.to_string()));
        let (key, counter) = (key("shardId-0"), self.counter);
        let write = Checkpoint { key, counter, position, app: AppState::new() };
        let writes = self.store.checkpoint(&[write]).await.unwrap();
        self.counter += 1;
        assert_eq!(writes, [Write::Done { counter: self.counter }]);
    }
}

/// How long after the owner's last sign of life the keeper of another worker has its lease.
async fn succession(store: MemoryStore) -> Duration {
    let mut busy = Busy::start(store.clone()).await;
    let (keeper, by_heartbeat) = (Keeper::in_current_runtime(), store.renews_all());
    let (leases, mut grants) = keeper.register(options(store));
    let listed = BTreeMap::from([(ShardId::from("shardId-0"), Vec::new())]);
    leases.serve(Served { stream: key(""), listed });
    for _ in 0..8 {
        busy.beat().await;
        busy.renew().await;
        tokio::time::sleep(LEASE / 4).await;
    }
    busy.beat().await;
    busy.checkpoint().await;
    let last = Instant::now();
    if by_heartbeat {
        // What it sent before it died may still arrive, and may be seen late: it proves nothing about its life.
        for _ in 0..9 {
            tokio::time::sleep(LEASE / 10).await;
            busy.checkpoint().await;
        }
    }
    let Grant { lease, .. } = grants.recv().await.unwrap();
    assert_eq!(
        lease.checkpoint,
        Position::After(Seq::plain(busy.handled.to_string())),
        "no write is passed over"
    );
    last.elapsed()
}

#[tokio::test(start_paused = true)]
async fn i11_a_busy_owner_is_succeeded_a_lease_time_after_its_last_sign_of_life() {
    for store in [MemoryStore::new(), MemoryStore::renewed_by_heartbeat()] {
        let by_heartbeat = store.renews_all();
        let waited = succession(store).await;
        // One listing shows the last sign of life, and one that the lease is free.
        let bound = LEASE..=LEASE + 2 * LISTING;
        assert!(bound.contains(&waited), "{waited:?}, by heartbeat: {by_heartbeat}");
    }
}
