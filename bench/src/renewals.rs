//! Whether a worker's heartbeat keeps its pace while its runtime does not: every handler blocks its thread, and pages are
//! made back to back on the others.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shardmill::checkpoint::{LeaseStore as _, MemoryStore};
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, HandlerError, InvokeContext, Worker, WorkerOptions,
};

use crate::library::{self, Running};
use crate::measure::{Bound, Fallible, Figure};
use crate::memory_source::{MemorySource, Pages};

/// Shards whose handler blocks, and shards whose handler does nothing.
const SHARDS: usize = 64;
const READ: usize = 8;
/// A worker raises its heartbeat four times in it.
const LEASE: Duration = Duration::from_secs(4);
/// How long a handler keeps the thread that it runs on.
const BLOCKED: Duration = Duration::from_millis(100);
const BACKLOG: Pages = Pages { pages: u64::MAX, records: 2_000, bytes: 1_024 };
const LOOK: Duration = Duration::from_millis(2);

/// The longest pause between two heartbeats of each run, in intervals between heartbeats; four are the lease time.
pub(crate) fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let mut samples = Vec::new();
    for _ in 0..runs {
        // The caller's thread drives a runtime already.
        let run = thread::spawn(|| one_run().map_err(|error| error.to_string()));
        let worst = run.join().map_err(|_| "the run panicked")??;
        samples.push(worst.as_secs_f64() / (LEASE / 4).as_secs_f64());
    }
    Ok(vec![Figure {
        name: "longest pause between heartbeats, all threads blocked",
        unit: "intervals",
        samples,
        bound: Bound::AtMost { goal: 1.5, floor: 3.0 },
    }])
}

/// On a runtime of its own, with as many threads as the sidecar has.
fn one_run() -> Fallible<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let worst = runtime.block_on(worst_pause(5 * LEASE));
    runtime.shutdown_background();
    worst
}

async fn worst_pause(time: Duration) -> Fallible<Duration> {
    let store = MemoryStore::new();
    let handler = |_: Batch, _: InvokeContext| async {
        thread::sleep(BLOCKED);
        Ok::<_, HandlerError>(BatchResponse::success())
    };
    let [blocking, reading] = [SHARDS, READ].map(|shards| MemorySource::of(BACKLOG).with_shards(shards));
    let worker = Worker::start(WorkerOptions::default().pacing(false).lease(LEASE))?;
    let consumer = Consumer::builder(library::mapping().build()?, blocking.clone(), handler)
        .lease_store(store.clone())
        .worker(Arc::clone(&worker))
        .build()?;
    let stop = CancellationToken::new();
    let blocked = tokio::spawn(consumer.run(stop.clone()));
    let read = Running::start(library::mapping().name("read"), reading.clone(), worker)?;
    // The runtime's timers wait for its threads as well: only another thread wakes this one in time.
    let (done, watched) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let start = || {
            blocking.start.notify_waiters();
            reading.start.notify_waiters();
        };
        let _ = done.send(watch(&store, time, start).map_err(|error| error.to_string()));
    });
    let worst = watched.await.map_err(|_| "the watching thread panicked")?;
    stop.cancel();
    if blocked.is_finished() {
        return Err("the consumer ended before it was stopped".into());
    }
    // An orderly stop waits for the handlers, which take turns on the few threads.
    drop(read);
    Ok(worst?)
}

/// Looks at the store from a thread that nothing blocks.
fn watch(store: &MemoryStore, time: Duration, start: impl Fn()) -> Fallible<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (began, mut last, mut worst) = (Instant::now(), None::<(u64, Instant)>, Duration::ZERO);
    let mut beats = 0;
    while began.elapsed() < time {
        thread::sleep(LOOK);
        start();
        let workers = runtime.block_on(store.list_readable())?.workers;
        let Some(heartbeat) = workers.first().map(|worker| worker.heartbeat) else { continue };
        let now = Instant::now();
        match last {
            Some((seen, _)) if seen == heartbeat => continue,
            Some((_, at)) => {
                worst = worst.max(now - at);
                beats += 1;
            }
            None => {}
        }
        last = Some((heartbeat, now));
    }
    // The pause that goes on at the end counts as well.
    let open = last.map_or(time, |(_, at)| at.elapsed());
    if beats == 0 {
        return Err("no heartbeat was seen twice".into());
    }
    Ok(worst.max(open))
}
