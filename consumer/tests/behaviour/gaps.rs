//! Records that were lost before they were read: reported, counted, and a policy (I17).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shardmill::engine::{GapKind, MappingBuilder, OnGap};
use shardmill::{Batch, BatchResponse, Handler, HandlerError, InvokeContext, Position, RunError};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};

use crate::support::*;

const HOUR: Duration = Duration::from_hours(1);

/// Reads once a minute at the tip, so that days pass quickly.
fn slow_mapping() -> MappingBuilder {
    mapping()
        .idle_interval(Duration::from_millis(60_000))
        .maximum_idle_interval(Duration::from_millis(60_000))
}

fn gaps(run: &Running) -> Vec<(u64, Option<GapKind>)> {
    let snapshots = run.report().shards.into_iter().filter_map(|shard| shard.snapshot);
    snapshots.map(|s| (s.counters.gaps, s.last_gap.map(|gap| gap.kind))).collect()
}

/// Ten records are read and stored; then no worker reads for so long while ten more come every hour.
async fn absent(fake: &FakeKinesis, store: &Store, hours: u32) {
    let seen = Seen::default();
    put(fake, 10);
    let a = worker("a");
    let run = launch(consumer(fake, &a, slow_mapping(), seen.handler("a"), store));
    until("the first records", || seen.len() == 10).await;
    run.stop().await;
    for _ in 0..hours {
        pass(HOUR).await;
        put(fake, 10);
    }
    // Nothing is just about to expire.
    pass(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn i17_a_kinesis_checkpoint_beyond_retention_is_a_counted_gap_and_reading_goes_on_at_the_oldest_record()
{
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    absent(&fake, &store, 30).await;
    let b = worker("b");
    let run = launch(consumer(&fake, &b, slow_mapping(), seen.handler("b"), &store));
    until("the records that are left", || seen.len() == 240).await;
    assert_eq!(gaps(&run), [(1, Some(GapKind::BeyondRetention))]);
    let gap = run.report().shards[0].snapshot.clone().unwrap().last_gap.unwrap();
    assert_eq!(gap.to.unwrap().number.to_string(), seen.all()[0].seq, "how far the gap goes");
    assert_eq!(run.report().shards[0].last_error.clone().unwrap().what, "gap");
    run.stop().await;
    let c = worker("c");
    let run = launch(consumer(&fake, &c, slow_mapping(), seen.handler("c"), &store));
    put(&fake, 1);
    until("one more record", || seen.len() == 241).await;
    assert_eq!(gaps(&run), [(0, None)], "reported once");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i17_a_checkpoint_within_retention_is_no_gap() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    absent(&fake, &store, 23).await;
    let b = worker("b");
    let run = launch(consumer(&fake, &b, slow_mapping(), seen.handler("b"), &store));
    until("the records", || seen.len() == 230).await;
    assert_eq!(gaps(&run), [(0, None)]);
    run.stop().await;
}

/// A function that takes nothing while it is blocked.
fn blocked(seen: &Seen, is_blocked: &Arc<AtomicBool>) -> impl Handler + use<> {
    let (seen, is_blocked) = (seen.clone(), Arc::clone(is_blocked));
    move |batch: Batch, cx: InvokeContext| {
        let (seen, is_blocked) = (seen.clone(), Arc::clone(&is_blocked));
        async move {
            if is_blocked.load(Ordering::Relaxed) {
                return Err(HandlerError::function("blocked"));
            }
            seen.note("a", &batch, &cx);
            Ok(BatchResponse::success())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn i17_a_retention_that_is_shortened_while_a_function_blocks_the_shard_is_a_gap() {
    for policy in [OnGap::Continue, OnGap::Stop] {
        let (fake, store, seen) = (stream(1), store(), Seen::default());
        put(&fake, 5);
        let is_blocked = Arc::new(AtomicBool::new(false));
        let a = worker("a");
        let mapping = slow_mapping().on_gap(policy).buffer_bytes(1 << 20).maximum_backoff(HOUR / 16);
        let handler = blocked(&seen, &is_blocked);
        let run = launch(consumer(&fake, &a, mapping, handler, &store).discovery_interval(HOUR / 16));
        until("the first records", || seen.len() == 5).await;
        is_blocked.store(true, Ordering::Relaxed);
        let put_large = || fake.put("orders", Some("key"), vec![7_u8; 1_000_000]).unwrap();
        for _ in 0..18 {
            put_large();
            pass(HOUR / 12).await;
        }
        // What waits for the function is in memory; what comes after it is not.
        fake.set_retention("orders", HOUR / 2).unwrap();
        put_large();
        pass(HOUR / 8).await;
        is_blocked.store(false, Ordering::Relaxed);
        if policy == OnGap::Stop {
            let error = run.ended().await.unwrap_err();
            assert!(matches!(&error, RunError::Gap(text) if text.contains("retention")), "{error}");
            continue;
        }
        let last = accepted(&fake).pop().unwrap().1;
        until("what is left", || seen.all().last().is_some_and(|sight| sight.seq == last)).await;
        assert_eq!(gaps(&run), [(1, Some(GapKind::BeyondRetention))]);
        run.stop().await;
        let all = accepted(&fake);
        let lost = all.iter().filter(|record| !seen.by_shard().contains(record)).count();
        assert!((5..=14).contains(&lost), "{lost} of 19 large records were trimmed unread");
    }
}

#[tokio::test(start_paused = true)]
async fn i17_a_shard_that_was_read_and_stayed_empty_beyond_retention_is_no_gap_after_a_restart() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    fake.set_retention("orders", HOUR * 2).unwrap();
    put(&fake, 1);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, slow_mapping(), seen.handler("a"), &store).discovery_interval(HOUR));
    until("the record", || seen.len() == 1).await;
    for _ in 0..30 {
        pass(HOUR / 12).await;
    }
    assert_eq!(gaps(&run), [(0, None)]);
    run.crash(&store).await;
    pass(LEASE * 3).await;
    let b = worker("b");
    let second = another(&store);
    let run = launch(consumer(&fake, &b, slow_mapping(), seen.handler("b"), &second));
    put(&fake, 1);
    until("the new record", || seen.len() == 2).await;
    assert_eq!(gaps(&run), [(0, None)]);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i17_under_stop_the_mapping_stops_at_a_gap_again_and_again_until_it_is_told_to_go_on() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    absent(&fake, &store, 30).await;
    for name in ["b", "c"] {
        let worker = worker(name);
        let stopping = slow_mapping().on_gap(OnGap::Stop);
        let run = launch(consumer(&fake, &worker, stopping, seen.handler("b"), &store));
        let status = run.status.clone();
        let error = run.ended().await.unwrap_err();
        assert!(matches!(&error, RunError::Gap(text) if text.contains("retention")), "{error}");
        assert!(error.to_string().contains("set it to continue"), "{error}");
        assert_eq!(status.report().last_error.unwrap().what, "gap", "readiness shows it");
        assert!(leases(&store).await.iter().all(|lease| lease.owner.is_none()), "the leases are released");
    }
    assert_eq!(seen.len(), 0);
    let d = worker("d");
    let run = launch(consumer(&fake, &d, slow_mapping(), seen.handler("d"), &store));
    until("the records that are left", || seen.len() == 240).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_36_a_parent_that_vanished_unread_is_a_gap_and_its_children_start() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 5);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the records", || seen.len() == 5).await;
    run.stop().await;
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    put(&fake, 5);
    fake.split("orders", &parent).unwrap();
    put(&fake, 20);
    fake.forget_shard("orders", &parent).unwrap();
    let b = worker("b");
    let run = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &store));
    pass(Duration::from_secs(30)).await;
    assert_eq!(seen.len(), 5, "until it is certain that the shard is gone its children wait (I9)");
    until("the children's records", || seen.len() == 25).await;
    run.stop().await;
    let of_parent = leases(&store).await.into_iter().find(|lease| lease.key.shard.as_str() == parent);
    assert_eq!(of_parent.unwrap().checkpoint, Position::ShardEnd);
}

