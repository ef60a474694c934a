//! Ways to fail, a simulated minute each, read at level info: the log has exactly the lines that an operator needs, and
//! status and metrics say the same (docs/adr/0027).

mod function;
mod surroundings;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::{DebuggingRecorder, Snapshotter};
use shardmill::{Batch, BatchResponse, ErrorReport, Handler, HandlerError, InvokeContext, ShardReport};
use shardmill::{TroubleKind, TroubleReport};
use shardmill_testkit::FakeKinesis;

use crate::logs;
use crate::support::*;
use crate::telemetry::Metrics;

/// Less than what makes a batch a blocked one.
const MINUTE: Duration = Duration::from_secs(55);

/// How a function behaves.
#[derive(Clone, Debug, PartialEq)]
enum Mood {
    Succeeds,
    Fails,
    /// Each batch once.
    FailsFirst,
    Panics,
    Hangs,
    NotReached,
    Throttles,
    NotStarted,
    TooLarge,
    /// The first record of each batch.
    ReportsFirst,
    ReportsFirstOnce,
    Answers(&'static str),
}

#[derive(Clone)]
struct Function(Arc<Mutex<Mood>>);

impl Function {
    fn new(mood: Mood) -> Self {
        Self(Arc::new(Mutex::new(mood)))
    }

    fn set(&self, mood: Mood) {
        *self.0.lock().unwrap() = mood;
    }

    fn handler(&self) -> impl Handler + use<> {
        let mood = Arc::clone(&self.0);
        move |batch: Batch, cx: InvokeContext| {
            let mood = mood.lock().unwrap().clone();
            async move { mood.answer(&batch, &cx).await }
        }
    }
}

impl Mood {
    async fn answer(self, batch: &Batch, cx: &InvokeContext) -> Result<BatchResponse, HandlerError> {
        let first = || batch.first().map(|record| record.seq.number.to_string());
        match self {
            Self::FailsFirst if cx.attempt == 1 => Err(HandlerError::function("once")),
            Self::ReportsFirstOnce if cx.attempt == 1 => Ok(BatchResponse::failed(first())),
            Self::Succeeds | Self::FailsFirst | Self::ReportsFirstOnce => Ok(BatchResponse::success()),
            Self::Fails => Err(HandlerError::function("boom")),
            Self::Panics => panic!("a broken handler"),
            Self::Hangs => std::future::pending().await,
            Self::NotReached => {
                Err(HandlerError::NotReached { reason: "cannot connect".to_owned(), retry_after: None })
            }
            Self::Throttles => Err(HandlerError::NotReached {
                reason: "it answered 429".to_owned(),
                retry_after: Some(Duration::ZERO),
            }),
            Self::NotStarted => Err(HandlerError::not_started()),
            Self::TooLarge => Err(HandlerError::TooLarge("413".to_owned())),
            Self::ReportsFirst => Ok(BatchResponse::failed(first())),
            Self::Answers(body) => Ok(BatchResponse::from_json(body.as_bytes()).unwrap()),
        }
    }
}

/// A run whose log and metrics are watched.
struct Watched {
    fake: FakeKinesis,
    run: Running,
    snapshotter: Snapshotter,
    metrics: Metrics,
    _recording: metrics::LocalRecorderGuard<'static>,
}

/// Starts a consumer of a stream of so many shards, as `build` makes it.
fn watch(shards: u32, build: impl FnOnce(&FakeKinesis) -> shardmill::ConsumerBuilder) -> Watched {
    logs::collect();
    // It lives as long as the test's process: the guard borrows it.
    let recorder: &'static DebuggingRecorder = Box::leak(Box::new(DebuggingRecorder::new()));
    let snapshotter = recorder.snapshotter();
    let recording = metrics::set_default_local_recorder(recorder);
    let fake = stream(shards);
    let run = launch(build(&fake));
    Watched { fake, run, snapshotter, metrics: Metrics::default(), _recording: recording }
}

/// With a function and a mapping only.
fn watch_function(shards: u32, function: &Function, mapping: shardmill::engine::MappingBuilder) -> Watched {
    let (handler, store) = (function.handler(), store());
    watch(shards, |fake| consumer(fake, &worker("a"), mapping, handler, &store))
}

impl Watched {
    fn put_everywhere(&self) {
        for shard in self.fake.shards("orders").unwrap() {
            self.fake.put_to_shard("orders", &shard.id, Some("k"), "data").unwrap();
        }
    }

    fn shard(&self) -> ShardReport {
        self.run.report().shards.into_iter().next().unwrap()
    }

    fn last_error(&self) -> ErrorReport {
        self.shard().last_error.unwrap()
    }

    fn result(&self) -> &'static str {
        self.shard().snapshot.unwrap().last_result.as_str()
    }

    fn metric(&mut self, name: &str) -> u64 {
        self.metrics.take(&self.snapshotter);
        self.metrics.get(name)
    }

    fn troubles(&self) -> Vec<(TroubleKind, usize)> {
        let of = |trouble: TroubleReport| (trouble.kind, trouble.lanes);
        self.run.report().troubles.into_iter().map(of).collect()
    }

    async fn calm(&self) {
        until("the end of all trouble", || self.run.report().troubles.is_empty()).await;
    }
}

/// What a healthy run writes as well.
const HEALTHY: [&str; 3] = ["INFO found shards", "INFO took leases", "INFO the last minute"];

/// Once a run it says where its shards begin, too.
fn is_healthy(line: &str) -> bool {
    HEALTHY.iter().any(|healthy| line.starts_with(healthy)) || line.contains(" at TRIM_HORIZON mapping=")
}

/// The lines at level info that a healthy run does not write.
fn told() -> Vec<String> {
    let is_loud = |line: &String| ["INFO", "WARN", "ERROR"].iter().any(|level| line.starts_with(level));
    let lines: Vec<String> = logs::lines().into_iter().filter(is_loud).collect();
    for line in &lines {
        // A text value is in quotes, one that is displayed is not.
        assert!(
            line.replace('"', "").contains(" mapping=orders-worker"),
            "every line names its mapping: {line}"
        );
    }
    lines.into_iter().filter(|line| !is_healthy(line)).collect()
}

/// Exactly these lines were written: each begins with the first text and has all the others in it.
#[track_caller]
fn assert_told(expected: &[&[&str]]) {
    let lines = told();
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, texts) in lines.iter().zip(expected) {
        assert!(line.starts_with(texts[0]), "{}: {lines:#?}", texts[0]);
        for text in &texts[1..] {
            assert!(line.contains(text), "{text}: {line}");
        }
    }
}

/// The last of the minute's lines.
fn last_minute() -> String {
    logs::lines().into_iter().rfind(|line| line.starts_with("INFO the last minute")).unwrap()
}
