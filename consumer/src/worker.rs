//! What all consumers of a process share.

use std::sync::Arc;
use std::time::Duration;

use shardmill_checkpoint::{ProcessIdentity, WorkerId, WorkerReport};
use shardmill_engine::LeaseTimes;
use tokio::sync::Semaphore;

use crate::budget::Budget;
use crate::clock::ServiceClock;
use crate::keeper::Keeper;
use crate::source::{ReadLimiter, SourceContext};

/// The part of the buffer budget for each read under way.
const READ_BYTES: usize = 2 << 20;
/// Reads that are permitted regardless of the budget.
const FEWEST_READS: usize = 16;

const SHORTEST_LEASE: Duration = Duration::from_secs(2);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// About the largest record of Kinesis.
const SMALLEST_BUFFER: usize = 1 << 20;

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// [`WorkerOptions::lease`] is out of range.
    #[error("lease is {0:?}; permitted: {SHORTEST_LEASE:?} to {LONGEST_LEASE:?}")]
    Lease(Duration),
    /// [`WorkerOptions::maximum_leases`] is zero.
    #[error("maximum_leases is 0; permitted: at least 1; without the call there is no limit")]
    NoLeases,
    /// [`WorkerOptions::maximum_concurrent_reads`] is zero.
    #[error("maximum_concurrent_reads is 0; permitted: at least 1")]
    NoReads,
    /// [`WorkerOptions::buffer_bytes`] is too small.
    #[error("buffer_bytes is {0}; permitted: at least {SMALLEST_BUFFER} (1 MiB)")]
    BufferBytes(usize),
    /// The operating system refuses the lease keeper's thread.
    #[error("the worker could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What all consumers of a process share: the lease keeper's thread, the buffer budget, the pace of reads, the clock.
///
/// A process needs one; [`Consumer::builder`](crate::Consumer::builder) starts one of its own unless it is given one.
#[derive(Debug)]
pub struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) process: Option<ProcessIdentity>,
    pub(crate) keeper: Keeper,
    pub(crate) budget: Budget,
    pub(crate) times: LeaseTimes,
    pub(crate) listing_interval: Duration,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) stop_timeout: Duration,
    started: i64,
    sources: SourceContext,
}

/// How a worker behaves. [`Default`] is what the sidecar does without a `Worker` section.
#[derive(Clone, Debug)]
#[must_use]
pub struct WorkerOptions {
    id: Option<String>,
    host: Option<String>,
    lease: Duration,
    maximum_leases: usize,
    stop_timeout: Duration,
    buffer_bytes: usize,
    maximum_concurrent_reads: usize,
    pacing: bool,
    keeper_thread: bool,
    clock: Option<ServiceClock>,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            id: None,
            host: None,
            lease: Duration::from_secs(10),
            maximum_leases: usize::MAX,
            stop_timeout: Duration::from_secs(25),
            buffer_bytes: 512 << 20,
            maximum_concurrent_reads: 256,
            pacing: true,
            keeper_thread: true,
            clock: None,
        }
    }
}

impl WorkerOptions {
    /// The name under which leases are owned; default: the host's name and a random suffix. A name that is set must be
    /// unique among the workers that are alive: its leases of an earlier run are taken back at once.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The host name by which other processes decide whether a lease's owner is dead; default: the kernel's host name.
    /// For embedders that know their hosts better.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// How long a lease stays with an owner that does not renew it: 2 s to 1 h, default 10 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Most leases that this worker takes, over all of its consumers: at least 1; default: no limit.
    pub fn maximum_leases(mut self, leases: usize) -> Self {
        self.maximum_leases = leases;
        self
    }

