//! What a function and its mapping can rely on, from a stream through the sidecar's binary to the function, the
//! on-failure destination and the checkpoint: Lambda's acceptance tests, its recorded traces, its runtimes, and what is
//! not there or goes away.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

mod age;
mod case;
mod counters;
mod destination_outage;
mod destinations;
mod dynamodb_destinations;
mod dynamodb_mapping;
mod dynamodb_volume;
mod kinesis;
mod kinesis_mapping;
mod lanes;
mod last_result;
mod latest;
mod not_there_yet;
mod payload;
mod queue;
mod retries;
mod runtimes;
mod url_function;
mod windows;
