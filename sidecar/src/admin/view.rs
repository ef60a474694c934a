//! What the endpoints show of one mapping.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use serde_json::{Value, json};
use shardmill::engine::{Gap, LaneSnapshot, Mono};
use shardmill::{
    ConsumerReport, ConsumerStatus, ErrorReport, FleetReport, HashRange, LaneTrouble, RunState, ShardReport,
    TroubleKind, TroubleReport, Worker,
};

use crate::config::MappingConfig;
use crate::handler::FunctionState;

/// The loops of the lease keeper and the run complete an iteration at least every second.
const KEEPER_SILENCE: Duration = Duration::from_secs(15);
/// A shard's driver completes an iteration at least every 10 seconds.
const DRIVER_SILENCE: Duration = Duration::from_secs(60);

/// One mapping, as the endpoints see it.
#[derive(Clone, Debug)]
pub struct MappingView {
    name: String,
    stream: String,
    function_arn: String,
    uuid: String,
    /// `None` for a mapping that is disabled.
    running: Option<(ConsumerStatus, FunctionState)>,
}

impl MappingView {
    /// A mapping that runs.
    #[must_use]
    pub fn enabled(config: &MappingConfig, status: ConsumerStatus, function: FunctionState) -> Self {
        Self { running: Some((status, function)), ..Self::disabled(config) }
    }

    /// A mapping with `Enabled: false`.
    #[must_use]
    pub fn disabled(config: &MappingConfig) -> Self {
        let mapping = &config.mapping;
        Self {
            name: mapping.application_name().to_owned(),
            stream: mapping.event_source().arn.to_string(),
            function_arn: mapping.function_arn().to_owned(),
            uuid: mapping.uuid().to_owned(),
            running: None,
        }
    }

    /// The loops that have not completed an iteration for too long.
    pub(super) fn health_problems(&self, now: Mono) -> Vec<String> {
        let Some(report) = self.report() else { return Vec::new() };
        if report.state != RunState::Enabled {
            return Vec::new();
        }
        let silent = |what: &str, ticked: Mono, most: Duration| {
            let silence = now.since(ticked);
            (ticked != Mono::default() && silence > most).then(|| {
                format!("{}: {what} has not completed an iteration for {} s", self.name, silence.as_secs())
            })
        };
        let shards = report
            .shards
            .iter()
            .filter_map(|shard| silent(&format!("shard {}", shard.shard), shard.ticked, DRIVER_SILENCE));
        [
            silent("the lease keeper", report.keeper_ticked, KEEPER_SILENCE),
            silent("the run", report.ticked, KEEPER_SILENCE),
        ]
        .into_iter()
        .flatten()
        .chain(shards)
        .collect()
    }

    /// What must answer before the mapping is ready. A worker without a lease is ready.
    pub(super) fn readiness_problems(&self) -> Vec<String> {
        self.report().map_or_else(Vec::new, |report| self.problems_in(&report))
    }

    fn problems_in(&self, report: &ConsumerReport) -> Vec<String> {
        let Some((_, function)) = &self.running else { return Vec::new() };
        let mut problems = Vec::new();
        let because = report.last_error.as_ref().map(|e| format!(": {}", e.message)).unwrap_or_default();
        if matches!(report.state, RunState::Disabled) {
            problems.push(format!("{}: the mapping has stopped{because}", self.name));
        } else if !report.source_answered || !report.store_answered {
            let what = if report.source_answered { "the checkpoint store" } else { "the stream" };
            problems.push(format!("{}: {what} has not answered yet{because}", self.name));
        } else if let Some(error) = &report.last_error {
            problems.push(format!("{}: {}", self.name, error.message));
        }
        if let Some(store) =
            report.store_error.as_ref().filter(|store| report.last_error.as_ref() != Some(*store))
        {
            problems.push(format!("{}: {}", self.name, store.message));
        }
        problems
            .extend(report.unreadable_leases.iter().map(|lease| format!("{}: {}", self.name, lease.reason)));
        let function = function.problem().or_else(|| unreached(&report.troubles));
        problems.extend(function.map(|reason| format!("{}: the function: {reason}", self.name)));
        problems
    }

