//! Which shards are read, from where, and in which order (I9, I15; incidents 33, 36 to 38, 43).

use std::time::Duration;

use shardmill::checkpoint::{Fault as StoreFault, Operation as StoreOperation};
use shardmill::engine::{MappingBuilder, Wall};
use shardmill::{Batch, BatchResponse, HandlerError, InvokeContext, Position};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::{Fault, Operation};

use crate::support::*;

fn latest() -> MappingBuilder {
    mapping().starting_position(StartingPosition::Latest)
}

/// What the fake accepted after the first `skip` records.
fn accepted_after(fake: &FakeKinesis, skip: usize) -> Vec<(String, String)> {
    let records = fake.records("orders").unwrap().split_off(skip);
    let mut all: Vec<_> = records.into_iter().map(|r| (r.shard_id, r.sequence_number)).collect();
    all.sort();
    all
}

fn children(fake: &FakeKinesis, parent: &str) -> Vec<String> {
    let shards = fake.shards("orders").unwrap();
    let is_child = |s: &&shardmill_testkit::kinesis::StoredShard| {
        [&s.parent, &s.adjacent_parent].into_iter().flatten().any(|p| p == parent)
    };
    shards.iter().filter(is_child).map(|s| s.id.clone()).collect()
}

/// Asserts that every record of `earlier` was seen before the first of `later`.
fn assert_before(seen: &Seen, earlier: &str, later: &str) {
    let all = seen.all();
    let last = all.iter().rposition(|s| s.shard == earlier).expect("the earlier shard was read");
    let first = all.iter().position(|s| s.shard == later).expect("the later shard was read");
    assert!(last < first, "I9: {earlier} before {later}");
}

#[tokio::test(start_paused = true)]
async fn i15_latest_skips_nothing_after_its_start_even_after_a_crash_before_the_first_checkpoint() {
    for offset in [0, 600_000, -600_000] {
        let (fake, seen) = (stream(2), Seen::default());
        fake.set_clock_offset(offset);
        put(&fake, 50);
        pass(Duration::from_secs(5)).await;
        let first = store();
        let a = worker("a");
        let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &first));
        until("the leases", || run.report().shards.len() == 2).await;
        run.crash(&first).await;
        put(&fake, 20);
        pass(LEASE * 3).await;
        let second = another(&first);
        let b = worker("b");
        let run = launch(consumer(&fake, &b, latest(), seen.handler("b"), &second));
        until("the records in between", || seen.len() == 20).await;
        put(&fake, 10);
        until("the records since", || seen.len() == 30).await;
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted_after(&fake, 50), "service clock off by {offset} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn i15_a_first_creation_that_misses_a_shard_starts_it_later_where_the_others_started() {
    let (fake, store, seen) = (stream(3), store(), Seen::default());
    put(&fake, 30);
    pass(Duration::from_secs(5)).await;
    let missing = fake.shards("orders").unwrap()[1].id.clone();
    let omitted = fake.faults().on(Operation::ListShards).hold(Fault::OmitShard(missing));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &store));
    until("two leases", || run.report().shards.len() == 2).await;
    put(&fake, 60);
    run.crash(&store).await;
    pass(Duration::from_secs(60)).await;
    drop(omitted);
    let b = worker("b");
    let run = launch(consumer(&fake, &b, latest(), seen.handler("b"), &another(&store)));
    until("all records", || seen.distinct() == 60).await;
    run.stop().await;
    assert_eq!(seen.first_sights(), accepted_after(&fake, 30));
}

#[tokio::test(start_paused = true)]
async fn incident_33_latest_on_a_stream_whose_listing_lacks_the_children_of_its_only_shard_loses_nothing() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    fake.split("orders", &parent).unwrap();
    pass(Duration::from_secs(5)).await;
    let omitted = fake.faults().on(Operation::ListShards).hold(Fault::OmitChildrenOf(parent));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &store));
    until("the first listing", || run.report().source_answered).await;
    put(&fake, 20);
    pass(Duration::from_secs(20)).await;
    drop(omitted);
    until("all records", || seen.len() == 20).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn incident_37_a_split_before_the_first_checkpoint_under_latest_loses_no_tail() {
    let (fake, first, seen) = (stream(1), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &first));
    until("the lease", || run.report().shards.len() == 1).await;
    run.crash(&first).await;
    put(&fake, 10);
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    let (left, _) = fake.split("orders", &parent).unwrap();
    put(&fake, 30);
    fake.split("orders", &left).unwrap();
    put(&fake, 30);
    let b = worker("b");
    let run = launch(consumer(&fake, &b, latest(), seen.handler("b"), &another(&first)));
    until("all records", || seen.len() == 70).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "nothing lost, nothing twice");
    assert_before(&seen, &parent, &left);
}

