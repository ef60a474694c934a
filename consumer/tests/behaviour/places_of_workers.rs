//! Workers with a bound on their leases (`MaximumLeases`), and what any worker shows of who has what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shardmill::Worker;
use shardmill::checkpoint::{FaultyStore, LeaseStore as _, MemoryStore, WorkerId};
use tokio::time::Instant;

use crate::logs;
use crate::support::*;

/// How often leases are given for balance.
const INTERVAL: Duration = Duration::from_secs(5);

fn bounded(id: &str, leases: usize) -> Arc<Worker> {
    Worker::start(options(id).maximum_leases(leases)).unwrap()
}

fn lines_with(text: &str) -> Vec<String> {
    logs::lines().into_iter().filter(|line| line.contains(text)).collect()
}

#[tokio::test(start_paused = true)]
async fn maximum_leases_bound_a_worker_and_the_others_take_the_rest() {
    logs::collect();
    let (fake, store, seen) = (stream(8), store(), Seen::default());
    let (small, b) = (bounded("a", 2), worker("b"));
    let first = launch(consumer(&fake, &small, mapping(), seen.handler("a"), &store));
    until("as many as it may", || shards(&first) == 2).await;
    pass(INTERVAL * 3).await;
    assert_eq!((shards(&first), first.report().unplaced_shards), (2, 6));
    let told = lines_with("no worker may take these shards");
    assert!(told.len() == 1 && told[0].starts_with("WARN") && told[0].contains("leases=6"), "{told:?}");
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
    until("the rest", || shards(&second) == 6).await;
    pass(INTERVAL * 3).await;
    assert_eq!((shards(&first), shards(&second)), (2, 6));
    assert_eq!([&first, &second].map(|run| run.report().unplaced_shards), [0, 0]);
    let ended = lines_with("every shard has a worker that may take it again");
    assert!(ended.len() == 1 && ended[0].starts_with("INFO"), "{ended:?}");
    second.stop().await;
    first.stop().await;
    assert_eq!(lines_with("no worker may take these shards").len(), 1, "a stop is none of that");
}

/// Both mappings of a worker say that it has the same places left, so the other worker gives it more than it may have.
#[tokio::test(start_paused = true)]
async fn a_lease_for_which_the_worker_has_no_place_left_goes_back_at_once() {
    for by_heartbeat in [false, true] {
        let new = || if by_heartbeat { MemoryStore::renewed_by_heartbeat() } else { MemoryStore::new() };
        let stores = [FaultyStore::new(new()), FaultyStore::new(new())];
        let (fake, seen) = (stream(4), Seen::default());
        let (large, small) = (worker("b"), bounded("a", 3));
        let both = |worker: &Arc<Worker>, name| {
            let launch_on =
                |store| launch(consumer(&fake, worker, mapping(), seen.handler(name), &another(store)));
            stores.each_ref().map(launch_on)
        };
        let held = |runs: &[Running; 2]| runs.iter().map(shards).sum::<usize>();
        let others = both(&large, "b");
        until("all shards", || held(&others) == 8).await;
        let own = both(&small, "a");

        let (begun, mut free, mut longest) = (Instant::now(), HashMap::new(), Duration::ZERO);
        while begun.elapsed() < INTERVAL * 6 {
            for (number, store) in stores.iter().enumerate() {
                for lease in leases(store).await {
                    let name = (number, lease.key.clone());
                    if lease.holder().is_some() {
                        free.remove(&name);
                    } else {
                        let since = *free.entry(name).or_insert_with(Instant::now);
                        longest = longest.max(since.elapsed());
                    }
                }
            }
            pass(Duration::from_millis(50)).await;
        }
        assert!(longest < LEASE / 2, "{longest:?} without a reader");
        assert_eq!((held(&own), held(&others)), (3, 5));
        let tokens = async || {
            let [one, two] = stores.each_ref().map(|store| store.inner().clone());
            let all = one.list().await.unwrap().into_iter().chain(two.list().await.unwrap());
            all.map(|lease| lease.token).collect::<Vec<_>>()
        };
        let settled = tokens().await;
        pass(INTERVAL * 12).await;
        assert_eq!(tokens().await, settled, "nothing goes to and fro");
        for run in own.into_iter().chain(others) {
            run.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_worker_shows_a_handoff_that_the_store_shows_and_whether_an_owner_lives() {
    for store in stores() {
        let (fake, seen) = (stream(4), Seen::default());
        let [a, b] = ["a", "b"].map(worker);
        let first = launch(consumer(&fake, &a, mapping(), seen.slow("a", LEASE * 2), &store));
        let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
        until("even shares", || (shards(&first), shards(&second)) == (2, 2)).await;
        let shard = first.report().shards[0].shard.clone();
        let seen_by = |run: &Running| {
            let report = run.report();
            let lease = report.leases.into_iter().find(|lease| lease.shard == shard).unwrap();
            (lease.owner, lease.owner_alive, lease.moving_to)
        };
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(seen_by(&second), (name("a"), true, None));

        put(&fake, 40);
        pass(LEASE / 2).await;
        let key = leases(&store).await.into_iter().find(|lease| lease.key.shard == shard).unwrap().key;
        let [old, next] = ["a", "b"].map(WorkerId::new);
        store.inner().hand_off(&key, &old, &next).await.unwrap();
        until("the handoff shows", || seen_by(&second) == (name("a"), true, name("b"))).await;
        until("the next owner", || seen_by(&second) == (name("b"), true, None)).await;

        let one = first.report().shards[0].shard.clone();
        first.crash(&store).await;
        let of_dead = || {
            let report = second.report();
            let lease = report.leases.into_iter().find(|lease| lease.shard == one).unwrap();
            (lease.owner, lease.owner_alive)
        };
        until("its death shows", || of_dead() == (name("a"), false) || of_dead().0 == name("b")).await;
        until("its successor", || of_dead() == (name("b"), true)).await;
        second.stop().await;
    }
}