    pub(super) fn json(&self, worker: &Worker) -> Value {
        let mut value = json!({
            "name": self.name,
            "eventSourceArn": self.stream,
            "functionArn": self.function_arn,
            "uuid": self.uuid,
            "state": "Disabled",
            // A mapping that is disabled has nothing to wait for; see below for one that runs.
            "ready": true,
        });
        if let (Some(report), Value::Object(fields)) = (self.report(), &mut value) {
            fields.insert("state".into(), json!(format!("{:?}", report.state)));
            fields.insert("ready".into(), json!(self.problems_in(&report).is_empty()));
            fields.insert("lastError".into(), error_json(report.last_error.as_ref()));
            fields.insert("storeError".into(), error_json(report.store_error.as_ref()));
            fields.insert("gaps".into(), json!(report.stream_gaps));
            fields.insert("lastGap".into(), error_json(report.last_stream_gap.as_ref()));
            let holes = report.uncovered_hash_keys.iter();
            let hole = |hole: &HashRange| json!([hole.start.to_string(), hole.end.to_string()]);
            fields.insert("uncoveredHashKeys".into(), holes.map(hole).collect());
            fields.insert("troubles".into(), report.troubles.iter().map(trouble_json).collect());
            fields.insert("unplacedShards".into(), json!(report.unplaced_shards));
            fields.insert("workers".into(), Value::Array(workers_json(&report, worker)));
            fields.insert("shards".into(), Value::Array(shards_json(&report, worker)));
        }
        value
    }

    fn report(&self) -> Option<ConsumerReport> {
        self.running.as_ref().map(|(status, _)| status.report())
    }
}

/// Why the function cannot be reached now, although it has answered before.
fn unreached(troubles: &[TroubleReport]) -> Option<String> {
    let lasts = |trouble: &&TroubleReport| trouble.kind == TroubleKind::NotReached && trouble.lanes > 0;
    troubles.iter().find(lasts).map(|trouble| trouble.message.clone())
}

/// Every shard with a lease, and what this worker knows of those it reads itself.
fn shards_json(report: &ConsumerReport, worker: &Worker) -> Vec<Value> {
    let listed = joined(&report.leases, |lease| &lease.shard, &report.shards, |shard| &shard.shard);
    let listed = listed.map(|(lease, own)| {
        let mut value = json!({
            "shardId": lease.shard.as_str(),
            "owner": lease.owner,
            "ownerAlive": lease.owner_alive,
            "movingTo": lease.moving_to,
            "checkpoint": lease.checkpoint.to_string(),
            "renewedMillisecondsAgo": ago(worker, lease.renewed),
            "checkpointedMillisecondsAgo": ago(worker, lease.checkpointed),
        });
        if let Some(shard) = own {
            add_own(&mut value, shard, worker);
        }
        value
    });
    let unreadable = report.unreadable_leases.iter().map(|lease| {
        let error =
            json!({ "what": "checkpoint store", "message": lease.reason, "atEpochMilliseconds": null });
        json!({
            "shardId": lease.key.shard.as_str(), "owner": null, "ownerAlive": false, "checkpoint": null, "lastError": error
        })
    });
    listed.chain(unreadable).collect()
}

/// How long ago this was, on this worker's own clock.
fn ago(worker: &Worker, then: Mono) -> u64 {
    u64::try_from(worker.clock().now().mono.since(then).as_millis()).unwrap_or(u64::MAX)
}

/// The workers of the application, as this one sees them.
fn workers_json(report: &ConsumerReport, worker: &Worker) -> Vec<Value> {
    let peer = |peer: &FleetReport| {
        let about = &peer.worker;
        json!({
            "workerId": about.id.as_str(),
            "self": peer.is_self,
            "alive": peer.alive,
            "stopping": about.stopping,
            "leases": about.leases,
            "maximumLeases": about.maximum_leases,
            "recordsPerMinute": about.records_per_minute,
            "version": about.version,
            "host": about.host,
            "startedEpochMilliseconds": about.started,
            "heartbeatMillisecondsAgo": ago(worker, peer.heartbeat),
        })
    };
    report.workers.iter().map(peer).collect()
}

