//! Messages to a queue, against a server that answers as it is told.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_types::service_config::ServiceConfigKey;
use serde_json::Value;

use super::super::testing::discarded;
use super::super::testing::fake::{Answer, FakeService, PATIENT, Wire, config, dead_endpoint, limits_of};
use super::*;

const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq";
const SENT: &str = r#"{"MessageId":"1","MD5OfMessageBody":"d41d8cd98f00b204e9800998ecf8427e"}"#;

const fn json(status: u16, body: &'static str) -> Answer {
    Answer::Http(status, "content-type: application/x-amz-json-1.0\r\n", body)
}

fn destination(queue: &FakeService) -> SqsDestination {
    SqsDestination::with_limits(&config(), &queue_named(QUEUE).unwrap(), Some(&queue.endpoint), PATIENT)
        .unwrap()
}

#[tokio::test]
async fn the_sqs_destination_passes_the_public_suite() {
    crate::conformance::destination::run_all(async || {
        let (done, refused) = (json(200, SENT), json(400, r#"{"__type":"AccessDeniedException"}"#));
        let service = FakeService::answering([done]).await;
        let destination = Arc::new(destination(&service));
        Wire { service, destination, done, refused, delivery: "x-amz-target: amazonsqs.sendmessage" }
    })
    .await;
}

#[tokio::test]
async fn r72_a_batch_is_one_message_of_its_exact_text_in_the_queues_own_region() {
    let queue = FakeService::answering([json(200, SENT)]).await;
    let failure = discarded("49", 10);
    destination(&queue).deliver(&failure).await.unwrap();
    let requests = queue.requests();
    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["MessageBody"], failure.message());
    assert_eq!(body["QueueUrl"], format!("{}/123456789012/orders-dlq", queue.endpoint));
    assert_eq!(body.as_object().unwrap().len(), 2, "nothing else is sent");
    assert!(request.head.contains("x-amz-target: amazonsqs.sendmessage"), "the only permission needed");
    assert!(
        request.head.contains("/eu-west-1/sqs/aws4_request"),
        "the ARN's region, not the configuration's"
    );
}

#[tokio::test]
async fn a_short_disturbance_is_repeated_within_the_delivery() {
    let busy = json(503, r#"{"__type":"ServiceUnavailable"}"#);
    let queue = FakeService::answering([busy, json(200, SENT)]).await;
    destination(&queue).deliver(&discarded("49", 10)).await.unwrap();
    assert_eq!(queue.requests().len(), 2);
}

#[tokio::test]
async fn i3_a_refused_delivery_says_queue_code_and_remedy_and_can_be_repeated() {
    let denied = r#"{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"not allowed"}"#;
    let missing = r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"gone"}"#;
    let key = r#"{"__type":"com.amazonaws.sqs#KmsAccessDenied","message":"key"}"#;
    let token = r#"{"__type":"UnrecognizedClientException","message":"bad token"}"#;
    let cases = [
        (403, denied, "AccessDeniedException (not allowed); allow sqs:SendMessage"),
        (
            400,
            missing,
            "QueueDoesNotExist (gone); create queue orders-dlq in eu-west-1, account 123456789012",
        ),
        (400, key, "KmsAccessDenied (key); allow kms:GenerateDataKey"),
        (403, token, "UnrecognizedClientException (bad token); check this worker's credentials"),
        (400, r#"{"__type":"SomethingNew"}"#, "SendMessage failed: SomethingNew"),
    ];
    let answers = cases.map(|(status, body, _)| json(status, body));
    let queue = FakeService::answering(answers.into_iter().chain([json(200, SENT)])).await;
    let destination = destination(&queue);
    for (_, _, expected) in cases {
        let error = destination.deliver(&discarded("49", 10)).await.unwrap_err().to_string();
        assert!(error.contains(QUEUE) && error.contains(expected), "{error}");
    }
    destination.deliver(&discarded("49", 10)).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_accepts_and_never_answers_fails_by_the_deliverys_limit_and_recovers() {
    let queue = FakeService::answering([Answer::Never]).await;
    let mut destination = destination(&queue);
    let patient = destination.service.limits;
    destination.service.limits.total = Duration::from_millis(500);
    let error = destination.deliver(&discarded("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains(QUEUE) && error.contains("within 500ms"), "{error}");
    queue.answer(json(200, SENT));
    destination.service.limits = patient;
    destination.deliver(&discarded("49", 10)).await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_is_never_answered_is_repeated_after_the_read_timeout() {
    let queue = FakeService::answering([Answer::Never, json(200, SENT)]).await;
    let limits = Limits { read: Duration::from_secs(1), ..PATIENT };
    let destination =
        SqsDestination::with_limits(&config(), &queue_named(QUEUE).unwrap(), Some(&queue.endpoint), limits)
            .unwrap();
    destination.deliver(&discarded("49", 10)).await.unwrap();
    assert!(queue.requests().len() >= 2);
}

#[tokio::test]
async fn a_client_without_timeouts_does_not_hang_either() {
    let queue = FakeService::answering([Answer::Never]).await;
    let config = Builder::from(&config()).endpoint_url(&queue.endpoint);
    let config = config.timeout_config(TimeoutConfig::disabled()).build();
    let url = format!("{}/123456789012/orders-dlq", queue.endpoint);
    let mut destination = SqsDestination::from_client(Client::from_conf(config), QUEUE, url).unwrap();
    assert_eq!(destination.service.limits.total, Duration::from_secs(10));
    destination.service.limits.total = Duration::from_millis(500);
    destination.deliver(&discarded("49", 10)).await.unwrap_err();
}

#[tokio::test]
async fn a_queue_that_cannot_be_reached_is_an_error_with_its_cause() {
    let endpoint = dead_endpoint().await;
    let destination = SqsDestination::with_limits(
        &config(),
        &queue_named(QUEUE).unwrap(),
        Some(&endpoint),
        Limits::DEFAULT,
    )
    .unwrap();
    let error = destination.deliver(&discarded("49", 10)).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.source.is_some());
}

#[tokio::test]
async fn i3_an_answer_without_a_message_id_does_not_count_as_delivered() {
    let queue = FakeService::answering([json(200, "{}")]).await;
    let error = destination(&queue).deliver(&discarded("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains("has no message id; check the endpoint"), "{error}");
}

#[tokio::test]
async fn a_probe_asks_for_attributes_and_is_content_where_it_may_not() {
    let denied = r#"{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"not allowed"}"#;
    let missing = r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"gone"}"#;
    let answers = [json(200, r#"{"Attributes":{}}"#), json(403, denied), json(400, missing)];
    let queue = FakeService::answering(answers).await;
    let destination = destination(&queue);
    assert_eq!(destination.probe().await.unwrap(), Probe::Answers);
    let Probe::NotAsked(why) = destination.probe().await.unwrap() else { panic!("it was not allowed") };
    assert!(why.contains("sqs:GetQueueAttributes is not allowed"), "{why}");
    let error = destination.probe().await.unwrap_err().to_string();
    assert!(error.contains("GetQueueAttributes failed: QueueDoesNotExist (gone); create queue"), "{error}");
    assert!(
        queue.requests().iter().all(|r| r.head.contains("amazonsqs.getqueueattributes")),
        "nothing is sent"
    );
}

#[tokio::test]
async fn a_proxys_web_page_is_no_refusal_by_the_queue() {
    let page = Answer::Http(403, "content-type: text/html\r\n", "<html>Forbidden</html>");
    let error = destination(&FakeService::answering([page]).await).probe().await.unwrap_err().to_string();
    assert!(error.contains("HTTP status 403 with a web page") && error.contains("proxies"), "{error}");
}

#[test]
fn r77_fifo_queues_and_texts_that_are_no_queue_are_refused() {
    for (arn, expected) in [
        ("arn:aws:sqs:eu-west-1:123456789012:orders.fifo", "is a FIFO queue"),
        ("arn:aws:sns:eu-west-1:123456789012:orders", "is not the ARN of an SQS queue"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "is not an ARN"),
        ("arn:aws:sqs:eu-west-1:1234:orders", "has no region or no account of 12 digits"),
        ("arn:aws:sqs::123456789012:orders", "has no region or no account of 12 digits"),
        ("arn:aws:sqs:eu-west-1:123456789012:a/b", "has a queue name that SQS does not permit"),
    ] {
        let error = SqsDestination::new(&config(), arn).unwrap_err().to_string();
        assert!(error.contains(arn) && error.contains(expected), "{error}");
        let client = Client::new(&config());
        SqsDestination::from_client(client, arn, "http://127.0.0.1/q").unwrap_err();
    }
}

#[test]
fn the_queues_url_comes_from_its_arn_or_from_the_endpoint() {
    let url = |arn: &str, endpoint: Option<&str>| {
        SqsDestination::with_limits(&config(), &queue_named(arn).unwrap(), endpoint, Limits::DEFAULT)
            .unwrap()
            .url
    };
    assert_eq!(url(QUEUE, None), "https://sqs.eu-west-1.amazonaws.com/123456789012/orders-dlq");
    let chinese = "arn:aws-cn:sqs:cn-north-1:123456789012:q";
    assert_eq!(url(chinese, None), "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q");
    let local = Some("http://localhost:4566/");
    assert_eq!(url(QUEUE, local), "http://localhost:4566/123456789012/orders-dlq");
    let error = SqsDestination::with_limits(
        &config(),
        &queue_named(QUEUE).unwrap(),
        Some("localhost:4566"),
        Limits::DEFAULT,
    )
    .unwrap_err();
    assert!(error.to_string().contains("write it with http://"), "{error}");
}

/// Settings of the environment, as the SDK's loader hands them on.
#[derive(Debug)]
struct Environment;

impl aws_types::service_config::LoadServiceConfig for Environment {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let own = (key.service_id(), key.env(), key.profile()) == ("SQS", "AWS_ENDPOINT_URL", "endpoint_url");
        own.then(|| "http://queues:1".to_owned())
    }
}

#[test]
fn the_endpoint_is_found_where_the_sdk_finds_it() {
    let url = |config: &SdkConfig, given| {
        SqsDestination::with_limits(config, &queue_named(QUEUE).unwrap(), given, Limits::DEFAULT).unwrap().url
    };
    let general = config().into_builder().endpoint_url("http://all:1").build();
    assert_eq!(url(&general, None), "http://all:1/123456789012/orders-dlq");
    let own = general.into_builder().service_config(Environment).build();
    assert_eq!(url(&own, None), "http://queues:1/123456789012/orders-dlq");
    assert_eq!(url(&own, Some("http://given:1")), "http://given:1/123456789012/orders-dlq");
}

#[test]
fn a_client_of_its_own_has_three_attempts_and_bounded_calls() {
    let destination = SqsDestination::new(&config(), QUEUE).unwrap();
    let client = destination.client;
    let set = client.config();
    assert_eq!(limits_of(set.retry_config(), set.timeout_config()), (3, [Some(3), Some(5)]));
}
