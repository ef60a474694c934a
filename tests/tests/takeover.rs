//! A worker that stops in order is succeeded at once: from SIGTERM to the next owner's first invocation of each shard.
//! Nothing is handled twice. The times are printed; `SHARDMILL_TEST_TAKEOVERS` sets how many there are.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::time::{Duration, Instant};

use shardmill_tests::observe::{assert_exactly_once_in_order, assert_one_at_a_time, is_complete};
use shardmill_tests::{Config, Ferrokinesis, Function, Plan, Sidecar, Stream, Writer, seeded, until};

const SHARDS: usize = 4;

/// The shards that `worker` has by its own status.
async fn shards_of(sidecar: &Sidecar, worker: &str) -> Vec<String> {
    let shards = sidecar.shards().await;
    shards.into_iter().filter(|(_, shard)| shard["owner"] == worker).map(|(name, _)| name).collect()
}

async fn until_shared(sidecars: [&Sidecar; 2], names: [&str; 2]) {
    for (sidecar, name) in sidecars.into_iter().zip(names) {
        until(&format!("{name} has its half"), async || {
            (shards_of(sidecar, name).await.len() == SHARDS / 2).then_some(())
        })
        .await;
    }
}

async fn is_succeeded_at_once(set: impl FnOnce(Config, &str) -> Config) {
    let takeovers = std::env::var("SHARDMILL_TEST_TAKEOVERS").ok().map_or(3, |text| text.parse().unwrap());
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "takeover", i32::try_from(SHARDS).unwrap()).await;
    let function = Function::behaving(|_| Plan::success_after(Duration::from_millis(10))).await;
    let config = set(Config::new(&stream).set("BatchSize", 20).set("Worker.LeaseSeconds", 20), kinesis.url());
    let names = ["one", "two"];
    let mut one = Sidecar::worker(&config, &function, names[0]).await;
    let mut two = Sidecar::worker(&config, &function, names[1]).await;
    let writer = Writer::start(&stream);
    let (mut times, mut rng) = (Vec::new(), seeded());
    for takeover in 0..takeovers {
        until_shared([&one, &two], names).await;
        let (leaver, name, successor) =
            if takeover % 2 == 0 { (&mut one, names[0], names[1]) } else { (&mut two, names[1], names[0]) };
        let shards = shards_of(leaver, name).await;
        // At any moment between two of the successor's looks at the leases.
        tokio::time::sleep(Duration::from_millis(rng.u64(..1000))).await;
        let asked = Instant::now();
        leaver.terminate();
        for shard in &shards {
            let began = until("the successor's first invocation", async || {
                let calls = function.invocations();
                let of = calls.iter().filter(|call| call.caller == successor && call.shard == *shard);
                of.map(|call| call.began).find(|began| *began > asked)
            })
            .await;
            times.push(began - asked);
        }
        assert!(leaver.ended().await.success());
        *leaver = Sidecar::worker(&config, &function, name).await;
    }
    writer.stop(&mut stream).await;
    until("the records are stored", async || is_complete(&stream, &function.stored()).then_some(())).await;
    times.sort();
    println!(
        "{} shards of {takeovers} takeovers: median {:?}, longest {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert_eq!(times.len(), takeovers * SHARDS / 2);
    assert_exactly_once_in_order(&stream, &function.stored());
    assert_one_at_a_time(&function.invocations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i16_a_stop_passes_the_shards_of_a_file_on_without_a_duplicate() {
    is_succeeded_at_once(|config, _| config).await;
}

mod dynamodb_local {
    use super::is_succeeded_at_once;
    use shardmill_tests::{Config, endpoint, unique};

    fn in_a_table(layout: &str) -> impl FnOnce(Config, &str) -> Config {
        move |config, kinesis| {
            config.table(layout, &unique("takeover"), kinesis, &endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL"))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn i16_a_stop_passes_the_shards_of_a_table_on_without_a_duplicate() {
        is_succeeded_at_once(in_a_table("dynamodb")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn i16_a_stop_passes_the_shards_of_a_kcl_table_on_without_a_duplicate() {
        is_succeeded_at_once(in_a_table("kcl")).await;
    }
}
