//! The thread that starts the function's processes and clears up after them, one thing after the other.
//!
//! A thread of its own that lives as long as this process, for two reasons. Linux sends the parent-death signal when the
//! *thread* that started a process ends, and threads of the runtime come and go. And every decision about processes
//! by their ids (is this zombie a stranger's, may this group still be signalled) cannot be overtaken by a start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

static THREAD: OnceLock<Option<Sender<Job>>> = OnceLock::new();

fn thread() -> Option<&'static Sender<Job>> {
    let start = || {
        let (jobs, queue) = channel::<Job>();
        let work = move || {
            for job in queue {
                // One that panics must not end the thread: its end would be the end of every function's process.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        };
        std::thread::Builder::new().name("shardmill-processes".into()).spawn(work).ok().map(|_| jobs)
    };
    THREAD.get_or_init(start).as_ref()
}

/// Has the thread do this once it is done with what it was given before. Without a thread it is done here.
pub(super) fn submit(job: impl FnOnce() + Send + 'static) {
    let Some(thread) = thread() else { return job() };
    if let Err(unsent) = thread.send(Box::new(job)) {
        (unsent.0)();
    }
}

/// Has the thread do this inside the calling task's runtime. `None` if it panicked.
pub(super) async fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    submit(move || {
        let _inside = runtime.enter();
        // A result that is no longer awaited is dropped here.
        let _ = done.send(job());
    });
    result.await.ok()
}
