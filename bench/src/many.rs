//! Thousands of shards in one sidecar, the fake in another process: memory, CPU, and what discovery has of it.

use std::time::{Duration, Instant};

use serde_json::json;
use shardmill::checkpoint::SqliteStore;
use shardmill::{KinesisSource, Worker, WorkerOptions};

use crate::fake::Fake;
use crate::library::{self, Running, STREAM_ARN};
use crate::measure::{Bound, Fallible, Figure, Stopwatch, cpu_of, resident_bytes};
use crate::sidecar::Sidecar;
use crate::throughput::sdk_config;

pub(crate) const IDLE_SHARDS: u64 = 10_000;
const BUSY_SHARDS: u64 = 2_000;
/// What every busy shard has to catch up with.
const BACKLOG: u64 = 2_000;
const BUDGET: u64 = 128 << 20;
/// Shards that catch up together, and what each has to catch up with.
const TOGETHER: u64 = 300;
const LONG_BACKLOG: u64 = 10_000;
/// Everything that is waited for happens within this.
const PATIENCE: Duration = Duration::from_secs(300);
const WINDOW: Duration = Duration::from_secs(60);

/// 10,000 idle shards, polled as the sidecar does without settings.
pub(crate) async fn idle(runs: usize) -> Fallible<Vec<Figure>> {
    let (mut megabytes, mut cpu, mut reads, mut share) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let fake = Fake::start()?;
        fake.command("kinesis/create-stream", &json!({"stream": "bench", "shards": IDLE_SHARDS}))?;
        let sidecar = Sidecar::start(&fake.url, "").await?;
        opened(&fake, IDLE_SHARDS, PATIENCE).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (reads_before, cpu_before, began) =
            (fake.calls("GetRecords")?, cpu_of(sidecar.pid())?, Instant::now());
        tokio::time::sleep(WINDOW).await;
        let took = began.elapsed().as_secs_f64();
        let spent = (cpu_of(sidecar.pid())? - cpu_before).as_secs_f64();
        megabytes.push(resident_bytes(&sidecar.pid().to_string())? as f64 / 1e6);
        cpu.push(spent / took * 100.0);
        reads.push((fake.calls("GetRecords")? - reads_before) as f64 / took);
        drop(sidecar);
        let discovery = crate::child(&["run-discovery", &fake.url])?;
        let per_second = crate::number(&discovery, "milliseconds")? / 1e3 / 30.0;
        share.push(per_second / (spent / took) * 100.0);
    }
    let bound = Bound::AtMost { goal: 400.0, floor: 800.0 };
    let shown = |name, unit, samples| Figure { name, unit, samples, bound: Bound::None };
    Ok(vec![
        Figure { name: "RSS of the sidecar, 10,000 idle shards", unit: "MB", samples: megabytes, bound },
        shown("its CPU", "% of a core", cpu),
        shown("its reads", "GetRecords/s", reads),
        shown("discovery's share of that CPU", "%", share),
    ])
}

/// CPU time that one discovery of a stream that has not changed costs: the library with its leases in SQLite, discovering
/// all the time, compared with one that hardly ever discovers; polled as rarely as possible, so that little else
/// happens.
pub(crate) async fn discovery(endpoint: &str) -> Fallible<f64> {
    const OFTEN: Duration = Duration::from_millis(500);
    let folder = tempfile::tempdir()?;
    let mut rates = Vec::new();
    for interval in [Duration::from_secs(3600), OFTEN] {
        let worker = Worker::start(WorkerOptions::default().lease(Duration::from_secs(3600)))?;
        let source = KinesisSource::new(&sdk_config(endpoint), STREAM_ARN)?;
        let mapping = library::mapping()
            .idle_interval(Duration::from_millis(60_000))
            .maximum_idle_interval(Duration::from_millis(60_000));
        let name = format!("{}.db", interval.as_millis());
        let mapping = mapping.build()?;
        let store = SqliteStore::open(folder.path().join(name), mapping.application_name())?;
        let running = Running::with_store(mapping, source, worker, store, interval)?;
        // All leases are taken and every shard was read once.
        tokio::time::sleep(Duration::from_secs(45)).await;
        let watch = Stopwatch::start();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let lap = watch.lap();
        rates.push(lap.cpu.as_secs_f64() / lap.wall.as_secs_f64());
        running.stop().await?;
    }
    Ok((rates[1] - rates[0]).max(0.0) * OFTEN.as_secs_f64() * 1e3)
}