#[tokio::test(start_paused = true)]
async fn incident_38_at_timestamp_holds_across_reshards_before_and_after_it() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    let root = fake.shards("orders").unwrap()[0].id.clone();
    put(&fake, 10);
    let (left, right) = fake.split("orders", &root).unwrap();
    put(&fake, 20);
    pass(Duration::from_secs(10)).await;
    let from = Wall::from_millis(i64::try_from(fake.now_ms()).unwrap());
    pass(Duration::from_secs(10)).await;
    put(&fake, 20);
    let merged = fake.merge("orders", &left, &right).unwrap();
    put(&fake, 15);
    let a = worker("a");
    let mapping = mapping().starting_position(StartingPosition::AtTimestamp(from));
    let run = launch(consumer(&fake, &a, mapping, seen.handler("a"), &store));
    until("the records since", || seen.len() == 35).await;
    let (last, _) = fake.split("orders", &merged).unwrap();
    put(&fake, 15);
    until("the records after one more split", || seen.len() == 50).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted_after(&fake, 30));
    assert_before(&seen, &left, &merged);
    assert_before(&seen, &right, &merged);
    assert_before(&seen, &merged, &last);
}

#[tokio::test(start_paused = true)]
async fn incident_43_a_stream_that_was_created_again_while_nobody_ran_is_read_from_the_start() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 40);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the old records", || seen.len() == 40).await;
    run.stop().await;
    fake.delete_stream("orders").unwrap();
    pass(Duration::from_secs(2)).await;
    fake.create_stream("orders", 2).unwrap();
    put(&fake, 25);
    let (fresh, b) = (Seen::default(), worker("b"));
    let run = launch(consumer(&fake, &b, mapping(), fresh.handler("b"), &store));
    until("the new records", || fresh.len() == 25).await;
    pass(LEASE * 5).await;
    assert_eq!(run.report().shards.len(), 2, "only the new stream's shards are read");
    assert_eq!(run.report().leases.len(), 2);
    run.stop().await;
    assert_eq!(fresh.by_shard(), accepted(&fake), "nothing lost, nothing twice");
    assert_eq!(leases(&store).await.len(), 4, "the old checkpoints are left as they were");
}

#[tokio::test(start_paused = true)]
async fn incident_43_a_stream_that_is_created_again_during_a_run_is_taken_up() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 40);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the old records", || seen.len() == 40).await;
    fake.delete_stream("orders").unwrap();
    pass(Duration::from_secs(7)).await;
    assert_eq!(run.report().last_error.unwrap().what, "DescribeStreamSummary");
    fake.create_stream("orders", 3).unwrap();
    put(&fake, 30);
    until("the new records", || seen.len() == 70).await;
    until("the end of the old shards' work", || run.report().shards.len() == 3).await;
    pass(LEASE * 5).await;
    assert_eq!((run.report().shards.len(), seen.len()), (3, 70));
    run.stop().await;
    assert!(leases(&store).await.iter().all(|lease| lease.owner.is_none()));
}

#[tokio::test(start_paused = true)]
async fn i9_childrens_leases_exist_before_the_parents_end_is_stored_and_start_only_after_it() {
    let (fake, first, seen) = (stream(1), store(), Seen::default());
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    put(&fake, 10);
    fake.split("orders", &parent).unwrap();
    put(&fake, 10);
    // Only the reader tells of the children: no listing ever shows them.
    let _omitted = fake.faults().on(Operation::ListShards).hold(Fault::OmitChildrenOf(parent.clone()));
    first.fail(StoreOperation::Checkpoint, StoreFault::ErrorBefore);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &first));
    until("the children's leases", || run.report().leases.len() == 3).await;
    pass(LEASE * 5).await;
    assert_eq!(seen.len(), 10, "no child starts before the parent's end is stored");
    run.crash(&first).await;
    let b = worker("b");
    let run = launch(consumer(&fake, &b, mapping(), seen.handler("b"), &another(&first)));
    until("all records", || seen.distinct() == 20).await;
    run.stop().await;
    assert_eq!(seen.first_sights(), accepted(&fake));
    assert_eq!(seen.len(), 30, "after the crash exactly what was not stored is redelivered");
    for child in children(&fake, &parent) {
        assert_before(&seen, &parent, &child);
    }
}

