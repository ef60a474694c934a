//! Shards that split, merge, roll over and end (I1, I9; incidents 31 to 64).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shardmill::engine::MappingBuilder;
use shardmill::{
    Batch, BatchResponse, EventSourceMapping, Handler, HandlerError, InvokeContext, Position, StreamSource,
};
use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};
use tokio::time::Instant;

use crate::support::*;

fn table(shards: u32) -> (FakeDynamoDbStreams, String) {
    let fake = FakeDynamoDbStreams::new();
    let arn = fake.create_table("orders", &["id"], shards).unwrap();
    (fake, arn)
}

/// Rolls the stream's newest shard over.
fn roll(fake: &FakeDynamoDbStreams) -> String {
    fake.roll("orders", &fake.shards("orders").unwrap().last().unwrap().id).unwrap()
}

/// Calls that describe the whole stream, and those that ask for one shard's children.
fn descriptions(fake: &FakeDynamoDbStreams) -> (usize, usize) {
    let calls = fake.calls().of(Operation::DescribeStream);
    let whole = calls.iter().filter(|call| call.shard.is_none()).count();
    (whole, calls.len() - whole)
}

fn seldom(mapping: MappingBuilder) -> MappingBuilder {
    mapping.idle_interval(Duration::from_millis(5_000)).maximum_idle_interval(Duration::from_millis(30_000))
}

#[tokio::test(start_paused = true)]
async fn incident_31_a_large_reshard_is_consumed_without_a_restart() {
    let (fake, store, seen): (FakeKinesis, _, _) = (stream(340), store(), Seen::default());
    put(&fake, 100);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, seldom(mapping()), seen.handler("a"), &store));
    until("the first records", || seen.len() == 100).await;
    let roots: Vec<String> = fake.shards("orders").unwrap().into_iter().map(|shard| shard.id).collect();
    for shard in &roots[..95] {
        fake.split("orders", shard).unwrap();
    }
    for n in 0..870 {
        fake.put("orders", Some(&format!("key {n}")), "after the reshard").unwrap();
    }
    until("every record", || seen.len() == 970).await;
    until("every new shard", || run.report().shards.len() == 435).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "nothing lost, nothing twice");
    let ended: Vec<_> =
        leases(&store).await.into_iter().filter(|l| l.checkpoint == Position::ShardEnd).collect();
    assert_eq!(ended.len(), 95, "every parent's end is stored");
}

#[tokio::test(start_paused = true)]
async fn incident_39_a_shards_end_is_stored_without_the_function_s_doing_also_of_an_empty_shard() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    let roots: Vec<String> = fake.shards("orders").unwrap().into_iter().map(|shard| shard.id).collect();
    fake.put_to_shard("orders", &roots[0], Some("key"), "record").unwrap();
    let merged = fake.merge("orders", &roots[0], &roots[1]).unwrap();
    fake.put_to_shard("orders", &merged, Some("key"), "record").unwrap();
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the child's record", || seen.len() == 2).await;
    run.stop().await;
    for lease in leases(&store).await {
        let has_ended = lease.checkpoint == Position::ShardEnd;
        assert_eq!(has_ended, lease.key.shard.as_str() != merged, "{lease:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_44_a_stream_that_vanishes_disturbs_no_other_mapping_and_is_taken_up_when_it_is_back() {
    let (fake, store, seen, others) = (stream(2), store(), Seen::default(), Seen::default());
    let (other, arn) = table(1);
    put(&fake, 10);
    put_items(&other, 0..5);
    let a = worker("a");
    let first = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    let second = launch(of_table(&other, &arn, &a, others.handler("a"), &another(&store)));
    until("the records of both", || seen.len() == 10 && others.len() == 5).await;
    fake.delete_stream("orders").unwrap();
    pass(Duration::from_secs(600)).await;
    put_items(&other, 5..10);
    until("the other's records", || others.len() == 10).await;
    assert!(first.report().last_error.is_some() && second.report().last_error.is_none());
    fake.create_stream("orders", 1).unwrap();
    put(&fake, 3);
    until("the records of the new stream", || seen.len() == 13).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_51_a_page_without_iterator_and_children_ends_no_open_shard() {
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 20);
    fake.faults().on(Operation::GetRecords).times(5).inject(Fault::NullIterator);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("the records", || seen.len() == 20).await;
    fake.faults().on(Operation::GetRecords).times(3).inject(Fault::NullIterator);
    put(&fake, 20);
    until("the records since", || seen.len() == 40).await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake), "nothing lost, nothing twice");
    assert!(leases(&store).await.iter().all(|lease| lease.checkpoint != Position::ShardEnd));
}

