//! What `FaultyStore` promises to the tests that use it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use shardmill_checkpoint::{
    AppState, Fault, FaultyStore, LeaseStore, MemoryStore, NewLease, Operation, Renewal, StoreError, Write,
};
use shardmill_engine::{LeaseKey, Position, ShardId};

fn key() -> LeaseKey {
    LeaseKey {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        stream: "orders".into(),
        epoch: "1700000000".into(),
        shard: ShardId::from("shardId-0"),
    }
}

async fn store() -> FaultyStore<MemoryStore> {
    let store = FaultyStore::new(MemoryStore::new());
    let lease = NewLease {
        key: key(),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    };
    store.create(&[lease]).await.unwrap();
    store
}

fn renewal(counter: u64) -> [Renewal; 1] {
    [Renewal { key: key(), counter }]
}

async fn counter(store: &FaultyStore<MemoryStore>) -> u64 {
    store.inner().list().await.unwrap()[0].counter
}

#[tokio::test]
async fn an_error_before_writes_nothing_and_an_error_after_has_written() {
    let store = store().await;
    store.inject(Operation::Renew, Fault::ErrorBefore);
    store.inject(Operation::Renew, Fault::ErrorAfter);
    let error = store.renew(&renewal(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable());
    assert_eq!(counter(&store).await, 0);
    store.renew(&renewal(0)).await.unwrap_err();
    assert_eq!(counter(&store).await, 1);
    assert_eq!(store.renew(&renewal(1)).await.unwrap(), [Write::Done { counter: 2 }]);
    assert_eq!(store.calls(Operation::Renew), 3);
    assert_eq!(store.calls(Operation::List), 0, "inner calls are not counted");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_ended_by_the_callers_timeout() {
    let store = store().await;
    store.fail_all(Fault::HangBefore);
    let hour = Duration::from_secs(3600);
    tokio::time::timeout(hour, store.renew(&renewal(0))).await.unwrap_err();
    assert_eq!(counter(&store).await, 0);
    store.fail(Operation::Renew, Fault::HangAfter);
    tokio::time::timeout(hour, store.renew(&renewal(0))).await.unwrap_err();
    assert_eq!(counter(&store).await, 1, "one operation's fault comes before that of all operations");
    store.heal();
    assert_eq!(store.renew(&renewal(1)).await.unwrap(), [Write::Done { counter: 2 }]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_answers_late() {
    let store = store().await;
    store.fail(Operation::List, Fault::Delay(Duration::from_secs(5)));
    let begun = tokio::time::Instant::now();
    assert_eq!(store.clone().list().await.unwrap().len(), 1);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}
