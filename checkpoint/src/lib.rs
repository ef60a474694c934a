//! Lease stores: where a worker's leases and checkpoints live.
//!
//! [`LeaseStore`] is the seam; a store is opened per application, so two functions on one stream never share a
//! checkpoint. Every write is a compare-and-set on a lease's counter, which is both the fence and the heartbeat, in the
//! way of Amazon's KCL.

mod error;
mod lease;
mod store;

pub use error::StoreError;
pub use lease::{AppState, Claim, HashRange, Lease, NewLease, ProcessIdentity, WorkerId};
pub use store::{Checkpoint, LeaseStore, Ownership, Renewal, Write};
