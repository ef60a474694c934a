//! Leases in a table of Amazon's Kinesis Client Library (KCL), shared with its workers.

mod companions;
mod heartbeats;
mod leases;
mod names;
mod position;
mod row;
mod workers;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_types::SdkConfig;
use shardmill_engine::{LeaseKey, ShardId};

use self::leases::Leases;
use self::position::Times;
use self::row::Reading;
use crate::rules;
use crate::table::error::Failure;
use crate::table::{CallOptions, Shape, Table, check_name, client};
use crate::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, NewLease, Ownership, Renewal, StoreError,
    Usage, WorkerId, WorkerReport, Write,
};

/// KCL's table. Its leader needs the index; this library does not.
const SHAPE: Shape = Shape::keyed("leaseKey", None).with_index("LeaseOwnerToLeaseKeyIndex", "leaseOwner");

/// How much earlier than this process's start `LATEST` begins in a row of KCL: clocks may differ by so much.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

/// How a [`KclStore`] uses its table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KclOptions {
    /// Whether a table that does not exist is created, with on-demand billing. Default `true`.
    pub create_table: bool,
    /// How long a call may take, attempts included. Default 3 s; keep it below a third of the lease time.
    pub call_timeout: Duration,
    /// KCL's `failoverTimeMillis`: how long its workers may hold a lease without renewing it. Default 10 s.
    pub failover: Duration,
    /// KCL's `gracefulLeaseHandoffTimeoutMillis`: how long a handoff between its workers may take beyond that. Default
    /// 30 s.
    pub handoff_timeout: Duration,
    /// Where a row at `AT_TIMESTAMP` begins, in milliseconds since the epoch: KCL keeps the time in its configuration.
    /// Without it, such a row cannot be read.
    pub starting_time: Option<i64>,
}

impl Default for KclOptions {
    fn default() -> Self {
        Self {
            create_table: true,
            call_timeout: Duration::from_secs(3),
            failover: Duration::from_secs(10),
            handoff_timeout: Duration::from_secs(30),
            starting_time: None,
        }
    }
}

/// Leases and checkpoints in the layout of Amazon's KCL 2 and 3, in a table that its workers may share: to move from KCL
/// and back, or to run next to it.
///
/// The table is the application. Every lease is renewed by itself, as KCL's workers judge each lease by its own counter:
/// 0.3 writes a second and lease, where [`DynamoDbStore`](crate::DynamoDbStore) has one heartbeat for all leases of a
/// worker. What KCL has no place for stands in attributes of the rows whose names begin with `shardmill`; what is no
/// lease of this library's or KCL's is never written.
///
/// Needs `dynamodb:DescribeTable`, `GetItem`, `Scan`, `UpdateItem` and `DeleteItem` on the table and on the tables
/// `TABLE-CoordinatorState` and `TABLE-WorkerMetricStats` of KCL 3 before 3.5, and `CreateTable` to create it.
///
/// A clone is another handle on the same connections and on what is known of the leases.
#[derive(Clone)]
pub struct KclStore {
    leases: Arc<Leases>,
}

impl fmt::Debug for KclStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KclStore").field("table", &self.leases.table.name).finish_non_exhaustive()
    }
}

impl KclStore {
    /// The leases in `table`, with clients of its own for `config`'s region. No call is made. `application` is what this
    /// library calls the one application that the table is; a table with the leases of another one is refused.
    ///
    /// The SDK's retries are off and its timeouts are set: a call has three attempts within
    /// [`call_timeout`](KclOptions::call_timeout).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the table's name is not one that DynamoDB permits, or the application's name is empty.
    pub fn new(config: &SdkConfig, table: &str, application: &str) -> Result<Self, StoreError> {
        Self::new_with(config, table, application, &KclOptions::default())
    }

