//! Finds the stream's shards and creates their leases.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_checkpoint::{AppState, Lease, LeaseList, NewLease};
use shardmill_engine::{
    HashRange, LeaseKey, OnGap, Position, ShardId, Start, StreamKind, plan_leases, uncovered,
};

use tokio::time::Instant;

use crate::beginning::{Beginning, STARTING_POSITION, configured};
use crate::context::MappingContext;
use crate::keeper::{KeeperError, Served};
use crate::listed::{LastListing, childless, ended};
use crate::notes::PINNED_START;
use crate::pin;
use crate::source::{ShardListing, SourceError};
use crate::stream::StreamContext;

/// Why shards could not be found, or their leases not be created. Retried with backoff.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// Records were lost with an earlier stream, and the mapping is to stop.
    #[error("{0}")]
    Gap(String),
}

/// What a discovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Discovered {
    /// Leases that did not exist before.
    pub(crate) created: usize,
    /// Leases of this stream that exist now.
    pub(crate) known: usize,
    /// What distinguishes the stream from an earlier one of the same name.
    pub(crate) epoch: String,
    /// What is lost, or may be, with an earlier stream of the same name (I17).
    pub(crate) gap: Option<String>,
    /// Hash keys that the listing lacks.
    pub(crate) uncovered: Vec<HashRange>,
    /// Where the shards begin, as far as a listing showed it.
    pub(crate) beginning: Option<Beginning>,
    /// The first leases wait for a clock in doubt.
    pub(crate) waits_for_clock: bool,
    /// According to a listing the stream takes no more records.
    pub(crate) is_disabled: bool,
}

/// Lists the stream and creates the leases that are missing.
///
/// Unless it is asked for, a stream whose shards have not changed is not listed: ten thousand shards are eleven calls.
pub(crate) async fn discover(cx: &MappingContext, asked_for: bool) -> Result<Discovered, DiscoveryError> {
    let stream = &cx.stream;
    let summary = if asked_for { None } else { stream.source.summary().await? };
    let before = cx.leases.list().await?;
    if let Some(summary) = summary
        && let Some((known, uncovered)) = stream.listed.unchanged(&summary, &before)
    {
        return Ok(Discovered { known, uncovered, epoch: summary.epoch, ..Discovered::default() });
    }
    stream.pin.note(&cx.mapping, &cx.leases, &before.leases, &stream.clock).await?;
    let (began, began_at) = (Instant::now(), stream.clock.now().mono);
    let listing = stream.source.shards().await?;
    let key = stream.key(&listing.epoch);
    cx.leases.bind(&key);
    let found = Found::of(stream, key, &listing, (before, cx.leases.list().await?), began);
    let start = start(cx, &found, &listing);
    if found.is_new() && start.pinned.is_some() && stream.pin.waits_for_clock(&stream.clock) {
        return Ok(Discovered { epoch: listing.epoch, waits_for_clock: true, ..Discovered::default() });
    }
    // Reported once: by the worker that creates the first lease of the new stream.
    let gap = found.is_new().then(|| found.left_behind().or(start.gap.clone())).flatten();
    if let Some(gap) = gap.as_ref().filter(|_| cx.mapping.on_gap() == OnGap::Stop) {
        // Without leases of the new stream the next start stops as well, until `OnGap` is set to `continue`.
        return Err(DiscoveryError::Gap(gap.clone()));
    }
    let position = cx.mapping.starting_position();
    let new = new_leases(&listing, &found, &start, position);
    let planned_shards: Vec<ShardId> = new.iter().map(|lease| lease.key.shard.clone()).collect();
    let planned = planned_shards.len();
    let discovered = Discovered {
        known: found.known.len() + found.unreadable + planned,
        uncovered: holes(&listing),
        beginning: Some(Beginning::of(position, &cx.worker, &found.known, &new)),
        is_disabled: listing.is_disabled,
        ..Discovered::default()
    };
    stream.listed.set(LastListing {
        stream: Some(found.stream.clone()),
        shards: found.shards.clone(),
        began: Some(began),
        began_at: Some(began_at),
        retention: listing.retention,
        open_shards: listing.shards.iter().filter(|shard| shard.open).count(),
        uncovered: discovered.uncovered.clone(),
        showed_new: planned > 0,
        childless: childless(found.known.iter()),
        ended: ended(found.known.iter()).count(),
        ..LastListing::default()
    });
    // Another worker may have made the leases since this run noted its start.
    let forgets = (found.is_new() && planned > 0) || (!found.known.is_empty() && stream.pin.has_noted());
    cx.leases.serve(Served { stream: found.stream, listed: found.shards });
    let created = if new.is_empty() { 0 } else { cx.leases.create(new).await? };
    stream.listed.created(planned_shards);
    if forgets {
        stream.pin.forget(&cx.mapping, &cx.leases).await;
    }
    let gap = gap.filter(|_| created > 0);
    Ok(Discovered { created, epoch: listing.epoch, gap, ..discovered })
}

