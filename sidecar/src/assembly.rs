//! Turns a valid configuration into things that run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use shardmill::checkpoint::{
    DynamoDbOptions, DynamoDbStore, KclOptions, KclStore, LeaseStore, MemoryStore, SqliteOptions,
    SqliteStore, StoreError,
};
use shardmill::engine::{
    EventSource, EventSourceMapping, FailureDestination, LeaseKey, Position, ShardId, StreamKind,
};
use shardmill::{
    Consumer, Destination, DestinationError, DynamoDbSource, KinesisSource, SourceError, StreamSource,
    Worker, WorkerError, WorkerOptions, connect_destination,
};

use crate::config::{self, Aws, Checkpoints, Config, MappingConfig, Target};
use crate::handler::{
    CommandHandler, CommandOptions, FunctionHandler, StdoutHandler, UrlHandler, UrlOptions,
};

/// Why a valid configuration cannot be put to work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssemblyError {
    /// The function's settings cannot be used.
    #[error("Function: {0}")]
    Function(String),
    /// The stream's settings cannot be used.
    #[error("EventSourceArn: {0}")]
    Source(#[from] SourceError),
    /// The destination cannot be used.
    #[error("DestinationConfig.OnFailure.Destination: {0}")]
    Destination(#[from] DestinationError),
    /// The checkpoint store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker cannot be started.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// Standard output cannot be the function.
    #[error("Function.Stdout: {0}")]
    Stdout(std::io::Error),
}

/// The parts of one mapping, ready to run or to be probed.
#[derive(Debug)]
pub struct Parts {
    /// The mapping and how it is run.
    pub config: MappingConfig,
    /// The function.
    pub function: FunctionHandler,
    /// The stream.
    pub source: SourceParts,
    /// The on-failure destination.
    pub destination: Option<DestinationParts>,
    /// Where positions and leases live.
    pub store: Arc<dyn LeaseStore>,
    /// The same under the application's name, where a UUID is the identity.
    pub named_store: Option<Arc<dyn LeaseStore>>,
}

/// A stream.
#[derive(Clone)]
pub struct SourceParts(pub Arc<dyn StreamSource>);

impl std::fmt::Debug for SourceParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.describe())
    }
}

/// An on-failure destination.
#[derive(Clone)]
pub struct DestinationParts(pub Arc<dyn Destination>);

impl std::fmt::Debug for DestinationParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.describe())
    }
}

/// What all mappings of the process share.
///
/// # Errors
/// The operating system refuses a thread, or an option is out of range.
pub fn worker(config: &config::Worker) -> Result<Arc<Worker>, AssemblyError> {
    let mut options = WorkerOptions::default()
        .lease(config.lease)
        .stop_timeout(config.stop)
        .buffer_bytes(config.buffer_bytes)
        .maximum_concurrent_reads(config.maximum_concurrent_reads);
    if let Some(id) = &config.id {
        options = options.id(id);
    }
    if let Some(leases) = config.maximum_leases {
        options = options.maximum_leases(leases);
    }
    Ok(Worker::start(options)?)
}

