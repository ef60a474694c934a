//! The sidecar's parts: everything of the binary `shardmill` but its command line.

pub mod admin;
pub mod assembly;
pub mod check;
pub mod config;
pub mod demo;
pub mod handler;
pub mod logging;
pub mod run;
