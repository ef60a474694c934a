//! A DynamoDB stream from end to end under virtual time: the real SDK against tables in memory, a handler, a memory
//! store. "Nothing lost" is judged by what the fake accepted against what the handler saw.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use shardmill::checkpoint::{LeaseStore, MemoryStore};
use shardmill::engine::MappingBuilder;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, ConsumerStatus, DynamoDbSource, EventSourceMapping,
    HandlerError, InvokeContext, Position, RunReport, StartingPosition, Worker, WorkerOptions,
};
use shardmill_testkit::FakeDynamoDbStreams;
use shardmill_testkit::kinesis::{Call, Fault, Operation};
use tokio::task::JoinHandle;

const TABLE: &str = "orders";

/// The events' records in the order in which the handler saw them.
type Seen = Arc<Mutex<Vec<Value>>>;

struct Run {
    fake: FakeDynamoDbStreams,
    arn: String,
    seen: Seen,
    store: MemoryStore,
}

impl Run {
    fn new(shards: u32) -> Self {
        let fake = FakeDynamoDbStreams::new();
        let arn = fake.create_table(TABLE, &["id"], shards).unwrap();
        Self { fake, arn, seen: Seen::default(), store: MemoryStore::default() }
    }

    /// Starts a consumer of the stream.
    fn start(&self, starting_position: StartingPosition) -> (CancellationToken, JoinHandle<RunReport>) {
        let (_, stop, task) = self.launch(Duration::from_secs(2), |mapping| mapping, starting_position);
        (stop, task)
    }

    /// The same with a lease time, settings of the mapping, and the consumer's status.
    fn launch(
        &self,
        lease: Duration,
        set: impl FnOnce(MappingBuilder) -> MappingBuilder,
        starting_position: StartingPosition,
    ) -> (ConsumerStatus, CancellationToken, JoinHandle<RunReport>) {
        let options = WorkerOptions::default().lease(lease).keeper_in_current_runtime();
        let worker = Worker::start(options).unwrap();
        let mapping = EventSourceMapping::builder(&self.arn, "orders-worker");
        let mapping = set(mapping.starting_position(starting_position)).build().unwrap();
        let source = DynamoDbSource::new(&self.fake.sdk_config(), &self.arn).unwrap();
        let seen = Arc::clone(&self.seen);
        let handler = move |batch: Batch, cx: InvokeContext| {
            let event: Value = serde_json::from_slice(&cx.event(&batch)).unwrap();
            seen.lock().unwrap().extend(event["Records"].as_array().unwrap().iter().cloned());
            async { Ok::<_, HandlerError>(BatchResponse::success()) }
        };
        let consumer = Consumer::builder(mapping, source, handler);
        let consumer = consumer.lease_store(self.store.clone()).worker(worker).build().unwrap();
        let (status, stop) = (consumer.status(), CancellationToken::new());
        let shutdown = stop.clone();
        (status, stop, tokio::spawn(async move { consumer.run(shutdown).await.unwrap() }))
    }

