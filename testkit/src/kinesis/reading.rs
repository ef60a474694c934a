//! Shard iterators and `GetRecords`.

use super::input::{Input, millis, required, seconds};
use super::listing::children;
use super::sequence::{self, Parsed};
use super::state::{Record, Stream, World};
use crate::service::{FakeError, Shape};
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The most that one page carries: data and partition keys of its records.
const PAGE_BYTES: usize = 10 << 20;

impl Input {
    /// The shard a call is about, as far as its parameters show it.
    pub(crate) fn shard(&self, world: &mut World, now_ms: u64) -> Option<String> {
        if let Some(iterator) = &self.shard_iterator {
            let iterator = Iterator::decode(iterator).ok()?;
            let stream = world.stream_by_epoch(iterator.epoch, now_ms).ok()?;
            return stream.shards.get(iterator.shard).map(|s| s.id.clone());
        }
        self.shard_id.clone().or_else(|| self.shard_to_split.clone()).or_else(|| self.shard_to_merge.clone())
    }
}

/// A place in a shard and the time at which it was given out; opaque text on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Iterator {
    pub epoch: u64,
    pub shard: usize,
    /// The next record is the first one with at least this counter.
    pub counter: u64,
    pub issued_ms: u64,
}

impl Iterator {
    pub(crate) fn encode(self) -> String {
        let Self { epoch, shard, counter, issued_ms } = self;
        // The first word keeps readers from taking the text for anything that they could build themselves.
        base64_simd::STANDARD.encode_to_string(format!("AAAAAAAAAAE:{epoch}:{shard}:{counter}:{issued_ms}"))
    }

    pub(crate) fn decode(text: &str) -> Result<Self, FakeError> {
        let read = || {
            let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let numbers: Option<Vec<u64>> =
                text.strip_prefix("AAAAAAAAAAE:")?.split(':').map(|n| n.parse().ok()).collect();
            match numbers?[..] {
                [epoch, shard, counter, issued_ms] => {
                    Some(Self { epoch, shard: usize::try_from(shard).ok()?, counter, issued_ms })
                }
                _ => None,
            }
        };
        read().ok_or_else(|| FakeError::invalid("Invalid ShardIterator."))
    }
}

pub(crate) fn get_shard_iterator(world: &mut World, input: &Input, now_ms: u64) -> Result<Value, FakeError> {
    let stream = world.stream(&input.key()?, now_ms)?;
    let id = required(input.shard_id.as_deref(), "ShardId")?;
    let index = stream.shard_index(id)?;
    let number = || required(input.starting_sequence_number.as_deref(), "StartingSequenceNumber");
    let counter = match required(input.shard_iterator_type.as_deref(), "ShardIteratorType")? {
        "TRIM_HORIZON" => 0,
        "LATEST" => stream.last_counter() + 1,
        "AT_SEQUENCE_NUMBER" => counter_of(stream, index, number()?)?,
        "AFTER_SEQUENCE_NUMBER" => counter_of(stream, index, number()?)? + 1,
        "AT_TIMESTAMP" => at_timestamp(stream, index, required(input.timestamp, "Timestamp")?, now_ms)?,
        other => {
            return Err(FakeError::new(
                "ValidationException",
                format!("ShardIteratorType {other} is unknown."),
            ));
        }
    };
    let iterator = Iterator { epoch: stream.epoch, shard: index, counter, issued_ms: now_ms };
    Ok(json!({ "ShardIterator": iterator.encode() }))
}

/// The counter of a starting sequence number; numbers of other streams, other shards or the future are refused.
fn counter_of(stream: &Stream, shard: usize, number: &str) -> Result<u64, FakeError> {
    match sequence::parse(stream.epoch, number) {
        Parsed::Counter(counter) if counter <= stream.last_counter() => {
            match stream.shards.iter().find(|s| s.numbered(counter)) {
                Some(owner) if owner.id != stream.shards[shard].id => Err(FakeError::invalid(format!(
                    "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to {}",
                    owner.id, stream.shards[shard].id
                ))),
                _ => Ok(counter),
            }
        }
        Parsed::Malformed => Err(FakeError::invalid(format!(
            "StartingSequenceNumber {number} used in GetShardIterator on shard {} is not a sequence number.",
            stream.shards[shard].id
        ))),
        _ => Err(FakeError::invalid(format!(
            "StartingSequenceNumber {number} used in GetShardIterator on shard {} in stream {} under account {} \
             is invalid because it did not come from this stream.",
            stream.shards[shard].id, stream.key.name, stream.key.account
        ))),
    }
}

fn at_timestamp(stream: &Stream, shard: usize, timestamp: f64, now_ms: u64) -> Result<u64, FakeError> {
    let at = millis(timestamp);
    if at > now_ms {
        return Err(FakeError::invalid(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {at}, currentTimestampInMillis: {now_ms}"
        )));
    }
    let records = &stream.shards[shard].records;
    let first = records.iter().find(|r| r.arrival_ms >= at);
    Ok(first.map_or(stream.last_counter() + 1, |r| r.counter))
}

