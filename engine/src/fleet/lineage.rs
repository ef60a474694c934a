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

/// The leases that `listing` calls for beside those that exist, given as `known`.
///
/// A shard whose parent has a lease is read from its beginning, so that nothing between the two is skipped (R53). With
/// LATEST a first listing calls only for the shards that are open: what came before the pinned time is not wanted, and
/// what comes later is in those shards and their children. A listing without any open shard was made in the middle of
/// a reshard: then the closed ones are called for, and lead to their children.
#[must_use]
pub fn plan_leases(listing: &[ShardNode], known: &BTreeSet<ShardId>, start: &Start) -> Vec<PlannedLease> {
    let first = known.is_empty();
    let listed: BTreeSet<&ShardId> = listing.iter().map(|node| &node.shard).collect();
    let only_open = first && matches!(start, Start::Latest { .. }) && listing.iter().any(|node| node.open);
    listing
        .iter()
        .filter(|node| !known.contains(&node.shard) && (node.open || !only_open))
        .map(|node| {
            let follows = node.parents.iter().any(|parent| known.contains(parent));
            let position = match start {
                Start::TrimHorizon => Position::TrimHorizon,
                Start::AtTimestamp(time) => Position::AtTimestamp(*time),
                Start::Latest { .. } if follows => Position::TrimHorizon,
                Start::Latest { pinned } => Position::AtTimestamp(*pinned),
            };
            let gates =
                |parent: &&ShardId| !only_open && (known.contains(*parent) || listed.contains(*parent));
            PlannedLease {
                shard: node.shard.clone(),
                start: position,
                parents: node.parents.iter().filter(gates).cloned().collect(),
            }
        })
        .collect()
}

/// Whether a shard with these parents may start, given every lease's checkpoint: all parents durably at their end (I9).
/// A parent without a lease counts as ended: leases are created parents first and no later than their children.
#[must_use]
pub fn may_start(parents: &[ShardId], checkpoints: &BTreeMap<ShardId, Position>) -> bool {
    parents.iter().all(|parent| checkpoints.get(parent).is_none_or(|at| *at == Position::ShardEnd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, parents: &[&str], open: bool) -> ShardNode {
        ShardNode { shard: name.into(), parents: parents.iter().map(|p| ShardId::from(*p)).collect(), open }
    }

    fn plan(listing: &[ShardNode], known: &[&str], start: &Start) -> Vec<(String, Position, Vec<String>)> {
        let known = known.iter().map(|name| ShardId::from(*name)).collect();
        plan_leases(listing, &known, start)
            .into_iter()
            .map(|l| (l.shard.to_string(), l.start, l.parents.iter().map(ToString::to_string).collect()))
            .collect()
    }

    /// a split into b and c, which merged into d; x was trimmed.
    fn lineage() -> Vec<ShardNode> {
        vec![
            node("a", &["x"], false),
            node("b", &["a"], false),
            node("c", &["a"], false),
            node("d", &["b", "c"], true),
        ]
    }

    #[test]
    fn trim_horizon_calls_for_every_listed_shard_and_a_trimmed_parent_does_not_gate() {
        let planned = plan(&lineage(), &[], &Start::TrimHorizon);
        let parents: Vec<_> = planned.iter().map(|(_, _, parents)| parents.join(",")).collect();
        assert_eq!(parents, ["", "a", "a", "b,c"]);
        assert!(planned.iter().all(|(_, start, _)| *start == Position::TrimHorizon));
    }

    #[test]
    fn i15_latest_calls_for_open_shards_at_the_pinned_time_and_for_later_children_from_their_beginning() {
        let start = Start::Latest { pinned: 77 };
        assert_eq!(plan(&lineage(), &[], &start), [("d".to_owned(), Position::AtTimestamp(77), vec![])]);
        let mut later = lineage();
        later[3].open = false;
        later.extend([node("e", &["d"], true), node("f", &["d"], true)]);
        let planned = plan(&later, &["a", "b", "c", "d"], &start);
        assert_eq!(planned[0], ("e".to_owned(), Position::TrimHorizon, vec!["d".to_owned()]));
        assert_eq!(planned.len(), 2);
    }

    #[test]
    fn i15_a_shard_that_an_interrupted_first_listing_missed_starts_at_the_pinned_time() {
        let listing = [node("a", &[], true), node("b", &[], false), node("c", &["b"], true)];
        let planned = plan(&listing, &["a"], &Start::Latest { pinned: 77 });
        assert_eq!(planned[0], ("b".to_owned(), Position::AtTimestamp(77), vec![]));
        assert_eq!(planned[1], ("c".to_owned(), Position::AtTimestamp(77), vec!["b".to_owned()]));
    }

    #[test]
    fn i15_a_listing_in_the_middle_of_a_reshard_pins_latest_at_the_closed_shards() {
        let planned = plan(&[node("a", &[], false)], &[], &Start::Latest { pinned: 77 });
        assert_eq!(planned, [("a".to_owned(), Position::AtTimestamp(77), vec![])], "incident 33");
    }

    #[test]
    fn at_timestamp_holds_across_reshards() {
        let planned = plan(&lineage(), &["a"], &Start::AtTimestamp(5));
        assert!(planned.iter().all(|(_, start, _)| *start == Position::AtTimestamp(5)), "incident 38");
    }

    #[test]
    fn i9_a_merged_shard_waits_for_both_parents() {
        let at =
            |b: &Position, c: &Position| BTreeMap::from([("b".into(), b.clone()), ("c".into(), c.clone())]);
        let parents = ["b".into(), "c".into()];
        assert!(!may_start(&parents, &at(&Position::ShardEnd, &Position::TrimHorizon)));
        assert!(may_start(&parents, &at(&Position::ShardEnd, &Position::ShardEnd)));
        assert!(may_start(&parents, &BTreeMap::from([("b".into(), Position::ShardEnd)])), "c is gone");
    }
}
