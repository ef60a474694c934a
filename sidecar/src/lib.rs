//! The sidecar's parts, apart from its command line.

pub mod config;
