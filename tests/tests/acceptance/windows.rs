//! Tumbling windows as Lambda was recorded to run them (R64 to R70), and what a crash makes of one (I8).

use std::collections::BTreeMap;

use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use serde_json::{Value, json};
use shardmill_testkit::kinesis::Operation;
use shardmill_tests::{Answer, Config, Function, Invocation, Plan, Sidecar, Stream, Window, until};

use crate::case::{Case, discarded, resolved};
use crate::kinesis::{Kinesis, now};

const SIZE: i64 = 60_000;
const SHARD: &str = "shardId-000000000000";

/// A function that counts the records of a window.
pub(crate) fn counting(call: &Invocation) -> Plan {
    Plan::state(&json!({ "count": counted(call) }))
}

/// The records of the window, with those of this call.
fn counted(call: &Invocation) -> u64 {
    call.window.as_ref().unwrap().state["count"].as_u64().unwrap_or(0) + call.records.len() as u64
}

/// A stream whose records lie in windows that have long ended, and a mapping that calls the function record by record.
struct Windows {
    kinesis: Kinesis,
    stream: Stream,
    /// When the first window starts, in milliseconds since 1970.
    first: i64,
}

impl Windows {
    async fn new() -> Self {
        let kinesis = Kinesis::start().await;
        let stream = kinesis.stream().await;
        let first = (now() / SIZE - 20) * SIZE;
        Self { kinesis, stream, first }
    }

    /// Puts records so many milliseconds after the first window's start.
    fn put(&mut self, records: &[(i64, &str)]) {
        for (after, data) in records {
            self.kinesis.put(&mut self.stream, self.first + after, data);
        }
    }

    /// With the host's time: every window has ended, and one that is idle is closed at once.
    fn case(self) -> (Case, Times) {
        let times = Times { first: self.first, _kinesis: self.kinesis };
        let case = Case::on(self.stream).set("TumblingWindowInSeconds", SIZE / 1000).set("BatchSize", 1);
        (case, times)
    }
}

/// What a function is expected to be told.
struct Times {
    first: i64,
    /// Serves the stream.
    _kinesis: Kinesis,
}

impl Times {
    /// The window of this number, from 0 on.
    fn window(&self, number: i64, state: Value) -> Window {
        let at = |number: i64| {
            let at = DateTime::from_millis(self.first + number * SIZE);
            at.fmt(DateTimeFormat::DateTime).unwrap()
        };
        Window { start: at(number), end: at(number + 1), state, is_final: false, is_terminated_early: false }
    }

    fn last(&self, number: i64, state: Value) -> Window {
        Window { is_final: true, ..self.window(number, state) }
    }
}

/// The records (by place) and the windows of all calls.
fn seen(outcome: &crate::case::Outcome) -> Vec<(Vec<usize>, Window)> {
    let windows = outcome.calls.iter().map(|call| call.window.clone().unwrap());
    outcome.trace.iter().cloned().zip(windows).collect()
}

fn count(count: u64) -> Value {
    json!({ "count": count })
}

