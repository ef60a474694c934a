//! Several workers share the shards of a stream: who gets what, handoffs, joins, stops and deaths.

use std::time::Duration;

use shardmill::checkpoint::{FaultyStore, LeaseStore, MemoryStore, Operation};
use tokio::time::Instant;

use crate::support::*;

/// How often leases are given for balance.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes ten records every 100 ms until it is dropped.
struct Writer(tokio::task::JoinHandle<()>);

impl Writer {
    fn start(fake: &shardmill_testkit::FakeKinesis) -> Self {
        let fake = fake.clone();
        Self(tokio::spawn(async move {
            loop {
                put(&fake, 10);
                pass(Duration::from_millis(100)).await;
            }
        }))
    }

    async fn stop(self) {
        self.0.abort();
        assert!(self.0.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_joins_gets_its_share_and_nothing_is_handled_twice() {
    for store in stores() {
        let (fake, seen) = (stream(8), Seen::default());
        let (a, b) = (worker("a"), worker("b"));
        let first = launch(consumer(&fake, &a, mapping(), seen.slow("a", Duration::from_millis(30)), &store));
        until("all shards", || shards(&first) == 8).await;
        let writer = Writer::start(&fake);
        let second = launch(consumer(
            &fake,
            &b,
            mapping(),
            seen.slow("b", Duration::from_millis(30)),
            &another(&store),
        ));
        let begun = Instant::now();
        until("an even share", || (shards(&first), shards(&second)) == (4, 4)).await;
        assert!(begun.elapsed() <= INTERVAL * 3, "{:?}", begun.elapsed());
        let tokens = async || leases(&store).await.into_iter().map(|lease| lease.token).collect::<Vec<_>>();
        let settled = tokens().await;
        pass(INTERVAL * 12).await;
        assert_eq!(tokens().await, settled, "nothing moves without a reason");
        writer.stop().await;
        until("all records", || seen.len() >= accepted(&fake).len()).await;
        assert_eq!(seen.by_shard(), accepted(&fake), "every record once, in order");
        let workers = first.report().workers;
        assert_eq!(
            workers.iter().map(|peer| (peer.worker.id.as_str(), peer.alive)).collect::<Vec<_>>(),
            [("a", true), ("b", true)]
        );
        assert!(workers[0].is_self && !workers[1].is_self);
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn i16_a_stop_gives_every_shard_to_the_planned_next_owner_at_once() {
    for store in stores() {
        let (fake, seen) = (stream(6), Seen::default());
        let [a, b, c] = ["a", "b", "c"].map(worker);
        let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
        let third = launch(consumer(&fake, &c, mapping(), seen.handler("c"), &another(&store)));
        until("even shares", || [&first, &second, &third].map(shards) == [2, 2, 2]).await;
        let writer = Writer::start(&fake);
        pass(Duration::from_secs(3)).await;
        let begun = Instant::now();
        first.stop().await;
        until("the next owners", || [&second, &third].map(shards) == [3, 3]).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(
            second.report().workers.iter().all(|peer| peer.worker.id.as_str() != "a"),
            "its record is gone"
        );
        writer.stop().await;
        until("all records", || seen.len() >= accepted(&fake).len()).await;
        assert_eq!(seen.by_shard(), accepted(&fake), "every record once, in order");
        second.stop().await;
        third.stop().await;
        // The last one may not know yet that the other has left: what it gave is nobody's.
        let (d, begun) = (worker("d"), Instant::now());
        let next = launch(consumer(&fake, &d, mapping(), seen.handler("d"), &another(&store)));
        until("all shards", || shards(&next) == 6).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        next.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn i11_a_dead_workers_shards_are_shared_by_the_others_after_a_lease_time() {
    for store in stores() {
        let (fake, seen) = (stream(6), Seen::default());
        let [a, b, c] = ["a", "b", "c"].map(worker);
        let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        let (seconds, thirds) = (another(&store), another(&store));
        let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &seconds));
        let third = launch(consumer(&fake, &c, mapping(), seen.handler("c"), &thirds));
        until("even shares", || [&first, &second, &third].map(shards) == [2, 2, 2]).await;
        first.crash(&store).await;
        let acquisitions = || seconds.calls(Operation::Acquire) + thirds.calls(Operation::Acquire);
        let (begun, before) = (Instant::now(), acquisitions());
        until("the survivors", || [&second, &third].map(shards) == [3, 3]).await;
        let took = begun.elapsed();
        assert!(took >= LEASE / 2 && took <= LEASE + Duration::from_millis(1500), "{took:?}");
        assert_eq!(acquisitions() - before, 2, "each takes only what is its by the plan");
        put(&fake, 60);
        until("all records", || seen.len() == 60).await;
        assert!(seen.all().iter().all(|sight| sight.worker != "a"));
        second.stop().await;
        third.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn i10_a_worker_whose_heartbeats_fail_loses_its_shards_before_others_work_on_them() {
    let store = FaultyStore::new(MemoryStore::renewed_by_heartbeat());
    let (fake, seen) = (stream(4), Seen::default());
    let [a, b] = ["a", "b"].map(worker);
    let first = launch(consumer(&fake, &a, mapping().batch_size(1), seen.handler("a"), &store));
    until("all shards", || shards(&first) == 4).await;
    let second = launch(consumer(&fake, &b, mapping().batch_size(1), seen.handler("b"), &another(&store)));
    until("even shares", || (shards(&first), shards(&second)) == (2, 2)).await;
    let writer = Writer::start(&fake);
    pass(LEASE * 2).await;
    writer.stop().await;
    // Everything else of the store answers: only the sign of life does not come through.
    store.fail(Operation::Heartbeat, shardmill::checkpoint::Fault::ErrorBefore);
    until("the survivor", || shards(&second) == 4).await;
    let handover = Instant::now();
    put(&fake, 40);
    store.heal();
    until("a share again", || (shards(&first), shards(&second)) == (2, 2)).await;
    let tokens = async || leases(&store).await.into_iter().map(|lease| lease.token).collect::<Vec<_>>();
    let settled = tokens().await;
    // A lease that seems free is left to the plan's taker for an interval.
    pass(LEASE + INTERVAL * 2).await;
    assert_eq!(tokens().await, settled, "its heartbeats keep its leases again");
    put(&fake, 40);
    until("all records", || seen.distinct() == accepted(&fake).len()).await;
    assert_eq!(seen.first_sights(), accepted(&fake), "nothing lost, in order");
    assert!(seen.all().iter().any(|sight| sight.worker == "a" && sight.at > handover), "it came back");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_13_a_heartbeat_that_is_written_and_answered_with_an_error_costs_nothing() {
    let store = FaultyStore::new(MemoryStore::renewed_by_heartbeat());
    let (fake, seen) = (stream(2), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the leases", || shards(&run) == 2).await;
    let tokens =
        async || store.list().await.unwrap().into_iter().map(|lease| lease.token).collect::<Vec<_>>();
    let before = tokens().await;
    for round in 1..=20 {
        store.inject(Operation::Heartbeat, shardmill::checkpoint::Fault::ErrorAfter);
        put(&fake, 5);
        until("the round's records", || seen.len() == round * 5).await;
        pass(LEASE / 2).await;
    }
    assert_eq!(tokens().await, before, "one acquisition for the whole run");
    assert_eq!(store.calls(Operation::Renew), 0, "no lease is renewed by itself");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_14_checkpoints_that_hang_hold_no_heartbeat_up() {
    let store = FaultyStore::new(MemoryStore::renewed_by_heartbeat());
    let (fake, seen) = (stream(4), Seen::default());
    let [a, b] = ["a", "b"].map(worker);
    let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
    until("even shares", || [&first, &second].map(shards) == [2, 2]).await;
    let tokens = async || leases(&store).await.into_iter().map(|lease| lease.token).collect::<Vec<_>>();
    let before = tokens().await;
    store.fail(Operation::Checkpoint, shardmill::checkpoint::Fault::HangBefore);
    let beats = store.calls(Operation::Heartbeat);
    for _ in 0..20 {
        put(&fake, 40);
        pass(LEASE / 2).await;
    }
    let beats = store.calls(Operation::Heartbeat) - beats;
    assert!((38..=42).contains(&beats), "four in each of ten lease times: {beats}");
    assert_eq!(tokens().await, before, "no lease was lost in ten lease times");
    store.heal();
    until("all records", || seen.len() >= accepted(&fake).len()).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "nothing twice");
}
