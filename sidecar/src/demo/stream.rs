//! The stream of the demo: an emulator in this process, and the producer.

use aws_config::SdkConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, StreamStatus};
use tokio::net::TcpListener;

use super::DemoError;
use super::verdict::Accepted;

pub(super) const STREAM: &str = "orders";
const REGION: &str = "us-east-1";
/// The emulator's hash puts the first three on shard 0 and the others on shard 1.
const CUSTOMERS: [[&str; 3]; 2] = [["ben", "dora", "jon"], ["ada", "cleo", "emil"]];

/// A Kinesis emulator on a free loopback port with one stream of two shards.
pub(super) struct Stream {
    pub(super) sdk: SdkConfig,
    client: Client,
    /// What PutRecords accepted, in the order in which it was put.
    pub(super) accepted: Vec<Accepted>,
}

impl Stream {
    pub(super) async fn start() -> Result<Self, DemoError> {
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
        let client = Client::new(&sdk);
        let this = Self { sdk, client, accepted: Vec::new() };
        this.create().await?;
        Ok(this)
    }

    async fn create(&self) -> Result<(), DemoError> {
        let created = self.client.create_stream().stream_name(STREAM).shard_count(2).send().await;
        created.map_err(|error| DemoError::new("create the stream", error.into_service_error()))?;
        loop {
            let answer = self.client.describe_stream_summary().stream_name(STREAM).send().await;
            let answer =
                answer.map_err(|error| DemoError::new("see the stream", error.into_service_error()))?;
            if answer.stream_description_summary.is_some_and(|s| s.stream_status == StreamStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Puts the orders with these numbers, odd ones on shard 0, even ones on shard 1. The data of `poison` is cut off.
    pub(super) async fn put(
        &mut self,
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
        let answer = self.client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await;
        let answer = answer.map_err(|error| failed(error.into_service_error().to_string()))?;
        for ((order, data), result) in put.into_iter().zip(answer.records) {
            let (Some(shard), Some(sequence_number)) = (result.shard_id, result.sequence_number) else {
                return Err(failed(format!(
                    "order {order} was refused: {}",
                    result.error_message.unwrap_or_default()
                )));
            };
            self.accepted.push(Accepted { order, shard, sequence_number, data });
        }
        Ok(())
    }
}

/// Everything that the SDK would otherwise look for in the environment, in profiles or on the network.
fn made_up(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("demo", "demo", None, None, "shardmill demo");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        // The default client would send loopback calls to a proxy that the environment names, and wants certificates.
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}
