//! I13 by what the operating system says: a process of its own, so that nothing else counts.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shardmill::checkpoint::MemoryStore;
use shardmill::engine::Page;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, Data, EventSourceMapping, HandlerError, InvokeContext,
    Position, Record, Seq, Shard, ShardId, ShardListing, ShardReader, SourceError, StreamSource, Worker,
    WorkerOptions,
};

const MIB: usize = 1 << 20;
const BUDGET: usize = 64 * MIB;
const SHARDS: usize = 40;
/// A page is 7.5 MB, all of them are 300.
const RECORDS: u64 = 100;
const RECORD: usize = 75_000;

/// Shards of one page each; a shard's page comes once the shards before it are stuck, so that no more than one page is
/// read at a time.
#[derive(Clone)]
struct InTurn {
    stuck: Arc<AtomicUsize>,
}

struct Reader {
    source: InTurn,
    index: usize,
    is_read: bool,
}

fn name(index: usize) -> ShardId {
    ShardId::new(format!("shardId-{index:012}"))
}

#[async_trait]
impl StreamSource for InTurn {
    async fn shards(&self) -> Result<ShardListing, SourceError> {
        let listed = |index| Shard::new(name(index), Vec::new());
        Ok(ShardListing::new("1", (0..SHARDS).map(listed).collect()))
    }

    async fn open(&self, shard: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let index = (0..SHARDS).find(|index| name(*index) == *shard).unwrap();
        Ok(Box::new(Reader { source: self.clone(), index, is_read: false }))
    }

    fn describe(&self) -> String {
        "stream in memory".into()
    }
}

#[async_trait]
impl ShardReader for Reader {
    async fn next_page(&mut self, _: usize) -> Result<Page, SourceError> {
        while self.source.stuck.load(Ordering::Relaxed) < self.index {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if std::mem::replace(&mut self.is_read, true) {
            return Ok(Page::default().millis_behind(0));
        }
        let record = |n: u64| {
            Record::new(
                Seq::plain(n.to_string()),
                Some("k".into()),
                None,
                Data::Raw(Bytes::from(vec![7; RECORD])),
            )
        };
        Ok(Page::new((1..=RECORDS).map(record).collect()))
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn incident_75_forty_stuck_pages_stay_within_the_budget_by_resident_memory() {
    let source = InTurn { stuck: Arc::default() };
    let stuck = Arc::clone(&source.stuck);
    let handler = move |batch: Batch, cx: InvokeContext| {
        let stuck = Arc::clone(&stuck);
        async move {
            if batch.len() == 1 {
                // Another one is stuck permanently; its event is made each time.
                let event = cx.event(&batch);
                stuck.fetch_add(usize::from(cx.attempt == 1 && !event.is_empty()), Ordering::Relaxed);
            }
            Ok::<_, HandlerError>(BatchResponse::failed([RECORDS.to_string()]))
        }
    };
    let mapping = EventSourceMapping::builder("arn:aws:kinesis:us-east-1:000000000000:stream/orders", "f")
        .batch_size(10_000)
        .report_batch_item_failures(true)
        .build()
        .unwrap();
    let worker = Worker::start(WorkerOptions::default().buffer_bytes(BUDGET)).unwrap();
    let consumer = Consumer::builder(mapping, source.clone(), handler)
        .lease_store(MemoryStore::new())
        .worker(worker)
        .build()
        .unwrap();
    let (status, stop) = (consumer.status(), CancellationToken::new());
    let run = tokio::spawn(consumer.run(stop.clone()));
    for _ in 0..4_000 {
        if source.stuck.load(Ordering::Relaxed) >= SHARDS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(source.stuck.load(Ordering::Relaxed), SHARDS);
    let resident = resident();
    assert!(resident <= BUDGET * 13 / 10 + 60 * MIB, "{} MiB", resident / MIB);
    let shards = status.report().shards;
    let snapshots = || shards.iter().filter_map(|shard| shard.snapshot.as_ref());
    let counted: usize = snapshots().map(|snapshot| snapshot.buffered_bytes).sum();
    assert_eq!(snapshots().map(|snapshot| snapshot.buffered_records).sum::<usize>(), SHARDS);
    assert!((SHARDS * RECORD..SHARDS * RECORD * 3).contains(&counted), "{counted} bytes are counted");
    stop.cancel();
    run.await.unwrap().unwrap();
}
