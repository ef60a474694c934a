//! A queue as the on-failure destination: LocalStack's, or one that keeps messages in this process.

use std::sync::{Arc, Mutex};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::QueueAttributeName;
use axum::http::HeaderMap;
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use shardmill_tests::{unique, until};

/// A queue of LocalStack.
pub(crate) struct Queue {
    client: Client,
    url: String,
    pub(crate) arn: String,
}

impl Queue {
    pub(crate) async fn create(endpoint: &str) -> Self {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(endpoint);
        let client = Client::from_conf(config.build());
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

/// A message with its times masked: whatever has the form of a time with milliseconds.
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
