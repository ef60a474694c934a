//! What every source passes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardmill_engine::{Page, Position, Seq, ShardId};

use crate::clock::ServiceClock;
use crate::source::{ReadLimiter, ShardReader, SourceContext, SourceErrorKind, StreamSource};

/// How often an empty page is followed by another read, before records that were written count as lost.
const PATIENCE: usize = 100;

/// A stream for one check: empty, with one open shard.
#[async_trait]
pub trait StreamCase: Send + Sync {
    /// A source that reads it.
    fn source(&self) -> Arc<dyn StreamSource>;

    /// Writes so many records, and returns their sequence numbers in order.
    async fn write(&self, records: usize) -> Vec<String>;

    /// Closes the shard; at least one other follows it.
    async fn close(&self, shard: &ShardId);
}

/// Runs every check, each on a case of its own.
///
/// # Panics
/// If the source does not pass.
pub async fn run_all<C: StreamCase>(mut case: impl AsyncFnMut() -> C) {
    a_listing_has_the_open_shard_and_agrees_with_the_summary(&case().await).await;
    records_come_in_order_once_and_no_more_than_asked_for(&case().await).await;
    each_position_begins_where_it_says(&case().await).await;
    a_closed_shard_ends_once_everything_was_read_and_names_what_follows(&case().await).await;
    a_shard_that_never_was_is_not_found(&case().await).await;
    one_worker_may_attach_a_source_again_and_another_only_when_it_is_gone(&case().await).await;
}

async fn only_shard(source: &dyn StreamSource) -> ShardId {
    let listing = source.shards().await.unwrap();
    let [shard] = &listing.shards[..] else { panic!("one shard: {listing:?}") };
    assert!(shard.open, "{shard:?}");
    shard.id.clone()
}

/// Reads until so many records came or the shard has ended.
async fn read(reader: &mut dyn ShardReader, records: usize, limit: usize) -> (Vec<String>, Page) {
    let mut seen = Vec::new();
    for _ in 0..PATIENCE {
        let page = reader.next_page(limit).await.unwrap();
        assert!(page.records.len() <= limit, "{} records, {limit} were asked for", page.records.len());
        seen.extend(page.records.iter().map(|record| record.seq.number.to_string()));
        if seen.len() >= records || page.end_of_shard {
            return (seen, page);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{} of {records} records after {PATIENCE} pages", seen.len());
}

/// The open shard is listed, and [`summary`](StreamSource::summary) names the same epoch.
///
/// # Panics
/// If the source does not pass.
pub async fn a_listing_has_the_open_shard_and_agrees_with_the_summary(case: &impl StreamCase) {
    let source = case.source();
    let shard = only_shard(&*source).await;
    let listing = source.shards().await.unwrap();
    assert!(!listing.epoch.is_empty(), "an epoch tells this stream from its predecessors");
    if let Some(summary) = source.summary().await.unwrap() {
        assert_eq!(summary.epoch, listing.epoch);
        assert!(summary.open_shards.is_none_or(|open| open == 1), "{summary:?}");
    }
    assert!(!source.describe().is_empty());
    case.close(&shard).await;
    let listing = source.shards().await.unwrap();
    let closed = listing.shards.iter().find(|listed| listed.id == shard);
    assert!(closed.is_none_or(|listed| !listed.open), "{listing:?}");
    let children = listing.shards.iter().filter(|listed| listed.parents.contains(&shard)).count();
    assert!(children > 0, "what follows names its parent: {listing:?}");
}

/// # Panics
/// If the source does not pass.
pub async fn records_come_in_order_once_and_no_more_than_asked_for(case: &impl StreamCase) {
    let source = case.source();
    let shard = only_shard(&*source).await;
    let written = case.write(7).await;
    let mut reader = source.open(&shard, &Position::TrimHorizon).await.unwrap();
    let (seen, _) = read(&mut *reader, 7, 3).await;
    assert_eq!(seen, written);
    let later = case.write(2).await;
    let (seen, page) = read(&mut *reader, 2, 100).await;
    assert_eq!(seen, later, "a reader continues at its position");
    assert!(!page.end_of_shard);
}

/// # Panics
/// If the source does not pass.
pub async fn each_position_begins_where_it_says(case: &impl StreamCase) {
    let source = case.source();
    let shard = only_shard(&*source).await;
    let written = case.write(3).await;
    let second = Seq::plain(written[1].as_str());
    for (at, expected) in [
        (Position::TrimHorizon, &written[..]),
        (Position::At(second.clone()), &written[1..]),
        (Position::After(second), &written[2..]),
    ] {
        let mut reader = source.open(&shard, &at).await.unwrap();
        let (seen, _) = read(&mut *reader, expected.len(), 100).await;
        assert_eq!(seen, expected, "{at}");
    }
    let mut reader = source.open(&shard, &Position::Latest).await.unwrap();
    let page = reader.next_page(100).await.unwrap();
    assert!(page.records.is_empty(), "nothing was written since: {page:?}");
    let later = case.write(1).await;
    assert_eq!(read(&mut *reader, 1, 100).await.0, later);
}

/// # Panics
/// If the source does not pass.
pub async fn a_closed_shard_ends_once_everything_was_read_and_names_what_follows(case: &impl StreamCase) {
    let source = case.source();
    let shard = only_shard(&*source).await;
    let written = case.write(5).await;
    case.close(&shard).await;
    let mut reader = source.open(&shard, &Position::TrimHorizon).await.unwrap();
    let (seen, last) = read(&mut *reader, usize::MAX, 100).await;
    assert_eq!(seen, written, "before its end");
    assert!(last.end_of_shard);
    let listing = source.shards().await.unwrap();
    let listed: BTreeSet<_> = listing.shards.iter().map(|listed| &listed.id).collect();
    for child in &last.children {
        assert!(listed.contains(&child.id) && child.parents.contains(&shard), "{child:?}");
    }
    let mut finished = source.open(&shard, &Position::ShardEnd).await.unwrap();
    let page = finished.next_page(100).await.unwrap();
    assert!(page.end_of_shard && page.records.is_empty(), "{page:?}");
}

/// # Panics
/// If the source does not pass.
pub async fn a_shard_that_never_was_is_not_found(case: &impl StreamCase) {
    let source = case.source();
    let shard = ShardId::from("shardId-00000000000000000000-ffffffff");
    // Opening costs no read: the first page says it.
    let mut reader = source.open(&shard, &Position::TrimHorizon).await.unwrap();
    let error = reader.next_page(1).await.unwrap_err();
    assert!(matches!(error.kind, SourceErrorKind::NotFound | SourceErrorKind::Rejected), "{error}");
    assert!(!error.message.is_empty());
}

/// # Panics
/// If the source does not pass.
pub async fn one_worker_may_attach_a_source_again_and_another_only_when_it_is_gone(case: &impl StreamCase) {
    let source = case.source();
    let context = || SourceContext::new(ServiceClock::new(), ReadLimiter::new());
    let (one, other) = (context(), context());
    source.attach(&one).unwrap();
    source.attach(&one).unwrap();
    // A source that follows no clock and no pace has nothing to refuse.
    if source.clock().is_some() {
        let error = source.attach(&other).unwrap_err();
        assert!(!error.message.is_empty());
        drop(one);
        source.attach(&other).unwrap();
    }
    only_shard(&*source).await;
}
