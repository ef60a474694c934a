//! Sidecars on one SQLite file: they share the shards, each shard has one owner at any time, and succession.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shardmill_tests::observe::{
    assert_exactly_once_in_order, assert_nothing_lost_in_order, assert_one_at_a_time, is_complete,
};
use shardmill_tests::{
    Config, End, Ferrokinesis, Function, LeaseRow, Plan, Sidecar, Stalls, Store, Stream, until,
};

const SHARDS: usize = 4;

fn owned(store: &Store, owner: &str) -> usize {
    store.leases().values().filter(|lease| lease.owner.as_deref() == Some(owner)).count()
}

async fn until_owned(store: &Store, owner: &str, count: usize) {
    until(&format!("{owner} owns {count} shards"), async || (owned(store, owner) == count).then_some(()))
        .await;
}

/// Waits until the store shows that `owner` owns all shards; how long after `since` that was.
async fn taken_over(store: &Store, owner: &str, since: Instant) -> Duration {
    until_owned(store, owner, SHARDS).await;
    since.elapsed()
}

/// Two sidecars; the first owned all shards before the second came.
struct Pair {
    stream: Stream,
    function: Function,
    first: Sidecar,
    second: Sidecar,
}

impl Pair {
    async fn start(name: &str, lease_seconds: u64) -> Self {
        let kinesis = Ferrokinesis::start().await;
        let mut stream = Stream::create(kinesis.url(), name, i32::try_from(SHARDS).unwrap()).await;
        stream.put(400, 100).await;
        let function = Function::start().await;
        let config = Config::new(&stream).set("Worker.LeaseSeconds", lease_seconds);
        let first = Sidecar::worker(&config, &function, "first").await;
        until_owned(first.store(), "first", SHARDS).await;
        let second = Sidecar::worker(&config, &function, "second").await;
        until("the second is ready", async || second.ready().await.then_some(())).await;
        until("the records are stored", async || (function.stored_count() >= 400).then_some(())).await;
        Self { stream, function, first, second }
    }

