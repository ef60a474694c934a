//! One owner at a time: acquiring, renewing and releasing leases.

use std::sync::Arc;
use std::time::Duration;

use super::{Store, assert_refused, claim, find, get, key, new_lease, owned, worker};
use crate::{Claim, Lease, Ownership, Renewal, StoreError, Write};

pub(super) async fn acquiring_sets_owner_token_and_process(store: Store) {
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    let key = key("shardId-0");
    let free = get(&store, &key).await;
    let claim = claim("a", "first");
    assert_eq!(store.acquire(&key, 0, &claim).await.unwrap(), Write::Done { counter: 1 });
    let lease = get(&store, &key).await;
    let expected = Lease {
        counter: 1,
        owner: Some(worker("a")),
        token: Some("first".into()),
        process: claim.process.clone(),
        lease_time: claim.lease_time,
        ..free
    };
    assert_eq!(lease, expected);
    let unknown = Claim { process: None, ..claim };
    assert_eq!(store.acquire(&key, 1, &unknown).await.unwrap(), Write::Done { counter: 2 });
    assert_eq!(get(&store, &key).await.process, None, "an earlier run's process is not kept");
}

/// Others wait for the longer one of two lease times, so they must see the owner's until the lease is released.
pub(super) async fn incident_76_the_owners_lease_time_is_kept_with_its_acquisition(store: Store) {
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    let key = key("shardId-0");
    assert_eq!(get(&store, &key).await.lease_time, None, "a free lease has none");
    let claim = |name: &str, lease_time| Claim { lease_time, ..claim(name, name) };
    let hour = Some(Duration::from_secs(3600));
    for (counter, given) in [(0, hour), (1, Some(Duration::from_millis(2_001))), (2, None), (3, hour)] {
        store.acquire(&key, counter, &claim("a", given)).await.unwrap();
        assert_eq!(get(&store, &key).await.lease_time, given);
    }
    store.renew(&[Renewal { key: key.clone(), counter: 4 }]).await.unwrap();
    store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    assert_eq!(get(&store, &key).await.lease_time, hour, "the old owner still works");
    let seen = Ownership { counter: 5, owner: Some(worker("b")), checkpoint_owner: Some(worker("a")) };
    store.assign(&key, &seen, &worker("b")).await.unwrap();
    assert_eq!(get(&store, &key).await.lease_time, None, "the new owner has not said one yet");
    store.acquire(&key, 6, &claim("b", hour)).await.unwrap();
    store.release(&key, 7).await.unwrap();
    assert_eq!(get(&store, &key).await.lease_time, None, "a released lease has none");
}

pub(super) async fn acquiring_with_an_old_counter_is_refused(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let before = get(&store, &key).await;
    for seen in [0, 2, u64::from(u32::MAX)] {
        let write = store.acquire(&key, seen, &claim("b", "t")).await.unwrap();
        assert_refused(&store, write, &before).await;
    }
}

pub(super) async fn i11_of_many_who_acquire_at_once_exactly_one_wins(store: Store) {
    store.create(&[new_lease("shardId-0")]).await.unwrap();
    for round in 0..5 {
        let contenders: Vec<_> = (0..32)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let claim = claim(&format!("worker-{n}"), &format!("token-{round}-{n}"));
                    let write = store.acquire(&key("shardId-0"), round, &claim).await.unwrap();
                    (claim, write)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for contender in contenders {
            match contender.await.unwrap() {
                (claim, Write::Done { counter }) => winners.push((claim, counter)),
                (_, Write::Refused { current }) => {
                    assert_eq!(current.unwrap().counter, round + 1, "the refusal shows the winner's lease");
                }
                (_, Write::Unknown { reason }) => panic!("{reason}"),
            }
        }
        let [(winner, counter)] = winners.as_slice() else { panic!("not one winner: {winners:?}") };
        let lease = get(&store, &key("shardId-0")).await;
        assert_eq!((lease.counter, *counter), (round + 1, round + 1));
        assert_eq!((lease.owner.as_ref(), lease.token.as_ref()), (Some(&winner.owner), Some(&winner.token)));
    }
}

pub(super) async fn the_same_worker_gets_a_fresh_token_and_fences_its_earlier_run(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    assert_eq!(store.acquire(&key, 1, &claim("a", "second")).await.unwrap(), Write::Done { counter: 2 });
    let lease = get(&store, &key).await;
    assert_eq!(lease.token.as_deref(), Some("second"));
    let writes = store.renew(&[Renewal { key, counter: 1 }]).await.unwrap();
    assert_refused(&store, writes.into_iter().next().unwrap(), &lease).await;
}

