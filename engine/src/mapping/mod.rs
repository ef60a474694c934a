//! The validated configuration of an event source mapping, under AWS's names.
//!
//! [`EventSourceMapping::builder`] takes typed values, [`EventSourceMapping::from_json`] AWS's own JSON, [`RawMapping`] what
//! a configuration file says; what comes out of [`MappingBuilder::build`] is within Lambda's ranges (docs/semantics.md, P1 to P19) and never changes again.

mod arn;
mod builder;
mod destination;
mod error;
pub mod limits;
mod raw;
mod time;

use std::time::Duration;

pub use arn::{EventSource, StreamKind};
pub use builder::{MappingBuilder, StartingPosition};
pub use destination::FailureDestination;
pub use error::{MappingError, MappingErrorKind, MappingErrors};
pub use raw::RawMapping;
pub use time::parse_time;

use crate::filter::Filter;
use crate::position::Position;
use crate::time::Wall;

/// A validated event source mapping: which stream, which function, and how batches are made, retried and discarded.
///
/// Made by [`builder`](Self::builder), or from the JSON of AWS's API by [`from_json`](Self::from_json). Names, ranges, defaults
/// and error texts are those of Lambda's `CreateEventSourceMapping`; P1 to P19 and R1 to R80 are the parameters and rules that
/// `docs/semantics.md` in the repository states.
///
/// ```
/// # use std::time::Duration;
/// use shardmill_engine::EventSourceMapping;
///
/// let stream = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders";
/// let mapping = EventSourceMapping::builder(stream, "orders-worker")
///     .batch_size(500)
///     .maximum_batching_window(Duration::from_secs(2))
///     .bisect_batch_on_function_error(true)
///     .build()?;
/// assert_eq!(mapping.function_name(), "orders-worker");
///
/// let error = EventSourceMapping::builder(stream, "orders-worker").batch_size(20_000).build().unwrap_err();
/// assert!(error.to_string().contains("10000"), "{error}");
/// # Ok::<_, shardmill_engine::MappingErrors>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventSourceMapping {
    pub(crate) batch_size: usize,
    pub(crate) batching_window: Duration,
    pub(crate) bisect_batch_on_function_error: bool,
    pub(crate) parallelization_factor: usize,
    pub(crate) maximum_record_age: Option<Duration>,
    pub(crate) tumbling_window: Option<Duration>,
    pub(crate) payload_limit: Option<usize>,
    pub(crate) maximum_retry_attempts: Option<u32>,
    pub(crate) report_batch_item_failures: bool,
    pub(crate) starting_position: Position,
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) polling: Polling,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) on_destination_failure: OnDestinationFailure,
    filter: Option<Filter>,
    pub(crate) on_gap: OnGap,
    pub(crate) on_undecodable: OnUndecodable,
    event_source: EventSource,
    function: arn::Function,
    application_name: String,
    uuid: String,
    identity: String,
    enabled: bool,
    failure_destination: Option<FailureDestination>,
    invoke_identity_arn: String,
}

/// How long to wait before a retry: doubling from `initial` to `maximum`, with jitter (R22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// The wait before the first retry.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub maximum_backoff: Duration,
}

/// How a shard is read. How often its service permits that is the source's affair (I12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Polling {
    /// The wait after an empty page at the tip of the shard.
    pub idle_interval: Duration,
    /// What the wait grows to on an open shard that stays empty.
    pub maximum_idle_interval: Duration,
    /// Most records per read.
    pub maximum_records: usize,
    /// Bytes that one shard may buffer.
    pub buffer_bytes: usize,
    /// In which encoding the service is asked to answer. DynamoDB streams answer in JSON regardless.
    pub answer_encoding: AnswerEncoding,
}

/// In which encoding Kinesis is asked to answer `GetRecords`. In CBOR data are bytes and not base64 text: an answer is
/// smaller, and cheaper to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AnswerEncoding {
    /// CBOR, and JSON from the first answer on that shows that the service does not understand CBOR, as some emulators.
    #[default]
    Auto,
    /// JSON.
    Json,
    /// CBOR. If the service does not understand it, reading fails, and the error says so.
    Cbor,
}

