//! The messages for the on-failure destination, as exact JSON (docs/semantics.md, sections 3.5 to 3.9).

use uuid::Uuid;

use crate::json::push_escaped;
use crate::mapping::EventSourceMapping;
use crate::record::{Batch, Record, ShardId};
use crate::request::RequestId;
use crate::time::{Wall, write_iso8601};
use crate::window::WindowCall;

/// A discarded batch, as its destination gets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FailedBatch {
    /// The records.
    pub batch: Batch,
    /// The shard that they came from.
    pub shard: ShardId,
    /// The request id of the last invocation.
    pub request_id: RequestId,
    /// Why it is discarded.
    pub condition: Condition,
    /// How often the batch was invoked; at least 1 (R29).
    pub approximate_invoke_count: u32,
    /// What the function answered last; `None` if it never saw the batch (R24, R29).
    pub response: Option<FunctionResponse>,
    /// When it was discarded, by the service's clock.
    pub at: Wall,
    /// The tumbling window that it belongs to.
    pub window: Option<WindowCall>,
}

impl FailedBatch {
    /// A batch that was invoked once and not answered, outside of a window.
    #[must_use]
    pub const fn new(
        batch: Batch,
        shard: ShardId,
        request_id: RequestId,
        condition: Condition,
        at: Wall,
    ) -> Self {
        Self {
            batch,
            shard,
            request_id,
            condition,
            approximate_invoke_count: 1,
            response: None,
            at,
            window: None,
        }
    }
}

/// Why a batch is discarded (R78).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// All attempts failed.
    RetryAttemptsExhausted,
    /// The records are older than `MaximumRecordAgeInSeconds`.
    RecordAgeExceeded,
}

impl Condition {
    /// The text in the message's `condition`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
        }
    }
}

/// How the function's last answer is reported (R35, R40).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FunctionResponse {
    /// The function answered and named failed records: `functionError` is null.
    Returned,
    /// The function failed: `functionError` is `"Unhandled"`.
    Unhandled,
}

/// The names in a failure message; the same for all of a mapping's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailureNames {
    /// The function's ARN as configured.
    pub function_arn: String,
    /// The numeric qualifier, else `$LATEST`.
    pub executed_version: String,
    /// The stream's ARN.
    pub stream_arn: String,
    /// The mapping's UUID, part of an S3 key.
    pub mapping_uuid: String,
}

impl FailureNames {
    /// The names, in the order of the fields.
    #[must_use]
    pub fn new(function_arn: &str, executed_version: &str, stream_arn: &str, mapping_uuid: &str) -> Self {
        Self {
            function_arn: function_arn.to_owned(),
            executed_version: executed_version.to_owned(),
            stream_arn: stream_arn.to_owned(),
            mapping_uuid: mapping_uuid.to_owned(),
        }
    }

    /// The names of a mapping.
    #[must_use]
    pub fn of(mapping: &EventSourceMapping) -> Self {
        let stream = mapping.event_source().arn.as_str();
        Self::new(mapping.function_arn(), mapping.executed_version(), stream, mapping.uuid())
    }
}

