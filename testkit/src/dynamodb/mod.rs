//! [`FakeDynamoDbStreams`]: tables and their streams in memory.

mod api;
mod state;

use crate::service::{
    Asked, CallLog, Calls, FakeError, Faults, Operation, Reply, Response, Server, Service, Shape, TlsOptions,
    config, http_client, millis, serve, through_faults,
};
use api::Input;
use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use state::{Change, Status, World, counter_of, sequence};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// DynamoDB tables with streams in memory, for tests: the test writes items, the real DynamoDB Streams client reads what
/// changed. Cheap to clone; clones are the same service.
///
/// Streams show new and old images. Shards roll over, split, close, trim and vanish when the test says so. Calls, faults
/// and time work as in [`FakeKinesis`](crate::FakeKinesis): [`faults`](Self::faults) takes its [`Fault`](crate::kinesis::Fault)s,
/// for `DescribeStream`, `GetShardIterator` and `GetRecords`; the fake's clock runs with [`tokio::time`].
///
/// ```
/// use aws_sdk_dynamodbstreams::{Client, types::ShardIteratorType};
/// use serde_json::json;
/// use shardmill_testkit::FakeDynamoDbStreams;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fake = FakeDynamoDbStreams::new();
/// let arn = fake.create_table("orders", &["id"], 1)?;
/// let change = fake.put_item("orders", &json!({"id": {"S": "a"}, "n": {"N": "1"}}))?.expect("it is new");
///
/// let client = Client::new(&fake.sdk_config());
/// let iterator = client
///     .get_shard_iterator()
///     .stream_arn(&arn)
///     .shard_id(&change.shard_id)
///     .shard_iterator_type(ShardIteratorType::TrimHorizon)
///     .send()
///     .await?;
/// let page = client.get_records().set_shard_iterator(iterator.shard_iterator).send().await?;
/// assert_eq!(page.records()[0].dynamodb().unwrap().sequence_number(), Some(change.sequence_number.as_str()));
/// # Ok(())
/// # }
/// ```
///
/// There is no DynamoDB API to write with, no conditions, and no limit on readers or calls unless a fault sets one.
#[derive(Debug, Clone)]
pub struct FakeDynamoDbStreams {
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

/// A change as the stream holds it: what an independent observer compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredChange {
    /// The shard's id.
    pub shard_id: String,
    /// The record's sequence number: decimal digits, of different lengths.
    pub sequence_number: String,
    /// `INSERT`, `MODIFY` or `REMOVE`.
    pub event_name: &'static str,
    /// The item's primary key, in DynamoDB's JSON.
    pub keys: Value,
    /// The item after the change.
    pub new_image: Option<Value>,
    /// The item before the change.
    pub old_image: Option<Value>,
}

/// A shard as the fake holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredStreamShard {
    /// `shardId-`, the time of its opening in 20 digits, and 8 hexadecimal digits.
    pub id: String,
    /// The shard that it follows.
    pub parent: Option<String>,
    /// Whether it still takes changes.
    pub open: bool,
    /// Whether it has vanished: not listed and not readable any more.
    pub forgotten: bool,
}

impl Default for FakeDynamoDbStreams {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDynamoDbStreams {
    /// A service without tables.
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

    /// An HTTP client for the SDK that answers from this fake: no sockets, works under paused tokio time, keeps the
    /// SDK's read timeout.
    #[must_use]
    pub fn http_client(&self) -> SharedHttpClient {
        http_client(self.clone())
    }

    /// An SDK configuration with [`http_client`](Self::http_client), invented credentials and region `us-east-1`.
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

    /// The fault hooks.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }

    /// The calls that came so far.
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

    /// Makes the service as new: no tables, settings, faults and calls. Sequence numbers continue above earlier ones.
    pub fn reset(&self) {
        self.world().reset();
        self.shared.faults.clear();
        self.shared.calls.clear();
        self.set_clock_offset(0);
    }

    /// The fake's wall clock: ms since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let passed = millis(self.shared.started.elapsed());
        let now = self.shared.started_ms.saturating_add(passed);
        now.saturating_add_signed(self.shared.offset_ms.load(Ordering::Relaxed))
    }

