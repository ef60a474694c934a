//! The event that a function gets, as exact JSON (docs/semantics.md, sections 3.1 to 3.3).

mod dynamodb;
mod kinesis;
mod size;

use std::sync::Arc;

use bytes::Bytes;

use crate::json::push_escaped;
use crate::mapping::EventSourceMapping;
use crate::record::{Batch, Payload, ShardId};
use crate::time::{Wall, write_iso8601};
use crate::window::WindowCall;

pub use dynamodb::{
    AttributeModel, AttributeRef, Attributes, DynamoDbEncoder, DynamoDbFields, InvalidItem, UserIdentity,
};
pub(crate) use size::EventSize;

/// What an event holds in addition to its records; the same for all invocations of a shard.
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

const OPEN: &[u8] = br#"{"Records":["#;
const CLOSE: &[u8] = b"]}";
const SOURCE_ARN: &[u8] = br#","eventSourceARN":""#;
const END: &[u8] = br#""}"#;

impl EventContext {
    /// What the events of a mapping hold about `shard`.
    #[must_use]
    pub fn new(mapping: &EventSourceMapping, shard: ShardId) -> Self {
        let source = mapping.event_source();
        Self {
            event_source_arn: (&source.arn).into(),
            region: source.arn.region().into(),
            invoke_identity_arn: mapping.invoke_identity_arn().into(),
            shard,
        }
    }
}

/// Encodes the event of `batch`, byte for byte as Lambda writes it (docs/semantics.md, sections 3.1 to 3.3).
///
/// A Kinesis payload that arrived as base64 is copied as it is; raw bytes are encoded straight into the event; a change
/// from a DynamoDB stream was encoded when it was read. Kinesis times are seconds with up to three decimals, `.0` for a
/// whole second.
///
/// What Lambda writes for a record without a partition key or without an arrival time is not known; here the field is
/// left out.
#[must_use]
pub fn encode(batch: &Batch, cx: &EventContext, window: Option<&WindowCall>) -> Bytes {
    let fixed = kinesis::Fixed::new(cx);
    let mut out = Vec::with_capacity(encoded_len(batch, cx, window));
    out.extend_from_slice(OPEN);
    for (index, record) in batch.records().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match &record.payload {
            Payload::Kinesis { partition_key, data } => {
                fixed.push_record(&mut out, record, partition_key.as_deref(), data);
            }
            Payload::DynamoDb(change) => {
                out.extend_from_slice(&change.json);
                out.extend_from_slice(SOURCE_ARN);
                push_escaped(&mut out, &cx.event_source_arn);
                out.extend_from_slice(END);
            }
        }
    }
    match window {
        None => out.extend_from_slice(CLOSE),
        Some(window) => push_window(&mut out, cx, window),
    }
    Bytes::from(out)
}

/// The exact size in bytes of the event of `batch`, which is what a payload limit counts (R5), without encoding it.
#[must_use]
pub fn encoded_len(batch: &Batch, cx: &EventContext, window: Option<&WindowCall>) -> usize {
    let size = EventSize::new(cx);
    let records: usize = batch.records().iter().map(|record| size.record(record)).sum();
    size.frame(window) + records + batch.len().saturating_sub(1)
}

/// `],"shardId":…,"isWindowTerminatedEarly":…}` (docs/semantics.md, section 3.3).
fn push_window(out: &mut Vec<u8>, cx: &EventContext, window: &WindowCall) {
    out.extend_from_slice(br#"],"shardId":""#);
    push_escaped(out, cx.shard.as_str());
    out.push(b'"');
    out.extend_from_slice(SOURCE_ARN);
    push_escaped(out, &cx.event_source_arn);
    out.extend_from_slice(br#"","window":"#);
    push_window_times(out, window);
    out.extend_from_slice(br#","state":"#);
    out.extend_from_slice(&window.state);
    push_window_flags(out, window);
    out.push(b'}');
}

/// `{"start":"…","end":"…"}`
pub(crate) fn push_window_times(out: &mut Vec<u8>, window: &WindowCall) {
    out.extend_from_slice(br#"{"start":""#);
    out.extend_from_slice(iso_seconds(window.start).as_bytes());
    out.extend_from_slice(br#"","end":""#);
    out.extend_from_slice(iso_seconds(window.end).as_bytes());
    out.extend_from_slice(br#""}"#);
}

/// `,"isFinalInvokeForWindow":…,"isWindowTerminatedEarly":…`
pub(crate) fn push_window_flags(out: &mut Vec<u8>, window: &WindowCall) {
    let text = |flag: bool| if flag { &b"true"[..] } else { b"false" };
    out.extend_from_slice(br#","isFinalInvokeForWindow":"#);
    out.extend_from_slice(text(window.is_final));
    out.extend_from_slice(br#","isWindowTerminatedEarly":"#);
    out.extend_from_slice(text(window.is_terminated_early));
}

fn iso_seconds(at: Wall) -> String {
    let mut out = String::with_capacity(20);
    write_iso8601(&mut out, at, false);
    out
}

#[cfg(test)]
mod tests;
