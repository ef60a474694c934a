//! Handlers that fail in every way, readers that expire or panic, and the limits on reads and memory (I1, I12 to I14).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use shardmill::checkpoint::Fault as StoreFault;
use shardmill::engine::Page;
use shardmill::{
    Batch, BatchResponse, HandlerError, InvokeContext, KinesisSource, Position, ShardId, ShardListing,
    ShardReader, SourceError, StreamSource,
};
use shardmill_testkit::kinesis::{Fault, Operation};
use tokio::time::Instant;

use crate::support::*;

type Answer = Result<BatchResponse, HandlerError>;

/// What the n-th invocation does, from 1.
fn scripted(
    seen: &Seen,
    script: impl Fn(usize) -> BoxFuture<'static, Option<Answer>> + Send + Sync + 'static,
) -> impl shardmill::Handler {
    let (seen, calls, script) = (seen.clone(), Arc::new(AtomicUsize::new(0)), Arc::new(script));
    move |batch: Batch, cx: InvokeContext| {
        let (seen, call, script) =
            (seen.clone(), calls.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&script));
        // Called here, so that a script may panic before there is a future.
        let answer = script(call);
        async move {
            match answer.await {
                Some(answer) => answer,
                None => {
                    seen.note("a", &batch, &cx);
                    Ok(BatchResponse::success())
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_or_inside_its_future_is_a_function_error_and_the_shard_goes_on() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 4);
    let handler = scripted(&seen, |call| match call {
        1 => panic!("before there is a future"),
        2 => Box::pin(async { panic!("inside the {}", "future") }),
        _ => Box::pin(async { None }),
    });
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping().batch_size(2), handler, &store));
    until("the first panic", || {
        run.report().shards.iter().any(|shard| {
            shard.last_error.as_ref().is_some_and(|error| error.message.contains("the handler panicked"))
        })
    })
    .await;
    until("all records", || seen.len() == 4).await;
    let report = run.report();
    let error = report.shards[0].last_error.clone().unwrap();
    assert_eq!(error.what, "function");
    // What the panic said may quote a record: it is in the details, which are logged at debug.
    assert_eq!(error.message, "the function failed: the handler panicked");
    let counters = report.shards[0].snapshot.as_ref().unwrap().counters;
    assert_eq!((counters.invoked, counters.failed), (8, 4));
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn r19_a_handler_that_never_answers_is_cut_at_its_timeout_and_tried_again() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 1);
    let begun = Instant::now();
    let handler = scripted(&seen, |call| match call {
        1 => Box::pin(std::future::pending()),
        _ => Box::pin(async { None }),
    });
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping().timeout(Duration::from_secs(7)), handler, &store));
    until("the record", || seen.len() == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(7));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn r23_a_function_that_is_not_reached_spends_no_attempt_and_is_left_alone_as_long_as_it_asks() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 1);
    let asked = Some(Duration::from_secs(30));
    let handler = scripted(&seen, move |call| {
        Box::pin(async move {
            (call <= 5)
                .then(|| Err(HandlerError::NotReached { reason: "busy".to_owned(), retry_after: asked }))
        })
    });
    let a = worker("a");
    let begun = Instant::now();
    let run = launch(consumer(&fake, &a, mapping().maximum_retry_attempts(0), handler, &store));
    until("the record", || seen.len() == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(150), "{:?}", begun.elapsed());
    let counters = run.report().shards[0].snapshot.as_ref().unwrap().counters;
    assert_eq!((counters.dropped, counters.failed), (0, 0));
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_100_an_invocation_that_the_stop_ended_early_is_counted_as_cut_and_spends_no_attempt() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 1);
    let handler = scripted(&seen, |call| {
        Box::pin(async move {
            (call == 1)
                .then(|| Err(HandlerError::Cut { reason: "the function was signalled, too".to_owned() }))
        })
    });
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping().maximum_retry_attempts(0), handler, &store));
    until("the record", || seen.len() == 1).await;
    let counters = run.report().shards[0].snapshot.as_ref().unwrap().counters;
    assert_eq!((counters.dropped, counters.failed), (0, 0));
    assert_eq!(run.stop().await.cut_invocations, 1);
}

/// Whether `cancelled` fired while the future below waited, and whether that future was dropped.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<(bool, bool)>>);

