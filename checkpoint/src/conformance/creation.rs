//! Leases are created once, and listed as they were created.

use std::collections::BTreeSet;

use shardmill_engine::{HashRange, LeaseKey, Position, Seq, ShardId};

use super::{Store, after, assert_refused, claim, find, get, key, new_lease, owned, worker};
use crate::{AppState, Checkpoint, Lease, NewLease, Ownership, Renewal, StoreError, Write};

pub(super) async fn an_empty_store_lists_nothing(store: Store) {
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.create(&[]).await.unwrap(), 0);
    assert_eq!(store.list().await.unwrap(), []);
    assert!(!store.describe().is_empty());
}

pub(super) async fn a_created_lease_is_free_and_holds_what_was_given(store: Store) {
    let new = NewLease {
        checkpoint: Position::AtTimestamp(1_700_000_000_123),
        parents: vec![ShardId::from("shardId-1"), ShardId::from("shardId-2")],
        hash_range: Some(HashRange { start: 0, end: u128::MAX }),
        app: AppState::from([("pinned".into(), "1700000000123".into())]),
        ..new_lease("shardId-3")
    };
    assert_eq!(store.create(std::slice::from_ref(&new)).await.unwrap(), 1);
    let mut lease = get(&store, &new.key).await;
    lease.parents.sort();
    let expected = Lease {
        key: new.key.clone(),
        counter: 0,
        heartbeat: 0,
        owner: None,
        checkpoint_owner: None,
        token: None,
        process: None,
        lease_time: None,
        checkpoint: new.checkpoint.clone(),
        parents: new.parents.clone(),
        children: Vec::new(),
        hash_range: new.hash_range,
        owner_switches: 0,
        app: new.app.clone(),
    };
    assert_eq!(lease, expected);
}

pub(super) async fn creating_again_keeps_what_is_there(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let checkpoint = Checkpoint { key, counter: 1, position: after("7"), app: AppState::new() };
    store.checkpoint(&[checkpoint]).await.unwrap();
    let before = store.list().await.unwrap();
    let again = NewLease {
        checkpoint: Position::AtTimestamp(5),
        parents: vec![ShardId::from("shardId-9")],
        ..new_lease("shardId-0")
    };
    assert_eq!(store.create(&[again, new_lease("shardId-1")]).await.unwrap(), 1, "only the new one counts");
    let mut leases = store.list().await.unwrap();
    leases.retain(|lease| lease.key.shard.as_str() != "shardId-1");
    assert_eq!(leases, before);
}

pub(super) async fn one_call_that_names_a_lease_twice_creates_it_once(store: Store) {
    let second = NewLease { checkpoint: Position::AtTimestamp(5), ..new_lease("shardId-0") };
    assert_eq!(store.create(&[new_lease("shardId-0"), second]).await.unwrap(), 1);
    assert_eq!(store.list().await.unwrap().len(), 1);
}

pub(super) async fn leases_are_one_only_if_every_part_of_the_key_is_equal(store: Store) {
    let base = key("shardId-0");
    let keys = [
        base.clone(),
        LeaseKey { account: "210987654321".into(), ..base.clone() },
        LeaseKey { region: "eu-west-1".into(), ..base.clone() },
        LeaseKey { stream: "orders2".into(), ..base.clone() },
        LeaseKey { epoch: "1700000001".into(), ..base.clone() },
        base.sibling(ShardId::from("shardId-1")),
        // A stream label holds colons; a key that is glued together must not mix up the parts.
        LeaseKey { stream: "a:b".into(), epoch: "c".into(), ..base.clone() },
        LeaseKey { stream: "a".into(), epoch: "b:c".into(), ..base.clone() },
        LeaseKey { stream: "Orders".into(), ..base.clone() },
        LeaseKey { epoch: "01700000000".into(), ..base },
    ];
    let leases: Vec<_> =
        keys.iter().map(|key| NewLease { key: key.clone(), ..new_lease("shardId-0") }).collect();
    assert_eq!(store.create(&leases).await.unwrap(), keys.len());
    for (n, key) in keys.iter().enumerate() {
        let claim = claim(&format!("worker-{n}"), "t");
        assert_eq!(store.acquire(key, 0, &claim).await.unwrap(), Write::Done { counter: 1 }, "{key}");
        let renewal = Renewal { key: key.clone(), counter: 1 };
        assert_eq!(store.renew(&[renewal]).await.unwrap(), [Write::Done { counter: 2 }]);
        let position = after(&n.to_string());
        let checkpoint = Checkpoint { key: key.clone(), counter: 2, position, app: AppState::new() };
        assert_eq!(store.checkpoint(&[checkpoint]).await.unwrap(), [Write::Done { counter: 3 }]);
        store.set_children(key, &[ShardId::new(format!("child-{n}"))]).await.unwrap();
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(store.list().await.unwrap().len(), keys.len() - n);
        let lease = get(&store, key).await;
        assert_eq!(lease.owner, Some(worker(&format!("worker-{n}"))));
        assert_eq!((lease.counter, lease.checkpoint), (3, after(&n.to_string())));
        assert_eq!(lease.children, [ShardId::new(format!("child-{n}"))]);
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.list().await.unwrap(), []);
}

