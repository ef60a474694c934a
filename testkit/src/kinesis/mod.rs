//! [`FakeKinesis`]: Kinesis Data Streams in memory.

mod api;
mod input;
mod listing;
mod reading;
mod sequence;
mod settings;
mod state;

pub use crate::service::{
    Call, Calls, FakeError, Fault, FaultGuard, FaultRule, Faults, InjectedFault, Operation, Response, Server,
    TlsOptions,
};

use crate::service::{Asked, CallLog, Reply, Service, Shape, config, http_client, serve, through_faults};
use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use input::Input;
use parking_lot::{Mutex, MutexGuard};
use state::{Stream, StreamKey, World};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;
use tokio::time::Instant;

/// Kinesis Data Streams in memory, for tests. Cheap to clone; clones are the same service.
///
/// A stream is meant by its name (account `000000000000`, region `us-east-1`) or by its ARN; streams of different
/// accounts or regions are different streams. The [crate's page](crate) shows it at work.
///
/// # Time
///
/// The fake's wall clock starts at the host's time and then runs with [`tokio::time`]: under paused tokio time it stands
/// still until the test (or tokio's auto-advance) moves it. [`set_clock_offset`](Self::set_clock_offset) makes it
/// differ from the host's. It is what arrival timestamps, iterator lifetimes, retention and `Date` headers go by.
#[derive(Debug, Clone)]
pub struct FakeKinesis {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    faults: Faults,
    calls: CallLog,
    started: Instant,
    started_ms: u64,
    offset_ms: AtomicI64,
}

/// Where a record went: what `PutRecord` answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placed {
    /// The shard's id.
    pub shard_id: String,
    /// The record's sequence number: 56 digits.
    pub sequence_number: String,
}

/// A record as the fake accepted it: what an independent observer compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// The shard's id.
    pub shard_id: String,
    /// The record's sequence number: 56 digits, so that comparing texts compares numbers.
    pub sequence_number: String,
    /// Absent when the producer gave none.
    pub partition_key: Option<String>,
    /// The data, not in base64.
    pub data: Bytes,
    /// When it arrived: ms since 1970 by the fake's clock.
    pub arrival_ms: u64,
}

/// A shard as the fake holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredShard {
    /// `shardId-` and twelve digits.
    pub id: String,
    /// Lowest and highest hash key, both included.
    pub hash_range: (u128, u128),
    /// The shard that was split, or the first of the two that were merged.
    pub parent: Option<String>,
    /// The second of the two that were merged.
    pub adjacent_parent: Option<String>,
    /// Whether it still takes records.
    pub open: bool,
    /// Whether it has outlived its retention: not listed and not readable any more.
    pub forgotten: bool,
}

impl Default for FakeKinesis {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeKinesis {
    /// A service without streams.
    #[must_use]
    pub fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let shared = Shared {
            world: Mutex::default(),
            faults: Faults::default(),
            calls: CallLog::default(),
            started: Instant::now(),
            started_ms: u64::try_from(since_1970.as_millis()).unwrap_or(0),
            offset_ms: AtomicI64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Answers a request without transport, faults, call log or clock. `target` is the `x-amz-target` header
    /// (or a bare operation name), `now_ms` the time of the call in ms since 1970.
    #[must_use]
    pub fn handle(&self, target: &str, body: &[u8], now_ms: u64) -> Response {
        self.carry_out(target, Input::parse(body), now_ms, &Shape::default())
    }

    fn carry_out(
        &self,
        target: &str,
        input: Result<Input, FakeError>,
        now_ms: u64,
        shape: &Shape,
    ) -> Response {
        let mut world = self.world();
        world.request += 1;
        let request = world.request;
        let answer = input.and_then(|input| match Operation::from_target(target) {
            Some(operation) => api::perform(&mut world, operation, &input, now_ms, shape),
            None => Err(FakeError::new(
                "UnknownOperationException",
                format!("{target:?} is not one of the operations of this fake."),
            )),
        });
        drop(world);
        match answer {
            Ok(body) => Response::new(200, body, None, now_ms, request),
            Err(FakeError { code, message }) => Response::error(400, code, &message, now_ms, request),
        }
    }

    /// Answers a request as the transports do: faults, call log and the fake's clock included. `None`: disconnect.
    async fn answer(&self, asked: &Asked<'_>) -> Option<Reply> {
        let target = asked.target;
        let input = Input::parse(asked.body);
        let Some(operation) = Operation::from_target(target) else {
            let response = self.carry_out(target, input, self.now_ms(), &Shape::default());
            return Some(Reply::whole(response));
        };
        let shard = input.as_ref().ok().and_then(|i| i.shard(&mut self.world(), self.now_ms()));
        let now_ms = || self.now_ms();
        let perform = |shape: &Shape| self.carry_out(target, input, self.now_ms(), shape);
        let subject = (operation, shard, &asked.signature);
        through_faults(&self.shared.faults, &self.shared.calls, subject, now_ms, perform).await
    }

    /// The fault hooks.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// The calls that came so far through [`http_client`](Self::http_client) and [`serve`](Self::serve).
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.shared.calls.snapshot()
    }

