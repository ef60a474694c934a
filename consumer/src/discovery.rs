//! Finds the stream's shards and creates their leases.

mod vanished;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardmill_checkpoint::{AppState, Lease, LeaseList, NewLease};
use shardmill_engine::{
    EventSourceMapping, HashRange, LeaseKey, OnGap, Position, ShardId, Start, StreamKind, plan_leases,
    uncovered,
};

use tokio::time::Instant;

use self::vanished::Vanished;
use crate::beginning::{Beginning, STARTING_POSITION, configured};
use crate::driver::MappingContext;
use crate::keeper::{KeeperError, Served};
use crate::pin;
use crate::source::{ShardListing, SourceError, StreamSummary};

/// A stream is listed at least this often, whatever a summary says.
const LISTED_ANYWAY: Duration = Duration::from_secs(3600);

/// How soon a stream is listed again for the children of a shard that has ended; twice as long after each listing without
/// them, up to the second time.
const CHILDREN_AGAIN: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// A stream of few shards is listed after so many have ended: only a listing tells which ones are gone, and until then
/// their leases stay.
const ENDS_UNLISTED: usize = 8;

/// Under this name a lease remembers the time to which LATEST was pinned (I15).
pub(crate) const PINNED_START: &str = "pinnedStart";

/// Why shards could not be found, or their leases not be created. Tried again with backoff.
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
    /// What tells the stream from an earlier one of the same name.
    pub(crate) epoch: String,
    /// What is lost, or may be, with an earlier stream of the same name (I17).
    pub(crate) gap: Option<String>,
    /// Hash keys that the listing lacks.
    pub(crate) uncovered: Vec<HashRange>,
    /// Where the shards begin, as far as a listing told.
    pub(crate) beginning: Option<Beginning>,
    /// The first leases wait for a clock in doubt.
    pub(crate) waits_for_clock: bool,
    /// A listing said so: the stream takes no more records.
    pub(crate) is_disabled: bool,
}

/// What the last complete listing of the stream showed.
#[derive(Debug, Default)]
pub(crate) struct Listed(Mutex<ListedInner>, Mutex<Vanished>);

#[derive(Debug, Default)]
struct ListedInner {
    stream: Option<LeaseKey>,
    shards: BTreeMap<ShardId, Vec<ShardId>>,
    began: Option<Instant>,
    retention: Option<Duration>,
    open_shards: usize,
    uncovered: Vec<HashRange>,
    /// It showed shards that had no leases.
    is_news: bool,
    /// Shards that have ended and that no lease follows.
    childless: BTreeSet<ShardId>,
    /// After so long it is worth looking for their children again.
    childless_pause: Duration,
    /// Leases at their end.
    ended: usize,
}

impl ListedInner {
    /// Whether the last listing still says it all, as far as a summary and the leases tell.
    fn says_it_all(&self, summary: &StreamSummary, leases: &[&Lease], began: Instant) -> bool {
        let leases = leases.iter().copied();
        if ended(leases.clone()).count() > self.ended + self.shards.len().max(ENDS_UNLISTED) {
            return false;
        }
        match summary.open_shards {
            Some(open) if open != self.open_shards => return false,
            // A listing that showed something new is followed by another: it may have been made in the middle of a change.
            None if self.is_news => return false,
            _ => {}
        }
        // A split here and a merge there leave the number of open shards as it was, and a listing may lag (incident 31).
        let childless = childless(leases);
        childless.is_empty()
            || (childless.is_subset(&self.childless) && began.elapsed() < self.childless_pause)
    }
}

/// Shards that have ended and that no lease follows: their children may not have been listed yet.
fn childless<'a>(leases: impl Iterator<Item = &'a Lease> + Clone) -> BTreeSet<ShardId> {
    let followed: BTreeSet<&ShardId> = leases.clone().flat_map(|lease| &lease.parents).collect();
    ended(leases).map(|lease| &lease.key.shard).filter(|shard| !followed.contains(shard)).cloned().collect()
}

fn ended<'a>(leases: impl Iterator<Item = &'a Lease>) -> impl Iterator<Item = &'a Lease> {
    leases.filter(|lease| lease.checkpoint == Position::ShardEnd)
}

/// The stream's leases, and whether they are finished.
fn of_stream(stream: &LeaseKey, list: &LeaseList) -> BTreeMap<ShardId, bool> {
    let readable = list.leases.iter().map(|lease| (&lease.key, lease.checkpoint == Position::ShardEnd));
    let unreadable = list.unreadable.iter().map(|lease| (&lease.key, false));
    let of_stream = readable.chain(unreadable).filter(|(key, _)| key.is_sibling_of(stream));
    of_stream.map(|(key, finished)| (key.shard.clone(), finished)).collect()
}

