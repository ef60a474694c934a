//! Leases of shards that are finished and gone (incident 40, I9).

use std::time::Duration;

use shardmill::Position;
use shardmill::checkpoint::{AppState, Checkpoint, Claim, Fault, Lease, LeaseStore, Operation, WorkerId};
use shardmill::engine::LeaseKey;
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};

use crate::support::*;

/// What a stream keeps, in generations.
const KEPT: usize = 3;

fn table() -> (FakeDynamoDbStreams, String) {
    let fake = FakeDynamoDbStreams::new();
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    (fake, arn)
}

/// The stream's newest shard is followed by another one; what is older than a day vanishes.
fn roll(fake: &FakeDynamoDbStreams) {
    let shards = fake.shards("orders").unwrap();
    fake.roll("orders", &shards.last().unwrap().id).unwrap();
    for old in shards.iter().rev().skip(KEPT) {
        if !old.forgotten {
            fake.forget_shard("orders", &old.id).unwrap();
        }
    }
}

fn changes(fake: &FakeDynamoDbStreams) -> Vec<(String, String)> {
    let changes = fake.changes("orders").unwrap();
    let mut all: Vec<_> = changes.into_iter().map(|c| (c.shard_id, c.sequence_number)).collect();
    // In the order in which they were made within each shard.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A line of shards of which the oldest ones have vanished and all but the last are read to their end. Nothing is
/// deleted yet.
async fn line_of_finished_shards(store: &Store) -> (FakeDynamoDbStreams, String, Seen) {
    let ((fake, arn), seen) = (table(), Seen::default());
    store.fail(Operation::DeleteEnded, Fault::ErrorBefore);
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), store));
    for generation in 0..8 {
        put_items(&fake, generation * 10..generation * 10 + 5);
        let read = usize::try_from(generation + 1).unwrap() * 5;
        until("the generation's records", || seen.len() == read).await;
        roll(&fake);
    }
    until("the last shard", || run.report().leases.len() == 9).await;
    until("a listing", || store.calls(Operation::DeleteEnded) > 0).await;
    run.stop().await;
    store.heal();
    (fake, arn, seen)
}

#[tokio::test(start_paused = true)]
async fn incident_40_leases_stay_bounded_while_a_stream_rolls_over_and_nothing_is_read_twice() {
    let ((fake, arn), store, seen) = (table(), store(), Seen::default());
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    let mut most = 0;
    for generation in 0..40 {
        put_items(&fake, generation * 10..generation * 10 + 5);
        let read = usize::try_from(generation + 1).unwrap() * 5;
        until("the generation's records", || seen.len() == read).await;
        roll(&fake);
        pass(Duration::from_secs(10)).await;
        most = most.max(leases(&store).await.len());
    }
    // It is listed after every nine ends.
    assert!(most <= KEPT + 12, "{most} leases of a stream that keeps {KEPT} shards");
    assert_eq!(run.report().stream_gaps, 0);
    assert!(run.report().leases.len() <= KEPT + 12, "the status forgets them, too");
    run.stop().await;
    assert_eq!(seen.by_shard(), changes(&fake), "nothing lost, nothing twice");
}

#[tokio::test(start_paused = true)]
async fn incident_40_leases_of_a_kinesis_stream_that_splits_and_merges_again_and_again_stay_bounded() {
    let (fake, store, seen): (FakeKinesis, _, _) = (stream(2), store(), Seen::default());
    let a = worker("a");
    let seldom = mapping()
        .idle_interval(Duration::from_millis(5_000))
        .maximum_idle_interval(Duration::from_millis(60_000));
    let run = launch(consumer(&fake, &a, seldom, seen.handler("a"), &store));
    let mut written = 0;
    for _ in 0..10 {
        let open = |fake: &FakeKinesis| -> Vec<String> {
            let shards = fake.shards("orders").unwrap();
            shards.into_iter().filter(|shard| shard.open).map(|shard| shard.id).collect()
        };
        let old: Vec<String> = fake.shards("orders").unwrap().into_iter().map(|shard| shard.id).collect();
        let (first, second) = (open(&fake)[0].clone(), open(&fake)[1].clone());
        let merged = fake.merge("orders", &first, &second).unwrap();
        put(&fake, 10);
        fake.split("orders", &merged).unwrap();
        put(&fake, 10);
        written += 20;
        until("the records", || seen.len() == written).await;
        pass(Duration::from_secs(10)).await;
        for shard in &old {
            // A shard that is gone already is gone.
            let _ = fake.forget_shard("orders", shard);
        }
    }
    // Nothing tells of shards that vanish: the hourly listing does.
    pass(Duration::from_secs(3700)).await;
    let left = leases(&store).await;
    assert!(left.len() <= 5, "{} leases for 2 open shards", left.len());
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "nothing lost, nothing twice");
}