    /// Forgets the calls that came so far.
    pub fn clear_calls(&self) {
        self.shared.calls.clear();
    }

    /// Remembers only the last so many calls from now on; all of them unless set.
    pub fn keep_calls(&self, calls: usize) {
        self.shared.calls.keep(calls);
    }

    /// An HTTP client for the SDK that answers from this fake: no sockets, works under paused tokio time, keeps the
    /// SDK's read timeout.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        http_client(self.clone())
    }

    /// An SDK configuration with [`http_client`](Self::http_client), invented credentials and region `us-east-1`:
    /// `aws_sdk_kinesis::Client::new(&fake.sdk_config())` reaches this fake. Retries and timeouts are the SDK's own.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        config(Some(self.http_client()), None)
    }

    /// Serves the fake on a free port of 127.0.0.1 until the returned server is dropped.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub async fn serve(&self) -> io::Result<Server> {
        serve(self.clone(), 0, None).await
    }

    /// The same over TLS, with HTTP/2 unless the options say otherwise: [`Server::certificate`] is what a client must trust.
    ///
    /// # Errors
    /// The port cannot be opened.
    pub async fn serve_tls(&self, options: TlsOptions) -> io::Result<Server> {
        serve(self.clone(), 0, Some(options)).await
    }

    /// Makes the service as new: no streams, settings, faults and calls. Sequence numbers continue above earlier ones.
    pub fn reset(&self) {
        self.world().reset();
        self.shared.faults.clear();
        self.shared.calls.clear();
        self.set_clock_offset(0);
    }

    /// The fake's wall clock: ms since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = self.shared.started_ms.saturating_add(passed);
        now.saturating_add_signed(self.shared.offset_ms.load(Ordering::Relaxed))
    }

    /// Creates a stream, active at once, with its hash range divided evenly. Returns its ARN.
    ///
    /// # Errors
    /// The name is bad or taken, or `shards` is not between 1 and 10,000.
    pub fn create_stream(&self, name_or_arn: &str, shards: u32) -> Result<String, FakeError> {
        let now_ms = self.now_ms();
        self.world().create(name_or_arn, shards, now_ms).map(|stream| stream.key.arn())
    }

    /// Deletes a stream. One created later under its name has nothing in common with it.
    ///
    /// # Errors
    /// The stream does not exist.
    pub fn delete_stream(&self, stream: &str) -> Result<(), FakeError> {
        let key = StreamKey::parse(stream)?;
        self.world().delete(&key)
    }

    /// Puts a record: into the shard of its partition key, or without a key into the open shards in turn.
    ///
    /// # Errors
    /// The stream does not exist.
    pub fn put(&self, stream: &str, key: Option<&str>, data: impl Into<Bytes>) -> Result<Placed, FakeError> {
        self.with(stream, |s, now_ms| {
            let shard = s.route(key, None)?;
            Ok(append(s, shard, key, data.into(), now_ms))
        })
    }

    /// Puts a record into a shard of the test's choice, regardless of its partition key.
    ///
    /// # Errors
    /// The stream or the shard does not exist, or the shard is closed.
    pub fn put_to_shard(
        &self,
        stream: &str,
        shard: &str,
        key: Option<&str>,
        data: impl Into<Bytes>,
    ) -> Result<Placed, FakeError> {
        self.with(stream, |s, now_ms| {
            let index = s.shard_index(shard)?;
            if s.shards[index].end.is_some() {
                return Err(FakeError::invalid(format!("Shard {shard} is closed.")));
            }
            Ok(append(s, index, key, data.into(), now_ms))
        })
    }

    /// Puts a record as [`put`](Self::put) does, with an arrival time of the test's choice: ms since 1970, also before
    /// that of earlier records.
    ///
    /// # Errors
    /// The stream does not exist.
    pub fn put_arrived(
        &self,
        stream: &str,
        key: Option<&str>,
        data: impl Into<Bytes>,
        arrival_ms: u64,
    ) -> Result<Placed, FakeError> {
        self.with(stream, |s, _| {
            let shard = s.route(key, None)?;
            Ok(append(s, shard, key, data.into(), arrival_ms))
        })
    }

    /// Splits an open shard in the middle of its hash range. Returns the children's ids.
    ///
    /// # Errors
    /// The stream or the shard does not exist, or the shard is closed or one hash key wide.
    pub fn split(&self, stream: &str, shard: &str) -> Result<(String, String), FakeError> {
        self.with(stream, |s, now_ms| s.split(shard, None, now_ms))
    }

    /// Merges two open shards with neighbouring hash ranges. Returns the child's id.
    ///
    /// # Errors
    /// The stream or a shard does not exist, a shard is closed, or the two are no neighbours.
    pub fn merge(&self, stream: &str, shard: &str, adjacent: &str) -> Result<String, FakeError> {
        self.with(stream, |s, now_ms| s.merge(shard, adjacent, now_ms))
    }

    /// Trims a shard's records up to and including a sequence number, as if their retention had run out.
    ///
    /// # Errors
    /// The stream or the shard does not exist, or the sequence number is not the stream's.
    pub fn trim(&self, stream: &str, shard: &str, through: &str) -> Result<(), FakeError> {
        self.with(stream, |s, _| {
            let sequence::Parsed::Counter(counter) = sequence::parse(s.epoch, through) else {
                return Err(FakeError::invalid(format!(
                    "{through} is not a sequence number of this stream."
                )));
            };
            let index = s.shard_index(shard)?;
            s.shards[index].first = s.shards[index].index_from(counter.saturating_add(1));
            Ok(())
        })
    }

    /// Forgets a shard, as if its retention had run out: it is neither listed nor readable any more.
    ///
    /// # Errors
    /// The stream or the shard does not exist.
    pub fn forget_shard(&self, stream: &str, shard: &str) -> Result<(), FakeError> {
        self.with(stream, |s, _| {
            let index = s.shard_index(shard)?;
            s.shards[index].forgotten = true;
            Ok(())
        })
    }

    /// All records that a stream ever accepted, trimmed ones included, by sequence number.
    ///
    /// # Errors
    /// The stream does not exist.
    pub fn records(&self, stream: &str) -> Result<Vec<StoredRecord>, FakeError> {
        self.with(stream, |s, _| {
            let mut records: Vec<_> =
                s.shards.iter().flat_map(|sh| sh.records.iter().map(move |r| (sh, r))).collect();
            records.sort_unstable_by_key(|(_, r)| r.counter);
            let stored = |(shard, r): (&state::Shard, &state::Record)| StoredRecord {
                shard_id: shard.id.clone(),
                sequence_number: s.sequence(r.counter),
                partition_key: r.key.clone(),
                data: r.data.clone(),
                arrival_ms: r.arrival_ms,
            };
            Ok(records.into_iter().map(stored).collect())
        })
    }

    /// All shards that a stream ever had, in the order of their ids.
    ///
    /// # Errors
    /// The stream does not exist.
    pub fn shards(&self, stream: &str) -> Result<Vec<StoredShard>, FakeError> {
        let view = |s: &state::Shard| StoredShard {
            id: s.id.clone(),
            hash_range: s.hash,
            parent: s.parent.clone(),
            adjacent_parent: s.adjacent.clone(),
            open: s.end.is_none(),
            forgotten: s.forgotten,
        };
        self.with(stream, |s, _| Ok(s.shards.iter().map(view).collect()))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock()
    }

    fn with<T>(
        &self,
        stream: &str,
        work: impl FnOnce(&mut Stream, u64) -> Result<T, FakeError>,
    ) -> Result<T, FakeError> {
        let key = StreamKey::parse(stream)?;
        let now_ms = self.now_ms();
        work(self.world().stream(&key, now_ms)?, now_ms)
    }
}

impl Service for FakeKinesis {
    fn answer(&self, asked: &Asked<'_>) -> impl Future<Output = Option<Reply>> + Send {
        self.answer(asked)
    }

    fn speaks_cbor(&self) -> bool {
        self.world().speaks_cbor
    }
}

fn append(stream: &mut Stream, shard: usize, key: Option<&str>, data: Bytes, now_ms: u64) -> Placed {
    let counter = stream.append(shard, key.map(Into::into), data, now_ms);
    Placed { shard_id: stream.shards[shard].id.clone(), sequence_number: stream.sequence(counter) }
}
