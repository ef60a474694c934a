//! Listings and descriptions of streams and shards.

use super::input::{Filter, Input, millis, required, seconds};
use super::state::{Shard, Stream, World};
use crate::service::{FakeError, Shape};
use serde_json::{Value, json};

/// A shard as it was at a time.
fn shard_json(stream: &Stream, shard: &Shard, as_of_ms: u64) -> Value {
    let mut range = json!({ "StartingSequenceNumber": stream.sequence(shard.start) });
    let is_closed = shard.closed_ms.is_some_and(|closed| closed <= as_of_ms);
    if let Some(end) = shard.end.filter(|_| is_closed) {
        range["EndingSequenceNumber"] = json!(stream.sequence(end));
    }
    let mut value = json!({
        "ShardId": shard.id,
        "HashKeyRange": hash_range(shard),
        "SequenceNumberRange": range,
    });
    if let Some(parent) = &shard.parent {
        value["ParentShardId"] = json!(parent);
    }
    if let Some(adjacent) = &shard.adjacent {
        value["AdjacentParentShardId"] = json!(adjacent);
    }
    value
}

fn hash_range(shard: &Shard) -> Value {
    json!({ "StartingHashKey": shard.hash.0.to_string(), "EndingHashKey": shard.hash.1.to_string() })
}

/// `ChildShards` of a shard, as `GetRecords` gives them at its end.
pub(crate) fn children(stream: &Stream, parent: &str) -> Vec<Value> {
    let is_child = |s: &&Shard| s.parent.as_deref() == Some(parent) || s.adjacent.as_deref() == Some(parent);
    let child = |s: &Shard| {
        let parents: Vec<&String> = s.parent.iter().chain(&s.adjacent).collect();
        json!({ "ShardId": s.id, "ParentShards": parents, "HashKeyRange": hash_range(s) })
    };
    stream.shards.iter().filter(is_child).map(child).collect()
}

/// Whether a `ShardFilter` lets a shard through.
fn matches(filter: &Filter, stream: &Stream, shard: &Shard, now_ms: u64) -> Result<bool, FakeError> {
    let horizon = now_ms.saturating_sub(stream.retention_ms).max(stream.created_ms);
    let alive_at = |t: u64| shard.opened_ms <= t && shard.closed_ms.is_none_or(|closed| closed > t);
    let alive_from = |t: u64| shard.closed_ms.is_none_or(|closed| closed >= t);
    let time = || required(filter.timestamp, "ShardFilter.Timestamp").map(millis);
    Ok(match filter.kind.as_str() {
        "AFTER_SHARD_ID" => shard.id.as_str() > required(filter.shard_id.as_deref(), "ShardFilter.ShardId")?,
        "AT_LATEST" => shard.end.is_none(),
        "AT_TRIM_HORIZON" => alive_at(horizon),
        "FROM_TRIM_HORIZON" => alive_from(horizon),
        "AT_TIMESTAMP" => alive_at(time()?.max(stream.created_ms)),
        "FROM_TIMESTAMP" => alive_from(time()?),
        other => {
            return Err(FakeError::new(
                "ValidationException",
                format!("ShardFilter.Type {other} is unknown."),
            ));
        }
    })
}

/// A `NextToken`: the stream's epoch, the last shard listed, the filter, the time of issue.
struct Token {
    epoch: u64,
    after: String,
    issued_ms: u64,
    filter: Option<Filter>,
}

impl Token {
    fn encode(&self) -> String {
        let filter = self.filter.as_ref().map_or(
            Value::Null,
            |f| json!({ "Type": f.kind, "ShardId": f.shard_id, "Timestamp": f.timestamp }),
        );
        let token = json!([self.epoch, self.after, self.issued_ms, filter]).to_string();
        base64_simd::STANDARD.encode_to_string(token)
    }

    fn decode(text: &str) -> Result<Self, FakeError> {
        let bytes = base64_simd::STANDARD.decode_to_vec(text).ok();
        let parts = bytes.and_then(|b| serde_json::from_slice::<(u64, String, u64, Option<Filter>)>(&b).ok());
        let (epoch, after, issued_ms, filter) =
            parts.ok_or_else(|| FakeError::invalid("Invalid NextToken."))?;
        Ok(Self { epoch, after, issued_ms, filter })
    }
}

