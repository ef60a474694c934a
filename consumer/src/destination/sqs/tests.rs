use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_config::BehaviorVersion;
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::testing::failure;
use super::*;

const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq";
const SENT: &str = r#"{"MessageId":"1","MD5OfMessageBody":"d41d8cd98f00b204e9800998ecf8427e"}"#;

/// For tests that never wait for a limit, on a machine however busy.
const PATIENT: Limits = Limits {
    connect: Duration::from_secs(30),
    read: Duration::from_secs(30),
    total: Duration::from_secs(60),
};

/// What the queue does with a request.
#[derive(Clone, Copy)]
enum Answer {
    Json(u16, &'static str),
    Never,
}

/// One request as it arrived.
struct Request {
    head: String,
    body: Value,
}

/// A service on loopback that answers in the given order and repeats its last answer.
struct Queue {
    endpoint: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Queue {
    async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let (given, seen) = (Arc::clone(&answers), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&given), Arc::clone(&seen)));
            }
        });
        Self { endpoint, answers, requests }
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap()
    }

    fn destination(&self) -> SqsDestination {
        SqsDestination::with_limits(&config(), QUEUE, Some(&self.endpoint), PATIENT).unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Request>>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let length: usize = length.parse().unwrap();
        while bytes.len() < end + length {
            stream.read_buf(&mut bytes).await?;
        }
        let body = serde_json::from_slice(&bytes[end..end + length]).unwrap();
        bytes.drain(..end + length);
        seen.lock().unwrap().push(Request { head, body });
        let answer = {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
        };
        match answer.unwrap() {
            Answer::Json(status, body) => {
                let head = "content-type: application/x-amz-json-1.0\r\ncontent-length: ";
                let answer = format!("HTTP/1.1 {status} X\r\n{head}{}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await?;
            }
            Answer::Never => std::future::pending().await,
        }
    }
}

fn config() -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

#[tokio::test]
async fn r72_a_batch_is_one_message_of_its_exact_text_in_the_queues_own_region() {
    let queue = Queue::answering([Answer::Json(200, SENT)]).await;
    let failure = failure("49", 10);
    queue.destination().deliver(&failure).await.unwrap();
    let requests = queue.requests();
    let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
    assert_eq!(request.body["MessageBody"], failure.message());
    assert_eq!(request.body["QueueUrl"], format!("{}/123456789012/orders-dlq", queue.endpoint));
    assert_eq!(request.body.as_object().unwrap().len(), 2, "nothing else is sent");
    assert!(request.head.contains("x-amz-target: amazonsqs.sendmessage"), "the only permission needed");
    assert!(
        request.head.contains("/eu-west-1/sqs/aws4_request"),
        "the ARN's region, not the configuration's"
    );
}

