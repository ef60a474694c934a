//! One shard's state machine: when to read, what to invoke, what to give up, how far the checkpoint goes.

mod discard;
mod lane;
mod machine;
mod progress;
mod reader;
mod snapshot;
mod watermark;

pub use discard::DiscardId;
pub use lane::LaneId;
pub use machine::{Exit, FetchFault, Invocation, ShardAction, ShardEvent, ShardMachine};
pub use snapshot::{Counters, LaneSnapshot, ShardSnapshot};

#[cfg(test)]
mod tests;
