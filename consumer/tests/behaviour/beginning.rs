//! What a run logs once: where it begins, and that the failures that a handler names are not read.

use std::time::Duration;

use shardmill::{Batch, BatchResponse, HandlerError, InvokeContext, StartingPosition};

use super::logs;
use super::support::{
    Seen, consumer, launch, leases, mapping, pass, put, sequence, store, stream, until, worker,
};

#[tokio::test(start_paused = true)]
async fn incident_99_a_second_start_says_that_it_resumes_and_that_another_starting_position_has_no_effect() {
    logs::collect();
    let (fake, store, seen) = (stream(2), store(), Seen::default());
    put(&fake, 20);
    let a = worker("a");
    let run = launch(consumer(&fake, &a, mapping(), seen.handler("a"), &store));
    until("all records", || seen.distinct() == 20).await;
    pass(Duration::from_secs(1)).await;
    run.stop().await;
    assert!(leases(&store).await.iter().all(|lease| sequence(&lease.checkpoint).is_some()));
    let said = |text: &str| logs::lines().iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        (said("INFO 2 shards begin at TRIM_HORIZON"), said("has no effect")),
        (1, 0),
        "{:?}",
        logs::lines()
    );

    let latest = mapping().starting_position(StartingPosition::Latest);
    let b = worker("b");
    let run = launch(consumer(&fake, &b, latest, seen.handler("b"), &store));
    until("the leases", || run.report().shards.len() == 2).await;
    pass(Duration::from_secs(60)).await;
    run.stop().await;
    assert_eq!(said("INFO 2 shards resume from checkpoints"), 1, "once a run: {:?}", logs::lines());
    let warnings: Vec<String> = logs::lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("StartingPosition is LATEST now and was TRIM_HORIZON"), "{warning}");
    assert_eq!(seen.len(), 20, "and it has none");
}

#[tokio::test(start_paused = true)]
async fn incident_103_a_handler_whose_failures_nobody_reads_is_told_once() {
    logs::collect();
    let (fake, seen) = (stream(1), Seen::default());
    put(&fake, 20);
    let a = worker("a");
    for (reads, expected) in [(false, 1), (true, 0)] {
        let (before, store) = (seen.len(), store());
        let noted = seen.clone();
        let handler = move |batch: Batch, cx: InvokeContext| {
            noted.note("a", &batch, &cx);
            let answer = BatchResponse::failed(["no such number"]);
            async move { Ok::<_, HandlerError>(answer) }
        };
        let before_lines = logs::lines().len();
        let of = mapping().batch_size(5).report_batch_item_failures(reads);
        let run = launch(consumer(&fake, &a, of, handler, &store));
        until("several batches", || seen.len() >= before + 15).await;
        run.stop().await;
        let said = logs::lines().split_off(before_lines);
        let said =
            said.iter().filter(|line| line.starts_with("WARN") && line.contains("does not read")).count();
        assert_eq!(said, expected, "reads: {reads}");
    }
}