/// What a listing of the stream and the leases before and after it show together.
struct Found {
    stream: LeaseKey,
    /// The shards that count, with their parents.
    shards: BTreeMap<ShardId, Vec<ShardId>>,
    /// No lease is to be made for them: they have ones that cannot be read, or had ones that were finished.
    passed_over: BTreeSet<ShardId>,
    /// How many leases of the stream cannot be read.
    unreadable: usize,
    /// The stream's leases.
    known: Vec<Lease>,
    /// Leases of other streams.
    others: Vec<Lease>,
}

impl Found {
    fn of(
        stream: &StreamContext,
        key: LeaseKey,
        listing: &ShardListing,
        (before, list): (LeaseList, LeaseList),
        began: Instant,
    ) -> Self {
        let mut shards: BTreeMap<ShardId, Vec<ShardId>> =
            listing.shards.iter().map(|shard| (shard.id.clone(), shard.parents.clone())).collect();
        let mut passed_over = stream.listed.not_to_be_made(&key, &list, &shards, began);
        // They are finished: no shard waits for them, even if a listing that lags behind shows them. One that may have
        // been deleted by hand holds its children back until that is known (I9).
        shards.retain(|shard, _| !(passed_over.contains(shard) && stream.listed.is_forgotten(shard)));
        let unreadable = list.unreadable.iter().filter(|lease| lease.key.is_sibling_of(&key));
        let unreadable: Vec<ShardId> = unreadable.map(|lease| lease.key.shard.clone()).collect();
        let (known, others) = known_leases(before.leases, list.leases, &key);
        passed_over.extend(unreadable.iter().cloned());
        Self { stream: key, shards, passed_over, unreadable: unreadable.len(), known, others }
    }

    /// No lease of the stream was ever made.
    fn is_new(&self) -> bool {
        self.known.is_empty() && self.passed_over.is_empty()
    }

    /// What was not read of earlier streams of the same name: one that was deleted and created again (incident 43), or a
    /// DynamoDB stream that was disabled and enabled again (incident 64).
    fn left_behind(&self) -> Option<String> {
        let stream = &self.stream;
        let is_earlier = |lease: &&Lease| {
            let key = &lease.key;
            (&key.account, &key.region, &key.stream) == (&stream.account, &stream.region, &stream.stream)
        };
        let earlier = self.others.iter().filter(is_earlier);
        let unfinished: Vec<&Lease> =
            earlier.filter(|lease| lease.checkpoint != Position::ShardEnd).collect();
        let first = unfinished.first()?;
        let epochs: BTreeSet<&str> = unfinished.iter().map(|lease| &*lease.key.epoch).collect();
        Some(format!(
            "the stream {} is a new one ({}): {} shards of the earlier one ({}) were not read to their end, the first is {} at {}; \
             what was left in them may be lost",
            stream.stream,
            stream.epoch,
            unfinished.len(),
            epochs.into_iter().collect::<Vec<_>>().join(", "),
            first.key.shard,
            first.checkpoint
        ))
    }
}

