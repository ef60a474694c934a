//! The metrics that the library emits through the `metrics` facade; the embedder installs the recorder.

mod table;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use shardmill_checkpoint::Usage;
use shardmill_engine::{Counters, ShardId, ShardSnapshot};

use crate::source::{SourceError, SourceErrorKind};
use crate::trouble::TroubleKind;
pub use table::{METRICS, MetricDescription, MetricKind};

/// Makes the mapping's counters visible from its start, also on a worker that has no shard yet: an alert on a series
/// that appears with its first fault misses that fault.
pub(crate) fn mapping_starts(mapping: &Arc<str>) {
    METRICS.iter().for_each(MetricDescription::describe);
    for name in [
        table::POLLED.name,
        table::FILTERED.name,
        table::INVOKED.name,
        table::FAILED.name,
        table::DROPPED.name,
        table::GAPS.name,
        table::DELIVERED.name,
        table::DELIVERY_FAILURES.name,
    ] {
        counter!(name, "mapping" => Arc::clone(mapping)).increment(0);
    }
    for outcome in OUTCOMES {
        counter!(table::INVOCATIONS.name, "mapping" => Arc::clone(mapping), "outcome" => outcome)
            .increment(0);
    }
    counter!(table::LEASES_LOST.name, "mapping" => Arc::clone(mapping)).increment(0);
    counter!(table::STORE_ERRORS.name, "mapping" => Arc::clone(mapping)).increment(0);
    store_failing(mapping, false);
    leases_deleted(mapping, 0);
    counter!(table::HANDOFFS.name, "mapping" => Arc::clone(mapping)).increment(0);
    gauge!(table::LEASES_HELD.name, "mapping" => Arc::clone(mapping)).increment(0.0);
    for api in ["ListShards", "DescribeStreamSummary", "DescribeStream", "GetShardIterator", "GetRecords"] {
        counter!(table::THROTTLES.name, "mapping" => Arc::clone(mapping), "api" => api).increment(0);
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
        counter!(table::SOURCE_ERRORS.name, "mapping" => Arc::clone(mapping), "kind" => kind.as_str())
            .increment(0);
    }
}

pub(crate) fn lease_lost(mapping: &Arc<str>) {
    counter!(table::LEASES_LOST.name, "mapping" => Arc::clone(mapping)).increment(1);
}

/// A call to the store failed, or was not answered.
pub(crate) fn store_failed(mapping: &Arc<str>) {
    counter!(table::STORE_ERRORS.name, "mapping" => Arc::clone(mapping)).increment(1);
}

/// The store's trouble begins or has ended.
pub(crate) fn store_failing(mapping: &Arc<str>, failing: bool) {
    gauge!(table::STORE_FAILING.name, "mapping" => Arc::clone(mapping)).set(if failing { 1.0 } else { 0.0 });
}

/// Leases of finished shards that the stream has forgotten are gone from the store.
pub(crate) fn leases_deleted(mapping: &Arc<str>, leases: usize) {
    let leases = u64::try_from(leases).unwrap_or(u64::MAX);
    counter!(table::LEASES_DELETED.name, "mapping" => Arc::clone(mapping)).increment(leases);
}

/// Data of the whole stream is lost or may be (I17).
pub(crate) fn stream_gap(mapping: &Arc<str>) {
    counter!(table::GAPS.name, "mapping" => Arc::clone(mapping)).increment(1);
}

/// This worker took a lease, `why` it could.
pub(crate) fn lease_taken(mapping: &Arc<str>, why: &'static str) {
    counter!(table::LEASES_TAKEN.name, "mapping" => Arc::clone(mapping), "why" => why).increment(1);
}

/// This worker gave a lease to another one.
pub(crate) fn handed_off(mapping: &Arc<str>) {
    counter!(table::HANDOFFS.name, "mapping" => Arc::clone(mapping)).increment(1);
}

