//! What only the keeper's own view shows.

use std::collections::BTreeMap;

use shardmill_checkpoint::{AppState, MemoryStore, NewLease};
use shardmill_engine::{LeaseKey, Position, ShardId};

use super::*;

fn key(shard: &str) -> LeaseKey {
    LeaseKey {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        stream: "orders".into(),
        epoch: "1700000000".into(),
        shard: ShardId::from(shard),
    }
}

fn options(store: &MemoryStore) -> KeeperOptions {
    KeeperOptions {
        store: Arc::new(store.clone()),
        worker: WorkerId::new("a"),
        process: None,
        times: LeaseTimes::new(Duration::from_secs(10)),
        listing_interval: Duration::from_millis(500),
        slots: Arc::new(Semaphore::new(10)),
        clock: ServiceClock::new(),
        mapping: "m".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn incident_91_a_machine_that_was_suspended_for_longer_than_its_lease_starts_nothing_more() {
    let store = MemoryStore::new();
    let options = options(&store);
    let clock = options.clock.clone();
    let keeper = Keeper::in_current_runtime();
    let (leases, mut grants) = keeper.register(options);
    let new = NewLease {
        key: key("shardId-0"),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    };
    leases.create(vec![new]).await.unwrap();
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
