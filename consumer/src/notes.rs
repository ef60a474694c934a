//! What a lease remembers beside its checkpoint, and where its run begins by it.

use std::time::Duration;

use shardmill_checkpoint::Lease;
use shardmill_engine::{Position, Resume, Wall};

/// Under this name a lease remembers the time to which LATEST was pinned (I15).
pub(crate) const PINNED_START: &str = "pinnedStart";
/// Under this name a lease remembers which tumbling windows are closed (I8).
pub(crate) const EARLIEST_WINDOW: &str = "earliestWindow";
/// Under this name a lease remembers the time up to which everything that arrived in the shard is resolved (I17).
pub(crate) const READ_THROUGH: &str = "readThrough";

/// Where the run of a lease that was just acquired goes on.
pub(crate) fn resume(lease: Lease, retention: Option<Duration>) -> Resume {
    let time = |name| lease.app.get(name).and_then(|text| text.parse().ok()).map(Wall::from_millis);
    // Whatever arrived before the time to which LATEST was pinned is not wanted.
    let pinned = || match lease.checkpoint {
        Position::AtTimestamp(_) => time(PINNED_START),
        _ => None,
    };
    Resume {
        earliest_window: time(EARLIEST_WINDOW),
        read_through: time(READ_THROUGH).or_else(pinned),
        checkpoint: lease.checkpoint,
        retention,
    }
}

/// Where a shard starts whose parent was read to its end: its beginning, but never before a configured time.
pub(crate) fn child_start(starting_position: &Position) -> Position {
    match starting_position {
        Position::AtTimestamp(time) => Position::AtTimestamp(*time),
        _ => Position::TrimHorizon,
    }
}
