//! The operations: JSON in, JSON out, over the pure state.

use super::state::{Shard, Stream, World, counter_of, sequence};
use crate::service::{FakeError, Operation, Shape};
use serde::Deserialize;
use serde_json::{Value, json};

/// The most that one page carries.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_RECORDS: i64 = 1_000;

/// The parameters of all operations; each one reads what it knows.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Input {
    stream_arn: Option<String>,
    table_name: Option<String>,
    shard_id: Option<String>,
    shard_iterator: Option<String>,
    shard_iterator_type: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<f64>,
    limit: Option<i64>,
    exclusive_start_shard_id: Option<String>,
    shard_filter: Option<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    shard_id: Option<String>,
}

/// A place in a shard and the time at which it was given out; opaque text on the wire.
#[derive(Debug, Clone)]
struct Iterator {
    arn: String,
    shard: String,
    counter: u64,
    issued_ms: u64,
}

impl Iterator {
    fn encode(&self) -> String {
        let Self { arn, shard, counter, issued_ms } = self;
        let place = base64_simd::STANDARD.encode_to_string(format!("{shard}|{counter}|{issued_ms}"));
        format!("{arn}|1|{place}")
    }

    fn decode(text: &str) -> Option<Self> {
        let (arn, place) = text.split_once("|1|")?;
        let place = String::from_utf8(base64_simd::STANDARD.decode_to_vec(place).ok()?).ok()?;
        let mut parts = place.split('|');
        let (shard, counter, issued) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            arn: arn.to_owned(),
            shard: shard.to_owned(),
            counter: counter.parse().ok()?,
            issued_ms: issued.parse().ok()?,
        })
    }
}

impl Input {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, FakeError> {
        serde_json::from_slice(body).map_err(|e| FakeError::new("SerializationException", e.to_string()))
    }

    /// The shard a call is about, as far as its parameters show it.
    pub(crate) fn shard(&self) -> Option<String> {
        let of_iterator = || Iterator::decode(self.shard_iterator.as_deref()?).map(|i| i.shard);
        let of_filter = || self.shard_filter.as_ref()?.shard_id.clone();
        self.shard_id.clone().or_else(of_iterator).or_else(of_filter)
    }
}

fn invalid(message: impl Into<String>) -> FakeError {
    FakeError::new("ValidationException", message)
}

fn required<'a>(value: Option<&'a str>, name: &str) -> Result<&'a str, FakeError> {
    value.ok_or_else(|| invalid(format!("{name} must not be null.")))
}

/// Carries out one operation.
pub(crate) fn perform(
    world: &mut World,
    operation: Operation,
    input: &Input,
    now_ms: u64,
    shape: &Shape,
) -> Result<Value, FakeError> {
    match operation {
        Operation::DescribeStream => describe_stream(world, input, shape),
        Operation::GetShardIterator => get_shard_iterator(world, input, now_ms),
        Operation::GetRecords => get_records(world, input, now_ms, shape),
        Operation::ListStreams => Ok(list_streams(world, input)),
        other => {
            Err(FakeError::new("UnknownOperationException", format!("{other} is no operation of this fake.")))
        }
    }
}

fn list_streams(world: &World, input: &Input) -> Value {
    let wanted = |stream: &&Stream| input.table_name.as_ref().is_none_or(|table| *table == stream.table);
    let streams = world.streams.values().filter(wanted).map(
        |stream| json!({"StreamArn": stream.arn, "TableName": stream.table, "StreamLabel": stream.label}),
    );
    json!({"Streams": streams.collect::<Vec<_>>()})
}

fn describe_stream(world: &mut World, input: &Input, shape: &Shape) -> Result<Value, FakeError> {
    let limit = input.limit.unwrap_or(100);
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=100).contains(limit));
    let limit = limit.ok_or_else(|| invalid("Limit must be between 1 and 100."))?.min(world.list_page_size);
    let shows_ends = world.shows_ends;
    let stream = world.stream(required(input.stream_arn.as_deref(), "StreamArn")?)?;
    let after = match &input.exclusive_start_shard_id {
        None => 0,
        Some(id) => stream.shards.iter().position(|shard| shard.id == *id).map_or(0, |index| index + 1),
    };
    let child_of = match &input.shard_filter {
        None => None,
        Some(filter) => Some(required(filter.shard_id.as_deref(), "ShardFilter.ShardId")?),
    };
    let is_omitted = |shard: &Shard| {
        let child = |parents: &[String]| shard.parent.as_ref().is_some_and(|p| parents.contains(p));
        shape.omit.contains(&shard.id) || child(&shape.omit_children_of)
    };
    let listed = stream.shards.iter().skip(after).filter(|shard| {
        let is_wanted = child_of.is_none_or(|parent| shard.parent.as_deref() == Some(parent));
        is_wanted && !shard.forgotten && !is_omitted(shard)
    });
    let mut listed: Vec<&Shard> = listed.take(limit + 1).collect();
    let goes_on = listed.len() > limit;
    listed.truncate(limit);
    let mut description = json!({
        "StreamArn": stream.arn,
        "StreamLabel": stream.label,
        "StreamStatus": stream.status.name(),
        "StreamViewType": "NEW_AND_OLD_IMAGES",
        "CreationRequestDateTime": stream.created_ms / 1_000,
        "TableName": stream.table,
        "Shards": listed.iter().map(|shard| shard_json(shard, shows_ends)).collect::<Vec<_>>(),
    });
    if let Some(last) = listed.last().filter(|_| goes_on) {
        description["LastEvaluatedShardId"] = json!(last.id);
    }
    Ok(json!({"StreamDescription": description}))
}

