//! Benchmarks: what Shardmill costs in addition to unavoidable work. See docs/benchmarks.md.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use shardmill::AnswerEncoding;
use shardmill_testkit::pages::{Options, PageServer};

use measure::{Bound, Fallible, Figure, Lap, ns_per, print_table};
use overhead::Overhead;

mod dynamodb;
mod engine;
mod fake;
mod filter;
mod idle;
mod idle_poll;
mod library;
mod many;
mod measure;
mod memory_source;
mod overhead;
mod peer;
mod renewals;
mod sidecar;
mod throughput;
mod url;
mod waiting;

const USAGE: &str = "\
cargo run --release -p shardmill-bench -- BENCHMARK [RUNS]
  engine         the engine alone, ns per record, and events written, GB/s
  overhead       engine and driver with a stream in memory, ns per record
  throughput     the library in JSON and CBOR compared with a bare GetRecords loop, interleaved,
                 over HTTP/1.1 and over TLS with HTTP/2
  sidecar        resident memory of `shardmill run` with 4 idle shards
  idle-shards    resident memory per idle shard of the library
  filter         filter patterns over 1 KB records, ns per record
  dynamodb       DynamoDB records to events, compared with the SDK's own decoding
  many-idle      memory and CPU of `shardmill run` with 10,000 idle shards
  idle-poll OTHER [RUNS]
                 CPU of `shardmill run` per poll of an idle shard, compared with another build's binary
  catching-up    memory of `shardmill run` with 2,000 shards that have a backlog
  busy           memory, reads and CPU of the library with 300 shards that catch up together
  renewals       heartbeats while every handler blocks its thread
  url            CPU of `shardmill run` with a URL per record, compared with a bare GetRecords loop
  waiting        CPU of `shardmill run` per invocation while 100 and 6,000 shards wait for a function
  startup        from the start of `shardmill run` to its first invocation
  all            all of these but `idle-poll`
Each prints a table of medians over RUNS runs. `sidecar`, `startup`, `many-idle`, `idle-poll`,
`catching-up`, `busy`, `url` and `waiting` need `cargo build --release --workspace --bins` before.";

