//! Places of a function that runs few invocations at once (incident 72), and a function that cannot be reached
//! (incident 101). Fairness is counted, not timed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardmill::checkpoint::Fault as StoreFault;
use shardmill::engine::MappingBuilder;
use shardmill::{Batch, BatchResponse, Handler, HandlerError, InvokeContext, Places};
use shardmill_testkit::FakeKinesis;
use tokio::time::Instant;

use crate::support::*;

/// A function that takes so long, can be taken away, and counts.
#[derive(Clone)]
struct Function {
    places: Places,
    takes: Duration,
    seen: Seen,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// From when until when it cannot be reached.
    outage: Arc<Mutex<Option<(Instant, Instant)>>>,
    /// When it was tried during the outage.
    tries: Arc<Mutex<Vec<Instant>>>,
}

impl Function {
    fn new(places: Places, takes: Duration) -> Self {
        Self {
            places,
            takes,
            seen: Seen::default(),
            running: Arc::default(),
            most: Arc::default(),
            outage: Arc::default(),
            tries: Arc::default(),
        }
    }

    fn away(&self, after: Duration, takes: Duration) -> Instant {
        let begins = Instant::now() + after;
        *self.outage.lock().unwrap() = Some((begins, begins + takes));
        begins + takes
    }

    fn is_away(&self) -> bool {
        let now = Instant::now();
        self.outage.lock().unwrap().is_some_and(|(begins, ends)| (begins..ends).contains(&now))
    }

    fn tries(&self) -> usize {
        self.tries.lock().unwrap().len()
    }

    /// Invocations by shard, batches being of one record.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for sight in self.seen.all() {
            *counts.entry(sight.shard).or_default() += 1;
        }
        counts
    }

    #[track_caller]
    fn assert_fair(&self, shards: usize) {
        let counts = self.counts();
        assert_eq!(counts.len(), shards, "every shard is served: {counts:?}");
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(*most <= 2 * *least, "{least} to {most}: {counts:?}");
    }
}

impl Handler for Function {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        if self.is_away() {
            self.tries.lock().unwrap().push(Instant::now());
            return Err(HandlerError::NotReached { reason: "refused".into(), retry_after: None });
        }
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.takes).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.seen.note("a", &batch, &cx);
        Ok(BatchResponse::success())
    }

    fn places(&self) -> Places {
        self.places.clone()
    }
}

fn fill(fake: &FakeKinesis, each: usize) {
    for shard in fake.shards("orders").unwrap() {
        for _ in 0..each {
            fake.put_to_shard("orders", &shard.id, Some("key"), "record").unwrap();
        }
    }
}

/// One record an invocation; everything that is read is read at once.
fn one_by_one() -> MappingBuilder {
    let quiet = mapping()
        .idle_interval(Duration::from_millis(20_000))
        .maximum_idle_interval(Duration::from_millis(20_000));
    quiet.batch_size(1).timeout(Duration::from_secs(10))
}

/// The case: so many shards want so many places, until there were `rounds` invocations for each shard.
async fn crowd(shards: u32, places: usize, takes: Duration, rounds: usize) {
    let (fake, store) = (stream(shards), store());
    fill(&fake, 3 * rounds);
    let function = Function::new(Places::new(places), takes);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, one_by_one(), function.clone(), &store));
    let enough = rounds * usize::try_from(shards).unwrap();
    until("enough invocations", || function.seen.len() >= enough).await;
    function.assert_fair(shards.try_into().unwrap());
    let failed: u64 =
        run.report().shards.iter().filter_map(|s| Some(s.snapshot.as_ref()?.counters.failed)).sum();
    assert_eq!((function.most.load(Ordering::SeqCst), failed), (places, 0));
    run.stop().await;
    assert_eq!(function.places.in_use(), 0, "no place leaks");
}

#[tokio::test(start_paused = true)]
async fn incident_72_one_place_and_forty_shards_every_shard_gets_its_turn() {
    crowd(40, 1, Duration::from_millis(500), 5).await;
}

