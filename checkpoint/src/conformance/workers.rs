//! Workers that report themselves, next to the leases. A store that keeps none passes.

use std::time::Duration;

use super::{Store, claim, get, owned, worker};
use crate::{Claim, Heartbeat, ProcessIdentity, WorkerRecord, WorkerReport, Write};

fn report(name: &str) -> WorkerReport {
    WorkerReport::new(worker(name), Duration::from_millis(10_500))
}

/// The worker's heartbeat since.
async fn beat(store: &Store, report: &WorkerReport) -> u64 {
    match store.heartbeat(report).await.unwrap() {
        Heartbeat::Written { heartbeat } => heartbeat,
        Heartbeat::Evicted => panic!("{} is evicted", report.id),
    }
}

async fn workers(store: &Store) -> Vec<WorkerRecord> {
    let mut workers = store.list_readable().await.unwrap().workers;
    workers.sort_by(|a, b| a.report.id.cmp(&b.report.id));
    workers
}

/// Whether the store keeps workers. One that does keeps all that they report.
async fn keeps_workers(store: &Store) -> bool {
    let heartbeat = beat(store, &report("probe")).await;
    let keeps = !workers(store).await.is_empty();
    store.forget_worker(&worker("probe"), heartbeat).await.unwrap();
    assert!(keeps || !store.renews_all(), "a heartbeat cannot renew leases unless it is kept");
    keeps
}

pub(super) async fn a_worker_is_listed_as_it_reported_itself_last(store: Store) {
    if !keeps_workers(&store).await {
        return;
    }
    let odd = "a \u{1f980} 'b' \"c\"";
    let process = ProcessIdentity { host: odd.into(), pid: 4_000_000_000, started: 1 << 40 };
    let full = WorkerReport {
        process: Some(process),
        stopping: true,
        leases: 12,
        records_per_minute: Some(1 << 40),
        maximum_leases: Some(40),
        version: "1.2.3".into(),
        host: odd.into(),
        started: 1_700_000_000_123,
        ..report(odd)
    };
    let first = WorkerReport {
        stopping: false,
        leases: 0,
        process: None,
        records_per_minute: None,
        maximum_leases: None,
        ..full.clone()
    };
    for report in [&first, &full, &first] {
        beat(&store, report).await;
        let listed: Vec<WorkerReport> =
            workers(&store).await.into_iter().map(|record| record.report).collect();
        assert_eq!(listed, std::slice::from_ref(report));
    }
    assert_eq!(store.list().await.unwrap(), [], "a worker is no lease");
}

pub(super) async fn each_heartbeat_changes_its_workers_number_and_no_others(store: Store) {
    if !keeps_workers(&store).await {
        return;
    }
    beat(&store, &report("a")).await;
    beat(&store, &report("b")).await;
    let numbers = async || workers(&store).await.iter().map(|record| record.heartbeat).collect::<Vec<_>>();
    let before = numbers().await;
    let heartbeat = beat(&store, &report("a")).await;
    let after = numbers().await;
    assert_eq!(after[0], heartbeat, "the answer names it");
    assert!(after[0] != before[0] && after[1] == before[1], "{before:?} {after:?}");
    assert_eq!(numbers().await, after, "looking is no sign of life");
}

