//! One poison record among good ones: the handler names it, the records before it are done, the ones after it are
//! bisected away from it, and it ends in a dead-letter file.
//!
//! `cargo run -p shardmill-examples --example partial_failures`

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardmill::checkpoint::SqliteStore;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, EventSourceMapping, HandlerError, InvokeContext,
    KinesisSource,
};
use shardmill_examples::{Failure, LocalStream, log_warnings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    log_warnings();
    let folder = tempfile::tempdir()?;
    let dead_letters = folder.path().join("dead-letters.jsonl");
    let stream = LocalStream::create("orders", 1).await?;
    for number in 1..=8 {
        let order =
            if number == 5 { "this is no order".to_owned() } else { format!(r#"{{"order":{number}}}"#) };
        stream.put("customer-1", order).await?;
    }

    let mapping = EventSourceMapping::builder(&stream.arn, "orders-worker")
        .maximum_retry_attempts(1)
        .bisect_batch_on_function_error(true)
        .report_batch_item_failures(true)
        .on_failure_destination(format!("file:{}", dead_letters.display()))
        .build()?;
    let store = SqliteStore::open(folder.path().join("shardmill.db"), mapping.identity())?;
    let source = KinesisSource::new(&stream.aws, &stream.arn)?;
    let done = Arc::new(Mutex::new(Vec::new()));
    let handler = handler(Arc::clone(&done));
    let consumer = Consumer::builder(mapping, source, handler)
        .lease_store(store)
        .on_failure_from(&stream.aws)
        .build()?;

    let shutdown = CancellationToken::new();
    let run = tokio::spawn(consumer.run(shutdown.clone()));
    while done.lock().map_err(|e| e.to_string())?.len() < 7 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    run.await??;

    println!("\ndead letter:\n{}", std::fs::read_to_string(&dead_letters)?);
    assert_eq!(
        *done.lock().map_err(|e| e.to_string())?,
        [1, 2, 3, 4, 6, 7, 8],
        "in order, without the poison record"
    );
    assert_eq!(std::fs::read_to_string(&dead_letters)?.lines().count(), 1);
    Ok(())
}

/// Processes orders one by one and stops at the first that it cannot read: it and everything after it is redelivered.
fn handler(done: Arc<Mutex<Vec<u64>>>) -> impl shardmill::Handler {
    move |batch: Batch, cx: InvokeContext| {
        let done = Arc::clone(&done);
        async move {
            println!("attempt {}: {} records", cx.attempt, batch.len());
            for record in batch.records() {
                let order: Result<serde_json::Value, _> = record.json();
                match order.ok().and_then(|order| order["order"].as_u64()) {
                    Some(number) => {
                        done.lock().map_err(|error| HandlerError::function(error.to_string()))?.push(number);
                    }
                    None => return Ok(BatchResponse::failed([record.seq.number.as_str()])),
                }
            }
            Ok::<_, HandlerError>(BatchResponse::success())
        }
    }
}
