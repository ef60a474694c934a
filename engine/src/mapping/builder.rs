//! A mapping from typed values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{MappingError, MappingErrorKind, MappingErrors};
use super::limits::{self, Limit};
use super::raw::RawMapping;
use super::{AnswerEncoding, EventSourceMapping, OnDestinationFailure, OnGap, OnUndecodable};
use crate::time::Wall;

/// Where a shard without a checkpoint starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StartingPosition {
    /// At the oldest record that the stream has, which loses nothing.
    #[default]
    TrimHorizon,
    /// With the records that are written after the consumer was built.
    Latest,
    /// With the first record that was written at this time or later; for DynamoDB streams to the second.
    AtTimestamp(Wall),
}

impl StartingPosition {
    /// [`AtTimestamp`](Self::AtTimestamp) from the standard library's time, cut to the millisecond.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        let millis = |part: Duration| i64::try_from(part.as_millis()).unwrap_or(i64::MAX);
        Self::AtTimestamp(Wall::from_millis(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => millis(before.duration()).saturating_neg(),
        }))
    }
}

/// Gathers the settings of a mapping, each at its default unless it is set. No setter fails:
/// [`build`](Self::build) reports everything that is wrong. Times have AWS's resolution: a setting in seconds takes whole
/// seconds only.
#[derive(Clone, Debug)]
#[must_use]
pub struct MappingBuilder {
    raw: RawMapping,
    /// Durations that the setting's unit cannot express.
    uneven: Vec<(Limit, Duration)>,
}

macro_rules! same {
    ($($(#[$doc:meta])* $name:ident($value:ident: $type:ty);)*) => {
        $($(#[$doc])* pub fn $name(mut self, $value: $type) -> Self {
            self.raw = self.raw.$name($value);
            self
        })*
    };
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])* pub fn $name(mut self, value: $type) -> Self {
            self.raw = self.raw.$name(i64::try_from(value).unwrap_or(i64::MAX));
            self
        })*
    };
}

