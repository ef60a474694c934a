//! The sidecar's parts: everything of the binary `shardmill` but its command line.

pub mod config;
pub mod handler;
