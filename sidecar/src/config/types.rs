//! The content of a valid file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardmill_engine::EventSourceMapping;

/// A valid file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub mappings: Vec<MappingConfig>,
    /// This process among its peers.
    pub worker: Worker,
    /// The admin endpoints.
    pub admin: Admin,
    /// How AWS is reached.
    pub aws: Aws,
    /// Whether a lease table that is missing is created.
    pub create_table: bool,
}

/// One mapping with what Lambda does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingConfig {
    /// Lambda's part, and the timings.
    pub mapping: EventSourceMapping,
    /// How the function is called.
    pub function: Function,
    /// Where positions and leases live.
    pub checkpoints: Checkpoints,
}

/// How the function is called. Its timeout is the mapping's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The transport.
    pub target: Target,
    /// Invocations at once, 1 to 10,000; for a command the number of processes. `None`: the transport's default.
    pub maximum_concurrency: Option<usize>,
}

/// The transport of invocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// POST to an HTTP server.
    Url {
        /// An http or https URL with a host.
        url: String,
        /// Statuses of 400 to 599 that mean "not reached"; by default 408, 429 and 503.
        not_reached_status: Vec<u16>,
    },
    /// A program that is started as a Lambda runtime.
    Command {
        /// The program and its arguments; at least the program.
        command: Vec<String>,
        /// Added to the program's environment.
        environment: BTreeMap<String, String>,
        /// `None`: the sidecar's own.
        working_directory: Option<PathBuf>,
        /// Invocations that one process may hold at once.
        concurrency_per_process: usize,
    },
    /// One line per event on standard output.
    Stdout,
}

impl Target {
    /// The largest event that is sent there, in bytes: Lambda's limit where a Lambda function may listen (R3c, R24).
    #[must_use]
    pub(super) const fn payload_limit(&self) -> Option<usize> {
        match self {
            Self::Url { .. } | Self::Command { .. } => Some(6_291_456),
            Self::Stdout => None,
        }
    }
}

/// Where positions and leases live.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checkpoints {
    /// An SQLite file; a relative path is relative to the working directory.
    Sqlite(PathBuf),
    /// A DynamoDB table, by its name.
    DynamoDb(String),
    /// A DynamoDB table in the layout of Amazon's KCL, by its name, which is the application's.
    Kcl(String),
    /// This process's memory: lost when it ends.
    Memory,
}

impl Checkpoints {
    /// Whether both are one store, however its path is written.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(one), Self::Sqlite(other)) => one_spelling(one) == one_spelling(other),
            _ => self == other,
        }
    }
}

/// The same path for every way to write it. The file need not exist yet.
pub(crate) fn one_spelling(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.canonicalize(), absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Ok(file), ..) => file,
        (_, Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => absolute,
    }
}

/// This process among its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// A name of the user's choice; `None`: host name and a random suffix.
    pub id: Option<String>,
    /// After this long without a renewal another worker takes a shard over: 2 to 3,600 s.
    pub lease: Duration,
    /// Shards that this worker takes at most; `None`: no limit.
    pub maximum_leases: Option<usize>,
    /// How long running invocations may take after a signal: 1 to 3,600 s.
    pub stop: Duration,
    /// Bytes that all shards together may buffer.
    pub buffer_bytes: usize,
    /// Reads at once over all shards.
    pub maximum_concurrent_reads: usize,
}

/// The admin endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// None.
    Off,
    /// 127.0.0.1:9464, or the next free port.
    Default,
    /// This address and no other.
    Listen(SocketAddr),
}

/// How AWS is reached; what is `None` comes from the SDK's own chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aws {
    /// Instead of the stream's region.
    pub region: Option<String>,
    /// One endpoint for all services: an emulator's.
    pub endpoint_url: Option<String>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// A role to assume.
    pub assume_role_arn: Option<String>,
}
