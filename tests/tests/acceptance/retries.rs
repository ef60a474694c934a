//! Retries, partial batch responses and bisection as Lambda was recorded to do them
//! (docs/semantics.md, sections 2.3 to 2.6).

use serde_json::json;
use shardmill_tests::{Invocation, Plan};

use crate::case::{Case, Outcome, position};

/// Reports the record with this data if it is in the batch.
pub(crate) fn reports(bad: &'static str) -> impl Fn(&Invocation) -> Plan + Send + Sync {
    move |invocation| match position(invocation, bad) {
        Some(at) => Plan::partial(invocation, &[&invocation.records[at].sequence]),
        None => Plan::success(),
    }
}

/// Fails if the record with this data is in the batch.
pub(crate) fn fails_on(bad: &'static str) -> impl Fn(&Invocation) -> Plan + Send + Sync {
    move |invocation| if position(invocation, bad).is_some() { Plan::failure() } else { Plan::success() }
}

async fn always_failing(maximum_retry_attempts: u32) -> Outcome {
    let case = Case::new(&["1", "2", "3"]).await.set("MaximumRetryAttempts", maximum_retry_attempts);
    case.run(|_| Plan::failure()).await
}

#[track_caller]
fn assert_whole_batch_discarded(outcome: &Outcome, invocations: u32) {
    assert_eq!(outcome.trace, vec![vec![1, 2, 3]; invocations as usize]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[1, 2, 3], invocations.into(), Some("Unhandled"));
    assert_eq!(outcome.handled, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_with_no_retry_an_always_failing_batch_is_invoked_once() {
    assert_whole_batch_discarded(&always_failing(0).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_with_one_retry_an_always_failing_batch_is_invoked_twice_under_one_request_id() {
    assert_whole_batch_discarded(&always_failing(1).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_with_three_retries_an_always_failing_batch_is_invoked_four_times_under_one_request_id() {
    assert_whole_batch_discarded(&always_failing(3).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn r37_progress_gives_a_new_budget_and_r38_the_whole_rest_is_discarded() {
    let case = Case::new(&["1", "2", "3", "4"])
        .await
        .set("MaximumRetryAttempts", 1)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
    let outcome = case.run(reports("2")).await;
    assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2, 3, 4]]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[2, 3, 4], 2, None);
    assert_eq!(outcome.handled, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r43_bisection_isolates_the_bad_record_left_to_right() {
    let case = Case::new(&["1", "2", "3", "4"])
        .await
        .set("MaximumRetryAttempts", 1)
        .set("BisectBatchOnFunctionError", true);
    let outcome = case.run(fails_on("2")).await;
    assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![2], vec![3, 4]]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[2], 2, Some("Unhandled"));
    assert_eq!(outcome.handled, [1, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r44_bisection_with_partial_responses_cuts_at_the_reported_record() {
    let case = Case::new(&["1", "2", "3", "4"])
        .await
        .set("MaximumRetryAttempts", 1)
        .set("BisectBatchOnFunctionError", true)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
    let outcome = case.run(reports("2")).await;
    assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2], vec![2], vec![3, 4]]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[2], 2, None);
    assert_eq!(outcome.handled, [1, 3, 4]);
}

mod localstack {
    use shardmill_tests::endpoint;

    use super::*;
    use crate::destinations::section_3_5;
    use crate::queue::{Queue, masked};

    /// Kinesis and SQS on one endpoint.
    async fn case(records: &[&str]) -> (Case, Queue) {
        let endpoint = endpoint("SHARDMILL_TEST_LOCALSTACK");
        let queue = Queue::create(&endpoint).await;
        let case = Case::at(&endpoint, records)
            .await
            .set("DestinationConfig.OnFailure.Destination", queue.arn.as_str())
            .set("MaximumRetryAttempts", 1);
        (case, queue)
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn the_message_of_an_exception_is_that_of_section_3_5_byte_for_byte() {
        let (case, queue) = case(&["1", "2", "3"]).await;
        let arn = case.stream.arn().to_owned();
        let outcome = case.run(|_| Plan::failure()).await;
        assert_eq!(outcome.trace, [[1, 2, 3], [1, 2, 3]]);
        outcome.assert_request_ids();
        let messages = queue.take(1).await;
        assert_eq!(masked(&messages[0]), section_3_5(&outcome, &arn, &[1, 2, 3], "\"Unhandled\""));
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn r38_the_message_of_a_partial_failure_names_the_whole_rest() {
        let (case, queue) = case(&["1", "2", "3", "4"]).await;
        let arn = case.stream.arn().to_owned();
        let case = case.set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
        let outcome = case.run(reports("2")).await;
        assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2, 3, 4]]);
        let messages = queue.take(1).await;
        assert_eq!(masked(&messages[0]), section_3_5(&outcome, &arn, &[2, 3, 4], "null"));
    }

    /// LocalStack's own acceptance test of that name: BatchSize 1, one retry, a function that raises.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn test_kinesis_event_source_mapping_with_on_failure_destination_config() {
        let (case, queue) = case(&["{\"input\": \"hello\"}"]).await;
        let arn = case.stream.arn().to_owned();
        let outcome = case.set("BatchSize", 1).run(|_| Plan::failure()).await;
        assert_eq!(outcome.trace, [[1], [1]]);
        let messages = queue.take(1).await;
        assert_eq!(masked(&messages[0]), section_3_5(&outcome, &arn, &[1], "\"Unhandled\""));
    }
}