/// 2,000 shards with a backlog, all of them read at once within a budget of 128 MiB.
pub(crate) async fn catching_up(runs: usize) -> Fallible<Vec<Figure>> {
    let (mut megabytes, mut rate) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let fake = Fake::start()?;
        fake.command("kinesis/create-stream", &json!({"stream": "bench", "shards": BUSY_SHARDS}))?;
        fake.command("kinesis/fill", &json!({"stream": "bench", "records": BACKLOG, "bytes": 1_024}))?;
        let sidecar = Sidecar::start(&fake.url, &format!("Worker: {{BufferBytes: {BUDGET}}}\n")).await?;
        let began = Instant::now();
        let (mut highest, mut handled) = (0, 0);
        while began.elapsed() < PATIENCE && handled < BUSY_SHARDS * BACKLOG {
            tokio::time::sleep(Duration::from_millis(200)).await;
            highest = highest.max(resident_bytes(&sidecar.pid().to_string())?);
            handled = sidecar.records();
            if began.elapsed() > WINDOW && handled > BUSY_SHARDS * BACKLOG / 4 {
                break;
            }
        }
        megabytes.push(highest as f64 / 1e6);
        rate.push(handled as f64 / began.elapsed().as_secs_f64());
    }
    let bound = Bound::AtMost { goal: 200.0, floor: 300.0 };
    Ok(vec![
        Figure {
            name: "highest RSS of the sidecar, 2,000 shards catching up, budget 128 MiB",
            unit: "MB",
            samples: megabytes,
            bound,
        },
        Figure { name: "their records", unit: "records/s", samples: rate, bound: Bound::None },
    ])
}

/// The library with 300 shards that catch up together, the fake in another process.
pub(crate) async fn busy(runs: usize) -> Fallible<Vec<Figure>> {
    let mut figures = Vec::new();
    for (budget, names) in [
        (512_u64 << 20, ["RSS ÷ budget, 300 shards, 512 MiB", "its reads", "its pages", "its CPU"]),
        (128 << 20, ["RSS ÷ budget, 300 shards, 128 MiB", "its reads", "its pages", "its CPU"]),
    ] {
        let mut samples = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..runs {
            let fake = Fake::start()?;
            fake.command("kinesis/create-stream", &json!({"stream": "bench", "shards": TOGETHER}))?;
            fake.command(
                "kinesis/fill",
                &json!({"stream": "bench", "records": LONG_BACKLOG, "bytes": 1_024}),
            )?;
            let found = crate::child(&["run-catching-up", &fake.url, &budget.to_string()])?;
            let (records, seconds) = (crate::number(&found, "records")?, crate::number(&found, "seconds")?);
            let calls = fake.calls("GetRecords")? as f64;
            samples[0].push(crate::number(&found, "bytes")? / budget as f64);
            samples[1].push(calls / seconds / TOGETHER as f64);
            samples[2].push(records / calls);
            samples[3].push(crate::number(&found, "cpu")? * 1e9 / records);
        }
        let units = ["ratio", "GetRecords/s and shard", "records", "ns/record"];
        let shown = names.into_iter().zip(units).zip(samples);
        figures.extend(shown.map(|((name, unit), samples)| Figure {
            name,
            unit,
            samples,
            bound: Bound::None,
        }));
    }
    Ok(figures)
}

/// Reads the backlog, or as much of it as a minute permits: records, seconds, the highest resident memory, and CPU
/// seconds.
pub(crate) async fn catch_up(endpoint: &str, budget: usize) -> Fallible<serde_json::Value> {
    let worker = Worker::start(WorkerOptions::default().buffer_bytes(budget))?;
    let source = KinesisSource::new(&sdk_config(endpoint), STREAM_ARN)?;
    let watch = Stopwatch::start();
    let running = Running::start(library::mapping(), source, worker)?;
    let mut highest = 0;
    while watch.lap().wall < WINDOW && running.seen.records() < TOGETHER * LONG_BACKLOG {
        tokio::time::sleep(Duration::from_millis(100)).await;
        highest = highest.max(resident_bytes("self")?);
    }
    let (lap, records) = (watch.lap(), running.seen.records());
    running.stop().await?;
    let (seconds, cpu) = (lap.wall.as_secs_f64(), lap.cpu.as_secs_f64());
    Ok(json!({ "records": records, "seconds": seconds, "bytes": highest, "cpu": cpu }))
}

/// Waits until every shard was opened.
pub(crate) async fn opened(fake: &Fake, shards: u64, patience: Duration) -> Fallible<()> {
    let began = Instant::now();
    while fake.calls("GetShardIterator")? < shards {
        if began.elapsed() > patience {
            return Err(format!("after {patience:?} not all of {shards} shards were opened").into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
