//! A service on loopback that answers as a test wants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

#[cfg(any(feature = "sqs", feature = "s3"))]
use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[cfg(any(feature = "sqs", feature = "s3"))]
use super::super::Destination;
use super::super::service::Limits;
#[cfg(any(feature = "sqs", feature = "s3"))]
use crate::conformance::destination::DestinationCase;

/// For tests that never wait for a limit, on a machine however busy.
pub(in super::super) const PATIENT: Limits = Limits {
    connect: Duration::from_secs(30),
    read: Duration::from_secs(30),
    total: Duration::from_secs(60),
};

/// What the service does with a request.
#[derive(Clone, Copy)]
pub(in super::super) enum Answer {
    /// Answers with this status, these headers (each with its line's end) and this body.
    Http(u16, &'static str, &'static str),
    Never,
}

/// One request as it arrived.
pub(in super::super) struct Request {
    /// Method and path.
    #[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "only S3 has more than one path"))]
    pub(in super::super) line: String,
    /// The whole head in lower case.
    pub(in super::super) head: String,
    pub(in super::super) body: Vec<u8>,
}

impl Request {
    /// The value of a header, in lower case.
    #[cfg(feature = "s3")]
    pub(in super::super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Answers in the given order and repeats its last answer.
pub(in super::super) struct FakeService {
    pub(in super::super) endpoint: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeService {
    pub(in super::super) async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
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

    pub(in super::super) fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap()
    }

    /// What to answer from now on.
    pub(in super::super) fn answer(&self, answer: Answer) {
        *self.answers.lock().unwrap() = [answer].into();
    }
}

/// A destination whose service is a fake, for the public suite.
#[cfg(any(feature = "sqs", feature = "s3"))]
pub(in super::super) struct Wire {
    pub(in super::super) service: FakeService,
    pub(in super::super) destination: Arc<dyn Destination>,
    pub(in super::super) done: Answer,
    pub(in super::super) refused: Answer,
    /// What only the head of a delivery has, in lower case.
    pub(in super::super) delivery: &'static str,
}

#[cfg(any(feature = "sqs", feature = "s3"))]
#[async_trait]
impl DestinationCase for Wire {
    fn destination(&self) -> Arc<dyn Destination> {
        Arc::clone(&self.destination)
    }

    async fn arrived(&self) -> Vec<String> {
        let requests = self.service.requests();
        let deliveries = requests.iter().filter(|request| request.head.contains(self.delivery));
        deliveries.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    }

    async fn set_broken(&self, broken: bool) {
        self.service.answer(if broken { self.refused } else { self.done });
    }
}

/// An endpoint without a listener.
pub(in super::super) async fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
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
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).map_or("0", |rest| rest.lines().next().unwrap());
        let length: usize = length.parse().unwrap();
        while bytes.len() < end + length {
            stream.read_buf(&mut bytes).await?;
        }
        let body = bytes[end..end + length].to_vec();
        bytes.drain(..end + length);
        seen.lock().unwrap().push(Request { line, head, body });
        let answer = {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
        };
        match answer.unwrap() {
            Answer::Http(status, headers, body) => {
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await?;
            }
            Answer::Never => std::future::pending().await,
        }
    }
}

/// A client's attempts for each call, and its limits for connecting and for reading an answer in seconds.
pub(in super::super) fn limits_of(
    retries: Option<&RetryConfig>,
    timeouts: Option<&TimeoutConfig>,
) -> (u32, [Option<u64>; 2]) {
    let timeouts = timeouts.unwrap();
    let seconds =
        [timeouts.connect_timeout(), timeouts.read_timeout()].map(|set| set.map(|set| set.as_secs()));
    (retries.unwrap().max_attempts(), seconds)
}

pub(in super::super) fn config() -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}
