//! DynamoDB Local, and names that no other test has.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};

static DRAWN: AtomicU32 = AtomicU32::new(0);

/// A name that no other test has.
pub(crate) fn unique(name: &str) -> String {
    let time = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    format!("{name}-{}-{time}-{}", std::process::id(), DRAWN.fetch_add(1, Ordering::Relaxed))
}

/// The settings of a client for the emulator.
pub(crate) fn settings() -> Builder {
    let endpoint = std::env::var("SHARDMILL_TEST_DYNAMODB_LOCAL").unwrap();
    Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
}