#[tokio::test]
async fn a_short_disturbance_is_repeated_within_the_delivery() {
    let busy = Answer::Json(503, r#"{"__type":"ServiceUnavailable"}"#);
    let queue = Queue::answering([busy, Answer::Json(200, SENT)]).await;
    queue.destination().deliver(&failure("49", 10)).await.unwrap();
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
    let answers = cases.map(|(status, body, _)| Answer::Json(status, body));
    let queue = Queue::answering(answers.into_iter().chain([Answer::Json(200, SENT)])).await;
    let destination = queue.destination();
    for (_, _, expected) in cases {
        let error = destination.deliver(&failure("49", 10)).await.unwrap_err().to_string();
        assert!(error.contains(QUEUE) && error.contains(expected), "{error}");
    }
    destination.deliver(&failure("49", 10)).await.unwrap();
}

#[tokio::test]
async fn a_queue_that_accepts_and_never_answers_fails_by_the_deliverys_limit_and_recovers() {
    let queue = Queue::answering([Answer::Never]).await;
    let mut destination = queue.destination();
    let patient = destination.limits;
    destination.limits.total = Duration::from_millis(500);
    let error = destination.deliver(&failure("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains(QUEUE) && error.contains("within 500ms"), "{error}");
    *queue.answers.lock().unwrap() = [Answer::Json(200, SENT)].into();
    destination.limits = patient;
    destination.deliver(&failure("49", 10)).await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_is_never_answered_is_repeated_after_the_read_timeout() {
    let queue = Queue::answering([Answer::Never, Answer::Json(200, SENT)]).await;
    let limits = Limits { read: Duration::from_secs(1), ..PATIENT };
    let destination = SqsDestination::with_limits(&config(), QUEUE, Some(&queue.endpoint), limits).unwrap();
    destination.deliver(&failure("49", 10)).await.unwrap();
    assert!(queue.requests().len() >= 2);
}

#[tokio::test]
async fn a_client_without_timeouts_does_not_hang_either() {
    let queue = Queue::answering([Answer::Never]).await;
    let config = Builder::from(&config()).endpoint_url(&queue.endpoint);
    let config = config.timeout_config(TimeoutConfig::disabled()).build();
    let url = format!("{}/123456789012/orders-dlq", queue.endpoint);
    let mut destination = SqsDestination::new(Client::from_conf(config), QUEUE, url).unwrap();
    assert_eq!(destination.limits.total, Duration::from_secs(10));
    destination.limits.total = Duration::from_millis(500);
    destination.deliver(&failure("49", 10)).await.unwrap_err();
}

#[tokio::test]
async fn a_queue_that_cannot_be_reached_is_an_error_with_its_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let destination = SqsDestination::from_sdk_config(&config(), QUEUE, Some(&endpoint)).unwrap();
    let error = destination.deliver(&failure("49", 10)).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.source.is_some());
}

#[tokio::test]
async fn i3_an_answer_without_a_message_id_does_not_count_as_delivered() {
    let queue = Queue::answering([Answer::Json(200, "{}")]).await;
    let error = queue.destination().deliver(&failure("49", 10)).await.unwrap_err().to_string();
    assert!(error.contains("has no message id; check the endpoint"), "{error}");
}

#[test]
fn r77_fifo_queues_and_texts_that_are_no_queue_are_refused() {
    for (arn, expected) in [
        ("arn:aws:sqs:eu-west-1:123456789012:orders.fifo", "is a FIFO queue"),
        ("arn:aws:sns:eu-west-1:123456789012:orders", "is not the ARN of an SQS queue"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "is not the ARN of an SQS queue"),
        ("arn:aws:sqs:eu-west-1:1234:orders", "has a part that SQS does not permit"),
        ("arn:aws:sqs::123456789012:orders", "has a part that SQS does not permit"),
        ("arn:aws:sqs:eu-west-1:123456789012:a/b", "has a part that SQS does not permit"),
    ] {
        let error = SqsDestination::from_sdk_config(&config(), arn, None).unwrap_err().to_string();
        assert!(error.contains(arn) && error.contains(expected), "{error}");
        let client = Client::new(&config());
        SqsDestination::new(client, arn, "http://127.0.0.1/q").unwrap_err();
    }
}

#[test]
fn the_queues_url_comes_from_its_arn_or_from_the_endpoint() {
    let url = |arn: &str, endpoint: Option<&str>| {
        SqsDestination::from_sdk_config(&config(), arn, endpoint).unwrap().url
    };
    assert_eq!(url(QUEUE, None), "https://sqs.eu-west-1.amazonaws.com/123456789012/orders-dlq");
    let chinese = "arn:aws-cn:sqs:cn-north-1:123456789012:q";
    assert_eq!(url(chinese, None), "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q");
    let local = Some("http://localhost:4566/");
    assert_eq!(url(QUEUE, local), "http://localhost:4566/123456789012/orders-dlq");
    let error = SqsDestination::from_sdk_config(&config(), QUEUE, Some("localhost:4566")).unwrap_err();
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
    let url = |config: &SdkConfig, given| SqsDestination::from_sdk_config(config, QUEUE, given).unwrap().url;
    let general = config().into_builder().endpoint_url("http://all:1").build();
    assert_eq!(url(&general, None), "http://all:1/123456789012/orders-dlq");
    let own = general.into_builder().service_config(Environment).build();
    assert_eq!(url(&own, None), "http://queues:1/123456789012/orders-dlq");
    assert_eq!(url(&own, Some("http://given:1")), "http://given:1/123456789012/orders-dlq");
}
