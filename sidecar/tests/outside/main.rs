//! The binary and what is around it: logs and output that are not read, strangers at its endpoints, and
//! what it lets them see.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod admin;
mod fleet;
mod log;
mod rig;
mod secrets;
mod stdout;
