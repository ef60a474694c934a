//! One mapping on one stream, run until every record is resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use shardmill_tests::{Config, Ferrokinesis, Function, Invocation, Plan, Sidecar, Stream, until};

/// A stream with records and a mapping on it, before it runs.
pub(crate) struct Case {
    pub(crate) stream: Stream,
    pub(crate) config: Config,
}

/// What a run left behind.
pub(crate) struct Outcome {
    /// The records of each invocation, by their places in the stream from 1 on.
    pub(crate) trace: Vec<Vec<usize>>,
    /// The request id of each invocation.
    pub(crate) request_ids: Vec<String>,
    /// Each invocation, if the function was called at a URL.
    pub(crate) calls: Vec<Invocation>,
    /// What the function stored as handled, by place.
    pub(crate) handled: Vec<usize>,
    /// The lines of the destination's file.
    pub(crate) discarded: Vec<Value>,
    /// The sequence number of each record.
    pub(crate) sequences: Vec<String>,
}

impl Case {
    /// A stream of one shard with these records, written in one call, on an emulator in this process. Discards go to a
    /// file; retries follow each other quickly.
    pub(crate) async fn new(records: &[&str]) -> Self {
        let emulator = Ferrokinesis::start().await;
        Self::at(emulator.url(), records).await
    }

    /// The same on another emulator.
    pub(crate) async fn at(endpoint: &str, records: &[&str]) -> Self {
        let mut stream = Stream::create(endpoint, "orders", 1).await;
        stream.put_all(records.iter().map(|record| record.as_bytes().to_vec()).collect()).await;
        Self::on(stream)
    }

    /// The same on this stream.
    pub(crate) fn on(stream: Stream) -> Self {
        let config = Config::new(&stream)
            .set("Retry.InitialBackoffMilliseconds", 20)
            .set("Function.Timeout", 20)
            .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
        Self { stream, config }
    }

    /// Sets a key of the configuration.
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.config = self.config.set(path, value);
        self
    }

    /// Runs a function that does what `behaviour` says, and stops when the checkpoint stands behind the last record.
    pub(crate) async fn run(
        self,
        behaviour: impl Fn(&Invocation) -> Plan + Send + Sync + 'static,
    ) -> Outcome {
        self.run_at("", behaviour).await
    }

    /// The same with a path in the function's URL.
    pub(crate) async fn run_at(
        self,
        path: &str,
        behaviour: impl Fn(&Invocation) -> Plan + Send + Sync + 'static,
    ) -> Outcome {
        let function = Function::behaving(behaviour).await;
        let url = function.url(path);
        let result = self.set("Function.Url", url).finish().await;
        Outcome::new(&function, result)
    }

    /// The same until `done` has waited for something else than the last record's checkpoint.
    pub(crate) async fn run_until(
        self,
        behaviour: impl Fn(&Invocation) -> Plan + Send + Sync + 'static,
        done: impl AsyncFnOnce(&Sidecar, &Stream),
    ) -> Outcome {
        let function = Function::behaving(behaviour).await;
        let url = function.url("");
        let result = self.set("Function.Url", url).finish_after(done).await;
        Outcome::new(&function, result)
    }

    /// Runs until the checkpoint stands behind the last record, stops, and gives back the log, the sequence numbers and
    /// the destination's lines. The function has seen everything by then.
    pub(crate) async fn finish(&self) -> Finished {
        self.finish_after(resolved).await
    }

    async fn finish_after(&self, done: impl AsyncFnOnce(&Sidecar, &Stream)) -> Finished {
        let mut sidecar = Sidecar::start(&self.config).await;
        done(&sidecar, &self.stream).await;
        sidecar.terminate();
        let status = sidecar.ended().await;
        assert!(status.success(), "{status}");
        let sequences = self.stream.records().iter().map(|put| put.sequence.clone()).collect();
        (sidecar.log(), sequences, discarded(&self.config))
    }
}

/// The log, the sequence numbers of the records and the destination's lines.
pub(crate) type Finished = (Vec<String>, Vec<String>, Vec<Value>);

