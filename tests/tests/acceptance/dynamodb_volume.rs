//! Ten thousand changes of a table: once, in order per item, with their images; and over kills, none lost.

mod dynamodb_local {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use fastrand::Rng;
    use serde_json::{Value, json};
    use shardmill_tests::{Config, End, Function, Plan, Sidecar, Table, seeded, until, until_within};

    use crate::dynamodb_mapping::dynamodb_local::{attributes, by_item, config, keeping, resolved, table};

    const ITEMS: usize = 5_000;
    const KILLS: usize = 10;
    /// Fifty thousand changes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(600);

    /// How many changes: `SHARDMILL_TEST_WRITES`, 10,000 unless set.
    fn writes() -> usize {
        let given = std::env::var("SHARDMILL_TEST_WRITES").ok();
        given.map_or(10_000, |text| text.parse().expect("SHARDMILL_TEST_WRITES is a number"))
    }

    /// One item; every other time one of the few that change again and again.
    fn any(rng: &mut Rng) -> String {
        let of = if rng.bool() { ITEMS / 20 } else { ITEMS };
        format!("item-{}", rng.usize(..of))
    }

    /// Some different items.
    fn some(rng: &mut Rng, count: usize) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        while ids.len() < count {
            ids.insert(any(rng));
        }
        ids
    }

    fn item(id: &str, n: usize) -> Value {
        json!({
            "id": {"S": id}, "n": {"N": n.to_string()}, "b": {"B": "Zm9vYmFy"}, "ns": {"NS": [n.to_string()]},
            "m": {"M": {"l": {"L": [{"NULL": true}, {"BOOL": n.is_multiple_of(2)}]}, "é\n\"": {"S": "ü\u{1}"}}},
        })
    }

    /// Writes until the stream has so many changes and `more` is not wanted.
    async fn write(table: &mut Table, rng: &mut Rng, changes: usize, more: impl Fn() -> bool) {
        let mut n = table.count();
        while table.count() < changes || more() {
            n += 1;
            match rng.u32(..100) {
                0..20 => table.put(item(&any(rng), n)).await,
                20..40 => {
                    let set = attributes(json!({"n": {"N": n.to_string()}, "l": {"L": [{"S": "x"}]}}));
                    table.update(&any(rng), set).await;
                }
                40..60 => table.delete(&any(rng)).await,
                way => {
                    let ids: Vec<String> = some(rng, 25).into_iter().collect();
                    let (puts, deletes) = ids.split_at(rng.usize(10..26));
                    let puts = puts.iter().map(|id| item(id, n)).collect();
                    let deletes: Vec<&str> = deletes.iter().map(String::as_str).collect();
                    match way {
                        60..80 => table.transact(puts, &deletes).await,
                        _ => table.batch(puts, &deletes).await,
                    }
                }
            }
        }
    }

    /// A sidecar that nothing happens to, and what its function was told.
    struct Undisturbed {
        sidecar: Sidecar,
        function: Function,
        kept: Arc<Mutex<Vec<Value>>>,
    }

    impl Undisturbed {
        async fn start(table: &Table, lanes: i32) -> Self {
            let (function, kept) = keeping().await;
            let config = config(table).url(function.url("")).set("ParallelizationFactor", lanes);
            let sidecar = Sidecar::start(&config.set("BatchSize", 500)).await;
            Self { sidecar, function, kept }
        }

        async fn has_seen_each_change_once(&self, table: &Table) {
            let all = async || (self.kept.lock().unwrap().len() >= table.count()).then_some(());
            until_within(PATIENCE, "all changes", all).await;
            resolved(&self.sidecar, table).await;
            println!("{} changes, {} invocations", table.count(), self.function.count());
            let seen = by_item(&self.kept.lock().unwrap());
            assert!(seen == *table.changes(), "once, in order per item, with its images");
        }
    }

    /// What the records said, by sequence number.
    type Said = Arc<Mutex<BTreeMap<String, Value>>>;

    /// A function that takes a while, and what it was told.
    async fn slow() -> (Function, Said) {
        let said = Said::default();
        let records = Arc::clone(&said);
        let function = Function::behaving(move |call| {
            let parsed = call.records.iter();
            let parsed = parsed.map(|r| (r.sequence.clone(), serde_json::from_slice(&r.data).unwrap()));
            records.lock().unwrap().extend(parsed);
            let part = |n| Duration::from_millis(20 + (call.number * 37 + n) % 100);
            Plan { before: part(0), after: part(67), ..Plan::success() }
        })
        .await;
        (function, said)
    }

    /// Starts the sidecar and kills it inside an invocation, so many times; then starts it once more.
    async fn kill_inside_invocations(config: &Config, function: &Function, rng: &mut Rng) -> Sidecar {
        let abandoned = || {
            let all = function.invocations();
            all.iter().filter(|call| matches!(call.ended, Some((_, End::Abandoned)))).count()
        };
        let mut inside = 0;
        while inside < KILLS {
            let mut sidecar = Sidecar::start(config).await;
            until("an invocation is open", async || function.open().pop()).await;
            tokio::time::sleep(Duration::from_millis(rng.u64(..300))).await;
            let before = abandoned();
            sidecar.kill_9();
            until("the function knows that its caller is gone", async || {
                function.open().is_empty().then_some(())
            })
            .await;
            inside += usize::from(abandoned() > before);
        }
        Sidecar::start(config).await
    }

    /// One table for all: in DynamoDB Local a write takes the longer, the more records the streams of older tables have.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn i3_r48_ten_thousand_changes_arrive_once_in_order_per_item_and_ten_kills_lose_none() {
        let mut rng = seeded();
        let mut table = table().await;
        // What waits comes in large batches, what is written meanwhile in small ones.
        write(&mut table, &mut rng, writes() / 10 * 9, || false).await;
        let one_lane = Undisturbed::start(&table, 1).await;
        let ten_lanes = Undisturbed::start(&table, 10).await;
        let (function, said) = slow().await;
        let config = config(&table).url(function.url("")).set("BatchSize", 50);
        let config = config.set("ParallelizationFactor", 10);
        let killing = Arc::new(AtomicBool::new(true));
        let (still_killing, mut of_writes) = (Arc::clone(&killing), rng.fork());
        let writing = tokio::spawn(async move {
            write(&mut table, &mut of_writes, writes(), || still_killing.load(Ordering::Relaxed)).await;
            table
        });
        let sidecar = kill_inside_invocations(&config, &function, &mut rng).await;
        killing.store(false, Ordering::Relaxed);
        let table = writing.await.unwrap();
        one_lane.has_seen_each_change_once(&table).await;
        ten_lanes.has_seen_each_change_once(&table).await;
        until_within(PATIENCE, "all changes over the kills", async || {
            let stored: BTreeSet<String> = function.stored().into_iter().map(|r| r.sequence).collect();
            (stored.len() >= table.count()).then_some(())
        })
        .await;
        drop(sidecar);

        let stored = function.stored();
        println!("{} stored over {KILLS} kills, {} invocations", stored.len(), function.count());
        assert!(stored.len() > table.count(), "some were redelivered");
        let (said, mut known) = (said.lock().unwrap(), BTreeSet::new());
        let first_times = stored.iter().filter(|record| known.insert(&record.sequence));
        let records: Vec<Value> = first_times.map(|record| said[&record.sequence].clone()).collect();
        assert!(by_item(&records) == *table.changes(), "in order per item, with its images, none lost");
    }
}
