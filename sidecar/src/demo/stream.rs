//! The stream of the demo and its producer: a Kinesis emulator in this process, or a table of DynamoDB Local.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Builder, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamStatus};
use serde_json::json;
use tokio::net::TcpListener;

use super::DemoError;
use super::table::Table;
use super::verdict::Accepted;
use crate::assembly::sdk_defaults;

pub(super) const STREAM: &str = "orders";
const REGION: &str = "us-east-1";
/// The emulator's hash puts the first three on shard 0 and the others on shard 1.
const CUSTOMERS: [[&str; 3]; 2] = [["ben", "dora", "jon"], ["ada", "cleo", "emil"]];

/// The stream, and its producer.
pub(super) struct Stream {
    pub(super) sdk: SdkConfig,
    pub(super) arn: String,
    producer: Producer,
    /// What was accepted, in the order in which it was put.
    pub(super) accepted: Vec<Accepted>,
}

enum Producer {
    /// Two shards.
    Kinesis(Client),
    /// One shard.
    DynamoDb(Table),
}

impl Stream {
    /// A Kinesis emulator on a free loopback port with one stream of two shards.
    pub(super) async fn kinesis() -> Result<Self, DemoError> {
        let options = ferrokinesis::store::StoreOptions {
            create_stream_ms: 0,
            aws_region: REGION.to_owned(),
            ..Default::default()
        };
        let (app, _) = ferrokinesis::create_app(options);
        let failed = |error: std::io::Error| DemoError::new("start the emulator", error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        let sdk = made_up(&format!("http://{address}"));
        let client = client(&sdk);
        create(&client).await?;
        let arn = format!("arn:aws:kinesis:{REGION}:000000000000:stream/{STREAM}");
        Ok(Self { sdk, arn, producer: Producer::Kinesis(client), accepted: Vec::new() })
    }

    /// A table of this name in DynamoDB Local.
    pub(super) async fn dynamodb(endpoint: &str, table: &str) -> Result<Self, DemoError> {
        let table = Table::create(endpoint, table).await?;
        let (sdk, arn) = (made_up(endpoint), table.arn.clone());
        Ok(Self { sdk, arn, producer: Producer::DynamoDb(table), accepted: Vec::new() })
    }

    /// Deletes what outlives this process.
    pub(super) async fn remove(&self) -> Result<(), DemoError> {
        match &self.producer {
            Producer::Kinesis(_) => Ok(()),
            Producer::DynamoDb(table) => table.delete().await,
        }
    }

    /// Puts the orders with these numbers; `poison` is unreadable.
    pub(super) async fn put(
        &mut self,
        orders: std::ops::RangeInclusive<u32>,
        poison: u32,
    ) -> Result<(), DemoError> {
        match &self.producer {
            Producer::Kinesis(client) => put_records(client, &mut self.accepted, orders, poison).await,
            Producer::DynamoDb(table) => put_items(table, &mut self.accepted, orders, poison).await,
        }
    }
}

async fn create(client: &Client) -> Result<(), DemoError> {
    let created = client.create_stream().stream_name(STREAM).shard_count(2).send().await;
    created.map_err(|error| DemoError::new("create the stream", error.into_service_error()))?;
    loop {
        let answer = client.describe_stream_summary().stream_name(STREAM).send().await;
        let answer = answer.map_err(|error| DemoError::new("see the stream", error.into_service_error()))?;
        if answer.stream_description_summary.is_some_and(|s| s.stream_status == StreamStatus::Active) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Odd ones on shard 0, even ones on shard 1. The data of `poison` is cut off.
async fn put_records(
    client: &Client,
    accepted: &mut Vec<Accepted>,
    orders: std::ops::RangeInclusive<u32>,
    poison: u32,
) -> Result<(), DemoError> {
    let failed = |reason: String| DemoError::new("put the orders", reason);
    let (mut entries, mut put) = (Vec::new(), Vec::new());
    for order in orders {
        let [odd, even] = CUSTOMERS;
        let customers = if order % 2 == 1 { odd } else { even };
        let customer = customers[order as usize / 2 % customers.len()];
        let data = match order {
            _ if order == poison => format!(r#"{{"order":{order},"customer":"{customer}","tot"#),
            _ => format!(r#"{{"order":{order},"customer":"{customer}","total":{}}}"#, 10 + order % 7),
        };
        let entry = PutRecordsRequestEntry::builder().partition_key(customer);
        let entry = entry.data(Blob::new(data.as_str())).build().map_err(|e| failed(e.to_string()))?;
        entries.push(entry);
        put.push((order, data));
    }
    let answer = client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await;
    let answer = answer.map_err(|error| failed(error.into_service_error().to_string()))?;
    for ((order, data), result) in put.into_iter().zip(answer.records) {
        let (Some(shard), Some(sequence_number)) = (result.shard_id, result.sequence_number) else {
            return Err(failed(format!(
                "order {order} was refused: {}",
                result.error_message.unwrap_or_default()
            )));
        };
        accepted.push(Accepted { order, shard, sequence_number, data });
    }
    Ok(())
}

/// Each customer has one item, with the last order. The total of `poison` is no number.
async fn put_items(
    table: &Table,
    accepted: &mut Vec<Accepted>,
    orders: std::ops::RangeInclusive<u32>,
    poison: u32,
) -> Result<(), DemoError> {
    let customers = CUSTOMERS.concat();
    for order in orders {
        let customer = customers[order as usize % customers.len()];
        let total = (10 + order % 7).to_string();
        let total = if order == poison { json!({"S": "a lot"}) } else { json!({"N": total}) };
        let item = json!({"id": {"S": customer}, "order": {"N": order.to_string()}, "total": total});
        table.put(&item).await?;
        // The function does not see which shard a change comes from: there is one.
        accepted.push(Accepted {
            order,
            shard: String::new(),
            sequence_number: String::new(),
            data: item.to_string(),
        });
    }
    table.number(accepted).await
}

/// The producer's client: three attempts, each bounded.
fn client(sdk: &SdkConfig) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .read_timeout(Duration::from_secs(30))
        .build();
    let settings = Builder::from(sdk).timeout_config(timeouts);
    Client::from_conf(settings.retry_config(RetryConfig::standard().with_max_attempts(3)).build())
}

/// Everything that the SDK would otherwise look for in the environment, in profiles or on the network.
fn made_up(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("demo", "demo", None, None, "shardmill demo");
    SdkConfig::builder()
        .behavior_version(sdk_defaults())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        // The default client would send loopback calls to a proxy that the environment names, and wants certificates.
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_the_producer_has_three_bounded_attempts() {
        let client = client(&made_up("http://127.0.0.1:1"));
        let config = client.config();
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(3));
        let timeouts = config.timeout_config().unwrap();
        let set = [timeouts.connect_timeout(), timeouts.read_timeout()];
        assert_eq!(set.map(|set| set.map(|set| set.as_secs())), [Some(3), Some(30)]);
    }
}