    /// How long running invocations may continue after a stop is requested; default 25 s.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = timeout;
        self
    }

    /// Bytes that all shards together may hold for records that are not resolved: at least 1 MiB, default 512 MiB. The
    /// shards that have records divide it evenly: the more there are, the smaller their pages; while much of it is free, pages are
    /// larger than that. A shard's first page has room
    /// for half of it divided by [`maximum_concurrent_reads`](Self::maximum_concurrent_reads), 1 MiB by default, and each
    /// page for twice what the one before it brought. A shard that holds none reads a few even when the budget is
    /// exhausted, which takes up to an eighth of it more.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Calls under way at the same time over all shards to open and to read them: at least 1, default 256. There is at most one for
    /// every 2 MiB of [`buffer_bytes`](Self::buffer_bytes), but 16 regardless of the budget. Half of them are divided
    /// evenly among the worker's sources, so that calls that hang on one stream hold up no other. Each may need a
    /// connection of its own: the process's limit of open files must be well above it.
    pub fn maximum_concurrent_reads(mut self, reads: usize) -> Self {
        self.maximum_concurrent_reads = reads;
        self
    }

    /// Whether reads keep to the service's limits per shard (I12); default true. For benchmarks against a fake: a real
    /// service throttles.
    pub fn pacing(mut self, pacing: bool) -> Self {
        self.pacing = pacing;
        self
    }

    fn check(&self) -> Result<(), WorkerError> {
        if self.lease < SHORTEST_LEASE || self.lease > LONGEST_LEASE {
            return Err(WorkerError::Lease(self.lease));
        }
        if self.maximum_leases == 0 {
            return Err(WorkerError::NoLeases);
        }
        if self.maximum_concurrent_reads == 0 {
            return Err(WorkerError::NoReads);
        }
        match self.buffer_bytes {
            bytes if bytes < SMALLEST_BUFFER => Err(WorkerError::BufferBytes(bytes)),
            _ => Ok(()),
        }
    }

    /// A small budget permits fewer reads than configured: answers are decoded in addition to the records that it
    /// counts (I13).
    fn concurrent_reads(&self) -> usize {
        self.maximum_concurrent_reads.min((self.buffer_bytes / READ_BYTES).max(FEWEST_READS))
    }

    /// The host's clock, for tests and simulations of hosts whose clocks are off
    /// ([`ServiceClock::starting_at`]); default: the real one.
    pub fn clock(mut self, clock: ServiceClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Runs the lease keeper in the current runtime instead of on a thread of its own, for tests under paused time
    /// (`#[tokio::test(start_paused = true)]`): the thread would not follow it, and the test would wait for leases
    /// forever. Elsewhere a handler that blocks the runtime would cost the leases.
    pub fn keeper_in_current_runtime(mut self) -> Self {
        self.keeper_thread = false;
        self
    }
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// An option is out of range, or the operating system refuses a thread.
    pub fn start(options: WorkerOptions) -> Result<Arc<Self>, WorkerError> {
        options.check()?;
        let keeper = if options.keeper_thread { Keeper::start()? } else { Keeper::in_current_runtime() };
        let process = ProcessIdentity::current();
        let reads = options.concurrent_reads();
        let limiter = if options.pacing { ReadLimiter::new() } else { ReadLimiter::without_pacing() };
        Ok(Arc::new(Self {
            id: WorkerId::new(options.id.unwrap_or_else(random_id)),
            process: match options.host {
                Some(host) => process.map(|process| process.with_host(host)),
                None => process,
            },
            keeper,
            budget: Budget::new(options.buffer_bytes, reads),
            times: LeaseTimes::new(options.lease),
            listing_interval: (options.lease / 4).min(Duration::from_millis(500)),
            slots: Arc::new(Semaphore::new(options.maximum_leases.min(Semaphore::MAX_PERMITS))),
            stop_timeout: options.stop_timeout,
            started: started(),
            sources: SourceContext::new(
                options.clock.unwrap_or_default(),
                limiter.with_concurrent_reads(reads),
            ),
        }))
    }

    /// The name under which this worker owns leases.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// The host's clock, and with it the clock of each [endpoint](ServiceClock::for_endpoint), which its sources correct by
    /// the service's answers.
    #[must_use]
    pub fn clock(&self) -> ServiceClock {
        self.sources.clock().clone()
    }

    /// What this worker says of itself to the others of an application.
    pub(crate) fn about(&self) -> WorkerReport {
        let mut about = WorkerReport::new(self.id.clone(), self.times.lease);
        about.process.clone_from(&self.process);
        about.version = env!("CARGO_PKG_VERSION").to_owned();
        about.host = host_name();
        about.started = self.started;
        about
    }

    /// What the sources of this worker's consumers share.
    pub(crate) const fn sources(&self) -> &SourceContext {
        &self.sources
    }
}

fn random_id() -> String {
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", host_name(), &suffix[..8])
}

fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "worker".to_owned());
    host.trim().to_owned()
}

/// Now, in milliseconds since the epoch.
fn started() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i13_a_small_budget_permits_fewer_reads_at_once_and_the_default_all_of_them() {
        let reads = |bytes: usize, reads: usize| {
            WorkerOptions::default().buffer_bytes(bytes).maximum_concurrent_reads(reads).concurrent_reads()
        };
        assert_eq!(WorkerOptions::default().concurrent_reads(), 256);
        assert_eq!([reads(128 << 20, 256), reads(16 << 20, 256), reads(16 << 20, 4)], [64, 16, 4]);
    }
}
