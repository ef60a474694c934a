//! One shard's state machine: when to read, what to invoke, what to discard, how far the checkpoint goes.

mod discard;
mod exchange;
mod gap;
mod lane;
mod machine;
mod progress;
mod reader;
mod rng;
mod slots;
mod snapshot;
mod watermark;

pub use discard::DiscardId;
pub use exchange::{Exit, FetchFault, Invocation, Resume, ShardAction, ShardEvent};
pub use gap::{Gap, GapKind};
pub use lane::{AnswerProblem, LaneId, PlaceRule, Verdict};
pub use machine::ShardMachine;
pub use snapshot::{Counters, LaneSnapshot, LastResult, Oversized, ShardSnapshot};

#[cfg(test)]
mod tests;
