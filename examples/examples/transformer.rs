//! The serverless transformer, without the serverless: stream -> transform -> table write -> alert on trouble.
//!
//! Temperature readings come in; each is converted and written under its sensor's key, so that a batch that comes twice
//! writes the same items again. A reading that cannot be understood is alerted about, then discarded.
//!
//! `cargo run -p shardmill-examples --example transformer`
//!
//! The table is in memory and alerts are printed. With `--features aws`, `TABLE=name` writes to that DynamoDB table
//! and `TOPIC=arn` publishes to that SNS topic, with the AWS SDK's usual environment (`AWS_ENDPOINT_URL` for an
//! emulator).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shardmill::checkpoint::MemoryStore;
use shardmill::{
    Batch, CancellationToken, Consumer, Destination, DestinationError, Discarded, EventSourceMapping,
    Handler, HandlerError, InvokeContext, KinesisSource, Record,
};
use shardmill_examples::LocalStream;

#[derive(Debug, Deserialize)]
struct Reading {
    sensor: String,
    fahrenheit: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Item {
    sensor: String,
    celsius: f64,
}

/// Where items go.
#[derive(Clone)]
enum Table {
    Memory(Arc<Mutex<BTreeMap<String, Item>>>),
    #[cfg(feature = "aws")]
    DynamoDb(aws_sdk_dynamodb::Client, String),
}

/// Where alerts go.
enum Alerts {
    Printed(Arc<Mutex<Vec<String>>>),
    #[cfg(feature = "aws")]
    Sns(aws_sdk_sns::Client, String),
}

#[tokio::main]
async fn main() -> Result<(), shardmill_examples::Failure> {
    shardmill_examples::log_warnings();
    let stream = LocalStream::create("readings", 2).await?;
    for (sensor, value) in [("attic", "86"), ("cellar", "50"), ("garden", "\"broken\""), ("kitchen", "68")] {
        stream.put(sensor, format!(r#"{{"sensor":"{sensor}","fahrenheit":{value}}}"#)).await?;
    }
    let (items, alerted) = (Arc::default(), Arc::default());
    let (table, alerts) = sinks(&items, &alerted).await;

    let mapping = EventSourceMapping::builder(&stream.arn, "transformer")
        .maximum_retry_attempts(1)
        .bisect_batch_on_function_error(true)
        .build()?;
    let source = KinesisSource::new(&stream.aws, &stream.arn)?;
    let consumer = Consumer::builder(mapping, source, transformer(table))
        .lease_store(MemoryStore::default())
        .on_failure(alerts)
        .build()?;
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(consumer.run(shutdown.clone()));
    let in_memory = std::env::var("TABLE").is_err() && std::env::var("TOPIC").is_err();
    let finished = || locked(&items).len() == 3 && locked(&alerted).len() == 1;
    for _ in 0..100 {
        if in_memory && finished() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shutdown.cancel();
    run.await??;
    if in_memory {
        for item in locked(&items).values() {
            println!("{}: {:.1} °C", item.sensor, item.celsius);
        }
        assert!(finished(), "three items and one alert: {:?} {:?}", locked(&items), locked(&alerted));
    }
    Ok(())
}

/// Transforms each record and writes it; the first that fails, fails the batch, which is then bisected down to it.
fn transformer(table: Table) -> impl Handler {
    move |batch: Batch, _: InvokeContext| {
        let table = table.clone();
        async move {
            for record in batch.records() {
                table.put(transform(record)?).await?;
            }
            Ok::<_, HandlerError>(())
        }
    }
}

fn transform(record: &Record) -> Result<Item, HandlerError> {
    let reading: Reading = record.json()?;
    Ok(Item { celsius: (reading.fahrenheit - 32.0) / 1.8, sensor: reading.sensor })
}

impl Table {
    async fn put(&self, item: Item) -> Result<(), HandlerError> {
        match self {
            Self::Memory(items) => {
                locked(items).insert(item.sensor.clone(), item);
                Ok(())
            }
            #[cfg(feature = "aws")]
            Self::DynamoDb(client, table) => {
                use aws_sdk_dynamodb::types::AttributeValue;
                let put = client.put_item().table_name(table).item("sensor", AttributeValue::S(item.sensor));
                let put = put.item("celsius", AttributeValue::N(item.celsius.to_string()));
                put.send().await?;
                Ok(())
            }
        }
    }
}

impl Alerts {
    async fn send(&self, text: String) -> Result<(), DestinationError> {
        match self {
            Self::Printed(alerted) => {
                println!("ALERT {text}");
                locked(alerted).push(text);
                Ok(())
            }
            #[cfg(feature = "aws")]
            Self::Sns(client, topic) => {
                let sent = client.publish().topic_arn(topic).message(text).send().await;
                sent.map(drop)
                    .map_err(|error| DestinationError::new("the topic took no alert").with_source(error))
            }
        }
    }
}

/// A custom destination: once it returns `Ok`, the checkpoint may pass the batch.
#[async_trait]
impl Destination for Alerts {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        self.send(discarded.message()).await
    }

    fn describe(&self) -> String {
        "alerts".to_owned()
    }
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "the other variant loads the SDK's configuration")]
async fn sinks(
    items: &Arc<Mutex<BTreeMap<String, Item>>>,
    alerted: &Arc<Mutex<Vec<String>>>,
) -> (Table, Alerts) {
    (Table::Memory(Arc::clone(items)), Alerts::Printed(Arc::clone(alerted)))
}

#[cfg(feature = "aws")]
async fn sinks(
    items: &Arc<Mutex<BTreeMap<String, Item>>>,
    alerted: &Arc<Mutex<Vec<String>>>,
) -> (Table, Alerts) {
    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let table = match std::env::var("TABLE") {
        Ok(name) => Table::DynamoDb(aws_sdk_dynamodb::Client::new(&aws), name),
        Err(_) => Table::Memory(Arc::clone(items)),
    };
    let alerts = match std::env::var("TOPIC") {
        Ok(topic) => Alerts::Sns(aws_sdk_sns::Client::new(&aws), topic),
        Err(_) => Alerts::Printed(Arc::clone(alerted)),
    };
    (table, alerts)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
