//! Readers that wait for their turn.

use futures::FutureExt;

use super::*;

#[tokio::test]
async fn a_shard_that_waits_for_its_turn_has_no_memory_for_a_call() {
    let mut reader = reader(&Service::new([]), Position::TrimHorizon).await;
    // A call of the SDK is some 10 kB, and thousands of shards wait while a few hundred call.
    let read = reader.next_page(1);
    assert!(size_of_val(&*read) <= 2048, "{} bytes", size_of_val(&*read));
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_kept_for_the_next_page_and_one_that_is_given_back_is_anothers() {
    let service = Service::new([]).otherwise(
        json!({"ShardIterator": "i", "Records": [], "NextShardIterator": "i", "MillisBehindLatest": 0}),
    );
    let source = service.source_with(&ServiceClock::new(), ReadLimiter::new().with_concurrent_reads(1));
    let open = || async { source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap() };
    let (mut one, mut other) = (open().await, open().await);
    one.take_turn().await;
    one.next_page(1).await.unwrap();
    other.next_page(1).await.unwrap();
    let begin = Instant::now();
    one.take_turn().await;
    assert_eq!(begin.elapsed(), Duration::from_millis(200));
    assert!(other.take_turn().now_or_never().is_none(), "there is one permit");
    one.give_turn_back();
    other.take_turn().await;
    other.next_page(1).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_millis(200));
    one.next_page(1).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_millis(400), "without a turn it takes one itself");
}
