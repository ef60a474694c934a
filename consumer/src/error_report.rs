//! An error as status and log show it.

use shardmill_engine::Wall;

/// A human-readable error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// What failed: `GetRecords`, `function`, `destination`, `checkpoint`.
    pub what: String,
    /// What happened.
    pub message: String,
    /// When, by the service's clock; `None` if it happened before the first iteration of the shard's driver.
    pub at: Option<Wall>,
}
