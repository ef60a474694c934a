//! Streams that were split and merged, before they are read and while they are: order per key from generation to
//! generation, nothing lost, parents first (I1, I3, I9; incidents 31 to 35). Shards, keys, lags and crashes are drawn by
//! chance; the seed is in every message.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use shardmill::checkpoint::{Fault as StoreFault, Operation as StoreOperation};
use shardmill::{Position, WorkerOptions};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::{Fault, Operation, StoredShard};

use crate::support::*;

const WORKERS: [&str; 3] = ["a", "b", "c"];

/// A stream and the chance by which it changes.
struct Chance {
    fake: FakeKinesis,
    rng: Rng,
    seed: u64,
}

impl Chance {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self { fake: stream(rng.u32(1..4)), rng, seed }
    }

    async fn pass(&mut self, milliseconds: Range<u64>) {
        pass(Duration::from_millis(self.rng.u64(milliseconds))).await;
    }

    fn put(&mut self, records: usize) {
        for _ in 0..records {
            let key = format!("key-{}", self.rng.u32(..20));
            self.fake.put("orders", Some(&key), "an order").unwrap();
        }
    }

    /// The open shards in the order of their hash keys.
    fn open(&self) -> Vec<StoredShard> {
        let mut open = self.fake.shards("orders").unwrap();
        open.retain(|shard| shard.open);
        open.sort_by_key(|shard| shard.hash_range);
        open
    }

    /// Splits a shard or merges two.
    fn reshard(&mut self) {
        let open = self.open();
        let place = self.rng.usize(..open.len());
        match open.get(place + 1) {
            Some(next) if open.len() > 6 || self.rng.bool() => {
                self.fake.merge("orders", &open[place].id, &next.id).unwrap();
            }
            _ => drop(self.fake.split("orders", &open[place].id).unwrap()),
        }
    }

    /// Every shard is split or merged with a neighbour.
    fn new_generation(&mut self) {
        let mut open = self.open().into_iter().peekable();
        while let Some(shard) = open.next() {
            match open.next_if(|_| self.rng.bool()) {
                Some(neighbour) => drop(self.fake.merge("orders", &shard.id, &neighbour.id).unwrap()),
                None => drop(self.fake.split("orders", &shard.id).unwrap()),
            }
        }
    }

    /// Three generations, each with records, in a minute or two.
    async fn three_generations(&mut self) {
        for _ in 0..3 {
            self.put(40);
            self.new_generation();
            self.pass(0..40_000).await;
        }
        self.put(40);
    }

    fn distinct(&self) -> usize {
        self.fake.records("orders").unwrap().len()
    }

    /// First sights of a key come in the order in which its records were put, regardless of their shards.
    fn assert_order_per_key(&self, seen: &Seen) {
        let (mut accepted, mut keys) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for record in self.fake.records("orders").unwrap() {
            let (place, key) = ((record.shard_id, record.sequence_number), record.partition_key);
            accepted.entry(key.clone()).or_default().push(place.clone());
            keys.insert(place, key);
        }
        let (mut known, mut sights) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        for sight in seen.all() {
            let place = (sight.shard, sight.seq);
            if known.insert(place.clone()) {
                sights.entry(keys[&place].clone()).or_default().push(place);
            }
        }
        for (key, accepted) in accepted {
            assert_eq!(sights.get(&key), Some(&accepted), "{key:?}, seed {}", self.seed);
        }
    }

    /// Nothing of a shard is seen before the last of its parents, nor anything of a parent after it.
    fn assert_parents_first(&self, seen: &Seen) {
        let all = seen.all();
        for shard in self.fake.shards("orders").unwrap() {
            let Some(first) = all.iter().position(|sight| sight.shard == shard.id) else { continue };
            for parent in [shard.parent, shard.adjacent_parent].into_iter().flatten() {
                let last = all.iter().rposition(|sight| sight.shard == parent);
                assert!(last.is_none_or(|last| last < first), "{parent}, {}, seed {}", shard.id, self.seed);
            }
        }
    }

    /// Ended shards are at SHARD_END in the store, the others are not.
    async fn assert_ends(&self, store: &Store) {
        let at: BTreeMap<String, Position> = leases(store)
            .await
            .into_iter()
            .map(|lease| (lease.key.shard.to_string(), lease.checkpoint))
            .collect();
        for shard in self.fake.shards("orders").unwrap() {
            let at = at.get(&shard.id);
            assert_eq!(at == Some(&Position::ShardEnd), !shard.open, "{shard:?}: {at:?}, seed {}", self.seed);
        }
    }

    async fn ended(&self, store: &Store) -> bool {
        let leases = leases(store).await;
        let ended = leases.iter().filter(|lease| lease.checkpoint == Position::ShardEnd).count();
        ended == self.fake.shards("orders").unwrap().iter().filter(|shard| !shard.open).count()
    }
}