    /// Writes `count` changes over 17 items.
    fn write(&self, count: usize) {
        let written = self.fake.changes(TABLE).unwrap().len();
        for n in written..written + count {
            let id = format!("item-{}", n % 17);
            let item = json!({"id": {"S": id}, "n": {"N": n.to_string()}});
            self.fake.put_item(TABLE, &item).unwrap().unwrap();
        }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn open_shards(&self) -> Vec<String> {
        let shards = self.fake.shards(TABLE).unwrap();
        shards.into_iter().filter(|shard| shard.open).map(|shard| shard.id).collect()
    }

    /// Every change was seen once, those of an item in order.
    #[track_caller]
    fn assert_all_once_in_order_per_item(&self) {
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for change in self.fake.changes(TABLE).unwrap() {
            expected.entry(change.keys.to_string()).or_default().push(change.sequence_number);
        }
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in self.seen.lock().unwrap().iter() {
            let change = &record["dynamodb"];
            let number = change["SequenceNumber"].as_str().unwrap().to_owned();
            seen.entry(change["Keys"].to_string()).or_default().push(number);
        }
        assert_eq!(seen, expected);
    }

    async fn checkpoints(&self) -> BTreeMap<String, Position> {
        let leases = self.store.list().await.unwrap();
        leases.into_iter().map(|lease| (lease.key.shard.to_string(), lease.checkpoint)).collect()
    }
}

fn number(record: &Value) -> String {
    record["dynamodb"]["SequenceNumber"].as_str().unwrap().to_owned()
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..40_000 {
        if reached() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never reached: {what}");
}

#[tokio::test(start_paused = true)]
async fn i1_order_per_item_holds_over_roll_overs_and_splits_and_every_ended_shard_is_at_its_end() {
    let run = Run::new(2);
    let (stop, consumer) = run.start(StartingPosition::TrimHorizon);
    for generation in 0..6 {
        run.write(100);
        // Some roll while they are read, some before.
        if generation % 2 == 0 {
            until("half of the records", || run.count() >= generation * 100 + 50).await;
        }
        for shard in run.open_shards() {
            match generation {
                3 => drop(run.fake.split(TABLE, &shard).unwrap()),
                _ => drop(run.fake.roll(TABLE, &shard).unwrap()),
            }
        }
    }
    run.write(100);
    until("all records", || run.count() >= 700).await;
    stop.cancel();
    consumer.await.unwrap();
    run.assert_all_once_in_order_per_item();
    let checkpoints = run.checkpoints().await;
    for shard in run.fake.shards(TABLE).unwrap() {
        assert_eq!(checkpoints[&shard.id] == Position::ShardEnd, !shard.open, "{shard:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_63_an_idle_stream_that_rolls_over_again_and_again_does_not_stall() {
    let run = Run::new(1);
    let (stop, consumer) = run.start(StartingPosition::TrimHorizon);
    for _ in 0..10 {
        let [shard] = run.open_shards().try_into().unwrap();
        run.fake.roll(TABLE, &shard).unwrap();
        tokio::time::sleep(Duration::from_secs(180)).await;
    }
    run.write(1);
    until("the record after ten roll-overs", || run.count() == 1).await;
    stop.cancel();
    consumer.await.unwrap();
    run.assert_all_once_in_order_per_item();
}

/// The stream rolls over every two minutes and forgets a shard six roll-overs after it was closed, as the service does
/// within a day. Now and then there is a change, and now and then the consumer crashes.
#[tokio::test(start_paused = true)]
async fn incidents_40_and_63_five_hundred_roll_overs_leave_few_leases_and_finished_shards_are_not_read_again()
{
    // Eight are listed, and a listing comes once as many more have ended.
    const FEW: usize = 20;
    let run = Run::new(1);
    let start = || {
        let rarely = |mapping: MappingBuilder| {
            mapping
                .idle_interval(Duration::from_millis(10_000))
                .maximum_idle_interval(Duration::from_millis(30_000))
        };
        run.launch(Duration::from_secs(60), rarely, StartingPosition::TrimHorizon)
    };
    let (mut status, mut stop, mut consumer) = start();
    let mut closed = Vec::new();
    for round in 0..500 {
        let [shard] = run.open_shards().try_into().unwrap();
        let child = run.fake.roll(TABLE, &shard).unwrap();
        closed.push(shard.clone());
        if let Some(old) = closed.len().checked_sub(7) {
            run.fake.forget_shard(TABLE, &closed[old]).unwrap();
        }
        if round % 20 == 0 {
            run.write(2);
        }
        if round % 100 == 50 {
            consumer.abort();
            (status, stop, consumer) = start();
        }
        tokio::time::sleep(Duration::from_secs(120)).await;

        let of_lineage = |call: &&Call| {
            [Operation::GetRecords, Operation::GetShardIterator].contains(&call.operation)
                && call.shard.as_ref().is_none_or(|read| ![&shard, &child].contains(&read))
        };
        let calls = run.fake.calls();
        assert_eq!(calls.iter().filter(of_lineage).count(), 0, "round {round}: a finished shard is read");
        run.fake.clear_calls();
        let (report, leases) = (status.report(), run.store.list().await.unwrap().len());
        assert_eq!(report.shards.len(), 1, "round {round}: the child is read");
        assert!(leases <= FEW && report.leases.len() <= FEW, "round {round}: {leases} leases");
    }
    run.write(1);
    until("the last change", || run.count() == 51).await;
    stop.cancel();
    consumer.await.unwrap();
    run.assert_all_once_in_order_per_item();
}

#[tokio::test(start_paused = true)]
async fn i15_r53_latest_loses_nothing_over_a_roll_over_before_the_first_record_and_a_crash_after_it() {
    for knows_at_timestamp in [true, false] {
        let run = Run::new(1);
        run.fake.set_at_timestamp(knows_at_timestamp);
        run.write(20);
        tokio::time::sleep(Duration::from_secs(120)).await;
        let (_stop, consumer) = run.start(StartingPosition::Latest);
        until("the shard is read", || !run.fake.calls().of(Operation::GetRecords).is_empty()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let [shard] = run.open_shards().try_into().unwrap();
        run.fake.roll(TABLE, &shard).unwrap();
        // A crash: nothing has been read yet, so nothing but the pinned start is stored.
        consumer.abort();
        run.write(20);
        let (stop, consumer) = run.start(StartingPosition::Latest);
        until("what came after the start", || run.count() >= 20).await;
        stop.cancel();
        consumer.await.unwrap();
        let numbers: Vec<String> = run.seen.lock().unwrap().iter().map(number).collect();
        let changes = run.fake.changes(TABLE).unwrap();
        let expected: Vec<String> = changes[20..].iter().map(|c| c.sequence_number.clone()).collect();
        assert_eq!(numbers, expected, "nothing from before the start, everything after it");
    }
}

/// Nothing is written before the split; the iterators expire before the first record, and then the consumer crashes.
#[tokio::test(start_paused = true)]
async fn incident_47_i15_latest_then_a_split_then_an_expired_iterator_before_the_first_record_loses_nothing()
{
    for (knows_at_timestamp, crash) in [(true, false), (true, true), (false, false), (false, true)] {
        let run = Run::new(2);
        run.fake.set_at_timestamp(knows_at_timestamp);
        run.write(20);
        tokio::time::sleep(Duration::from_secs(120)).await;
        let (stop, consumer) = run.start(StartingPosition::Latest);
        until("the shards are read", || run.fake.calls().of(Operation::GetRecords).len() >= 4).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let expired = run.fake.faults().on(Operation::GetRecords).hold(Fault::ExpiredIterator);
        let [first, _] = run.open_shards().try_into().unwrap();
        run.fake.split(TABLE, &first).unwrap();
        run.write(30);
        until("iterators expire", || expired.hits() >= 4).await;
        drop(expired);
        let (stop, consumer) = if crash {
            consumer.abort();
            run.start(StartingPosition::Latest)
        } else {
            (stop, consumer)
        };
        until("what was written after the start", || run.count() >= 30).await;
        stop.cancel();
        consumer.await.unwrap();
        let mut seen: Vec<String> = run.seen.lock().unwrap().iter().map(number).collect();
        let changes = run.fake.changes(TABLE).unwrap().split_off(20);
        let mut written: Vec<String> = changes.into_iter().map(|change| change.sequence_number).collect();
        seen.sort();
        written.sort();
        assert_eq!(seen, written, "AT_TIMESTAMP known: {knows_at_timestamp}, crash: {crash}");
    }
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_service_neither_lose_nor_repeat_a_change() {
    let run = Run::new(3);
    let faults = run.fake.faults();
    for (skip, fault) in [
        (3, Fault::Throttle),
        (5, Fault::ExpiredIterator),
        (8, Fault::NullIterator),
        (11, Fault::CutBody),
        (14, Fault::EmptyPage),
        (17, Fault::InternalFailure),
        (20, Fault::PartialPage(1)),
        (23, Fault::GarbageBody),
        (26, Fault::NullIterator),
    ] {
        faults.on(Operation::GetRecords).skip(skip).inject(fault);
    }
    faults.on(Operation::DescribeStream).skip(1).times(3).inject(Fault::LimitExceeded);
    faults.on(Operation::GetShardIterator).inject(Fault::InternalFailure);
    let (stop, consumer) = run.start(StartingPosition::TrimHorizon);
    for n in 1..=10 {
        run.write(50);
        until("the records so far", || run.count() >= n * 50).await;
        let shard = run.open_shards().remove(0);
        run.fake.roll(TABLE, &shard).unwrap();
    }
    stop.cancel();
    consumer.await.unwrap();
    run.assert_all_once_in_order_per_item();
}
