//! Discarded batches: a destination that fails, hangs or panics, or none at all (I3, R74 to R76).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shardmill::engine::OnDestinationFailure;
use shardmill::{
    Batch, BatchResponse, Destination, DestinationError, Discarded, HandlerError, InvokeContext,
};

use crate::logs;
use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Takes,
    Fails,
    Hangs,
    Panics,
}

/// A destination that the test can break.
#[derive(Clone)]
struct Letters {
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Vec<(String, String)>>>,
}

impl Letters {
    fn new(mood: Mood) -> Self {
        Self { mood: Arc::new(Mutex::new(mood)), taken: Arc::default() }
    }
    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
    fn taken(&self) -> Vec<(String, String)> {
        self.taken.lock().unwrap().clone()
    }
}

#[async_trait]
impl Destination for Letters {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Takes => {
                let (shard, batch) = (&discarded.batch.shard, &discarded.batch.batch);
                let pairs = batch.records().iter().map(|r| (shard.to_string(), r.seq.number.to_string()));
                self.taken.lock().unwrap().extend(pairs);
                Ok(())
            }
            Mood::Fails => Err(DestinationError::new("the queue is away")),
            Mood::Hangs => std::future::pending().await,
            Mood::Panics => panic!("a broken destination"),
        }
    }
    fn describe(&self) -> String {
        "letters".to_owned()
    }
}

/// Succeeds, but for the records of one shard.
fn poisoned(seen: &Seen, shard: &str) -> impl shardmill::Handler + use<> {
    let (seen, shard) = (seen.clone(), shard.to_owned());
    move |batch: Batch, cx: InvokeContext| {
        let (seen, poisoned) = (seen.clone(), cx.shard.as_str() == shard);
        async move {
            if poisoned {
                return Err(HandlerError::function("poison"));
            }
            seen.note("a", &batch, &cx);
            Ok(BatchResponse::success())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_holds_up_its_own_shard_only_and_loses_nothing() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Panics] {
        let (fake, store, seen, letters) = (stream(2), store(), Seen::default(), Letters::new(mood));
        let [bad, good] = [0, 1].map(|i| fake.shards("orders").unwrap()[i].id.clone());
        for _ in 0..30 {
            fake.put_to_shard("orders", &bad, Some("k"), "poison").unwrap();
            fake.put_to_shard("orders", &good, Some("k"), "fine").unwrap();
        }
        let a = worker("a");
        let mapping = mapping().batch_size(1).maximum_retry_attempts(0);
        let builder = consumer(&fake, &a, mapping, poisoned(&seen, &bad), &store).on_failure(letters.clone());
        let run = launch(builder);
        until("the good shard's records", || seen.len() == 30).await;
        let of_bad = |run: &Running| {
            let shards = run.report().shards;
            shards.into_iter().find(|s| s.shard.as_str() == bad).unwrap()
        };
        until("ten undelivered batches and a failed delivery", || {
            let report = of_bad(&run);
            let full = report.snapshot.as_ref().is_some_and(|s| s.undelivered_discards == 10);
            full && report.last_error.is_some_and(|error| error.what == "destination")
        })
        .await;
        pass(Duration::from_secs(300)).await;
        let report = of_bad(&run);
        let snapshot = report.snapshot.unwrap();
        assert_eq!(snapshot.undelivered_discards, 10, "the shard waits: {mood:?}");
        assert_eq!(snapshot.counters.invoked, 10);
        assert!(snapshot.counters.delivery_failures >= 4, "tried again and again: {mood:?}");
        assert_eq!(snapshot.checkpoint, shardmill::Position::TrimHorizon, "the checkpoint waits (I3)");
        letters.set(Mood::Takes);
        until("all letters", || letters.taken().len() == 30).await;
        until("the checkpoint", || of_bad(&run).snapshot.unwrap().buffered_records == 0).await;
        let counters = of_bad(&run).snapshot.unwrap().counters;
        assert_eq!((counters.delivered, counters.dropped), (30, 0));
        run.stop().await;
        let expected: Vec<_> = accepted(&fake).into_iter().filter(|(shard, _)| *shard == bad).collect();
        assert_eq!(letters.taken(), expected, "each once, in the shard's order: {mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_of_batches_that_were_given_up_and_had_not_reached_the_destination() {
    logs::collect();
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 5);
    let shard = fake.shards("orders").unwrap()[0].id.clone();
    let a = worker("a");
    let mapping = mapping().batch_size(5).maximum_retry_attempts(0);
    let letters = Letters::new(Mood::Fails);
    let run = launch(consumer(&fake, &a, mapping, poisoned(&seen, &shard), &store).on_failure(letters));
    until("the failed delivery", || {
        let is_about_destination = |error: &shardmill::ErrorReport| error.what == "destination";
        run.report().shards.iter().any(|s| s.last_error.as_ref().is_some_and(is_about_destination))
    })
    .await;
    assert_eq!(run.stop().await.undelivered_discards, 1);
    let told = |line: &&String| line.starts_with("WARN") && line.contains("had not reached the destination");
    assert_eq!(logs::lines().iter().filter(told).count(), 1, "{:?}", logs::lines());
    assert_eq!(leases(&store).await[0].checkpoint, shardmill::Position::TrimHorizon, "they come again (I3)");
}

#[tokio::test(start_paused = true)]
async fn r74_with_drop_a_batch_that_the_destination_does_not_take_is_counted_and_logged_with_its_positions() {
    logs::collect();
    let (fake, store, seen, letters) = (stream(1), store(), Seen::default(), Letters::new(Mood::Fails));
    put(&fake, 5);
    let shard = fake.shards("orders").unwrap()[0].id.clone();
    let a = worker("a");
    let mapping =
        mapping().batch_size(5).maximum_retry_attempts(0).on_destination_failure(OnDestinationFailure::Drop);
    let run = launch(consumer(&fake, &a, mapping, poisoned(&seen, &shard), &store).on_failure(letters));
    until("the checkpoint", || {
        run.report().shards.iter().any(|s| s.snapshot.as_ref().is_some_and(|s| s.counters.dropped == 5))
    })
    .await;
    run.stop().await;
    assert_dropped(&accepted(&fake));
    let last = accepted(&fake).pop().map(|(_, seq)| seq);
    assert_eq!(sequence(&leases(&store).await[0].checkpoint), last);
}

#[tokio::test(start_paused = true)]
async fn r76_without_a_destination_a_batch_that_is_given_up_is_counted_and_logged_with_its_positions() {
    logs::collect();
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 5);
    let shard = fake.shards("orders").unwrap()[0].id.clone();
    let a = worker("a");
    let mapping = mapping().batch_size(5).maximum_retry_attempts(0);
    let run = launch(consumer(&fake, &a, mapping, poisoned(&seen, &shard), &store));
    until("the drop", || {
        run.report().shards.iter().any(|s| s.snapshot.as_ref().is_some_and(|s| s.counters.dropped == 5))
    })
    .await;
    run.stop().await;
    assert_dropped(&accepted(&fake));
}

fn assert_dropped(records: &[(String, String)]) {
    let dropped: Vec<_> = logs::lines().into_iter().filter(|line| line.contains("dropped records")).collect();
    let [line] = &dropped[..] else { panic!("{dropped:?}") };
    let (first, last) = (&records[0].1, &records[records.len() - 1].1);
    assert!(line.starts_with("WARN") && line.contains("records=5"), "{line}");
    assert!(line.contains(&format!("from={first}")) && line.contains(&format!("to={last}")), "{line}");
}