/// Pages of 2,000 records of 1 KB that the overhead benchmark measures.
const OVERHEAD_PAGES: u64 = 200;
const WARM_UP_RECORDS: u64 = 40_000;
const RECORDS: u64 = 400_000;
const IDLE_SHARDS: usize = 1_000;
const SETTLE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[String]) -> Fallible<()> {
    let (name, rest) = args.split_first().ok_or(USAGE)?;
    let runs = |default: usize| match rest.first() {
        Some(text) => text.parse::<usize>().map_err(|_| USAGE),
        None => Ok(default),
    };
    match name.as_str() {
        // Each run is a process of its own, started by the benchmarks below.
        "run-overhead" => print_overhead(overhead::run(OVERHEAD_PAGES).await?),
        "run-library" => {
            let encoding = encoding(rest)?;
            print_lap(throughput::library(argument(rest)?, encoding, WARM_UP_RECORDS, RECORDS).await?);
        }
        "run-bare" => print_lap(throughput::bare(argument(rest)?, WARM_UP_RECORDS, RECORDS).await?),
        "run-idle-shards" => println!("{}", json!({ "bytes": idle::run(IDLE_SHARDS, SETTLE).await? })),
        "run-discovery" => {
            println!("{}", json!({ "milliseconds": many::discovery(argument(rest)?).await? }));
        }
        "run-catching-up" => {
            let budget = rest.get(1).ok_or(USAGE)?.parse()?;
            println!("{}", many::catch_up(argument(rest)?, budget).await?);
        }
        // These run until they are stopped, for bench/peers.
        "count-bare" => peer::bare(argument(rest)?).await?,
        "count-library" => peer::library(argument(rest)?, encoding(rest)?).await?,
        "count-function" => peer::function().await?,
        // With TLS it has a runtime of its own.
        "serve" => tokio::task::block_in_place(|| serve(rest))?,
        "engine" => print_table(&engine::figures(runs(15)?)?),
        "overhead" => print_table(&overhead_figures(runs(15)?)?),
        "throughput" => print_table(&throughput::figures(runs(15)?)?),
        "sidecar" => print_table(&sidecar_figures(runs(3)?).await?),
        "idle-shards" => print_table(&idle_figures(runs(3)?)?),
        "filter" => print_table(&filter::figures(runs(15)?)?),
        "startup" => print_table(&startup_figures(runs(15)?).await?),
        "dynamodb" => print_table(&dynamodb::figures(runs(15)?)?),
        "many-idle" => print_table(&many::idle(runs(1)?).await?),
        "idle-poll" => {
            let runs = rest.get(1).map_or(Ok(5), |text| text.parse()).map_err(|_| USAGE)?;
            print_table(&idle_poll::figures(Path::new(argument(rest)?), runs).await?);
        }
        "catching-up" => print_table(&many::catching_up(runs(3)?).await?),
        "renewals" => print_table(&renewals::figures(runs(5)?)?),
        "busy" => print_table(&many::busy(runs(3)?).await?),
        "url" => print_table(&url::figures(runs(5)?).await?),
        "waiting" => print_table(&waiting::figures(runs(3)?).await?),
        "all" => print_table(&all().await?),
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

/// Every benchmark, one after the other.
async fn all() -> Fallible<Vec<Figure>> {
    let mut figures = engine::figures(15)?;
    figures.extend(overhead_figures(15)?);
    figures.extend(throughput::figures(15)?);
    figures.extend(sidecar_figures(3).await?);
    figures.extend(idle_figures(3)?);
    figures.extend(startup_figures(15).await?);
    figures.extend(filter::figures(15)?);
    figures.extend(dynamodb::figures(15)?);
    figures.extend(many::idle(1).await?);
    figures.extend(many::catching_up(3).await?);
    figures.extend(many::busy(3).await?);
    figures.extend(renewals::figures(5)?);
    figures.extend(url::figures(5).await?);
    figures.extend(waiting::figures(3).await?);
    Ok(figures)
}

fn argument(rest: &[String]) -> Fallible<&str> {
    Ok(rest.first().ok_or(USAGE)?)
}

fn encoding(rest: &[String]) -> Fallible<AnswerEncoding> {
    match rest.get(1).map(String::as_str) {
        Some("json") => Ok(AnswerEncoding::Json),
        Some("cbor") => Ok(AnswerEncoding::Cbor),
        _ => Err(USAGE.into()),
    }
}

fn print_lap((records, lap): (u64, Lap)) {
    let (wall, cpu) = (ns_per(lap.wall, records), ns_per(lap.cpu, records));
    println!("{}", json!({ "wall": wall, "cpu": cpu }));
}

fn print_overhead(found: Overhead) {
    let ns = |time| ns_per(time, found.records);
    println!("{}", json!({ "overhead": ns(found.beyond_freeing), "freeing": ns(found.freeing) }));
}

/// Runs this program again and reads the JSON that it prints.
fn child(args: &[&str]) -> Fallible<Value> {
    child_that_trusts(args, None)
}

/// The same, trusting the certificate in a file instead of the host's.
fn child_that_trusts(args: &[&str], certificate: Option<&Path>) -> Fallible<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(certificate) = certificate {
        command.env("SSL_CERT_FILE", certificate);
    }
    let output = command.args(args).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{args:?} failed: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn number(value: &Value, name: &str) -> Fallible<f64> {
    Ok(value[name].as_f64().ok_or_else(|| format!("no {name} in {value}"))?)
}

fn overhead_figures(runs: usize) -> Fallible<Vec<Figure>> {
    let (mut overhead, mut freeing) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let found = child(&["run-overhead"])?;
        overhead.push(number(&found, "overhead")?);
        freeing.push(number(&found, "freeing")?);
    }
    let bound = Bound::AtMost { goal: 100.0, floor: 300.0 };
    Ok(vec![
        Figure {
            name: "(a) engine, driver and lease keeper, CPU time",
            unit: "ns/record",
            samples: overhead,
            bound,
        },
        Figure {
            name: "(a) in addition, freeing the records",
            unit: "ns/record",
            samples: freeing,
            bound: Bound::None,
        },
    ])
}

async fn sidecar_figures(runs: usize) -> Fallible<Vec<Figure>> {
    let (_server, endpoint) = serving(&["--shards", "4", "--pages", "0"])?;
    let mut megabytes = Vec::new();
    for _ in 0..runs {
        megabytes.push(sidecar::resident(&endpoint, SETTLE).await? as f64 / 1e6);
    }
    let bound = Bound::AtMost { goal: 25.0, floor: 40.0 };
    Ok(vec![Figure { name: "(c) RSS of the sidecar, 4 idle shards", unit: "MB", samples: megabytes, bound }])
}

fn idle_figures(runs: usize) -> Fallible<Vec<Figure>> {
    let mut kilobytes = Vec::new();
    for _ in 0..runs {
        kilobytes.push(number(&child(&["run-idle-shards"])?, "bytes")? / 1e3);
    }
    let bound = Bound::AtMost { goal: 40.0, floor: 100.0 };
    Ok(vec![Figure { name: "(d) RSS per idle shard, 1,000 shards", unit: "KB", samples: kilobytes, bound }])
}

async fn startup_figures(runs: usize) -> Fallible<Vec<Figure>> {
    let emulator = sidecar::Emulator::start().await?;
    let (mut total, mut beyond) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let startup = sidecar::startup(&emulator).await?;
        total.push(startup.total.as_secs_f64() * 1e3);
        beyond.push(startup.total.saturating_sub(startup.api).as_secs_f64() * 1e3);
    }
    let bound = Bound::AtMost { goal: 150.0, floor: 150.0 };
    Ok(vec![
        Figure {
            name: "(e) start to first invocation, beyond the API calls",
            unit: "ms",
            samples: beyond,
            bound,
        },
        Figure { name: "(e) start to first invocation", unit: "ms", samples: total, bound: Bound::None },
    ])
}

fn serve(options: &[String]) -> Fallible<()> {
    let server = PageServer::bind(Options::parse(options.iter().cloned())?)?;
    println!("{}", server.url()?);
    Ok(server.run()?)
}

/// A server of prepared pages in a process of its own, and its address.
fn serving(options: &[&str]) -> Fallible<(sidecar::Running, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut server = command.arg("serve").args(options).stdout(Stdio::piped()).spawn()?;
    let stdout = server.stdout.take().ok_or("the server has no output")?;
    let server = sidecar::Running(server);
    let mut url = String::new();
    BufReader::new(stdout).read_line(&mut url)?;
    Ok((server, url.trim().to_owned()))
}
