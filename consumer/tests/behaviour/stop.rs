//! Stopping, restarting, and consumers that share a worker (I16).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardmill::RunError;
use shardmill::checkpoint::{
    Checkpoint, Claim, Fault, Lease, LeaseStore, NewLease, Ownership, Renewal, StoreError, WorkerId, Write,
};
use shardmill::engine::LeaseKey;
use shardmill::{RunReport, ShardId};
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn i16_stops_under_load_lose_nothing_and_repeat_nothing() {
    let (fake, store, seen) = (stream(4), store(), Seen::default());
    for round in 1..=15 {
        put(&fake, 100);
        let a = worker("a");
        let slow = seen.slow("a", Duration::from_millis(150));
        let run = launch(consumer(&fake, &a, mapping().batch_size(9), slow, &store));
        let enough = seen.len() + 20;
        until("some of the round's records", || seen.len() >= enough).await;
        let report = run.stop().await;
        assert_eq!(report.cut_invocations, 0);
        assert_eq!(seen.len(), seen.distinct(), "nothing twice after round {round}");
        assert!(leases(&store).await.iter().all(|lease| lease.owner.is_none()));
    }
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the rest", || seen.len() == 1500).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn a_stop_with_a_dead_store_ends_by_the_grace() {
    for fault in [Fault::HangBefore, Fault::ErrorBefore] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        let a = shardmill::Worker::start(options("a").lease(LEASE * 30).stop_timeout(Duration::from_secs(5)))
            .unwrap();
        let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        until("the leases", || run.report().shards.len() == 2).await;
        store.fail_all(fault);
        put(&fake, 20);
        until("the records", || seen.len() == 20).await;
        let begun = Instant::now();
        assert_eq!(run.stop().await, RunReport::default());
        assert!(begun.elapsed() <= Duration::from_secs(8), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_starts_at_once_after_a_stop() {
    let (fake, store, seen) = (stream(4), store(), Seen::default());
    let (a, b) = (worker("a"), worker("b"));
    let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("a's leases", || first.report().shards.len() == 4).await;
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &store));
    pass(LEASE).await;
    first.stop().await;
    let begun = Instant::now();
    until("b's leases", || second.report().shards.len() == 4).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "incident 19: {:?}", begun.elapsed());
    second.stop().await;
}

/// A store that cannot be used.
#[derive(Clone, Debug)]
struct Corrupt;

fn corrupt<T>() -> Result<T, StoreError> {
    let reason = "the file is not a database; move it away".to_owned();
    Err(StoreError::Unusable { store: "corrupt".to_owned(), reason, source: None })
}

#[async_trait]
impl LeaseStore for Corrupt {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        corrupt()
    }
    async fn create(&self, _: &[NewLease]) -> Result<usize, StoreError> {
        corrupt()
    }
    async fn acquire(&self, _: &LeaseKey, _: u64, _: &Claim) -> Result<Write, StoreError> {
        corrupt()
    }
    async fn renew(&self, _: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        corrupt()
    }
    async fn checkpoint(&self, _: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        corrupt()
    }
    async fn assign(&self, _: &LeaseKey, _: &Ownership, _: &WorkerId) -> Result<Write, StoreError> {
        corrupt()
    }
    async fn hand_off(&self, _: &LeaseKey, _: &WorkerId, _: &WorkerId) -> Result<Write, StoreError> {
        corrupt()
    }
    async fn set_children(&self, _: &LeaseKey, _: &[ShardId]) -> Result<Write, StoreError> {
        corrupt()
    }
    async fn release(&self, _: &LeaseKey, _: u64) -> Result<Write, StoreError> {
        corrupt()
    }
    async fn delete_ended(&self, _: &LeaseKey, _: u64) -> Result<Write, StoreError> {
        corrupt()
    }
    async fn delete(&self, _: &LeaseKey) -> Result<(), StoreError> {
        corrupt()
    }
    fn describe(&self) -> String {
        "corrupt".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn an_unusable_store_ends_its_own_run_with_its_message_and_no_other() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    let a = worker("a");
    let good = launch(consumer(&fake, &a, mapping(), seen.handler("good"), &store));
    let bad = launch(consumer(&fake, &a, mapping().name("bad"), seen.handler("bad"), &Corrupt));
    let status = bad.status.clone();
    let Err(RunError::Store(error)) = bad.ended().await else { panic!("the run goes on") };
    assert!(error.to_string().contains("is not a database"), "{error}");
    assert_eq!(status.report().state, shardmill::RunState::Disabled);
    put(&fake, 10);
    until("the records", || seen.len() == 10).await;
    assert!(seen.all().iter().all(|sight| sight.worker == "good"));
    good.stop().await;
}

#[tokio::test(start_paused = true)]
async fn consumers_that_share_a_worker_have_their_own_checkpoints_and_stop_on_their_own() {
    let (fake, seen) = (stream(2), Seen::default());
    let (x, y) = (store(), store());
    let a = worker("a");
    let first = launch(consumer(&fake, &a, mapping(), seen.handler("x"), &x));
    let second = launch(consumer(&fake, &a, mapping().name("y"), seen.handler("y"), &y));
    put(&fake, 50);
    until("both have everything", || seen.len() == 100).await;
    first.stop().await;
    put(&fake, 50);
    until("the other goes on", || seen.len() == 150).await;
    second.stop().await;
    let of = |name| seen.all().iter().filter(|sight| sight.worker == name).count();
    assert_eq!((of("x"), of("y")), (50, 100));
    assert_eq!(Arc::strong_count(&a), 1, "nothing of a run is left");
}
