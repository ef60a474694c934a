//! What a poll of a shard without records costs the sidecar, beside another build of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::fake::Fake;
use crate::many::opened;
use crate::measure::{Bound, Fallible, Figure, cpu_of};
use crate::sidecar::{Sidecar, sibling};

/// Few enough that each is polled once a second.
const SHARDS: u64 = 500;
const SETTLE: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// CPU time a poll of this build's sidecar, compared with that of `other`, in alternating order.
pub(crate) async fn figures(other: &Path, runs: usize) -> Fallible<Vec<Figure>> {
    let builds: [PathBuf; 2] = [other.to_owned(), sibling("shardmill")?];
    let mut cost = [Vec::new(), Vec::new()];
    for run in 0..runs {
        for build in [run % 2, 1 - run % 2] {
            cost[build].push(poll(&builds[build]).await?);
        }
    }
    let [theirs, ours] = cost;
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    let bound = Bound::AtMost { goal: 0.45, floor: 0.65 };
    let shown = |name, samples| Figure { name, unit: "µs CPU", samples, bound: Bound::None };
    Ok(vec![
        Figure { name: "CPU per idle poll, this build ÷ the other", unit: "ratio", samples: ratios, bound },
        shown("the other build", theirs),
        shown("this build", ours),
    ])
}

/// Microseconds of CPU time a poll, all that the process does included.
async fn poll(binary: &Path) -> Fallible<f64> {
    let fake = Fake::start()?;
    fake.command("kinesis/create-stream", &json!({"stream": "bench", "shards": SHARDS}))?;
    let sidecar = Sidecar::of_build(binary, &fake.url).await?;
    opened(&fake, SHARDS, PATIENCE).await?;
    tokio::time::sleep(SETTLE).await;
    let (cpu, reads) = (cpu_of(sidecar.pid())?, fake.calls("GetRecords")?);
    tokio::time::sleep(WINDOW).await;
    let (cpu, reads) = (cpu_of(sidecar.pid())? - cpu, fake.calls("GetRecords")? - reads);
    if reads == 0 {
        return Err("no shard was polled".into());
    }
    Ok(cpu.as_secs_f64() * 1e6 / reads as f64)
}
