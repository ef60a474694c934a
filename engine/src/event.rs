//! The event that a function gets, as exact JSON (lambda-esm.md, section 3.1).

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{Batch, ShardId};

/// What an event says beside its records; the same for all invocations of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventContext {
    /// The stream's ARN.
    pub event_source_arn: Arc<str>,
    /// The stream's region.
    pub region: Arc<str>,
    /// The role in `invokeIdentityArn`.
    pub invoke_identity_arn: Arc<str>,
    /// The shard.
    pub shard: ShardId,
}

/// Encodes the event of `batch`.
#[must_use]
pub fn encode(batch: &Batch, cx: &EventContext) -> Bytes {
    let _ = (batch, cx);
    Bytes::new()
}