#[tokio::test(start_paused = true)]
async fn i9_a_merged_shard_waits_for_a_parent_that_no_listing_has_shown_yet() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 20);
    let roots = fake.shards("orders").unwrap();
    let slow = roots[1].id.clone();
    let noting = seen.clone();
    let handler = move |batch: Batch, cx: InvokeContext| {
        let (noting, wait) = (noting.clone(), cx.shard.as_str() == slow);
        async move {
            if wait {
                pass(Duration::from_secs(40)).await;
            }
            noting.note("a", &batch, &cx);
            Ok::<_, HandlerError>(BatchResponse::success())
        }
    };
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), handler, &store));
    until("the leases", || run.report().shards.len() == 2).await;
    let refused = fake.faults().on(Operation::ListShards).hold(Fault::AccessDenied);
    let (_, b) = fake.split("orders", &roots[0].id).unwrap();
    let (c, _) = fake.split("orders", &roots[1].id).unwrap();
    put(&fake, 40);
    let merged = fake.merge("orders", &b, &c).unwrap();
    put(&fake, 40);
    until("the lease of the merged shard", || {
        run.report().leases.iter().any(|lease| lease.shard.as_str() == merged)
    })
    .await;
    pass(Duration::from_secs(10)).await;
    assert!(seen.all().iter().all(|sight| sight.shard != merged), "its other parent is not known yet");
    drop(refused);
    until("all records", || seen.len() == 100).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
    assert_before(&seen, &b, &merged);
    assert_before(&seen, &c, &merged);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_omits_shards_for_a_while_loses_nothing() {
    let (fake, store, seen) = (stream(3), store(), Seen::default());
    put(&fake, 30);
    let shards = fake.shards("orders").unwrap();
    fake.split("orders", &shards[0].id).unwrap();
    put(&fake, 30);
    let first = fake.faults().on(Operation::ListShards).hold(Fault::OmitShard(shards[2].id.clone()));
    let second = fake.faults().on(Operation::ListShards).hold(Fault::OmitChildrenOf(shards[0].id.clone()));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    pass(Duration::from_secs(12)).await;
    drop((first, second));
    until("all records", || seen.len() == 60).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
    for child in children(&fake, &shards[0].id) {
        assert_before(&seen, &shards[0].id, &child);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_at_its_end_is_never_read_again() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    put(&fake, 10);
    fake.split("orders", &parent).unwrap();
    put(&fake, 10);
    for name in ["a", "b"] {
        let worker = worker(name);
        let run = launch(consumer(&fake, &worker, mapping(), seen.handler("a"), &store));
        until("all records", || seen.len() == 20).await;
        pass(LEASE * 3).await;
        assert_eq!(run.report().shards.len(), 2);
        run.stop().await;
        if name == "a" {
            fake.clear_calls();
        }
    }
    assert!(fake.calls().shard(&parent).is_empty(), "neither opened nor read");
    assert_eq!(seen.len(), 20);
    let ended = leases(&store).await.into_iter().filter(|l| l.checkpoint == Position::ShardEnd).count();
    assert_eq!(ended, 1);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_for_a_minute_is_shown_backed_off_and_recovered_from() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 10);
    let refused = fake.faults().on(Operation::ListShards).hold(Fault::AccessDenied);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    pass(Duration::from_secs(60)).await;
    let report = run.report();
    assert!(!report.source_answered);
    let error = report.last_error.expect("the status shows what is wrong");
    assert_eq!(error.what, "ListShards");
    assert!(error.message.contains("kinesis:ListShards"), "{}", error.message);
    assert!((4..=40).contains(&refused.hits()), "backed off: {} tries in a minute", refused.hits());
    drop(refused);
    until("the records", || seen.len() == 10).await;
    assert_eq!(run.report().last_error, None);
    assert!(run.report().source_answered && run.report().store_answered);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_never_answered_neither_holds_up_a_stop_nor_spins() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    let _hangs = fake.faults().on(Operation::ListShards).hold(Fault::Hang);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    pass(Duration::from_secs(3)).await;
    let begun = tokio::time::Instant::now();
    run.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn incident_32_children_that_the_reader_tells_of_start_without_another_listing() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 5);
    let a = worker("a");
    let hourly = consumer(&fake, &a, mapping(), seen.handler("a"), &store)
        .discovery_interval(Duration::from_secs(3600));
    let run = launch(hourly);
    until("the records", || seen.len() == 5).await;
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    let (left, _) = fake.split("orders", &parent).unwrap();
    put(&fake, 20);
    fake.split("orders", &left).unwrap();
    put(&fake, 20);
    until("the records of three generations", || seen.len() == 45).await;
    assert_eq!(fake.calls().of(Operation::ListShards).len(), 1, "the first listing only");
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
    assert_before(&seen, &parent, &left);
}

