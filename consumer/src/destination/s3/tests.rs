//! Objects of discarded batches, against a server that answers as it is told.

use std::sync::Arc;
use std::time::Duration;

use super::super::testing::discarded;
use super::super::testing::fake::{Answer, FakeService, PATIENT, Wire, config, dead_endpoint, limits_of};
use super::*;

const BUCKET: &str = "arn:aws:s3:::orders-dlq";
const STORED: Answer = Answer::Http(200, "etag: \"1\"\r\n", "");

const fn xml(status: u16, body: &'static str) -> Answer {
    Answer::Http(status, "content-type: application/xml\r\n", body)
}

fn destination(bucket: &FakeService) -> S3Destination {
    S3Destination::with_limits(&config(), &bucket_named(BUCKET).unwrap(), Some(&bucket.endpoint), PATIENT)
}

#[tokio::test]
async fn the_s3_destination_passes_the_public_suite() {
    crate::conformance::destination::run_all(async || {
        let refused = xml(403, "<Error><Code>AccessDenied</Code></Error>");
        let service = FakeService::answering([STORED]).await;
        let destination = Arc::new(destination(&service));
        Wire { service, destination, done: STORED, refused, delivery: "put /" }
    })
    .await;
}

#[tokio::test]
async fn r73_a_batch_is_one_object_of_its_exact_text_under_lambdas_key() {
    let bucket = FakeService::answering([STORED]).await;
    let failure = discarded("49", 10);
    destination(&bucket).deliver(&failure).await.unwrap();
    let requests = bucket.requests();
    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    let key = failure.object_key();
    let prefix = "aws/lambda/00000000-0000-4000-8000-000000000000/shardId-000000000000/2026/09/19/2026-09-19T09.10.45-";
    assert!(key.starts_with(prefix), "{key}");
    assert_eq!(request.line, format!("PUT /orders-dlq/{key}?x-id=PutObject"), "path style at an endpoint");
    assert_eq!(request.header("content-type"), Some("application/octet-stream"));
    assert_eq!(request.body, failure.object());
    assert!(
        request.head.contains("/us-east-1/s3/aws4_request"),
        "the configuration's region: the ARN has none"
    );
    assert!(request.header("x-amz-checksum-crc32").is_some(), "a damaged upload is refused");
}

#[tokio::test]
async fn i3_a_delivery_whose_answer_was_lost_writes_the_same_object_again() {
    let bucket = FakeService::answering([Answer::Never]).await;
    let mut destination = destination(&bucket);
    destination.service.limits.total = Duration::from_millis(500);
    let failure = discarded("49", 10);
    let error = destination.deliver(&failure).await.unwrap_err().to_string();
    assert!(error.contains(BUCKET) && error.contains("within 500ms"), "{error}");
    bucket.answer(STORED);
    destination.service.limits = PATIENT;
    destination.deliver(&failure.clone()).await.unwrap();
    let requests = bucket.requests();
    let last = requests.last().unwrap();
    assert!(requests.len() >= 2);
    assert!(requests.iter().all(|r| r.line == last.line && r.body == last.body), "one key");
}

