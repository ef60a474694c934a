//! Shards whose batches wait for a place of a function: what an invocation costs when few or thousands wait.

use std::time::Duration;

use serde_json::json;

use crate::fake::Fake;
use crate::many::opened;
use crate::measure::{Bound, Fallible, Figure, cpu_of};
use crate::sidecar::Sidecar;

/// A few shards, and thousands, that share the same places.
const SHARDS: [u64; 2] = [100, 6_000];
const FUNCTION: &str = "MaximumConcurrency: 8";
const WARM_UP: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);

/// How shards wait.
struct Case {
    /// Ratio, a few shards, thousands.
    names: [&'static str; 3],
    /// How long the function takes.
    takes: Duration,
    record_bytes: u64,
    /// Records of all shards together: more than the function is given within the time.
    backlog: u64,
    settings: &'static str,
    bound: Bound,
}

const CASES: [Case; 3] = [
    Case {
        names: [
            "20 ms, waiting for a place: an invocation, 6,000 shards ÷ 100",
            "the same, 100 shards",
            "the same, 6,000 shards",
        ],
        takes: Duration::from_millis(20),
        record_bytes: 1 << 10,
        backlog: 120_000,
        settings: "BatchSize: 1\n",
        bound: Bound::AtMost { goal: 1.5, floor: 1.5 },
    },
    Case {
        names: [
            "20 ms, waiting for room as well: an invocation, 6,000 shards ÷ 100",
            "the same, 100 shards",
            "the same, 6,000 shards",
        ],
        takes: Duration::from_millis(20),
        record_bytes: 20_000,
        backlog: 60_000,
        settings: "BatchSize: 1\nWorker: {BufferBytes: 16777216}\n",
        bound: Bound::AtMost { goal: 1.5, floor: 1.5 },
    },
    Case {
        names: [
            "no time, waiting for a place: an invocation, 6,000 shards ÷ 100",
            "the same, 100 shards",
            "the same, 6,000 shards",
        ],
        takes: Duration::ZERO,
        record_bytes: 1 << 10,
        backlog: 600_000,
        settings: "BatchSize: 1\n",
        bound: Bound::None,
    },
];

/// CPU time an invocation, with 6,000 shards that wait for 8 places, compared with 100.
pub(crate) async fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let mut figures = Vec::new();
    for case in &CASES {
        let mut cost = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            for (shards, cost) in SHARDS.into_iter().zip(&mut cost) {
                cost.push(case.of(shards).await?);
            }
        }
        let ratios = cost[1].iter().zip(&cost[0]).map(|(many, few)| many / few).collect();
        let [few, many] = cost;
        let shown = |name, samples| Figure { name, unit: "µs CPU", samples, bound: Bound::None };
        let [ratio, of_few, of_many] = case.names;
        figures.push(Figure { name: ratio, unit: "ratio", samples: ratios, bound: case.bound });
        figures.extend([shown(of_few, few), shown(of_many, many)]);
    }
    Ok(figures)
}

impl Case {
    /// Microseconds of the sidecar's CPU time an invocation.
    async fn of(&self, shards: u64) -> Fallible<f64> {
        let fake = Fake::start()?;
        fake.command("kinesis/create-stream", &json!({"stream": "bench", "shards": shards}))?;
        let (records, bytes) = (self.backlog / shards, self.record_bytes);
        fake.command("kinesis/fill", &json!({"stream": "bench", "records": records, "bytes": bytes}))?;
        let sidecar = Sidecar::with_function(&fake.url, self.takes, FUNCTION, self.settings).await?;
        opened(&fake, shards, PATIENCE).await?;
        tokio::time::sleep(WARM_UP).await;
        let (cpu, records) = (cpu_of(sidecar.pid())?, sidecar.records());
        tokio::time::sleep(WINDOW).await;
        let (cpu, records) = (cpu_of(sidecar.pid())? - cpu, sidecar.records() - records);
        if records == 0 {
            return Err("the function was not invoked".into());
        }
        Ok(cpu.as_secs_f64() * 1e6 / records as f64)
    }
}
