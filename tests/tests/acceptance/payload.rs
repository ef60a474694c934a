//! The limit on a function's event: 6 MB, base64 and all (R3, R5, R24).

use shardmill_tests::{Plan, until};

use crate::case::{Case, Outcome, lines};
use crate::kinesis::{Kinesis, Told, line, masked};

const LIMIT: usize = 6_291_456;

async fn oversized(maximum_retry_attempts: u32, invocations: u32) {
    let kinesis = Kinesis::start().await;
    let big = "x".repeat(5 << 20);
    let case = kinesis.case(&[(0, "before"), (0, &big), (0, "after")]).await;
    let case = case.set("MaximumRetryAttempts", maximum_retry_attempts);
    let (config, records) = (case.config.clone(), kinesis.records(&case.stream));
    let told = Told { condition: "RetryAttemptsExhausted", invocations, error: None };
    let expected = line(&case.stream, &records[1..2], &told);
    let outcome = case.run(|_| Plan::success()).await;
    assert_eq!(outcome.trace, [[1], [3]], "the function never sees the record");
    assert_eq!(outcome.handled, [1, 3]);
    let lines: Vec<String> = lines(&config).iter().map(|line| masked(line)).collect();
    assert!(lines == [expected], "{:.600}", lines.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn r24_a_record_whose_event_exceeds_6_mb_is_never_seen_and_discarded_at_once_without_retries() {
    oversized(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r24_a_record_whose_event_exceeds_6_mb_spends_all_its_attempts_and_the_next_is_processed() {
    oversized(2, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r3c_a_batch_is_as_large_as_6_mb_of_event_permit_and_no_larger() {
    let kinesis = Kinesis::start().await;
    let data = "x".repeat(1 << 20);
    let case = kinesis.case(&[(0, data.as_str()); 13]).await;
    // The end of the shard closes the last batch, nothing else does: neither the window nor the buffer.
    kinesis.fake.split(case.stream.arn(), "shardId-000000000000").unwrap();
    let case = case.set("MaximumBatchingWindowInSeconds", 300).set("Polling.BufferBytes", 64 << 20);
    let outcome: Outcome = case.run_until(|_| Plan::success(), ended).await;
    let expected: [&[usize]; 4] = [&[1, 2, 3, 4], &[5, 6, 7, 8], &[9, 10, 11, 12], &[13]];
    assert_eq!(outcome.trace, expected, "R5: four of 1 MiB are 5.6 MB of base64, five are 7.0");
    let sizes: Vec<usize> = outcome.calls.iter().map(|call| call.event_bytes).collect();
    assert!(sizes.iter().all(|size| *size < LIMIT), "{sizes:?}");
    let record = sizes[3];
    assert!(sizes[..3].iter().all(|size| size + record > LIMIT), "one more would not have fitted: {sizes:?}");
}

/// Waits until the first shard was read to its end.
pub(crate) async fn ended(sidecar: &shardmill_tests::Sidecar, _: &shardmill_tests::Stream) {
    until("the shard is read to its end", async || {
        let leases = sidecar.store().leases();
        (leases.get("shardId-000000000000")?.checkpoint == "SHARD_END").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r24_a_program_that_reads_standard_input_has_no_limit() {
    let kinesis = Kinesis::start().await;
    let big = "x".repeat(5 << 20);
    let case: Case = kinesis.case(&[(0, &big)]).await;
    let case = case.set("Function", serde_json::json!({"Stdout": true})).set("MaximumRetryAttempts", 0);
    let (_, _, discarded) = case.finish().await;
    assert_eq!(discarded, [serde_json::Value::Null; 0]);
}