#[tokio::test]
async fn i3_a_refused_delivery_says_bucket_code_and_remedy_and_can_be_repeated() {
    let cases = [
        (
            xml(403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
            "PutObject failed: AccessDenied (no); allow s3:PutObject on this bucket",
        ),
        (
            xml(404, "<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>"),
            "NoSuchBucket (gone); create bucket orders-dlq",
        ),
        (
            xml(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>"),
            "RequestTimeTooSkewed; check this worker's credentials and its clock",
        ),
    ];
    let bucket = FakeService::answering(cases.map(|(answer, _)| answer).into_iter().chain([STORED])).await;
    let destination = destination(&bucket);
    for (_, expected) in cases {
        let error = destination.deliver(&discarded("49", 10)).await.unwrap_err().to_string();
        assert!(error.contains(BUCKET) && error.contains(expected), "{error}");
    }
    destination.deliver(&discarded("49", 10)).await.unwrap();
}

#[tokio::test]
async fn a_bucket_in_another_region_is_found_once_and_for_all() {
    let moved = Answer::Http(
        301,
        "x-amz-bucket-region: eu-west-3\r\n",
        "<Error><Code>PermanentRedirect</Code><Message>use another endpoint</Message></Error>",
    );
    let bucket = FakeService::answering([moved, STORED]).await;
    let destination = destination(&bucket);
    destination.deliver(&discarded("49", 10)).await.unwrap();
    destination.deliver(&discarded("50", 10)).await.unwrap();
    let regions: Vec<bool> =
        bucket.requests().iter().map(|r| r.head.contains("/eu-west-3/s3/aws4_request")).collect();
    assert_eq!(regions, [false, true, true]);
}

#[tokio::test]
async fn a_bucket_that_is_nowhere_is_looked_for_once_more_and_no_longer() {
    let moved = Answer::Http(
        301,
        "x-amz-bucket-region: eu-west-3\r\n",
        "<Error><Code>PermanentRedirect</Code><Message>use another endpoint</Message></Error>",
    );
    let bucket = FakeService::answering([moved]).await;
    let error = destination(&bucket).deliver(&discarded("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains("PermanentRedirect (use another endpoint)"), "{error}");
    assert_eq!(bucket.requests().len(), 2);
}

#[tokio::test]
async fn i3_an_answer_without_an_etag_does_not_count_as_delivered() {
    let bucket = FakeService::answering([Answer::Http(200, "", "")]).await;
    let error = destination(&bucket).deliver(&discarded("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains("has no ETag; check the endpoint"), "{error}");
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_is_an_error_with_its_cause() {
    let destination = S3Destination::with_limits(
        &config(),
        &bucket_named(BUCKET).unwrap(),
        Some(&dead_endpoint().await),
        LIMITS,
    );
    let error = destination.deliver(&discarded("49", 10)).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.source.is_some());
}

#[tokio::test]
async fn a_probe_asks_for_the_bucket_and_is_content_where_it_may_not() {
    let bucket = FakeService::answering([200, 403, 404].map(|status| Answer::Http(status, "", ""))).await;
    let destination = destination(&bucket);
    assert_eq!(destination.probe().await.unwrap(), Probe::Answers);
    let Probe::NotAsked(why) = destination.probe().await.unwrap() else { panic!("it was not allowed") };
    assert!(why.contains("s3:ListBucket is not allowed"), "{why}");
    let error = destination.probe().await.unwrap_err().to_string();
    assert!(error.contains("HeadBucket failed: ") && error.contains("create bucket orders-dlq"), "{error}");
    for request in bucket.requests().iter() {
        assert!(request.line.starts_with("HEAD /orders-dlq"), "{}", request.line);
    }
}

#[test]
fn texts_that_are_no_bucket_are_refused() {
    for (arn, expected) in [
        ("arn:aws:sns:eu-west-1:123456789012:orders", "is not the ARN of an S3 bucket"),
        ("arn:aws:s3:::orders/dead", "has a bucket name that S3 does not permit"),
        ("arn:aws:s3:eu-west-1:123456789012:accesspoint/orders", "is an access point"),
        ("s3://orders", "is not an ARN"),
    ] {
        let error = S3Destination::new(&config(), arn).unwrap_err().to_string();
        assert!(error.contains(arn) && error.contains(expected), "{error}");
        S3Destination::from_client(Client::new(&config()), arn).unwrap_err();
    }
}

#[test]
fn a_client_of_its_own_has_three_attempts_and_bounded_calls() {
    let destination = S3Destination::new(&config(), BUCKET).unwrap();
    let client = destination.client();
    let set = client.config();
    assert_eq!(limits_of(set.retry_config(), set.timeout_config()), (3, [Some(3), Some(10)]));
}
