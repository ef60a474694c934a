//! The operations: JSON in, JSON out, over the pure state.

use super::Operation;
use super::listing;
use super::reading;
use super::state::{FakeError, Stream, StreamKey, World};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// How faults bend the answer of an operation that is otherwise carried out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// At most so many records on the page.
    pub max_records: Option<usize>,
    /// No `NextShardIterator` and no `ChildShards`, regardless of the reader's position.
    pub null_iterator: bool,
    /// Shards that a listing leaves out.
    pub omit: Vec<String>,
    /// Parents whose children a listing leaves out.
    pub omit_children_of: Vec<String>,
}

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

    /// The shard a call is about, as far as its parameters show it.
    pub(crate) fn shard(&self, world: &mut World, now_ms: u64) -> Option<String> {
        if let Some(iterator) = &self.shard_iterator {
            let iterator = reading::Iterator::decode(iterator).ok()?;
            let stream = world.stream_by_epoch(iterator.epoch, now_ms).ok()?;
            return stream.shards.get(iterator.shard).map(|s| s.id.clone());
        }
        self.shard_id.clone().or_else(|| self.shard_to_split.clone()).or_else(|| self.shard_to_merge.clone())
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

/// Carries out one operation. The answer is the response body, possibly empty.
pub(crate) fn perform(
    world: &mut World,
    operation: Operation,
    input: &Input,
    now_ms: u64,
    shape: &Shape,
) -> Result<Bytes, FakeError> {
    let answer = match operation {
        Operation::GetRecords => return reading::get_records(world, input, now_ms, shape),
        Operation::GetShardIterator => reading::get_shard_iterator(world, input, now_ms)?,
        Operation::ListShards => listing::list_shards(world, input, now_ms, shape)?,
        Operation::DescribeStream => listing::describe_stream(world, input, now_ms, shape)?,
        Operation::DescribeStreamSummary => listing::summary(world.stream(&input.key()?, now_ms)?),
        Operation::ListStreams => listing::list_streams(world, input),
        Operation::PutRecord => put_record(world.stream(&input.key()?, now_ms)?, input, now_ms)?,
        Operation::PutRecords => put_records(world.stream(&input.key()?, now_ms)?, input, now_ms)?,
        Operation::CreateStream => {
            world.create(&input.key()?.arn(), input.shard_count.unwrap_or(4), now_ms)?;
            return Ok(Bytes::new());
        }
        Operation::DeleteStream => {
            world.delete(&input.key()?)?;
            return Ok(Bytes::new());
        }
        Operation::SplitShard => {
            let at = hash(input.new_starting_hash_key.as_deref(), "NewStartingHashKey")?;
            let shard = required(input.shard_to_split.as_deref(), "ShardToSplit")?;
            let at = Some(required(at, "NewStartingHashKey")?);
            world.stream(&input.key()?, now_ms)?.split(shard, at, now_ms)?;
            return Ok(Bytes::new());
        }
        Operation::MergeShards => {
            let shard = required(input.shard_to_merge.as_deref(), "ShardToMerge")?;
            let adjacent = required(input.adjacent_shard_to_merge.as_deref(), "AdjacentShardToMerge")?;
            world.stream(&input.key()?, now_ms)?.merge(shard, adjacent, now_ms)?;
            return Ok(Bytes::new());
        }
    };
    Ok(Bytes::from(answer.to_string()))
}

fn hash(text: Option<&str>, field: &str) -> Result<Option<u128>, FakeError> {
    let number =
        |t: &str| t.parse().map_err(|_| FakeError::invalid(format!("{field} {t} is not a hash key.")));
    text.map(number).transpose()
}

/// Checks a record as the service does and appends it. Up to 10 MiB: streams may allow that.
fn put_one(
    stream: &mut Stream,
    entry: (Option<&str>, Option<&str>, Option<&str>),
    now_ms: u64,
) -> Result<Value, FakeError> {
    let (data, key, explicit) = entry;
    if key.is_some_and(|k| k.is_empty() || k.chars().count() > 256) {
        return Err(FakeError::new("ValidationException", "PartitionKey must have 1 to 256 characters."));
    }
    let data = base64_simd::STANDARD
        .decode_to_vec(required(data, "Data")?)
        .map_err(|_| FakeError::new("SerializationException", "Data is not base64."))?;
    if data.len() + key.map_or(0, str::len) > 10 << 20 {
        return Err(FakeError::new(
            "ValidationException",
            "A record may have at most 10 MiB with its partition key.",
        ));
    }
    let shard = stream.route(key, hash(explicit, "ExplicitHashKey")?)?;
    let counter = stream.append(shard, key.map(Into::into), data.into(), now_ms);
    Ok(json!({ "ShardId": stream.shards[shard].id, "SequenceNumber": stream.sequence(counter) }))
}

fn put_record(stream: &mut Stream, input: &Input, now_ms: u64) -> Result<Value, FakeError> {
    let entry = (input.data.as_deref(), input.partition_key.as_deref(), input.explicit_hash_key.as_deref());
    put_one(stream, entry, now_ms)
}

fn put_records(stream: &mut Stream, input: &Input, now_ms: u64) -> Result<Value, FakeError> {
    if !(1..=500).contains(&input.records.len()) {
        return Err(FakeError::new("ValidationException", "Records must have 1 to 500 members."));
    }
    let put = |e: &Entry| {
        put_one(
            stream,
            (e.data.as_deref(), e.partition_key.as_deref(), e.explicit_hash_key.as_deref()),
            now_ms,
        )
    };
    let records = input.records.iter().map(put).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "FailedRecordCount": 0, "Records": records }))
}
