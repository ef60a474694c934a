//! Next to workers of Amazon's KCL on one table: who takes leases from whom, and what a leader decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shardmill::checkpoint::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, MemoryStore, NewLease, Ownership, Renewal,
    StoreError, WorkerId, WorkerRecord, WorkerReport, Write,
};
use shardmill::engine::{LeaseKey, ShardId};
use tokio::time::Instant;

use crate::support::*;

/// How often leases are given, or taken from a worker of KCL, for balance.
const INTERVAL: Duration = Duration::from_secs(5);

/// A store that says of its leases what one in KCL's layout says: workers called `java...` are KCL's.
#[derive(Clone, Debug, Default)]
struct Shared {
    inner: MemoryStore,
    led: Arc<AtomicBool>,
}

impl Shared {
    /// With four leases that no worker has: while a leader decides, a consumer only creates them.
    async fn led(fake: &shardmill_testkit::FakeKinesis, seen: &Seen) -> (Self, Running) {
        let store = Self::default();
        store.led.store(true, Ordering::Relaxed);
        let run = launch(consumer(fake, &worker("a"), mapping(), seen.handler("a"), &store));
        for _ in 0..1_000 {
            if store.leases().await.len() == 4 {
                break;
            }
            pass(Duration::from_millis(20)).await;
        }
        (store, run)
    }

    async fn leases(&self) -> Vec<Lease> {
        self.inner.list().await.unwrap()
    }

    async fn owned_by(&self, owner: &str) -> Vec<LeaseKey> {
        let of = |lease: &Lease| lease.owner.as_ref().is_some_and(|id| id.as_str() == owner);
        self.leases().await.into_iter().filter(of).map(|lease| lease.key).collect()
    }

    /// A worker of KCL takes these leases and renews them until it is aborted.
    async fn java(&self, keys: Vec<LeaseKey>) -> tokio::task::JoinHandle<()> {
        let mut held = BTreeMap::new();
        for key in keys {
            let seen = self.leases().await.into_iter().find(|lease| lease.key == key).unwrap();
            let (owner, token) = (WorkerId::new("java"), "kcl".to_owned());
            let claim = Claim { owner, token, process: None, lease_time: None, seen_heartbeat: 0 };
            let Write::Done { counter } = self.inner.acquire(&key, seen.counter, &claim).await.unwrap()
            else {
                panic!("{seen:?}")
            };
            held.insert(key, counter);
        }
        let store = self.inner.clone();
        tokio::spawn(async move {
            while !held.is_empty() {
                let renewals: Vec<Renewal> = held
                    .iter()
                    .map(|(key, counter)| Renewal { key: key.clone(), counter: *counter })
                    .collect();
                for (renewal, write) in renewals.iter().zip(store.renew(&renewals).await.unwrap()) {
                    match write {
                        Write::Done { counter } => held.insert(renewal.key.clone(), counter),
                        _ => held.remove(&renewal.key),
                    };
                }
                tokio::time::sleep(LEASE / 4).await;
            }
        })
    }
}

