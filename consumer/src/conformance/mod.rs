//! The suites that every [`StreamSource`](crate::StreamSource) and every [`Destination`](crate::Destination) passes,
//! third parties' included.
//!
//! [`source`](source::run_all) takes a stream of the source's service with one open shard and a way to write to it,
//! [`destination`](destination::run_all) a destination and a way to break what it delivers to. Checks panic with what they
//! saw and what they expected.

#![allow(clippy::unwrap_used, reason = "a conformance check fails by panicking")]

pub mod destination;
pub mod source;