impl Watch {
    fn handler(&self) -> impl shardmill::Handler + use<> {
        let this = self.clone();
        move |_: Batch, cx: InvokeContext| {
            let this = this.clone();
            async move {
                struct Dropped(Watch);
                impl Drop for Dropped {
                    fn drop(&mut self) {
                        self.0.0.lock().unwrap().1 = true;
                    }
                }
                let (fired, cancelled) = (this.clone(), cx.cancelled.clone());
                // Work that the handler left running elsewhere learns of it too.
                tokio::spawn(async move {
                    cancelled.cancelled().await;
                    fired.0.lock().unwrap().0 = true;
                });
                let _dropped = Dropped(this);
                std::future::pending::<Answer>().await
            }
        }
    }

    fn get(&self) -> (bool, bool) {
        *self.0.lock().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn i10_a_lost_lease_cancels_the_invocation_and_drops_it() {
    let (fake, store, watch) = (stream(1), store(), Watch::default());
    put(&fake, 1);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), watch.handler(), &store));
    until("the invocation", || {
        run.report().shards.iter().any(|s| s.snapshot.as_ref().is_some_and(|s| s.lanes[0].invoking))
    })
    .await;
    assert_eq!(watch.get(), (false, false));
    store.fail_all(StoreFault::HangBefore);
    until("the loss", || run.report().shards.is_empty()).await;
    until("the change", || watch.get() == (true, true)).await;
    store.heal();
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i16_the_deadline_of_a_stop_cancels_drops_and_counts_an_invocation_even_if_the_store_is_dead() {
    for dead in [false, true] {
        let (fake, store, watch) = (stream(2), store(), Watch::default());
        put(&fake, 40);
        let timeout = Duration::from_secs(10);
        let a = shardmill::Worker::start(options("a").lease(LEASE * 20).stop_timeout(timeout)).unwrap();
        let run =
            launch(consumer(&fake, &a, mapping().timeout(Duration::from_secs(900)), watch.handler(), &store));
        let invoking = |run: &Running| {
            let shards = run.report().shards;
            shards.iter().filter(|s| s.snapshot.as_ref().is_some_and(|s| s.lanes[0].invoking)).count()
        };
        until("both invocations", || invoking(&run) == 2).await;
        if dead {
            store.fail_all(StoreFault::HangBefore);
        }
        let begun = Instant::now();
        let observer = watch.clone();
        let early = tokio::spawn(async move {
            tokio::time::sleep_until(begun + timeout - Duration::from_millis(50)).await;
            let before = observer.get();
            tokio::time::sleep(Duration::from_millis(100)).await;
            (before, observer.get())
        });
        let report = run.stop().await;
        assert_eq!(report.cut_invocations, 2, "store dead: {dead}");
        assert_eq!(early.await.unwrap(), ((false, false), (true, true)), "dropped at the deadline");
        let took = begun.elapsed();
        assert!(took >= timeout && took <= timeout + Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn i14_iterators_that_expire_again_and_again_bring_neither_duplicates_nor_gaps() {
    for position in [StartingPosition::TrimHorizon, StartingPosition::Latest] {
        let (fake, store, seen) = (stream(2), store(), Seen::default());
        let a = worker("a");
        let mapping = mapping().starting_position(position).maximum_records(7);
        let run = launch(consumer(&fake, &a, mapping, seen.handler("a"), &store));
        until("the leases", || run.report().shards.len() == 2).await;
        // Before the first record, LATEST opens again at its pinned start (I15).
        fake.faults().on(Operation::GetRecords).times(2).inject(Fault::ExpiredIterator);
        for round in 1..=10 {
            fake.faults().on(Operation::GetRecords).skip(round % 3).times(3).inject(Fault::ExpiredIterator);
            put(&fake, 30);
            pass(Duration::from_millis(300)).await;
        }
        until("all records", || seen.len() >= 300).await;
        // A pause beyond the iterators' life.
        fake.set_iterator_lifetime(Duration::from_millis(1));
        put(&fake, 30);
        until("the records of short-lived iterators", || seen.len() >= 330).await;
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted(&fake), "{position:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn i12_two_consumers_of_one_worker_together_keep_to_five_reads_a_second_and_shard() {
    let (fake, seen) = (stream(2), Seen::default());
    fake.set_read_limits(true);
    put(&fake, 3000);
    let a = worker("a");
    let (x, y) = (store(), store());
    let fast = Duration::from_millis(1);
    let small =
        || mapping().maximum_records(10).idle_interval(Duration::from_millis(200)).initial_backoff(fast);
    let first = launch(consumer(&fake, &a, small(), seen.handler("x"), &x));
    let second = launch(consumer(&fake, &a, small().name("y"), seen.handler("y"), &y));
    fake.faults().on(Operation::GetRecords).skip(20).times(5).inject(Fault::ExpiredIterator);
    fake.faults().on(Operation::GetRecords).skip(40).times(10).inject(Fault::InternalFailure);
    until("both have everything", || seen.len() == 6000).await;
    first.stop().await;
    second.stop().await;
    for shard in fake.shards("orders").unwrap() {
        let reads = fake.calls().of(Operation::GetRecords).shard(&shard.id);
        assert!(
            reads.max_within(Duration::from_secs(1)) <= 5,
            "{}",
            reads.max_within(Duration::from_secs(1))
        );
        assert!(
            reads
                .iter()
                .all(|call| { call.error.as_deref() != Some("ProvisionedThroughputExceededException") })
        );
    }
    assert_eq!(seen.distinct(), 3000);
}

#[tokio::test(start_paused = true)]
async fn i13_records_larger_than_every_budget_pass_one_page_at_a_time() {
    const LARGE: usize = 10 << 20;
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    for shard in fake.shards("orders").unwrap() {
        for _ in 0..3 {
            fake.put_to_shard("orders", &shard.id, Some("k"), vec![7_u8; LARGE]).unwrap();
        }
    }
    let a = shardmill::Worker::start(options("a").buffer_bytes(1 << 20)).unwrap();
    let mapping = mapping().buffer_bytes(1 << 20).batch_size(1);
    let slow = seen.slow("a", Duration::from_secs(20));
    let run = launch(consumer(&fake, &a, mapping, slow, &store));
    let mut most = 0;
    until("all records", || {
        let shards = run.report().shards;
        most =
            most.max(shards.iter().filter_map(|s| Some(s.snapshot.as_ref()?.buffered_bytes)).sum::<usize>());
        seen.len() == 6
    })
    .await;
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
    // Held as the base64 text that the service sent.
    assert!((LARGE..=2 * (LARGE.div_ceil(3) * 4 + 4096)).contains(&most), "a page per shard at most: {most}");
}

/// A source whose readers panic at pages of the test's choice.
struct Panicking {
    source: KinesisSource,
    pages: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

struct PanickingReader(Box<dyn ShardReader>, Arc<AtomicUsize>);

#[async_trait]
impl StreamSource for Panicking {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        self.source.shards().await
    }
    async fn open(&self, shard: &ShardId, at: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let reader = self.source.open(shard, at).await?;
        Ok(Box::new(PanickingReader(reader, Arc::clone(&self.pages))))
    }
    fn describe(&self) -> String {
        self.source.describe()
    }
}

#[async_trait]
impl ShardReader for PanickingReader {
    async fn next_page(&mut self, limit: usize) -> Result<Page, SourceError> {
        let page = self.1.fetch_add(1, Ordering::Relaxed);
        assert!(!(3..9).contains(&page), "a page that this source cannot stand");
        self.0.next_page(limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_gives_the_lease_up_and_the_shard_is_taken_again_with_backoff() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    put(&fake, 50);
    let a = worker("a");
    let opened = Arc::new(AtomicUsize::new(0));
    let panicking = Panicking { source: source(&fake), pages: Arc::default(), opened: Arc::clone(&opened) };
    let mapping = mapping().maximum_records(5).build().unwrap();
    let begun = Instant::now();
    let run = launch(
        shardmill::Consumer::builder(mapping, panicking, seen.handler("a"))
            .lease_store(store.clone())
            .worker(Arc::clone(&a)),
    );
    until("all records", || seen.distinct() == 50).await;
    assert_eq!(opened.load(Ordering::Relaxed), 7, "six panics");
    assert!(begun.elapsed() > Duration::from_secs(3), "not at once again: {:?}", begun.elapsed());
    run.stop().await;
    assert_eq!(seen.first_sights(), accepted(&fake));
    assert_eq!(leases(&store).await[0].owner, None);
}