impl Listed {
    /// What a listing would find, if the summary says that it would show nothing new.
    fn unchanged(&self, summary: StreamSummary, list: &LeaseList) -> Option<Discovered> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = inner.stream.as_ref().filter(|stream| stream.epoch == summary.epoch)?;
        let leases: Vec<&Lease> =
            list.leases.iter().filter(|lease| lease.key.is_sibling_of(stream)).collect();
        if self.look(stream, list, &inner.shards).calls_for_a_listing() {
            return None;
        }
        let known = of_stream(stream, list).len();
        let began = inner.began.filter(|began| began.elapsed() < LISTED_ANYWAY)?;
        inner.retention = summary.retention;
        // Those that were deleted since make room for others.
        inner.ended = inner.ended.min(ended(leases.iter().copied()).count());
        inner.says_it_all(&summary, &leases, began).then(|| Discovered {
            known,
            epoch: summary.epoch,
            uncovered: inner.uncovered.clone(),
            ..Discovered::default()
        })
    }

    /// Notes which leases there are; `shards` is what was listed last.
    fn look(
        &self,
        stream: &LeaseKey,
        list: &LeaseList,
        shards: &BTreeMap<ShardId, Vec<ShardId>>,
    ) -> MutexGuard<'_, Vanished> {
        let mut vanished = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        vanished.look(stream, of_stream(stream, list), |shard| shards.contains_key(shard), Instant::now());
        vanished
    }

    /// After a listing that began at `began`: the shards that no lease is to be made for although they have none.
    fn not_to_be_made(
        &self,
        stream: &LeaseKey,
        list: &LeaseList,
        listing: &BTreeMap<ShardId, Vec<ShardId>>,
        began: Instant,
    ) -> BTreeSet<ShardId> {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).shards.clone();
        self.look(stream, list, &before).listed(|shard| listing.contains_key(shard), began)
    }

    fn is_forgotten(&self, shard: &ShardId) -> bool {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).is_forgotten(shard)
    }

    fn created(&self, shards: Vec<ShardId>) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).created(shards.into_iter());
    }

    fn set(&self, mut new: ListedInner) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = !new.childless.is_empty() && new.childless.is_subset(&inner.childless);
        let [first, longest] = CHILDREN_AGAIN;
        new.childless_pause = if is_known { (inner.childless_pause * 2).min(longest) } else { first };
        *inner = new;
    }

    /// How long the stream keeps records, if it does not refuse a position that it no longer holds.
    pub(crate) fn retention(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retention
    }

    /// Whether a listing that began at or after `since` shows the shard's stream without the shard.
    pub(crate) fn lacks(&self, key: &LeaseKey, since: Instant) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_stream = inner.stream.as_ref().is_some_and(|stream| key.is_sibling_of(stream));
        is_of_stream
            && inner.began.is_some_and(|began| began >= since)
            && !inner.shards.contains_key(&key.shard)
    }
}

/// Lists the stream and creates the leases that are missing.
///
/// Unless it is asked for, a stream whose shards have not changed is not listed: ten thousand shards are eleven calls.
pub(crate) async fn discover(cx: &MappingContext, asked_for: bool) -> Result<Discovered, DiscoveryError> {
    let summary = if asked_for { None } else { cx.source.summary().await? };
    let before = cx.leases.list().await?;
    if let Some(unchanged) = summary.and_then(|summary| cx.listed.unchanged(summary, &before)) {
        return Ok(unchanged);
    }
    cx.pin.note(&cx.mapping, &cx.leases, &before.leases, &cx.clock).await?;
    let began = Instant::now();
    let listing = cx.source.shards().await?;
    let of_stream = stream_key(&cx.mapping, &listing);
    let list = cx.leases.list().await?;
    let mut shards: BTreeMap<ShardId, Vec<ShardId>> =
        listing.shards.iter().map(|shard| (shard.id.clone(), shard.parents.clone())).collect();
    let mut passed_over = cx.listed.not_to_be_made(&of_stream, &list, &shards, began);
    // They are finished: nobody waits for them, whatever a listing that lags behind shows. One that may have been deleted
    // by hand holds its children back until that is known (I9).
    shards.retain(|shard, _| !(passed_over.contains(shard) && cx.listed.is_forgotten(shard)));
    let unreadable = list.unreadable.iter().filter(|lease| lease.key.is_sibling_of(&of_stream));
    let unreadable: Vec<ShardId> = unreadable.map(|lease| lease.key.shard.clone()).collect();
    let spoilt = unreadable.len();
    passed_over.extend(unreadable);
    let (known, others) = known_leases(before.leases, list.leases, &of_stream);
    let start = start(cx, &of_stream, (&known, &others), &listing);
    let is_new = known.is_empty() && passed_over.is_empty();
    if is_new && start.pinned.is_some() && cx.pin.waits_for_clock(&cx.clock) {
        return Ok(Discovered { epoch: listing.epoch, waits_for_clock: true, ..Discovered::default() });
    }
    // Reported once: by whoever creates the first lease of the new stream.
    let gap = is_new.then(|| left_behind(&of_stream, &others).or(start.gap.clone())).flatten();
    if let Some(gap) = gap.as_ref().filter(|_| cx.mapping.on_gap() == OnGap::Stop) {
        // Without leases of the new stream the next start stops as well, until somebody decides to go on.
        return Err(DiscoveryError::Gap(gap.clone()));
    }
    let (stream, retention) = (Some(of_stream.clone()), listing.retention);
    let uncovered = holes(&listing);
    let open_shards = listing.shards.iter().filter(|shard| shard.open).count();
    let began = Some(began);
    let position = cx.mapping.starting_position();
    let new = new_leases(&listing, &of_stream, &known, &passed_over, &start, position);
    let planned_shards = new.iter().map(|lease| lease.key.shard.clone()).collect();
    let planned = new.len();
    let beginning = Some(Beginning::of(cx.mapping.starting_position(), &known, &new));
    cx.listed.set(ListedInner {
        stream,
        shards: shards.clone(),
        began,
        retention,
        open_shards,
        uncovered: uncovered.clone(),
        is_news: planned > 0,
        childless: childless(known.iter()),
        childless_pause: CHILDREN_AGAIN[0],
        ended: ended(known.iter()).count(),
    });
    cx.leases.serve(Served { stream: of_stream, listed: shards });
    let created = if new.is_empty() { 0 } else { cx.leases.create(new).await? };
    cx.listed.created(planned_shards);
    // Another worker may have made the leases since this run noted its start.
    if (is_new && planned > 0) || (!known.is_empty() && cx.pin.has_noted()) {
        cx.pin.forget(&cx.mapping, &cx.leases).await;
    }
    let gap = gap.filter(|_| created > 0);
    let known = known.len() + spoilt + planned;
    let (epoch, is_disabled) = (listing.epoch, listing.is_disabled);
    Ok(Discovered { created, known, epoch, gap, uncovered, beginning, waits_for_clock: false, is_disabled })
}