/// The SDK's own chain, overridden by the file's settings. If neither names a region, it is `stream_region`: the
/// metadata service of EC2, which only answers there, is not asked for one.
pub async fn aws(aws: &Aws, stream_region: &str) -> SdkConfig {
    let mut of_profile = ProfileFileRegionProvider::builder();
    if let Some(profile) = &aws.profile {
        of_profile = of_profile.profile_name(profile);
    }
    let region = RegionProviderChain::first_try(aws.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(of_profile.build())
        .or_else(Region::new(stream_region.to_owned()));
    let mut loader = aws_config::defaults(sdk_defaults()).region(region);
    if let Some(profile) = &aws.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &aws.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    let base = loader.load().await;
    let Some(role) = &aws.assume_role_arn else { return base };
    let provider = AssumeRoleProvider::builder(role).configure(&for_assume_role(&base));
    let provider = provider.session_name("shardmill").build().await;
    base.into_builder()
        .credentials_provider(aws_sdk_kinesis::config::SharedCredentialsProvider::new(provider))
        .build()
}

/// Named, so that a newer SDK does not bring other defaults.
pub(crate) fn sdk_defaults() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// For the client of `AssumeRole`: three attempts in 5 seconds, which is how long the SDK waits for credentials.
fn for_assume_role(base: &SdkConfig) -> SdkConfig {
    let all = Duration::from_secs(5);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .read_timeout(all)
        .operation_timeout(all)
        .build();
    let retries = RetryConfig::standard().with_max_attempts(3);
    base.to_builder().retry_config(retries).timeout_config(timeouts).build()
}

/// Puts one mapping's parts together; nothing is read from the stream.
///
/// # Errors
/// A part cannot be used as it is configured.
pub fn parts(config: MappingConfig, aws: &SdkConfig, stores: &mut Stores) -> Result<Parts, AssemblyError> {
    let mapping = &config.mapping;
    let source = source(mapping.event_source(), aws)?;
    let destination = match mapping.failure_destination() {
        None => None,
        Some(destination) => Some(DestinationParts(connect_destination(destination, aws)?)),
    };
    let store = stores.open(&config.checkpoints, mapping, mapping.identity(), aws)?;
    // A table of KCL's is one application under any name.
    let is_one = matches!(config.checkpoints, Checkpoints::Kcl(_));
    let named_store = match is_one || mapping.identity() == mapping.application_name() {
        true => None,
        false => Some(stores.open(&config.checkpoints, mapping, mapping.application_name(), aws)?),
    };
    let function = function(&config)?;
    Ok(Parts { function, source, destination, store, named_store, config })
}

/// Whether [`parts`] would take these settings, as far as that can be decided without a file, a connection or the
/// environment.
///
/// # Errors
/// The part that would be refused.
pub fn validate(config: &MappingConfig) -> Result<(), AssemblyError> {
    let mapping = &config.mapping;
    let aws = SdkConfig::builder()
        .behavior_version(sdk_defaults())
        .region(Region::new(mapping.event_source().arn.region().to_owned()))
        .build();
    source(mapping.event_source(), &aws)?;
    if let Some(queue @ FailureDestination::Sqs(_)) = mapping.failure_destination() {
        connect_destination(queue, &aws)?;
    }
    // Of the standard output there is one, and nothing to refuse.
    if config.function.target != Target::Stdout {
        function(config)?;
    }
    Ok(())
}

fn source(event_source: &EventSource, aws: &SdkConfig) -> Result<SourceParts, SourceError> {
    Ok(SourceParts(match event_source.kind {
        StreamKind::Kinesis => Arc::new(KinesisSource::new(aws, event_source)?),
        StreamKind::DynamoDb => Arc::new(DynamoDbSource::new(aws, event_source)?),
    }))
}

/// The checkpoint stores of the process: mappings on one file share its connection, and so their commits; those on one
/// table share its connections.
#[derive(Debug)]
pub struct Stores {
    files: BTreeMap<PathBuf, SqliteStore>,
    tables: BTreeMap<String, DynamoDbStore>,
    lease: Duration,
    create_table: bool,
}

impl Stores {
    /// The stores of this file, none of which is open yet. A call takes no longer than a third of the lease time, which is when the
    /// lease keeper retries.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let (lease, create_table) = (config.worker.lease, config.create_table);
        Self { files: BTreeMap::new(), tables: BTreeMap::new(), lease, create_table }
    }

    /// How long a call may take: the lease keeper then retries.
    fn limit(&self) -> Duration {
        self.lease / 3
    }

    fn open(
        &mut self,
        checkpoints: &Checkpoints,
        mapping: &EventSourceMapping,
        application: &str,
        aws: &SdkConfig,
    ) -> Result<Arc<dyn LeaseStore>, StoreError> {
        match checkpoints {
            Checkpoints::Kcl(table) => self.table_of_kcl(table, mapping, application, aws),
            Checkpoints::Memory => Ok(Arc::new(MemoryStore::default())),
            Checkpoints::Sqlite(path) => self.file(path, application),
            Checkpoints::DynamoDb(table) => self.table(table, application, aws),
        }
    }

    fn file(&mut self, path: &Path, application: &str) -> Result<Arc<dyn LeaseStore>, StoreError> {
        if let Some(store) = self.files.get(&config::one_spelling(path)) {
            return Ok(Arc::new(store.for_application(application)?));
        }
        let mut options = SqliteOptions::default();
        options.busy_timeout = self.limit();
        let store = SqliteStore::open_with(path, application, &options)?;
        self.files.insert(config::one_spelling(path), store.clone());
        Ok(Arc::new(store))
    }

    fn table(
        &mut self,
        table: &str,
        application: &str,
        aws: &SdkConfig,
    ) -> Result<Arc<dyn LeaseStore>, StoreError> {
        if let Some(store) = self.tables.get(table) {
            return Ok(Arc::new(store.for_application(application)?));
        }
        let mut options = DynamoDbOptions::default();
        options.create_table = self.create_table;
        options.call_timeout = self.limit();
        let store = DynamoDbStore::new_with(&apart(aws), table, application, &options)?;
        self.tables.insert(table.to_owned(), store.clone());
        Ok(Arc::new(store))
    }

    fn table_of_kcl(
        &self,
        table: &str,
        mapping: &EventSourceMapping,
        application: &str,
        aws: &SdkConfig,
    ) -> Result<Arc<dyn LeaseStore>, StoreError> {
        let mut options = KclOptions::default();
        options.create_table = self.create_table;
        options.call_timeout = self.limit();
        options.failover = self.lease;
        options.starting_time = match mapping.starting_position() {
            Position::AtTimestamp(time) => Some(*time),
            _ => None,
        };
        let store = KclStore::new_with(&apart(aws), table, application, &options)?;
        let EventSource { arn, stream, .. } = mapping.event_source();
        // Which of the streams of that name it is, the first listing shows.
        store.bind(&LeaseKey {
            account: arn.account().into(),
            region: arn.region().into(),
            stream: stream.as_str().into(),
            epoch: "".into(),
            shard: ShardId::new(""),
        });
        Ok(Arc::new(store))
    }
}