    /// [`new`](Self::new) with other options than the default ones.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_with(
        config: &SdkConfig,
        table: &str,
        application: &str,
        options: &KclOptions,
    ) -> Result<Self, StoreError> {
        Self::of(&client::from_config(config, options.call_timeout), table, application, options)
    }

    /// A store with copies of `client` that keep its region, endpoint, credentials and HTTP client; otherwise as
    /// [`new_with`](Self::new_with).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a client is a handle, as for sources and destinations"
    )]
    pub fn from_client(
        client: Client,
        table: &str,
        application: &str,
        options: &KclOptions,
    ) -> Result<Self, StoreError> {
        Self::of(&client::from_client(&client, options.call_timeout), table, application, options)
    }

    fn of(
        settings: &Builder,
        table: &str,
        application: &str,
        options: &KclOptions,
    ) -> Result<Self, StoreError> {
        let invalid = |reason| StoreError::Invalid { store: describe(table), reason };
        check_name(table).map_err(invalid)?;
        if application.is_empty() {
            return Err(invalid("the application's name is empty".to_owned()));
        }
        let calls = CallOptions { create_table: options.create_table, timeout: options.call_timeout };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let latest = i64::try_from(now.saturating_sub(CLOCKS_DIFFER).as_millis()).unwrap_or(i64::MAX);
        let reading = Reading {
            layout: names::Layout::default(),
            times: Times { latest, at_timestamp: options.starting_time },
            failover: options.failover,
            handoff: options.handoff_timeout,
        };
        let table = Table::new(table, SHAPE, settings, calls);
        Ok(Self { leases: Arc::new(Leases::new(application, table, reading)) })
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.leases.table.name
    }

    /// Calls once the table is known to be there. The calls of the SDK are large futures.
    fn call<'a, T: 'a>(
        &'a self,
        call: impl Future<Output = Result<T, Failure>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>> {
        Box::pin(async move {
            let result = match self.leases.table.ready().await {
                Ok(()) => call.await,
                Err(failure) => Err(failure),
            };
            result.map_err(|failure| failure.into_store_error(&self.describe()))
        })
    }

    fn valid(&self, check: Result<(), String>) -> Result<(), StoreError> {
        check.map_err(|reason| StoreError::Invalid { store: self.describe(), reason })
    }
}

fn describe(table: &str) -> String {
    format!("kcl:{table}")
}

#[async_trait]
impl LeaseStore for KclStore {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.list_readable().await?.into_readable(self.describe())
    }

    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        self.call(self.leases.list()).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.valid(rules::check_positions(leases.iter().map(|lease| &lease.checkpoint)))?;
        self.call(self.leases.create(leases)).await
    }

    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.valid(rules::check_claim(claim))?;
        self.call(self.leases.acquire(key, seen, claim)).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        self.call(self.leases.renew(renewals)).await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        self.valid(rules::check_positions(checkpoints.iter().map(|c| &c.position)))?;
        self.call(self.leases.checkpoint(checkpoints)).await
    }

    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_worker(to))?;
        self.call(self.leases.assign(key, seen, to)).await
    }

    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_hand_off(from, to))?;
        self.call(self.leases.hand_off(key, from, to)).await
    }

    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        self.call(self.leases.set_children(key, children)).await
    }

    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.call(self.leases.release(key, counter)).await
    }

    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.call(self.leases.delete_ended(key, counter)).await
    }

    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.call(self.leases.delete(key)).await
    }

    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        self.valid(rules::check_worker(&worker.id))?;
        let heartbeat = self.call(self.leases.heartbeat(worker)).await?;
        Ok(Heartbeat::Written { heartbeat })
    }

    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        self.call(self.leases.forget_worker(worker, seen)).await
    }

    fn bind(&self, stream: &LeaseKey) {
        self.leases.bind(stream);
    }

    fn usage(&self) -> Usage {
        self.leases.table.usage()
    }

    fn listing_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    fn describe(&self) -> String {
        describe(self.table())
    }
}
