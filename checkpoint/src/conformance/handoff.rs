//! A lease between its old and its new owner.

use super::{Store, after, assert_refused, claim, get, key, new_lease, owned, worker};
use crate::{AppState, Checkpoint, Lease, Ownership, Renewal, StoreError, Write};

/// The lease of `shardId-0`, with a handoff from a to b under way and counter 1.
async fn in_handoff(store: &Store) -> Lease {
    let key = owned(store, "shardId-0", "a").await;
    let write = store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    assert_eq!(write, Write::Done { counter: 1 });
    get(store, &key).await
}

/// The handoff with the counter 1.
fn between(checkpoint_owner: &str, owner: &str) -> Ownership {
    Ownership { counter: 1, owner: Some(worker(owner)), checkpoint_owner: Some(worker(checkpoint_owner)) }
}

pub(super) async fn handing_off_keeps_the_counter_and_the_old_owner_goes_on(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let before = get(&store, &key).await;
    let write = store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    assert_eq!(write, Write::Done { counter: 1 });
    let expected = Lease { owner: Some(worker("b")), checkpoint_owner: Some(worker("a")), ..before };
    assert_eq!(get(&store, &key).await, expected, "token and process stay the old owner's");
    let renewal = Renewal { key: key.clone(), counter: 1 };
    assert_eq!(store.renew(&[renewal]).await.unwrap(), [Write::Done { counter: 2 }]);
    let checkpoint = Checkpoint { key: key.clone(), counter: 2, position: after("5"), app: AppState::new() };
    assert_eq!(store.checkpoint(&[checkpoint]).await.unwrap(), [Write::Done { counter: 3 }]);
    let lease = get(&store, &key).await;
    assert_eq!(lease, Lease { counter: 3, checkpoint: after("5"), ..expected });
}

pub(super) async fn handing_off_is_for_the_owner_and_once(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let held = get(&store, &key).await;
    let write = store.hand_off(&key, &worker("c"), &worker("b")).await.unwrap();
    assert_refused(&store, write, &held).await;
    store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    let lease = get(&store, &key).await;
    for (from, to) in [("a", "c"), ("b", "c"), ("b", "a"), ("a", "b")] {
        let write = store.hand_off(&key, &worker(from), &worker(to)).await.unwrap();
        assert_refused(&store, write, &lease).await;
    }
    store.create(&[new_lease("shardId-1")]).await.unwrap();
    let free = get(&store, &super::key("shardId-1")).await;
    let write = store.hand_off(&free.key, &worker("a"), &worker("b")).await.unwrap();
    assert_refused(&store, write, &free).await;
}

pub(super) async fn assigning_ends_the_handoff_and_evicts_the_old_owner(store: Store) {
    let lease = in_handoff(&store).await;
    let write = store.assign(&lease.key, &between("a", "b"), &worker("b")).await.unwrap();
    assert_eq!(write, Write::Done { counter: 2 });
    let assigned = get(&store, &lease.key).await;
    let expected = Lease {
        counter: 2,
        owner: Some(worker("b")),
        checkpoint_owner: None,
        token: None,
        process: None,
        lease_time: None,
        owner_switches: 1,
        ..lease.clone()
    };
    assert_eq!(assigned, expected);
    let writes = store.renew(&[Renewal { key: lease.key.clone(), counter: 1 }]).await.unwrap();
    assert_refused(&store, writes.into_iter().next().unwrap(), &assigned).await;
    let late = Checkpoint { key: lease.key.clone(), counter: 1, position: after("9"), app: AppState::new() };
    let writes = store.checkpoint(&[late]).await.unwrap();
    assert_refused(&store, writes.into_iter().next().unwrap(), &assigned).await;
    assert_eq!(store.acquire(&lease.key, 2, &claim("b", "b1")).await.unwrap(), Write::Done { counter: 3 });
    assert_eq!(get(&store, &lease.key).await.token.as_deref(), Some("b1"));
}