#[tokio::test(start_paused = true)]
async fn incident_72_eight_places_and_two_hundred_shards_every_shard_gets_its_turn() {
    crowd(200, 8, Duration::from_secs(2), 3).await;
}

#[tokio::test(start_paused = true)]
async fn incident_72_eight_places_as_of_a_command_and_a_hundred_and_fifty_shards_every_shard_gets_its_turn() {
    crowd(150, 8, Duration::from_secs(1), 3).await;
}

#[tokio::test(start_paused = true)]
async fn incident_72_no_record_expires_while_the_function_has_free_capacity() {
    let (fake, store) = (stream(60), store());
    fill(&fake, 2);
    // 48 s of work for one place.
    let function = Function::new(Places::new(1), Duration::from_millis(400));
    let a = worker("a");
    let mapping = one_by_one().maximum_record_age(Duration::from_secs(60));
    let run = launch(consumer(&fake, &a, mapping, function.clone(), &store));
    until("all records", || {
        let shards = run.report().shards;
        let counters = shards.iter().filter_map(|s| Some(s.snapshot.as_ref()?.counters));
        let dropped: u64 = counters.map(|counters| counters.dropped).sum();
        assert_eq!(dropped, 0);
        function.seen.len() == 120
    })
    .await;
    run.stop().await;
    assert_eq!(function.seen.distinct(), 120);
}

