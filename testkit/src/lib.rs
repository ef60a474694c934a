//! Fakes of the services and a fault proxy, for tests.

pub mod kinesis;
pub mod pages;
mod proxy;

pub use kinesis::FakeKinesis;
pub use proxy::{FaultProxy, ProxyMode};
