//! Checkpoints: who may write them, and which way they move.

use std::sync::Arc;

use shardmill_engine::{LeaseKey, Position, Seq};

use super::{Store, after, assert_refused, claim, get, key, owned, worker};
use crate::{AppState, Checkpoint, Lease, Ownership, Renewal, Write};

fn at(key: &LeaseKey, counter: u64, position: Position) -> Checkpoint {
    Checkpoint { key: key.clone(), counter, position, app: AppState::new() }
}

async fn write_one(store: &Store, checkpoint: Checkpoint) -> Write {
    let writes = store.checkpoint(&[checkpoint]).await.unwrap();
    assert_eq!(writes.len(), 1);
    writes.into_iter().next().unwrap()
}

async fn accepted(store: &Store, key: &LeaseKey, position: Position) {
    let before = get(store, key).await;
    let write = write_one(store, at(key, before.counter, position.clone())).await;
    assert_eq!(write, Write::Done { counter: before.counter + 1 }, "{} to {position}", before.checkpoint);
    assert_eq!(get(store, key).await.checkpoint, position);
}

async fn refused(store: &Store, key: &LeaseKey, position: Position) {
    let before = get(store, key).await;
    let write = write_one(store, at(key, before.counter, position)).await;
    assert_refused(store, write, &before).await;
}

pub(super) async fn a_checkpoint_moves_forward_and_counts_as_a_renewal(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    store.acquire(&key, 1, &claim("b", "t")).await.unwrap();
    let before = get(&store, &key).await;
    assert_eq!(before.owner_switches, 1);
    assert_eq!(write_one(&store, at(&key, 2, after("100"))).await, Write::Done { counter: 3 });
    let expected = Lease { counter: 3, checkpoint: after("100"), owner_switches: 0, ..before };
    assert_eq!(get(&store, &key).await, expected);
    let stale = store.renew(&[Renewal { key: key.clone(), counter: 2 }]).await.unwrap();
    assert_refused(&store, stale.into_iter().next().unwrap(), &expected).await;
}

pub(super) async fn i2_a_checkpoint_never_moves_backwards(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    accepted(&store, &key, after("100")).await;
    for position in [after("99"), after("0"), Position::TrimHorizon, Position::AtTimestamp(i64::MAX)] {
        refused(&store, &key, position).await;
    }
    accepted(&store, &key, after("101")).await;
}

pub(super) async fn i2_nothing_comes_after_the_shards_end(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    accepted(&store, &key, after("100")).await;
    accepted(&store, &key, Position::ShardEnd).await;
    for position in [after("101"), after(&"9".repeat(128)), Position::TrimHorizon] {
        refused(&store, &key, position).await;
    }
    accepted(&store, &key, Position::ShardEnd).await;
}

pub(super) async fn r36_checkpoints_compare_as_numbers(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let long = "49590338271490256608559692538361571095921575989136588898";
    accepted(&store, &key, after("9")).await;
    accepted(&store, &key, after("10")).await;
    refused(&store, &key, after("9")).await;
    refused(&store, &key, after("0000000000000000009")).await;
    accepted(&store, &key, after("00011")).await;
    accepted(&store, &key, after(long)).await;
    refused(&store, &key, after("9999999999999999999999999999999999999999999999999999999")).await;
    accepted(&store, &key, after("49590338271490256608559692538361571095921575989136588899")).await;
}

pub(super) async fn sub_sequence_numbers_order_within_an_aggregate(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let sub = |number: &str, sub| Position::After(Seq { number: number.into(), sub });
    accepted(&store, &key, sub("7", 2)).await;
    refused(&store, &key, sub("7", 1)).await;
    refused(&store, &key, sub("7", 0)).await;
    accepted(&store, &key, sub("7", 10)).await;
    refused(&store, &key, sub("6", 99)).await;
    accepted(&store, &key, sub("8", 0)).await;
}

pub(super) async fn the_same_checkpoint_again_is_accepted(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    accepted(&store, &key, after("7")).await;
    accepted(&store, &key, after("7")).await;
}

