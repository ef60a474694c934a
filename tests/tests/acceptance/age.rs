//! MaximumRecordAgeInSeconds by the service's clock (R26 to R31).

use shardmill_tests::{Function, Plan, Sidecar, until};

use crate::case::{Case, lines, resolved};
use crate::kinesis::{Kinesis, Told, line, masked};
use crate::retries::fails_on;

/// Seconds. Long enough that no machine makes fresh records wait for so long.
const MAXIMUM: i64 = 600;
/// Milliseconds by which the service's clock moves on, so that what was fresh is too old.
const MOVED: i64 = (MAXIMUM + 1) * 1000;

/// How the discards of these runs of records (by place, from 1 on) are told, each expired before it was invoked.
fn expired(kinesis: &Kinesis, case: &Case, runs: &[std::ops::RangeInclusive<usize>]) -> Vec<String> {
    let records = kinesis.records(&case.stream);
    let told = Told { condition: "RecordAgeExceeded", invocations: 1, error: None };
    runs.iter().map(|run| line(&case.stream, &records[run.start() - 1..*run.end()], &told)).collect()
}

fn masked_lines(config: &shardmill_tests::Config) -> Vec<String> {
    lines(config).iter().map(|line| masked(line)).collect()
}

/// R27
#[tokio::test(flavor = "multi_thread")]
async fn test_kinesis_maximum_record_age_exceeded_discard_records() {
    let kinesis = Kinesis::start().await;
    let records = [(MAXIMUM + 20, "1"), (0, "2"), (0, "3"), (0, "4"), (0, "5"), (0, "6")];
    let case = kinesis.case(&records).await;
    let case = case.set("BatchSize", 10).set("MaximumRecordAgeInSeconds", MAXIMUM);
    let (config, expected) = (case.config.clone(), expired(&kinesis, &case, &[1..=1]));
    let outcome = case.run(|_| Plan::success()).await;
    assert_eq!(outcome.trace, [[2, 3, 4, 5, 6]]);
    assert_eq!(masked_lines(&config), expected);
    assert_ne!(outcome.discarded[0]["requestContext"]["requestId"], outcome.request_ids[0].as_str());
}

mod test_kinesis_maximum_record_age_exceeded {
    use super::*;

