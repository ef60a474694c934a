//! A stream for a whole consumer: so many shards, each with records without end.

use async_trait::async_trait;
use shardmill::engine::Page;
use shardmill::{
    Data, Position, Record, Seq, Shard, ShardId, ShardListing, ShardReader, SourceError, StreamSource,
};

/// A stream of so many shards.
pub(super) struct Shards(pub(super) usize);

struct Reader(u64);

#[async_trait]
impl StreamSource for Shards {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        let shard = |n: usize| Shard::new(ShardId::new(format!("shardId-{n:012}")), Vec::new());
        Ok(ShardListing::new("1", (0..self.0).map(shard).collect()))
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(Reader(0)))
    }

    fn describe(&self) -> String {
        "a stream without end".into()
    }
}

#[async_trait]
impl ShardReader for Reader {
    async fn next_page(&mut self, _: usize) -> Result<Page, SourceError> {
        let next = self.0..self.0 + 10;
        self.0 += 10;
        let record = |n: u64| {
            Record::new(Seq::plain((n + 1).to_string()), Some("key".into()), None, Data::Raw("record".into()))
        };
        Ok(Page::new(next.map(record).collect()).millis_behind(0))
    }
}
