//! Records of Kinesis data streams (docs/semantics.md, section 3.1).

use super::EventContext;
use crate::json::{escaped_len, push_escaped};
use crate::json::{push_seconds, seconds_len};
use crate::record::{Data, Record};

const HEAD: &[u8] = br#"{"kinesis":{"kinesisSchemaVersion":"1.0","#;
const KEY: &[u8] = br#""partitionKey":""#;
const KEY_END: &[u8] = br#"","#;
const NUMBER: &[u8] = br#""sequenceNumber":""#;
const DATA: &[u8] = br#"","data":""#;
const ARRIVAL: &[u8] = br#"","approximateArrivalTimestamp":"#;
const NO_ARRIVAL: &[u8] = br#"""#;

/// The parts that all records of a shard share, written once per event.
pub(super) struct Fixed {
    /// From the end of the `kinesis` object up to the event id's sequence number.
    to_event_id: Vec<u8>,
    /// From the event id's closing quote to the end of the record.
    tail: Vec<u8>,
}

impl Fixed {
    pub(super) fn new(cx: &EventContext) -> Self {
        let mut to_event_id = br#"},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":""#.to_vec();
        push_escaped(&mut to_event_id, cx.shard.as_str());
        to_event_id.push(b':');

        let mut tail = br#"","eventName":"aws:kinesis:record","invokeIdentityArn":""#.to_vec();
        push_escaped(&mut tail, &cx.invoke_identity_arn);
        tail.extend_from_slice(br#"","awsRegion":""#);
        push_escaped(&mut tail, &cx.region);
        tail.extend_from_slice(br#"","eventSourceARN":""#);
        push_escaped(&mut tail, &cx.event_source_arn);
        tail.extend_from_slice(br#""}"#);
        Self { to_event_id, tail }
    }

    /// Bytes that every record takes, regardless of its content.
    pub(super) const fn len(&self) -> usize {
        HEAD.len() + NUMBER.len() + DATA.len() + self.to_event_id.len() + self.tail.len()
    }

    pub(super) fn push_record(&self, out: &mut Vec<u8>, record: &Record, key: Option<&str>, data: &Data) {
        let number = record.seq.number.as_str();
        out.extend_from_slice(HEAD);
        if let Some(key) = key {
            out.extend_from_slice(KEY);
            push_escaped(out, key);
            out.extend_from_slice(KEY_END);
        }
        out.extend_from_slice(NUMBER);
        push_escaped(out, number);
        out.extend_from_slice(DATA);
        match data {
            Data::Base64(text) => out.extend_from_slice(text),
            Data::Raw(bytes) => base64_simd::STANDARD.encode_append(bytes, out),
        }
        match record.arrival {
            Some(at) => {
                out.extend_from_slice(ARRIVAL);
                push_seconds(out, at);
            }
            None => out.extend_from_slice(NO_ARRIVAL),
        }
        out.extend_from_slice(&self.to_event_id);
        push_escaped(out, number);
        out.extend_from_slice(&self.tail);
    }
}

/// What a record takes beyond [`Fixed::len`].
#[inline]
pub(super) fn variable_len(record: &Record, key: Option<&str>, data: &Data) -> usize {
    let key = key.map_or(0, |key| KEY.len() + escaped_len(key) + KEY_END.len());
    let data = match data {
        Data::Base64(text) => text.len(),
        Data::Raw(bytes) => base64_simd::STANDARD.encoded_length(bytes.len()),
    };
    let arrival = record.arrival.map_or(NO_ARRIVAL.len(), |at| ARRIVAL.len() + seconds_len(at));
    // The sequence number comes twice: in its own field and in the event id.
    key + data + arrival + 2 * escaped_len(record.seq.number.as_str())
}
