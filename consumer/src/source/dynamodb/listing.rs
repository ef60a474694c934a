//! Describing a stream's shards, completely or not at all.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodbstreams::operation::describe_stream::DescribeStreamOutput;
use aws_sdk_dynamodbstreams::types::{Shard as SdkShard, ShardFilter, ShardFilterType, StreamStatus};
use shardmill_engine::{Shard, ShardId, Wall};

use super::Inner;
use crate::source::aws::{Call, KeepDate};
use crate::source::{ShardListing, SourceError, SourceErrorKind, children_of};

/// How often a page is asked for. A table of 10,000 partitions has hundreds of pages: starting over with each throttle
/// would never end (incident 62).
const PAGE_ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// What DescribeStream says, over all its pages.
struct Description {
    status: Option<StreamStatus>,
    shards: Vec<Shard>,
    /// The service's time of the first page: what is written after it counts as new.
    date: Option<i64>,
}

/// Every shard of the stream. A part of a listing is never returned: a missing parent would count as ended (I9).
pub(super) async fn list(source: &Inner) -> Result<ShardListing, SourceError> {
    let Description { status, mut shards, date } = describe(source, None).await?;
    let call = source.call("DescribeStream", None);
    let drains = drains(status.as_ref());
    match status {
        // Its shards are still being made; a part of them would pass for all.
        Some(StreamStatus::Enabling) => return Err(call.too_early("the stream is still being enabled")),
        // After a day nothing is left of a stream that was disabled.
        _ if shards.is_empty() && !drains => return Err(call.unusable("a stream without any shard")),
        _ => {}
    }
    repair(&mut shards, drains);
    source.set_closed(shards.iter().filter(|shard| !shard.open).map(|shard| shard.id.clone()).collect());
    Ok(ShardListing {
        epoch: super::epoch(&source.stream),
        shards,
        service_time: date.map(Wall::from_millis),
        // TrimmedDataAccessException says it.
        retention: None,
        is_disabled: drains,
    })
}

/// Whether the stream takes no more changes and is only read to its end.
fn drains(status: Option<&StreamStatus>) -> bool {
    matches!(status, Some(StreamStatus::Disabled | StreamStatus::Disabling))
}

/// A shard that has a child is closed, even if its description lags behind. The last shards of a disabled stream are
/// closed for writers, but they are where its newest records are, so a reader that starts at the newest reads these.
fn repair(shards: &mut [Shard], drains: bool) {
    let parents: HashSet<ShardId> = shards.iter().flat_map(|shard| shard.parents.iter().cloned()).collect();
    for shard in shards {
        if parents.contains(&shard.id) {
            shard.open = false;
        } else if drains {
            shard.open = true;
        }
    }
}

/// The shards that follow `shard`, if it has really ended; `None` if it continues.
///
/// GetRecords names no next iterator at the end of a shard, but also, rarely, after an iterator that has expired: only
/// the description tells the two apart, and only it names the children.
pub(super) async fn children_if_ended(
    source: &Inner,
    shard: &ShardId,
) -> Result<Option<Vec<Shard>>, SourceError> {
    let found = match describe(source, Some(shard)).await {
        Ok(description) => {
            let closed = description.shards.iter().filter(|listed| !listed.open);
            source.add_closed(closed.map(|listed| listed.id.clone()));
            children_of(shard, &description.shards)
        }
        // Where the filter is not known the whole description tells.
        Err(error) if error.kind == SourceErrorKind::Rejected => Vec::new(),
        Err(error) => return Err(error),
    };
    if !found.is_empty() {
        return Ok(Some(found));
    }
    let all = describe(source, None).await?;
    let children = children_of(shard, &all.shards);
    // A shard that is no longer there was read to its end.
    let is_open = all.shards.iter().any(|listed| listed.id == *shard && listed.open);
    let goes_on = is_open && children.is_empty() && !drains(all.status.as_ref());
    Ok((!goes_on).then_some(children))
}

/// All pages: of the whole stream, or of the children of one shard.
async fn describe(source: &Inner, children_of: Option<&ShardId>) -> Result<Description, SourceError> {
    let call = source.call("DescribeStream", children_of);
    let date = KeepDate::default();
    let mut shards = Vec::new();
    let mut last: Option<String> = None;
    loop {
        let answer = page(source, call, children_of, last.as_deref(), &date).await?;
        let description = answer.stream_description.ok_or_else(|| call.unusable("it describes no stream"))?;
        for shard in description.shards.unwrap_or_default() {
            shards.push(listed(shard).ok_or_else(|| call.unusable("a shard without a name"))?);
        }
        match description.last_evaluated_shard_id.filter(|next| !next.is_empty()) {
            None => {
                return Ok(Description { status: description.stream_status, shards, date: date.get() });
            }
            next if next == last => return Err(call.unusable("the next page begins where this one does")),
            next => last = next,
        }
    }
}

/// One page, asked for again if the service asks to slow down.
async fn page(
    source: &Inner,
    call: Call<'_>,
    children_of: Option<&ShardId>,
    after: Option<&str>,
    date: &KeepDate,
) -> Result<DescribeStreamOutput, SourceError> {
    let pace = source.limiter.describe_stream(&source.stream.arn);
    let mut attempt = 1;
    loop {
        pace.start().await.finish(0);
        let filter = children_of.map(|shard| {
            ShardFilter::builder().r#type(ShardFilterType::ChildShards).shard_id(shard.as_str()).build()
        });
        let request = source.client.describe_stream().stream_arn(source.stream.arn.as_str());
        let request =
            request.set_shard_filter(filter).set_exclusive_start_shard_id(after.map(ToOwned::to_owned));
        let answer = request.customize().interceptor(date.clone()).send().await;
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => call.failed(error),
        };
        if error.kind != SourceErrorKind::Throttled || attempt == PAGE_ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(%error, attempt, "DescribeStream is throttled");
        tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1)).await;
        attempt += 1;
    }
}

fn listed(shard: SdkShard) -> Option<Shard> {
    let named = |id: String| (!id.is_empty()).then(|| ShardId::new(id));
    let parents = shard.parent_shard_id.and_then(named).into_iter().collect();
    let mut listed = Shard::new(named(shard.shard_id?)?, parents);
    listed.open = shard.sequence_number_range.is_none_or(|range| range.ending_sequence_number.is_none());
    Some(listed)
}
