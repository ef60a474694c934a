//! Leases in a DynamoDB table, shared by workers on many hosts.

mod application;
mod leases;
mod listing;
mod lives;
mod mirror;
mod names;
mod order;
mod others;
mod row;
mod table;
mod workers;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_types::SdkConfig;
use shardmill_engine::{LeaseKey, ShardId};

use self::application::Application;
use self::table::Table;
use crate::rules;
use crate::table::error::Failure;
use crate::table::{check_name, client};
use crate::{
    Checkpoint, Claim, Heartbeat, Lease, LeaseList, LeaseStore, NewLease, OtherApplication, Ownership,
    Renewal, StoreError, Usage, WorkerId, WorkerReport, Write,
};

/// How a [`DynamoDbStore`] uses its table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DynamoDbOptions {
    /// Whether a table that does not exist is created, with on-demand billing. Default `true`.
    pub create_table: bool,
    /// How long a call may take, attempts included. Default 3 s; keep it below a third of the lease time.
    pub call_timeout: Duration,
    /// After how long all leases are read again although no other worker has told of a change: of up to 100 leases; with
    /// more of them it takes longer in proportion, up to ten times as long. Until then a listing may show an older
    /// checkpoint of another worker's lease. Zero: each time. Default 60 s.
    pub full_listing_interval: Duration,
}

impl Default for DynamoDbOptions {
    fn default() -> Self {
        Self {
            create_table: true,
            call_timeout: Duration::from_secs(3),
            full_listing_interval: Duration::from_secs(60),
        }
    }
}

/// Leases and checkpoints in a DynamoDB table that workers on many hosts, and many applications, share.
///
/// One heartbeat renews all leases of a worker; a lease's item is written when it changes hands or its checkpoint moves.
/// The table is created by the first call, unless [`create_table`](DynamoDbOptions::create_table) is off. Its key is
/// `application` (partition) and `item` (sort); attributes of other programs survive every write.
///
/// Needs `dynamodb:DescribeTable`, `GetItem`, `Query`, `UpdateItem` and `DeleteItem` on the table, and `CreateTable` and
/// `UpdateTimeToLive` to create it.
///
/// A clone is another handle on the same connections and on what is known of the leases.
#[derive(Clone)]
pub struct DynamoDbStore {
    application: Arc<Application>,
}

impl fmt::Debug for DynamoDbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbStore")
            .field("application", &self.application.name)
            .field("table", &self.application.table.name())
            .finish_non_exhaustive()
    }
}

impl DynamoDbStore {
    /// The leases of `application` in `table`, with clients of its own for `config`'s region. No call is made.
    ///
    /// The SDK's retries are off and its timeouts are set: a call has three attempts within
    /// [`call_timeout`](DynamoDbOptions::call_timeout).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the table's name is not one that DynamoDB permits, or the application's name is empty or
    /// begins with `#`.
    pub fn new(config: &SdkConfig, table: &str, application: &str) -> Result<Self, StoreError> {
        Self::new_with(config, table, application, &DynamoDbOptions::default())
    }

