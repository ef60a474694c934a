//! From values as a configuration file has them to a valid mapping, or to every mistake at once.

mod check;
mod json;

pub(super) use json::from_json;

use super::error::{MappingError, MappingErrors};
use super::limits;
use super::{AnswerEncoding, EventSourceMapping, OnDestinationFailure, OnGap, OnUndecodable};
use crate::time::Wall;

/// The values of a mapping as wide as a configuration file can write them: texts and integers under AWS's names and in
/// AWS's units. No setter fails: [`build`](Self::build) reports everything that is wrong.
///
/// Programs use [`EventSourceMapping::builder`], which has types.
#[derive(Clone, Debug)]
#[must_use]
pub struct RawMapping {
    event_source_arn: String,
    function_name: String,
    function_arn: Option<String>,
    name: Option<String>,
    uuid: Option<String>,
    enabled: bool,
    batch_size: i64,
    batching_window: i64,
    parallelization_factor: i64,
    starting_position: Option<String>,
    starting_position_timestamp: Option<i64>,
    as_of: Option<Wall>,
    maximum_record_age: i64,
    maximum_retry_attempts: i64,
    bisect_batch_on_function_error: bool,
    function_response_types: Vec<String>,
    tumbling_window: i64,
    payload_limit: Option<usize>,
    filters: Vec<String>,
    on_failure: String,
    on_success: String,
    role_arn: Option<String>,
    timeout: i64,
    managed_instances: bool,
    initial_backoff: i64,
    maximum_backoff: i64,
    idle_interval: Option<i64>,
    maximum_idle_interval: Option<i64>,
    maximum_records: Option<i64>,
    buffer_bytes: i64,
    answer_encoding: Option<AnswerEncoding>,
    checkpoint_interval: i64,
    on_destination_failure: OnDestinationFailure,
    on_gap: OnGap,
    on_undecodable: OnUndecodable,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $field:ident = $type:ty;)*) => {
        $($(#[$doc])* pub fn $name(mut self, value: $type) -> Self {
            self.$field = value;
            self
        })*
    };
}

macro_rules! text_setters {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* pub fn $name(mut self, value: impl Into<String>) -> Self {
            self.$name = Some(value.into());
            self
        })*
    };
}

/// Sets an integer of a mapping.
type SetInteger = fn(RawMapping, i64) -> RawMapping;

