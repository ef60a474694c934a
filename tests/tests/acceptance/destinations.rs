//! What arrives at the on-failure destinations of AWS, fetched back from LocalStack.

use crate::case::Outcome;

/// docs/semantics.md, section 3.5, with what differs from run to run masked.
pub(crate) fn section_3_5(outcome: &Outcome, stream: &str, records: &[usize], error: &str) -> String {
    let last = outcome.trace.iter().rposition(|batch| batch == records).unwrap();
    format!(
        r#"{{"requestContext":{{"requestId":"{request_id}","functionArn":"arn:aws:lambda:us-east-1:000000000000:function:orders-worker","condition":"RetryAttemptsExhausted","approximateInvokeCount":2}},"responseContext":{{"statusCode":200,"executedVersion":"$LATEST","functionError":{error}}},"version":"1.0","timestamp":"<time>","KinesisBatchInfo":{{"shardId":"shardId-000000000000","startSequenceNumber":"{start}","endSequenceNumber":"{end}","approximateArrivalOfFirstRecord":"<time>","approximateArrivalOfLastRecord":"<time>","batchSize":{size},"streamArn":"{stream}"}}}}"#,
        request_id = outcome.request_ids[last],
        start = outcome.sequences[records[0] - 1],
        end = outcome.sequences[records[records.len() - 1] - 1],
        size = records.len(),
    )
}

mod localstack {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use shardmill_tests::{Invocation, Plan, endpoint};

    use super::*;
    use crate::case::Case;
    use crate::queue::{Bucket, Object, Topic, masked};
    use crate::retries::{fails_on, reports};

    const UUID: &str = "1b3f6a52-3c0e-4d5c-9e9e-2f4b6a1c7d80";

    /// A mapping that sends discarded batches to `destination` after one retry.
    async fn case(records: &[&str], destination: &str) -> Case {
        Case::at(&endpoint("SHARDMILL_TEST_LOCALSTACK"), records)
            .await
            .set("DestinationConfig.OnFailure.Destination", destination)
            .set("MaximumRetryAttempts", 1)
            .set("UUID", UUID)
    }

    /// The message in SNS's envelope (docs/semantics.md, section 3.8).
    #[track_caller]
    fn unwrapped(envelope: &str, topic: &Topic) -> String {
        let envelope: Value = serde_json::from_str(envelope).unwrap();
        assert_eq!(envelope["Type"], "Notification", "{envelope:#}");
        assert_eq!(envelope["TopicArn"], topic.arn, "{envelope:#}");
        assert_eq!(envelope.get("Subject"), None, "{envelope:#}");
        assert!(envelope["MessageId"].is_string(), "{envelope:#}");
        envelope["Message"].as_str().unwrap().to_owned()
    }