    /// R28: the record becomes too old between two attempts, of which there is no other limit.
    #[tokio::test(flavor = "multi_thread")]
    async fn expire_while_retrying() {
        let kinesis = Kinesis::start().await;
        let case = kinesis.case(&[(0, "record")]).await.set("MaximumRecordAgeInSeconds", MAXIMUM);
        let (config, stream) = (case.config.clone(), case.stream.arn().to_owned());
        let fake = kinesis.fake.clone();
        let outcome = case
            .run(move |call| {
                if call.number == 3 {
                    fake.set_clock_offset(MOVED);
                }
                Plan::failure()
            })
            .await;
        assert!(outcome.trace.len() >= 3, "{:?}", outcome.trace);
        outcome.assert_request_ids();
        let text = masked_lines(&config);
        assert_eq!(text.len(), 1, "{text:#?}");
        assert!(
            text[0].contains(r#""condition":"RecordAgeExceeded""#) && !text[0].contains("responseContext")
        );
        let request = &outcome.discarded[0]["requestContext"];
        assert_eq!(request["approximateInvokeCount"], outcome.trace.len(), "as often as it was invoked");
        assert_eq!(request["requestId"], outcome.request_ids[0].as_str());
        assert_eq!(outcome.discarded[0]["KinesisBatchInfo"]["streamArn"], stream);
        assert_eq!(outcome.discarded[0]["KinesisBatchInfo"]["batchSize"], 1);
    }

    /// R29: it is told as one invocation, though there was none, with a request id and without a response.
    #[tokio::test(flavor = "multi_thread")]
    async fn expire_before_ingestion() {
        let kinesis = Kinesis::start().await;
        let case = kinesis.case(&[(MAXIMUM + 1, "record")]).await;
        let case = case.set("MaximumRecordAgeInSeconds", MAXIMUM).set("MaximumRetryAttempts", 0);
        let (config, expected) = (case.config.clone(), expired(&kinesis, &case, &[1..=1]));
        let outcome = case.run(|_| Plan::success()).await;
        assert_eq!(outcome.trace, [[0; 0]; 0]);
        assert_eq!(masked_lines(&config), expected);
        let id = outcome.discarded[0]["requestContext"]["requestId"].as_str().unwrap();
        assert_eq!(id.len(), 36, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r30_two_adjacent_expired_batches_of_one_record_are_two_messages() {
    let kinesis = Kinesis::start().await;
    let case = kinesis.case(&[(MAXIMUM + 30, "1"), (MAXIMUM + 20, "2"), (0, "3")]).await;
    let case = case.set("BatchSize", 1).set("MaximumRecordAgeInSeconds", MAXIMUM);
    let (config, expected) = (case.config.clone(), expired(&kinesis, &case, &[1..=1, 2..=2]));
    let outcome = case.run(|_| Plan::success()).await;
    assert_eq!(outcome.trace, [[3]]);
    assert_eq!(masked_lines(&config), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn r30_an_unbroken_run_of_expired_records_is_one_message() {
    let kinesis = Kinesis::start().await;
    let case = kinesis
        .case(&[(MAXIMUM + 30, "1"), (MAXIMUM + 20, "2"), (0, "3"), (MAXIMUM + 10, "4"), (0, "5")])
        .await;
    let case = case.set("BatchSize", 10).set("MaximumRecordAgeInSeconds", MAXIMUM);
    let (config, expected) = (case.config.clone(), expired(&kinesis, &case, &[1..=2, 4..=4]));
    let outcome = case.run(|_| Plan::success()).await;
    assert_eq!(outcome.trace, [[3], [5]], "I5: none that is too old is invoked, wherever it stands");
    assert_eq!(masked_lines(&config), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn r31_a_record_expires_while_its_batch_waits_to_be_filled() {
    let kinesis = Kinesis::start().await;
    let case = kinesis.case(&[(0, "1"), (0, "2")]).await;
    let case = case.set("MaximumBatchingWindowInSeconds", 300).set("MaximumRecordAgeInSeconds", MAXIMUM);
    let expected = expired(&kinesis, &case, &[1..=2]);
    let function = Function::start().await;
    let config = case.config.clone().url(function.url(""));
    let sidecar = Sidecar::start(&config).await;
    until("the records are read", async || {
        let shards = sidecar.shards().await;
        (shards.get("shardId-000000000000")?["bufferedRecords"] == 2).then_some(())
    })
    .await;
    assert_eq!(
        sidecar.shards().await["shardId-000000000000"]["lastProcessingResult"],
        "No records processed"
    );
    kinesis.fake.set_clock_offset(MOVED);
    resolved(&sidecar, &case.stream).await;
    assert_eq!(masked_lines(&config), expected);
    assert_eq!(function.count(), 0);
}

/// The rest of a bisected batch that expires is told with its own records and invocations.
#[tokio::test(flavor = "multi_thread")]
async fn r28_a_half_that_expires_is_discarded_with_its_own_invocations() {
    let kinesis = Kinesis::start().await;
    let case = kinesis.case(&[(0, "good"), (0, "bad")]).await;
    let case = case.set("BisectBatchOnFunctionError", true).set("MaximumRecordAgeInSeconds", MAXIMUM);
    let fake = kinesis.fake.clone();
    let outcome = case
        .run(move |call| {
            if call.number == 4 {
                fake.set_clock_offset(MOVED);
            }
            fails_on("bad")(call)
        })
        .await;
    let alone = outcome.trace.len() - 2;
    assert_eq!(outcome.trace[..2], [vec![1, 2], vec![1]]);
    assert!(alone >= 2 && outcome.trace[2..].iter().all(|batch| *batch == [2]), "{:?}", outcome.trace);
    assert_eq!(outcome.discarded.len(), 1, "{:#?}", outcome.discarded);
    let request = &outcome.discarded[0]["requestContext"];
    assert_eq!(request["condition"], "RecordAgeExceeded");
    assert_eq!(request["approximateInvokeCount"], alone);
    assert_eq!(outcome.handled, [1]);
}
