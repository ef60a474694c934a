//! End-to-end tests: the sidecar's binary between a Kinesis emulator and a function, each in a process or on a socket
//! of its own. This library is the harness, the suites are in `tests/`.
//!
//! * [`Stream`] puts records through the real SDK and remembers what PutRecords returned: the independent truth.
//! * [`Table`] is the same for a DynamoDB table.
//! * [`Config`] and [`Sidecar`] start the binary and do to it what happens to processes.
//! * [`Function`] is an HTTP function that stores what it handled in a file, synced before it answers.
//! * [`Store`] looks into the checkpoint store's file, [`LeaseWatch`] into a lease table.
//! * [`observe`] compares the two sides.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

mod config;
mod function;
pub mod observe;
mod process;
mod seed;
mod sidecar;
mod store;
mod stream;
mod table;
mod wait;
mod watch;
mod writer;

pub use config::Config;
pub use function::{Answer, End, Function, Invocation, Plan, Record, Stored, Window};
pub use process::Stalls;
pub use seed::seeded;
pub use sidecar::{Reply, Sidecar};
pub use store::{LeaseRow, Store, StoreLock};
pub use stream::{Ferrokinesis, Put, Stream, endpoint, is_open, parents_of, unique};
pub use table::{Change, Item, Table, dynamodb};
pub use wait::{until, until_within};
pub use watch::LeaseWatch;
pub use writer::{KEYS, Writer};

/// Compares sequence numbers as the integers that they are.
#[must_use]
pub fn sequence_order(a: &str, b: &str) -> std::cmp::Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
