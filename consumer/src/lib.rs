//! Shardmill: AWS Lambda's stream event source mapping for workers that you run yourself.

mod clock;
mod destination;
mod handler;
mod source;

pub use clock::ServiceClock;
pub use destination::{Destination, DestinationError, Failure, FailureNames};
pub use handler::{Handler, HandlerError, InvokeContext};
pub use shardmill_checkpoint as checkpoint;
pub use shardmill_engine as engine;
pub use shardmill_engine::{
    Batch, BatchResponse, Data, Page, Position, Record, RequestId, Seq, SequenceNumber, ShardId,
};
#[cfg(feature = "kinesis")]
pub use source::{KinesisSource, KinesisStream, ReadLimiter};
pub use source::{ListedShard, ShardListing, ShardReader, SourceError, SourceErrorKind, StreamSource};
