//! The metrics that the library emits through the `metrics` facade; the embedder installs the recorder.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use shardmill_engine::{Counters, ShardId, ShardSnapshot};

use crate::source::{SourceError, SourceErrorKind};
use crate::trouble::TroubleKind;

/// Makes the mapping's counters visible from its start, also on a worker that has no shard yet: an alert on a series
/// that appears with its first fault misses that fault.
pub(crate) fn mapping_starts(mapping: &Arc<str>) {
    for name in [
        "shardmill_polled_events_total",
        "shardmill_filtered_out_events_total",
        "shardmill_invoked_events_total",
        "shardmill_failed_invoke_events_total",
        "shardmill_dropped_events_total",
        "shardmill_gaps_total",
        "shardmill_on_failure_destination_delivered_events_total",
        "shardmill_destination_delivery_failures_total",
    ] {
        counter!(name, "mapping" => Arc::clone(mapping)).increment(0);
    }
    for outcome in OUTCOMES {
        counter!("shardmill_invocations_total", "mapping" => Arc::clone(mapping), "outcome" => outcome)
            .increment(0);
    }
    counter!("shardmill_leases_lost_total", "mapping" => Arc::clone(mapping)).increment(0);
    counter!("shardmill_store_errors_total", "mapping" => Arc::clone(mapping)).increment(0);
    store_failing(mapping, false);
    leases_deleted(mapping, 0);
    gauge!("shardmill_leases_held", "mapping" => Arc::clone(mapping)).increment(0.0);
    for api in ["ListShards", "DescribeStream", "GetShardIterator", "GetRecords"] {
        counter!("shardmill_throttles_total", "mapping" => Arc::clone(mapping), "api" => api).increment(0);
    }
    for kind in [
        SourceErrorKind::Throttled,
        SourceErrorKind::Unavailable,
        SourceErrorKind::IteratorExpired,
        SourceErrorKind::Trimmed,
        SourceErrorKind::NotFound,
        SourceErrorKind::AccessDenied,
        SourceErrorKind::Rejected,
        SourceErrorKind::Undecodable,
    ] {
        counter!("shardmill_source_errors_total", "mapping" => Arc::clone(mapping), "kind" => kind.as_str())
            .increment(0);
    }
}

pub(crate) fn lease_lost(mapping: &Arc<str>) {
    counter!("shardmill_leases_lost_total", "mapping" => Arc::clone(mapping)).increment(1);
}

/// A call to the store failed, or was not answered.
pub(crate) fn store_failed(mapping: &Arc<str>) {
    counter!("shardmill_store_errors_total", "mapping" => Arc::clone(mapping)).increment(1);
}

/// The store's trouble begins or has ended.
pub(crate) fn store_failing(mapping: &Arc<str>, failing: bool) {
    gauge!("shardmill_store_failing", "mapping" => Arc::clone(mapping)).set(if failing { 1.0 } else { 0.0 });
}

/// Leases of finished shards that the stream has forgotten are gone from the store.
pub(crate) fn leases_deleted(mapping: &Arc<str>, leases: usize) {
    let leases = u64::try_from(leases).unwrap_or(u64::MAX);
    counter!("shardmill_leases_deleted_total", "mapping" => Arc::clone(mapping)).increment(leases);
}

/// Data of the whole stream is lost or may be (I17).
pub(crate) fn stream_gap(mapping: &Arc<str>) {
    counter!("shardmill_gaps_total", "mapping" => Arc::clone(mapping)).increment(1);
}

pub(crate) fn leases_held(mapping: &Arc<str>, held: usize) {
    gauge!("shardmill_leases_held", "mapping" => Arc::clone(mapping)).set(held as f64);
}

/// Touches the gauges that change rarely: a recorder may forget what is not touched for long.
pub(crate) fn still_there(mapping: &Arc<str>) {
    gauge!("shardmill_leases_held", "mapping" => Arc::clone(mapping)).increment(0.0);
    gauge!("shardmill_store_failing", "mapping" => Arc::clone(mapping)).increment(0.0);
}

pub(crate) fn checkpoint_written(mapping: &Arc<str>, took: Duration) {
    histogram!("shardmill_checkpoint_duration_seconds", "mapping" => Arc::clone(mapping)).record(took);
}

pub(crate) fn source_failed(mapping: &Arc<str>, error: &SourceError) {
    if error.kind == SourceErrorKind::Throttled {
        counter!("shardmill_throttles_total", "mapping" => Arc::clone(mapping), "api" => error.api)
            .increment(1);
    }
    counter!("shardmill_source_errors_total", "mapping" => Arc::clone(mapping), "kind" => error.kind.as_str()).increment(1);
}

/// How many lanes of shards are in this kind of trouble.
pub(crate) fn troubled(mapping: &Arc<str>, kind: TroubleKind, lanes: usize) {
    gauge!("shardmill_troubled_lanes", "mapping" => Arc::clone(mapping), "kind" => kind.as_str())
        .set(lanes as f64);
}

pub(crate) fn clock_offset(mapping: &Arc<str>, millis: i64) {
    gauge!("shardmill_clock_offset_milliseconds", "mapping" => Arc::clone(mapping)).set(millis as f64);
}

