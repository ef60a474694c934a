//! Shardmill's engine: pure state machines for stream event source mappings.
//!
//! Fully deterministic: no IO, no clock, no entropy, no environment. Time, randomness and results come in as arguments;
//! what to do next comes out as values.

mod fleet;
mod intake;
mod mapping;
mod position;
mod record;
mod time;

pub use fleet::LeaseKey;
pub use intake::{ChildShard, Intake, Page, intake};
pub use mapping::{
    EventSource, EventSourceMapping, FailureDestination, MappingBuilder, MappingError, MappingErrorKind,
    MappingErrors, OnDestinationFailure, Polling, Retry, limits,
};
pub use position::{Position, Seq, SequenceNumber};
pub use record::{Batch, Data, InvalidBase64, Record, ShardId};
pub use time::{Mono, Now, Wall};