pub(super) async fn checkpoints_answer_in_order_and_do_not_hinder_each_other(store: Store) {
    for shard in ["shardId-0", "shardId-1", "shardId-2"] {
        let key = owned(&store, shard, "a").await;
        accepted(&store, &key, after("50")).await;
    }
    let [backwards, stale] = [get(&store, &key("shardId-1")).await, get(&store, &key("shardId-2")).await];
    let checkpoints = [
        at(&key("gone"), 2, after("60")),
        at(&key("shardId-1"), 2, after("40")),
        at(&key("shardId-0"), 2, after("60")),
        at(&key("shardId-2"), 1, after("60")),
    ];
    let expected = [
        Write::Refused { current: None },
        Write::Refused { current: Some(Box::new(backwards.clone())) },
        Write::Done { counter: 3 },
        Write::Refused { current: Some(Box::new(stale.clone())) },
    ];
    assert_eq!(store.checkpoint(&checkpoints).await.unwrap(), expected);
    assert_eq!(get(&store, &key("shardId-0")).await.checkpoint, after("60"));
    assert_eq!(get(&store, &key("shardId-1")).await, backwards);
    assert_eq!(get(&store, &key("shardId-2")).await, stale);
}

/// Incidents 15 and 18: lose the lease, then write.
pub(super) async fn i10_a_late_write_of_a_fenced_owner_is_refused_and_shows_the_lease(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    accepted(&store, &key, after("10")).await;
    assert_eq!(store.acquire(&key, 2, &claim("b", "b1")).await.unwrap(), Write::Done { counter: 3 });
    let taken = get(&store, &key).await;
    let write = write_one(&store, at(&key, 2, after("20"))).await;
    assert_refused(&store, write, &taken).await;
    let write = store.release(&key, 2).await.unwrap();
    assert_refused(&store, write, &taken).await;
    // Regained: the first run's counter is still no good.
    store.acquire(&key, 3, &claim("a", "a2")).await.unwrap();
    let regained = get(&store, &key).await;
    let write = write_one(&store, at(&key, 2, after("20"))).await;
    assert_refused(&store, write, &regained).await;
}

pub(super) async fn application_state_merges_and_survives_everything_else(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let app = |pairs: &[(&str, &str)]| -> AppState {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let set =
        |counter, number: &str, pairs| Checkpoint { app: app(pairs), ..at(&key, counter, after(number)) };
    write_one(&store, set(1, "1", &[("pinned", "5"), ("window", "x")])).await;
    write_one(&store, set(2, "2", &[("window", "y"), ("more", "")])).await;
    write_one(&store, set(3, "3", &[])).await;
    let expected = app(&[("pinned", "5"), ("window", "y"), ("more", "")]);
    assert_eq!(get(&store, &key).await.app, expected);
    // A refused checkpoint sets nothing.
    write_one(&store, set(4, "2", &[("window", "backwards")])).await;
    write_one(&store, set(3, "9", &[("window", "stale")])).await;
    store.renew(&[Renewal { key: key.clone(), counter: 4 }]).await.unwrap();
    store.set_children(&key, &["shardId-1".into()]).await.unwrap();
    store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    let seen = Ownership { counter: 5, owner: Some(worker("b")), checkpoint_owner: Some(worker("a")) };
    store.assign(&key, &seen, &worker("b")).await.unwrap();
    store.acquire(&key, 6, &claim("b", "b1")).await.unwrap();
    store.release(&key, 7).await.unwrap();
    let lease = get(&store, &key).await;
    assert_eq!((lease.counter, lease.app, lease.checkpoint), (8, expected, after("3")));
}

pub(super) async fn of_many_checkpoints_at_one_counter_exactly_one_is_written(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let tasks: Vec<_> = (0..32_u64)
        .map(|n| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move {
                let position = after(&(1000 + n).to_string());
                (position.clone(), write_one(&store, at(&key, 1, position)).await)
            })
        })
        .collect();
    let mut written = Vec::new();
    for task in tasks {
        if let (position, Write::Done { counter: 2 }) = task.await.unwrap() {
            written.push(position);
        }
    }
    let lease = get(&store, &key).await;
    assert_eq!((lease.counter, vec![lease.checkpoint]), (2, written));
}

pub(super) async fn a_dropped_call_has_happened_or_has_not(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    for round in 1..=20_u64 {
        let position = after(&round.to_string());
        let app = AppState::from([("round".to_owned(), round.to_string())]);
        let checkpoint = Checkpoint { app, ..at(&key, get(&store, &key).await.counter, position) };
        let call = tokio::spawn({
            let store = Arc::clone(&store);
            async move { write_one(&store, checkpoint).await }
        });
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        call.abort();
        drop(call.await);
        // A network may still deliver it, so all that holds is that its parts came together.
        let lease = get(&store, &key).await;
        let expected = lease.app.get("round").map_or(Position::TrimHorizon, |round| after(round));
        assert_eq!(lease.checkpoint, expected, "half a write: {lease:?}");
    }
}
