//! Trouble with the stream, the store and the destination.

use async_trait::async_trait;
use shardmill::checkpoint::Fault as StoreFault;
use shardmill::engine::OnDestinationFailure;
use shardmill::{Destination, DestinationError, Discarded};
use shardmill_testkit::kinesis::{Fault, Operation};

use super::*;

/// A destination that takes everything, or nothing.
#[derive(Clone, Default)]
struct Letters {
    refuses: Arc<Mutex<bool>>,
}

#[async_trait]
impl Destination for Letters {
    async fn deliver(&self, _: &Discarded) -> Result<(), DestinationError> {
        match *self.refuses.lock().unwrap() {
            true => Err(DestinationError::new("the queue is away")),
            false => Ok(()),
        }
    }
    fn describe(&self) -> String {
        "the queue letters".to_owned()
    }
}

fn texts(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

const FAILS: &[&str] = &["WARN the function fails", "boom"];

/// A function that always fails, and no second attempt.
fn giving_up(letters: &Letters, mapping: shardmill::engine::MappingBuilder) -> Watched {
    let (function, store, letters) = (Function::new(Mood::Fails), store(), letters.clone());
    let mapping = mapping.maximum_retry_attempts(0);
    watch(1, |fake| consumer(fake, &worker("a"), mapping, function.handler(), &store).on_failure(letters))
}

#[tokio::test(start_paused = true)]
async fn incident_102_each_delivered_discard_is_one_line_with_its_records_and_destination() {
    let watched = giving_up(&Letters::default(), mapping());
    for _ in 0..2 {
        watched.put_everywhere();
        pass(Duration::from_secs(30)).await;
    }
    let records = accepted(&watched.fake);
    let delivered = |at: usize| {
        let seq = &records[at].1;
        let range = [format!("from={seq}"), format!("to={seq}")];
        let line = "INFO discarded records were delivered to the on-failure destination";
        [&[line, "shard=shardId-", "records=1", "RetryAttemptsExhausted", "the queue letters"][..]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .chain(range)
            .collect::<Vec<_>>()
    };
    let [first, second] = [delivered(0), delivered(1)];
    let (first, second) = (texts(&first), texts(&second));
    assert_told(&[FAILS, &first, &second]);
    assert!(watched.shard().troubles.is_empty(), "nothing waits");
    pass(Duration::from_secs(300)).await;
    assert_told(&[FAILS, &first, &second, &["INFO the function no longer fails", "failures=2"]]);
}

#[tokio::test(start_paused = true)]
async fn incident_102_each_dropped_discard_is_one_warning() {
    let (function, store) = (Function::new(Mood::Fails), store());
    let mapping = mapping().maximum_retry_attempts(0);
    let mut watched = watch(1, |fake| consumer(fake, &worker("a"), mapping, function.handler(), &store));
    watched.put_everywhere();
    pass(MINUTE).await;
    assert_told(&[FAILS, &["WARN dropped records that were discarded", "from=", "RetryAttemptsExhausted"]]);
    assert_eq!(watched.metric("dropped_events_total"), 1);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_destination_that_refuses_is_told_once_and_when_it_takes_again() {
    let letters = Letters::default();
    *letters.refuses.lock().unwrap() = true;
    let watched = giving_up(&letters, mapping());
    watched.put_everywhere();
    pass(MINUTE).await;
    let refuses: &[&str] = &["WARN the on-failure destination did not take a batch", "the queue is away"];
    assert_told(&[FAILS, refuses]);
    assert_eq!(watched.last_error().what, "destination");
    assert!(watched.troubles().contains(&(TroubleKind::Destination, 1)));
    assert!(watched.shard().oldest_waiting_millis.unwrap() >= 45_000, "its record waits");
    *letters.refuses.lock().unwrap() = false;
    until("the delivery", || told().len() == 4).await;
    assert_told(&[
        FAILS,
        refuses,
        &["INFO discarded records were delivered"],
        &["INFO the on-failure destination takes batches again"],
    ]);
    assert_eq!(watched.shard().snapshot.unwrap().undelivered_discards, 0);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_destination_that_refuses_under_drop_is_told_once_beside_what_is_dropped() {
    let letters = Letters::default();
    *letters.refuses.lock().unwrap() = true;
    let watched = giving_up(&letters, mapping().on_destination_failure(OnDestinationFailure::Drop));
    watched.put_everywhere();
    pass(Duration::from_secs(20)).await;
    watched.put_everywhere();
    pass(Duration::from_secs(35)).await;
    let lines = told();
    let count = |text: &str| lines.iter().filter(|line| line.starts_with(text)).count();
    assert_eq!(count("WARN dropped records that were discarded"), 2, "{lines:#?}");
    assert_eq!(count("WARN the on-failure destination did not take"), 1, "{lines:#?}");
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn incident_102_shards_that_cannot_be_read_are_told_once_and_their_age_grows() {
    let function = Function::new(Mood::Succeeds);
    let mut watched = watch_function(3, &function, mapping());
    pass(Duration::from_secs(5)).await;
    assert_eq!(watched.metric("iterator_age_milliseconds"), 0, "idle and well");
    let denied = watched.fake.faults().on(Operation::GetRecords).hold(Fault::AccessDenied);
    pass(MINUTE).await;
    let begins: &[&str] =
        &["WARN reading the shard fails", "kind=\"reading\"", "shard=shardId-", "AccessDenied"];
    assert_told(&[begins]);
    assert_eq!(watched.troubles(), [(TroubleKind::Reading, 3)]);
    assert_eq!(watched.last_error().what, "GetRecords");
    assert!(watched.metric("iterator_age_milliseconds") >= 45_000, "what has arrived since is unknown");
    drop(denied);
    watched.calm().await;
    assert_told(&[begins, &["INFO the shards can be read again", "lanes=3"]]);
    pass(Duration::from_secs(6)).await;
    assert_eq!(watched.metric("iterator_age_milliseconds"), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_102_the_age_of_an_idle_shard_is_not_that_of_its_last_invocation() {
    let function = Function::new(Mood::Succeeds);
    let mut watched = watch_function(1, &function, mapping());
    pass(Duration::from_secs(5)).await;
    let denied = watched.fake.faults().on(Operation::GetRecords).hold(Fault::AccessDenied);
    watched.put_everywhere();
    pass(Duration::from_secs(20)).await;
    drop(denied);
    watched.calm().await;
    pass(Duration::from_secs(20)).await;
    let shard = watched.shard();
    assert!(shard.snapshot.unwrap().iterator_age_millis.unwrap() >= 15_000, "of the last invocation");
    assert_eq!(shard.oldest_waiting_millis, Some(0));
    assert_eq!(watched.metric("iterator_age_milliseconds"), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_102_throttles_are_told_only_if_they_last() {
    let function = Function::new(Mood::Succeeds);
    let watched = watch_function(1, &function, mapping());
    pass(Duration::from_secs(5)).await;
    let throttled = watched.fake.faults().on(Operation::GetRecords).hold(Fault::Throttle);
    pass(MINUTE).await;
    assert_told(&[]);
    pass(Duration::from_secs(120)).await;
    assert_told(&[&["WARN reading the shard fails", "kind=\"reading\""]]);
    drop(throttled);
    watched.calm().await;
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_stream_that_cannot_be_listed_is_told_once_and_when_it_can() {
    let function = Function::new(Mood::Succeeds);
    let store = store();
    let mut denied = None;
    let watched = watch(1, |fake| {
        denied = Some(fake.faults().on_any().hold(Fault::AccessDenied));
        consumer(fake, &worker("a"), mapping(), function.handler(), &store)
    });
    pass(MINUTE).await;
    let begins: &[&str] = &["WARN cannot list the stream's shards", "AccessDenied"];
    assert_told(&[begins]);
    let report = watched.run.report();
    assert!(!report.source_answered && report.last_error.is_some(), "what /readyz says");
    drop(denied);
    until("the shard", || watched.run.report().shards.len() == 1).await;
    assert_told(&[begins, &["INFO the stream's shards are listed again"]]);
    assert_eq!(watched.run.report().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_store_that_refuses_writes_is_no_flood() {
    let (function, store) = (Function::new(Mood::Succeeds), store());
    let watched = watch(1, |fake| consumer(fake, &worker("a"), mapping(), function.handler(), &store));
    watched.put_everywhere();
    pass(Duration::from_secs(5)).await;
    for operation in WRITES {
        store.fail(operation, StoreFault::ErrorBefore);
    }
    watched.put_everywhere();
    pass(MINUTE).await;
    let warnings: Vec<_> = logs::lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert!(warnings.iter().any(|line| line.contains("the checkpoint store")), "{warnings:#?}");
    assert!(warnings.iter().all(|line| !line.contains("the function")), "{warnings:#?}");
}

#[tokio::test(start_paused = true)]
async fn incident_102_a_gap_is_one_error() {
    let function = Function::new(Mood::Succeeds);
    let watched = watch_function(1, &function, mapping());
    watched.put_everywhere();
    pass(Duration::from_secs(5)).await;
    watched.fake.faults().on(Operation::GetRecords).times(1).inject(Fault::TrimmedData);
    watched.put_everywhere();
    pass(MINUTE).await;
    let lines = told();
    let gaps: Vec<_> = lines.iter().filter(|line| line.starts_with("ERROR a gap")).collect();
    assert_eq!(gaps.len(), 1, "{lines:#?}");
    assert!(gaps[0].contains("shard=shardId-") && gaps[0].contains("trimmed"), "{gaps:?}");
    assert_eq!(watched.shard().snapshot.unwrap().counters.gaps, 1);
    assert!(watched.troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_takeover_is_one_line_however_many_leases_it_takes() {
    let function = Function::new(Mood::Succeeds);
    let watched = watch_function(50, &function, mapping());
    pass(MINUTE).await;
    let taken: Vec<_> =
        logs::lines().into_iter().filter(|line| line.starts_with("INFO took leases")).collect();
    assert_eq!(taken.len(), 1, "{taken:#?}");
    assert!(taken[0].contains("leases=50") && taken[0].contains("why=\"no worker had it\""), "{taken:?}");
    assert_eq!(watched.run.report().shards.len(), 50);
}

/// A destination that takes its time.
struct Slow;

#[async_trait]
impl Destination for Slow {
    async fn deliver(&self, _: &Discarded) -> Result<(), DestinationError> {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(())
    }
    fn describe(&self) -> String {
        "the slow queue".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_slower_than_the_failing_function_does_not_make_its_shard_a_blocked_one() {
    let (function, store) = (Function::new(Mood::Fails), store());
    let mapping = mapping().maximum_retry_attempts(0).batch_size(1);
    let mut watched =
        watch(1, |fake| consumer(fake, &worker("a"), mapping, function.handler(), &store).on_failure(Slow));
    (0..30).for_each(|_| watched.put_everywhere());
    for _ in 0..15 {
        pass(Duration::from_secs(20)).await;
        assert_eq!(watched.metric("troubled_lanes blocked"), 0);
    }
    let delivered = told().iter().filter(|line| line.contains("the slow queue")).count();
    assert!((10..20).contains(&delivered), "{delivered} are delivered");
    assert!(!told().iter().any(|line| line.contains("blocked")), "{:#?}", told());
}