#[async_trait]
impl LeaseStore for Shared {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.inner.list().await
    }
    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        let list = self.inner.list_readable().await?;
        let mut workers = list.workers.clone();
        for lease in &list.leases {
            let Some(owner) = lease.owner.as_ref().filter(|owner| owner.as_str().starts_with("java")) else {
                continue;
            };
            if !workers.iter().any(|worker| worker.report.id == *owner) {
                let mut report = WorkerReport::new(owner.clone(), Duration::from_secs(10));
                report.foreign = true;
                workers.push(WorkerRecord::new(report, 0));
            }
            if let Some(worker) = workers.iter_mut().find(|worker| worker.report.id == *owner) {
                worker.heartbeat += lease.counter;
            }
        }
        Ok(list.with_workers(workers).led(self.led.load(Ordering::Relaxed)))
    }
    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.inner.create(leases).await
    }
    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.inner.acquire(key, seen, claim).await
    }
    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        self.inner.renew(renewals).await
    }
    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        self.inner.checkpoint(checkpoints).await
    }
    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.inner.assign(key, seen, to).await
    }
    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.inner.hand_off(key, from, to).await
    }
    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        self.inner.set_children(key, children).await
    }
    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.inner.release(key, counter).await
    }
    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.inner.delete_ended(key, counter).await
    }
    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        self.inner.heartbeat(worker).await
    }
    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        self.inner.forget_worker(worker, seen).await
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_is_taken_from_a_worker_of_kcl_lease_by_lease_and_none_is_given_to_it() {
    let (fake, seen) = (stream(4), Seen::default());
    let (store, run) = Shared::led(&fake, &seen).await;
    let keys = store.leases().await.into_iter().map(|lease| lease.key).collect();
    let java = store.java(keys).await;
    store.led.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    until("the first lease", || shards(&run) == 1).await;
    assert_eq!(store.owned_by("java").await.len(), 3);
    until("its share", || shards(&run) == 2).await;
    assert!(begun.elapsed() <= INTERVAL * 3, "{:?}", begun.elapsed());
    pass(INTERVAL * 12).await;
    assert_eq!((shards(&run), store.owned_by("java").await.len()), (2, 2), "it keeps the rest");
    // KCL's worker has died: after a lease time its leases are this worker's, and it is never given one back.
    java.abort();
    until("all of them", || shards(&run) == 4).await;
    let again = store.owned_by("a").await.into_iter().take(1).collect();
    let java = store.java(again).await;
    until("one was taken from it", || shards(&run) == 3).await;
    pass(INTERVAL * 12).await;
    assert_eq!((shards(&run), store.owned_by("java").await.len()), (3, 1), "it takes by itself");
    java.abort();
    put(&fake, 40);
    until("all records", || seen.distinct() == 40).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_a_leader_decides_only_what_it_gives_is_taken() {
    let (fake, seen) = (stream(4), Seen::default());
    let (store, run) = Shared::led(&fake, &seen).await;
    pass(INTERVAL * 12).await;
    assert_eq!(shards(&run), 0, "although no worker has them");
    let free = store.leases().await.remove(0);
    let seen_free = Ownership::default();
    store.assign(&free.key, &seen_free, &WorkerId::new("a")).await.unwrap();
    let begun = Instant::now();
    until("the lease", || shards(&run) == 1).await;
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    pass(INTERVAL * 12).await;
    assert_eq!(store.owned_by("a").await, [free.key]);
    run.stop().await;
    assert!(store.leases().await.iter().all(|lease| lease.owner.is_none()), "its leader gives them on");
}

#[tokio::test(start_paused = true)]
async fn i16_a_handoff_that_a_leader_asks_for_ends_with_the_last_checkpoint() {
    let (fake, seen) = (stream(4), Seen::default());
    let (store, run) = Shared::led(&fake, &seen).await;
    let free = store.leases().await.remove(0);
    store.assign(&free.key, &Ownership::default(), &WorkerId::new("a")).await.unwrap();
    until("the lease", || shards(&run) == 1).await;
    put(&fake, 80);
    let of_shard = accepted(&fake).into_iter().filter(|(shard, _)| *shard == *free.key.shard.as_str());
    let expected: Vec<_> = of_shard.collect();
    until("its records", || seen.len() == expected.len()).await;
    store.hand_off(&free.key, &WorkerId::new("a"), &WorkerId::new("java")).await.unwrap();
    until("the shard is given up", || shards(&run) == 0).await;
    let find = async || store.leases().await.into_iter().find(|lease| lease.key == free.key).unwrap();
    let lease = find().await;
    assert_eq!((lease.owner, lease.checkpoint_owner), (Some(WorkerId::new("java")), None));
    assert_eq!(sequence(&lease.checkpoint), expected.last().map(|(_, seq)| seq.clone()));
    assert_eq!(seen.by_shard(), expected, "every record once");
    // The other way round: a worker that is only the next owner waits for the end of the handoff.
    let java = store.java(vec![free.key.clone()]).await;
    store.hand_off(&free.key, &WorkerId::new("java"), &WorkerId::new("a")).await.unwrap();
    pass(INTERVAL * 4).await;
    assert_eq!(shards(&run), 0);
    let lease = find().await;
    let Lease { counter, owner, checkpoint_owner, .. } = lease;
    let seen_handoff = Ownership { counter, owner, checkpoint_owner };
    store.assign(&free.key, &seen_handoff, &WorkerId::new("a")).await.unwrap();
    until("the lease", || shards(&run) == 1).await;
    java.abort();
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn next_to_kcl_no_shard_is_said_to_have_no_place() {
    crate::logs::collect();
    let (fake, seen, store) = (stream(4), Seen::default(), Shared::default());
    let small = || shardmill::Worker::start(options("a").maximum_leases(1)).unwrap();
    store.led.store(true, Ordering::Relaxed);
    let run = launch(consumer(&fake, &small(), mapping(), seen.handler("a"), &store));
    pass(INTERVAL).await;
    let free = store.leases().await.remove(0);
    store.assign(&free.key, &Ownership::default(), &WorkerId::new("a")).await.unwrap();
    until("the lease", || shards(&run) == 1).await;
    // The others are its leader's to give.
    pass(INTERVAL * 4).await;
    assert_eq!(run.report().unplaced_shards, 0);
    // Then those of KCL's worker to take.
    let java = store.java(store.leases().await.into_iter().skip(1).take(1).map(|lease| lease.key).collect());
    let java = java.await;
    store.led.store(false, Ordering::Relaxed);
    pass(INTERVAL * 4).await;
    assert_eq!((shards(&run), run.report().unplaced_shards), (1, 0));
    assert!(crate::logs::lines().iter().all(|line| !line.contains("no worker may take")));
    // Without it, no worker may.
    java.abort();
    until("they are counted", || run.report().unplaced_shards == 3).await;
    run.stop().await;
}