    /// [`new`](Self::new) with other options than the default ones.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_with(
        config: &SdkConfig,
        table: &str,
        application: &str,
        options: &DynamoDbOptions,
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
        options: &DynamoDbOptions,
    ) -> Result<Self, StoreError> {
        Self::of(&client::from_client(&client, options.call_timeout), table, application, options)
    }

    fn of(
        settings: &Builder,
        table: &str,
        application: &str,
        options: &DynamoDbOptions,
    ) -> Result<Self, StoreError> {
        let store = describe(table);
        check_name(table).map_err(|reason| StoreError::Invalid { store: store.clone(), reason })?;
        check_application(application, &store)?;
        let table = Table::new(table, settings, options);
        Ok(Self { application: Arc::new(Application::new(application, table)) })
    }

    /// The leases of another application in the same table, over the same connections.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if the application's name is empty or begins with `#`.
    pub fn for_application(&self, application: &str) -> Result<Self, StoreError> {
        check_application(application, &self.describe())?;
        let table = self.application.table.counted_apart();
        Ok(Self { application: Arc::new(Application::new(application, table)) })
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        self.application.table.name()
    }

    /// Calls once the table is known to be there. The calls of the SDK are large futures.
    fn call<'a, T: 'a>(
        &'a self,
        call: impl Future<Output = Result<T, Failure>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>> {
        Box::pin(async move {
            let result = match self.application.ready().await {
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

fn check_application(application: &str, store: &str) -> Result<(), StoreError> {
    let reason = match application {
        "" => "the application's name is empty",
        name if name.starts_with('#') => {
            "the application's name begins with #, which is for the store itself"
        }
        _ => return Ok(()),
    };
    Err(StoreError::Invalid { store: store.to_owned(), reason: reason.into() })
}

fn describe(table: &str) -> String {
    format!("dynamodb:{table}")
}

#[async_trait]
impl LeaseStore for DynamoDbStore {
    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.list_readable().await?.into_readable(self.describe())
    }

    async fn list_readable(&self) -> Result<LeaseList, StoreError> {
        self.call(self.application.list()).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<usize, StoreError> {
        self.valid(rules::check_positions(leases.iter().map(|lease| &lease.checkpoint)))?;
        self.call(self.application.create(leases)).await
    }

    async fn acquire(&self, key: &LeaseKey, seen: u64, claim: &Claim) -> Result<Write, StoreError> {
        self.valid(rules::check_claim(claim))?;
        self.call(self.application.acquire(key, seen, claim)).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Write>, StoreError> {
        self.call(self.application.renew(renewals)).await
    }

    async fn checkpoint(&self, checkpoints: &[Checkpoint]) -> Result<Vec<Write>, StoreError> {
        self.valid(rules::check_positions(checkpoints.iter().map(|c| &c.position)))?;
        self.call(self.application.checkpoint(checkpoints)).await
    }

    async fn assign(&self, key: &LeaseKey, seen: &Ownership, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_worker(to))?;
        self.call(self.application.assign(key, seen, to)).await
    }

    async fn hand_off(&self, key: &LeaseKey, from: &WorkerId, to: &WorkerId) -> Result<Write, StoreError> {
        self.valid(rules::check_hand_off(from, to))?;
        self.call(self.application.hand_off(key, from, to)).await
    }

    async fn set_children(&self, key: &LeaseKey, children: &[ShardId]) -> Result<Write, StoreError> {
        self.call(self.application.set_children(key, children)).await
    }

    async fn release(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.call(self.application.release(key, counter)).await
    }

    async fn delete_ended(&self, key: &LeaseKey, counter: u64) -> Result<Write, StoreError> {
        self.call(self.application.delete_ended(key, counter)).await
    }

    async fn delete(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.call(self.application.delete(key)).await
    }

    async fn others(&self, of: &LeaseKey) -> Result<Vec<OtherApplication>, StoreError> {
        self.call(self.application.others(of)).await
    }

    async fn note(&self, name: &str, value: &str) -> Result<Option<String>, StoreError> {
        self.call(self.application.note(name, value)).await
    }

    async fn forget_note(&self, name: &str) -> Result<(), StoreError> {
        self.call(self.application.forget_note(name)).await
    }

    async fn heartbeat(&self, worker: &WorkerReport) -> Result<Heartbeat, StoreError> {
        self.valid(rules::check_worker(&worker.id))?;
        self.call(self.application.heartbeat(worker)).await
    }

    async fn forget_worker(&self, worker: &WorkerId, seen: u64) -> Result<(), StoreError> {
        self.call(self.application.forget_worker(worker, seen)).await
    }

    fn renews_all(&self) -> bool {
        true
    }

    fn usage(&self) -> Usage {
        self.application.table.usage()
    }

    fn listing_interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(500))
    }

    fn describe(&self) -> String {
        describe(self.table())
    }
}