/// Each of `all` with the one of `some` that has the same key; `some` is read only once.
fn joined<'a, A, S, K: Eq + Hash + 'a>(
    all: &'a [A],
    key_of_all: impl Fn(&'a A) -> &'a K + 'a,
    some: &'a [S],
    key_of_some: impl Fn(&'a S) -> &'a K,
) -> impl Iterator<Item = (&'a A, Option<&'a S>)> {
    let by_key: HashMap<&K, &S> = some.iter().map(|one| (key_of_some(one), one)).collect();
    all.iter().map(move |one| (one, by_key.get(key_of_all(one)).copied()))
}

fn add_own(value: &mut Value, shard: &ShardReport, worker: &Worker) {
    let Value::Object(fields) = value else { return };
    if fields["owner"] != worker.id().as_str() {
        // Listed before this worker took it.
        fields.insert("owner".into(), json!(worker.id().as_str()));
        fields.insert("movingTo".into(), Value::Null);
    }
    fields.insert("ownerAlive".into(), json!(true));
    fields.insert("lastError".into(), error_json(shard.last_error.as_ref()));
    fields.insert("oldestWaitingMilliseconds".into(), json!(shard.oldest_waiting_millis));
    if let (Some(snapshot), Value::Object(own)) = (&shard.snapshot, snapshot_json(shard)) {
        fields.insert("checkpoint".into(), json!(snapshot.checkpoint.to_string()));
        fields.extend(own);
    }
}

fn snapshot_json(shard: &ShardReport) -> Value {
    let Some(snapshot) = &shard.snapshot else { return Value::Null };
    let trouble = |index: usize| shard.troubles.iter().find(|trouble| usize::from(trouble.lane.0) == index);
    let lanes = snapshot.lanes.iter().enumerate().map(|(index, lane)| lane_json(lane, trouble(index)));
    let counters = &snapshot.counters;
    json!({
        "read": snapshot.read.to_string(),
        "millisBehindLatest": snapshot.millis_behind,
        "iteratorAgeMilliseconds": snapshot.iterator_age_millis,
        "bufferedRecords": snapshot.buffered_records,
        "bufferedBytes": snapshot.buffered_bytes,
        "undeliveredDiscards": snapshot.undelivered_discards,
        "readFailuresInARow": snapshot.read_failures,
        "checkpointFailuresInARow": snapshot.checkpoint_failures,
        "lastProcessingResult": snapshot.last_result.as_str(),
        "gaps": counters.gaps,
        "lastGap": snapshot.last_gap.as_ref().map(gap_json),
        "lanes": lanes.collect::<Vec<_>>(),
        "counts": {
            "polled": counters.polled,
            "filteredOut": counters.filtered,
            "invoked": counters.invoked,
            "failed": counters.failed,
            "dropped": counters.dropped,
            "deliveredToDestination": counters.delivered,
            "destinationFailures": counters.delivery_failures,
        },
    })
}

fn gap_json(gap: &Gap) -> Value {
    json!({
        "kind": gap.kind.as_str(),
        "certain": gap.kind.is_certain(),
        "from": gap.from.to_string(),
        "to": gap.to.as_ref().map(ToString::to_string),
        "message": gap.to_string(),
        "atEpochMilliseconds": gap.at.as_millis(),
    })
}

/// Trouble of a mapping that lasts.
fn trouble_json(trouble: &TroubleReport) -> Value {
    json!({
        "kind": trouble.kind.as_str(),
        "sinceEpochMilliseconds": trouble.since.as_millis(),
        "lanes": trouble.lanes,
        "failures": trouble.failures,
        "firstShardId": trouble.shard.as_ref().map(shardmill::ShardId::as_str),
        "message": trouble.message,
    })
}

fn lane_json(lane: &LaneSnapshot, trouble: Option<&LaneTrouble>) -> Value {
    json!({
        "invoking": lane.invoking,
        "waitsForPlace": lane.waits_for_place,
        "batchRecords": lane.batch,
        "firstSequenceNumber": lane.first.as_ref().map(ToString::to_string),
        "lastSequenceNumber": lane.last.as_ref().map(ToString::to_string),
        "requestId": lane.request_id.map(|id| id.to_string()),
        "trouble": trouble.map(|trouble| json!({
            "kind": trouble.kind.as_str(),
            "sinceEpochMilliseconds": trouble.since.as_millis(),
            "failures": trouble.failures,
            "message": trouble.message,
        })),
        "attempts": lane.attempts,
        "retryInMilliseconds": lane.retry_in.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        "queuedRecords": lane.queued,
        "oversizedEventBytes": lane.oversized.as_ref().map(|oversized| oversized.bytes),
    })
}

fn error_json(error: Option<&ErrorReport>) -> Value {
    let Some(error) = error else { return Value::Null };
    json!({ "what": error.what, "message": error.message, "atEpochMilliseconds": error.at.map(|at| at.as_millis()) })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use shardmill::CancellationToken;

    use super::*;
    use crate::{assembly, config};

    #[test]
    fn incident_83_the_status_of_eight_thousand_shards_looks_at_each_lease_and_each_shard_once() {
        let leases: Vec<String> = (0..8_000).map(|n| format!("shardId-{n:012}")).collect();
        // Not in the same order, and one that is not listed yet.
        let shards: Vec<String> = (1..=8_000).rev().map(|n| format!("shardId-{n:012}")).collect();
        let looked = Cell::new(0);
        let key = |text| {
            looked.set(looked.get() + 1);
            text
        };
        let found: Vec<_> = joined(&leases, key, &shards, key).collect();
        assert_eq!(looked.get(), 16_000);
        assert_eq!(found[0], (&leases[0], None));
        assert!(found[1..].iter().all(|(lease, shard)| Some(*lease) == *shard));
    }

    #[tokio::test]
    async fn incident_102_readyz_and_status_say_that_the_function_is_not_reached_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        let text = "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/orders\nFunctionName: f\n\
                    StartingPosition: TRIM_HORIZON\nFunction: {Url: \"http://127.0.0.1:1/\", Timeout: 5}\n\
                    Checkpoints: \"memory:\"\nAws: {EndpointUrl: \"http://127.0.0.1:1\"}\n";
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file, &|_| None).unwrap().config;
        let aws = assembly::aws(&config.aws, "eu-west-1").await;
        let worker = assembly::worker(&config.worker).unwrap();
        let mut stores = assembly::Stores::of(&config);
        let mapping = config.mappings.into_iter().next().unwrap();
        let parts = assembly::parts(mapping, &aws, &mut stores).unwrap();
        let status = assembly::consumer(&parts, std::sync::Arc::clone(&worker)).unwrap().status();
        // A watcher that asks nothing more: what counts is what the run has met since.
        let over = CancellationToken::new();
        over.cancel();
        let function = FunctionState::watch(parts.function.clone(), status.clone(), over);
        let view = MappingView::enabled(&parts.config, status.clone(), function);
        status.function_probed(Some("cannot connect to http://127.0.0.1:1/"));
        let shown = view.json(&worker);
        assert_eq!(shown["ready"], false);
        assert_eq!(shown["troubles"][0]["kind"], "not_reached", "{shown}");
        assert_eq!(shown["troubles"][0]["message"], "cannot connect to http://127.0.0.1:1/");
        let report = view.report().unwrap();
        assert_eq!(unreached(&report.troubles).as_deref(), Some("cannot connect to http://127.0.0.1:1/"));
        status.function_probed(None);
        assert_eq!(unreached(&view.report().unwrap().troubles), None);
        assert_eq!(view.json(&worker)["troubles"], json!([]));
    }
}