pub(super) async fn assigning_compares_the_counter_and_both_owners(store: Store) {
    let lease = in_handoff(&store).await;
    let wrong = [
        Ownership { counter: 1, ..Ownership::default() },
        Ownership { checkpoint_owner: None, ..between("a", "b") },
        Ownership { checkpoint_owner: None, ..between("b", "a") },
        Ownership { owner: None, ..between("a", "b") },
        Ownership { counter: 0, ..between("a", "b") },
        Ownership { counter: 2, ..between("a", "b") },
        between("b", "a"),
        between("c", "b"),
    ];
    for seen in wrong {
        let write = store.assign(&lease.key, &seen, &worker("c")).await.unwrap();
        assert_refused(&store, write, &lease).await;
    }
    // The old owner may take it back, or a third worker get it.
    assert_eq!(
        store.assign(&lease.key, &between("a", "b"), &worker("a")).await.unwrap(),
        Write::Done { counter: 2 }
    );
    let back = get(&store, &lease.key).await;
    assert_eq!((back.owner, back.checkpoint_owner), (Some(worker("a")), None));
    assert_eq!(back.owner_switches, 0, "a worked on all the time");
}

/// The order to give the lease was on its way for long: its worker has lost the lease and taken it again since.
pub(super) async fn i10_a_late_assignment_does_not_give_away_what_was_taken_again(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let seen = Ownership { counter: 1, owner: Some(worker("a")), checkpoint_owner: None };
    let lost = claim("b", "b1");
    assert_eq!(store.acquire(&key, 1, &lost).await.unwrap(), Write::Done { counter: 2 });
    assert_eq!(store.release(&key, 2).await.unwrap(), Write::Done { counter: 3 });
    assert_eq!(store.acquire(&key, 3, &claim("a", "a2")).await.unwrap(), Write::Done { counter: 4 });
    let again = get(&store, &key).await;
    let write = store.assign(&key, &seen, &worker("c")).await.unwrap();
    assert_refused(&store, write, &again).await;
    let seen = Ownership { counter: 4, ..seen };
    assert_eq!(store.assign(&key, &seen, &worker("c")).await.unwrap(), Write::Done { counter: 5 });
}

pub(super) async fn a_free_lease_can_be_assigned(store: Store) {
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    let key = key("shardId-0");
    let write = store.assign(&key, &Ownership::default(), &worker("a")).await.unwrap();
    assert_eq!(write, Write::Done { counter: 1 });
    let lease = get(&store, &key).await;
    assert_eq!(
        (lease.owner.clone(), lease.token.clone(), lease.owner_switches),
        (Some(worker("a")), None, 0)
    );
    let free = Ownership { counter: 1, ..Ownership::default() };
    let write = store.assign(&key, &free, &worker("b")).await.unwrap();
    assert_refused(&store, write, &lease).await;
}

pub(super) async fn acquiring_in_the_middle_of_a_handoff_ends_it(store: Store) {
    let lease = in_handoff(&store).await;
    assert_eq!(store.acquire(&lease.key, 1, &claim("c", "c1")).await.unwrap(), Write::Done { counter: 2 });
    let taken = get(&store, &lease.key).await;
    assert_eq!((taken.owner.clone(), taken.checkpoint_owner.clone()), (Some(worker("c")), None));
    assert_eq!(taken.owner_switches, 1);
    let seen = Ownership { counter: 2, ..between("a", "b") };
    let write = store.assign(&lease.key, &seen, &worker("b")).await.unwrap();
    assert_refused(&store, write, &taken).await;
}

pub(super) async fn releasing_in_the_middle_of_a_handoff_frees_the_lease(store: Store) {
    let lease = in_handoff(&store).await;
    assert_eq!(store.release(&lease.key, 1).await.unwrap(), Write::Done { counter: 2 });
    let free = get(&store, &lease.key).await;
    let expected = Lease {
        counter: 2,
        owner: None,
        checkpoint_owner: None,
        token: None,
        process: None,
        lease_time: None,
        ..lease
    };
    assert_eq!(free, expected);
}

pub(super) async fn a_worker_cannot_hand_off_to_itself(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let error = store.hand_off(&key, &worker("a"), &worker("a")).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    assert_eq!(get(&store, &key).await.checkpoint_owner, None);
}