pub(super) async fn a_worker_that_is_forgotten_is_gone_and_may_come_back(store: Store) {
    if !keeps_workers(&store).await {
        return;
    }
    let lease = owned(&store, "shardId-0", "a").await;
    let heartbeat = beat(&store, &report("a")).await;
    beat(&store, &report("b")).await;
    store.forget_worker(&worker("a"), heartbeat).await.unwrap();
    store.forget_worker(&worker("a"), heartbeat).await.unwrap();
    store.forget_worker(&worker("unknown"), heartbeat).await.unwrap();
    let names = async || {
        let workers = workers(&store).await.into_iter();
        workers.map(|record| record.report.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["b"]);
    assert_eq!(get(&store, &lease).await.owner, Some(worker("a")), "its leases stay as they are");
    // Where workers renew all leases at once, the first answer may be that the old life has ended.
    if store.heartbeat(&report("a")).await.unwrap() == Heartbeat::Evicted {
        beat(&store, &report("a")).await;
    }
    assert_eq!(names().await, ["a", "b"]);
}

pub(super) async fn i11_a_heartbeat_that_renews_all_keeps_its_leases_from_others(store: Store) {
    if !store.renews_all() {
        return;
    }
    beat(&store, &report("a")).await;
    beat(&store, &report("b")).await;
    let lease = owned(&store, "shardId-0", "a").await;
    let before = get(&store, &lease).await;
    beat(&store, &report("b")).await;
    assert_eq!(get(&store, &lease).await, before, "another worker's heartbeat is none of the owner's");
    beat(&store, &report("a")).await;
    let alive = get(&store, &lease).await;
    assert!(alive.heartbeat != before.heartbeat && alive.counter == before.counter, "{before:?} {alive:?}");
    let late = Claim { seen_heartbeat: before.heartbeat, ..claim("b", "t") };
    let write = store.acquire(&lease, alive.counter, &late).await.unwrap();
    assert!(matches!(write, Write::Refused { .. }), "it was alive after all: {write:?}");
    assert_eq!(get(&store, &lease).await, alive);
    beat(&store, &report("a")).await;
}

pub(super) async fn i10_a_worker_that_was_evicted_learns_of_it_by_its_next_heartbeat(store: Store) {
    if !store.renews_all() {
        return;
    }
    beat(&store, &report("a")).await;
    beat(&store, &report("b")).await;
    let [taken, left] = [owned(&store, "shardId-0", "a").await, owned(&store, "shardId-1", "a").await];
    let lease = get(&store, &taken).await;
    let fits = Claim { seen_heartbeat: lease.heartbeat, ..claim("b", "t") };
    let counter = lease.counter + 1;
    assert_eq!(store.acquire(&taken, lease.counter, &fits).await.unwrap(), Write::Done { counter });
    assert_eq!(store.heartbeat(&report("a")).await.unwrap(), Heartbeat::Evicted);
    // It goes on under its name, and what it had is not alive by that.
    let orphan = get(&store, &left).await;
    for _ in 0..3 {
        beat(&store, &report("a")).await;
    }
    assert_eq!(get(&store, &left).await, orphan, "the lease of an earlier life stays dead");
    let fits = Claim { seen_heartbeat: orphan.heartbeat, ..claim("b", "u") };
    let counter = orphan.counter + 1;
    assert_eq!(store.acquire(&left, orphan.counter, &fits).await.unwrap(), Write::Done { counter });
    beat(&store, &report("a")).await;
}

pub(super) async fn i11_during_a_handoff_the_old_owners_heartbeat_keeps_the_lease(store: Store) {
    if !store.renews_all() {
        return;
    }
    beat(&store, &report("a")).await;
    beat(&store, &report("b")).await;
    let key = owned(&store, "shardId-0", "a").await;
    store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    let before = get(&store, &key).await;
    beat(&store, &report("b")).await;
    assert_eq!(get(&store, &key).await, before, "the next owner does not work on it yet");
    beat(&store, &report("a")).await;
    let alive = get(&store, &key).await;
    assert!(alive.heartbeat != before.heartbeat, "{before:?} {alive:?}");
    let late = Claim { seen_heartbeat: before.heartbeat, ..claim("c", "t") };
    let write = store.acquire(&key, alive.counter, &late).await.unwrap();
    assert!(matches!(write, Write::Refused { .. }), "the old owner lives: {write:?}");
}

/// A worker's record is removed while it holds a lease; a later run under its name is another life.
pub(super) async fn i11_a_lease_of_a_forgotten_life_is_not_kept_by_the_next_one(one: Store, other: Store) {
    if !one.renews_all() {
        return;
    }
    beat(&one, &report("a")).await;
    let lease = owned(&one, "shardId-0", "a").await;
    let last = beat(&one, &report("a")).await;
    one.forget_worker(&worker("a"), last).await.unwrap();
    beat(&other, &report("a")).await;
    let orphan = get(&other, &lease).await;
    for _ in 0..3 {
        beat(&other, &report("a")).await;
    }
    assert_eq!(get(&other, &lease).await, orphan);
    assert_eq!(one.heartbeat(&report("a")).await.unwrap(), Heartbeat::Evicted, "the former run learns of it");
}

/// The order to forget a worker was on its way for long: it has come back under its name since.
pub(super) async fn i10_a_late_forgetting_does_not_end_a_later_life(one: Store, other: Store) {
    if !keeps_workers(&one).await {
        return;
    }
    let former = beat(&one, &report("a")).await;
    // The later life begins before its first heartbeat where it has taken a lease.
    let lease = owned(&other, "shardId-0", "a").await;
    if other.renews_all() {
        one.forget_worker(&worker("a"), former).await.unwrap();
    }
    beat(&other, &report("a")).await;
    let (alive, held) = (workers(&other).await, get(&other, &lease).await);
    one.forget_worker(&worker("a"), former).await.unwrap();
    assert_eq!((workers(&other).await, get(&other, &lease).await), (alive, held));
    let last = beat(&other, &report("a")).await;
    one.forget_worker(&worker("a"), last).await.unwrap();
    assert_eq!(workers(&one).await, []);
}

pub(super) async fn two_handles_see_each_others_workers(one: Store, other: Store) {
    if !keeps_workers(&one).await {
        return;
    }
    beat(&one, &report("a")).await;
    beat(&other, &report("b")).await;
    assert_eq!(workers(&one).await, workers(&other).await);
    assert_eq!(workers(&one).await.len(), 2);
}

/// A worker is one application's.
pub(super) async fn workers_are_separate(one: &Store, other: &Store) {
    if !keeps_workers(one).await {
        return;
    }
    beat(one, &report("a")).await;
    assert_eq!(workers(other).await, []);
    beat(other, &report("a")).await;
    let mine = workers(one).await;
    let heartbeat = beat(other, &report("a")).await;
    assert_eq!(workers(one).await, mine);
    other.forget_worker(&worker("a"), heartbeat).await.unwrap();
    assert_eq!(workers(one).await, mine);
}