/// A worker that takes at most `most` leases, and its own view of the leases.
fn start(
    chance: &mut Chance,
    name: &'static str,
    most: usize,
    store: &Store,
    seen: &Seen,
) -> (Running, Store) {
    let view = another(store);
    let options: WorkerOptions = options(name).maximum_leases(most);
    let worker = shardmill::Worker::start(options).unwrap();
    let handler = seen.slow(name, Duration::from_millis(chance.rng.u64(1..400)));
    (launch(consumer(&chance.fake, &worker, mapping().batch_size(7), handler, &view)), view)
}

/// Consumers that come and go read a stream that had been resharded three times before and goes on being resharded.
async fn is_read_in_order(seed: u64, children_told: bool) {
    let mut chance = Chance::new(seed);
    chance.fake.set_children_told(children_told);
    chance.fake.set_separate_end_page(chance.rng.bool());
    chance.three_generations().await;
    let lag = Duration::from_millis(chance.rng.u64(0..120_000));
    chance.fake.set_listing_lag(lag);
    let (store, seen) = (store(), Seen::default());
    let mut runs: Vec<(Running, Store)> =
        WORKERS.map(|name| start(&mut chance, name, 7, &store, &seen)).into();
    for _ in 0..6 {
        chance.pass(0..20_000).await;
        let listed = chance.open().remove(0).id;
        let omitted = chance.fake.faults().on(Operation::ListShards).hold(Fault::OmitChildrenOf(listed));
        chance.reshard();
        chance.put(20);
        chance.pass(0..5_000).await;
        let n = chance.rng.usize(..WORKERS.len());
        let (run, view) = runs.remove(n);
        run.crash(&view).await;
        chance.pass(0..5_000).await;
        chance.put(20);
        runs.insert(n, start(&mut chance, WORKERS[n], 7, &store, &seen));
        drop(omitted);
    }
    until(&format!("all records, seed {seed}"), || seen.distinct() == chance.distinct()).await;
    for _ in 0..10_000 {
        if chance.ended(&store).await {
            break;
        }
        pass(Duration::from_millis(100)).await;
    }
    for (run, _) in runs {
        run.stop().await;
    }
    chance.assert_ends(&store).await;
    chance.assert_order_per_key(&seen);
    chance.assert_parents_first(&seen);
    assert_eq!(seen.first_sights(), accepted(&chance.fake), "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn incident_34_three_generations_behind_order_per_key_holds_over_crashes_and_listings_that_lag() {
    for seed in 0..3 {
        is_read_in_order(seed, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn incident_31_children_of_which_only_a_listing_that_lags_tells_are_all_read_in_order() {
    for seed in 100..103 {
        is_read_in_order(seed, false).await;
    }
}

/// Nothing is written before the split; what comes after it is seen, and nothing of it is checkpointed before the crash.
#[tokio::test(start_paused = true)]
async fn incident_37_i15_latest_then_a_split_then_records_and_a_crash_before_the_first_checkpoint_loses_nothing()
 {
    for children_told in [true, false] {
        let (fake, first, seen) = (stream(2), store(), Seen::default());
        fake.set_children_told(children_told);
        put(&fake, 30);
        pass(Duration::from_secs(5)).await;
        first.fail(StoreOperation::Checkpoint, StoreFault::ErrorBefore);
        let (a, b) = (worker("a"), worker("b"));
        let latest = || mapping().starting_position(StartingPosition::Latest);
        let run = launch(consumer(&fake, &a, latest(), seen.handler("a"), &first));
        until("the leases", || run.report().shards.len() == 2).await;
        pass(Duration::from_secs(5)).await;
        let shards = fake.shards("orders").unwrap();
        fake.split("orders", &shards[0].id).unwrap();
        put(&fake, 40);
        until("a record", || seen.len() > 0).await;
        run.crash(&first).await;
        fake.split("orders", &shards[1].id).unwrap();
        put(&fake, 40);
        let run = launch(consumer(&fake, &b, latest(), seen.handler("b"), &another(&first)));
        until("all written records", || seen.distinct() == 80).await;
        run.stop().await;
        let records = fake.records("orders").unwrap().split_off(30);
        let mut written: Vec<_> = records.into_iter().map(|r| (r.shard_id, r.sequence_number)).collect();
        written.sort();
        assert_eq!(seen.first_sights(), written, "children told: {children_told}");
    }
}