/// The leases of the stream, and the others. A finished lease that was deleted while the stream was being listed counts as well: the
/// listing may still show its shard, which another worker knows to be finished and gone (incident 40).
fn known_leases(before: Vec<Lease>, now: Vec<Lease>, stream: &LeaseKey) -> (Vec<Lease>, Vec<Lease>) {
    let (mut known, others): (Vec<Lease>, Vec<Lease>) =
        now.into_iter().partition(|lease| lease.key.is_sibling_of(stream));
    let there: BTreeSet<ShardId> = known.iter().map(|lease| lease.key.shard.clone()).collect();
    let deleted = |lease: &Lease| {
        let is_finished = lease.checkpoint == Position::ShardEnd;
        is_finished && lease.key.is_sibling_of(stream) && !there.contains(&lease.key.shard)
    };
    known.extend(before.into_iter().filter(deleted));
    (known, others)
}

/// Hash keys that belong to no shard of the listing without listed children. Streams without hash keys have none.
fn holes(listing: &ShardListing) -> Vec<HashRange> {
    let parents: BTreeSet<&ShardId> = listing.shards.iter().flat_map(|shard| &shard.parents).collect();
    let leaves = listing.shards.iter().filter(|shard| shard.open || !parents.contains(&shard.id));
    let ranges: Vec<HashRange> = leaves.filter_map(|shard| shard.hash_range).collect();
    if ranges.is_empty() { Vec::new() } else { uncovered(ranges) }
}

/// Where new shards begin.
struct StartPlan {
    start: Start,
    /// The time to which LATEST is pinned.
    pinned: Option<i64>,
    /// What was lost between that time and now.
    gap: Option<String>,
}

/// LATEST is pinned once: by the worker that creates the stream's first lease (I15).
fn start(cx: &MappingContext, found: &Found, listing: &ShardListing) -> StartPlan {
    let of = |start| StartPlan { start, pinned: None, gap: None };
    let StreamContext { source, clock, pin, event_source, .. } = &cx.stream;
    match cx.mapping.starting_position() {
        Position::AtTimestamp(time) => of(Start::AtTimestamp(*time)),
        Position::Latest => {
            // A source that follows a clock of its own is not judged by one answer.
            let answered = listing.service_time.filter(|_| source.clock().is_none());
            let pinned = pin.of_stream(&found.stream, (&found.known, &found.others), clock, answered);
            let is_dynamodb = event_source.kind == StreamKind::DynamoDb;
            let gap = pin::lost_before(pinned, is_dynamodb, clock).filter(|_| found.known.is_empty());
            // What has closed since may hold records that came after that time.
            let start = match found.known.is_empty() && pin::reaches_back(pinned, clock) {
                true => Start::AtTimestamp(pinned),
                false => Start::Latest { pinned },
            };
            StartPlan { start, pinned: Some(pinned), gap }
        }
        _ => of(Start::TrimHorizon),
    }
}

/// Shards that were passed over count as known.
fn new_leases(
    listing: &ShardListing,
    found: &Found,
    begins: &StartPlan,
    position: &Position,
) -> Vec<NewLease> {
    let mut known: BTreeMap<ShardId, Vec<ShardId>> =
        found.known.iter().map(|lease| (lease.key.shard.clone(), lease.parents.clone())).collect();
    for shard in listing.shards.iter().filter(|shard| found.passed_over.contains(&shard.id)) {
        known.entry(shard.id.clone()).or_insert_with(|| shard.parents.clone());
    }
    plan_leases(&listing.shards, &known, &begins.start)
        .into_iter()
        .map(|planned| {
            let mut app = AppState::from([(STARTING_POSITION.to_owned(), configured(position))]);
            if let Some(pinned) = begins.pinned {
                app.insert(PINNED_START.to_owned(), pinned.to_string());
            }
            NewLease {
                hash_range: planned.hash_range,
                key: found.stream.sibling(planned.shard),
                checkpoint: planned.start,
                parents: planned.parents,
                app,
            }
        })
        .collect()
}
