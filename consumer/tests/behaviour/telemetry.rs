//! Metrics that add up, and logs that stay quiet while all is well (incident 67).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use shardmill::checkpoint::Fault;
use shardmill::{
    Batch, BatchResponse, Destination, DestinationError, Discarded, HandlerError, InvokeContext,
};

use crate::logs;
use crate::support::*;

/// Counters and gauges added up over their labels, but for the outcome and the kind of trouble.
#[derive(Default)]
pub(crate) struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// Adds what was counted since the last call; a snapshot takes the counters with it.
    pub(crate) fn take(&mut self, snapshotter: &Snapshotter) {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let mut name = key.key().name().to_owned();
            if let Some(outcome) = key.key().labels().find(|label| label.key() == "outcome") {
                name = format!("{name} {}", outcome.value());
            }
            if name == "shardmill_troubled_lanes"
                && let Some(kind) = key.key().labels().find(|label| label.key() == "kind")
            {
                name = format!("{name} {}", kind.value());
            }
            match value {
                DebugValue::Counter(value) => *self.0.entry(name).or_default() += value,
                DebugValue::Gauge(value) => {
                    // Every gauge that is looked at here counts whole things.
                    #[expect(clippy::cast_possible_truncation, reason = "whole numbers far below 2^53")]
                    self.0.insert(name, value.into_inner() as u64);
                }
                DebugValue::Histogram(values) => *self.0.entry(name).or_default() += values.len() as u64,
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(&format!("shardmill_{name}")).copied().unwrap_or(0)
    }
}

/// Fails twice, then takes everything.
#[derive(Clone, Default)]
struct Reluctant(Arc<AtomicUsize>);

#[async_trait]
impl Destination for Reluctant {
    async fn deliver(&self, _: &Discarded) -> Result<(), DestinationError> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(DestinationError::new("not yet")),
            _ => Ok(()),
        }
    }
    fn describe(&self) -> String {
        "reluctant".to_owned()
    }
}

#[tokio::test(start_paused = true)]
#[expect(clippy::too_many_lines, reason = "the expected figures are one list")]
async fn the_metrics_of_a_scripted_run_are_exact() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (fake, store, calls) = (stream(1), store(), Arc::new(Mutex::new(0)));
    let counted = Arc::clone(&calls);
    // Batches of 10: the first succeeds, the second fails once, the third permanently, the fourth is not reached once.
    let handler = move |_: Batch, _: InvokeContext| {
        let mut calls = counted.lock().unwrap();
        *calls += 1;
        let answer = match *calls {
            2 | 4 | 5 => Err(HandlerError::function("scripted")),
            6 => Err(HandlerError::NotReached { reason: "scripted".to_owned(), retry_after: None }),
            _ => Ok(BatchResponse::success()),
        };
        async move { answer }
    };
    put(&fake, 40);
    let a = worker("a");
    let mapping = mapping().batch_size(10).maximum_retry_attempts(1);
    let builder = consumer(&fake, &a, mapping, handler, &store).on_failure(Reluctant::default());
    let run = launch(builder);
    let mut metrics = Metrics::default();
    until("the checkpoint", || {
        run.report().shards.iter().any(|s| {
            let done = |s: &shardmill::engine::ShardSnapshot| {
                s.counters.polled == 40 && s.buffered_records == 0 && s.checkpoint == s.read
            };
            s.snapshot.as_ref().is_some_and(done)
        })
    })
    .await;
    metrics.take(&snapshotter);
    assert_eq!(metrics.get("leases_held"), 1);
    assert_eq!(metrics.get("leases_lost_total"), 0);
    store.fail_all(Fault::HangBefore);
    until("the loss of the lease", || run.report().shards.is_empty()).await;
    metrics.take(&snapshotter);
    assert_eq!((metrics.get("leases_held"), metrics.get("leases_lost_total")), (0, 1));
    store.heal();
    until("the lease again", || run.report().shards.len() == 1).await;
    metrics.take(&snapshotter);
    assert_eq!(metrics.get("leases_held"), 1);
    run.stop().await;
    metrics.take(&snapshotter);
    for (name, expected) in [
        ("polled_events_total", 40),
        ("invoked_events_total", 60),
        ("failed_invoke_events_total", 30),
        ("dropped_events_total", 0),
        ("on_failure_destination_delivered_events_total", 10),
        ("destination_delivery_failures_total", 2),
        ("invocations_total success", 3),
        ("invocations_total function_error", 3),
        ("invocations_total not_reached", 1),
        ("invocations_total too_large", 0),
        ("invocation_duration_seconds", 7),
        ("undelivered_discards", 0),
        ("buffered_bytes", 0),
        ("leases_held", 0),
        ("leases_lost_total", 1),
        ("source_errors_total", 0),
    ] {
        assert_eq!(metrics.get(name), expected, "{name}: {:#?}", metrics.0);
    }
}

#[tokio::test(start_paused = true)]
async fn incident_67_a_healthy_run_says_nothing_per_batch() {
    logs::collect();
    let (fake, store, seen) = (stream(4), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping().batch_size(5), seen.handler("a"), &store));
    for round in 1..=100 {
        put(&fake, 20);
        until("the round's records", || seen.len() == round * 20).await;
        pass(Duration::from_secs(3)).await;
    }
    run.stop().await;
    let loud: Vec<_> = logs::lines()
        .into_iter()
        .filter(|line| ["INFO", "WARN", "ERROR"].iter().any(|level| line.starts_with(level)))
        .collect();
    let expected = ["INFO found shards", "INFO took leases", "INFO the last minute", "INFO released leases"];
    let is_start = |line: &str| line.contains(" at TRIM_HORIZON mapping=");
    let unexpected =
        |line: &&String| !is_start(line) && !expected.iter().any(|start| line.starts_with(start));
    assert_eq!(loud.iter().filter(unexpected).count(), 0, "{loud:#?}");
    let summaries: Vec<_> = loud.iter().filter(|line| line.contains("the last minute")).collect();
    assert!((4..=9).contains(&summaries.len()), "{loud:#?}");
    assert!(
        summaries.iter().all(|line| line.contains(" failed=0 ") && !line.contains("polled=0 ")),
        "{loud:#?}"
    );
}
