//! File descriptors: how many the process may have, and how many of them reads may use.

use std::collections::BTreeSet;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Checkpoints, Config, MappingConfig, Target};

/// More is not requested, even if the hard limit permits it: functions inherit the limit, and some programs close every
/// descriptor that there could be, one by one.
const MOST: u64 = 65_536;

/// What the process itself takes: its runtime, log, signals, checkpoint files, and the admin endpoints.
const OWN: u64 = 96;

/// Each mapping: a destination, discovery, and checks whether shards have ended.
const PER_MAPPING: u64 = 16;

/// A table of checkpoints: the calls that may be under way at once, and heartbeats.
const TABLE: u64 = 140;

/// A function's process: three pipes and a connection that is being closed.
const PER_PROCESS: u64 = 4;

/// Each invocation that a process may hold: its connection.
const PER_INVOCATION: u64 = 1;

/// Connections to a URL if nothing bounds its invocations: more are closed and opened again.
const UNBOUNDED_URL: u64 = 64;

/// A read: its connection, and one that is kept from an earlier read or is being closed.
const PER_READ: u64 = 2;

/// A limit of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// What the process may have; `None` if unlimited.
    pub limit: Option<u64>,
    /// What it might have had, if it was raised.
    pub raised_from: Option<u64>,
}

impl Descriptors {
    /// Raises the process's soft limit to its hard one, or to 65,536 if that is less.
    #[must_use]
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let Some(soft) = current else { return Self { limit: None, raised_from: None } };
        let wanted = maximum.map_or(MOST, |hard| hard.min(MOST));
        let raised =
            wanted > soft && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
        match raised {
            true => Self { limit: Some(wanted), raised_from: Some(soft) },
            false => Self { limit: Some(soft), raised_from: None },
        }
    }

    /// How many reads may be under way at the same time: what is configured, or as many as the limit has descriptors for
    /// in addition to those that are kept for the store, the admin endpoints and the functions; at least 1.
    #[must_use]
    pub fn reads(&self, config: &Config) -> usize {
        let configured = config.worker.maximum_concurrent_reads;
        let Some(limit) = self.limit else { return configured };
        let permitted = limit.saturating_sub(kept(config)) / PER_READ;
        configured.min(usize::try_from(permitted).unwrap_or(usize::MAX)).max(1)
    }

    /// Logs the limit, and warns if it is too low for what is configured.
    pub fn log(&self, config: &Config) {
        let Some(limit) = self.limit else { return };
        match self.raised_from {
            Some(from) => tracing::info!(from, to = limit, "raised the limit of open files (RLIMIT_NOFILE)"),
            None => tracing::debug!(limit, "the limit of open files (RLIMIT_NOFILE)"),
        }
        let (configured, reads) = (config.worker.maximum_concurrent_reads, self.reads(config));
        if reads < configured {
            let needed = kept(config).saturating_add(configured as u64 * PER_READ);
            tracing::warn!(
                limit,
                needed,
                "Worker.MaximumConcurrentReads is {configured}, but the process may open only {limit} files and connections: \
                 at most {reads} reads are made at once; raise the hard limit (ulimit -Hn, LimitNOFILE=) to {needed}"
            );
        }
    }
}

/// Descriptors that are not for reads.
fn kept(config: &Config) -> u64 {
    let of = |mapping: &MappingConfig| {
        let at_once = mapping.function.maximum_concurrency.map(|at_once| at_once as u64);
        PER_MAPPING
            + match &mapping.function.target {
                Target::Url { .. } => at_once.unwrap_or(UNBOUNDED_URL),
                Target::Command { concurrency_per_process, .. } => {
                    let cpus = || std::thread::available_parallelism().map_or(1, usize::from) as u64;
                    let process = PER_PROCESS + PER_INVOCATION * *concurrency_per_process as u64;
                    at_once.unwrap_or_else(|| 4 * cpus()) * process
                }
                Target::Stdout => 0,
            }
    };
    let table = |mapping: &MappingConfig| match &mapping.checkpoints {
        Checkpoints::DynamoDb(table) | Checkpoints::Kcl(table) => Some(table.clone()),
        Checkpoints::Sqlite(_) | Checkpoints::Memory => None,
    };
    let tables = config.mappings.iter().filter_map(table).collect::<BTreeSet<_>>().len() as u64;
    OWN + TABLE * tables + config.mappings.iter().map(of).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn incident_79_each_invocation_that_a_process_may_hold_has_a_connection() {
        let kept = |function: &str| {
            let text = format!(
                "{{EventSourceArn: 'arn:aws:kinesis:us-east-1:000000000000:stream/orders', FunctionName: f, \
                 StartingPosition: TRIM_HORIZON, Function: {{Command: [f], MaximumConcurrency: 10{function}}}}}"
            );
            let now = shardmill::engine::Wall::from_millis(0);
            super::kept(&crate::config::parse(Path::new("c.yaml"), &text, &|_| None, now).unwrap().config)
        };
        let (one, hundred) = (kept(""), kept(", ConcurrencyPerProcess: 100"));
        assert_eq!(one, OWN + PER_MAPPING + 10 * 5);
        assert_eq!(hundred - one, 10 * 99);
    }
}