#[tokio::test(start_paused = true)]
async fn incident_42_a_token_that_expires_and_an_error_on_the_second_page_leave_no_half_a_listing() {
    let (fake, store, seen) = (stream(30), store(), Seen::default());
    fake.set_list_page_size(7);
    put(&fake, 300);
    fake.faults().on(Operation::ListShards).skip(1).times(1).inject(Fault::ExpiredNextToken);
    fake.faults().on(Operation::ListShards).skip(3).times(1).inject(Fault::InternalFailure);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("all records", || seen.len() == 300).await;
    assert_eq!(run.report().known_shards, 30);
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn incident_33_hash_keys_that_a_listing_does_not_cover_are_shown_and_hold_nobody_up() {
    let (fake, store, seen) = (stream(3), store(), Seen::default());
    put(&fake, 30);
    let missing = fake.shards("orders").unwrap()[1].id.clone();
    let omitted = fake.faults().on(Operation::ListShards).hold(Fault::OmitShard(missing.clone()));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the two other shards", || run.report().shards.len() == 2).await;
    assert_eq!(run.report().uncovered_hash_keys.len(), 1);
    assert!(run.report().uncovered_hash_keys[0].start > 0);
    drop(omitted);
    until("all records", || seen.len() == 30).await;
    until("the next listing", || run.report().uncovered_hash_keys.is_empty()).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn incident_47_i15_latest_then_a_split_then_an_expired_iterator_before_the_first_record_loses_nothing()
{
    let (fake, first, seen) = (stream(1), store(), Seen::default());
    put(&fake, 10);
    pass(Duration::from_secs(5)).await;
    let a = worker("a");
    let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &first));
    until("the lease", || run.report().shards.len() == 1).await;
    let expired = fake.faults().on(Operation::GetRecords).hold(Fault::ExpiredIterator);
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    put(&fake, 10);
    fake.split("orders", &parent).unwrap();
    put(&fake, 30);
    pass(Duration::from_secs(10)).await;
    drop(expired);
    run.crash(&first).await;
    let b = worker("b");
    let run = launch(consumer(&fake, &b, latest(), seen.handler("b"), &another(&first)));
    until("all written records", || seen.distinct() == 40).await;
    run.stop().await;
    assert_eq!(seen.first_sights(), accepted_after(&fake, 10));
}

#[tokio::test(start_paused = true)]
async fn incident_42_a_stream_of_ten_thousand_shards_is_listed_once_an_hour_and_looked_at_in_between() {
    use shardmill::StreamSource;
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 10_000).unwrap();
    let a = worker("a");
    let listing = source(&fake).shards().await.unwrap();
    assert_eq!(listing.shards.len(), 10_000);
    assert_eq!(fake.calls().of(Operation::ListShards).len(), 10);
    let (fake, store, seen) = (stream(4), store(), Seen::default());
    let idle = mapping()
        .idle_interval(Duration::from_millis(60_000))
        .maximum_idle_interval(Duration::from_millis(60_000));
    let run = launch(
        consumer(&fake, &a, idle, seen.handler("a"), &store).discovery_interval(Duration::from_secs(30)),
    );
    pass(Duration::from_secs(3590)).await;
    let calls = fake.calls();
    assert_eq!(calls.of(Operation::ListShards).len(), 1);
    let summaries = calls.of(Operation::DescribeStreamSummary).len();
    assert!((115..=121).contains(&summaries), "{summaries}");
    pass(Duration::from_secs(60)).await;
    assert_eq!(fake.calls().of(Operation::ListShards).len(), 2, "once an hour anyway");
    run.stop().await;
}
