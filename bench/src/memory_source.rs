//! A stream in memory whose cost can be separated from that of its consumer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shardmill::{
    Data, Page, Position, Record, Seq, Shard, ShardId, ShardListing, ShardReader, SourceError, StreamSource,
};
use tokio::sync::Notify;

use crate::measure::Stopwatch;

/// Makes pages as they are asked for; then its shards are empty and stay open.
#[derive(Clone)]
pub(crate) struct MemorySource {
    shards: usize,
    pages: Pages,
    /// The first page is made only after this.
    pub(crate) start: Arc<Notify>,
    /// Notified when the first page is asked for.
    pub(crate) asked: Arc<Notify>,
    spent: Arc<Mutex<Duration>>,
}

/// What a source gives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pages {
    pub(crate) pages: u64,
    /// Records of a page.
    pub(crate) records: u64,
    /// Bytes of a record.
    pub(crate) bytes: usize,
}

impl MemorySource {
    /// A source of this many shards, each without a record.
    pub(crate) fn idle(shards: usize) -> Self {
        Self {
            shards,
            pages: Pages::default(),
            start: Arc::default(),
            asked: Arc::default(),
            spent: Arc::default(),
        }
    }

    /// A source of one shard.
    pub(crate) fn of(pages: Pages) -> Self {
        Self { pages, ..Self::idle(1) }
    }

    /// The same with this many shards, each with all of its pages.
    pub(crate) fn with_shards(self, shards: usize) -> Self {
        Self { shards, ..self }
    }

    /// The CPU time that it takes to free `pages`, none of which goes anywhere.
    pub(crate) fn freeing(pages: Pages) -> Duration {
        let mut spent = Duration::ZERO;
        for n in 0..pages.pages {
            let page = pages.make(n);
            let watch = Stopwatch::of_this_thread();
            drop(page);
            spent += watch.lap().cpu;
        }
        spent
    }

    /// The CPU time that making pages took: no part of what the consumer costs.
    pub(crate) fn spent(&self) -> Duration {
        *self.spent.lock()
    }
}

impl Pages {
    pub(crate) fn make(self, n: u64) -> Page {
        let records = (n * self.records..(n + 1) * self.records).map(|n| record(n, self.bytes)).collect();
        Page::new(records).millis_behind(60_000)
    }
}

/// A record with allocations of its own, as the SDK gives it.
fn record(n: u64, bytes: usize) -> Record {
    let seq = Seq::plain(format!("499000000000000000000000000000{n:026}"));
    let data = Data::Raw(Bytes::from(vec![n.to_le_bytes()[0]; bytes]));
    Record::new(seq, Some(format!("key-{:05}", n % 10_000)), None, data)
}

#[async_trait]
impl StreamSource for MemorySource {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        let shard = |n: usize| Shard::new(ShardId::new(format!("shardId-{n:012}")), Vec::new());
        Ok(ShardListing::new("1", (0..self.shards).map(shard).collect()))
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(MemoryReader { source: self.clone(), read: 0 }))
    }

    fn describe(&self) -> String {
        "a stream in memory".to_owned()
    }
}

struct MemoryReader {
    source: MemorySource,
    /// Pages that were handed out.
    read: u64,
}

#[async_trait]
impl ShardReader for MemoryReader {
    async fn next_page(&mut self, _limit: usize) -> Result<Page, SourceError> {
        let pages = self.source.pages;
        if self.read == pages.pages {
            return Ok(Page::default().millis_behind(0));
        }
        if self.read == 0 {
            self.source.asked.notify_one();
            self.source.start.notified().await;
        }
        let watch = Stopwatch::of_this_thread();
        let page = pages.make(self.read);
        self.read += 1;
        *self.source.spent.lock() += watch.lap().cpu;
        Ok(page)
    }
}