    /// The second handles what comes now.
    async fn second_goes_on(mut self) {
        self.stream.put(400, 100).await;
        // A kill may bring earlier records again, so that their number alone says nothing.
        until("the later records are stored", async || {
            is_complete(&self.stream, &self.function.stored()).then_some(())
        })
        .await;
        assert_nothing_lost_in_order(&self.stream, &self.function.stored());
        let all = self.function.invocations();
        assert!(all.iter().any(|call| call.caller == "second"));
        assert_one_at_a_time(&all);
        assert_eq!(owned(self.second.store(), "second"), SHARDS);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_a_worker_killed_on_another_host_is_succeeded_when_its_lease_time_is_over() {
    let lease = Duration::from_secs(4);
    let mut pair = Pair::start("remote", lease.as_secs()).await;
    let store = pair.first.store().clone();
    store.pretend_remote("first");
    let (stalls, killed) = (Stalls::watch(), Instant::now());
    pair.first.kill_9();
    let took = taken_over(&store, "second", killed).await;
    let most = lease + Duration::from_millis(1500) + stalls.total();
    assert!(took <= most, "LeaseSeconds is {lease:?} and it took {took:?}");
    // Renewed at most a third of the lease time before the kill.
    assert!(took >= lease / 2, "it took only {took:?}: the owner could still have lived");
    pair.second_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_on_the_same_host_is_succeeded_at_once() {
    let lease = Duration::from_secs(60);
    let mut pair = Pair::start("same-host", lease.as_secs()).await;
    let killed = Instant::now();
    pair.first.kill_9();
    let took = taken_over(&pair.second.store().clone(), "second", killed).await;
    assert!(took < lease / 3, "it waited for the lease: {took:?}");
    pair.second_goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i16_a_worker_that_gets_sigterm_is_succeeded_within_a_second() {
    let mut pair = Pair::start("sigterm", 60).await;
    let store = pair.first.store().clone();
    // What is asked of the release must not come from the owner's death.
    store.pretend_remote("first");
    let (stalls, asked) = (Stalls::watch(), Instant::now());
    pair.first.terminate();
    let took = taken_over(&store, "second", asked).await;
    let most = Duration::from_secs(1) + stalls.total();
    assert!(took <= most, "it took {took:?}");
    assert!(pair.first.ended().await.success());
    assert_exactly_once_in_order(&pair.stream, &pair.function.stored());
    pair.second_goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_sidecars_share_a_files_shards_and_each_goes_on_alone_when_the_other_ends() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "shared", 8).await;
    stream.put(400, 100).await;
    let function = Function::start().await;
    let config = Config::new(&stream).set("Worker.LeaseSeconds", 6);
    let first = Sidecar::worker(&config, &function, "first").await;
    let store = first.store().clone();
    until_owned(&store, "first", 8).await;
    let mut second = Sidecar::worker(&config, &function, "second").await;
    until_owned(&store, "first", 4).await;
    until_owned(&store, "second", 4).await;
    let shown = first.status().await;
    let peers = shown["mappings"][0]["workers"].as_array().unwrap().clone();
    let seen = peers.iter().map(|peer| (peer["workerId"].as_str().unwrap(), &peer["self"], &peer["alive"]));
    let (yes, no) = (true.into(), false.into());
    assert_eq!(seen.collect::<Vec<_>>(), [("first", &yes, &yes), ("second", &no, &yes)]);
    until("both say what happened", async || {
        second.logged("took leases")?;
        first.logged("gave leases to another worker").map(drop)
    })
    .await;
    stream.put(400, 100).await;
    second.terminate();
    assert!(second.ended().await.success());
    until_owned(&store, "first", 8).await;
    stream.put(400, 100).await;
    until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_one_at_a_time(&function.invocations());

    let mut third = Sidecar::worker(&config, &function, "third").await;
    until_owned(&store, "third", 4).await;
    stream.put(400, 100).await;
    third.kill_9();
    until_owned(&store, "first", 8).await;
    stream.put(400, 100).await;
    until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(())).await;
    assert_nothing_lost_in_order(&stream, &function.stored());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i16_a_rolling_restart_under_load_loses_nothing_and_handles_nothing_twice() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "rolling", 6).await;
    let function = Function::behaving(|_| Plan::success_after(Duration::from_millis(20))).await;
    let config = Config::new(&stream).set("BatchSize", 10);
    let mut workers = Vec::new();
    for name in ["a0", "b0", "c0"] {
        workers.push(Sidecar::worker(&config, &function, name).await);
    }
    let store = workers[0].store().clone();
    for name in ["a0", "b0", "c0"] {
        until_owned(&store, name, 2).await;
    }
    let rounds = std::env::var("SHARDMILL_TEST_ROLLING_RESTARTS").map_or(1, |text| text.parse().unwrap());
    for round in 1..=rounds {
        for (index, worker) in workers.iter_mut().enumerate() {
            let name = format!("{}{round}", ["a", "b", "c"][index]);
            stream.put(600, 100).await;
            worker.terminate();
            assert!(worker.ended().await.success());
            stream.put(600, 100).await;
            *worker = Sidecar::worker(&config, &function, &name).await;
            until_owned(&store, &name, 2).await;
        }
    }
    until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(())).await;
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_one_at_a_time(&function.invocations());
}

/// The owner that the store showed when an invocation began, by the invocation's number.
type Owners = Arc<Mutex<BTreeMap<u64, Option<String>>>>;