macro_rules! durations {
    ($($(#[$doc:meta])* $name:ident: $raw:ident in $unit:ident of $limit:ident;)*) => {
        $($(#[$doc])* pub fn $name(mut self, value: Duration) -> Self {
            let count = self.whole(&limits::$limit, value, $unit);
            self.raw = self.raw.$raw(count);
            self
        })*
    };
}

const SECONDS: Duration = Duration::from_secs(1);
const MILLISECONDS: Duration = Duration::from_millis(1);

impl MappingBuilder {
    pub(super) fn new(event_source_arn: &str, function_name: &str) -> Self {
        Self { raw: RawMapping::new(event_source_arn, function_name), uneven: Vec::new() }
    }

    same! {
        /// Whether the mapping runs (P3); default true. A consumer of a disabled mapping cannot be built.
        enabled(is: bool);
        /// Whether a batch whose function fails is cut in two and each half invoked on its own (P11); default false.
        bisect_batch_on_function_error(does: bool);
        /// Whether the function's limits are those of Lambda Managed Instances, which run up to 5,400 s; default false.
        managed_instances(is: bool);
        /// What happens to a discarded batch that its destination does not accept; default
        /// [`OnDestinationFailure::Block`].
        on_destination_failure(action: OnDestinationFailure);
        /// What happens when records were lost before they were read; default [`OnGap::Continue`] (I17).
        on_gap(action: OnGap);
        /// What happens when a record cannot be decoded; default [`OnUndecodable::Stop`].
        on_undecodable(action: OnUndecodable);
        /// In which encoding Kinesis is asked to answer `GetRecords`; default [`AnswerEncoding::Auto`]: CBOR where the
        /// service understands it, else JSON. Not for DynamoDB streams, which have JSON only.
        answer_encoding(encoding: AnswerEncoding);
        /// The application's name, under which logs, metrics and status show the mapping, and the namespace of its
        /// checkpoints unless there is a [`uuid`](Self::uuid); 1 to 255 characters, none of them a control character.
        name(name: impl Into<String>);
        /// The mapping's UUID: if it is set, the namespace of the checkpoints, and the name only a label.
        uuid(uuid: impl Into<String>);
        /// The function's ARN, if the function is also named otherwise; both must be the same function.
        function_arn(arn: impl Into<String>);
        /// The role that `invokeIdentityArn` shows; default `arn:aws:iam::<account>:role/shardmill`.
        role_arn(arn: impl Into<String>);
        /// Where discarded batches go (P15): the ARN of a standard SQS queue, a standard SNS topic or an S3 bucket, or
        /// `file:PATH`. The consumer gets it with `on_failure_from`, or a destination of its own with `on_failure`.
        on_failure_destination(destination: impl Into<String>);
        /// The current time: a later starting position is refused. If it is not set, this is not checked.
        as_of(now: Wall);
        /// The largest event that the function takes, in bytes: a batch is cut before it, and a single record beyond it
        /// spends its attempts without being invoked (R3c, R24). Lambda's is 6,291,456; by default there is none.
        payload_limit(bytes: usize);
    }

    numbers! {
        /// Most records of an invocation (P4): 1 to 10,000, default 100.
        batch_size: usize;
        /// Batches of one shard that are invoked at the same time, each of other keys (P6): 1 to 10, default 1.
        parallelization_factor: usize;
        /// How often a failing batch is retried (P10): 0 to 10,000; by default until it succeeds or expires.
        maximum_retry_attempts: u32;
        /// Records per read: 1 to 10,000, the default; for DynamoDB streams to 1,000, the default.
        maximum_records: usize;
        /// Bytes that one shard may buffer: 1 MiB to 1 GiB, default 16 MiB.
        buffer_bytes: usize;
    }

    durations! {
        /// How long to gather records for a batch (P5): 0 to 300 s, default 0.
        maximum_batching_window: maximum_batching_window_in_seconds in SECONDS of BATCHING_WINDOW;
        /// How old a record may be when it is invoked (P9): 60 to 604,800 s; by default as old as the stream keeps it.
        maximum_record_age: maximum_record_age_in_seconds in SECONDS of RECORD_AGE;
        /// The length of tumbling windows (P13): 0 to 900 s, default 0: no windows.
        tumbling_window: tumbling_window_in_seconds in SECONDS of TUMBLING_WINDOW;
        /// How long one invocation may take: 1 to 1,800 s, default 20 s; up to 5,400 s with
        /// [`managed_instances`](Self::managed_instances).
        timeout: timeout_seconds in SECONDS of TIMEOUT;
        /// The wait before the first retry: 1 ms to 60 s, default 200 ms.
        initial_backoff: initial_backoff_milliseconds in MILLISECONDS of INITIAL_BACKOFF;
        /// The longest wait between retries: 1 s to 3,600 s, default 60 s.
        maximum_backoff: maximum_backoff_seconds in SECONDS of MAXIMUM_BACKOFF;
        /// The wait after an empty page at the tip: 200 ms to 60 s; default 1 s, for DynamoDB streams 250 ms.
        idle_interval: idle_interval_milliseconds in MILLISECONDS of IDLE_INTERVAL;
        /// What the wait grows to on a shard that stays empty: the idle interval to 600 s; default the idle interval, for
        /// DynamoDB streams at least 2 s.
        maximum_idle_interval: maximum_idle_interval_milliseconds in MILLISECONDS of MAXIMUM_IDLE_INTERVAL;
        /// The least time between two checkpoints of a shard: 0 to 60 s, default 0.
        checkpoint_interval: checkpoint_interval_milliseconds in MILLISECONDS of CHECKPOINT_INTERVAL;
    }

    /// Where a shard without a checkpoint starts (P7, P8); default [`StartingPosition::TrimHorizon`].
    pub fn starting_position(mut self, position: StartingPosition) -> Self {
        let (text, at) = match position {
            StartingPosition::TrimHorizon => ("TRIM_HORIZON", None),
            StartingPosition::Latest => ("LATEST", None),
            StartingPosition::AtTimestamp(at) => ("AT_TIMESTAMP", Some(at.as_millis())),
        };
        self.raw = self.raw.starting_position(text).starting_position_timestamp(at);
        self
    }

    /// Whether the function's answer names the records that failed, with everything after them (P12); default false:
    /// then only an error fails a batch, and what an answer names is ignored, as in Lambda.
    pub fn report_batch_item_failures(mut self, does: bool) -> Self {
        self.raw = self.raw.function_response_types(does.then_some("ReportBatchItemFailures"));
        self
    }

    /// Filter patterns (P14): up to 10 of up to 4,096 characters (AWS's quota is 5 and can be raised to 10); by default
    /// there are none. They are compiled into a [`Filter`](crate::Filter) and cannot go with a tumbling window.
    pub fn filter_patterns<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.raw = self.raw.filter_patterns(patterns);
        self
    }

    /// The mapping.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the fields; first the durations that are not whole numbers of their
    /// setting's unit.
    pub fn build(self) -> Result<EventSourceMapping, MappingErrors> {
        self.raw.build_after(self.uneven.iter().map(uneven).collect())
    }

    /// How many units `value` is; one that is not whole is noted.
    fn whole(&mut self, limit: &Limit, value: Duration, unit: Duration) -> i64 {
        self.uneven.retain(|(noted, _)| noted.field != limit.field);
        let (count, rest) = (value.as_nanos() / unit.as_nanos(), value.as_nanos() % unit.as_nanos());
        if rest > 0 {
            self.uneven.push((*limit, value));
        }
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

fn uneven((limit, value): &(Limit, Duration)) -> MappingError {
    let unit = if limit.field.ends_with("Milliseconds") { "milliseconds" } else { "seconds" };
    MappingError::new(limit.field, MappingErrorKind::InvalidValue, format!("{value:?}"))
        .problem(format!("is not a whole number of {unit}"))
        .permitted(limit.to_string())
        .remedy("round it")
}
