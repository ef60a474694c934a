//! On-failure destinations: LocalStack's queues, topics and buckets, or a queue that keeps messages in this process.

use std::sync::{Arc, Mutex};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_types::SdkConfig;
use axum::http::HeaderMap;
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use shardmill_tests::{unique, until};

fn sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(endpoint)
        .build()
}

/// A queue of LocalStack.
pub(crate) struct Queue {
    client: Client,
    url: String,
    pub(crate) arn: String,
}

impl Queue {
    pub(crate) async fn create(endpoint: &str) -> Self {
        let client = Client::new(&sdk_config(endpoint));
        let name = unique("discarded");
        let created = client.create_queue().queue_name(&name).send().await.unwrap();
        let url = created.queue_url().unwrap().to_owned();
        Self { client, url, arn: format!("arn:aws:sqs:us-east-1:000000000000:{name}") }
    }

    /// Waits for so many messages and takes them; there are no more.
    pub(crate) async fn take(&self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        until("the messages are in the queue", async || {
            let received = self.client.receive_message().queue_url(&self.url).max_number_of_messages(10);
            let received = received.send().await.unwrap();
            messages.extend(received.messages().iter().map(|message| message.body().unwrap().to_owned()));
            (messages.len() >= count).then_some(())
        })
        .await;
        assert_eq!(messages.len(), count, "{messages:#?}");
        let waiting = QueueAttributeName::ApproximateNumberOfMessages;
        let asked = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(waiting.clone());
        let left = asked.send().await.unwrap();
        assert_eq!(left.attributes().unwrap()[&waiting], "0");
        messages
    }
}

/// A topic of LocalStack with a queue that gets its messages.
pub(crate) struct Topic {
    pub(crate) arn: String,
    pub(crate) subscriber: Queue,
}

impl Topic {
    pub(crate) async fn create(endpoint: &str) -> Self {
        let subscriber = Queue::create(endpoint).await;
        let client = aws_sdk_sns::Client::new(&sdk_config(endpoint));
        let created = client.create_topic().name(unique("discarded")).send().await.unwrap();
        let arn = created.topic_arn().unwrap().to_owned();
        let subscribing = client.subscribe().topic_arn(&arn).protocol("sqs").endpoint(&subscriber.arn);
        subscribing.send().await.unwrap();
        Self { arn, subscriber }
    }
}

/// An object as it came out of a bucket.
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

/// A bucket of LocalStack.
pub(crate) struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
    pub(crate) arn: String,
}

impl Bucket {
    pub(crate) async fn create(endpoint: &str) -> Self {
        let config = aws_sdk_s3::config::Builder::from(&sdk_config(endpoint)).force_path_style(true);
        let client = aws_sdk_s3::Client::from_conf(config.build());
        let name = unique("discarded");
        client.create_bucket().bucket(&name).send().await.unwrap();
        Self { client, arn: format!("arn:aws:s3:::{name}"), name }
    }

    /// All objects, by their keys.
    pub(crate) async fn objects(&self) -> Vec<Object> {
        let listed = self.client.list_objects_v2().bucket(&self.name).send().await.unwrap();
        let mut objects = Vec::new();
        for key in listed.contents().iter().filter_map(|object| object.key()) {
            let object = self.client.get_object().bucket(&self.name).key(key).send().await.unwrap();
            let content_type = object.content_type().unwrap().to_owned();
            let body = object.body.collect().await.unwrap().to_vec();
            let body = String::from_utf8(body).unwrap();
            objects.push(Object { key: key.to_owned(), content_type, body });
        }
        objects
    }
}

/// A message with its times masked: everything that has the form of a time with milliseconds.
pub(crate) fn masked(message: &str) -> String {
    let form = "dddd-dd-ddTdd:dd:dd.dddZ";
    let is_time = |text: &str| {
        text.len() == form.len()
            && text
                .bytes()
                .zip(form.bytes())
                .all(|(c, f)| if f == b'd' { c.is_ascii_digit() } else { c == f })
    };
    let parts: Vec<&str> =
        message.split('"').map(|part| if is_time(part) { "<time>" } else { part }).collect();
    parts.join("\"")
}

/// An SQS that accepts every message and keeps it.
#[derive(Clone)]
pub(crate) struct MemoryQueue {
    pub(crate) address: std::net::SocketAddr,
    messages: Arc<Mutex<Vec<Value>>>,
}

impl MemoryQueue {
    pub(crate) async fn start() -> Self {
        let messages = Arc::<Mutex<Vec<Value>>>::default();
        let kept = Arc::clone(&messages);
        let send = move |headers: HeaderMap, body: String| {
            assert_eq!(headers["x-amz-target"], "AmazonSQS.SendMessage");
            let body: Value = serde_json::from_str(&body).unwrap();
            kept.lock().unwrap().push(serde_json::from_str(body["MessageBody"].as_str().unwrap()).unwrap());
            async { Json(json!({"MessageId": "1", "MD5OfMessageBody": "d41d8cd98f00b204e9800998ecf8427e"})) }
        };
        let app = Router::new().route("/", post(send));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, messages }
    }

    /// The messages so far.
    pub(crate) fn messages(&self) -> Vec<Value> {
        self.messages.lock().unwrap().clone()
    }
}

#[test]
fn only_times_are_masked() {
    let message = r#"{"a":"2026-09-19T09:10:45.948Z","b":"2026-09-19T09:10:45Z","c":1}"#;
    assert_eq!(masked(message), r#"{"a":"<time>","b":"2026-09-19T09:10:45Z","c":1}"#);
}