#[tokio::test(start_paused = true)]
async fn incident_72_lanes_and_mappings_that_share_a_function_get_their_turns() {
    let (fake, x, y) = (stream(4), store(), store());
    for i in 0..600 {
        fake.put("orders", Some(&format!("key-{i}")), "record").unwrap();
    }
    let function = Function::new(Places::new(2), Duration::from_millis(500));
    let other = Function { seen: Seen::default(), ..function.clone() };
    let a = worker("a");
    let lanes = one_by_one().parallelization_factor(5);
    let first = launch(consumer(&fake, &a, lanes, function.clone(), &x));
    let second = launch(consumer(&fake, &a, one_by_one().name("y"), other.clone(), &y));
    until("enough invocations", || function.seen.len() + other.seen.len() >= 200).await;
    function.assert_fair(4);
    other.assert_fair(4);
    // Twenty lanes against four.
    let (of_lanes, of_shards) = (function.seen.len(), other.seen.len());
    assert!((3 * of_shards..=8 * of_shards).contains(&of_lanes), "{of_lanes} against {of_shards}");
    assert_eq!(function.most.load(Ordering::SeqCst), 2);
    first.stop().await;
    second.stop().await;
    assert_eq!(function.places.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn i10_shards_that_lose_their_leases_while_they_wait_for_a_place_leave_the_queue_and_leak_none() {
    let (fake, store) = (stream(10), store());
    fill(&fake, 20);
    let function = Function::new(Places::new(1), Duration::from_secs(1));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, one_by_one(), function.clone(), &store));
    until("a few invocations", || function.seen.len() == 5).await;
    store.fail_all(StoreFault::HangBefore);
    until("the loss", || run.report().shards.is_empty()).await;
    assert_eq!(function.places.in_use(), 0, "what was invoked and what waited is gone");
    store.heal();
    let before = function.seen.len();
    until("it goes on", || function.seen.len() >= before + 50).await;
    run.stop().await;
    function.assert_fair(10);
    assert_eq!(function.places.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn i16_a_stop_does_not_wait_for_shards_that_wait_for_a_place() {
    let (fake, store) = (stream(10), store());
    fill(&fake, 5);
    let function = Function::new(Places::new(1), Duration::from_secs(3600));
    let a = shardmill::Worker::start(options("a").stop_timeout(Duration::from_secs(10))).unwrap();
    let mapping = one_by_one().timeout(Duration::from_secs(900));
    let run = launch(consumer(&fake, &a, mapping, function.clone(), &store));
    let waiting = || {
        let shards = run.report().shards;
        let lanes = shards.iter().filter_map(|s| Some(s.snapshot.as_ref()?.lanes[0].waits_for_place));
        lanes.filter(|waits| *waits).count()
    };
    until("nine wait", || waiting() == 9).await;
    let begun = Instant::now();
    let report = run.stop().await;
    assert_eq!((report.cut_invocations, function.places.in_use()), (1, 0));
    assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
}

/// A function that goes away while it is busy and is away for ninety seconds.
async fn outage(shards: u32, places: Places) {
    let (fake, store) = (stream(shards), store());
    fill(&fake, 400);
    let function = Function::new(places, Duration::from_millis(500));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, one_by_one(), function.clone(), &store));
    let shards = usize::try_from(shards).unwrap();
    until("every shard was served", || function.counts().len() == shards).await;
    let back = function.away(Duration::ZERO, Duration::from_secs(90));
    pass(Duration::from_secs(5)).await;
    let early = function.tries();
    tokio::time::sleep_until(back).await;
    let (tries, before) = (function.tries(), function.seen.len());
    let during = tries - early;
    assert!((60..=90).contains(&during), "one a second for all {shards} shards together: {during}");
    assert!(early <= 6 * shards, "{early} tries until it was known");
    until("the first invocation after its return", || function.seen.len() > before).await;
    let first = function.seen.all()[before..].iter().map(|sight| sight.at).min().unwrap();
    // One takes half a second.
    assert!(first <= back + Duration::from_millis(2500), "{:?}", first - back);
    until("the rest", || function.seen.len() >= before + 2 * shards).await;
    let mut after = function.seen.all()[before..].to_vec();
    after.sort_by(|x, y| x.shard.cmp(&y.shard));
    after.dedup_by(|x, y| x.shard == y.shard);
    assert_eq!(after.len(), shards, "all shards go on at once");
    assert_eq!(function.tries(), tries, "nothing is tried in vain any more");
    run.stop().await;
    assert_eq!(function.places.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_101_a_function_that_was_away_is_invoked_within_two_seconds_of_its_return() {
    outage(60, Places::unlimited()).await;
}

#[tokio::test(start_paused = true)]
async fn incident_101_the_same_with_few_places() {
    outage(40, Places::new(3)).await;
}

#[tokio::test(start_paused = true)]
async fn incident_101_a_function_that_is_away_at_the_start_is_tried_once_a_second_by_all_shards_together() {
    let (fake, store) = (stream(50), store());
    fill(&fake, 1);
    let function = Function::new(Places::unlimited(), Duration::from_millis(100));
    let back = function.away(Duration::ZERO, Duration::from_secs(60));
    let a = worker("a");
    let run = launch(consumer(&fake, &a, one_by_one(), function.clone(), &store));
    tokio::time::sleep_until(back).await;
    let tries = function.tries();
    assert!((40..=70).contains(&tries), "{tries}");
    until("every record", || function.seen.len() == 50).await;
    assert!(back.elapsed() <= Duration::from_secs(3), "{:?}", back.elapsed());
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i10_an_invocation_may_no_longer_start_once_its_lease_has_run_out() {
    let (fake, store) = (stream(1), store());
    put(&fake, 1);
    let kept = Arc::new(Mutex::new(None::<InvokeContext>));
    let keeps = Arc::clone(&kept);
    let handler = move |_: Batch, cx: InvokeContext| {
        *keeps.lock().unwrap() = Some(cx);
        std::future::pending::<Result<BatchResponse, HandlerError>>()
    };
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), handler, &store));
    until("the invocation", || kept.lock().unwrap().is_some()).await;
    let cx = kept.lock().unwrap().clone().unwrap();
    assert!(cx.may_start());
    store.fail_all(StoreFault::HangBefore);
    until("its lease has run out", || !cx.may_start()).await;
    store.heal();
    run.stop().await;
}