pub(super) async fn every_position_comes_back_verbatim(store: Store) {
    let kinesis = "49590338271490256608559692538361571095921575989136588898";
    let longest = "9".repeat(128);
    let sub = |number: &str, sub| Seq { number: number.into(), sub };
    let positions = [
        Position::TrimHorizon,
        Position::AtTimestamp(0),
        Position::AtTimestamp(-1),
        Position::AtTimestamp(1_700_000_000_123),
        after(kinesis),
        after(&longest),
        after("000000000000000000001"),
        after("0"),
        Position::After(sub(kinesis, 12)),
        Position::At(sub(kinesis, 0)),
        Position::At(sub("0042", 3)),
        Position::ShardEnd,
    ];
    for (n, position) in positions.iter().enumerate() {
        let created = NewLease { checkpoint: position.clone(), ..new_lease(&format!("created-{n}")) };
        store.create(std::slice::from_ref(&created)).await.unwrap();
        let key = owned(&store, &format!("moved-{n}"), "a").await;
        let checkpoint =
            Checkpoint { key: key.clone(), counter: 1, position: position.clone(), app: AppState::new() };
        assert_eq!(store.checkpoint(&[checkpoint]).await.unwrap(), [Write::Done { counter: 2 }]);
        for key in [&created.key, &key] {
            let stored = get(&store, key).await.checkpoint;
            assert_eq!(&stored, position);
            // Numbers are equal without their leading zeros, so the text is compared too.
            assert_eq!(stored.to_string(), position.to_string());
        }
    }
}

pub(super) async fn names_and_values_come_back_verbatim(store: Store) {
    let odd = "it's \"1\";\n-- %_ \u{e4}\u{1f980} \\ \u{7f}";
    let mut new = new_lease(odd);
    new.key.stream = odd.into();
    new.parents = vec![ShardId::from(odd)];
    new.app = AppState::from([(odd.into(), odd.repeat(50)), ("number".into(), "007".into())]);
    store.create(std::slice::from_ref(&new)).await.unwrap();
    store.acquire(&new.key, 0, &claim(odd, odd)).await.unwrap();
    store.set_children(&new.key, &[ShardId::from(odd), ShardId::from("007")]).await.unwrap();
    let lease = get(&store, &new.key).await;
    let children: BTreeSet<_> = lease.children.into_iter().collect();
    assert_eq!(lease.parents, new.parents);
    assert_eq!(children, BTreeSet::from([ShardId::from(odd), ShardId::from("007")]));
    assert_eq!(lease.app, new.app);
    assert_eq!(lease.owner, Some(worker(odd)));
    assert_eq!(lease.token.as_deref(), Some(odd));
    assert_eq!(lease.process, claim(odd, odd).process);
}

pub(super) async fn many_leases_are_all_listed(store: Store) {
    let leases: Vec<_> = (0..1500).map(|n| new_lease(&format!("shardId-{n:012}"))).collect();
    assert_eq!(store.create(&leases).await.unwrap(), 1500);
    let listed: BTreeSet<_> = store.list().await.unwrap().into_iter().map(|lease| lease.key).collect();
    assert_eq!(listed, leases.into_iter().map(|lease| lease.key).collect());
}

pub(super) async fn i15_latest_is_never_stored(store: Store) {
    refuses_position(&store, Position::Latest).await;
}

pub(super) async fn a_sequence_number_that_is_no_number_is_never_stored(store: Store) {
    for text in ["", "TRIM_HORIZON", "12a", "-1", " 1"] {
        refuses_position(&store, after(text)).await;
    }
}

