//! The smallest consumer: a closure sees every record of a stream, in order per shard.
//!
//! `cargo run -p shardmill-examples --example hello`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shardmill::checkpoint::MemoryStore;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, EventSourceMapping, InvokeContext, KinesisSource,
};
use shardmill_examples::{Failure, LocalStream, log_warnings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    log_warnings();
    let stream = LocalStream::create("greetings", 2).await?;
    for name in ["Ada", "Grace", "Barbara", "Frances", "Radia"] {
        stream.put(name, format!("hello {name}")).await?;
    }

    let mapping = EventSourceMapping::builder(&stream.arn, "hello").build()?;
    let source = KinesisSource::new(&stream.aws, &stream.arn)?;
    let shutdown = CancellationToken::new();
    let seen = Arc::new(AtomicUsize::new(0));

    let handler = {
        let (seen, shutdown) = (Arc::clone(&seen), shutdown.clone());
        move |batch: Batch, cx: InvokeContext| {
            for record in batch.records() {
                let data = record.bytes().unwrap_or_default();
                println!("{}: {}", cx.shard, String::from_utf8_lossy(&data));
            }
            if seen.fetch_add(batch.len(), Ordering::Relaxed) + batch.len() == 5 {
                shutdown.cancel();
            }
            async { BatchResponse::success() }
        }
    };

    // A service keeps its checkpoints: `SqliteStore::open("shardmill.db", mapping.identity())?`.
    let consumer = Consumer::builder(mapping, source, handler).lease_store(MemoryStore::default()).build()?;
    consumer.run(shutdown).await?;
    assert_eq!(seen.load(Ordering::Relaxed), 5, "every record was seen once");
    Ok(())
}
