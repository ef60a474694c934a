//! Listing a stream's shards, completely or not at all.

use std::time::Duration;

use aws_sdk_kinesis::types::{HashKeyRange, Shard as SdkShard};
use shardmill_engine::{HashRange, Shard, ShardId, Wall};

use super::Inner;
use crate::source::aws::{Call, KeepDate};
use crate::source::{ShardListing, SourceError, StreamSummary, children_of};

/// A token lives 5 minutes (ListShards). A listing that outlives several in a row is abandoned.
const ATTEMPTS: usize = 3;

/// Every shard of the stream. A part of a listing is never returned: a missing parent would count as ended (I9).
pub(super) async fn list(source: &Inner) -> Result<ShardListing, SourceError> {
    let StreamSummary { epoch, retention, .. } = summary(source).await?;
    let call = source.call("ListShards", None);
    for _ in 0..ATTEMPTS {
        if let Some((shards, date)) = pages(source, call).await? {
            if shards.is_empty() {
                return Err(call.unusable("a stream without any shard"));
            }
            let service_time = date.map(Wall::from_millis);
            return Ok(ShardListing { epoch, shards, service_time, retention, is_disabled: false });
        }
    }
    Err(call.unusable("its token expired while the next page was asked for, several times"))
}

/// The shards that follow `shard`, if it has really ended; `None` if it continues.
///
/// The service names a shard's children where it names no next iterator. Emulators do not always, and an answer that names
/// neither may be broken (incident 51): then only a listing tells.
pub(super) async fn children_if_ended(
    source: &Inner,
    shard: &ShardId,
) -> Result<Option<Vec<Shard>>, SourceError> {
    let call = source.call("ListShards", Some(shard));
    let Some((shards, _)) = pages(source, call).await? else {
        return Err(call.unusable("its token expired while the next page was asked for"));
    };
    let children = children_of(shard, &shards);
    // A shard that is no longer there was read to its end.
    let goes_on = children.is_empty() && shards.iter().any(|listed| listed.id == *shard && listed.open);
    Ok((!goes_on).then_some(children))
}

/// What tells, with one call, whether the stream is the same and has as many open shards.
pub(super) async fn summary(source: &Inner) -> Result<StreamSummary, SourceError> {
    let call = source.call("DescribeStreamSummary", None);
    let request = source.client.describe_stream_summary();
    let answer =
        request.stream_name(&source.stream.stream).stream_arn(source.stream.arn.as_str()).send().await;
    let answer = answer.map_err(|error| call.failed(error))?;
    let summary =
        answer.stream_description_summary().ok_or_else(|| call.unusable("it describes no stream"))?;
    let hours = u64::try_from(summary.retention_period_hours()).ok().filter(|hours| *hours > 0);
    let retention = hours.map(|hours| Duration::from_secs(hours * 3600));
    Ok(StreamSummary {
        epoch: summary.stream_creation_timestamp().secs().to_string(),
        retention,
        open_shards: Some(usize::try_from(summary.open_shard_count()).unwrap_or(0)),
    })
}

type Pages = (Vec<Shard>, Option<i64>);

/// All pages, and the time of the first one: what is put after it counts as new. `None` if a token expired on the way.
async fn pages(source: &Inner, call: Call<'_>) -> Result<Option<Pages>, SourceError> {
    let date = KeepDate::default();
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let request = source.client.list_shards();
        let answer = match &token {
            // A token stands for the stream; naming both is refused.
            Some(token) => request.next_token(token).send().await,
            None => {
                let request =
                    request.stream_name(&source.stream.stream).stream_arn(source.stream.arn.as_str());
                request.customize().interceptor(date.clone()).send().await
            }
        };
        let page = match answer {
            Ok(page) => page,
            Err(error) => match error.as_service_error() {
                Some(service) if service.is_expired_next_token_exception() => return Ok(None),
                _ => return Err(call.failed(error)),
            },
        };
        for shard in page.shards.unwrap_or_default() {
            shards.push(listed(shard).ok_or_else(|| call.unusable("a shard without a name"))?);
        }
        match page.next_token.filter(|next| !next.is_empty()) {
            None => return Ok(Some((shards, date.get()))),
            next if next == token => return Err(call.unusable("the next page's token is this page's")),
            next => token = next,
        }
    }
}

fn listed(shard: SdkShard) -> Option<Shard> {
    let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
    let named = |id: String| (!id.is_empty()).then(|| ShardId::new(id));
    let parents = parents.into_iter().flatten().filter_map(named).collect();
    let mut listed = Shard::new(named(shard.shard_id)?, parents);
    listed.hash_range = shard.hash_key_range.as_ref().and_then(hash_range);
    listed.open = shard.sequence_number_range.is_none_or(|range| range.ending_sequence_number.is_none());
    Some(listed)
}

/// The range, unless it is none of hash keys, as an emulator might answer.
pub(super) fn hash_range(range: &HashKeyRange) -> Option<HashRange> {
    HashRange::parse(range.starting_hash_key(), range.ending_hash_key())
}
