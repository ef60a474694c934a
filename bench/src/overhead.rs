//! What the engine and the driver cost by themselves: a stream in memory, a handler that does nothing.

use std::time::Duration;

use crate::library::{self, Running};
use crate::measure::{Fallible, Stopwatch};
use crate::memory_source::{MemorySource, Pages};

const WARM_UP_PAGES: u64 = 10;
/// As many records as the throughput benchmark has in a page.
const PAGE: Pages = Pages { pages: 0, records: 2_000, bytes: 1_024 };

/// What the benchmark found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overhead {
    pub(crate) records: u64,
    /// CPU time of all threads that the records cost on their way, without making and freeing them.
    pub(crate) beyond_freeing: Duration,
    /// CPU time for freeing them, which every reader has to pay.
    pub(crate) freeing: Duration,
}

/// Runs `pages` pages through a consumer. The time that making them takes is left out.
pub(crate) async fn run(pages: u64) -> Fallible<Overhead> {
    // On a thread of the runtime, as the consumer does it.
    let freeing = tokio::spawn(async move {
        MemorySource::freeing(Pages { pages: WARM_UP_PAGES, ..PAGE });
        MemorySource::freeing(Pages { pages, ..PAGE })
    });
    let freeing = freeing.await?;

    let source = MemorySource::of(Pages { pages: WARM_UP_PAGES + pages, ..PAGE });
    let mapping = library::mapping();
    let running = Running::start(mapping, source.clone(), library::worker()?)?;
    source.asked.notified().await;
    source.start.notify_one();
    running.seen.reach(WARM_UP_PAGES * PAGE.records).await;
    let (watch, spent, before) = (Stopwatch::start(), source.spent(), running.seen.records());
    running.seen.reach((WARM_UP_PAGES + pages) * PAGE.records).await;
    let cpu = watch.lap().cpu.saturating_sub(source.spent().saturating_sub(spent));
    let records = running.seen.records() - before;
    running.stop().await?;
    Ok(Overhead { records, beyond_freeing: cpu.saturating_sub(freeing), freeing })
}