impl RawMapping {
    /// The integers of a mapping: each one's name, dotted below the top level, and its setter.
    pub const INTEGERS: [(&'static str, SetInteger); 14] = [
        ("BatchSize", Self::batch_size),
        ("MaximumBatchingWindowInSeconds", Self::maximum_batching_window_in_seconds),
        ("ParallelizationFactor", Self::parallelization_factor),
        ("MaximumRecordAgeInSeconds", Self::maximum_record_age_in_seconds),
        ("MaximumRetryAttempts", Self::maximum_retry_attempts),
        ("TumblingWindowInSeconds", Self::tumbling_window_in_seconds),
        ("CheckpointIntervalMilliseconds", Self::checkpoint_interval_milliseconds),
        ("Function.Timeout", Self::timeout_seconds),
        ("Retry.InitialBackoffMilliseconds", Self::initial_backoff_milliseconds),
        ("Retry.MaximumBackoffSeconds", Self::maximum_backoff_seconds),
        ("Polling.IdleIntervalMilliseconds", Self::idle_interval_milliseconds),
        ("Polling.MaximumIdleIntervalMilliseconds", Self::maximum_idle_interval_milliseconds),
        ("Polling.MaximumRecords", Self::maximum_records),
        ("Polling.BufferBytes", Self::buffer_bytes),
    ];

    /// A mapping of a stream to a function, as [`EventSourceMapping::builder`].
    pub fn new(event_source_arn: &str, function_name: &str) -> Self {
        Self {
            event_source_arn: event_source_arn.to_owned(),
            function_name: function_name.to_owned(),
            function_arn: None,
            name: None,
            uuid: None,
            enabled: true,
            batch_size: limits::BATCH_SIZE.default,
            batching_window: limits::BATCHING_WINDOW.default,
            parallelization_factor: limits::PARALLELIZATION_FACTOR.default,
            starting_position: Some("TRIM_HORIZON".to_owned()),
            starting_position_timestamp: None,
            as_of: None,
            maximum_record_age: limits::RECORD_AGE.default,
            maximum_retry_attempts: limits::RETRY_ATTEMPTS.default,
            bisect_batch_on_function_error: false,
            function_response_types: Vec::new(),
            tumbling_window: limits::TUMBLING_WINDOW.default,
            payload_limit: None,
            filters: Vec::new(),
            on_failure: String::new(),
            on_success: String::new(),
            role_arn: None,
            timeout: limits::TIMEOUT.default,
            managed_instances: false,
            initial_backoff: limits::INITIAL_BACKOFF.default,
            maximum_backoff: limits::MAXIMUM_BACKOFF.default,
            idle_interval: None,
            maximum_idle_interval: None,
            maximum_records: None,
            buffer_bytes: limits::BUFFER_BYTES.default,
            answer_encoding: None,
            checkpoint_interval: limits::CHECKPOINT_INTERVAL.default,
            on_destination_failure: OnDestinationFailure::Block,
            on_gap: OnGap::Continue,
            on_undecodable: OnUndecodable::Stop,
        }
    }

    setters! {
        /// P3; default true.
        enabled: enabled = bool;
        /// P4: 1 to 10,000, default 100.
        batch_size: batch_size = i64;
        /// P5: 0 to 300 seconds, default 0.
        maximum_batching_window_in_seconds: batching_window = i64;
        /// P6: 1 to 10, default 1.
        parallelization_factor: parallelization_factor = i64;
        /// P9: -1 (no limit) or 60 to 604,800 seconds, default -1.
        maximum_record_age_in_seconds: maximum_record_age = i64;
        /// P10: -1 (no limit) or 0 to 10,000, default -1.
        maximum_retry_attempts: maximum_retry_attempts = i64;
        /// P11; default false.
        bisect_batch_on_function_error: bisect_batch_on_function_error = bool;
        /// P13: 0 to 900 seconds, default 0: no windows.
        tumbling_window_in_seconds: tumbling_window = i64;
        /// Seconds that one invocation may take: 1 to 1,800 as in Lambda, default 20; up to 5,400 with
        /// [`managed_instances`](Self::managed_instances).
        timeout_seconds: timeout = i64;
        /// Whether the function's limits are those of Lambda Managed Instances, which run up to 5,400 s; default false.
        managed_instances: managed_instances = bool;
        /// Milliseconds before the first retry: 1 to 60,000, default 200.
        initial_backoff_milliseconds: initial_backoff = i64;
        /// The longest wait between retries: 1 to 3,600 seconds, default 60.
        maximum_backoff_seconds: maximum_backoff = i64;
        /// Bytes that one shard may buffer: 1 MiB to 1 GiB, default 16 MiB.
        buffer_bytes: buffer_bytes = i64;
        /// The least time between two checkpoints of a shard: 0 to 60,000 milliseconds, default 0.
        checkpoint_interval_milliseconds: checkpoint_interval = i64;
        /// Default [`OnDestinationFailure::Block`].
        on_destination_failure: on_destination_failure = OnDestinationFailure;
        /// Default [`OnGap::Continue`] (I17).
        on_gap: on_gap = OnGap;
        /// Default [`OnUndecodable::Stop`].
        on_undecodable: on_undecodable = OnUndecodable;
    }

    text_setters! {
        /// The application's name, the namespace of its checkpoints; 1 to 255 characters.
        name;
        /// The mapping's UUID: where it is set, the namespace of the checkpoints, and the name only a label.
        uuid;
        /// The function's ARN, where the function is also named otherwise; both must be the same function.
        function_arn;
        /// The role that `invokeIdentityArn` shows.
        role_arn;
    }

    /// P7: `TRIM_HORIZON`, `LATEST` or `AT_TIMESTAMP`. Without this call `TRIM_HORIZON`, which loses nothing; `None`
    /// stands for a mapping that leaves the field out, which Lambda refuses.
    pub fn starting_position<'a>(mut self, value: impl Into<Option<&'a str>>) -> Self {
        self.starting_position = value.into().map(str::to_owned);
        self
    }

