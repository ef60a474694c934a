//! kill -9: nothing is lost, order holds, and exactly the records above the stored checkpoint are redelivered.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::BTreeMap;
use std::time::Duration;

use shardmill_tests::observe::{assert_nothing_lost_in_order, assert_one_at_a_time, is_complete};
use shardmill_tests::{Config, End, Ferrokinesis, Function, LeaseRow, Plan, Sidecar, Stream, until};

const KILLS: u32 = 20;
/// An invocation works so long before it stores its records, and again so long until it answers.
const HALF: Duration = Duration::from_millis(100);

/// The record with which a shard has to go on.
fn next<'a>(stream: &'a BTreeMap<String, Vec<String>>, lease: &LeaseRow) -> Option<&'a String> {
    let numbers = &stream[&lease.shard];
    if lease.checkpoint == "TRIM_HORIZON" {
        return numbers.first();
    }
    let place = numbers.iter().position(|number| *number == lease.checkpoint);
    numbers.get(place.expect("the checkpoint is a record of the stream") + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_each_of_twenty_kills_the_first_record_to_come_again_is_the_one_after_the_checkpoint() {
    let kinesis = Ferrokinesis::start().await;
    let mut stream = Stream::create(kinesis.url(), "crash", 4).await;
    stream.put(8_000, 100).await;
    let accepted = stream.by_shard();
    let function = Function::behaving(|_| Plan { before: HALF, after: HALF, ..Plan::success() }).await;
    let config = Config::new(&stream).set("BatchSize", 10);

    let (mut inside, mut compared) = (0, 0);
    let mut stored_at_kill: BTreeMap<String, LeaseRow> = BTreeMap::new();
    for kill in 0..=KILLS {
        let run = format!("run-{kill}");
        if kill == KILLS {
            // The last run has all the rest to do.
            function.behave(|_| Plan::success());
        }
        let mut sidecar = Sidecar::start(&config.clone().url(function.url(&run))).await;
        let calls = || function.invocations().into_iter().filter(|call| call.caller == run);
        if kill == KILLS {
            until("every record is stored", async || is_complete(&stream, &function.stored()).then_some(()))
                .await;
            sidecar.terminate();
            assert!(sidecar.ended().await.success());
        } else {
            // Some kills come early in the run, some later; early and late in an invocation.
            let answered = (kill % 4) as usize * 2;
            until("the run has come so far", async || {
                (calls().filter(|call| call.ended.is_some()).count() >= answered).then_some(())
            })
            .await;
            until("an invocation is open", async || function.open().pop()).await;
            tokio::time::sleep(HALF * (kill % 3) * 2 / 3).await;
            sidecar.kill_9();
            let open = until("the function knows that its caller is gone", async || {
                let all = function.invocations();
                let abandoned = |end: &Option<_>| matches!(end, Some((_, End::Abandoned)));
                let count = all.iter().filter(|c| c.caller == run && abandoned(&c.ended)).count();
                function.open().is_empty().then_some(count)
            })
            .await;
            inside += u32::from(open > 0);
        }
        for (shard, lease) in &stored_at_kill {
            if let Some(first) = calls().find(|call| call.shard == *shard) {
                let expected = next(&accepted, lease);
                assert_eq!(Some(&first.records[0].sequence), expected, "{shard}, {run}");
                compared += 1;
            }
        }
        stored_at_kill = sidecar.store().leases();
    }

    assert!(inside >= 15, "{inside} of {KILLS} kills fell inside an invocation");
    assert!(compared >= KILLS, "{compared} first records were compared");
    let stored = function.stored();
    assert!(stored.len() > stream.records().len(), "some kills came between storing and answering");
    assert_nothing_lost_in_order(&stream, &stored);
    assert_one_at_a_time(&function.invocations());
}
