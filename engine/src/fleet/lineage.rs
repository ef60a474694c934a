//! Which leases a listing calls for, and when a shard may start.

use std::collections::{BTreeMap, BTreeSet};

use crate::position::Position;
use crate::record::ShardId;

/// A shard as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardNode {
    /// Its name.
    pub shard: ShardId,
    /// The shards that it follows; they may be gone.
    pub parents: Vec<ShardId>,
    /// Whether it takes new records.
    pub open: bool,
}

/// A lease that a listing calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLease {
    /// The shard.
    pub shard: ShardId,
    /// Where reading starts.
    pub start: Position,
    /// The shards that must be at their end first (I9).
    pub parents: Vec<ShardId>,
}

/// Where a mapping starts on shards that nobody has read yet.
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

/// The leases that `listing` calls for beside those that exist, given as `known` with the parents that each one waits for.
///
/// A shard whose parent has a lease is read from its beginning, so that nothing between the two is skipped (R53). With
/// LATEST a first listing calls only for the shards that are open: what came before the pinned time is not wanted, and
/// what comes later is in those shards and their children. A listing without any open shard was made in the middle of
/// a reshard: then the closed ones are called for, and lead to their children. A later listing does not call for the
/// ancestors that the first one passed over: what they hold is older than the pinned time.
#[must_use]
pub fn plan_leases(
    listing: &[ShardNode],
    known: &BTreeMap<ShardId, Vec<ShardId>>,
    start: &Start,
) -> Vec<PlannedLease> {
    let first = known.is_empty();
    let listed: BTreeSet<&ShardId> = listing.iter().map(|node| &node.shard).collect();
    let passed_over = match start {
        Start::Latest { .. } => passed_over(listing, known),
        _ => BTreeSet::new(),
    };
    let only_open = first && matches!(start, Start::Latest { .. }) && listing.iter().any(|node| node.open);
    listing
        .iter()
        .filter(|node| !known.contains_key(&node.shard) && !passed_over.contains(&node.shard))
        .filter(|node| node.open || !only_open)
        .map(|node| {
            let follows = node.parents.iter().any(|parent| known.contains_key(parent));
            let position = match start {
                Start::TrimHorizon => Position::TrimHorizon,
                Start::AtTimestamp(time) => Position::AtTimestamp(*time),
                Start::Latest { .. } if follows => Position::TrimHorizon,
                Start::Latest { pinned } => Position::AtTimestamp(*pinned),
            };
            let is_there = |parent: &ShardId| listed.contains(parent) && !passed_over.contains(parent);
            let gates = |parent: &&ShardId| !only_open && (known.contains_key(*parent) || is_there(parent));
            PlannedLease {
                shard: node.shard.clone(),
                start: position,
                parents: node.parents.iter().filter(gates).cloned().collect(),
            }
        })
        .collect()
}

/// The shards that the first listing under LATEST did not call for: ancestors of leases that do not wait for them.
fn passed_over<'a>(
    listing: &'a [ShardNode],
    known: &'a BTreeMap<ShardId, Vec<ShardId>>,
) -> BTreeSet<&'a ShardId> {
    let nodes: BTreeMap<&ShardId, &ShardNode> = listing.iter().map(|node| (&node.shard, node)).collect();
    let unknown = |parents: &'a [ShardId]| parents.iter().filter(|parent| !known.contains_key(*parent));
    let with_ancestors = |from: Vec<&'a ShardId>| {
        let (mut found, mut queue) = (BTreeSet::new(), from);
        while let Some(shard) = queue.pop() {
            if found.insert(shard) {
                queue.extend(nodes.get(shard).into_iter().flat_map(|node| unknown(&node.parents)));
            }
        }
        found
    };
    let of_leases = known.keys().filter_map(|shard| nodes.get(shard));
    let not_waited_for = of_leases.flat_map(|node| {
        let gates = known.get(&node.shard);
        unknown(&node.parents).filter(move |parent| !gates.is_some_and(|gates| gates.contains(parent)))
    });
    let waited_for = with_ancestors(known.values().flat_map(|gates| unknown(gates)).collect());
    let passed_over = with_ancestors(not_waited_for.collect());
    passed_over.difference(&waited_for).copied().collect()
}

/// Whether a shard may start, given its parents, every lease's checkpoint and the shards of the last listing (I9).
///
/// All parents must be durably at their end. A parent without a lease counts as ended if a listing shows the shard and not
/// the parent: it is gone from the stream. Otherwise its lease is still to come: a listing that does not show the shard
/// yet says nothing about its parents, and leases are not created all at once.
#[must_use]
pub fn may_start(
    shard: &ShardId,
    parents: &[ShardId],
    checkpoints: &BTreeMap<ShardId, Position>,
    listed: &BTreeSet<ShardId>,
) -> bool {
    let is_gone = |parent: &ShardId| listed.contains(shard) && !listed.contains(parent);
    parents.iter().all(|parent| match checkpoints.get(parent) {
        Some(at) => *at == Position::ShardEnd,
        None => is_gone(parent),
    })
}

/// A lease, as far as lineage goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNode {
    /// The shard.
    pub shard: ShardId,
    /// The shards that must be at their end before it starts.
    pub parents: Vec<ShardId>,
    /// How far it has come.
    pub checkpoint: Position,
}

/// The leases that nobody needs any more, given the shards of a complete listing.
///
/// A lease whose shard the stream still knows stays: without it the shard would be read again (incident 40). So does one
/// whose parents have leases, and one with a child that still starts: the child's gate reads it. What is left are the
/// oldest finished shards, generation by generation.
#[must_use]
pub fn finished_leases(leases: &[LeaseNode], listed: &BTreeSet<ShardId>) -> Vec<ShardId> {
    let known: BTreeSet<&ShardId> = leases.iter().map(|lease| &lease.shard).collect();
    // A child at a sequence number has been read; at a start it may not have been.
    let has_started = |at: &Position| matches!(at, Position::After(_) | Position::ShardEnd);
    let needed: BTreeSet<&ShardId> = leases
        .iter()
        .filter(|lease| !has_started(&lease.checkpoint))
        .flat_map(|lease| &lease.parents)
        .collect();
    let parents: BTreeSet<&ShardId> = leases.iter().flat_map(|lease| &lease.parents).collect();
    leases
        .iter()
        .filter(|lease| lease.checkpoint == Position::ShardEnd && !listed.contains(&lease.shard))
        .filter(|lease| !lease.parents.iter().any(|parent| known.contains(parent)))
        .filter(|lease| parents.contains(&lease.shard) && !needed.contains(&lease.shard))
        .map(|lease| lease.shard.clone())
        .collect()
}

/// The parts of the hash key space, both ends inclusive, that no shard of `ranges` covers. The ranges may overlap.
///
/// Kinesis divides 0 to 2^128-1 among its open shards; a hole in a listing says that it lags behind or is broken.
#[must_use]
pub fn uncovered(ranges: impl IntoIterator<Item = (u128, u128)>) -> Vec<(u128, u128)> {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let mut holes = Vec::new();
    let mut next = Some(0_u128);
    for (start, end) in ranges {
        let Some(from) = next else { break };
        if start > from {
            holes.push((from, start - 1));
        }
        next = end.checked_add(1).map(|after| after.max(from));
    }
    holes.extend(next.map(|from| (from, u128::MAX)));
    holes
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
