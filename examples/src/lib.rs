//! What the examples share: a Kinesis stream on this host, so that none of them needs an AWS account.
//!
//! In a service of your own this crate's place is taken by `aws_config::load_from_env()` and a real stream's ARN.

use std::error::Error;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::StreamStatus;
use ferrokinesis::store::StoreOptions;

/// Anything that can go wrong in an example.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A stream in an emulator inside this process.
#[derive(Debug)]
pub struct LocalStream {
    /// Where to find it: what `aws_config::load_from_env()` gives in a real service.
    pub aws: SdkConfig,
    /// Its ARN.
    pub arn: String,
    client: Client,
}

impl LocalStream {
    /// Starts an emulator on a free loopback port and creates a stream.
    ///
    /// # Errors
    /// The emulator cannot listen or refuses the stream.
    pub async fn create(name: &str, shards: i32) -> Result<Self, Failure> {
        let (app, _) =
            ferrokinesis::create_app(StoreOptions { create_stream_ms: 0, ..StoreOptions::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, app).await });
        let credentials = Credentials::new("local", "local", None, None, "example");
        let aws = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(endpoint)
            .build();
        let client = Client::new(&aws);
        client.create_stream().stream_name(name).shard_count(shards).send().await?;
        loop {
            let summary = client.describe_stream_summary().stream_name(name).send().await?;
            if let Some(stream) = summary.stream_description_summary()
                && *stream.stream_status() == StreamStatus::Active
            {
                return Ok(Self { aws, arn: stream.stream_arn().to_owned(), client });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Puts one record.
    ///
    /// # Errors
    /// The emulator refuses it.
    pub async fn put(&self, key: &str, data: impl AsRef<[u8]>) -> Result<(), Failure> {
        let put = self.client.put_record().stream_name(self.name()).partition_key(key);
        put.data(Blob::new(data.as_ref())).send().await?;
        Ok(())
    }

    fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }
}

/// Warnings and errors on standard error.
pub fn log_warnings() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
}
