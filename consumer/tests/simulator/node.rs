//! One worker process: a whole consumer with its own ways to the store and the stream.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use shardmill::checkpoint::MemoryStore;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, Handler, HandlerError, InvokeContext, RunError,
    RunReport, ServiceClock, StreamSource, Worker,
};
use tokio::task::JoinHandle;

use crate::judge::Judge;
use crate::plan::Plan;
use crate::stream::Far;
use crate::support::{options, source};
use crate::tape::{Tape, TapeSource};
use crate::way::Way;
use crate::weather::Weather;

pub(crate) struct Node {
    pub(crate) id: String,
    /// The worker's name and which of its lives this is.
    pub(crate) process: Arc<str>,
    pub(crate) to_store: Weather,
    pub(crate) to_stream: Weather,
    stop: CancellationToken,
    task: JoinHandle<Result<RunReport, RunError>>,
}

impl Node {
    pub(crate) fn start(
        (id, life): (String, u32),
        plan: &Plan,
        (stream, store): (&Tape, &MemoryStore),
        judge: &Judge,
        (clock, rng): (ServiceClock, &mut Rng),
    ) -> Self {
        let process: Arc<str> = format!("{id}.{life}").into();
        let [to_store, to_stream] = [(); 2].map(|()| Weather::new(rng.fork(), plan.latency));
        let worker = Worker::start(options(&id).clock(clock)).unwrap();
        let way = Way::new(store.clone(), to_store.clone(), judge.clone(), Arc::clone(&process));
        let source: Box<dyn StreamSource> = match plan.wire {
            true => Box::new(source(stream.fake())),
            false => Box::new(TapeSource::new(stream.clone())),
        };
        let far = Far { source, weather: to_stream.clone() };
        let handler = handler(plan, judge, &process, &to_store);
        let consumer = Consumer::builder(plan.mapping().build().unwrap(), far, handler)
            .lease_store(way)
            .worker(worker)
            .discovery_interval(Duration::from_secs(5))
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(consumer.run(stop.clone()));
        Self { id, process, to_store, to_stream, stop, task }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Asks it to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn ended(self) -> Result<RunReport, RunError> {
        self.task.await.unwrap()
    }

    /// Ends the process wherever it is: nothing more is sent, what was sent still arrives.
    pub(crate) async fn crash(self) {
        self.to_store.end();
        self.to_stream.end();
        self.task.abort();
        let _ = self.task.await;
    }

    /// The process stands still: it sends nothing, and no answer reaches it.
    pub(crate) fn pause(&self, lasts: Duration) {
        self.to_store.pause(lasts);
        self.to_stream.pause(lasts);
    }

    pub(crate) fn clear(&self) {
        self.to_store.clear();
        self.to_stream.clear();
    }
}

/// Ends the invocation for the judge however it ends.
struct Invocation {
    judge: Judge,
    id: u64,
}

impl Drop for Invocation {
    fn drop(&mut self) {
        self.judge.ended(self.id);
    }
}

fn handler(plan: &Plan, judge: &Judge, process: &Arc<str>, weather: &Weather) -> impl Handler + use<> {
    let (judge, process, weather) = (judge.clone(), Arc::clone(process), weather.clone());
    let (takes, failing) = (plan.takes, plan.failing);
    move |batch: Batch, cx: InvokeContext| {
        let (judge, process, weather) = (judge.clone(), Arc::clone(&process), weather.clone());
        async move {
            let id = judge.delivered(&process, &batch, &cx);
            let _invocation = Invocation { judge: judge.clone(), id };
            tokio::time::sleep(takes.mul_f64(fastrand::f64())).await;
            weather.runs().await;
            if fastrand::u32(0..100) < failing {
                return Err(HandlerError::function("it fails by chance"));
            }
            judge.handled(&batch, &cx);
            Ok(BatchResponse::success())
        }
    }
}
