//! The changes of a DynamoDB table: what was written, what it was before, what was removed.
//!
//! `cargo run -p shardmill-examples --example dynamodb`
//!
//! The table is one in memory, behind the real SDK client.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use shardmill::checkpoint::MemoryStore;
use shardmill::{
    Batch, CancellationToken, Consumer, DynamoDbSource, EventSourceMapping, Handler, HandlerError,
    InvokeContext, Record,
};
use shardmill_examples::{Failure, log_warnings};
use shardmill_testkit::FakeDynamoDbStreams;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    log_warnings();
    let tables = FakeDynamoDbStreams::new();
    let stream_arn = tables.create_table("orders", &["id"], 1)?;
    tables.put_item("orders", &json!({"id": {"S": "7"}, "total": {"N": "10"}}))?;
    tables.put_item("orders", &json!({"id": {"S": "7"}, "total": {"N": "12"}}))?;
    tables.delete_item("orders", &json!({"id": {"S": "7"}}))?;

    let mapping = EventSourceMapping::builder(&stream_arn, "orders-history").build()?;
    // In a service of your own: aws_config::load_from_env().await
    let source = DynamoDbSource::new(&tables.sdk_config(), &stream_arn)?;
    let (shutdown, history) = (CancellationToken::new(), Arc::default());
    let handler = handler(Arc::clone(&history), shutdown.clone());
    let consumer = Consumer::builder(mapping, source, handler).lease_store(MemoryStore::default()).build()?;
    consumer.run(shutdown).await?;

    let history = history.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*history, ["INSERT 7: - -> 10", "MODIFY 7: 10 -> 12", "REMOVE 7: 12 -> -"]);
    Ok(())
}

/// Notes one line for each change, and ends the run after the third.
fn handler(history: Arc<Mutex<Vec<String>>>, shutdown: CancellationToken) -> impl Handler {
    move |batch: Batch, _: InvokeContext| {
        let (history, shutdown) = (Arc::clone(&history), shutdown.clone());
        async move {
            let lines = batch.records().iter().map(line).collect::<Result<Vec<_>, _>>()?;
            let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
            for line in lines {
                println!("{line}");
                history.push(line);
            }
            if history.len() == 3 {
                shutdown.cancel();
            }
            Ok::<_, HandlerError>(())
        }
    }
}

fn line(record: &Record) -> Result<String, HandlerError> {
    let change = record.change().ok_or_else(|| HandlerError::function("not from a DynamoDB stream"))?;
    let total = |image: Option<Value>| match image {
        // Attributes are in DynamoDB's JSON, numbers as text.
        Some(item) => item["total"]["N"].as_str().unwrap_or("?").to_owned(),
        None => "-".to_owned(),
    };
    let keys = change.keys().unwrap_or_default();
    let (name, id) = (change.event_name().unwrap_or("?"), keys["id"]["S"].as_str().unwrap_or("?"));
    Ok(format!("{name} {id}: {} -> {}", total(change.old_image()), total(change.new_image())))
}