/// What happens to a discarded batch that its destination does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDestinationFailure {
    /// Keep trying; the checkpoint waits (the deviation from R74).
    Block,
    /// Log and count the batch as dropped, as Lambda does (R74).
    Drop,
}

/// What happens when records were lost before they were read (I17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnGap {
    /// Log and count it, and resume at the oldest record.
    #[default]
    Continue,
    /// Log and count it, and stop the mapping.
    Stop,
}

/// What happens when a record cannot be decoded: its form is not the one that the service's interface describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnUndecodable {
    /// The shard waits at it: the record is read again and again, and the trouble is shown, until it can be decoded.
    #[default]
    Stop,
    /// The record is skipped, and reported and counted as a gap (I17). What tells no sequence number is never skipped.
    Skip,
}

impl EventSourceMapping {
    /// A mapping of the stream `event_source_arn` to the function `function_name`: a name, `name:qualifier`, or an ARN
    /// (P1, P2). Everything else starts at its default.
    pub fn builder(event_source_arn: &str, function_name: &str) -> MappingBuilder {
        MappingBuilder::new(event_source_arn, function_name)
    }

    /// The mapping of a JSON text: the input of `CreateEventSourceMapping`, or what `get-event-source-mapping` shows. In
    /// addition, what Lambda does not have, under the names of the sidecar's configuration: `Name`, `Retry`, `Polling`,
    /// `OnGap`, `OnUndecodable`, `OnDestinationFailure`, `CheckpointIntervalMilliseconds`, and `Timeout`, `RoleArn` and
    /// `ManagedInstances` in `Function`. A `StartingPositionTimestamp` after `now` is refused.
    ///
    /// ```
    /// use shardmill_engine::{EventSourceMapping, Wall};
    ///
    /// let text = r#"{
    ///     "EventSourceArn": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
    ///     "FunctionName": "orders-worker",
    ///     "StartingPosition": "TRIM_HORIZON",
    ///     "BatchSize": 0
    /// }"#;
    /// let errors = EventSourceMapping::from_json(text, Wall::from_millis(0)).unwrap_err().to_string();
    /// assert!(errors.starts_with("line 5: BatchSize: 0 is out of range; permitted: 1 to 10000"), "{errors}");
    /// # let text = text.replace("\"BatchSize\": 0", "\"BatchSize\": 10");
    /// # assert_eq!(EventSourceMapping::from_json(&text, Wall::from_millis(0)).unwrap().batch_size(), 10);
    /// ```
    ///
    /// # Errors
    /// Every mistake, with its line: an unknown key and a wrong type too, and a key that only another kind of mapping or
    /// the sidecar has.
    pub fn from_json(text: &str, now: Wall) -> Result<Self, MappingErrors> {
        raw::from_json(text, now)
    }

    /// The stream (P1).
    #[must_use]
    pub const fn event_source(&self) -> &EventSource {
        &self.event_source
    }

    /// The function's ARN as configured; from a bare name, with the stream's partition, region and account.
    #[must_use]
    pub fn function_arn(&self) -> &str {
        &self.function.arn
    }

    /// The function's name, without account and qualifier.
    #[must_use]
    pub fn function_name(&self) -> &str {
        &self.function.name
    }

    /// The function's numeric qualifier, else `$LATEST`: `executedVersion` of failure messages.
    #[must_use]
    pub fn executed_version(&self) -> &str {
        self.function.executed_version()
    }

