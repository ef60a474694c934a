//! The library and a bare `GetRecords` loop of the SDK against the same server in a process of its own.

use std::path::Path;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use aws_sdk_kinesis::types::ShardIteratorType;
use shardmill::{AnswerEncoding, Connections, KinesisSource};

use crate::library::{self, Running, STREAM_ARN};
use crate::measure::{Bound, Fallible, Figure, Lap, Stopwatch};
use crate::{child_that_trusts, number, serving};

/// What is compared, in this order: the bare loop, the library in JSON, the library in CBOR.
const KINDS: usize = 3;

/// The figures of one way to the server, as they are called.
struct Names {
    /// What was asked for is a ratio over HTTP/1.1; TLS is shown beside it.
    is_bounded: bool,
    rate: [&'static str; 2],
    cpu: [&'static str; 2],
    bare: [&'static str; 2],
}

const HTTP: Names = Names {
    is_bounded: true,
    rate: ["(b) records/s, library in JSON ÷ bare loop", "(b) records/s, library in CBOR ÷ bare loop"],
    cpu: [
        "(b) client CPU per record, library in JSON ÷ bare loop",
        "(b) client CPU per record, library in CBOR ÷ bare loop",
    ],
    bare: ["(b) bare loop", "(b) bare loop, client CPU"],
};

const TLS: Names = Names {
    is_bounded: false,
    rate: [
        "(b) TLS: records/s, library in JSON ÷ bare loop",
        "(b) TLS: records/s, library in CBOR ÷ bare loop",
    ],
    cpu: [
        "(b) TLS: client CPU per record, library in JSON ÷ bare loop",
        "(b) TLS: client CPU per record, library in CBOR ÷ bare loop",
    ],
    bare: ["(b) TLS: bare loop", "(b) TLS: bare loop, client CPU"],
};

/// Everything over HTTP/1.1 and over TLS with HTTP/2, in the same run.
pub(crate) fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let certificate = folder.path().join("certificate.pem");
    let (_http, http) = serving(&[])?;
    let (_tls, tls) = serving(&["--tls", &certificate.display().to_string()])?;
    let (mut over_http, mut over_tls) = (Laps::default(), Laps::default());
    for run in 0..runs {
        over_http.measure(run, &http, None)?;
        over_tls.measure(run, &tls, Some(&certificate))?;
    }
    let mut figures = over_http.figures(&HTTP);
    figures.extend(over_tls.figures(&TLS));
    Ok(figures)
}

/// Wall and CPU time per record of every run of each kind.
#[derive(Default)]
struct Laps([Vec<(f64, f64)>; KINDS]);

impl Laps {
    fn measure(&mut self, run: usize, endpoint: &str, certificate: Option<&Path>) -> Fallible<()> {
        let kinds: [&[&str]; KINDS] =
            [&["run-bare", endpoint], &["run-library", endpoint, "json"], &["run-library", endpoint, "cbor"]];
        // The order rotates, so that a machine that slows down slows all.
        for kind in (0..KINDS).map(|kind| (kind + run) % KINDS) {
            let lap = child_that_trusts(kinds[kind], certificate)?;
            self.0[kind].push((number(&lap, "wall")?, number(&lap, "cpu")?));
        }
        Ok(())
    }

    fn figures(&self, names: &Names) -> Vec<Figure> {
        let [bare, json, cbor] = &self.0;
        let rate =
            |library: &[(f64, f64)]| bare.iter().zip(library).map(|(bare, own)| bare.0 / own.0).collect();
        let cpu =
            |library: &[(f64, f64)]| bare.iter().zip(library).map(|(bare, own)| own.1 / bare.1).collect();
        let bound = |bound| if names.is_bounded { bound } else { Bound::None };
        let rate_bound = bound(Bound::AtLeast { goal: 0.95, floor: 0.8 });
        let ratio = |name, samples, bound| Figure { name, unit: "ratio", samples, bound };
        let alone = |name, unit, samples| Figure { name, unit, samples, bound: Bound::None };
        vec![
            ratio(names.rate[0], rate(json), rate_bound),
            ratio(names.rate[1], rate(cbor), rate_bound),
            ratio(names.cpu[0], cpu(json), bound(Bound::AtMost { goal: 0.35, floor: 0.5 })),
            ratio(names.cpu[1], cpu(cbor), bound(Bound::AtMost { goal: 0.2, floor: 0.3 })),
            alone(names.bare[0], "records/s", bare.iter().map(|bare| 1e9 / bare.0).collect()),
            alone(names.bare[1], "ns/record", bare.iter().map(|bare| bare.1).collect()),
        ]
    }
}

/// The configuration of both clients: no retries, bounded calls, no second watcher over bodies.
pub(crate) fn sdk_config(endpoint: &str) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(30));
    let credentials = Credentials::new("test", "test", None, None, "bench");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// Reads `records` after `warm_up` with the library, whose answers come in an encoding.
pub(crate) async fn library(
    endpoint: &str,
    encoding: AnswerEncoding,
    warm_up: u64,
    records: u64,
) -> Fallible<(u64, Lap)> {
    let worker = library::worker()?;
    let connections = Connections::for_reads(1).http_client();
    let config = sdk_config(endpoint).into_builder().http_client(connections).build();
    let source = KinesisSource::new(&config, STREAM_ARN)?;
    let mapping = library::mapping().answer_encoding(encoding);
    let running = Running::start(mapping, source, worker)?;
    running.seen.reach(warm_up).await;
    let (watch, before) = (Stopwatch::start(), running.seen.records());
    running.seen.reach(before + records).await;
    let (lap, after) = (watch.lap(), running.seen.records());
    running.stop().await?;
    Ok((after - before, lap))
}

/// Reads `records` after `warm_up` with nothing but the SDK, and drops each page.
pub(crate) async fn bare(endpoint: &str, warm_up: u64, records: u64) -> Fallible<(u64, Lap)> {
    let client = Client::new(&sdk_config(endpoint));
    let opened = client
        .get_shard_iterator()
        .stream_arn(STREAM_ARN)
        .shard_id("shardId-000000000000")
        .shard_iterator_type(ShardIteratorType::TrimHorizon)
        .send()
        .await?;
    // A task of the runtime, as a shard of the library is.
    let reading = tokio::spawn(async move {
        let mut iterator = opened.shard_iterator;
        let (mut read, mut watch) = (0, None::<(Stopwatch, u64)>);
        loop {
            let page = client
                .get_records()
                .set_shard_iterator(iterator)
                .limit(10_000)
                .stream_arn(STREAM_ARN)
                .send()
                .await?;
            read += page.records.len() as u64;
            iterator = page.next_shard_iterator;
            match watch {
                None if read >= warm_up => watch = Some((Stopwatch::start(), read)),
                Some((watch, before)) if read >= before + records => {
                    return Ok::<_, aws_sdk_kinesis::Error>((read - before, watch.lap()));
                }
                _ => {}
            }
        }
    });
    Ok(reading.await??)
}