#[tokio::test(flavor = "multi_thread")]
async fn r65_r67_the_state_passes_from_call_to_call_and_a_final_call_without_records_ends_each_window() {
    let mut windows = Windows::new().await;
    // R64: the end of a window is the start of the next.
    windows.put(&[(0, "1"), (SIZE - 1, "2"), (SIZE, "3"), (3 * SIZE + 5, "4")]);
    let (case, times) = windows.case();
    let outcome = case.run(counting).await;
    let expected = [
        (vec![1], times.window(0, json!({}))),
        (vec![2], times.window(0, count(1))),
        (vec![], times.last(0, count(2))),
        (vec![3], times.window(1, json!({}))),
        (vec![], times.last(1, count(1))),
        (vec![4], times.window(3, json!({}))),
        (vec![], times.last(3, count(1))),
    ];
    assert_eq!(seen(&outcome), expected);
    assert!(outcome.calls.iter().all(|call| call.shard == SHARD), "a final call names its shard");
    assert_eq!(outcome.discarded, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r67_an_idle_window_is_closed_a_hundred_seconds_after_its_end_and_holds_the_checkpoint_until_then() {
    let mut windows = Windows::new().await;
    windows.put(&[(10_000, "1"), (20_000, "2")]);
    let Windows { kinesis, stream, first } = windows;
    kinesis.set_time(first + 30_000);
    let function = Function::behaving(counting).await;
    let config = Config::new(&stream).url(function.url("")).set("TumblingWindowInSeconds", SIZE / 1000);
    let sidecar = Sidecar::start(&config).await;
    until("both records are handled", async || (function.stored_count() == 2).then_some(())).await;
    for (after, calls) in [(SIZE - 1_000, 1), (SIZE + 50_000, 1), (SIZE + 101_000, 2)] {
        assert_eq!(sidecar.store().leases()[SHARD].checkpoint, "TRIM_HORIZON", "I8: the window is open");
        kinesis.set_time(first + after);
        let reads = || kinesis.fake.calls().of(Operation::GetRecords).len();
        let before = reads();
        until("the shard is read again at that time", async || {
            (reads() >= before + 3 && function.count() >= calls).then_some(())
        })
        .await;
        assert_eq!(function.count(), calls, "{after} ms after the window's start");
    }
    resolved(&sidecar, &stream).await;
    let last = function.invocations().pop().unwrap();
    assert!(last.records.is_empty() && last.window.unwrap().is_final);
}

#[tokio::test(flavor = "multi_thread")]
async fn r68_a_state_above_1_mb_ends_the_window_early_and_the_rest_of_it_starts_afresh() {
    let large = json!({ "count": 1, "rest": "x".repeat(1_048_640) });
    let mut windows = Windows::new().await;
    windows.put(&[(0, "large"), (1, "2"), (2, "3"), (SIZE, "4")]);
    let (case, times) = windows.case();
    let answer = large.clone();
    let outcome = case
        .run(move |call| match crate::case::position(call, "large") {
            Some(_) => Plan::state(&answer),
            None => counting(call),
        })
        .await;
    let early = Window { is_terminated_early: true, ..times.last(0, large) };
    let expected = [
        (vec![1], times.window(0, json!({}))),
        (vec![], early),
        (vec![2], times.window(0, json!({}))),
        (vec![3], times.window(0, count(1))),
        (vec![], times.last(0, count(2))),
        (vec![4], times.window(1, json!({}))),
        (vec![], times.last(1, count(1))),
    ];
    let seen = seen(&outcome);
    let short: Vec<_> =
        seen.iter().map(|(records, window)| (records, &window.start, window.is_final)).collect();
    assert!(seen == expected, "{short:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r69_a_final_call_that_fails_is_retried_then_discarded_and_the_next_window_begins() {
    let mut windows = Windows::new().await;
    windows.put(&[(0, "1"), (1, "2"), (SIZE, "3")]);
    let (case, times) = windows.case();
    let (start, arn) = (times.window(0, json!({})).start, case.stream.arn().to_owned());
    let outcome = case
        .set("MaximumRetryAttempts", 1)
        .run(move |call| match &call.window {
            Some(window) if window.is_final && window.start == start => Plan::failure(),
            _ => counting(call),
        })
        .await;
    let expected = [
        (vec![1], times.window(0, json!({}))),
        (vec![2], times.window(0, count(1))),
        (vec![], times.last(0, count(2))),
        (vec![], times.last(0, count(2))),
        (vec![3], times.window(1, json!({}))),
        (vec![], times.last(1, count(1))),
    ];
    assert_eq!(seen(&outcome), expected);
    assert_eq!(outcome.request_ids[2], outcome.request_ids[3], "R21");
    let [line] = &outcome.discarded[..] else { panic!("{:#?}", outcome.discarded) };
    let request = &line["requestContext"];
    assert_eq!(request["condition"], "RetryAttemptsExhausted");
    assert_eq!(request["approximateInvokeCount"], 2);
    assert_eq!(request["requestId"], outcome.request_ids[3].as_str());
    assert_eq!(line["responseContext"]["functionError"], "Unhandled");
    assert_eq!(
        line["KinesisBatchInfo"],
        json!({"shardId": SHARD, "streamArn": arn}),
        "no records, none told"
    );
    let Window { start, end, state, .. } = times.last(0, count(2));
    let window = json!({
        "window": {"start": start, "end": end}, "isFinalInvokeForWindow": true, "isWindowTerminatedEarly": false,
    });
    assert_eq!(line["timeWindowInfo"], window);
    let event: Value = serde_json::from_str(line["payload"].as_str().unwrap()).unwrap();
    let expected = json!({
        "Records": [], "shardId": SHARD, "eventSourceARN": arn, "window": {"start": start, "end": end},
        "state": state, "isFinalInvokeForWindow": true, "isWindowTerminatedEarly": false,
    });
    assert_eq!(event, expected);
}

/// R66: the records before it keep their window's state.
#[tokio::test(flavor = "multi_thread")]
async fn r66_an_answer_without_a_state_is_a_failure() {
    let mut windows = Windows::new().await;
    windows.put(&[(0, "1"), (1, "2"), (2, "3")]);
    let (case, times) = windows.case();
    let outcome = case
        .set("MaximumRetryAttempts", 1)
        .run(|call| match crate::case::position(call, "2") {
            Some(_) => {
                Plan { store: 0, answer: Answer::Status(200, Vec::new(), "{}".to_owned()), ..Plan::success() }
            }
            None => counting(call),
        })
        .await;
    let expected = [
        (vec![1], times.window(0, json!({}))),
        (vec![2], times.window(0, count(1))),
        (vec![2], times.window(0, count(1))),
        (vec![3], times.window(0, count(1))),
        (vec![], times.last(0, count(2))),
    ];
    assert_eq!(seen(&outcome), expected);
    outcome.assert_one_discard(&[2], 2, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_the_end_of_a_shard_closes_its_window_and_children_start_afresh() {
    let mut windows = Windows::new().await;
    windows.put(&[(0, "1"), (1, "2")]);
    windows.kinesis.fake.split(windows.stream.arn(), SHARD).unwrap();
    windows.put(&[(3, "3"), (4, "4"), (5, "5"), (6, "6"), (7, "7"), (8, "8")]);
    let (case, times) = windows.case();
    let outcome = case.run_until(counting, resolved_to_the_end_of_the_first).await;
    let parent: Vec<_> = outcome.calls.iter().take_while(|call| call.shard == SHARD).collect();
    assert_eq!(parent.len(), 3, "R52: no child before its parent's window is closed");
    assert_eq!(parent[2].window, Some(times.last(0, count(2))));
    let mut children: BTreeMap<&str, Vec<&Window>> = BTreeMap::new();
    for call in &outcome.calls[3..] {
        children.entry(&call.shard).or_default().push(call.window.as_ref().unwrap());
    }
    assert_eq!(children.len(), 2, "both children have records");
    for (shard, calls) in children {
        let records = calls.len() as u64 - 1;
        let mut expected: Vec<Window> = (1..records).map(|n| times.window(0, count(n))).collect();
        expected.insert(0, times.window(0, json!({})));
        expected.push(times.last(0, count(records)));
        assert!(calls.into_iter().eq(&expected), "{shard}");
    }
}

/// Waits until the first shard is read to its end and every record of the others is resolved.
async fn resolved_to_the_end_of_the_first(sidecar: &Sidecar, stream: &Stream) {
    let mut last: BTreeMap<String, String> =
        stream.by_shard().into_iter().map(|(shard, mut all)| (shard, all.pop().unwrap())).collect();
    last.insert(SHARD.to_owned(), "SHARD_END".to_owned());
    until("every record is resolved", async || {
        let leases = sidecar.store().leases();
        last.iter().all(|(shard, at)| leases.get(shard).is_some_and(|l| l.checkpoint == *at)).then_some(())
    })
    .await;
}

/// A window of fifteen minutes, in which three records have come in its first seconds.
async fn within_a_window(kinesis: &Kinesis) -> (Stream, Config, Function) {
    let size = 900_000;
    let start = now() / size * size;
    let mut stream = kinesis.stream().await;
    for n in 1..=3 {
        kinesis.put(&mut stream, start + 1_000 * n, &n.to_string());
    }
    kinesis.set_time(start + 10_000);
    let function = Function::behaving(counting).await;
    let config = Config::new(&stream).set("TumblingWindowInSeconds", size / 1000).set("BatchSize", 1);
    (stream, config, function)
}

/// Runs until three records are handled, ends the run, and does it again; then the window may close. Each run is to
/// count from zero.
async fn replays(end: impl AsyncFn(&mut Sidecar)) {
    let kinesis = Kinesis::start().await;
    let (stream, config, function) = within_a_window(&kinesis).await;
    let calls = |run: &str| {
        let all = function.invocations().into_iter();
        let of_run = all.filter(|call| call.caller == run);
        of_run
            .map(|call| {
                let window = call.window.unwrap();
                let sequences: Vec<String> = call.records.into_iter().map(|record| record.sequence).collect();
                (sequences, window.state, window.is_final)
            })
            .collect::<Vec<_>>()
    };
    let record = |n: usize| vec![stream.records()[n].sequence.clone()];
    let replayed =
        vec![(record(0), json!({}), false), (record(1), count(1), false), (record(2), count(2), false)];
    for run in ["one", "two"] {
        let mut sidecar = Sidecar::start(&config.clone().url(function.url(run))).await;
        until("the three records are handled", async || (calls(run).len() == 3).then_some(())).await;
        until("the sidecar has the third answer", async || {
            let shards = sidecar.shards().await;
            (shards.get(SHARD)?["counts"]["invoked"] == 3 && function.open().is_empty()).then_some(())
        })
        .await;
        end(&mut sidecar).await;
        assert_eq!(calls(run), replayed, "run {run}");
        assert_eq!(sidecar.store().leases()[SHARD].checkpoint, "TRIM_HORIZON", "the window is open");
    }
    let sidecar = Sidecar::start(&config.clone().url(function.url("last"))).await;
    until("the three records are handled", async || (calls("last").len() == 3).then_some(())).await;
    // By the service's clock the window has ended, and its time of grace too.
    kinesis.set_time(now() + 2 * 900_000);
    resolved(&sidecar, &stream).await;
    let mut expected = replayed;
    expected.push((Vec::new(), count(3), true));
    assert_eq!(calls("last"), expected);
    assert_eq!(discarded(&config), [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_kill_inside_a_window_replays_it_from_its_start_with_an_empty_state() {
    replays(async |sidecar| sidecar.kill_9()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_stop_inside_a_window_replays_it_from_its_start_with_an_empty_state() {
    replays(async |sidecar| {
        sidecar.terminate();
        assert!(sidecar.ended().await.success());
    })
    .await;
}

/// A window that was closed before a crash is not opened again: only the open one is replayed.
#[tokio::test(flavor = "multi_thread")]
async fn i8_a_closed_window_stays_closed_after_a_kill() {
    let kinesis = Kinesis::start().await;
    let (mut stream, config, function) = within_a_window(&kinesis).await;
    let next = now() / 900_000 * 900_000 + 900_000;
    kinesis.put(&mut stream, next + 5_000, "4");
    let mut sidecar = Sidecar::start(&config.clone().url(function.url("one"))).await;
    until("the second window is open", async || (function.count() >= 5).then_some(())).await;
    until("the first window is stored as done", async || {
        (sidecar.store().leases()[SHARD].checkpoint == stream.records()[2].sequence).then_some(())
    })
    .await;
    sidecar.kill_9();
    let sidecar = Sidecar::start(&config.clone().url(function.url("two"))).await;
    until("the open window is replayed", async || (function.count() >= 6).then_some(())).await;
    kinesis.set_time(next + 2 * 900_000);
    resolved(&sidecar, &stream).await;
    let again: Vec<_> = function
        .invocations()
        .into_iter()
        .filter(|call| call.caller == "two")
        .map(|call| (call.records.len(), call.window.unwrap()))
        .map(|(records, window)| (records, window.state, window.is_final))
        .collect();
    assert_eq!(again, [(1, json!({}), false), (0, count(1), true)]);
}
