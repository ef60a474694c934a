//! What only the keeper's own view shows.

use std::collections::BTreeMap;

use shardmill_checkpoint::{AppState, FaultyStore, LeaseStore, MemoryStore, NewLease, Operation};
use shardmill_engine::{LeaseKey, Position, ShardId};

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
