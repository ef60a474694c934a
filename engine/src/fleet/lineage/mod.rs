//! Which leases a listing calls for, and when a shard may start.

use std::collections::{BTreeMap, BTreeSet};

use super::shard::{HashRange, Shard};
use crate::position::Position;
use crate::record::ShardId;

/// A lease that a listing calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLease {
    /// The shard.
    pub shard: ShardId,
    /// Where reading starts.
    pub start: Position,
    /// The shards that must be at their end first (I9).
    pub parents: Vec<ShardId>,
    /// The shard's hash keys; Kinesis only.
    pub hash_range: Option<HashRange>,
}

/// Where a mapping starts on shards that no worker has read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    TrimHorizon,
    /// A time, in milliseconds since the epoch.
    AtTimestamp(i64),
    /// LATEST, pinned to the service's time when the stream was first listed, in milliseconds since the epoch (I15).
    Latest {
        /// The pinned time.
        pinned: i64,
    },
}

/// The leases that `listing` calls for in addition to those that exist, given as `known` with the parents that each one
/// waits for.
///
/// A shard whose parent has a lease is read from its beginning, so that nothing between the two is skipped (R53). With
/// LATEST a first listing calls only for the shards that are open: what came before the pinned time is not wanted, and
/// what comes later is in those shards and their children. A listing without any open shard was made in the middle of
/// a reshard: then the closed ones are called for, and lead to their children. A later listing does not call for the
/// ancestors that the first one passed over: what they hold is older than the pinned time.
#[must_use]
pub fn plan_leases(
    listing: &[Shard],
    known: &BTreeMap<ShardId, Vec<ShardId>>,
    start: &Start,
) -> Vec<PlannedLease> {
    let first = known.is_empty();
    let listed: BTreeSet<&ShardId> = listing.iter().map(|shard| &shard.id).collect();
    let passed_over = match start {
        Start::Latest { .. } => passed_over(listing, known),
        _ => BTreeSet::new(),
    };
    let only_open = first && matches!(start, Start::Latest { .. }) && listing.iter().any(|shard| shard.open);
    listing
        .iter()
        .filter(|shard| !known.contains_key(&shard.id) && !passed_over.contains(&shard.id))
        .filter(|shard| shard.open || !only_open)
        .map(|shard| {
            let follows = shard.parents.iter().any(|parent| known.contains_key(parent));
            let position = match start {
                Start::TrimHorizon => Position::TrimHorizon,
                Start::AtTimestamp(time) => Position::AtTimestamp(*time),
                Start::Latest { .. } if follows => Position::TrimHorizon,
                Start::Latest { pinned } => Position::AtTimestamp(*pinned),
            };
            let is_there = |parent: &ShardId| listed.contains(parent) && !passed_over.contains(parent);
            let gates = |parent: &&ShardId| !only_open && (known.contains_key(*parent) || is_there(parent));
            PlannedLease {
                shard: shard.id.clone(),
                start: position,
                hash_range: shard.hash_range,
                parents: shard.parents.iter().filter(gates).cloned().collect(),
            }
        })
        .collect()
}

/// The shards that the first listing under LATEST did not call for: ancestors of leases that do not wait for them.
fn passed_over<'a>(
    listing: &'a [Shard],
    known: &'a BTreeMap<ShardId, Vec<ShardId>>,
) -> BTreeSet<&'a ShardId> {
    let listed: BTreeMap<&ShardId, &Shard> = listing.iter().map(|shard| (&shard.id, shard)).collect();
    let unknown = |parents: &'a [ShardId]| parents.iter().filter(|parent| !known.contains_key(*parent));
    let with_ancestors = |from: Vec<&'a ShardId>| {
        let (mut found, mut queue) = (BTreeSet::new(), from);
        while let Some(shard) = queue.pop() {
            if found.insert(shard) {
                queue.extend(listed.get(shard).into_iter().flat_map(|shard| unknown(&shard.parents)));
            }
        }
        found
    };
    let of_leases = known.keys().filter_map(|shard| listed.get(shard));
    let not_waited_for = of_leases.flat_map(|shard| {
        let gates = known.get(&shard.id);
        unknown(&shard.parents).filter(move |parent| !gates.is_some_and(|gates| gates.contains(parent)))
    });
    let waited_for = with_ancestors(known.values().flat_map(|gates| unknown(gates)).collect());
    let passed_over = with_ancestors(not_waited_for.collect());
    passed_over.difference(&waited_for).copied().collect()
}