async fn refuses_position(store: &Store, position: Position) {
    let lease = NewLease { checkpoint: position.clone(), ..new_lease("shardId-0") };
    let error = store.create(&[new_lease("shardId-1"), lease]).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    assert!(!error.is_retryable());
    assert_eq!(store.list().await.unwrap(), [], "an invalid call writes nothing");
    let key = owned(store, "shardId-0", "a").await;
    let checkpoint = Checkpoint { key: key.clone(), counter: 1, position, app: AppState::new() };
    let error = store.checkpoint(&[checkpoint]).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    assert_eq!(get(store, &key).await.counter, 1);
    store.delete(&key).await.unwrap();
}

pub(super) async fn deleting_removes_one_lease_and_twice_is_no_error(store: Store) {
    let gone = owned(&store, "shardId-0", "a").await;
    let kept = owned(&store, "shardId-1", "a").await;
    store.delete(&gone).await.unwrap();
    store.delete(&gone).await.unwrap();
    assert_eq!(find(&store, &gone).await, None);
    assert_eq!(get(&store, &kept).await.counter, 1);
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    assert_eq!(get(&store, &gone).await.owner, None, "created anew");
}

pub(super) async fn a_finished_lease_is_deleted_only_as_it_was_seen(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let kept = owned(&store, "shardId-1", "a").await;
    let unfinished = get(&store, &key).await;
    let refused = store.delete_ended(&key, 1).await.unwrap();
    assert_refused(&store, refused, &unfinished).await;
    for key in [&key, &kept] {
        let end =
            Checkpoint { key: key.clone(), counter: 1, position: Position::ShardEnd, app: AppState::new() };
        assert_eq!(store.checkpoint(&[end]).await.unwrap(), [Write::Done { counter: 2 }]);
    }
    let held = get(&store, &key).await;
    let refused = store.delete_ended(&key, 1).await.unwrap();
    assert_refused(&store, refused, &held).await;
    // Its owner is still there: it has renewed the lease since.
    store.renew(&[Renewal { key: key.clone(), counter: 2 }]).await.unwrap();
    let renewed = get(&store, &key).await;
    let refused = store.delete_ended(&key, 2).await.unwrap();
    assert_refused(&store, refused, &renewed).await;
    store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    let handed_off = get(&store, &key).await;
    let refused = store.delete_ended(&key, 3).await.unwrap();
    assert_refused(&store, refused, &handed_off).await;
    assert_eq!(store.release(&key, 3).await.unwrap(), Write::Done { counter: 4 });
    assert_eq!(store.delete_ended(&key, 4).await.unwrap(), Write::Done { counter: 4 });
    assert_eq!(find(&store, &key).await, None);
    assert_eq!(store.delete_ended(&key, 4).await.unwrap(), Write::Refused { current: None });
    assert_eq!(get(&store, &kept).await.counter, 2, "no other is touched");
}

pub(super) async fn children_are_recorded_without_disturbing_the_owner(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let before = get(&store, &key).await;
    let children = [ShardId::from("shardId-1"), ShardId::from("shardId-2")];
    assert_eq!(store.set_children(&key, &children).await.unwrap(), Write::Done { counter: 1 });
    let mut lease = get(&store, &key).await;
    lease.children.sort();
    assert_eq!(lease, Lease { children: children.to_vec(), ..before });
    let renewal = Renewal { key: key.clone(), counter: 1 };
    assert_eq!(store.renew(&[renewal]).await.unwrap(), [Write::Done { counter: 2 }]);
    assert_eq!(get(&store, &key).await.children.len(), 2, "a renewal keeps the children");
}

pub(super) async fn a_lease_that_does_not_exist_refuses_every_write(store: Store) {
    let gone = || Write::Refused { current: None };
    let key = key("shardId-0");
    let checkpoint = Checkpoint { key: key.clone(), counter: 0, position: after("1"), app: AppState::new() };
    assert_eq!(store.acquire(&key, 0, &claim("a", "t")).await.unwrap(), gone());
    assert_eq!(store.renew(&[Renewal { key: key.clone(), counter: 0 }]).await.unwrap(), [gone()]);
    assert_eq!(store.checkpoint(&[checkpoint]).await.unwrap(), [gone()]);
    assert_eq!(store.assign(&key, &Ownership::default(), &worker("a")).await.unwrap(), gone());
    assert_eq!(store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap(), gone());
    assert_eq!(store.set_children(&key, &[ShardId::from("shardId-1")]).await.unwrap(), gone());
    assert_eq!(store.release(&key, 0).await.unwrap(), gone());
    assert_eq!(store.delete_ended(&key, 0).await.unwrap(), gone());
    assert_eq!(store.list().await.unwrap(), [], "no write creates a lease");
}