/// The JSON text that SQS and SNS get for a batch: its positions, not its records (R73; docs/semantics.md,
/// sections 3.5 to 3.7).
///
/// The stream's ARN decides between Kinesis' and DynamoDB's form.
/// Byte for byte Lambda's. `responseContext` is left out if the function never saw the batch (R24) and whenever the
/// records were too old, however often they were invoked before (R28, R29). What Lambda writes for a record without an arrival time is not known; here its `approximateArrivalOf…` field is left out.
#[must_use]
pub fn message(failed: &FailedBatch, names: &FailureNames) -> String {
    let mut out = Vec::with_capacity(1024);
    push_request(&mut out, failed, names);
    out.extend_from_slice(br#""version":"1.0","#);
    push_batch(&mut out, failed, names);
    out.push(b'}');
    String::from_utf8(out).expect("it is put together from UTF-8 strings")
}

/// The JSON object that S3 gets for a batch: [`message`] and, as a string, the `event` that the function got
/// (R73; docs/semantics.md, section 3.9), and its tumbling window, which a message does not have. One line without a
/// line feed.
///
/// `event` is what [`encode`](crate::encode) made of the batch. Bytes that are not UTF-8, which it never makes, are
/// replaced by U+FFFD.
#[must_use]
pub fn object(failed: &FailedBatch, names: &FailureNames, event: &[u8]) -> Vec<u8> {
    // An event has about forty quotes a record; one that is all quotes would only cost a second allocation.
    let mut out = Vec::with_capacity(1024 + event.len() + 64 * failed.batch.len());
    push_request(&mut out, failed, names);
    out.extend_from_slice(br#""version":"1.0","payload":""#);
    match std::str::from_utf8(event) {
        Ok(text) => push_escaped(&mut out, text),
        Err(_) => push_escaped(&mut out, &String::from_utf8_lossy(event)),
    }
    out.extend_from_slice(br#"","#);
    push_batch(&mut out, failed, names);
    if let Some(window) = &failed.window {
        push_window(&mut out, window);
    }
    out.push(b'}');
    out
}

/// `{"requestContext":{…},["responseContext":{…},]`
fn push_request(out: &mut Vec<u8>, failed: &FailedBatch, names: &FailureNames) {
    out.extend_from_slice(br#"{"requestContext":{"#);
    push_field(out, "requestId", &failed.request_id.to_string());
    out.push(b',');
    push_field(out, "functionArn", &names.function_arn);
    out.push(b',');
    push_field(out, "condition", failed.condition.as_str());
    out.extend_from_slice(br#","approximateInvokeCount":"#);
    push_number(out, failed.approximate_invoke_count);
    out.extend_from_slice(b"},");
    // Lambda never includes a response with this condition, not even after eight invocations (R28, R29).
    let told = failed.response.filter(|_| failed.condition != Condition::RecordAgeExceeded);
    if let Some(response) = told {
        out.extend_from_slice(br#""responseContext":{"statusCode":200,"#);
        push_field(out, "executedVersion", &names.executed_version);
        out.extend_from_slice(match response {
            FunctionResponse::Returned => br#","functionError":null},"#,
            FunctionResponse::Unhandled => br#","functionError":"Unhandled"},"#,
        });
    }
}

/// The key of the object that S3 gets for a batch (docs/semantics.md, section 3.9):
/// `aws/lambda/<mapping's UUID>/<shard>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<UUID>`, by the message's time in UTC.
///
/// Lambda ends it with a random UUID. Here it only looks like one: it follows from the request id, which is random, and
/// from the batch, so that a delivery that is made again because its answer was lost writes the same object again.
#[must_use]
pub fn object_key(failed: &FailedBatch, names: &FailureNames) -> String {
    let mut time = String::with_capacity(20);
    write_iso8601(&mut time, failed.at, false);
    let time = time.trim_end_matches('Z').replace(':', ".");
    let day = time.split('T').next().unwrap_or_default().replace('-', "/");
    let id = object_id(failed);
    format!("aws/lambda/{}/{}/{day}/{time}-{id}", names.mapping_uuid, failed.shard.as_str())
}

/// Differs wherever two discards do: several batches may be discarded under one request id within a millisecond.
fn object_id(failed: &FailedBatch) -> RequestId {
    let seqs = [failed.batch.first(), failed.batch.last()].map(|record| record.map(|record| &record.seq));
    let window = failed.window.as_ref().map(|window| (window.start.as_millis(), window.is_final));
    let name = format!("{}/{seqs:?}/{window:?}/{}", failed.shard.as_str(), failed.at.as_millis());
    let namespace = Uuid::from_u128(failed.request_id.as_u128());
    RequestId::from_random(Uuid::new_v5(&namespace, name.as_bytes()).as_u128())
}

/// Whether the batch came from a DynamoDB stream: its message has another key and other times
/// (docs/semantics.md, section 3.6).
fn is_from_dynamodb(names: &FailureNames) -> bool {
    names.stream_arn.split(':').nth(2) == Some("dynamodb")
}

/// `"timestamp":"…","KinesisBatchInfo":{…}`, or `DDBStreamBatchInfo`
fn push_batch(out: &mut Vec<u8>, failed: &FailedBatch, names: &FailureNames) {
    push_field(out, "timestamp", &iso(failed.at, true));
    let dynamodb = is_from_dynamodb(names);
    out.extend_from_slice(if dynamodb {
        br#","DDBStreamBatchInfo":{"#.as_slice()
    } else {
        br#","KinesisBatchInfo":{"#.as_slice()
    });
    push_field(out, "shardId", failed.shard.as_str());
    out.push(b',');
    // The final call of a tumbling window has no records, and its message nothing about them.
    if let (Some(first), Some(last)) = (failed.batch.first(), failed.batch.last()) {
        push_field(out, "startSequenceNumber", first.seq.number.as_str());
        out.push(b',');
        push_field(out, "endSequenceNumber", last.seq.number.as_str());
        push_arrival(out, "approximateArrivalOfFirstRecord", first, !dynamodb);
        push_arrival(out, "approximateArrivalOfLastRecord", last, !dynamodb);
        out.extend_from_slice(br#","batchSize":"#);
        push_number(out, failed.batch.len());
        out.push(b',');
    }
    push_field(out, "streamArn", &names.stream_arn);
    out.push(b'}');
}

/// `,"timeWindowInfo":{…}`
fn push_window(out: &mut Vec<u8>, window: &WindowCall) {
    out.extend_from_slice(br#","timeWindowInfo":{"window":{"#);
    push_field(out, "start", &iso(window.start, false));
    out.push(b',');
    push_field(out, "end", &iso(window.end, false));
    let flag = |flag: bool| if flag { "true" } else { "false" };
    let (is_final, early) = (flag(window.is_final), flag(window.is_terminated_early));
    let flags = format!(r#"}},"isFinalInvokeForWindow":{is_final},"isWindowTerminatedEarly":{early}}}"#);
    out.extend_from_slice(flags.as_bytes());
}

/// DynamoDB's arrival times are whole seconds and are written without milliseconds.
fn push_arrival(out: &mut Vec<u8>, name: &str, record: &Record, with_millis: bool) {
    if let Some(at) = record.arrival {
        out.push(b',');
        push_field(out, name, &iso(at, with_millis));
    }
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(br#"":""#);
    push_escaped(out, value);
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn iso(at: Wall, with_millis: bool) -> String {
    let mut out = String::with_capacity(24);
    write_iso8601(&mut out, at, with_millis);
    out
}

#[cfg(test)]
mod tests;
