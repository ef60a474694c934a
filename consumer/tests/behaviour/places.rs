//! Places for leases, `MaximumLeases`, that several mappings of one worker share.

use std::sync::Arc;
use std::time::Duration;

use shardmill::checkpoint::{FaultyStore, MemoryStore, Operation};
use shardmill::{EventSourceMapping, KinesisSource, Worker};
use shardmill_testkit::FakeKinesis;
use tokio::time::Instant;

use crate::support::*;

/// How often leases are given for balance.
const INTERVAL: Duration = Duration::from_secs(5);

/// The stream of a second mapping, with so many shards.
fn payments(shards: u32) -> FakeKinesis {
    let fake = FakeKinesis::new();
    fake.create_stream("payments", shards).unwrap();
    fake
}

/// A second mapping of the worker.
fn of_payments(fake: &FakeKinesis, worker: &Arc<Worker>, store: &Store) -> Running {
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/payments";
    let mapping = EventSourceMapping::builder(arn, "payments-worker").build().unwrap();
    let source = KinesisSource::new(&fake.sdk_config(), arn).unwrap();
    let builder = shardmill::Consumer::builder(mapping, source, Seen::default().handler("payments"));
    launch(builder.lease_store(store.clone()).worker(Arc::clone(worker)))
}

async fn tokens(stores: [&Store; 2]) -> Vec<Option<String>> {
    let mut tokens = Vec::new();
    for store in stores {
        tokens.extend(leases(store).await.into_iter().map(|lease| lease.token));
    }
    tokens
}

/// Two mappings of 8 shards each, all of them at worker b; then a worker joins that has 4 places for both.
#[tokio::test(start_paused = true)]
async fn places_that_two_mappings_share_are_not_given_away_twice() {
    share_places([store(), store()]).await;
    let by_heartbeat = || FaultyStore::new(MemoryStore::renewed_by_heartbeat());
    share_places([by_heartbeat(), by_heartbeat()]).await;
}

async fn share_places(stores: [Store; 2]) {
    let fakes = (stream(8), payments(8));
    // Long, so that a lease which waits for the end of one would be seen.
    let join = |id: &str, leases: Option<usize>| {
        let options = options(id).lease(Duration::from_secs(60));
        let options = leases.into_iter().fold(options, |options, most| options.maximum_leases(most));
        Worker::start(options).unwrap()
    };
    let own = [another(&stores[0]), another(&stores[1])];
    let (b, seen) = (join("b", None), Seen::default());
    let large = [
        launch(consumer(&fakes.0, &b, mapping(), seen.handler("b"), &own[0])),
        of_payments(&fakes.1, &b, &own[1]),
    ];
    until("all shards", || large.iter().map(shards).sum::<usize>() == 16).await;
    let a = join("a", Some(4));
    let small = [
        launch(consumer(&fakes.0, &a, mapping(), seen.handler("a"), &another(&stores[0]))),
        of_payments(&fakes.1, &a, &another(&stores[1])),
    ];
    let counts = |runs: &[Running; 2]| runs.iter().map(shards).sum::<usize>();
    until("as many as it may have", || counts(&small) == 4).await;
    let begun = Instant::now();
    until("every shard is read", || (counts(&small), counts(&large)) == (4, 12)).await;
    assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
    pass(INTERVAL).await;
    let settled = tokens([&stores[0], &stores[1]]).await;
    assert!(settled.iter().all(Option::is_some), "every lease is held");
    let assigned = || own.iter().map(|store| store.calls(Operation::Assign)).sum::<u64>();
    let before = assigned();
    for _ in 0..120 {
        pass(Duration::from_secs(1)).await;
        assert_eq!((counts(&small), counts(&large)), (4, 12));
    }
    assert_eq!(tokens([&stores[0], &stores[1]]).await, settled, "no lease goes to and fro");
    assert_eq!(assigned(), before);
    for run in small.into_iter().chain(large) {
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_limit_names_none_however_many_mappings_it_has() {
    let (fakes, stores) = ((stream(3), payments(3)), [store(), store()]);
    let (a, seen) = (worker("a"), Seen::default());
    let runs = [
        launch(consumer(&fakes.0, &a, mapping(), seen.handler("a"), &stores[0])),
        of_payments(&fakes.1, &a, &stores[1]),
    ];
    until("all shards", || runs.iter().map(shards).sum::<usize>() == 6).await;
    pass(LEASE).await;
    for run in &runs {
        let workers = run.report().workers;
        assert_eq!((workers.len(), workers[0].worker.maximum_leases), (1, None));
    }
    for run in runs {
        run.stop().await;
    }
}
