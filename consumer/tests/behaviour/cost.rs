//! What polling costs: the figures of docs/operations.md are counted here.

use std::time::Duration;

use shardmill_testkit::kinesis::Operation;
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis};

use crate::support::*;

const DAY: u64 = 86_400;
/// The doc's figures are rounded, and a window begins and ends between two reads.
const TOLERANCE: f64 = 0.04;

/// A row of the table: stream, shards, state, reads a day, what Lambda reads.
#[derive(Debug)]
struct Row {
    stream: String,
    shards: u32,
    is_busy: bool,
    reads: u64,
    of_lambda: u64,
}

fn table() -> Vec<Row> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let number = |cell: &str| cell.replace(',', "").parse::<u64>();
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [stream @ ("Kinesis" | "DynamoDB"), shards, state @ ("idle" | "busy"), reads, of_lambda, ..] =
                cells[..]
            else {
                return None;
            };
            Some(Row {
                stream: stream.to_owned(),
                shards: number(shards).unwrap().try_into().unwrap(),
                is_busy: state == "busy",
                reads: number(reads).unwrap(),
                of_lambda: number(of_lambda).unwrap(),
            })
        })
        .collect()
}

/// How long is counted: the more shards, the shorter. Idle DynamoDB shards are read every two seconds.
const fn window(shards: u32) -> Duration {
    Duration::from_secs(match shards {
        1 => 60,
        10 => 20,
        _ => 4,
    })
}

/// Records in a shard, on average, for reads of one record each.
const fn backlog(shards: u32) -> u32 {
    match shards {
        1 => 400,
        10 => 180,
        _ => 60,
    }
}

async fn reads_of_kinesis(row: &Row) -> u64 {
    let (fake, store, seen): (FakeKinesis, _, _) = (stream(row.shards), store(), Seen::default());
    if row.is_busy {
        for shard in fake.shards("orders").unwrap() {
            for _ in 0..backlog(row.shards) {
                fake.put_to_shard("orders", &shard.id, Some("key"), "record").unwrap();
            }
        }
    }
    let mapping = if row.is_busy { mapping().maximum_records(1) } else { mapping() };
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping, seen.handler("a"), &store));
    let count =
        counted(|| fake.calls().of(Operation::GetRecords).len(), || fake.clear_calls(), &run, row).await;
    run.stop().await;
    count
}

async fn reads_of_dynamodb(row: &Row) -> u64 {
    let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
    let arn = fake.create_table("orders", &["id"], row.shards).unwrap();
    if row.is_busy {
        put_items(&fake, 0..row.shards * backlog(row.shards));
    }
    let mapping = table_mapping(&arn);
    let mapping = if row.is_busy { mapping.maximum_records(1) } else { mapping };
    let a = worker("a");
    let run = launch(of_table_as(&fake, mapping, &a, seen.handler("a"), &store));
    let count =
        counted(|| fake.calls().of(Operation::GetRecords).len(), || fake.clear_calls(), &run, row).await;
    run.stop().await;
    count
}

async fn counted(reads: impl Fn() -> usize, clear: impl Fn(), run: &Running, row: &Row) -> u64 {
    let shards = usize::try_from(row.shards).unwrap();
    until("the leases", || run.report().shards.len() == shards).await;
    // Idle shards have slowed down by then.
    pass(Duration::from_secs(if row.is_busy { 1 } else { 10 })).await;
    clear();
    let window = window(row.shards);
    pass(window).await;
    u64::try_from(reads()).unwrap() * DAY / window.as_secs()
}

async fn check(stream: &str) {
    let rows: Vec<Row> = table().into_iter().filter(|row| row.stream == stream).collect();
    let listed: Vec<_> = rows.iter().map(|row| (row.is_busy, row.shards)).collect();
    let expected: Vec<_> =
        [false, true].into_iter().flat_map(|busy| [1, 10, 100, 1_000].map(|shards| (busy, shards))).collect();
    assert_eq!(listed, expected, "docs/operations.md has these rows");
    // Four polls a second and shard (R5).
    assert!(rows.iter().all(|row| row.of_lambda == 4 * DAY * u64::from(row.shards)), "{rows:?}");
    let mut per_shard = [0; 2];
    for row in rows {
        if row.shards == 1_000 {
            // Shards do not know of each other.
            assert_eq!(row.reads, 1_000 * per_shard[usize::from(row.is_busy)], "{row:?}");
            continue;
        }
        per_shard[usize::from(row.is_busy)] = row.reads / u64::from(row.shards);
        let counted =
            if stream == "Kinesis" { reads_of_kinesis(&row).await } else { reads_of_dynamodb(&row).await };
        let off = (counted as f64 - row.reads as f64).abs() / row.reads as f64;
        assert!(off <= TOLERANCE, "docs/operations.md says {row:?}, the fake counts {counted}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_reads_a_day_of_kinesis_in_the_operations_manual_are_what_the_fake_counts() {
    check("Kinesis").await;
}

#[tokio::test(start_paused = true)]
async fn the_reads_a_day_of_dynamodb_streams_in_the_operations_manual_are_what_the_fake_counts() {
    check("DynamoDB").await;
}