pub(crate) fn get_records(
    world: &mut World,
    input: &Input,
    now_ms: u64,
    shape: &Shape,
) -> Result<Bytes, FakeError> {
    let limit = input.limit.unwrap_or(10_000);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|l| (1..=10_000).contains(l))
        .ok_or_else(|| FakeError::invalid(format!("Limit {limit} must be between 1 and 10000.")))?;
    let iterator = Iterator::decode(required(input.shard_iterator.as_deref(), "ShardIterator")?)?;
    let (lifetime, limits) = (world.iterator_lifetime_ms, world.read_limits);
    let end = End { separate: world.separate_end_page, tells_children: world.tells_children };
    let stream = world.stream_by_epoch(iterator.epoch, now_ms)?;
    if now_ms > iterator.issued_ms.saturating_add(lifetime) {
        return Err(expired(iterator.issued_ms, now_ms, lifetime));
    }
    let Some(id) = stream.shards.get(iterator.shard).map(|s| s.id.clone()) else {
        return Err(FakeError::invalid("Invalid ShardIterator."));
    };
    stream.shard_index(&id)?;
    if limits {
        stream.shards[iterator.shard].check_read_limits(now_ms)?;
    }
    let (body, bytes) =
        render(stream, iterator, limit.min(shape.max_records.unwrap_or(limit)), now_ms, (end, shape));
    stream.shards[iterator.shard].reads.push_back((now_ms, bytes));
    if !limits {
        stream.shards[iterator.shard].reads.clear();
    }
    Ok(body.into())
}

/// The error of an iterator that has outlived its lifetime.
pub(crate) fn expired(issued_ms: u64, now_ms: u64, lifetime_ms: u64) -> FakeError {
    FakeError::new(
        "ExpiredIteratorException",
        format!(
            "Iterator expired. The iterator was created at time {issued_ms} while right now it is {now_ms} which is \
             further in the future than the tolerated delay of {lifetime_ms} milliseconds."
        ),
    )
}

/// How a closed shard ends.
#[derive(Clone, Copy)]
struct End {
    /// With an empty page of its own.
    separate: bool,
    tells_children: bool,
}

/// Renders a page; returns its JSON and the bytes that count against the limits.
fn render(
    stream: &Stream,
    iterator: Iterator,
    limit: usize,
    now_ms: u64,
    (end, shape): (End, &Shape),
) -> (String, usize) {
    let shard = &stream.shards[iterator.shard];
    let first = shard.index_from(iterator.counter);
    let (mut bytes, mut count) = (0, 0);
    for record in shard.records[first..].iter().take(limit) {
        if count > 0 && bytes + record.size() > PAGE_BYTES {
            break;
        }
        bytes += record.size();
        count += 1;
    }
    let page = &shard.records[first..first + count];
    let mut body = String::with_capacity(bytes * 4 / 3 + count * 220 + 400);
    body.push_str("{\"Records\":[");
    for (i, record) in page.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        render_record(&mut body, stream, record);
    }
    let rest = shard.records.get(first + count);
    let behind = rest.map_or(0, |next| now_ms.saturating_sub(page.last().unwrap_or(next).arrival_ms));
    let _ = write!(body, "],\"MillisBehindLatest\":{behind}");
    let ended = shard.end.is_some() && rest.is_none() && (page.is_empty() || !end.separate);
    if ended || shape.null_iterator {
        body.push_str(",\"NextShardIterator\":null");
        if !shape.null_iterator && end.tells_children {
            let _ = write!(body, ",\"ChildShards\":{}", Value::from(children(stream, &shard.id)));
        }
    } else {
        let counter = page.last().map_or(iterator.counter, |r| r.counter + 1);
        let next = Iterator { counter, issued_ms: now_ms, ..iterator };
        let _ = write!(body, ",\"NextShardIterator\":\"{}\"", next.encode());
    }
    body.push('}');
    (body, bytes)
}

fn render_record(body: &mut String, stream: &Stream, record: &Record) {
    let _ = write!(
        body,
        "{{\"SequenceNumber\":\"{}\",\"ApproximateArrivalTimestamp\":{},\"Data\":\"",
        stream.sequence(record.counter),
        seconds(record.arrival_ms)
    );
    base64_simd::STANDARD.encode_append(&record.data, body);
    body.push('"');
    if let Some(key) = &record.key {
        let _ = write!(body, ",\"PartitionKey\":{}", Value::from(key.as_str()));
    }
    body.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iterator_reads_back_and_foreign_text_is_refused() {
        let iterator = Iterator { epoch: 1, shard: 2, counter: 3, issued_ms: 4 };
        assert_eq!(Iterator::decode(&iterator.encode()), Ok(iterator));
        assert!(Iterator::decode("AAAA").is_err());
        assert!(Iterator::decode("").is_err());
    }
}
