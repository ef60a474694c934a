//! The naive reference model of one shard: docs/semantics.md, section 2.13, told as a recursion in virtual time.
//!
//! It is slow and obvious on purpose, and shares nothing with the machine: records are plain values, a lane is taken
//! through from its first record to its last before the next lane is looked at, and what the checkpoint may be is
//! worked out afterwards from the times at which records were resolved.

mod compare;
mod lane;
mod plan;
mod scenario;
mod shard;
mod stage;
mod traces;
mod windows;

pub(super) use scenario::{Answer, Call, Page, Rec, Reply, Rules, WindowSeen};
pub(super) use shard::{Expected, expect};
