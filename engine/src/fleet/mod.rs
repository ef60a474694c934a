//! Leases and lineage: which worker reads which shard, and when.

mod key;
mod lease;
mod lineage;
mod shard;

pub use key::LeaseKey;
pub use lease::{
    LeaseAction, LeaseEvent, LeaseMachine, LeasePhase, LeaseTimes, LeaseView, LifeSign, OwnerView,
};
pub use lineage::{LeaseNode, PlannedLease, Start, finished_leases, gone_shards, may_start, plan_leases};
pub use shard::{HashRange, Shard, uncovered};
