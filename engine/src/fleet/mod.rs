//! Leases: which worker reads which shard.

mod key;

pub use key::LeaseKey;
