//! Test kit for stream handlers: a Kinesis and DynamoDB streams in memory behind the real SDK clients, a TCP proxy that breaks connections,
//! and a server of prepared pages for benchmarks.
//!
//! Nothing here needs Docker, an AWS account or another language's runtime. Everything binds to 127.0.0.1 only.
//!
//! # A Kinesis in the test's own process
//!
//! [`FakeKinesis`] keeps streams in memory and answers the real `aws-sdk-kinesis` client, without a socket, so it also
//! works under paused tokio time: a test about minutes takes milliseconds. What [`FakeKinesis::put`] returned is the
//! independent observer's side of "nothing was lost": compare it with what the handler stored.
//!
//! ```
//! use aws_sdk_kinesis::{Client, types::ShardIteratorType};
//! use shardmill_testkit::FakeKinesis;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fake = FakeKinesis::new();
//! fake.create_stream("orders", 4)?;
//! let put = fake.put("orders", Some("customer-7"), "an order")?;
//!
//! let client = Client::new(&fake.sdk_config());
//! let iterator = client
//!     .get_shard_iterator()
//!     .stream_name("orders")
//!     .shard_id(&put.shard_id)
//!     .shard_iterator_type(ShardIteratorType::TrimHorizon)
//!     .send()
//!     .await?;
//! let page = client.get_records().set_shard_iterator(iterator.shard_iterator).send().await?;
//! assert_eq!(page.records()[0].sequence_number(), put.sequence_number);
//! # Ok(())
//! # }
//! ```
//!
//! A program in another process, such as the sidecar, reaches the same fake over HTTP, [`FakeKinesis::serve`], or as it
//! reaches AWS, over TLS with HTTP/2: [`FakeKinesis::serve_tls`].
//!
//! # Faults
//!
//! [`FakeKinesis::faults`] decides what goes wrong, for which calls and how often; [`FakeKinesis::calls`] returns what
//! was called.
//!
//! ```
//! use shardmill_testkit::FakeKinesis;
//! use shardmill_testkit::kinesis::{Fault, Operation};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fake = FakeKinesis::new();
//! fake.create_stream("orders", 2)?;
//! let faults = fake.faults();
//! // The next three reads of one shard are throttled, then one is never answered.
//! let reads = faults.on(Operation::GetRecords).shard("shardId-000000000000");
//! reads.clone().times(3).inject(Fault::Throttle);
//! reads.skip(3).inject(Fault::Hang);
//! // Listings are refused and slow for as long as the guards live.
//! let refused = faults.on(Operation::ListShards).hold(Fault::AccessDenied);
//! let slow = faults.on(Operation::ListShards).hold(Fault::Latency(Duration::from_secs(2)));
//! // ... run the consumer ...
//! assert_eq!((refused.hits(), slow.hits()), (0, 0));
//! let reads = fake.calls().of(Operation::GetRecords).shard("shardId-000000000000");
//! assert!(reads.max_within(Duration::from_secs(1)) <= 5, "5 GetRecords a second and shard");
//! # Ok(())
//! # }
//! ```
//!
//! Lineage, trimming and time are the test's to move: [`split`](FakeKinesis::split), [`merge`](FakeKinesis::merge),
//! [`trim`](FakeKinesis::trim), [`forget_shard`](FakeKinesis::forget_shard),
//! [`set_clock_offset`](FakeKinesis::set_clock_offset), [`set_iterator_lifetime`](FakeKinesis::set_iterator_lifetime),
//! [`set_read_limits`](FakeKinesis::set_read_limits).
//!
//! # A DynamoDB stream
//!
//! [`FakeDynamoDbStreams`] is the same for `aws-sdk-dynamodbstreams`: the test writes items, its client reads what
//! changed, and shards roll over when the test says so.
//!
//! # DynamoDB tables
//!
//! [`FakeDynamoDb`] keeps tables for lease stores behind the real client, and counts what their calls would cost.
//!
//! # For programs in any language
//!
//! The program `shardmill-fake` serves all three in a process of its own, with every fault, and takes commands over HTTP:
//! docs/testing.md. [`Fakes`] is the same inside a test's process.
//!
//! # A bad network
//!
//! [`FaultProxy`] sits between any client and any server and changes its [`ProxyMode`] at run time; open connections
//! feel the change too.
//!
//! ```
//! use shardmill_testkit::{FakeKinesis, FaultProxy, ProxyMode};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let server = FakeKinesis::new().serve().await?;
//! let proxy = FaultProxy::start(server.address()).await?;
//! // Give `proxy.url()` to the program under test as AWS_ENDPOINT_URL_KINESIS, then:
//! proxy.set(ProxyMode::BlackHole).await?; // accepts and never answers
//! proxy.set(ProxyMode::Refuse).await?; // the port is closed
//! proxy.set(ProxyMode::Pass).await?; // all is well again, at the same port
//! # Ok(())
//! # }
//! ```
//!
//! # What the fake does not do
//!
//! Streams are active at once and a split or merge is done when it is answered. There are no consumers (enhanced
//! fan-out), tags, encryption, resource policies or capacity changes: such calls get `UnknownOperationException`.
//! Writes are never throttled unless a fault says so, and signatures are not checked.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cbor;
mod dynamodb;
mod fakes;
pub mod kinesis;
pub mod pages;
mod proxy;
mod service;
mod tables;

pub use dynamodb::{FakeDynamoDbStreams, StoredChange, StoredStreamShard};
pub use fakes::Fakes;
pub use kinesis::FakeKinesis;
pub use proxy::{FaultProxy, ProxyMode};
pub use service::TlsOptions;
pub use tables::{Bill, FakeDynamoDb};
