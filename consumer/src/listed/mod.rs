//! What the last listing of a stream showed, and whether another would show more.

mod vanished;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use shardmill_checkpoint::{Lease, LeaseList};
use shardmill_engine::{HashRange, LeaseKey, Mono, Position, ShardId};
use tokio::time::Instant;

use self::vanished::Vanished;
use crate::source::StreamSummary;

/// A stream is listed at least this often, whatever a summary says.
const LISTED_ANYWAY: Duration = Duration::from_secs(3600);

/// How soon a stream is listed again for the children of a shard that has ended; twice as long after each listing without
/// them, up to the second time.
const CHILDREN_AGAIN: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// A stream of few shards is listed after so many have ended: only a listing tells which ones are gone, and until then
/// their leases stay.
const ENDS_UNLISTED: usize = 8;

/// What the last complete listing of the stream showed.
#[derive(Debug, Default)]
pub(crate) struct Listed(Mutex<LastListing>, Mutex<Vanished>);

/// One listing, and what its leases looked like.
#[derive(Debug, Default)]
pub(crate) struct LastListing {
    pub(crate) stream: Option<LeaseKey>,
    pub(crate) shards: BTreeMap<ShardId, Vec<ShardId>>,
    pub(crate) began: Option<Instant>,
    /// The same on the clock of the shards, which counts suspended time as well.
    pub(crate) began_at: Option<Mono>,
    pub(crate) retention: Option<Duration>,
    pub(crate) open_shards: usize,
    pub(crate) uncovered: Vec<HashRange>,
    /// It showed shards that had no leases.
    pub(crate) showed_new: bool,
    /// Shards that have ended and that no lease follows.
    pub(crate) childless: BTreeSet<ShardId>,
    /// After so long it is worth looking for their children again; set by [`Listed::set`].
    pub(crate) childless_pause: Duration,
    /// Leases at their end.
    pub(crate) ended: usize,
}

impl LastListing {
    /// Whether the last listing still says it all, as far as a summary and the leases tell.
    fn is_current(&self, summary: &StreamSummary, leases: &[&Lease], began: Instant) -> bool {
        let leases = leases.iter().copied();
        if ended(leases.clone()).count() > self.ended + self.shards.len().max(ENDS_UNLISTED) {
            return false;
        }
        match summary.open_shards {
            Some(open) if open != self.open_shards => return false,
            // A listing that showed something new is followed by another: it may have been made in the middle of a change.
            None if self.showed_new => return false,
            _ => {}
        }
        // A split here and a merge there leave the number of open shards as it was, and a listing may lag (incident 31).
        let childless = childless(leases);
        childless.is_empty()
            || (childless.is_subset(&self.childless) && began.elapsed() < self.childless_pause)
    }
}

/// Shards that have ended and that no lease follows: their children may not have been listed yet.
pub(crate) fn childless<'a>(leases: impl Iterator<Item = &'a Lease> + Clone) -> BTreeSet<ShardId> {
    let followed: BTreeSet<&ShardId> = leases.clone().flat_map(|lease| &lease.parents).collect();
    ended(leases).map(|lease| &lease.key.shard).filter(|shard| !followed.contains(shard)).cloned().collect()
}

pub(crate) fn ended<'a>(leases: impl Iterator<Item = &'a Lease>) -> impl Iterator<Item = &'a Lease> {
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
    /// How many shards have leases and which hash keys the last listing lacks, if the summary says that another one would show
    /// nothing new.
    pub(crate) fn unchanged(
        &self,
        summary: &StreamSummary,
        list: &LeaseList,
    ) -> Option<(usize, Vec<HashRange>)> {
        let mut inner = self.0.lock();
        let stream = inner.stream.as_ref().filter(|stream| *stream.epoch == *summary.epoch)?;
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
        inner.is_current(summary, &leases, began).then(|| (known, inner.uncovered.clone()))
    }

    /// Notes which leases there are; `shards` is what was listed last.
    fn look(
        &self,
        stream: &LeaseKey,
        list: &LeaseList,
        shards: &BTreeMap<ShardId, Vec<ShardId>>,
    ) -> MutexGuard<'_, Vanished> {
        let mut vanished = self.1.lock();
        vanished.look(stream, of_stream(stream, list), |shard| shards.contains_key(shard), Instant::now());
        vanished
    }

    /// After a listing that began at `began`: the shards that no lease is to be made for although they have none.
    pub(crate) fn not_to_be_made(
        &self,
        stream: &LeaseKey,
        list: &LeaseList,
        listing: &BTreeMap<ShardId, Vec<ShardId>>,
        began: Instant,
    ) -> BTreeSet<ShardId> {
        let before = self.0.lock().shards.clone();
        self.look(stream, list, &before).listed(|shard| listing.contains_key(shard), began)
    }

    pub(crate) fn is_forgotten(&self, shard: &ShardId) -> bool {
        self.1.lock().is_forgotten(shard)
    }

    pub(crate) fn created(&self, shards: Vec<ShardId>) {
        self.1.lock().created(shards.into_iter());
    }

    pub(crate) fn set(&self, mut new: LastListing) {
        let mut inner = self.0.lock();
        let is_known = !new.childless.is_empty() && new.childless.is_subset(&inner.childless);
        let [first, longest] = CHILDREN_AGAIN;
        new.childless_pause = if is_known { (inner.childless_pause * 2).min(longest) } else { first };
        *inner = new;
    }

    /// How long the stream keeps records, if it does not refuse a position that it no longer holds.
    pub(crate) fn retention(&self) -> Option<Duration> {
        self.0.lock().retention
    }

    /// When the last listing began, if it shows the shard's stream without the shard.
    pub(crate) fn lacks(&self, key: &LeaseKey) -> Option<Mono> {
        let inner = self.0.lock();
        let is_of_stream = inner.stream.as_ref().is_some_and(|stream| key.is_sibling_of(stream));
        inner.began_at.filter(|_| is_of_stream && !inner.shards.contains_key(&key.shard))
    }
}
