//! Every metric of the library in one table: its name, kind, unit, labels and meaning.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric is, and what it means. The sidecar's `/metrics` shows `text` as `# HELP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricDescription {
    /// The name, such as `shardmill_gaps_total`.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: MetricKind,
    /// The unit, such as `records`, `seconds`, `ms` or `bytes`.
    pub unit: &'static str,
    /// The labels of its series.
    pub labels: &'static [&'static str],
    /// What it counts or shows; in brackets the CloudWatch metric of Lambda that counts the same.
    pub text: &'static str,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only rises; starts at 0 with the process.
    Counter,
    /// The value at this moment.
    Gauge,
    /// A distribution of values.
    Histogram,
}

impl MetricDescription {
    /// A metric of a program that embeds the library, in addition to [`METRICS`].
    #[must_use]
    pub const fn new(
        kind: MetricKind,
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str],
        text: &'static str,
    ) -> Self {
        Self { name, kind, unit, labels, text }
    }

    /// Describes the metric to the installed recorder; a consumer does so for those of [`METRICS`] when it starts.
    pub fn describe(&self) {
        let unit = match self.unit {
            "seconds" => Unit::Seconds,
            "ms" => Unit::Milliseconds,
            "bytes" => Unit::Bytes,
            _ => Unit::Count,
        };
        match self.kind {
            MetricKind::Counter => describe_counter!(self.name, unit, self.text),
            MetricKind::Gauge => describe_gauge!(self.name, unit, self.text),
            MetricKind::Histogram => describe_histogram!(self.name, unit, self.text),
        }
    }
}

const MAPPING: &[&str] = &["mapping"];
const SHARD: &[&str] = &["mapping", "shard"];

