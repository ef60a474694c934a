//! Whole consumers of one fleet over an in-memory Kinesis and one lease store, under virtual time: a seed draws what
//! happens to them, and a judge watches every delivery and every write.
//!
//! `SHARDMILL_SIM_SEEDS` is how many seeds are run, `SHARDMILL_SIM_FROM` the first of them, `SHARDMILL_SIM_LOG=1` prints
//! what happened in each. The same seed meets the same events; whoever wakes in the same millisecond comes in an order by
//! chance, as tokio's channels choose it, so that a rare failure may need a few runs of its seed.
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
mod way;
mod weather;
mod world;