impl Outcome {
    fn new(function: &Function, (_, sequences, discarded): Finished) -> Self {
        let places: BTreeMap<&str, usize> =
            sequences.iter().enumerate().map(|(n, sequence)| (sequence.as_str(), n + 1)).collect();
        let calls = function.invocations();
        let place = |sequence: &String| places[sequence.as_str()];
        Self {
            trace: calls
                .iter()
                .map(|call| call.records.iter().map(|r| place(&r.sequence)).collect())
                .collect(),
            request_ids: calls.iter().map(|call| call.request_id.clone()).collect(),
            calls,
            handled: function.stored().iter().map(|stored| place(&stored.sequence)).collect(),
            discarded,
            sequences,
        }
    }
}

/// Waits until every shard's checkpoint stands behind the last record that was put.
pub(crate) async fn resolved(sidecar: &Sidecar, stream: &Stream) {
    let last: BTreeMap<String, String> =
        stream.by_shard().into_iter().filter_map(|(shard, mut all)| Some((shard, all.pop()?))).collect();
    until("every record is resolved", async || {
        let leases = sidecar.store().leases();
        let reached =
            |(shard, last): (&String, &String)| leases.get(shard).is_some_and(|l| l.checkpoint == *last);
        last.iter().all(reached).then_some(())
    })
    .await;
}

/// The lines of the destination's file so far.
pub(crate) fn discarded(config: &Config) -> Vec<Value> {
    lines(config).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The same as text.
pub(crate) fn lines(config: &Config) -> Vec<String> {
    let path: PathBuf = config.folder().join("discarded.jsonl");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

impl Outcome {
    /// An unchanged batch keeps its request id, any other batch has another one (R21).
    #[track_caller]
    pub(crate) fn assert_request_ids(&self) {
        let calls: Vec<_> = self.trace.iter().zip(&self.request_ids).collect();
        for (n, (batch, id)) in calls.iter().enumerate() {
            for (other_batch, other_id) in &calls[n + 1..] {
                assert_eq!(batch == other_batch, id == other_id, "{calls:?}");
            }
        }
    }

    /// There is one discard: these records (by place), after so many invocations, with this function error.
    #[track_caller]
    pub(crate) fn assert_one_discard(&self, records: &[usize], invocations: u64, error: Option<&str>) {
        assert_eq!(self.discarded.len(), 1, "{:#?}", self.discarded);
        self.assert_discard(&self.discarded[0], records, invocations, error);
    }

    /// This discard is of these records, after so many invocations, with this function error.
    #[track_caller]
    pub(crate) fn assert_discard(
        &self,
        line: &Value,
        records: &[usize],
        invocations: u64,
        error: Option<&str>,
    ) {
        let info = &line["KinesisBatchInfo"];
        let sequence = |record: Option<&usize>| self.sequences[record.unwrap() - 1].as_str();
        assert_eq!(info["startSequenceNumber"], sequence(records.first()), "{line:#}");
        assert_eq!(info["endSequenceNumber"], sequence(records.last()), "{line:#}");
        assert_eq!(info["batchSize"], records.len(), "{line:#}");
        let request = &line["requestContext"];
        assert_eq!(request["condition"], "RetryAttemptsExhausted", "{line:#}");
        assert_eq!(request["approximateInvokeCount"], invocations, "{line:#}");
        let last = self.trace.iter().rposition(|batch| batch == records).expect("it was invoked");
        assert_eq!(request["requestId"], self.request_ids[last], "{line:#}");
        let response = &line["responseContext"];
        assert_eq!(response["statusCode"], 200, "{line:#}");
        assert_eq!(response["functionError"], error.map_or(Value::Null, Value::from), "{line:#}");
        let payload: Value = serde_json::from_str(line["payload"].as_str().unwrap()).unwrap();
        let payload: Vec<&str> = payload["Records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["kinesis"]["sequenceNumber"].as_str().unwrap())
            .collect();
        let expected: Vec<&str> = records.iter().map(|n| self.sequences[n - 1].as_str()).collect();
        assert_eq!(payload, expected, "the payload is the whole event (R73)");
    }
}

/// The place of a record in an invocation, by its data.
pub(crate) fn position(invocation: &Invocation, data: &str) -> Option<usize> {
    invocation.records.iter().position(|record| record.data == data)
}