/// The `outcome` label, in the order of [`InvocationOutcome`].
const OUTCOMES: [&str; 5] = ["success", "function_error", "too_large", "not_reached", "unusable_answer"];

/// How an invocation ended, as a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvocationOutcome {
    Success,
    FunctionError,
    TooLarge,
    NotReached,
    /// The function answered something that its mapping cannot use (R35, R66).
    UnusableAnswer,
}

/// One shard's metrics. Counters carry the mapping only, so that they stay cheap with ten thousand shards.
pub(crate) struct ShardMetrics {
    polled: Counter,
    filtered: Counter,
    invoked: Counter,
    failed: Counter,
    dropped: Counter,
    delivered: Counter,
    delivery_failures: Counter,
    gaps: Counter,
    outcomes: [Counter; 5],
    duration: Histogram,
    iterator_age: Gauge,
    undelivered: Gauge,
    buffered: Gauge,
    seen: Counters,
}

impl ShardMetrics {
    pub(crate) fn new(mapping: &Arc<str>, shard: &ShardId) -> Self {
        let count = |name: &'static str| counter!(name, "mapping" => Arc::clone(mapping));
        let gauge =
            |name: &'static str| gauge!(name, "mapping" => Arc::clone(mapping), "shard" => shard.to_string());
        let outcome = |outcome: &'static str| counter!("shardmill_invocations_total", "mapping" => Arc::clone(mapping), "outcome" => outcome);
        Self {
            polled: count("shardmill_polled_events_total"),
            filtered: count("shardmill_filtered_out_events_total"),
            invoked: count("shardmill_invoked_events_total"),
            failed: count("shardmill_failed_invoke_events_total"),
            dropped: count("shardmill_dropped_events_total"),
            delivered: count("shardmill_on_failure_destination_delivered_events_total"),
            delivery_failures: count("shardmill_destination_delivery_failures_total"),
            gaps: count("shardmill_gaps_total"),
            outcomes: OUTCOMES.map(outcome),
            duration: histogram!("shardmill_invocation_duration_seconds", "mapping" => Arc::clone(mapping)),
            iterator_age: gauge("shardmill_iterator_age_milliseconds"),
            undelivered: gauge("shardmill_undelivered_discards"),
            buffered: gauge("shardmill_buffered_bytes"),
            seen: Counters::default(),
        }
    }

    pub(crate) fn invoked(&self, outcome: InvocationOutcome, took: Duration) {
        let index = match outcome {
            InvocationOutcome::Success => 0,
            InvocationOutcome::FunctionError => 1,
            InvocationOutcome::TooLarge => 2,
            InvocationOutcome::NotReached => 3,
            InvocationOutcome::UnusableAnswer => 4,
        };
        self.outcomes[index].increment(1);
        self.duration.record(took);
    }

    /// Adds what was counted since the last call. `oldest`: how long the oldest record has waited that is not resolved.
    pub(crate) fn publish(&mut self, snapshot: &ShardSnapshot, oldest: Duration) {
        let (now, seen) = (&snapshot.counters, &self.seen);
        if now != seen {
            self.polled.increment(now.polled - seen.polled);
            self.filtered.increment(now.filtered - seen.filtered);
            self.invoked.increment(now.invoked - seen.invoked);
            self.failed.increment(now.failed - seen.failed);
            self.dropped.increment(now.dropped - seen.dropped);
            self.delivered.increment(now.delivered - seen.delivered);
            self.delivery_failures.increment(now.delivery_failures - seen.delivery_failures);
            self.gaps.increment(now.gaps - seen.gaps);
            self.seen = *now;
        }
        self.undelivered.set(snapshot.undelivered_discards as f64);
        self.buffered.set(snapshot.buffered_bytes as f64);
        self.iterator_age.set(oldest.as_millis() as f64);
    }
}

impl Drop for ShardMetrics {
    /// A shard that another worker reads from now on must not leave its last values standing here.
    fn drop(&mut self) {
        self.iterator_age.set(0.0);
        self.undelivered.set(0.0);
        self.buffered.set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use metrics::{Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};

    use super::*;

    #[derive(Default)]
    struct Registered(Mutex<Vec<String>>);

    impl Registered {
        fn note(&self, key: &Key) {
            let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            self.0.lock().unwrap().push(format!("{}{{{}}}", key.name(), labels.join(",")));
        }
    }

    impl Recorder for Registered {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            self.note(key);
            Counter::noop()
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            self.note(key);
            Gauge::noop()
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            self.note(key);
            Histogram::noop()
        }
    }

    #[test]
    fn the_counters_of_a_mapping_are_there_from_its_start() {
        let registered = Registered::default();
        with_local_recorder(&registered, || mapping_starts(&"m".into()));
        let names = registered.0.into_inner().unwrap();
        for expected in [
            "shardmill_leases_lost_total{mapping=m}",
            "shardmill_leases_held{mapping=m}",
            "shardmill_dropped_events_total{mapping=m}",
            "shardmill_gaps_total{mapping=m}",
            "shardmill_invocations_total{mapping=m,outcome=function_error}",
            "shardmill_throttles_total{mapping=m,api=GetRecords}",
            "shardmill_source_errors_total{mapping=m,kind=access_denied}",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
        }
    }
}
