//! The permitted range of every number in a mapping, in one place: the builder checks by it, a configuration file's
//! schema and its error texts are written from it.

use std::fmt;

use super::error::{MappingError, MappingErrorKind};

/// The permitted values of one integer field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// The field's name, dotted below the top level. Its unit is part of the name, as AWS does it.
    pub field: &'static str,
    /// The smallest value, [`special`](Self::special) aside.
    pub minimum: i64,
    /// The largest value.
    pub maximum: i64,
    /// What applies when the field is not set.
    pub default: i64,
    /// A value outside the range that is permitted too and means "no limit".
    pub special: Option<i64>,
    /// Whether Lambda has this field, so that its text for a violation is known.
    pub lambda: bool,
}

impl Limit {
    /// A field of Shardmill's own.
    #[must_use]
    pub const fn new(field: &'static str, minimum: i64, maximum: i64, default: i64) -> Self {
        Self { field, minimum, maximum, default, special: None, lambda: false }
    }

    const fn of_lambda(field: &'static str, minimum: i64, maximum: i64, default: i64) -> Self {
        Self { lambda: true, ..Self::new(field, minimum, maximum, default) }
    }

    const fn or_no_limit(self, special: i64) -> Self {
        Self { special: Some(special), ..self }
    }

    /// The value if it is permitted.
    ///
    /// # Errors
    /// [`MappingErrorKind::OutOfRange`].
    pub fn check(&self, value: i64) -> Result<i64, MappingError> {
        if (self.minimum..=self.maximum).contains(&value) || self.special == Some(value) {
            return Ok(value);
        }
        let in_range = value.clamp(self.minimum, self.maximum);
        let nearest = match self.special {
            Some(special) if value.abs_diff(special) < value.abs_diff(in_range) => special,
            _ => in_range,
        };
        let error = MappingError::new(self.field, MappingErrorKind::OutOfRange, value.to_string())
            .problem("is out of range")
            .permitted(self.to_string())
            .remedy(format!("the nearest is {nearest}"));
        Err(match self.aws_message(value) {
            Some(text) if self.lambda => error.aws(text),
            _ => error,
        })
    }

    /// Lambda's text for `value` (docs/semantics.md, section 1.2).
    fn aws_message(&self, value: i64) -> Option<String> {
        let floor = self.special.unwrap_or(self.minimum);
        let (word, bound) = if value > self.maximum {
            ("less", self.maximum)
        } else if value < floor {
            ("greater", floor)
        } else {
            // The gap between "no limit" and the range has a text of its own.
            return Some(format!(
                "{} must be either {floor} (forever) or between {} and {} (inclusive)",
                self.field, self.minimum, self.maximum
            ));
        };
        let mut member = self.field.to_owned();
        member.get_mut(..1)?.make_ascii_lowercase();
        Some(format!(
            "1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: \
             Member must have value {word} than or equal to {bound}"
        ))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(special) = self.special {
            write!(f, "{special} (no limit) or ")?;
        }
        write!(f, "{} to {}", self.minimum, self.maximum)
    }
}

/// P4.
pub const BATCH_SIZE: Limit = Limit::of_lambda("BatchSize", 1, 10_000, 100);
/// P5. For streams a window of 0 is permitted regardless of the batch size.
pub const BATCHING_WINDOW: Limit = Limit::of_lambda("MaximumBatchingWindowInSeconds", 0, 300, 0);
/// P6.
pub const PARALLELIZATION_FACTOR: Limit = Limit::of_lambda("ParallelizationFactor", 1, 10, 1);
/// P9.
pub const RECORD_AGE: Limit = Limit::of_lambda("MaximumRecordAgeInSeconds", 60, 604_800, -1).or_no_limit(-1);
/// P10.
pub const RETRY_ATTEMPTS: Limit = Limit::of_lambda("MaximumRetryAttempts", 0, 10_000, -1).or_no_limit(-1);
/// P13.
pub const TUMBLING_WINDOW: Limit = Limit::of_lambda("TumblingWindowInSeconds", 0, 900, 0);
/// Seconds that one invocation may take: Lambda's maximum. The default fits into the default of a stop's grace, 25 s.
pub const TIMEOUT: Limit = Limit::new("Function.Timeout", 1, 1_800, 20);
/// The same for Lambda Managed Instances.
pub const MANAGED_INSTANCES_TIMEOUT: Limit = Limit { maximum: 5_400, ..TIMEOUT };
/// The wait before the first retry.
pub const INITIAL_BACKOFF: Limit = Limit::new("Retry.InitialBackoffMilliseconds", 1, 60_000, 200);
/// What the wait between retries doubles up to.
pub const MAXIMUM_BACKOFF: Limit = Limit::new("Retry.MaximumBackoffSeconds", 1, 3_600, 60);
/// The wait after an empty page at the tip of a Kinesis shard. The minimum keeps within 5 reads a second (I12).
pub const IDLE_INTERVAL: Limit = Limit::new("Polling.IdleIntervalMilliseconds", 200, 60_000, 1_000);
/// What the wait grows to on a shard that stays empty; of Kinesis by default the idle interval.
pub const MAXIMUM_IDLE_INTERVAL: Limit =
    Limit::new("Polling.MaximumIdleIntervalMilliseconds", 200, 600_000, 1_000);
/// Records per read of a Kinesis shard.
pub const MAXIMUM_RECORDS: Limit = Limit::new("Polling.MaximumRecords", 1, 10_000, 10_000);
/// The same as [`IDLE_INTERVAL`] for DynamoDB streams: Lambda's 4 reads a second (R1).
pub const DYNAMODB_IDLE_INTERVAL: Limit = Limit { default: 250, ..IDLE_INTERVAL };
/// The same as [`MAXIMUM_IDLE_INTERVAL`] for DynamoDB streams, whose reads are billed outside Lambda.
pub const DYNAMODB_MAXIMUM_IDLE_INTERVAL: Limit = Limit { default: 2_000, ..MAXIMUM_IDLE_INTERVAL };
/// Records per read of a DynamoDB shard.
pub const DYNAMODB_MAXIMUM_RECORDS: Limit = Limit { maximum: 1_000, default: 1_000, ..MAXIMUM_RECORDS };
/// Bytes that one shard may buffer.
pub const BUFFER_BYTES: Limit = Limit::new("Polling.BufferBytes", 1 << 20, 1 << 30, 16 << 20);
/// The least time between two checkpoints of one shard.
pub const CHECKPOINT_INTERVAL: Limit = Limit::new("CheckpointIntervalMilliseconds", 0, 60_000, 0);
