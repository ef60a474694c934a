//! Shardmill: AWS Lambda's stream event source mapping for workers that you run yourself.

mod budget;
mod clock;
mod consumer;
mod destination;
mod discovery;
mod driver;
mod handler;
#[cfg(feature = "lambda")]
mod handler_lambda;
mod keeper;
mod metrics;
mod run;
mod source;
mod status;
mod worker;

pub use clock::ServiceClock;
pub use consumer::{BuildError, Consumer, ConsumerBuilder, RunError, RunReport};
#[cfg(feature = "sqs")]
pub use destination::SqsDestination;
pub use destination::{Destination, DestinationError, Failure, FailureNames, FileDestination};
pub use handler::{Handler, HandlerError, InvokeContext};
#[cfg(feature = "lambda")]
pub use handler_lambda::LambdaHandler;
pub use keeper::LeaseReport;
pub use shardmill_checkpoint as checkpoint;
pub use shardmill_engine as engine;
pub use shardmill_engine::{
    Batch, BatchResponse, Data, EventSourceMapping, Page, Position, Record, RequestId, Seq, SequenceNumber,
    ShardId,
};
#[cfg(feature = "kinesis")]
pub use source::{KinesisSource, KinesisStream};
pub use source::{
    ListedShard, ReadLimiter, ShardListing, ShardReader, SourceError, SourceErrorKind, StreamSource,
};
pub use status::{ConsumerReport, ConsumerStatus, ErrorReport, RunState, ShardReport};
pub use tokio_util::sync::CancellationToken;
pub use worker::{Worker, WorkerOptions};
