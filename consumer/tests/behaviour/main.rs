//! How a consumer behaves when something goes wrong, under virtual time: the real SDK against an in-memory Kinesis and a
//! store that fails on demand. "Nothing lost" is judged by what the stream accepted against what the handlers saw.
#![cfg(feature = "kinesis")]
#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

mod beginning;
mod clock;
mod cost;
mod destinations;
mod discovery;
mod driver;
mod fairness;
mod filters;
mod finished;
mod fleet;
mod fleet_status;
mod gaps;
mod generations;
mod kcl;
mod latest;
mod leases;
mod lineage;
mod logs;
mod places;
mod places_of_workers;
mod quiet_trouble;
mod shares;
mod stop;
mod store;
mod support;
#[cfg(feature = "dynamodb")]
mod table_cost;
mod telemetry;
mod undecodable;