    /// The application's name, under which logs, metrics and status show the mapping; by default
    /// `<function name and qualifier>@<account>.<region>.<stream>`. Without a UUID also the namespace of its checkpoints.
    #[must_use]
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// The mapping's UUID as configured, else version 5 (namespace URL) of the application's name.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The namespace of this mapping's checkpoints: the UUID in lower case where one was set, regardless of the function's name
    /// or version and the application's name are (R80); else the application's name.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether the mapping runs (P3).
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.enabled
    }

    /// Most records of an invocation, 1 to 10,000 (P4).
    #[must_use]
    pub const fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// How long to gather records for a batch, up to 300 s (P5).
    #[must_use]
    pub const fn batching_window(&self) -> Duration {
        self.batching_window
    }

    /// Where a shard without a checkpoint starts: the trim horizon, the newest record, or a time (P7, P8).
    #[must_use]
    pub const fn starting_position(&self) -> &Position {
        &self.starting_position
    }

    /// Batches of one shard that are invoked at the same time, each of other keys, 1 to 10 (P6).
    #[must_use]
    pub const fn parallelization_factor(&self) -> usize {
        self.parallelization_factor
    }

    /// How old a record may be when it is invoked, 60 to 604,800 s; `None` as old as the stream keeps it (P9).
    #[must_use]
    pub const fn maximum_record_age(&self) -> Option<Duration> {
        self.maximum_record_age
    }

    /// The length of tumbling windows, up to 900 s; `None` without them (P13).
    #[must_use]
    pub const fn tumbling_window(&self) -> Option<Duration> {
        self.tumbling_window
    }

    /// The largest event that the function takes, in bytes; `None` without a limit (R3c, R24).
    #[must_use]
    pub const fn payload_limit(&self) -> Option<usize> {
        self.payload_limit
    }

    /// Whether the function's answer is read: for the records that failed (R33), or for a window's state (R66).
    #[must_use]
    pub const fn reads_response(&self) -> bool {
        self.report_batch_item_failures || self.tumbling_window.is_some()
    }

    /// How often a failing batch is tried again, up to 10,000 times; `None` until it succeeds or expires (P10).
    #[must_use]
    pub const fn maximum_retry_attempts(&self) -> Option<u32> {
        self.maximum_retry_attempts
    }

    /// Whether a failing batch is cut in two (P11).
    #[must_use]
    pub const fn bisect_batch_on_function_error(&self) -> bool {
        self.bisect_batch_on_function_error
    }

    /// Whether the function's response names the records that failed (P12).
    #[must_use]
    pub const fn report_batch_item_failures(&self) -> bool {
        self.report_batch_item_failures
    }

    /// Which records the function is invoked with (P14); `None`: with all.
    #[must_use]
    pub const fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Where discarded batches go (P15); `None`: they are logged and counted as dropped.
    #[must_use]
    pub const fn failure_destination(&self) -> Option<&FailureDestination> {
        self.failure_destination.as_ref()
    }

    /// What happens to a discarded batch that the destination does not accept.
    #[must_use]
    pub const fn on_destination_failure(&self) -> OnDestinationFailure {
        self.on_destination_failure
    }

    /// What happens when records were lost before they were read (I17).
    #[must_use]
    pub const fn on_gap(&self) -> OnGap {
        self.on_gap
    }

    /// What happens when a record cannot be decoded.
    #[must_use]
    pub const fn on_undecodable(&self) -> OnUndecodable {
        self.on_undecodable
    }

    /// How long one invocation may take, 1 to 1,800 s, of Lambda Managed Instances to 5,400 s.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The waits between retries.
    #[must_use]
    pub const fn retry(&self) -> &Retry {
        &self.retry
    }

    /// How shards are read.
    #[must_use]
    pub const fn polling(&self) -> &Polling {
        &self.polling
    }

    /// The least time between two checkpoints of one shard; zero: as fast as the store commits.
    #[must_use]
    pub const fn checkpoint_interval(&self) -> Duration {
        self.checkpoint_interval
    }

    /// `invokeIdentityArn` of the events: the role as configured, else `arn:aws:iam::<account>:role/shardmill`.
    #[must_use]
    pub fn invoke_identity_arn(&self) -> &str {
        &self.invoke_identity_arn
    }
}

#[cfg(test)]
mod tests;
