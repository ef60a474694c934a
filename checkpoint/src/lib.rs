//! Lease stores: where a worker's leases and checkpoints live.
//!
//! [`LeaseStore`] is the seam; a store is opened per application, so two functions on one stream never share a
//! checkpoint. Every write is a compare-and-set on a lease's counter, which is both the fence and the heartbeat, in the
//! way of Amazon's KCL.
//!
//! * [`MemoryStore`] forgets everything with the process: for tests and trials.
//! * `SqliteStore` (feature `sqlite`, on by default) keeps one file that several processes of a host share.
//! * `DynamoDbStore` (feature `dynamodb`) keeps a table that workers on many hosts share.
//! * `KclStore` (feature `dynamodb`) keeps a table in the layout of Amazon's KCL, which its workers may share.
//! * `conformance` (feature `conformance`) is the suite that every store passes; `FaultyStore` makes a store fail on
//!   demand.
//!
//! # Numbers such as R7, P5 and I10
//!
//! R1 to R80 and P1 to P19 are rules and parameters of Lambda's stream event source mapping, which `docs/semantics.md`
//! in the repository states. I1 to I17 are the invariants that Shardmill keeps beyond them: `docs/invariants.md`.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod error;
#[cfg(feature = "conformance")]
mod faulty;
#[cfg(feature = "dynamodb")]
mod kcl;
mod lease;
mod memory;
mod others;
mod process;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
#[cfg(feature = "dynamodb")]
mod table;
mod usage;
mod worker;

#[cfg(feature = "dynamodb")]
pub use dynamodb::{DynamoDbOptions, DynamoDbStore};
pub use error::StoreError;
#[cfg(feature = "conformance")]
pub use faulty::{Fault, FaultyStore, Operation};
#[cfg(feature = "dynamodb")]
pub use kcl::{KclOptions, KclStore};
pub use lease::{AppState, Claim, Lease, NewLease, ProcessIdentity, WorkerId};
pub use memory::MemoryStore;
pub use others::OtherApplication;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
pub use store::{Checkpoint, LeaseList, LeaseStore, Ownership, Renewal, UnreadableLease, Write};
pub use usage::{CallOutcome, Usage};
pub use worker::{Heartbeat, WorkerRecord, WorkerReport};