    /// Sets how far the fake's clock is ahead of the host's (behind it, if negative), in ms.
    pub fn set_clock_offset(&self, ms: i64) {
        self.shared.offset_ms.store(ms, Ordering::Relaxed);
    }

    /// Sets how long an iterator is valid after it was given out; 15 minutes unless set.
    pub fn set_iterator_lifetime(&self, lifetime: Duration) {
        self.world().iterator_lifetime_ms = millis(lifetime);
    }

    /// Sets how long records are kept: older ones, and closed shards that have none left, vanish. Forever unless set; the
    /// service keeps 24 hours.
    pub fn set_retention(&self, retention: Duration) {
        self.world().retention_ms = Some(millis(retention));
    }

    /// Sets how many shards a description gives at once at most, 1 to 100, which it is unless set.
    pub fn set_list_page_size(&self, shards: usize) {
        self.world().list_page_size = shards.clamp(1, 100);
    }

    /// Sets whether iterators of type `AT_TIMESTAMP` are known; if not, they get an internal failure, as from DynamoDB
    /// Local. Known unless set.
    pub fn set_at_timestamp(&self, known: bool) {
        self.world().knows_at_timestamp = known;
    }

    /// Sets whether descriptions show that shards are closed. They do unless set; the service's lag behind at times.
    pub fn set_ends_shown(&self, shown: bool) {
        self.world().shows_ends = shown;
    }

    /// Creates a table with one or two key attributes and a stream of so many shards. Returns the stream's ARN.
    ///
    /// # Errors
    /// The name is taken, or a number is not permitted.
    pub fn create_table(&self, table: &str, keys: &[&str], shards: u32) -> Result<String, FakeError> {
        let now_ms = self.now_ms();
        self.world().create_table(table, keys, shards, now_ms)
    }

    /// Puts an item, in DynamoDB's JSON. `None`: nothing changed, so the stream has no record of it.
    ///
    /// # Errors
    /// The table does not exist, the item lacks a key, or its shard was closed without a child.
    pub fn put_item(&self, table: &str, item: &Value) -> Result<Option<StoredChange>, FakeError> {
        self.write(table, item, None)
    }

    /// Deletes the item with this key, in DynamoDB's JSON. `None`: there was none.
    ///
    /// # Errors
    /// As of [`put_item`](Self::put_item).
    pub fn delete_item(&self, table: &str, key: &Value) -> Result<Option<StoredChange>, FakeError> {
        self.write(table, key, Some(false))
    }

    /// Deletes the item with this key as time to live does: the record shows that the service did it.
    ///
    /// # Errors
    /// As of [`put_item`](Self::put_item).
    pub fn expire_item(&self, table: &str, key: &Value) -> Result<Option<StoredChange>, FakeError> {
        self.write(table, key, Some(true))
    }

    fn write(
        &self,
        table: &str,
        item: &Value,
        delete: Option<bool>,
    ) -> Result<Option<StoredChange>, FakeError> {
        let now_ms = self.now_ms();
        let written = self.world().write(table, item, delete, now_ms)?;
        Ok(written.map(|(shard, change)| stored(&shard, &change)))
    }

    /// Closes a shard and opens its successor, as the service does every four hours. Returns the child's id.
    ///
    /// # Errors
    /// The table or the shard does not exist, or the shard is closed.
    pub fn roll(&self, table: &str, shard: &str) -> Result<String, FakeError> {
        let now_ms = self.now_ms();
        self.world().roll(table, shard, 1, now_ms).map(|mut children| children.remove(0))
    }

    /// Closes a shard and opens two successors, as a growing table does. Returns their ids.
    ///
    /// # Errors
    /// As of [`roll`](Self::roll).
    pub fn split(&self, table: &str, shard: &str) -> Result<Vec<String>, FakeError> {
        let now_ms = self.now_ms();
        self.world().roll(table, shard, 2, now_ms)
    }

    /// Closes a shard without a child. Items of its range cannot be written any more.
    ///
    /// # Errors
    /// As of [`roll`](Self::roll).
    pub fn close_shard(&self, table: &str, shard: &str) -> Result<(), FakeError> {
        let now_ms = self.now_ms();
        self.world().roll(table, shard, 0, now_ms).map(drop)
    }

