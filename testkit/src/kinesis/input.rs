//! The parameters of operations.

use super::state::StreamKey;
use crate::service::FakeError;
use serde::Deserialize;
use serde_json::{Value, json};

/// The parameters of all operations; each one reads what it knows.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Input {
    pub stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    pub stream_arn: Option<String>,
    pub shard_count: Option<u32>,
    pub shard_id: Option<String>,
    pub shard_iterator: Option<String>,
    pub shard_iterator_type: Option<String>,
    pub starting_sequence_number: Option<String>,
    pub timestamp: Option<f64>,
    pub limit: Option<i64>,
    pub next_token: Option<String>,
    pub exclusive_start_shard_id: Option<String>,
    pub max_results: Option<i64>,
    pub shard_filter: Option<Filter>,
    pub exclusive_start_stream_name: Option<String>,
    pub shard_to_split: Option<String>,
    pub new_starting_hash_key: Option<String>,
    pub shard_to_merge: Option<String>,
    pub adjacent_shard_to_merge: Option<String>,
    pub data: Option<String>,
    pub partition_key: Option<String>,
    pub explicit_hash_key: Option<String>,
    pub records: Vec<Entry>,
}

/// `ShardFilter` of `ListShards`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Filter {
    #[serde(rename = "Type")]
    pub kind: String,
    pub shard_id: Option<String>,
    pub timestamp: Option<f64>,
}

/// One record of `PutRecords`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Entry {
    pub data: Option<String>,
    pub partition_key: Option<String>,
    pub explicit_hash_key: Option<String>,
}

impl Input {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, FakeError> {
        serde_json::from_slice(body).map_err(|e| FakeError::new("SerializationException", e.to_string()))
    }

    /// The stream that the name or the ARN means; both may be given if they agree.
    pub(crate) fn key(&self) -> Result<StreamKey, FakeError> {
        let named = self.stream_arn.as_deref().or(self.stream_name.as_deref());
        let key = StreamKey::parse(required(named, "StreamName")?)?;
        if self.stream_name.as_ref().is_some_and(|name| *name != key.name) {
            return Err(FakeError::invalid("StreamARN and StreamName name different streams."));
        }
        Ok(key)
    }
}

pub(crate) fn required<T>(value: Option<T>, name: &str) -> Result<T, FakeError> {
    value.ok_or_else(|| FakeError::new("ValidationException", format!("{name} must not be null.")))
}

/// A time in ms from the seconds with a fraction that the protocol carries.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped; the fraction is below 1 ms"
)]
pub(crate) fn millis(seconds: f64) -> u64 {
    (seconds * 1_000.0).round().clamp(0.0, 9e15) as u64
}

/// The other way round, kept exact in text: `1700000000.123`.
pub(crate) fn seconds(ms: u64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "times stay far below 2^53 ms")]
    let seconds = ms as f64 / 1_000.0;
    json!(seconds)
}