#[tokio::test(start_paused = true)]
async fn i9_a_crash_at_any_deletion_harms_nothing_and_the_next_worker_deletes_the_rest() {
    for (healthy, fault) in [
        (0, Fault::ErrorBefore),
        (0, Fault::ErrorAfter),
        (0, Fault::HangBefore),
        (0, Fault::HangAfter),
        (1, Fault::HangBefore),
        (2, Fault::HangAfter),
        (3, Fault::HangBefore),
    ] {
        let first = store();
        let (fake, arn, seen) = line_of_finished_shards(&first).await;
        assert_eq!(leases(&first).await.len(), 9);
        let second = another(&first);
        for _ in 0..healthy {
            second.inject(Operation::DeleteEnded, Fault::Delay(Duration::ZERO));
        }
        second.inject(Operation::DeleteEnded, fault);
        let b = worker("b");
        let run = launch(of_table(&fake, &arn, &b, seen.handler("b"), &second));
        until("the deletion", || second.calls(Operation::DeleteEnded) > healthy).await;
        run.crash(&second).await;
        pass(LEASE * 3).await;
        let left = leases(&first).await;
        assert!((9 - 4..=9).contains(&left.len()), "{fault:?}: {}", left.len());
        let c = worker("c");
        let third = another(&first);
        let run = launch(of_table(&fake, &arn, &c, seen.handler("c"), &third));
        put_items(&fake, 100..105);
        until("the new records", || seen.distinct() == 45).await;
        until("the leases that are needed", || run.report().leases.len() <= KEPT + 2).await;
        run.stop().await;
        assert_eq!(seen.by_shard(), changes(&fake), "{fault:?}: nothing lost, nothing twice");
    }
}

async fn find(store: &Store, shard: &str) -> Option<Lease> {
    leases(store).await.into_iter().find(|lease| lease.key.shard.as_str() == shard)
}

#[tokio::test(start_paused = true)]
async fn incident_40_a_finished_lease_that_somebody_holds_is_deleted_only_once_its_owner_has_died() {
    let store = store();
    let (fake, arn, seen) = line_of_finished_shards(&store).await;
    let oldest = fake.shards("orders").unwrap()[0].id.clone();
    let lease = find(&store, &oldest).await.unwrap();
    let claim = Claim {
        owner: WorkerId::new("other"),
        token: "t".into(),
        process: None,
        lease_time: None,
        seen_heartbeat: 0,
    };
    store.inner().acquire(&lease.key, lease.counter, &claim).await.unwrap();
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    for round in 1..=20 {
        pass(LEASE / 2).await;
        // A checkpoint at the end, where it is, counts as a renewal.
        renew_at_end(&store, &lease.key, lease.counter + round).await;
    }
    assert_eq!(leases(&store).await.len(), 9, "neither it nor what comes after it");
    until("its end", || run.report().leases.len() <= KEPT + 2).await;
    assert_eq!(find(&store, &oldest).await, None);
    run.stop().await;
    assert_eq!(seen.by_shard(), changes(&fake));
}

async fn renew_at_end(store: &Store, key: &LeaseKey, counter: u64) {
    let end = Checkpoint { key: key.clone(), counter, position: Position::ShardEnd, app: AppState::new() };
    let written = store.inner().checkpoint(&[end]).await.unwrap();
    assert!(matches!(written[0], shardmill::checkpoint::Write::Done { .. }), "{written:?}");
}

#[tokio::test(start_paused = true)]
async fn incident_40_after_an_outage_beyond_retention_the_leases_of_the_lost_lineage_go_as_well() {
    let ((fake, arn), store, seen) = (table(), store(), Seen::default());
    put_items(&fake, 0..5);
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    until("the records", || seen.len() == 5).await;
    run.stop().await;
    for _ in 0..6 {
        roll(&fake);
    }
    put_items(&fake, 10..15);
    let b = worker("b");
    let seldom = table_mapping(&arn).maximum_idle_interval(Duration::from_millis(60_000));
    let run = launch(of_table_as(&fake, seldom, &b, seen.handler("b"), &store));
    until("the new records", || seen.len() == 10).await;
    pass(Duration::from_secs(3700)).await;
    let first = fake.shards("orders").unwrap()[0].id.clone();
    assert_eq!(find(&store, &first).await, None, "no listed shard is known to descend from it");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i15_the_pinned_start_survives_the_leases_that_were_created_with_it() {
    let ((fake, arn), store, seen) = (table(), store(), Seen::default());
    put_items(&fake, 900..905);
    pass(Duration::from_secs(5)).await;
    let a = worker("a");
    let latest = || table_mapping(&arn).starting_position(StartingPosition::Latest);
    let run = launch(of_table_as(&fake, latest(), &a, seen.handler("a"), &store));
    until("the lease", || run.report().shards.len() == 1).await;
    let pinned = leases(&store).await[0].app.get("pinnedStart").cloned();
    assert!(pinned.is_some());
    for generation in 0..12 {
        put_items(&fake, generation * 10..generation * 10 + 5);
        let read = usize::try_from(generation + 1).unwrap() * 5;
        until("the generation's records", || seen.len() == read).await;
        roll(&fake);
        pass(Duration::from_secs(10)).await;
    }
    let first = fake.shards("orders").unwrap()[0].id.clone();
    assert_eq!(find(&store, &first).await, None);
    assert!(leases(&store).await.iter().all(|lease| lease.app.get("pinnedStart").cloned() == pinned));
    run.stop().await;
}