    /// Trims a shard's records up to and including a sequence number.
    ///
    /// # Errors
    /// The table or the shard does not exist, or the number is not one of this fake's.
    pub fn trim(&self, table: &str, shard: &str, through: &str) -> Result<(), FakeError> {
        let counter = counter_of(through)?;
        let mut world = self.world();
        let shard = world.stream(table)?.shard(shard)?;
        shard.first = shard.index_from(counter + 1);
        Ok(())
    }

    /// Forgets a shard, as the service does a day after it was closed.
    ///
    /// # Errors
    /// The table or the shard does not exist.
    pub fn forget_shard(&self, table: &str, shard: &str) -> Result<(), FakeError> {
        self.world().stream(table)?.shard(shard)?.forgotten = true;
        Ok(())
    }

    /// Disables the table's stream: its shards are closed, what is in them can still be read.
    ///
    /// # Errors
    /// The table does not exist.
    pub fn disable_stream(&self, table: &str) -> Result<(), FakeError> {
        let now_ms = self.now_ms();
        self.world().disable(table, now_ms)
    }

    /// Enables a stream that was disabled: a new stream with an ARN of its own, which is returned.
    ///
    /// # Errors
    /// The table does not exist, or its stream is not disabled.
    pub fn enable_stream(&self, table: &str) -> Result<String, FakeError> {
        let now_ms = self.now_ms();
        self.world().enable(table, now_ms)
    }

    /// Sets whether the table's stream describes itself as still being enabled.
    ///
    /// # Errors
    /// The table does not exist.
    pub fn set_enabling(&self, table: &str, enabling: bool) -> Result<(), FakeError> {
        self.world().stream(table)?.status = if enabling { Status::Enabling } else { Status::Enabled };
        Ok(())
    }

    /// All changes that the table's stream ever held, trimmed ones included, in the order in which they were made.
    ///
    /// # Errors
    /// The table does not exist.
    pub fn changes(&self, table: &str) -> Result<Vec<StoredChange>, FakeError> {
        let mut world = self.world();
        let shards = &world.stream(table)?.shards;
        let mut changes: Vec<_> =
            shards.iter().flat_map(|s| s.changes.iter().map(move |change| (s, change))).collect();
        changes.sort_by_key(|(_, change)| change.counter);
        Ok(changes.into_iter().map(|(shard, change)| stored(&shard.id, change)).collect())
    }

    /// All shards that the table's stream ever had, in the order in which they were opened.
    ///
    /// # Errors
    /// The table does not exist.
    pub fn shards(&self, table: &str) -> Result<Vec<StoredStreamShard>, FakeError> {
        let view = |shard: &state::Shard| StoredStreamShard {
            id: shard.id.clone(),
            parent: shard.parent.clone(),
            open: shard.end.is_none(),
            forgotten: shard.forgotten,
        };
        Ok(self.world().stream(table)?.shards.iter().map(view).collect())
    }

    fn carry_out(&self, target: &str, input: Result<Input, FakeError>, shape: &Shape) -> Response {
        let now_ms = self.now_ms();
        let mut world = self.world();
        world.request += 1;
        world.expire(now_ms);
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
            Ok(body) => Response::new(200, body.to_string().into(), None, now_ms, request),
            Err(FakeError { code, message }) => {
                let status = if code.starts_with("Internal") { 500 } else { 400 };
                Response::error(status, code, &message, now_ms, request)
            }
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock()
    }
}

impl Service for FakeDynamoDbStreams {
    async fn answer(&self, asked: &Asked<'_>) -> Option<Reply> {
        let target = asked.target;
        let input = Input::parse(asked.body);
        let Some(operation) = Operation::from_target(target) else {
            let response = self.carry_out(target, input, &Shape::default());
            return Some(Reply::whole(response));
        };
        let shard = input.as_ref().ok().and_then(Input::shard);
        let now_ms = || self.now_ms();
        let perform = |shape: &Shape| self.carry_out(target, input, shape);
        let subject = (operation, shard, &asked.signature);
        through_faults(&self.shared.faults, &self.shared.calls, subject, now_ms, perform).await
    }
}

fn stored(shard: &str, change: &Change) -> StoredChange {
    StoredChange {
        shard_id: shard.to_owned(),
        sequence_number: sequence(change.counter),
        event_name: change.name,
        keys: change.keys.clone(),
        new_image: change.new.clone(),
        old_image: change.old.clone(),
    }
}