fn shard_json(shard: &Shard, shows_end: bool) -> Value {
    let mut range = json!({"StartingSequenceNumber": sequence(shard.start)});
    if let Some(end) = shard.end.filter(|_| shows_end) {
        range["EndingSequenceNumber"] = json!(sequence(end));
    }
    let mut value = json!({"ShardId": shard.id, "SequenceNumberRange": range});
    if let Some(parent) = &shard.parent {
        value["ParentShardId"] = json!(parent);
    }
    value
}

fn get_shard_iterator(world: &mut World, input: &Input, now_ms: u64) -> Result<Value, FakeError> {
    let (last, knows_time) = (world.last_counter(), world.knows_at_timestamp);
    let arn = required(input.stream_arn.as_deref(), "StreamArn")?.to_owned();
    let shard = world.stream(&arn)?.shard(required(input.shard_id.as_deref(), "ShardId")?)?;
    let number = || counter_of(required(input.sequence_number.as_deref(), "SequenceNumber")?);
    let kept = &shard.changes[shard.first..];
    let counter = match required(input.shard_iterator_type.as_deref(), "ShardIteratorType")? {
        "TRIM_HORIZON" => kept.first().map_or(last + 1, |change| change.counter),
        "LATEST" => last + 1,
        "AT_SEQUENCE_NUMBER" => number()?,
        "AFTER_SEQUENCE_NUMBER" => number()? + 1,
        "AT_TIMESTAMP" if !knows_time => {
            return Err(FakeError::new("InternalFailure", "The request processing has failed."));
        }
        "AT_TIMESTAMP" => {
            let at = input.timestamp.ok_or_else(|| invalid("Timestamp must not be null."))?;
            #[expect(clippy::cast_precision_loss, reason = "times stay far below 2^53 ms")]
            let seconds = |ms: u64| (ms / 1_000) as f64;
            if at > seconds(now_ms) + 1.0 {
                return Err(invalid("Timestamp must not be in the future."));
            }
            kept.iter().find(|c| seconds(c.created_ms) >= at).map_or(last + 1, |change| change.counter)
        }
        other => return Err(invalid(format!("ShardIteratorType {other} is unknown."))),
    };
    check_trimmed(shard, counter)?;
    let iterator = Iterator { arn, shard: shard.id.clone(), counter, issued_ms: now_ms };
    Ok(json!({"ShardIterator": iterator.encode()}))
}

/// A place before what was trimmed is refused.
fn check_trimmed(shard: &Shard, counter: u64) -> Result<(), FakeError> {
    match shard.index_from(counter) < shard.first {
        false => Ok(()),
        true => Err(FakeError::new(
            "TrimmedDataAccessException",
            format!("The operation attempted to read past the oldest stream record of shard {}.", shard.id),
        )),
    }
}

fn get_records(world: &mut World, input: &Input, now_ms: u64, shape: &Shape) -> Result<Value, FakeError> {
    let limit = input.limit.unwrap_or(PAGE_RECORDS);
    let limit = usize::try_from(limit).ok().filter(|_| (1..=PAGE_RECORDS).contains(&limit));
    let limit = limit.ok_or_else(|| invalid("Limit must be between 1 and 1000."))?;
    let text = required(input.shard_iterator.as_deref(), "ShardIterator")?;
    let iterator = Iterator::decode(text).ok_or_else(|| invalid("Invalid ShardIterator"))?;
    if now_ms > iterator.issued_ms.saturating_add(world.iterator_lifetime_ms) {
        return Err(FakeError::new("ExpiredIteratorException", "The shard iterator has expired."));
    }
    let shard = world.stream(&iterator.arn)?.shard(&iterator.shard)?;
    check_trimmed(shard, iterator.counter)?;
    let (mut records, mut bytes, mut next) = (Vec::new(), 0, iterator.counter);
    for change in &shard.changes[shard.index_from(iterator.counter)..] {
        let record = change.json();
        bytes += record.to_string().len();
        if records.len() == limit.min(shape.max_records.unwrap_or(limit))
            || (bytes > PAGE_BYTES && !records.is_empty())
        {
            break;
        }
        next = change.counter + 1;
        records.push(record);
    }
    let mut answer = json!({"Records": records});
    let has_ended = shard.end.is_some() && shard.index_from(next) == shard.changes.len();
    if !has_ended && !shape.null_iterator {
        answer["NextShardIterator"] =
            json!(Iterator { counter: next, issued_ms: now_ms, ..iterator }.encode());
    }
    Ok(answer)
}
