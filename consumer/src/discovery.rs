//! Finds the stream's shards and creates their leases.

use std::collections::{BTreeMap, BTreeSet};

use shardmill_checkpoint::{AppState, HashRange, Lease, NewLease};
use shardmill_engine::{
    EventSourceMapping, LeaseKey, Position, ShardId, ShardNode, Start, Wall, plan_leases,
};

use crate::keeper::{KeeperError, Leases, Served};
use crate::source::{ShardListing, SourceError, StreamSource};

/// Under this name a lease remembers the time to which LATEST was pinned (I15).
const PINNED_START: &str = "pinnedStart";

/// Why shards could not be found, or their leases not be created. Tried again with backoff.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
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
}

/// Lists the stream and creates the leases that are missing. `now` is the service's time, in case the listing does not
/// carry it.
pub(crate) async fn discover(
    source: &dyn StreamSource,
    leases: &Leases,
    mapping: &EventSourceMapping,
    now: impl Fn() -> Wall,
) -> Result<Discovered, DiscoveryError> {
    let listing = source.shards().await?;
    let of_stream = stream_key(mapping, &listing);
    let known: Vec<Lease> =
        leases.list().await?.into_iter().filter(|lease| lease.key.is_sibling_of(&of_stream)).collect();
    let listed = listing.shards.iter().map(|shard| shard.shard.clone()).collect();
    leases.serve(Served { stream: of_stream.clone(), listed });
    let start = start(mapping.starting_position(), &known, listing.service_time.unwrap_or_else(now));
    let new = new_leases(&listing, &of_stream, &known, &start);
    if new.is_empty() {
        return Ok(Discovered { created: 0, known: known.len(), epoch: listing.epoch });
    }
    let planned = new.len();
    let created = leases.create(new).await?;
    Ok(Discovered { created, known: known.len() + planned, epoch: listing.epoch })
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

/// LATEST is pinned once: by whoever creates the stream's first lease (I15).
fn start(position: &Position, known: &[Lease], now: Wall) -> Start {
    match position {
        Position::AtTimestamp(time) => Start::AtTimestamp(*time),
        Position::Latest => {
            let pinned = known.iter().filter_map(|lease| lease.app.get(PINNED_START)?.parse().ok()).min();
            // The service's clock is known to the second only: an earlier start delivers a second's records more, a
            // later one would skip some.
            let whole_second = now.as_millis().div_euclid(1000) * 1000;
            Start::Latest { pinned: pinned.unwrap_or(whole_second) }
        }
        _ => Start::TrimHorizon,
    }
}

fn new_leases(listing: &ShardListing, stream: &LeaseKey, known: &[Lease], start: &Start) -> Vec<NewLease> {
    let nodes: Vec<ShardNode> = listing
        .shards
        .iter()
        .map(|shard| ShardNode {
            shard: shard.shard.clone(),
            parents: shard.parents.clone(),
            open: shard.open,
        })
        .collect();
    let ranges: BTreeMap<&ShardId, _> =
        listing.shards.iter().map(|s| (&s.shard, s.hash_range.as_ref())).collect();
    let known: BTreeSet<ShardId> = known.iter().map(|lease| lease.key.shard.clone()).collect();
    plan_leases(&nodes, &known, start)
        .into_iter()
        .map(|planned| {
            let mut app = AppState::new();
            if let Start::Latest { pinned } = start {
                app.insert(PINNED_START.to_owned(), pinned.to_string());
            }
            let range = ranges.get(&planned.shard).copied().flatten();
            NewLease {
                hash_range: range.map(|(start, end)| HashRange { start: start.clone(), end: end.clone() }),
                key: stream.sibling(planned.shard),
                checkpoint: planned.start,
                parents: planned.parents,
                app,
            }
        })
        .collect()
}