/// A function that looks up who owns the shard for which it is called.
async fn watching(store: Store, owners: &Owners) -> Function {
    let owners = Arc::clone(owners);
    Function::behaving(move |call| {
        let owner = store.leases().get(&call.shard).and_then(|lease| lease.owner.clone());
        owners.lock().unwrap().insert(call.number, owner);
        Plan { before: Duration::from_millis(20), after: Duration::from_millis(20), ..Plan::success() }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_shard_has_one_owner_at_any_time_while_workers_come_and_go() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "owners", i32::try_from(SHARDS).unwrap()).await;
    let config = Config::new(&stream).set("BatchSize", 10).set("Worker.MaximumLeases", SHARDS / 2);
    let store = Store::new(config.store());
    let owners = Owners::default();
    let function = watching(store.clone(), &owners).await;
    let mut left = Sidecar::worker(&config, &function, "left-0").await;
    let mut right = Sidecar::worker(&config, &function, "right-0").await;
    for round in 0..4 {
        stream.put(2_000, 100).await;
        let (left_name, right_name) = (format!("left-{round}"), format!("right-{round}"));
        for name in [&left_name, &right_name] {
            until_owned(&store, name, SHARDS / 2).await;
            until("it works", async || function.invocations().into_iter().find(|c| c.caller == *name)).await;
        }
        // The shards of the one that goes are free for its successor only: the other has all that it may take.
        let successor = format!("left-{}", round + 1);
        left.kill_9();
        left = Sidecar::worker(&config, &function, &successor).await;
        until_owned(&store, &successor, SHARDS / 2).await;
        let successor = format!("right-{}", round + 1);
        right.terminate();
        assert!(right.ended().await.success());
        right = Sidecar::worker(&config, &function, &successor).await;
    }
    until("every record is stored", async || {
        shardmill_tests::observe::is_complete(&stream, &function.stored()).then_some(())
    })
    .await;

    assert_nothing_lost_in_order(&stream, &function.stored());
    let all = function.invocations();
    assert_one_at_a_time(&all);
    let owners = owners.lock().unwrap();
    for call in all.iter().filter(|call| matches!(call.ended, Some((_, End::Answered)))) {
        assert_eq!(owners[&call.number].as_ref(), Some(&call.caller), "{}: {}", call.shard, call.number);
    }
    let callers: std::collections::BTreeSet<_> = all.iter().map(|call| &call.caller).collect();
    assert!(callers.len() >= 8, "{callers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i10_a_worker_that_was_stopped_for_three_lease_times_starts_nothing_more_and_writes_nothing() {
    let lease = Duration::from_secs(2);
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "paused", 1).await;
    stream.put(2_000, 100).await;
    let function = Function::behaving(|_| Plan::success_after(Duration::from_millis(300))).await;
    let config = Config::new(&stream).set("BatchSize", 10).set("Worker.LeaseSeconds", lease.as_secs());
    let first = Sidecar::worker(&config, &function, "first").await;
    until_owned(first.store(), "first", 1).await;
    let second = Sidecar::worker(&config, &function, "second").await;
    let store = second.store().clone();
    until("it has come some way", async || (function.count() > 6).then_some(())).await;
    until("an invocation is open", async || (function.open().len() == 1).then_some(())).await;
    first.pause().await;
    let paused = Instant::now();
    let at_pause = store.leases();
    until_owned(&store, "second", 1).await;
    until("the second works on it", async || {
        let all = function.invocations();
        let of = |shard: &String| all.iter().any(|c| c.caller == "second" && c.shard == *shard);
        at_pause.keys().all(of).then_some(())
    })
    .await;
    tokio::time::sleep((lease * 3).saturating_sub(paused.elapsed())).await;

    // With the second one stopped for a moment, only the first could write.
    second.pause().await;
    let before = store.leases();
    let resumed = Instant::now();
    first.resume();
    until("the first knows that it lost the lease", async || {
        (first.metric("shardmill_leases_lost_total").await == Some(1.0)).then_some(())
    })
    .await;
    let after = store.leases();
    second.resume();
    assert_eq!(after, before, "owner, counter and checkpoint: the first wrote nothing");

    let mut last = after;
    function.behave(|_| Plan::success());
    until("every record is stored", async || {
        let now = store.leases();
        assert_advances(&last, &now);
        last = now;
        shardmill_tests::observe::is_complete(&stream, &function.stored()).then_some(())
    })
    .await;
    let all = function.invocations();
    let late = all.iter().find(|call| call.caller == "first" && call.began > resumed);
    assert!(late.is_none(), "the first began {late:?}");
    assert_nothing_lost_in_order(&stream, &function.stored());
    let answered = all.into_iter().filter(|call| matches!(call.ended, Some((_, End::Answered))));
    assert_one_at_a_time(&answered.collect::<Vec<_>>());
}

/// The second keeps its leases, and the checkpoint only moves forward (I2).
fn assert_advances(before: &BTreeMap<String, LeaseRow>, now: &BTreeMap<String, LeaseRow>) {
    for (shard, lease) in now {
        let earlier = &before[shard];
        assert_eq!((&lease.owner, &lease.token), (&earlier.owner, &earlier.token), "{shard}");
        assert!(lease.counter >= earlier.counter, "{shard}");
        let order = shardmill_tests::sequence_order(&lease.checkpoint, &earlier.checkpoint);
        assert!(order.is_ge(), "{shard}: {} after {}", lease.checkpoint, earlier.checkpoint);
    }
}

/// Workers on hosts of their own share a DynamoDB table.
mod dynamodb_local {
    use shardmill_tests::{endpoint, unique};

    use super::*;

    fn in_a_table(layout: &str, stream: &Stream) -> Config {
        Config::new(stream)
            .table(layout, &unique("fleet"), stream.endpoint(), &endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL"))
            .set("Worker.LeaseSeconds", 4)
    }

    /// How many shards `worker` has by its own status.
    async fn reads(sidecar: &Sidecar, worker: &str) -> usize {
        sidecar.shards().await.values().filter(|shard| shard["owner"] == worker).count()
    }

    async fn until_reads(sidecar: &Sidecar, worker: &str, count: usize) {
        until(&format!("{worker} reads {count} shards"), async || {
            (reads(sidecar, worker).await == count).then_some(())
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn workers_share_a_table_of_kcls_layout_and_one_goes_on_alone() {
        let kinesis = Ferrokinesis::start().await;
        let mut stream = Stream::create(kinesis.url(), "kcl", 4).await;
        stream.put(200, 100).await;
        let function = Function::start().await;
        let config = in_a_table("kcl", &stream);
        let first = Sidecar::worker(&config, &function, "first").await;
        until_reads(&first, "first", 4).await;
        let mut second = Sidecar::worker(&config, &function, "second").await;
        until_reads(&second, "second", 2).await;
        until_reads(&first, "first", 2).await;
        stream.put(200, 100).await;
        second.terminate();
        assert!(second.ended().await.success());
        until_reads(&first, "first", 4).await;
        stream.put(200, 100).await;
        until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(()))
            .await;
        assert_exactly_once_in_order(&stream, &function.stored());
        assert_one_at_a_time(&function.invocations());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn workers_share_a_table_hand_over_in_order_and_succeed_a_dead_one() {
        let kinesis = Ferrokinesis::start().await;
        let mut stream = Stream::create(kinesis.url(), "table", 6).await;
        stream.put(300, 100).await;
        let function = Function::start().await;
        let config = in_a_table("dynamodb", &stream);
        let first = Sidecar::worker(&config, &function, "first").await;
        until_reads(&first, "first", 6).await;
        let mut second = Sidecar::worker(&config, &function, "second").await;
        until_reads(&second, "second", 3).await;
        until_reads(&first, "first", 3).await;
        stream.put(300, 100).await;
        second.terminate();
        assert!(second.ended().await.success());
        until_reads(&first, "first", 6).await;
        until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(()))
            .await;
        assert_exactly_once_in_order(&stream, &function.stored());
        assert_one_at_a_time(&function.invocations());

        let mut third = Sidecar::worker(&config, &function, "third").await;
        until_reads(&third, "third", 3).await;
        stream.put(300, 100).await;
        let (stalls, killed) = (Stalls::watch(), Instant::now());
        third.kill_9();
        until_reads(&first, "first", 6).await;
        let most = Duration::from_secs(8) + stalls.total();
        assert!(killed.elapsed() <= most, "it took {:?}", killed.elapsed());
        stream.put(300, 100).await;
        until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(()))
            .await;
        assert_nothing_lost_in_order(&stream, &function.stored());
    }
}