#[tokio::test(start_paused = true)]
async fn i9_a_stream_that_is_missing_for_a_while_is_not_taken_for_shards_that_are_gone() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 5);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the records", || seen.len() == 5).await;
    let missing = shardmill_testkit::kinesis::Fault::Error {
        status: 400,
        code: "ResourceNotFoundException".into(),
        message: "Stream orders under account 000000000000 not found.".into(),
    };
    let held = fake.faults().on_any().hold(missing);
    pass(HOUR).await;
    put(&fake, 5);
    drop(held);
    until("the records since", || seen.len() == 10).await;
    assert!(gaps(&run).iter().all(|(count, _)| *count == 0));
    run.stop().await;
    assert!(leases(&store).await.iter().all(|lease| lease.checkpoint != Position::ShardEnd));
}

#[tokio::test(start_paused = true)]
async fn incident_43_a_stream_that_was_created_again_with_something_unread_is_one_gap_of_the_stream() {
    for policy in [OnGap::Continue, OnGap::Stop] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        put(&fake, 10);
        let a = worker("a");
        let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
        until("the old records", || seen.len() == 10).await;
        assert_eq!(run.report().stream_gaps, 0);
        run.stop().await;
        fake.delete_stream("orders").unwrap();
        pass(Duration::from_secs(2)).await;
        fake.create_stream("orders", 2).unwrap();
        put(&fake, 10);
        let b = worker("b");
        let run = launch(consumer(&fake, &b, mapping().on_gap(policy), seen.handler("b"), &store));
        if policy == OnGap::Stop {
            assert!(matches!(run.ended().await, Err(RunError::Gap(_))));
            assert_eq!(
                leases(&store).await.len(),
                2,
                "no lease of the new stream: the next start stops, too"
            );
            continue;
        }
        until("the new records", || seen.len() == 20).await;
        pass(Duration::from_secs(60)).await;
        let report = run.report();
        assert_eq!(report.stream_gaps, 1);
        let message = report.last_stream_gap.unwrap().message;
        assert!(message.contains("2 shards of the earlier one"), "{message}");
        run.stop().await;
        let c = worker("c");
        let run = launch(consumer(&fake, &c, mapping(), seen.handler("c"), &store));
        until("the leases", || run.report().shards.len() == 2).await;
        assert_eq!(run.report().stream_gaps, 0, "told once");
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn incident_61_trimmed_data_of_a_dynamodb_stream_is_a_certain_gap_and_reading_goes_on() {
    let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    let shard = fake.shards("orders").unwrap()[0].id.clone();
    put_items(&fake, 0..5);
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    until("the records", || seen.len() == 5).await;
    run.stop().await;
    let numbers = put_items(&fake, 5..15);
    fake.trim("orders", &shard, &numbers[5]).unwrap();
    let b = worker("b");
    let run = launch(of_table(&fake, &arn, &b, seen.handler("b"), &store));
    until("what is left", || seen.len() == 9).await;
    assert_eq!(gaps(&run), [(1, Some(GapKind::Trimmed))]);
    let gap = run.report().shards[0].snapshot.clone().unwrap().last_gap.unwrap();
    assert_eq!(gap.from.to_string(), format!("after {}", seen.all()[4].seq));
    assert_eq!(gap.to.unwrap().number.to_string(), numbers[6]);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_64_a_dynamodb_stream_that_was_enabled_again_shares_no_leases_and_is_a_gap_of_the_stream() {
    let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
    let old = fake.create_table("orders", &["id"], 1).unwrap();
    put_items(&fake, 0..5);
    let a = worker("a");
    let run = launch(of_table(&fake, &old, &a, seen.handler("a"), &store));
    until("the old records", || seen.len() == 5).await;
    run.stop().await;
    put_items(&fake, 5..8);
    fake.disable_stream("orders").unwrap();
    pass(Duration::from_secs(5)).await;
    let new = fake.enable_stream("orders").unwrap();
    assert_ne!(old, new);
    put_items(&fake, 8..12);
    let b = worker("b");
    let run = launch(of_table(&fake, &new, &b, seen.handler("b"), &store));
    until("the new records", || seen.len() == 9).await;
    assert_eq!(run.report().stream_gaps, 1);
    run.stop().await;
    assert_eq!(leases(&store).await.len(), 2, "the old checkpoint is left as it was");
}
