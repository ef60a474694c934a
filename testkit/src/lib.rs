//! Fakes of the services and a fault proxy, for tests.

pub mod kinesis;

pub use kinesis::FakeKinesis;