pub(super) const POLLED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_polled_events_total",
    "records",
    MAPPING,
    "read from the stream (PolledEventCount)",
);
pub(super) const FILTERED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_filtered_out_events_total",
    "records",
    MAPPING,
    "records that did not pass the filters (FilteredOutEventCount)",
);
pub(super) const INVOKED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_invoked_events_total",
    "records",
    MAPPING,
    "handed to the function, again for every retry; one that did not reach it does not count (InvokedEventCount)",
);
pub(super) const FAILED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_failed_invoke_events_total",
    "records",
    MAPPING,
    "in failed invocations; with a partial response, from the lowest failed record on (FailedInvokeEventCount)",
);
pub(super) const DROPPED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_dropped_events_total",
    "records",
    MAPPING,
    "discarded with no destination, or refused by it under `OnDestinationFailure: drop` (DroppedEventCount). Alert above 0",
);
pub(super) const GAPS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_gaps_total",
    "gaps",
    MAPPING,
    "records of a shard or a stream were lost before they were read, or may have been. Alert above 0",
);
pub(super) const DELIVERED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_on_failure_destination_delivered_events_total",
    "records",
    MAPPING,
    "discarded and taken by the destination (OnFailureDestinationDeliveredEventCount)",
);
pub(super) const DELIVERY_FAILURES: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_destination_delivery_failures_total",
    "messages",
    MAPPING,
    "refused deliveries, once per attempt (DestinationDeliveryFailures). Alert when it rises",
);
pub(super) const UNDELIVERED: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_undelivered_discards",
    "batches",
    SHARD,
    "discarded and not yet taken by the destination",
);
pub(super) const ITERATOR_AGE: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_iterator_age_milliseconds",
    "ms",
    SHARD,
    "age of the oldest record that waits (`oldestWaitingMilliseconds` of the status): 0 for a shard that is read to its tip, also after a burst; it grows while a record waits, and while the shard cannot be read (IteratorAge, which moves with invocations only). Alert on its growth",
);
pub(super) const TROUBLED_LANES: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_troubled_lanes",
    "lanes",
    &["mapping", "kind"],
    "in trouble of this kind now, see Logs. Alert when it stays above 0; `blocked` at once",
);
pub(super) const BUFFERED: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_buffered_bytes",
    "bytes",
    SHARD,
    "held for records that are read and not resolved: their pages, events in flight, window states",
);
pub(super) const INVOCATIONS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_invocations_total",
    "invocations",
    &["mapping", "outcome"],
    "`success` (the function answered, also if it reported failed records), `function_error`, `too_large`, `not_reached`, `unusable_answer` (the answer fails its whole batch: it names no record of it, or lacks the state of its window)",
);
pub(super) const INVOCATION_DURATION: MetricDescription = MetricDescription::new(
    MetricKind::Histogram,
    "shardmill_invocation_duration_seconds",
    "seconds",
    MAPPING,
    "over all outcomes",
);
pub(super) const CHECKPOINT_DURATION: MetricDescription = MetricDescription::new(
    MetricKind::Histogram,
    "shardmill_checkpoint_duration_seconds",
    "seconds",
    MAPPING,
    "one observation for each call to the store, which may carry many shards",
);
pub(super) const HEARTBEAT_DURATION: MetricDescription = MetricDescription::new(
    MetricKind::Histogram,
    "shardmill_heartbeat_duration_seconds",
    "seconds",
    MAPPING,
    "one observation for each heartbeat of this worker, also one that failed",
);
pub(super) const PLAN_DURATION: MetricDescription = MetricDescription::new(
    MetricKind::Histogram,
    "shardmill_plan_duration_seconds",
    "seconds",
    MAPPING,
    "one observation for each plan of which worker gets which shard: one after each listing of the leases",
);
pub(super) const TABLE_CALLS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_table_calls_total",
    "calls",
    &["mapping", "operation", "outcome"],
    "to DynamoDB for the leases, each attempt: `done`, `refused` (its condition did not hold, which is an answer), `throttled`, `failed`",
);
pub(super) const TABLE_READ_UNITS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_table_read_units_total",
    "units",
    MAPPING,
    "of read capacity that these calls consumed, as the answers say",
);
pub(super) const TABLE_WRITE_UNITS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_table_write_units_total",
    "units",
    MAPPING,
    "of write capacity, likewise. A refused write names none and costs one for each KB of its item",
);
pub(super) const THROTTLES: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_throttles_total",
    "calls",
    &["mapping", "api"],
    "throttled by the service",
);
pub(super) const SOURCE_ERRORS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_source_errors_total",
    "calls",
    &["mapping", "kind"],
    "failed reads: `throttled`, `unavailable`, `iterator_expired`, `trimmed`, `not_found`, `access_denied`, `rejected`, `undecodable`",
);
pub(super) const LEASES_HELD: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_leases_held",
    "leases",
    MAPPING,
    "held by this worker. Over all workers it should equal the number of shards that can be read now",
);
pub(super) const LEASES_TAKEN: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_leases_taken_total",
    "leases",
    &["mapping", "why"],
    "taken by this worker: `free` (no worker had it), `given` (its owner gave it), `own` (this worker or an earlier run of it had it), `dead_process`, `not_renewed` (its owner gave no sign of life for a lease time), `taken_over` (a worker of KCL had more than its share)",
);
pub(super) const HANDOFFS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_handoffs_total",
    "leases",
    MAPPING,
    "given by this worker to another one, for balance or at its stop",
);
pub(super) const WORKERS: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_workers",
    "workers",
    MAPPING,
    "of the application that live, as this one sees them, itself included",
);
pub(super) const SHARDS_READABLE: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_shards_readable",
    "shards",
    MAPPING,
    "that can be read now, whoever reads them: not at their end, and no parent of theirs is left to read",
);
pub(super) const SHARDS_UNOWNED: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_shards_unowned",
    "shards",
    MAPPING,
    "of these, the ones that no live worker has. Alert if it stays above 0",
);
pub(super) const LEASES_LOST: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_leases_lost_total",
    "leases",
    MAPPING,
    "lost without being released",
);
pub(super) const LEASES_DELETED: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_leases_deleted_total",
    "leases",
    MAPPING,
    "deleted by this worker: finished, and their shards gone from the stream",
);
pub(super) const STORE_FAILING: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_store_failing",
    "0 or 1",
    MAPPING,
    "1 while calls to the checkpoint store fail, reads or writes. Alert on it",
);
pub(super) const STORE_ERRORS: MetricDescription = MetricDescription::new(
    MetricKind::Counter,
    "shardmill_store_errors_total",
    "calls",
    MAPPING,
    "failed calls to the checkpoint store",
);
pub(super) const CLOCK_OFFSET: MetricDescription = MetricDescription::new(
    MetricKind::Gauge,
    "shardmill_clock_offset_milliseconds",
    "ms",
    MAPPING,
    "how far the service's clock is ahead of the host's; above 5 s a warning is logged once",
);

/// Every metric that the library emits, in the order of `docs/operations.md`.
pub const METRICS: &[MetricDescription] = &[
    POLLED,
    FILTERED,
    INVOKED,
    FAILED,
    DROPPED,
    GAPS,
    DELIVERED,
    DELIVERY_FAILURES,
    UNDELIVERED,
    ITERATOR_AGE,
    TROUBLED_LANES,
    BUFFERED,
    INVOCATIONS,
    INVOCATION_DURATION,
    CHECKPOINT_DURATION,
    HEARTBEAT_DURATION,
    PLAN_DURATION,
    TABLE_CALLS,
    TABLE_READ_UNITS,
    TABLE_WRITE_UNITS,
    THROTTLES,
    SOURCE_ERRORS,
    LEASES_HELD,
    LEASES_TAKEN,
    HANDOFFS,
    WORKERS,
    SHARDS_READABLE,
    SHARDS_UNOWNED,
    LEASES_LOST,
    LEASES_DELETED,
    STORE_FAILING,
    STORE_ERRORS,
    CLOCK_OFFSET,
];
