//! Leases under a slow handler, a bad store and competition (I10, I11; incidents 9 to 20).

use std::time::Duration;

use shardmill::checkpoint::{Fault, Lease, LeaseStore, Operation, Write};
use shardmill::{Batch, BatchResponse, HandlerError, InvokeContext};
use tokio::time::Instant;

use crate::support::*;

/// The shards' owners, by name.
async fn owners(store: &Store) -> Vec<String> {
    leases(store).await.into_iter().filter_map(|lease| Some(lease.owner?.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn incident_9_a_handler_that_takes_five_lease_times_keeps_its_lease() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 10);
    let (a, b) = (worker("a"), worker("b"));
    let slow = seen.slow("a", LEASE * 5);
    let first = launch(consumer(&fake, &a, mapping().batch_size(5), slow, &store));
    until("a's lease", || !first.report().shards.is_empty()).await;
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
    until("all records", || seen.len() >= 10).await;
    assert!(seen.all().iter().all(|sight| sight.worker == "a"), "no other worker took over");
    assert_eq!(seen.by_shard(), accepted(&fake));
    first.stop().await;
    put(&fake, 1);
    until("the next record", || seen.len() == 11).await;
    assert_eq!(seen.all()[10].worker, "b");
    second.stop().await;
    assert_eq!(owners(&store).await, Vec::<String>::new(), "I16: both released");
}

#[tokio::test]
async fn incident_9_a_handler_that_blocks_its_thread_for_lease_times_keeps_its_lease() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 1);
    let worker = shardmill::Worker::start(shardmill::WorkerOptions::default().id("a").lease(LEASE)).unwrap();
    let noting = seen.clone();
    let blocks = move |batch: Batch, cx: InvokeContext| {
        let noting = noting.clone();
        async move {
            // The runtime of this test has one thread: nothing but the keeper's own goes on.
            std::thread::sleep(LEASE * 2);
            noting.note("a", &batch, &cx);
            Ok::<_, HandlerError>(BatchResponse::success())
        }
    };
    let before = Instant::now();
    let run = launch(consumer(&fake, &worker, mapping(), blocks, &store));
    until("the record", || seen.len() == 1).await;
    assert!(before.elapsed() >= LEASE * 2);
    run.stop().await;
    let [lease] = <[Lease; 1]>::try_from(leases(&store).await).unwrap();
    assert_eq!(sequence(&lease.checkpoint), Some(seen.all()[0].seq.clone()), "the lease was never lost");
    assert_eq!((lease.owner, seen.len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn incident_13_writes_that_happen_but_are_answered_with_an_error_do_not_lose_the_lease() {
    for operation in [Operation::Renew, Operation::Checkpoint] {
        let (fake, store, seen) = (stream(1), store(), Seen::default());
        let a = worker("a");
        let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        until("the lease", || !run.report().shards.is_empty()).await;
        let token = leases(&store).await[0].token.clone();
        for round in 1..=20 {
            store.inject(operation, Fault::ErrorAfter);
            put(&fake, 5);
            until("the round's records", || seen.len() == round * 5).await;
            pass(LEASE / 2).await;
        }
        assert!(store.calls(operation) >= 20);
        assert_eq!(leases(&store).await[0].token, token, "one acquisition for the whole run: {operation:?}");
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted(&fake), "nothing twice: {operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_or_that_fails_once_still_gives_the_lease_up() {
    for (operation, fault) in [
        (Operation::Release, Fault::ErrorAfter),
        (Operation::Release, Fault::ErrorBefore),
        (Operation::Renew, Fault::ErrorAfter),
    ] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        let a = worker("a");
        let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        until("the leases", || run.report().shards.len() == 2).await;
        store.inject(operation, fault);
        let calls = store.calls(operation);
        if operation == Operation::Renew {
            until("the renewal", || store.calls(operation) > calls).await;
        }
        run.stop().await;
        assert!(store.calls(operation) > calls);
        assert_eq!(owners(&store).await, Vec::<String>::new(), "{operation:?} {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incidents_11_and_12_a_store_that_fails_for_less_than_a_lease_costs_nothing() {
    for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        let (a, b) = (worker("a"), worker("b"));
        let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        until("the leases", || run.report().shards.len() == 2).await;
        let other = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
        until("an even share", || (run.report().shards.len(), other.report().shards.len()) == (1, 1)).await;
        let tokens = async || leases(&store).await.into_iter().map(|lease| lease.token).collect::<Vec<_>>();
        let before = tokens().await;
        for round in 1..=10 {
            store.fail_all(fault);
            put(&fake, 20);
            pass(LEASE / 3).await;
            store.heal();
            until("the round's records", || seen.len() >= round * 20).await;
            pass(LEASE).await;
        }
        assert_eq!(seen.by_shard(), accepted(&fake), "nothing twice, in order: {fault:?}");
        assert_eq!(tokens().await, before, "no lease moved: {fault:?}");
        run.stop().await;
        other.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn incidents_11_and_12_an_owner_whose_store_is_gone_stops_before_another_worker_starts_and_comes_back()
{
    for fault in [Fault::ErrorBefore, Fault::HangBefore, Fault::ErrorAfter] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        let (a, b) = (worker("a"), worker("b"));
        let first = launch(consumer(&fake, &a, mapping().batch_size(1), seen.handler("a"), &store));
        until("the leases", || first.report().shards.len() == 2).await;
        let seconds = another(&store);
        let second = launch(consumer(&fake, &b, mapping().batch_size(1), seen.handler("b"), &seconds));
        let writer = tokio::spawn({
            let fake = fake.clone();
            async move {
                for _ in 0..200 {
                    put(&fake, 4);
                    pass(Duration::from_millis(100)).await;
                }
            }
        });
        pass(LEASE * 2).await;
        for operation in WRITES {
            // Acquiring forever without ever learning of it would keep all other workers away.
            let nothing_happens = operation == Operation::Acquire && fault == Fault::ErrorAfter;
            store.fail(operation, if nothing_happens { Fault::ErrorBefore } else { fault });
        }
        until("the takeover", || second.report().shards.len() == 2).await;
        assert_eq!(first.report().shards.len(), 0, "the owner has stopped by then: {fault:?}");
        store.heal();
        seconds.fail_all(Fault::HangBefore);
        until("the way back", || first.report().shards.len() == 2).await;
        writer.await.unwrap();
        until("all records", || seen.distinct() == 800).await;
        first.stop().await;
        second.stop().await;
        assert_eq!(seen.first_sights(), accepted(&fake), "nothing lost, in order: {fault:?}");
        for shard in fake.shards("orders").unwrap() {
            let workers: Vec<_> =
                seen.all().into_iter().filter(|s| s.shard == shard.id).map(|s| s.worker).collect();
            assert_eq!(workers.chunk_by(|a, b| a == b).count(), 3, "a, b, a and never both: {fault:?}");
        }
        let twice = seen.len() - 800;
        assert!(twice <= 200, "what comes twice is bounded by what was not stored: {twice}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_14_checkpoints_that_fail_or_hang_cost_neither_the_lease_nor_a_renewal() {
    for fault in [Fault::ErrorBefore, Fault::HangBefore] {
        let (fake, store, seen) = (stream(4), store(), Seen::default());
        let a = worker("a");
        let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        until("the leases", || run.report().shards.len() == 4).await;
        let tokens: Vec<_> = leases(&store).await.into_iter().map(|lease| lease.token).collect();
        store.fail(Operation::Checkpoint, fault);
        for _ in 0..20 {
            put(&fake, 40);
            pass(LEASE / 2).await;
        }
        let now: Vec<_> = leases(&store).await.into_iter().map(|lease| lease.token).collect();
        assert_eq!(now, tokens, "no lease was lost in ten lease times: {fault:?}");
        assert!(
            run.report()
                .shards
                .iter()
                .any(|shard| { shard.last_error.as_ref().is_some_and(|error| error.what == "checkpoint") })
        );
        store.heal();
        until("the checkpoints", || {
            run.report().leases.iter().all(|lease| sequence(&lease.checkpoint).is_some())
        })
        .await;
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted(&fake), "nothing twice: {fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_18_a_paused_owner_starts_nothing_more_and_its_late_checkpoint_is_refused() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 3);
    let (a, b) = (worker("a"), worker("b"));
    let slow = seen.slow("a", LEASE / 2);
    let first = launch(consumer(&fake, &a, mapping().batch_size(1), slow, &store));
    until("the first record", || seen.len() == 1).await;
    // From a's point of view the world stands still: what it sends arrives after b has taken over.
    for operation in WRITES {
        store.fail(operation, Fault::HangBefore);
    }
    let stale = leases(&store).await.remove(0);
    let second = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&store)));
    until("b's records", || seen.all().iter().any(|sight| sight.worker == "b")).await;
    let late = shardmill::checkpoint::Checkpoint {
        key: stale.key.clone(),
        counter: stale.counter,
        position: shardmill::Position::ShardEnd,
        app: Default::default(),
    };
    let refused = store.inner().checkpoint(&[late]).await.unwrap();
    assert!(matches!(&refused[..], [Write::Refused { .. }]), "incident 15: {refused:?}");
    let taken_at = seen.all().iter().find(|sight| sight.worker == "b").unwrap().at;
    assert!(seen.all().iter().all(|sight| sight.worker == "b" || sight.at < taken_at));
    store.heal();
    first.stop().await;
    second.stop().await;
    assert_eq!(seen.first_sights(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn maximum_leases_holds_over_all_consumers_of_a_worker_even_when_others_leases_expire() {
    let (fake, seen) = (stream(6), Seen::default());
    let (store_x, store_y) = (store(), store());
    let a = shardmill::Worker::start(options("a").maximum_leases(3)).unwrap();
    let b = worker("b");
    let others = another(&store_x);
    let other = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &others));
    until("b's leases", || other.report().shards.len() == 6).await;
    let x = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store_x));
    let y = launch(consumer(&fake, &a, mapping().name("y"), seen.handler("a"), &store_y));
    let held = || x.report().shards.len() + y.report().shards.len();
    until("three leases", || held() == 3).await;
    assert_eq!(x.report().shards.len(), 0, "b has them all");
    other.crash(&others).await;
    y.stop().await;
    until("three of b's leases", || x.report().shards.len() == 3).await;
    for _ in 0..50 {
        pass(LEASE / 4).await;
        assert_eq!(x.report().shards.len(), 3);
    }
    x.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_76_two_workers_with_different_lease_times_never_work_on_one_shard_at_the_same_time() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 20);
    let patient = shardmill::Worker::start(options("a").lease(LEASE * 150)).unwrap();
    let hasty = worker("b");
    let first = launch(consumer(&fake, &patient, mapping().batch_size(1), seen.slow("a", LEASE * 2), &store));
    until("the lease", || !first.report().shards.is_empty()).await;
    let second = launch(consumer(&fake, &hasty, mapping(), seen.handler("b"), &another(&store)));
    // No renewal and no checkpoint of the patient owner arrives for many of the hasty one's lease times.
    store.fail(Operation::Checkpoint, Fault::ErrorBefore);
    pass(LEASE * 45).await;
    assert_eq!(leases(&store).await[0].lease_time, Some(LEASE * 150));
    assert_eq!(owners(&store).await, ["a"]);
    assert!(seen.all().iter().all(|sight| sight.worker == "a"), "one owner works");
    store.heal();
    until("all records", || seen.distinct() == 20).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "each record once");
}

#[tokio::test(start_paused = true)]
async fn incident_81_a_stop_in_the_middle_of_a_round_of_renewals_gives_every_lease_up() {
    let (fake, store, seen) = (stream(10), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the leases", || run.report().shards.len() == 10).await;
    // A checkpoint counts as a renewal: now the leases are due one after the other.
    for shard in fake.shards("orders").unwrap() {
        fake.put_to_shard("orders", &shard.id, Some("key"), "record").unwrap();
        pass(LEASE / 20).await;
    }
    until("the records", || seen.len() == 10).await;
    store.fail(Operation::Renew, Fault::Delay(LEASE / 4));
    let calls = store.calls(Operation::Renew);
    until("a renewal under way", || store.calls(Operation::Renew) > calls).await;
    pass(LEASE / 8).await;
    let begun = Instant::now();
    run.stop().await;
    assert_eq!(owners(&store).await, Vec::<String>::new(), "I16: every lease is released");
    assert!(begun.elapsed() < LEASE / 2, "nothing waited for the end of a lease: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn incident_20_a_lease_that_arrives_while_the_consumer_stops_is_given_up() {
    let (fake, store, seen) = (stream(3), store(), Seen::default());
    let a = worker("a");
    store.fail(Operation::Acquire, Fault::Delay(Duration::from_millis(500)));
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the acquisitions", || store.calls(Operation::Acquire) == 3).await;
    assert!(run.report().shards.is_empty());
    run.stop().await;
    assert_eq!(store.calls(Operation::Release), 3);
    assert_eq!(owners(&store).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_keepers_work_for_a_consumer_ends_with_its_run_even_if_the_worker_and_the_status_live_on() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the leases", || run.report().shards.len() == 2).await;
    let status = run.status.clone();
    run.stop().await;
    pass(LEASE).await;
    let calls = store.calls(Operation::List);
    pass(LEASE * 10).await;
    assert_eq!(store.calls(Operation::List), calls, "the leases are no longer listed");
    assert_eq!(status.report().leases.len(), 2, "the status stays readable");
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_run_gives_its_leases_up() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    let a = worker("a");
    let mut run = Box::pin(
        consumer(&fake, &a, mapping(), seen.handler("a"), &store)
            .build()
            .unwrap()
            .run(shardmill::CancellationToken::new()),
    );
    for _ in 0..100 {
        let _ = tokio::time::timeout(Duration::from_millis(20), &mut run).await;
    }
    assert_eq!(owners(&store).await, ["a", "a"]);
    drop(run);
    // A lease may be taken and released again before the keeper knows that its consumer is gone.
    until("the releases", || store.calls(Operation::Release) >= 2).await;
    pass(Duration::from_millis(100)).await;
    assert_eq!(owners(&store).await, Vec::<String>::new());
    drop(a);
}

#[test]
fn a_store_that_never_answers_does_not_keep_the_keepers_thread_from_ending() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    store.fail_all(Fault::HangBefore);
    let worker = shardmill::Worker::start(shardmill::WorkerOptions::default().lease(LEASE)).unwrap();
    let builder = consumer(&fake, &worker, mapping(), seen.handler("a"), &store);
    runtime.block_on(async {
        let run = launch(builder);
        until("the first call", || store.calls(Operation::List) > 0).await;
        run.stop().await;
    });
    let alive = std::sync::Arc::downgrade(&worker);
    drop(worker);
    drop(runtime);
    assert!(alive.upgrade().is_none(), "the worker is gone and its thread was joined");
}