    /// docs/semantics.md, section 3.9: section 3.5 with the event between version and time.
    fn section_3_9(outcome: &Outcome, stream: &str, records: &[usize], error: &str, event: &[u8]) -> String {
        let version = r#""version":"1.0","#;
        let payload = serde_json::to_string(std::str::from_utf8(event).unwrap()).unwrap();
        section_3_5(outcome, stream, records, error)
            .replace(version, &format!(r#"{version}"payload":{payload},"#))
    }

    /// The key has the form of docs/semantics.md, section 3.9, with the message's own time.
    #[track_caller]
    fn assert_key(object: &Object) {
        let message: Value = serde_json::from_str(&object.body).unwrap();
        let time = message["timestamp"].as_str().unwrap();
        let (day, clock) = (time[..10].replace('-', "/"), time[..19].replace(':', "."));
        let prefix = format!("aws/lambda/{UUID}/shardId-000000000000/{day}/{clock}-");
        let id = object.key.strip_prefix(&prefix).unwrap_or_else(|| panic!("{} {time}", object.key));
        let form: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(form, [8, 4, 4, 4, 12], "{id}");
        assert!(id.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
    }

    /// A function that keeps its last event.
    fn keeping(
        behaviour: impl Fn(&Invocation) -> Plan + Send + Sync + 'static,
    ) -> (Arc<Mutex<Vec<u8>>>, impl Fn(&Invocation) -> Plan + Send + Sync + 'static) {
        let last = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&last);
        let function = move |invocation: &Invocation| {
            *kept.lock().unwrap() = invocation.event.to_vec();
            behaviour(invocation)
        };
        (last, function)
    }

    /// LocalStack's own acceptance test of that name: BatchSize 1, one retry, a function that raises.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn test_kinesis_event_source_mapping_with_sns_on_failure_destination_config() {
        let topic = Topic::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
        let case = case(&["{\"input\": \"hello\"}"], &topic.arn).await.set("BatchSize", 1);
        let stream = case.stream.arn().to_owned();
        let outcome = case.run(|_| Plan::failure()).await;
        assert_eq!(outcome.trace, [[1], [1]]);
        let messages = topic.subscriber.take(1).await;
        let message = masked(&unwrapped(&messages[0], &topic));
        assert_eq!(message, section_3_5(&outcome, &stream, &[1], "\"Unhandled\""));
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn r73_a_topic_gets_the_text_that_a_queue_gets() {
        let topic = Topic::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
        let case = case(&["1", "2", "3", "4"], &topic.arn).await;
        let case = case.set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
        let stream = case.stream.arn().to_owned();
        let outcome = case.run(reports("2")).await;
        assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2, 3, 4]]);
        let messages = topic.subscriber.take(1).await;
        assert_eq!(
            masked(&unwrapped(&messages[0], &topic)),
            section_3_5(&outcome, &stream, &[2, 3, 4], "null")
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn r72_a_topic_gets_one_message_for_each_discarded_batch_and_none_for_the_others() {
        let topic = Topic::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
        let case = case(&["1", "bad", "3", "bad", "5"], &topic.arn).await.set("BatchSize", 1);
        let stream = case.stream.arn().to_owned();
        let outcome = case.run(fails_on("bad")).await;
        assert_eq!(outcome.trace, [[1], [2], [2], [3], [4], [4], [5]]);
        let mut messages: Vec<String> = topic.subscriber.take(2).await;
        messages = messages.iter().map(|message| masked(&unwrapped(message, &topic))).collect();
        messages.sort();
        let mut expected = [2, 4].map(|n| section_3_5(&outcome, &stream, &[n], "\"Unhandled\""));
        expected.sort();
        assert_eq!(messages, expected);
    }

    /// LocalStack's own acceptance test of that name: BatchSize 1, one retry, a function that raises.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn test_kinesis_event_source_mapping_with_s3_on_failure_destination() {
        let bucket = Bucket::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
        let case = case(&["{\"input\": \"hello\"}"], &bucket.arn).await.set("BatchSize", 1);
        let stream = case.stream.arn().to_owned();
        let (event, function) = keeping(|_| Plan::failure());
        let outcome = case.run(function).await;
        assert_eq!(outcome.trace, [[1], [1]]);
        let objects = bucket.objects().await;
        let [object] = &objects[..] else { panic!("{} objects", objects.len()) };
        assert_eq!(object.content_type, "application/octet-stream");
        assert_key(object);
        let event = event.lock().unwrap();
        assert_eq!(masked(&object.body), section_3_9(&outcome, &stream, &[1], "\"Unhandled\"", &event));
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn r73_an_object_is_section_3_9_byte_for_byte_with_the_whole_event() {
        let bucket = Bucket::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
        let case = case(&["1", "2", "3", "4"], &bucket.arn).await;
        let case = case.set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
        let stream = case.stream.arn().to_owned();
        let (event, function) = keeping(reports("2"));
        let outcome = case.run(function).await;
        let objects = bucket.objects().await;
        let [object] = &objects[..] else { panic!("{} objects", objects.len()) };
        assert_key(object);
        let event = event.lock().unwrap();
        assert_eq!(masked(&object.body), section_3_9(&outcome, &stream, &[2, 3, 4], "null", &event));
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs LocalStack: cargo xtask test"]
    async fn r72_a_bucket_gets_one_object_for_each_discarded_batch_and_none_for_the_others() {
        let bucket = Bucket::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
        let case = case(&["1", "bad", "3", "bad", "5"], &bucket.arn).await.set("BatchSize", 1);
        let outcome = case.run(fails_on("bad")).await;
        assert_eq!(outcome.trace, [[1], [2], [2], [3], [4], [4], [5]]);
        let start = |object: &Object| {
            let message: Value = serde_json::from_str(&object.body).unwrap();
            message["KinesisBatchInfo"]["startSequenceNumber"].as_str().unwrap().to_owned()
        };
        let mut discarded: Vec<String> = bucket.objects().await.iter().map(start).collect();
        discarded.sort();
        let mut expected = [1, 3].map(|n: usize| outcome.sequences[n].clone());
        expected.sort();
        assert_eq!(discarded, expected);
    }
}
