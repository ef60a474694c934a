//! Shardmill's engine: pure state machines for stream event source mappings.
//!
//! Fully deterministic: no IO, no clock, no entropy, no environment. Time, randomness and results come in as arguments;
//! what to do next comes out as values.

mod event;
mod failure;
mod fleet;
mod intake;
#[doc(hidden)]
pub mod invariant;
mod mapping;
mod outcome;
mod position;
mod record;
mod request;
mod retry;
mod shard;
mod time;

pub use event::{EventContext, encode};
pub use failure::{Condition, FailedBatch, FunctionResponse};
pub use fleet::LeaseKey;
pub use intake::{ChildShard, Intake, Page, intake};
pub use mapping::{EventSourceMapping, OnDestinationFailure, Polling, Retry};
pub use outcome::{BatchResponse, InvalidResponse, Outcome};
pub use position::{Position, Seq, SequenceNumber};
pub use record::{Batch, Data, InvalidBase64, Record, ShardId};
pub use request::RequestId;
pub use shard::{
    Counters, DiscardId, Exit, FetchFault, Invocation, LaneId, LaneSnapshot, ShardAction, ShardEvent,
    ShardMachine, ShardSnapshot,
};
pub use time::{Mono, Now, Wall};
