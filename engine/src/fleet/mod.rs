//! Leases, lineage and balance: which worker reads which shard, and when.

mod balance;
mod key;
mod lease;
mod lineage;
mod shard;

pub use balance::{FleetLease, FleetWorker, LeaseMove, MoveHistory, MovePlan, plan_moves};
pub use key::LeaseKey;
pub use lease::{
    LeaseAction, LeaseEvent, LeaseMachine, LeasePhase, LeaseTimes, LeaseView, LifeSign, OwnerView,
};
pub use lineage::{LeaseNode, PlannedLease, Start, finished_leases, gone_shards, may_start, plan_leases};
pub use shard::{HashRange, Shard, uncovered};
