//! Several handles and several applications on one store.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::workers::workers_are_separate;
use super::{Store, after, assert_refused, claim, get, key, new_lease, owned};
use crate::{AppState, Checkpoint, LeaseStore, Renewal, Write};

pub(super) async fn each_handle_sees_the_others_writes_at_once(one: Store, other: Store) {
    let key = owned(&one, "shardId-0", "a").await;
    assert_eq!(get(&other, &key).await, get(&one, &key).await);
    for counter in 1..40 {
        let (writer, reader) = if counter % 2 == 0 { (&one, &other) } else { (&other, &one) };
        writer.renew(&[Renewal { key: key.clone(), counter }]).await.unwrap();
        assert_eq!(get(reader, &key).await.counter, counter + 1);
    }
    other.delete(&key).await.unwrap();
    assert_eq!(one.list().await.unwrap(), []);
    assert_eq!(one.describe(), other.describe());
}

pub(super) async fn of_two_workers_who_acquire_at_once_exactly_one_wins(one: Store, other: Store) {
    one.create(&[new_lease("shardId-0")]).await.unwrap();
    for seen in 0..40 {
        let contend = |store: &Store, name: &'static str| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let claim = claim(name, &format!("{name}{seen}"));
                store.acquire(&key("shardId-0"), seen, &claim).await.unwrap()
            })
        };
        let (a, b) = (contend(&one, "a"), contend(&other, "b"));
        let won = [a.await.unwrap(), b.await.unwrap()].map(|write| matches!(write, Write::Done { .. }));
        let lease = get(&one, &key("shardId-0")).await;
        let owner = lease.owner.unwrap();
        assert_eq!(won, [owner.as_str() == "a", owner.as_str() == "b"]);
        assert_eq!(lease.counter, seen + 1);
    }
}

pub(super) async fn a_worker_that_lost_its_lease_is_fenced(one: Store, other: Store) {
    let key = owned(&one, "shardId-0", "a").await;
    assert_eq!(other.acquire(&key, 1, &claim("b", "b1")).await.unwrap(), Write::Done { counter: 2 });
    let taken = get(&other, &key).await;
    let late = Checkpoint { key: key.clone(), counter: 1, position: after("9"), app: AppState::new() };
    let writes = one.checkpoint(&[late]).await.unwrap();
    assert_refused(&other, writes.into_iter().next().unwrap(), &taken).await;
    let writes = one.renew(&[Renewal { key: key.clone(), counter: 1 }]).await.unwrap();
    assert_refused(&other, writes.into_iter().next().unwrap(), &taken).await;
    let write = one.release(&key, 1).await.unwrap();
    assert_refused(&other, write, &taken).await;
}

pub(super) async fn no_counter_is_given_out_twice(one: Store, other: Store) {
    let key = owned(&one, "shardId-0", "a").await;
    let tasks: Vec<_> = [&one, &other, &one, &other]
        .map(|store| {
            let (store, key) = (Arc::clone(store), key.clone());
            tokio::spawn(async move {
                let mut given = Vec::new();
                let mut counter = 1;
                while given.len() < 25 {
                    let writes = store.renew(&[Renewal { key: key.clone(), counter }]).await.unwrap();
                    match writes.into_iter().next().unwrap() {
                        Write::Done { counter: next } => {
                            given.push(next);
                            counter = next;
                        }
                        Write::Refused { current } => counter = current.unwrap().counter,
                        Write::Unknown { reason } => panic!("{reason}"),
                    }
                }
                given
            })
        })
        .into();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!(all.len(), 100);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (2..=101).collect());
    assert_eq!(get(&one, &key).await.counter, 101);
}

/// Checks two stores that two applications opened in one place: neither sees nor touches the other's leases.
///
/// # Panics
/// If the stores do not pass.
pub async fn applications_are_separate<S: LeaseStore>(one: S, other: S) {
    let (one, other): (Store, Store) = (Arc::new(one), Arc::new(other));
    let key = owned(&one, "shardId-0", "a").await;
    assert_eq!(other.list().await.unwrap(), []);
    assert_eq!(other.create(&[new_lease("shardId-0")]).await.unwrap(), 1, "the same key is another lease");
    let mine = get(&one, &key).await;
    other.acquire(&key, 0, &claim("b", "b1")).await.unwrap();
    other.renew(&[Renewal { key: key.clone(), counter: 1 }]).await.unwrap();
    let checkpoint = Checkpoint { key: key.clone(), counter: 2, position: after("9"), app: AppState::new() };
    other.checkpoint(&[checkpoint]).await.unwrap();
    other.set_children(&key, &["shardId-1".into()]).await.unwrap();
    assert_eq!(get(&one, &key).await, mine);
    other.delete(&key).await.unwrap();
    assert_eq!(get(&one, &key).await, mine);
    assert_eq!(other.list().await.unwrap(), []);
    workers_are_separate(&one, &other).await;
}