    /// In which encoding Kinesis answers; not for DynamoDB streams. Default [`AnswerEncoding::Auto`].
    pub const fn answer_encoding(mut self, encoding: AnswerEncoding) -> Self {
        self.answer_encoding = Some(encoding);
        self
    }

    /// The largest event that the function takes, in bytes: a batch is cut before it, and a single record beyond it
    /// spends its attempts without being invoked (R3c, R24). Lambda's is 6,291,456; without this call there is none.
    pub const fn payload_limit(mut self, bytes: usize) -> Self {
        self.payload_limit = Some(bytes);
        self
    }

    /// P8: milliseconds since the epoch, with `AT_TIMESTAMP` only.
    pub fn starting_position_timestamp(mut self, milliseconds: impl Into<Option<i64>>) -> Self {
        self.starting_position_timestamp = milliseconds.into();
        self
    }

    /// The current time: a later [`starting_position_timestamp`](Self::starting_position_timestamp) is refused. If it is
    /// not set, this is not checked.
    pub fn as_of(mut self, now: Wall) -> Self {
        self.as_of = Some(now);
        self
    }

    /// P12: nothing, or `ReportBatchItemFailures`.
    pub fn function_response_types<T: Into<String>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.function_response_types = values.into_iter().map(Into::into).collect();
        self
    }

    /// P14: up to 10 filter patterns of up to 4,096 characters (AWS's quota is 5 and can be raised to 10); none by default.
    /// They are compiled into a [`Filter`](crate::Filter) and cannot go with a tumbling window.
    pub fn filter_patterns<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.filters = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// P15: the ARN of a standard SQS queue, a standard SNS topic or an S3 bucket, or `file:PATH`; empty for none.
    pub fn on_failure_destination(mut self, value: impl Into<String>) -> Self {
        self.on_failure = value.into();
        self
    }

    /// P16: refused unless empty, as Lambda does.
    pub fn on_success_destination(mut self, value: impl Into<String>) -> Self {
        self.on_success = value.into();
        self
    }

    /// Milliseconds to wait after an empty page at the tip: 200 to 60,000; default 1,000, for DynamoDB streams 250.
    pub fn idle_interval_milliseconds(mut self, value: i64) -> Self {
        self.idle_interval = Some(value);
        self
    }

    /// Records per read: 1 to 10,000, the default; for DynamoDB streams to 1,000, the default.
    pub fn maximum_records(mut self, value: i64) -> Self {
        self.maximum_records = Some(value);
        self
    }

    /// Milliseconds that the wait grows to on a shard that stays empty: the idle interval to 600,000; default the idle
    /// interval, for DynamoDB streams at least 2,000.
    pub fn maximum_idle_interval_milliseconds(mut self, value: i64) -> Self {
        self.maximum_idle_interval = Some(value);
        self
    }

    /// The mapping.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the fields.
    pub fn build(self) -> Result<EventSourceMapping, MappingErrors> {
        self.build_after(Vec::new())
    }

    /// The same, with what was found to be wrong before.
    pub(super) fn build_after(
        &self,
        mistakes: Vec<MappingError>,
    ) -> Result<EventSourceMapping, MappingErrors> {
        let mut found = check::Found(mistakes);
        match self.check(&mut found) {
            Some(mapping) if found.0.is_empty() => Ok(mapping),
            // A part is missing only where a mistake was noted.
            _ => Err(MappingErrors::of(found.0)),
        }
    }
}
