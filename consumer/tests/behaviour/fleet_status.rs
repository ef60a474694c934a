//! What every worker shows of the fleet: who works on which lease, who gets it, and who lives.

use std::time::Duration;

use shardmill::checkpoint::{Fault, LeaseStore, Operation, WorkerId};

use crate::support::*;

/// Of how many leases the worker shows this: owner, whether it lives, next owner.
fn showing(run: &Running, owner: Option<&str>, alive: bool, next: Option<&str>) -> usize {
    let leases = run.report().leases;
    let is_so = |lease: &&shardmill::LeaseReport| {
        (lease.owner.as_deref(), lease.owner_alive, lease.moving_to.as_deref()) == (owner, alive, next)
    };
    leases.iter().filter(is_so).count()
}

/// Two workers that share four shards, the second one over a way of its own to the store.
async fn two(store: &Store) -> ([Running; 2], Store) {
    let (fake, seen, way) = (stream(4), Seen::default(), another(store));
    let [a, b] = ["a", "b"].map(worker);
    let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), store));
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &way));
    until("even shares", || [&first, &second].map(shards) == [2, 2]).await;
    ([first, second], way)
}

#[tokio::test(start_paused = true)]
async fn every_worker_shows_all_shards_and_all_workers_itself_included() {
    for store in stores() {
        let (runs, _) = two(&store).await;
        for (run, me) in runs.iter().zip(["a", "b"]) {
            until("both owners", || ["a", "b"].map(|id| showing(run, Some(id), true, None)) == [2, 2]).await;
            until("the leases of both", || run.report().workers.iter().all(|w| w.worker.leases == 2)).await;
            let workers = run.report().workers;
            let shown = workers.iter().map(|w| (w.worker.id.as_str(), w.is_self, w.alive));
            let other = if me == "a" { "b" } else { "a" };
            assert_eq!(shown.collect::<Vec<_>>(), [(me, true, true), (other, false, true)]);
        }
        for run in runs {
            run.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_is_its_owners_until_released_and_no_ones_until_taken() {
    for store in stores() {
        let (fake, seen, way) = (stream(4), Seen::default(), another(&store));
        let [a, b] = ["a", "b"].map(worker);
        let slow = seen.slow("a", Duration::from_secs(20));
        let first = launch(consumer(&fake, &a, mapping(), slow, &store));
        until("all shards", || shards(&first) == 4).await;
        put(&fake, 40);
        pass(Duration::from_secs(2)).await;
        way.fail(Operation::Acquire, Fault::HangBefore);
        let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &way));
        until("two are to be given", || showing(&first, Some("a"), true, Some("b")) == 2).await;
        assert_eq!(showing(&first, Some("a"), true, None), 2);
        // Released for b, which does not come to take them.
        for run in [&first, &second] {
            until("given and not taken", || showing(run, None, false, Some("b")) == 2).await;
            assert_eq!(showing(run, Some("a"), true, None), 2);
        }
        way.heal();
        for run in [&first, &second] {
            until("taken", || ["a", "b"].map(|id| showing(run, Some(id), true, None)) == [2, 2]).await;
        }
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_owner_works_until_a_leaders_handoff_ends_and_all_see_it() {
    for store in stores() {
        let ([first, second], way) = two(&store).await;
        let of_b = leases(&store).await.into_iter().find(|l| l.owner == Some(WorkerId::new("b"))).unwrap();
        // It does not see that it is to hand the lease over.
        way.fail(Operation::List, Fault::HangBefore);
        pass(LEASE).await;
        let [from, to] = ["b", "a"].map(WorkerId::new);
        store.inner().hand_off(&of_b.key, &from, &to).await.unwrap();
        until("the handoff", || showing(&first, Some("b"), true, Some("a")) == 1).await;
        assert_eq!(showing(&first, Some("b"), true, None), 1);
        way.heal();
        until("it has ended", || showing(&first, Some("a"), true, None) >= 2).await;
        until("no other is left", || showing(&first, Some("b"), true, Some("a")) == 0).await;
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_leases_of_a_dead_worker_show_that_it_is_dead_until_they_are_taken() {
    for store in stores() {
        let ([first, second], way) = two(&store).await;
        until("both owners", || showing(&first, Some("b"), true, None) == 2).await;
        // They stay with the dead one for as long as that takes.
        store.fail(Operation::Acquire, Fault::ErrorBefore);
        second.crash(&way).await;
        assert_eq!(showing(&first, Some("b"), true, None), 2);
        until("it is dead", || showing(&first, Some("b"), false, None) == 2).await;
        pass(LEASE * 2).await;
        assert_eq!(showing(&first, Some("b"), false, None), 2, "for as long as they are not taken");
        assert_eq!(showing(&first, Some("a"), true, None), 2);
        store.heal();
        until("they are taken", || showing(&first, Some("a"), true, None) == 4).await;
        let workers = first.report().workers;
        let shown = workers.iter().map(|w| (w.worker.id.as_str(), w.is_self, w.alive));
        assert_eq!(shown.collect::<Vec<_>>(), [("a", true, true), ("b", false, false)]);
        first.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_under_the_same_name_held_shows_that_its_owner_is_dead() {
    for store in stores() {
        let (fake, seen, way) = (stream(4), Seen::default(), another(&store));
        let first = launch(consumer(&fake, &worker("a"), mapping(), seen.handler("a"), &store));
        until("all shards", || shards(&first) == 4).await;
        first.crash(&store).await;
        way.fail(Operation::Acquire, Fault::ErrorBefore);
        let next = launch(consumer(&fake, &worker("a"), mapping(), seen.handler("a"), &way));
        until("its leases", || showing(&next, Some("a"), false, None) == 4).await;
        way.heal();
        until("its own leases", || showing(&next, Some("a"), true, None) == 4).await;
        next.stop().await;
    }
}