/// The leases of the stream, and the others. A finished lease that was deleted while the stream was being listed counts as well: the
/// listing may still show its shard, which somebody else knows to be finished and gone (incident 40).
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

/// What was not read of earlier streams of the same name: one that was deleted and created again (incident 43), or a
/// DynamoDB stream that was disabled and enabled again (incident 64).
fn left_behind(stream: &LeaseKey, others: &[Lease]) -> Option<String> {
    let is_earlier = |lease: &&Lease| {
        let key = &lease.key;
        (&key.account, &key.region, &key.stream) == (&stream.account, &stream.region, &stream.stream)
    };
    let unfinished: Vec<&Lease> =
        others.iter().filter(is_earlier).filter(|lease| lease.checkpoint != Position::ShardEnd).collect();
    let first = unfinished.first()?;
    let epochs: BTreeSet<&str> = unfinished.iter().map(|lease| lease.key.epoch.as_str()).collect();
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

fn stream_key(mapping: &EventSourceMapping, listing: &ShardListing) -> LeaseKey {
    let source = mapping.event_source();
    LeaseKey {
        account: source.account.clone(),
        region: source.region.clone(),
        stream: source.stream.clone(),
        epoch: listing.epoch.clone(),
        shard: ShardId::new(""),
    }
}

/// Where new shards begin.
struct StartPlan {
    start: Start,
    /// The time to which LATEST is pinned.
    pinned: Option<i64>,
    /// What was lost between that time and now.
    gap: Option<String>,
}

/// LATEST is pinned once: by whoever creates the stream's first lease (I15).
fn start(
    cx: &MappingContext,
    stream: &LeaseKey,
    (known, others): (&[Lease], &[Lease]),
    listing: &ShardListing,
) -> StartPlan {
    let of = |start| StartPlan { start, pinned: None, gap: None };
    match cx.mapping.starting_position() {
        Position::AtTimestamp(time) => of(Start::AtTimestamp(*time)),
        Position::Latest => {
            // A source that follows a clock of its own is not judged by one answer.
            let answered = listing.service_time.filter(|_| cx.source.clock().is_none());
            let pinned = cx.pin.of_stream(stream, (known, others), &cx.clock, answered);
            let is_dynamodb = cx.mapping.event_source().kind == StreamKind::DynamoDb;
            let gap = pin::lost_before(pinned, is_dynamodb, &cx.clock).filter(|_| known.is_empty());
            // What has closed since may hold records that came after that time.
            let start = match known.is_empty() && pin::reaches_back(pinned, &cx.clock) {
                true => Start::AtTimestamp(pinned),
                false => Start::Latest { pinned },
            };
            StartPlan { start, pinned: Some(pinned), gap }
        }
        _ => of(Start::TrimHorizon),
    }
}

/// Shards that were `passed_over` count as known: they have leases that cannot be read, or had ones that were finished.
fn new_leases(
    listing: &ShardListing,
    stream: &LeaseKey,
    known: &[Lease],
    passed_over: &BTreeSet<ShardId>,
    begins: &StartPlan,
    position: &Position,
) -> Vec<NewLease> {
    let mut known: BTreeMap<ShardId, Vec<ShardId>> =
        known.iter().map(|lease| (lease.key.shard.clone(), lease.parents.clone())).collect();
    for shard in listing.shards.iter().filter(|shard| passed_over.contains(&shard.id)) {
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
                key: stream.sibling(planned.shard),
                checkpoint: planned.start,
                parents: planned.parents,
                app,
            }
        })
        .collect()
}
