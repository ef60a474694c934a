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
mod json;
mod mapping;
mod outcome;
mod position;
mod record;
mod request;
mod retry;
mod shard;
mod time;

pub use event::{EventContext, encode, encoded_len};
pub use failure::{
    Condition, FailedBatch, FailureNames, FunctionResponse, message as failure_message,
    object as failure_object,
};
pub use fleet::{
    LeaseAction, LeaseEvent, LeaseKey, LeaseMachine, LeasePhase, LeaseTimes, LeaseView, OwnerView,
    PlannedLease, ShardNode, Start, may_start, plan_leases,
};
pub use intake::{ChildShard, Intake, Page, intake};
pub use mapping::{
    EventSource, EventSourceMapping, FailureDestination, MappingBuilder, MappingError, MappingErrorKind,
    MappingErrors, OnDestinationFailure, Polling, Retry, limits,
};
pub use outcome::{BatchResponse, InvalidResponse, Outcome};
pub use position::{Position, Seq, SequenceNumber};
pub use record::{Batch, Data, InvalidBase64, Record, ShardId};
pub use request::RequestId;
pub use shard::{
    Counters, DiscardId, Exit, FetchFault, Invocation, LaneId, LaneSnapshot, ShardAction, ShardEvent,
    ShardMachine, ShardSnapshot,
};
pub use time::{Mono, Now, Wall};
