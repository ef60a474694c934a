//! How the sidecar finds AWS, and what it makes of AWS's connections, credentials and clock.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod credentials;
mod region;
mod rig;
mod tls;