/// What the last plan was made of.
pub(crate) fn fleet(mapping: &Arc<str>, workers: usize, readable: usize, unowned: usize) {
    for (metric, value) in
        [(table::WORKERS, workers), (table::SHARDS_READABLE, readable), (table::SHARDS_UNOWNED, unowned)]
    {
        gauge!(metric.name, "mapping" => Arc::clone(mapping)).set(value as f64);
    }
}

pub(crate) fn leases_held(mapping: &Arc<str>, held: usize) {
    gauge!(table::LEASES_HELD.name, "mapping" => Arc::clone(mapping)).set(held as f64);
}

/// Touches the gauges that change rarely: a recorder may forget what is not touched for long.
pub(crate) fn still_there(mapping: &Arc<str>) {
    gauge!(table::LEASES_HELD.name, "mapping" => Arc::clone(mapping)).increment(0.0);
    gauge!(table::STORE_FAILING.name, "mapping" => Arc::clone(mapping)).increment(0.0);
}

pub(crate) fn checkpoint_written(mapping: &Arc<str>, took: Duration) {
    histogram!(table::CHECKPOINT_DURATION.name, "mapping" => Arc::clone(mapping)).record(took);
}

pub(crate) fn heartbeat_ended(mapping: &Arc<str>, took: Duration) {
    histogram!(table::HEARTBEAT_DURATION.name, "mapping" => Arc::clone(mapping)).record(took);
}

pub(crate) fn planned(mapping: &Arc<str>, took: Duration) {
    histogram!(table::PLAN_DURATION.name, "mapping" => Arc::clone(mapping)).record(took);
}

/// What the store has asked of its service so far. One that asks nothing of a service has no series.
pub(crate) fn table_used(mapping: &Arc<str>, usage: &Usage) {
    for ((operation, outcome), calls) in &usage.calls {
        counter!(
            table::TABLE_CALLS.name,
            "mapping" => Arc::clone(mapping), "operation" => *operation, "outcome" => outcome.as_str()
        )
        .absolute(*calls);
    }
    if !usage.calls.is_empty() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole units, never negative"
        )]
        let whole = |units: f64| units as u64;
        for (metric, units) in
            [(table::TABLE_READ_UNITS, usage.read_units), (table::TABLE_WRITE_UNITS, usage.write_units)]
        {
            counter!(metric.name, "mapping" => Arc::clone(mapping)).absolute(whole(units));
        }
    }
}

pub(crate) fn source_failed(mapping: &Arc<str>, error: &SourceError) {
    if error.kind == SourceErrorKind::Throttled {
        counter!(table::THROTTLES.name, "mapping" => Arc::clone(mapping), "api" => error.api).increment(1);
    }
    counter!(table::SOURCE_ERRORS.name, "mapping" => Arc::clone(mapping), "kind" => error.kind.as_str())
        .increment(1);
}

/// How many lanes of shards are in this kind of trouble.
pub(crate) fn troubled(mapping: &Arc<str>, kind: TroubleKind, lanes: usize) {
    gauge!(table::TROUBLED_LANES.name, "mapping" => Arc::clone(mapping), "kind" => kind.as_str())
        .set(lanes as f64);
}

pub(crate) fn clock_offset(mapping: &Arc<str>, millis: i64) {
    gauge!(table::CLOCK_OFFSET.name, "mapping" => Arc::clone(mapping)).set(millis as f64);
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
        let outcome = |outcome: &'static str| counter!(table::INVOCATIONS.name, "mapping" => Arc::clone(mapping), "outcome" => outcome);
        Self {
            polled: count(table::POLLED.name),
            filtered: count(table::FILTERED.name),
            invoked: count(table::INVOKED.name),
            failed: count(table::FAILED.name),
            dropped: count(table::DROPPED.name),
            delivered: count(table::DELIVERED.name),
            delivery_failures: count(table::DELIVERY_FAILURES.name),
            gaps: count(table::GAPS.name),
            outcomes: OUTCOMES.map(outcome),
            duration: histogram!(table::INVOCATION_DURATION.name, "mapping" => Arc::clone(mapping)),
            iterator_age: gauge(table::ITERATOR_AGE.name),
            undelivered: gauge(table::UNDELIVERED.name),
            buffered: gauge(table::BUFFERED.name),
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
        if snapshot.counters != self.seen {
            let new = snapshot.counters.since(&self.seen);
            self.polled.increment(new.polled);
            self.filtered.increment(new.filtered);
            self.invoked.increment(new.invoked);
            self.failed.increment(new.failed);
            self.dropped.increment(new.dropped);
            self.delivered.increment(new.delivered);
            self.delivery_failures.increment(new.delivery_failures);
            self.gaps.increment(new.gaps);
            self.seen = snapshot.counters;
        }
        self.undelivered.set(snapshot.undelivered_discards as f64);
        self.buffered.set(snapshot.buffered_bytes as f64);
        self.iterator_age.set(oldest.as_millis() as f64);
    }
}

