//! Whole consumers of one fleet over an in-memory Kinesis and one lease store, under virtual time: a seed draws what
//! happens to them, and a judge watches every delivery and every write.
//!
//! `SHARDMILL_SIM_SEEDS` is how many seeds are run, `SHARDMILL_SIM_FROM` the first of them, `SHARDMILL_SIM_LOG=1` prints
//! what happened in each. A seed that is run again gives the same log, line by line.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

mod events;
mod judge;
mod node;
mod plan;
mod seeds;
mod stream;
#[expect(dead_code, unused_imports, reason = "each test program uses a part of it")]
#[path = "../behaviour/support.rs"]
mod support;
mod tape;
mod way;
mod weather;
mod world;