pub(super) async fn owner_switches_count_changes_of_the_owner(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    assert_eq!(get(&store, &key).await.owner_switches, 0, "a free lease changes no owner");
    store.acquire(&key, 1, &claim("b", "t2")).await.unwrap();
    assert_eq!(get(&store, &key).await.owner_switches, 1);
    store.acquire(&key, 2, &claim("b", "t3")).await.unwrap();
    assert_eq!(get(&store, &key).await.owner_switches, 1, "the same worker again");
    let seen = Ownership { counter: 3, owner: Some(worker("b")), checkpoint_owner: None };
    store.assign(&key, &seen, &worker("c")).await.unwrap();
    assert_eq!(get(&store, &key).await.owner_switches, 2);
    store.acquire(&key, 4, &claim("c", "t5")).await.unwrap();
    assert_eq!(get(&store, &key).await.owner_switches, 2, "c takes what it was given");
}

pub(super) async fn releasing_frees_the_lease_and_fences_the_owner(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let held = get(&store, &key).await;
    let write = store.release(&key, 0).await.unwrap();
    assert_refused(&store, write, &held).await;
    assert_eq!(store.release(&key, 1).await.unwrap(), Write::Done { counter: 2 });
    let free = get(&store, &key).await;
    assert_eq!(free, Lease { counter: 2, owner: None, token: None, process: None, lease_time: None, ..held });
    let writes = store.renew(&[Renewal { key: key.clone(), counter: 1 }]).await.unwrap();
    assert_refused(&store, writes.into_iter().next().unwrap(), &free).await;
    let write = store.release(&key, 1).await.unwrap();
    assert_refused(&store, write, &free).await;
    assert_eq!(store.acquire(&key, 2, &claim("b", "t")).await.unwrap(), Write::Done { counter: 3 });
}

pub(super) async fn renewals_answer_in_order_and_do_not_hinder_each_other(store: Store) {
    for shard in ["shardId-0", "shardId-1", "shardId-2"] {
        owned(&store, shard, "a").await;
    }
    let stale = get(&store, &key("shardId-1")).await;
    let renewals = [
        Renewal { key: key("shardId-2"), counter: 1 },
        Renewal { key: key("shardId-1"), counter: 0 },
        Renewal { key: key("gone"), counter: 1 },
        Renewal { key: key("shardId-0"), counter: 1 },
    ];
    let expected = [
        Write::Done { counter: 2 },
        Write::Refused { current: Some(Box::new(stale.clone())) },
        Write::Refused { current: None },
        Write::Done { counter: 2 },
    ];
    assert_eq!(store.renew(&renewals).await.unwrap(), expected);
    assert_eq!(get(&store, &key("shardId-0")).await.counter, 2);
    assert_eq!(get(&store, &key("shardId-1")).await, stale);
    assert_eq!(get(&store, &key("shardId-2")).await.counter, 2);
    assert_eq!(find(&store, &key("gone")).await, None);
}

pub(super) async fn renewing_changes_nothing_but_the_counter(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    store.acquire(&key, 1, &claim("b", "t")).await.unwrap();
    let before = get(&store, &key).await;
    for counter in 2..12 {
        let writes = store.renew(&[Renewal { key: key.clone(), counter }]).await.unwrap();
        assert_eq!(writes, [Write::Done { counter: counter + 1 }]);
    }
    assert_eq!(get(&store, &key).await, Lease { counter: 12, ..before });
}

pub(super) async fn no_renewals_are_no_error(store: Store) {
    assert_eq!(store.renew(&[]).await.unwrap(), []);
    assert_eq!(store.checkpoint(&[]).await.unwrap(), []);
}

/// Incident 13: the write happened but the answer was lost. The refusal of the second try shows the caller's own token.
pub(super) async fn a_write_whose_answer_was_lost_can_be_recognised(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let renewal = [Renewal { key: key.clone(), counter: 1 }];
    store.renew(&renewal).await.unwrap();
    let writes = store.renew(&renewal).await.unwrap();
    let [Write::Refused { current: Some(current) }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((current.counter, current.token.as_deref()), (2, Some("token of a")));
    // In the middle of a handoff too.
    store.hand_off(&key, &worker("a"), &worker("b")).await.unwrap();
    let renewal = [Renewal { key: key.clone(), counter: 2 }];
    store.renew(&renewal).await.unwrap();
    let writes = store.renew(&renewal).await.unwrap();
    let [Write::Refused { current: Some(current) }] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!((current.counter, current.token.as_deref()), (3, Some("token of a")));
}

pub(super) async fn nameless_workers_and_tokens_are_refused(store: Store) {
    let key = owned(&store, "shardId-0", "a").await;
    let before = get(&store, &key).await;
    let seen = Ownership { counter: 1, owner: Some(worker("a")), checkpoint_owner: None };
    let errors = [
        store.acquire(&key, 1, &claim("", "t")).await.unwrap_err(),
        store.acquire(&key, 1, &claim("b", "")).await.unwrap_err(),
        store.assign(&key, &seen, &worker("")).await.unwrap_err(),
        store.hand_off(&key, &worker("a"), &worker("")).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }
    assert_eq!(get(&store, &key).await, before);
}