/// The shards that the stream no longer has: those that a shard of a complete listing descends from, by the listing or
/// by the leases' parents, and that it does not show.
///
/// A shard that is missing from a listing without a descendant in it may be still to come: listings lag behind (I9).
#[must_use]
pub fn gone_shards<'a>(
    listed: &'a BTreeMap<ShardId, Vec<ShardId>>,
    lease_parents: impl Fn(&ShardId) -> &'a [ShardId],
) -> BTreeSet<&'a ShardId> {
    let mut gone = BTreeSet::new();
    let mut queue: Vec<&ShardId> =
        listed.iter().flat_map(|(shard, parents)| parents.iter().chain(lease_parents(shard))).collect();
    while let Some(shard) = queue.pop() {
        if !listed.contains_key(shard) && gone.insert(shard) {
            queue.extend(lease_parents(shard));
        }
    }
    gone
}

/// Whether a shard may start, given its parents, the checkpoint of each lease and the shards that are gone (I9).
///
/// All parents must be durably at their end. A parent without a lease counts as ended if the shard is gone from the stream
/// ([`gone_shards`]). Otherwise its lease is still to come: leases are not created all at once. A shard that has been read
/// passed this gate then, and its parents' leases may have been deleted since.
#[must_use]
pub fn may_start<'a>(
    shard: &ShardId,
    parents: &[ShardId],
    checkpoint: impl Fn(&ShardId) -> Option<&'a Position>,
    gone: &BTreeSet<&ShardId>,
) -> bool {
    let has_ended = |parent: &ShardId| match checkpoint(parent) {
        Some(at) => *at == Position::ShardEnd,
        None => gone.contains(parent),
    };
    checkpoint(shard).is_some_and(has_been_read) || parents.iter().all(has_ended)
}

/// A shard at a sequence number has been read; at a start it may not have been.
const fn has_been_read(at: &Position) -> bool {
    matches!(at, Position::After(_) | Position::ShardEnd)
}

/// A lease, as far as lineage goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNode<'a> {
    /// The shard.
    pub shard: &'a ShardId,
    /// The shards that must be at their end before it starts.
    pub parents: &'a [ShardId],
    /// How far it has come.
    pub checkpoint: &'a Position,
    /// No worker holds it: it has no owner, or one that is dead or has not renewed it for a lease time (I11).
    pub free: bool,
    /// The stream no longer has the shard ([`gone_shards`]).
    pub gone: bool,
}

/// The leases that are no longer needed, the oldest first. They must be deleted in this order; if that fails or is
/// refused, the rest are left for a later attempt.
///
/// A lease whose shard the stream still knows stays: without it the shard would be read again (incident 40). So does one
/// with a child that has not been read: the child's gate asks for it. The service forgets shards from the oldest on, so
/// one that it seems to have forgotten before its parents stays, too, and nothing is deleted out of the middle of a line:
/// the rest would never be known to be gone.
#[must_use]
pub fn finished_leases<'a>(leases: &[LeaseNode<'a>]) -> Vec<&'a ShardId> {
    let unread = leases.iter().filter(|lease| !has_been_read(lease.checkpoint));
    let needed: BTreeSet<&ShardId> = unread.flat_map(|lease| lease.parents).collect();
    let is_over = |lease: &LeaseNode<'_>| *lease.checkpoint == Position::ShardEnd && lease.gone;
    // A parent that an unread sibling needs stays known to be gone through that sibling.
    let is_kept_aside = |lease: &LeaseNode<'_>| is_over(lease) && needed.contains(lease.shard);
    let mut in_the_way: BTreeSet<&ShardId> =
        leases.iter().filter(|lease| !is_kept_aside(lease)).map(|lease| lease.shard).collect();
    let mut rest: Vec<&LeaseNode<'a>> =
        leases.iter().filter(|lease| is_over(lease) && lease.free && !needed.contains(lease.shard)).collect();
    let mut finished = Vec::new();
    loop {
        let (next, later): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|lease| !lease.parents.iter().any(|parent| in_the_way.contains(parent)));
        if next.is_empty() {
            return finished;
        }
        for lease in next {
            in_the_way.remove(lease.shard);
            finished.push(lease.shard);
        }
        rest = later;
    }
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