/// The new images of `n` of each item, in the order in which a function saw them.
type Versions = Arc<Mutex<BTreeMap<String, Vec<u64>>>>;

fn noting(versions: &Versions) -> impl Handler + use<> {
    let versions = Arc::clone(versions);
    move |batch: Batch, cx: InvokeContext| {
        let versions = Arc::clone(&versions);
        async move {
            // Long enough that a child would overtake its parent if both ran.
            pass(Duration::from_millis(300)).await;
            let event: serde_json::Value = serde_json::from_slice(&cx.event(&batch)).unwrap();
            for record in event["Records"].as_array().unwrap() {
                let image = &record["dynamodb"]["NewImage"];
                let (id, n) = (image["id"]["S"].as_str().unwrap(), image["n"]["N"].as_str().unwrap());
                versions.lock().unwrap().entry(id.to_owned()).or_default().push(n.parse().unwrap());
            }
            Ok::<_, HandlerError>(BatchResponse::success())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn incident_59_changes_of_one_item_stay_in_order_across_roll_overs_and_splits() {
    for lanes in [1, 10] {
        let ((fake, arn), store, versions) = (table(2), store(), Versions::default());
        let mut n = 0;
        let mut write = |fake: &FakeDynamoDbStreams| {
            for id in 0..8 {
                n += 1;
                let item = json!({"id": {"S": format!("item {id}")}, "n": {"N": n.to_string()}});
                fake.put_item("orders", &item).unwrap().unwrap();
            }
        };
        for generation in 0..6 {
            for _ in 0..5 {
                write(&fake);
            }
            let open: Vec<String> = fake
                .shards("orders")
                .unwrap()
                .into_iter()
                .filter(|shard| shard.open)
                .map(|shard| shard.id)
                .collect();
            for shard in open {
                if generation % 3 == 1 {
                    fake.split("orders", &shard).unwrap();
                } else {
                    fake.roll("orders", &shard).unwrap();
                }
            }
        }
        write(&fake);
        let a = worker("a");
        let mapping = table_mapping(&arn).parallelization_factor(lanes).batch_size(3);
        let run = launch(of_table_as(&fake, mapping, &a, noting(&versions), &store));
        let count = || versions.lock().unwrap().values().map(Vec::len).sum::<usize>();
        until("every change", || count() == 8 * 31).await;
        run.stop().await;
        for (id, seen) in versions.lock().unwrap().iter() {
            assert!(seen.is_sorted(), "{lanes} lanes, {id}: {seen:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn incident_62_a_dynamodb_stream_is_described_as_a_whole_once_an_hour_and_at_its_end_for_children() {
    let ((fake, arn), store, seen) = (table(4), store(), Seen::default());
    let a = worker("a");
    let run = launch(
        of_table_as(&fake, seldom(table_mapping(&arn)), &a, seen.handler("a"), &store)
            .discovery_interval(Duration::from_secs(30)),
    );
    until("the leases", || run.report().shards.len() == 4).await;
    pass(Duration::from_secs(300)).await;
    assert_eq!(descriptions(&fake), (2, 0), "the first one is looked at again");
    for _ in 0..5 {
        roll(&fake);
        pass(Duration::from_secs(600)).await;
    }
    assert_eq!(descriptions(&fake), (2, 5), "each end asks for its own children only");
    pass(Duration::from_secs(600)).await;
    assert_eq!(descriptions(&fake), (3, 5), "once an hour anyway");
    put_items(&fake, 0..20);
    until("the records", || seen.len() == 20).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_62_a_description_of_ten_thousand_shards_is_a_hundred_calls_at_ten_a_second() {
    let (fake, arn) = table(10_000);
    let source = shardmill::DynamoDbSource::new(&fake.sdk_config(), &arn).unwrap();
    let began = Instant::now();
    assert_eq!(source.shards().await.unwrap().shards.len(), 10_000);
    assert_eq!(descriptions(&fake), (100, 0));
    assert!(began.elapsed() >= Duration::from_millis(9_900), "{:?}", began.elapsed());
    assert_eq!(fake.calls().max_within(Duration::from_secs(1)), 10);
}

#[tokio::test(start_paused = true)]
async fn incident_60_children_that_no_description_shows_yet_are_looked_for_ever_less_often() {
    let ((fake, arn), store, seen) = (table(1), store(), Seen::default());
    let parent = fake.shards("orders").unwrap()[0].id.clone();
    put_items(&fake, 0..5);
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    until("the records", || seen.len() == 5).await;
    pass(Duration::from_secs(60)).await;
    let omitted = fake.faults().on(Operation::DescribeStream).hold(Fault::OmitChildrenOf(parent));
    roll(&fake);
    put_items(&fake, 5..10);
    fake.clear_calls();
    pass(Duration::from_secs(3000)).await;
    let (whole, _) = descriptions(&fake);
    assert!((6..=14).contains(&whole), "{whole} descriptions in 50 minutes");
    assert_eq!(seen.len(), 5);
    drop(omitted);
    until("the child's records", || seen.len() == 10).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_63_roll_overs_of_an_idle_table_stall_nothing_and_cost_little() {
    let ((fake, arn), store, seen) = (table(1), store(), Seen::default());
    let a = worker("a");
    let run = launch(of_table_as(&fake, seldom(table_mapping(&arn)), &a, seen.handler("a"), &store));
    for generation in 0..6 {
        pass(Duration::from_secs(3600)).await;
        roll(&fake);
        put_items(&fake, generation..generation + 1);
        let wanted = usize::try_from(generation + 1).unwrap();
        let written = Instant::now();
        until("the new shard's record", || seen.len() == wanted).await;
        assert!(written.elapsed() < Duration::from_secs(40), "{:?}", written.elapsed());
    }
    let (whole, children) = descriptions(&fake);
    assert!(whole <= 9 && children == 6, "{whole} descriptions, {children} of children in six hours");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_open_leaf_slows_down_to_its_maximum_and_is_back_at_once_with_the_first_record() {
    let ((fake, arn), store, seen) = (table(1), store(), Seen::default());
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    until("the lease", || run.report().shards.len() == 1).await;
    pass(Duration::from_secs(60)).await;
    fake.clear_calls();
    pass(Duration::from_secs(600)).await;
    let reads = fake.calls().of(Operation::GetRecords).len();
    assert!((295..=305).contains(&reads), "{reads} reads in ten idle minutes");
    let written = Instant::now();
    put_items(&fake, 0..1);
    until("the record", || seen.len() == 1).await;
    assert!(written.elapsed() <= Duration::from_millis(2_100), "{:?}", written.elapsed());
    fake.clear_calls();
    pass(Duration::from_secs(1)).await;
    let reads = fake.calls().of(Operation::GetRecords).len();
    assert!((3..=5).contains(&reads), "{reads} reads in the second after a record");
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_64_with_the_default_name_a_stream_that_is_enabled_again_uses_no_old_lease_and_touches_none()
{
    let ((fake, old), store, seen) = (table(1), store(), Seen::default());
    let of = |arn: &str| {
        EventSourceMapping::builder(arn, "orders-worker").starting_position(StartingPosition::TrimHorizon)
    };
    put_items(&fake, 0..5);
    let a = worker("a");
    let run = launch(of_table_as(&fake, of(&old), &a, seen.handler("a"), &store));
    until("the old records", || seen.len() == 5).await;
    roll(&fake);
    until("the second generation", || run.report().leases.len() == 2).await;
    run.stop().await;
    fake.disable_stream("orders").unwrap();
    pass(Duration::from_secs(5)).await;
    let new = fake.enable_stream("orders").unwrap();
    let name = |arn: &str| of(arn).build().unwrap().application_name().to_owned();
    assert_eq!(name(&old), name(&new), "the name is the table's: the new stream takes over from the old one");
    let before = leases(&store).await;
    put_items(&fake, 5..9);
    let b = worker("b");
    let run = launch(of_table_as(&fake, of(&new), &b, seen.handler("b"), &store));
    until("the new records", || seen.len() == 9).await;
    // Long enough for everything that cleans up.
    pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!(run.report().leases.len(), 1, "only the new stream's");
    assert_eq!(run.report().stream_gaps, 1, "what was not read of the old stream is reported");
    assert!(run.report().last_stream_gap.is_some_and(|gap| gap.message.contains("the earlier one")));
    run.stop().await;
    let after = leases(&store).await;
    assert_eq!(after.len(), 3);
    assert!(before.iter().all(|lease| after.contains(lease)), "the old stream can still be read by its ARN");
    // And it is: with the same name, from where it was.
    let c = worker("c");
    let run = launch(of_table_as(&fake, of(&old), &c, seen.handler("c"), &store));
    let ended = || run.report().leases.iter().all(|lease| lease.checkpoint == Position::ShardEnd);
    until("the old stream's end", || run.report().leases.len() == 2 && ended()).await;
    run.stop().await;
    let shards: BTreeSet<String> = seen.all().into_iter().map(|sight| sight.shard).collect();
    assert_eq!((seen.len(), shards.len()), (9, 2), "nothing comes twice");
}