/// With connections of its own: reads share a pool, behind which a heartbeat must not wait.
fn apart(aws: &SdkConfig) -> SdkConfig {
    let mut own = aws.to_builder();
    own.set_http_client(None);
    own.build()
}

fn function(config: &MappingConfig) -> Result<FunctionHandler, AssemblyError> {
    let mapping = &config.mapping;
    let refused = |error: &dyn std::fmt::Display| AssemblyError::Function(error.to_string());
    Ok(match &config.function.target {
        Target::Url { url, not_reached_status } => {
            let options = UrlOptions {
                url: url.clone(),
                maximum_concurrency: config.function.maximum_concurrency,
                not_reached_status: not_reached_status.clone(),
                reads_response: mapping.reads_response(),
            };
            FunctionHandler::Url(UrlHandler::new(options).map_err(|e| refused(&e))?)
        }
        Target::Command { command, environment, working_directory, concurrency_per_process } => {
            let mut options = CommandOptions::new(command.iter().cloned());
            options.environment.clone_from(environment);
            options.working_directory.clone_from(working_directory);
            options.maximum_concurrency = config.function.maximum_concurrency;
            options.reads_response = mapping.reads_response();
            mapping.application_name().clone_into(&mut options.mapping);
            mapping.function_name().clone_into(&mut options.function_name);
            mapping.executed_version().clone_into(&mut options.function_version);
            options.concurrency_per_process = *concurrency_per_process;
            options.launcher = crate::launch::launcher();
            if let Checkpoints::Sqlite(path) = &config.checkpoints {
                options.records = Some(crate::handler::records_beside(path));
            }
            options.region = Some(mapping.event_source().arn.region().to_owned());
            FunctionHandler::Command(CommandHandler::new(options).map_err(|e| refused(&e))?)
        }
        Target::Stdout => {
            FunctionHandler::Stdout(StdoutHandler::of_process().map_err(AssemblyError::Stdout)?)
        }
    })
}

/// A consumer of these parts.
///
/// # Errors
/// None that a complete set of parts can cause.
pub fn consumer(parts: &Parts, worker: Arc<Worker>) -> Result<Consumer, AssemblyError> {
    let mut builder =
        Consumer::builder(parts.config.mapping.clone(), Arc::clone(&parts.source.0), parts.function.clone())
            .lease_store(Arc::clone(&parts.store))
            .worker(worker);
    if let Some(DestinationParts(destination)) = &parts.destination {
        builder = builder.on_failure(Arc::clone(destination));
    }
    builder.build().map_err(|error| AssemblyError::Function(error.to_string()))
}

/// How long probes of a configuration may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// The region of the first mapping's stream.
#[must_use]
pub fn stream_region(config: &Config) -> &str {
    config.mappings.first().map_or("us-east-1", |mapping| mapping.mapping.event_source().arn.region())
}

/// Logs what a file contains that has no effect or may surprise.
pub fn log_notes(loaded: &config::Loaded) {
    for note in &loaded.ignored {
        tracing::info!(line = note.line, "{}: {}", note.key, note.message);
    }
    for note in &loaded.warnings {
        tracing::warn!(line = note.line, "{}: {}", note.key, note.message);
    }
    if let Some(text) = loaded.config.aws.profile.as_deref().and_then(crate::profile::missing) {
        tracing::warn!("Aws.Profile: {text}");
    }
}

/// The identities under which the mappings of a file have positions, disabled ones included.
#[must_use]
pub fn identities(mappings: &[MappingConfig]) -> BTreeSet<String> {
    mappings.iter().map(|mapping| mapping.mapping.identity().to_owned()).collect()
}

/// The mappings of a file that are to run, and those that are loaded but disabled.
#[must_use]
pub fn split_enabled(config: Config) -> (Vec<MappingConfig>, Vec<MappingConfig>) {
    config.mappings.into_iter().partition(|mapping| mapping.mapping.enabled())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_assume_role_has_three_attempts_and_five_seconds() {
        let given = SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .build();
        let config = for_assume_role(&given);
        assert_eq!(config.region(), given.region());
        assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(3));
        let timeouts = config.timeout_config().unwrap();
        let set = [timeouts.connect_timeout(), timeouts.read_timeout(), timeouts.operation_timeout()];
        assert_eq!(set.map(|set| set.map(|set| set.as_secs())), [Some(3), Some(5), Some(5)]);
    }
}
