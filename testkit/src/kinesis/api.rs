//! The operations: JSON in, JSON out, over the pure state.

use super::input::{Entry, Input, required};
use super::listing;
use super::reading;
use super::state::{Stream, World};
use crate::service::{FakeError, Operation, Shape};
use bytes::Bytes;
use serde_json::{Value, json};

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