pub(crate) fn list_shards(
    world: &mut World,
    input: &Input,
    now_ms: u64,
    shape: &Shape,
) -> Result<Value, FakeError> {
    let max = input.max_results.unwrap_or(1_000);
    if !(1..=10_000).contains(&max) {
        return Err(FakeError::invalid(format!("MaxResults {max} must be between 1 and 10000.")));
    }
    let page = usize::try_from(max).map_or(1, |max| max.min(world.list_page_size));
    let lag_ms = world.listing_lag_ms;
    let (stream, after, filter) = match &input.next_token {
        None => (
            world.stream(&input.key()?, now_ms)?,
            input.exclusive_start_shard_id.clone(),
            input.shard_filter.clone(),
        ),
        Some(_) if input.stream_name.is_some() || input.stream_arn.is_some() => {
            return Err(FakeError::invalid("NextToken and StreamName cannot be provided together."));
        }
        Some(token) => {
            let token = Token::decode(token)?;
            if now_ms > token.issued_ms.saturating_add(world.token_lifetime_ms) {
                return Err(FakeError::new("ExpiredNextTokenException", "The NextToken has expired."));
            }
            (world.stream_by_epoch(token.epoch, now_ms)?, Some(token.after), token.filter)
        }
    };
    let as_of_ms = now_ms.saturating_sub(lag_ms).max(stream.created_ms);
    let (shards, last) = page_of(stream, after.as_deref(), filter.as_ref(), page, as_of_ms, shape)?;
    let mut answer = json!({ "Shards": shards });
    if let Some(after) = last {
        answer["NextToken"] = json!(Token { epoch: stream.epoch, after, issued_ms: now_ms, filter }.encode());
    }
    Ok(answer)
}

/// One page of shards as they were at a time, and the last one's id if more follow.
fn page_of(
    stream: &Stream,
    after: Option<&str>,
    filter: Option<&Filter>,
    page: usize,
    as_of_ms: u64,
    shape: &Shape,
) -> Result<(Vec<Value>, Option<String>), FakeError> {
    let mut chosen: Vec<&Shard> = Vec::new();
    let is_listed = |s: &&Shard| !s.forgotten && s.opened_ms <= as_of_ms;
    for shard in stream.shards.iter().filter(is_listed).filter(|s| after.is_none_or(|a| s.id.as_str() > a)) {
        let childhood = [&shard.parent, &shard.adjacent];
        let orphaned = childhood.into_iter().flatten().any(|p| shape.omit_children_of.contains(p));
        if shape.omit.contains(&shard.id) || orphaned {
            continue;
        }
        match filter {
            Some(filter) if !matches(filter, stream, shard, as_of_ms)? => {}
            _ => chosen.push(shard),
        }
    }
    let last = (chosen.len() > page).then(|| chosen[page - 1].id.clone());
    Ok((chosen.iter().take(page).map(|s| shard_json(stream, s, as_of_ms)).collect(), last))
}

fn description(stream: &Stream) -> Value {
    json!({
        "StreamName": stream.key.name,
        "StreamARN": stream.key.arn(),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": { "StreamMode": "PROVISIONED" },
        "RetentionPeriodHours": stream.retention_ms.div_ceil(3_600_000),
        "StreamCreationTimestamp": seconds(stream.created_ms),
        "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
        "EncryptionType": "NONE",
    })
}

pub(crate) fn summary(stream: &Stream) -> Value {
    let mut description = description(stream);
    description["OpenShardCount"] = json!(stream.shards.iter().filter(|s| s.end.is_none()).count());
    description["ConsumerCount"] = json!(0);
    json!({ "StreamDescriptionSummary": description })
}

pub(crate) fn describe_stream(
    world: &mut World,
    input: &Input,
    now_ms: u64,
    shape: &Shape,
) -> Result<Value, FakeError> {
    let limit = usize::try_from(input.limit.unwrap_or(100).clamp(1, 10_000)).unwrap_or(1);
    let (page, lag_ms) = (limit.min(world.list_page_size), world.listing_lag_ms);
    let stream = world.stream(&input.key()?, now_ms)?;
    let as_of_ms = now_ms.saturating_sub(lag_ms).max(stream.created_ms);
    let (shards, more) =
        page_of(stream, input.exclusive_start_shard_id.as_deref(), None, page, as_of_ms, shape)?;
    let mut description = description(stream);
    description["Shards"] = json!(shards);
    description["HasMoreShards"] = json!(more.is_some());
    Ok(json!({ "StreamDescription": description }))
}

pub(crate) fn list_streams(world: &World, input: &Input) -> Value {
    let after = input.exclusive_start_stream_name.as_deref().unwrap_or("");
    let names: Vec<String> =
        world.names().into_iter().map(|k| k.name).filter(|n| n.as_str() > after).collect();
    let limit = usize::try_from(input.limit.unwrap_or(100).clamp(1, 10_000)).unwrap_or(1);
    json!({ "StreamNames": names[..limit.min(names.len())], "HasMoreStreams": names.len() > limit })
}
