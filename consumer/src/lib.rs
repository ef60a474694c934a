//! Shardmill: AWS Lambda's stream event source mapping for workers that you run yourself.
//!
//! A [`Consumer`] reads every shard of a stream that its [`Worker`] gets a lease for, in order, and hands batches to a
//! [`Handler`]. Failed batches are retried, bisected, cut by partial responses and finally delivered to a
//! [`Destination`] by Lambda's rules, under the configuration of an [`EventSourceMapping`]; positions live in a
//! [`LeaseStore`](checkpoint::LeaseStore).
//!
//! | part | trait | here |
//! |---|---|---|
//! | stream | [`StreamSource`] | [`KinesisSource`] (feature `kinesis`), [`DynamoDbSource`] (feature `dynamodb-streams`) |
//! | function | [`Handler`] | functions and closures, `LambdaHandler` (feature `lambda`) |
//! | positions and leases | [`checkpoint::LeaseStore`] | [`checkpoint::SqliteStore`], `checkpoint::DynamoDbStore` and `checkpoint::KclStore` (feature `dynamodb`), [`checkpoint::MemoryStore`] |
//! | discarded batches | [`Destination`] | [`SqsDestination`] (feature `sqs`), `SnsDestination` (feature `sns`), `S3Destination` (feature `s3`), [`FileDestination`] |
//!
//! Records are delivered at least once. After a crash exactly those above the stored checkpoint are redelivered.
//!
//! # Example
//!
//! A whole run, against a Kinesis in memory:
//!
//! ```
//! use shardmill::checkpoint::MemoryStore;
//! use shardmill::{
//!     Batch, CancellationToken, Consumer, EventSourceMapping, HandlerError, InvokeContext, KinesisSource,
//! };
//! use shardmill_testkit::FakeKinesis;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kinesis = FakeKinesis::new();
//! kinesis.create_stream("orders", 1)?;
//! kinesis.put("orders", Some("customer-7"), r#"{"order": 1}"#)?;
//!
//! let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
//! let mapping = EventSourceMapping::builder(arn, "orders-worker").build()?;
//! // Elsewhere: aws_config::load_from_env().await
//! let source = KinesisSource::new(&kinesis.sdk_config(), mapping.event_source())?;
//!
//! // Elsewhere: shutdown_on_signals()
//! let shutdown = CancellationToken::new();
//! let seen = shutdown.clone();
//! let handler = move |batch: Batch, _: InvokeContext| {
//!     let seen = seen.clone();
//!     async move {
//!         let order: serde_json::Value = batch.records()[0].json()?;
//!         assert_eq!(order["order"], 1);
//!         seen.cancel();
//!         Ok::<_, HandlerError>(())
//!     }
//! };
//! let store = MemoryStore::default();
//! Consumer::builder(mapping, source, handler).lease_store(store.clone()).build()?.run(shutdown).await?;
//! # use shardmill::{Position, checkpoint::LeaseStore as _};
//! # assert!(matches!(store.list().await?[0].checkpoint, Position::After(_)));
//! # Ok(())
//! # }
//! ```
//!
//! # Numbers such as R12, P5 and I5
//!
//! R1 to R80 are rules of Lambda's stream event source mapping, as AWS documents it or as it was observed, and P1 to
//! P19 its parameters: [`semantics`] states them. I1 to I17 are the [`invariants`] that Shardmill keeps beyond Lambda's
//! rules. In the repository, `docs/rules.md` names the tests of each rule, and `docs/deviations.md` says where Shardmill
//! differs.
//!
//! # What cannot be misused
//!
//! [`ConsumerBuilder::build`] refuses what a run would have to ignore: a mapping that names an on-failure destination
//! without one in the consumer, a disabled mapping, a source of another stream than the mapping's, options out of their
//! range. [`BuildError`] and [`WorkerError`] have the list.
//!
//! # Metrics and tracing
//!
//! The library emits metrics through the `metrics` facade and events through `tracing`, with a span `shard` for every
//! shard's run and a span `invocation` for every invocation; the embedding program installs recorder and subscriber.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(any(feature = "dynamodb-streams", feature = "kinesis")),
    allow(dead_code, reason = "the pace of reads is for polling sources")
)]

mod beginning;
mod budget;
mod builder;
mod clock;
#[cfg(any(feature = "conformance", test))]
pub mod conformance;
#[cfg(feature = "aws")]
mod connections;
mod consumer;
mod context;
mod destination;
mod discovery;
mod driver;
mod error_report;
mod handler;
#[cfg(feature = "lambda")]
mod handler_lambda;
mod keeper;
mod listed;
mod mapping_file;
mod metrics;
mod notes;
mod pin;
mod places;
mod reach;
mod run;
mod signals;
mod source;
mod status;
mod stopping;
mod stream;
mod suspended;
mod trouble;
mod unread;
#[cfg(any(
    feature = "dynamodb-streams",
    feature = "kinesis",
    feature = "s3",
    feature = "sns",
    feature = "sqs"
))]
mod web_page;
mod worker;

pub use builder::{BuildError, ConsumerBuilder};
pub use clock::ServiceClock;
#[cfg(feature = "aws")]
pub use connections::Connections;
pub use consumer::Consumer;
#[cfg(feature = "s3")]
pub use destination::S3Destination;
#[cfg(feature = "sns")]
pub use destination::SnsDestination;
#[cfg(feature = "sqs")]
pub use destination::SqsDestination;
#[cfg(feature = "aws")]
pub use destination::connect as connect_destination;
pub use destination::{Destination, DestinationError, Discarded, FailureNames, FileDestination, Probe};
pub use error_report::ErrorReport;
pub use handler::{Handler, HandlerError, HandlerOutput, InvokeContext};
#[cfg(feature = "lambda")]
pub use handler_lambda::LambdaHandler;
pub use keeper::{FleetReport, LeaseReport};
pub use mapping_file::{FromFile, MappingFileError};
pub use metrics::{METRICS, MetricDescription, MetricKind};
pub use places::Places;
pub use run::{RunError, RunReport};
pub use shardmill_checkpoint as checkpoint;
pub use shardmill_engine as engine;
pub use shardmill_engine::{
    AnswerEncoding, Batch, BatchResponse, Data, DynamoDbRecord, EventSourceMapping, FailureDestination,
    HashRange, Page, Payload, Position, Record, RecordError, RequestId, Seq, SequenceNumber, Shard, ShardId,
    ShownUrl, StartingPosition, WindowCall,
};
#[doc(inline)]
pub use shardmill_engine::{invariants, semantics};
pub use signals::shutdown_on_signals;
#[cfg(feature = "dynamodb-streams")]
pub use source::DynamoDbSource;
#[cfg(feature = "kinesis")]
pub use source::KinesisSource;
pub use source::{
    ReadLimiter, ShardListing, ShardReader, SourceContext, SourceError, SourceErrorKind, StreamSource,
    StreamSummary,
};
pub use status::{ConsumerReport, ConsumerStatus, RunState, ShardReport};
pub use tokio_util::sync::CancellationToken;
pub use trouble::{LaneTrouble, TroubleKind, TroubleReport};
pub use worker::{Worker, WorkerError, WorkerOptions};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
