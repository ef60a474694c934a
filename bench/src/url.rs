//! The sidecar with a function that does nothing, beside a bare `GetRecords` loop of the SDK on the same server.

use std::time::{Duration, Instant};

use crate::measure::{Bound, Fallible, Figure, cpu_of};
use crate::sidecar::Sidecar;
use crate::{child, number, serving};

/// A shard gives 2 MiB a second, so it takes many to keep a core at work.
const SHARDS: &str = "100";
const WARM_UP_RECORDS: u64 = 200_000;
const RECORDS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// CPU time of the sidecar a record, in all, compared with the loop's.
pub(crate) async fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let (_server, endpoint) = serving(&["--shards", SHARDS])?;
    let (mut ratios, mut costs, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let bare = number(&child(&["run-bare", &endpoint])?, "cpu")?;
        let (cost, rate) = sidecar(&endpoint).await?;
        ratios.push(cost / bare);
        costs.push(cost);
        rates.push(rate);
    }
    let bound = Bound::AtMost { goal: 0.6, floor: 0.9 };
    let shown = |name, unit, samples| Figure { name, unit, samples, bound: Bound::None };
    let name = "CPU per record, sidecar with a URL ÷ bare loop";
    Ok(vec![
        Figure { name, unit: "ratio", samples: ratios, bound },
        shown("sidecar with a URL, 100 shards", "ns/record", costs),
        shown("its rate", "records/s", rates),
    ])
}

/// Nanoseconds of CPU time a record, and records a second.
async fn sidecar(endpoint: &str) -> Fallible<(f64, f64)> {
    let settings = "Worker: {MaximumConcurrentReads: 16, BufferBytes: 134217728}\n";
    let sidecar = Sidecar::start(endpoint, settings).await?;
    let before = reach(&sidecar, WARM_UP_RECORDS).await?;
    let (cpu, began) = (cpu_of(sidecar.pid())?, Instant::now());
    let after = reach(&sidecar, before + RECORDS).await?;
    let (cpu, took, records) = (cpu_of(sidecar.pid())? - cpu, began.elapsed(), (after - before) as f64);
    Ok((cpu.as_secs_f64() * 1e9 / records, records / took.as_secs_f64()))
}

/// Waits until the function got so many records; how many it has.
async fn reach(sidecar: &Sidecar, records: u64) -> Fallible<u64> {
    let began = Instant::now();
    while sidecar.records() < records {
        if began.elapsed() > PATIENCE {
            return Err(format!("after {PATIENCE:?} the function has {} records", sidecar.records()).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(sidecar.records())
}