impl Drop for ShardMetrics {
    /// A shard that another worker reads from now on must not keep its last values here.
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

    use shardmill_checkpoint::CallOutcome;

    use super::*;

    #[derive(Default)]
    struct Registered(Mutex<Vec<String>>, Mutex<Vec<(String, Option<Unit>, String)>>);

    impl Registered {
        fn note(&self, key: &Key) {
            let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            self.0.lock().unwrap().push(format!("{}{{{}}}", key.name(), labels.join(",")));
        }

        fn describe(&self, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
            self.1.lock().unwrap().push((name.as_str().to_owned(), unit, text.to_string()));
        }
    }

    impl Recorder for Registered {
        fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
            self.describe(&name, unit, &text);
        }
        fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
            self.describe(&name, unit, &text);
        }
        fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
            self.describe(&name, unit, &text);
        }
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
            "shardmill_throttles_total{mapping=m,api=DescribeStreamSummary}",
            "shardmill_source_errors_total{mapping=m,kind=access_denied}",
        ] {
            assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
        }
    }

    #[test]
    fn every_metric_is_described_with_its_unit() {
        let registered = Registered::default();
        with_local_recorder(&registered, || mapping_starts(&"m".into()));
        let described = registered.1.into_inner().unwrap();
        assert_eq!(described.len(), METRICS.len());
        let of = |name: &str| described.iter().find(|(described, ..)| described == name).unwrap();
        assert_eq!(of("shardmill_buffered_bytes").1, Some(Unit::Bytes));
        assert_eq!(of("shardmill_invocation_duration_seconds").1, Some(Unit::Seconds));
        assert!(described.iter().all(|(_, unit, text)| unit.is_some() && !text.is_empty()), "{described:?}");
    }

    #[test]
    fn a_series_has_the_labels_that_the_table_says() {
        let registered = Registered::default();
        with_local_recorder(&registered, || {
            mapping_starts(&"m".into());
            troubled(&"m".into(), TroubleKind::Reading, 1);
            clock_offset(&"m".into(), 0);
            checkpoint_written(&"m".into(), Duration::ZERO);
            heartbeat_ended(&"m".into(), Duration::ZERO);
            planned(&"m".into(), Duration::ZERO);
            let mut usage = Usage::default();
            usage.calls.insert(("Query", CallOutcome::Done), 1);
            table_used(&"m".into(), &usage);
            ShardMetrics::new(&"m".into(), &"s".into());
            lease_taken(&"m".into(), "free");
            fleet(&"m".into(), 1, 2, 0);
        });
        let series = registered.0.into_inner().unwrap();
        for metric in METRICS {
            let labels = |series: &String| -> Option<Vec<String>> {
                let (name, labels) = series.strip_suffix('}')?.split_once('{')?;
                let label = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
                (name == metric.name).then(|| labels.split(',').map(label).collect())
            };
            let found: Vec<_> = series.iter().filter_map(labels).collect();
            assert!(
                !found.is_empty() && found.iter().all(|labels| labels == metric.labels),
                "{}: {found:?}",
                metric.name
            );
        }
    }
}
