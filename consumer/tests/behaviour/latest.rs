//! LATEST begins at the first try: an endpoint that is away, a stream or a shard that comes later, a restart meanwhile.

use std::time::Duration;

use shardmill::engine::{GapKind, MappingBuilder, OnGap};
use shardmill::{RunError, checkpoint::MemoryStore};
use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};

use crate::support::*;

fn latest() -> MappingBuilder {
    mapping().starting_position(StartingPosition::Latest)
}

fn accepted_after(fake: &FakeKinesis, skip: usize) -> Vec<(String, String)> {
    let records = fake.records("orders").unwrap().split_off(skip);
    let mut all: Vec<_> = records.into_iter().map(|r| (r.shard_id, r.sequence_number)).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn incident_98_latest_delivers_what_came_while_the_endpoint_was_away_at_the_start() {
    for offset in [0, 600_000, -600_000] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        fake.set_clock_offset(offset);
        put(&fake, 20);
        pass(Duration::from_secs(5)).await;
        let away = fake.faults().on_any().hold(Fault::Disconnect);
        let a = worker("a");
        let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &store));
        for _ in 0..8 {
            pass(Duration::from_secs(1)).await;
            put(&fake, 5);
        }
        drop(away);
        until("the records of the outage", || seen.len() == 40).await;
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted_after(&fake, 20), "service clock off by {offset} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_98_latest_delivers_the_tail_of_shards_that_closed_while_the_endpoint_was_away() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 20);
    pass(Duration::from_secs(5)).await;
    let away = fake.faults().on_any().hold(Fault::Disconnect);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &store));
    pass(Duration::from_secs(4)).await;
    put(&fake, 5);
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    fake.split("orders", &parent).unwrap();
    put(&fake, 10);
    pass(Duration::from_secs(4)).await;
    drop(away);
    until("the records of the outage", || seen.len() == 15).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted_after(&fake, 20));
}

#[tokio::test(start_paused = true)]
async fn incident_98_latest_delivers_everything_of_a_stream_that_is_made_after_the_start() {
    for offset in [0, 600_000, -600_000] {
        let (fake, store, seen) = (FakeKinesis::new(), store(), Seen::default());
        fake.set_clock_offset(offset);
        let a = worker("a");
        let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &store));
        pass(Duration::from_secs(20)).await;
        fake.create_stream("orders", 2).unwrap();
        for _ in 0..20 {
            put(&fake, 2);
            pass(Duration::from_millis(500)).await;
        }
        until("all records", || seen.len() == 40).await;
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted(&fake), "service clock off by {offset} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_98_latest_delivers_what_a_dynamodb_stream_took_before_it_showed_a_shard() {
    for at_timestamp in [true, false] {
        let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
        fake.set_at_timestamp(at_timestamp);
        let arn = fake.create_table("orders", &["id"], 1).unwrap();
        put_items(&fake, 0..5);
        // DynamoDB Local's times are whole minutes.
        pass(Duration::from_secs(130)).await;
        let shard = fake.shards("orders").unwrap()[0].id.clone();
        let hidden = fake.faults().on(Operation::DescribeStream).hold(Fault::OmitShard(shard));
        let a = worker("a");
        let table = table_mapping(&arn).starting_position(StartingPosition::Latest);
        let run = launch(of_table_as(&fake, table, &a, seen.handler("a"), &store));
        pass(Duration::from_secs(11)).await;
        let numbers = put_items(&fake, 5..10);
        pass(Duration::from_secs(11)).await;
        drop(hidden);
        until("the items of the first seconds", || seen.len() == 5).await;
        pass(Duration::from_secs(60)).await;
        run.stop().await;
        let got: Vec<String> = seen.all().into_iter().map(|sight| sight.seq).collect();
        assert_eq!(got, numbers, "AT_TIMESTAMP known: {at_timestamp}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_98_latest_is_remembered_over_a_restart_before_the_first_listing() {
    let (fake, first, seen) = (stream(2), store(), Seen::default());
    // Their clocks start with the fake's.
    let [a, b, c] = ["a", "b", "c"].map(worker);
    put(&fake, 20);
    pass(Duration::from_secs(5)).await;
    let away = fake.faults().on_any().hold(Fault::Disconnect);
    let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &first));
    pass(Duration::from_secs(2)).await;
    put(&fake, 10);
    run.crash(&first).await;
    pass(Duration::from_secs(30)).await;
    put(&fake, 10);
    let second = another(&first);
    let run = launch(consumer(&fake, &b, latest(), seen.handler("b"), &second));
    pass(Duration::from_secs(2)).await;
    drop(away);
    until("the records since the first start", || seen.len() == 20).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted_after(&fake, 20));
    // After its leases are deleted a mapping starts at the present LATEST, not where it once began.
    for lease in leases(&second).await {
        shardmill::checkpoint::LeaseStore::delete(second.inner(), &lease.key).await.unwrap();
    }
    pass(Duration::from_secs(5)).await;
    let run = launch(consumer(&fake, &c, latest(), seen.handler("c"), &another(&first)));
    until("the new leases", || run.report().shards.len() == 2).await;
    put(&fake, 3);
    until("the new records", || seen.len() == 23).await;
    pass(Duration::from_secs(10)).await;
    assert_eq!(seen.len(), 23);
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_98_what_expired_before_the_first_listing_is_a_gap_that_is_reported() {
    for policy in [OnGap::Continue, OnGap::Stop] {
        let (fake, store, seen) = (stream(1), store(), Seen::default());
        fake.set_retention("orders", Duration::from_mins(30)).unwrap();
        let away = fake.faults().on_any().hold(Fault::Disconnect);
        let a = worker("a");
        let run = launch(consumer(&fake, &a, latest().on_gap(policy), seen.handler("a"), &store));
        for _ in 0..5 {
            put(&fake, 1);
            pass(Duration::from_mins(15)).await;
        }
        drop(away);
        if policy == OnGap::Stop {
            assert!(matches!(run.ended().await, Err(RunError::Gap(_))));
            continue;
        }
        until("what is left", || seen.len() >= 1).await;
        let gap = run.report().shards[0].snapshot.clone().unwrap().last_gap.unwrap();
        assert_eq!(gap.kind, GapKind::BeyondRetention);
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn incident_98_a_dynamodb_stream_that_was_away_for_longer_than_it_keeps_records_is_a_gap_of_the_stream()
{
    let (fake, store, seen) = (FakeDynamoDbStreams::new(), MemoryStore::new(), Seen::default());
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    let away = fake.faults().on_any().hold(Fault::Disconnect);
    let a = worker("a");
    let table = table_mapping(&arn).starting_position(StartingPosition::Latest);
    let run = launch(of_table_as(&fake, table, &a, seen.handler("a"), &store));
    pass(Duration::from_hours(30)).await;
    drop(away);
    until("the gap", || run.report().stream_gaps == 1).await;
    let text = run.report().last_stream_gap.unwrap().message;
    assert!(text.contains("LATEST began 30 hours ago"), "{text}");
    run.stop().await;
}
