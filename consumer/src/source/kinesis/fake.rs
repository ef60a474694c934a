//! A scripted service behind the real SDK client.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::{HttpRequest, HttpResponse};
use aws_sdk_kinesis::config::{
    BehaviorVersion, Builder, Config, Credentials, HttpClient, Region, RuntimeComponents, SharedHttpClient,
};
use aws_sdk_kinesis::error::ConnectorError;
use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use serde_json::{Value, json};
use shardmill_testkit::cbor::Item;
use tokio::time::Instant;

use super::*;

pub(super) const ARN: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";

/// What the service's clock says at the start, in milliseconds since the epoch.
pub(super) const SERVICE_TIME: i64 = 1_790_000_000_000;

/// One scripted answer.
pub(super) enum Answer {
    Ok(Value),
    Error(u16, &'static str),
    /// A status and a body as they are.
    Raw(u16, String),
    /// The connection cannot be made.
    Refused,
    /// The request is taken and never answered.
    Silence,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) api: String,
    pub(super) body: Value,
    /// Whether the body came in CBOR; then it is shown as JSON.
    pub(super) is_cbor: bool,
    pub(super) at: Instant,
    pub(super) uri: String,
    pub(super) headers: BTreeMap<String, String>,
    /// As it came.
    pub(super) bytes: Vec<u8>,
}

/// Answers in the order of its script, each in the encoding of its request; asked for more, it refuses connections.
#[derive(Clone)]
pub(super) struct Service {
    state: Arc<Mutex<State>>,
}

struct State {
    script: VecDeque<Answer>,
    requests: Vec<Request>,
    date: Option<i64>,
    otherwise: Option<Value>,
    has_request_id: bool,
    /// What requests in CBOR get, apart from the script, if they are not understood.
    refusal: Option<(u16, &'static str)>,
}

impl Service {
    pub(super) fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        let script = script.into_iter().collect();
        let (requests, date) = (Vec::new(), Some(SERVICE_TIME));
        let state = State { script, requests, date, otherwise: None, has_request_id: true, refusal: None };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// What to answer once the script has ended.
    pub(super) fn otherwise(self, answer: Value) -> Self {
        self.state.lock().unwrap().otherwise = Some(answer);
        self
    }

    /// A service that does not understand CBOR, and what it answers to that.
    pub(super) fn refusing_cbor(self, status: u16, body: &'static str) -> Self {
        self.state.lock().unwrap().refusal = Some((status, body));
        self
    }

    pub(super) fn set_date(&self, date: Option<i64>) {
        self.state.lock().unwrap().date = date;
    }

    /// Whether answers name the request, as the service's own do.
    pub(super) fn set_request_id(&self, has: bool) {
        self.state.lock().unwrap().has_request_id = has;
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The requests of one API.
    pub(super) fn bodies(&self, api: &str) -> Vec<Value> {
        self.requests().into_iter().filter(|request| request.api == api).map(|request| request.body).collect()
    }

    /// How many there are who could ask it.
    pub(super) fn users(&self) -> usize {
        Arc::strong_count(&self.state)
    }

    pub(super) fn settings(&self) -> Builder {
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(SharedHttpClient::new(self.clone()))
    }

    pub(super) fn client(&self) -> Client {
        Client::from_conf(self.settings().build())
    }

    pub(super) fn source_with(&self, clock: &ServiceClock, limiter: ReadLimiter) -> KinesisSource {
        let source = KinesisSource::from_client(self.client(), ARN).unwrap();
        source.attach(&SourceContext::new(clock.clone(), limiter)).unwrap();
        source
    }

    pub(super) fn source(&self) -> KinesisSource {
        self.source_with(&ServiceClock::new(), ReadLimiter::new())
    }

    fn answer(&self, request: &HttpRequest) -> HttpConnectorFuture {
        let mut state = self.state.lock().unwrap();
        let header = |name| request.headers().get(name).unwrap_or_default().to_owned();
        let body = request.body().bytes().unwrap_or_default();
        let is_cbor = header("content-type") == "application/x-amz-cbor-1.1";
        assert_eq!(header("content-length"), body.len().to_string());
        let body =
            if is_cbor { Item::from_cbor(body).unwrap().to_json().into_bytes() } else { body.to_vec() };
        state.requests.push(Request {
            api: header("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap(),
            is_cbor,
            at: Instant::now(),
            uri: request.uri().to_owned(),
            headers: request.headers().iter().map(|(name, value)| (name.into(), value.into())).collect(),
            bytes: request.body().bytes().unwrap_or_default().to_vec(),
        });
        let refusal =
            state.refusal.filter(|_| is_cbor).map(|(status, body)| Answer::Raw(status, body.to_owned()));
        let answer = refusal.or_else(|| state.script.pop_front());
        let answer = answer.or_else(|| state.otherwise.clone().map(Answer::Ok));
        let (status, body) = match answer {
            Some(Answer::Ok(body)) => (200, encoded(&body, is_cbor)),
            Some(Answer::Error(status, code)) => {
                (status, encoded(&json!({"__type": code, "message": "as the service says"}), is_cbor))
            }
            Some(Answer::Raw(status, body)) => (status, body.into_bytes()),
            Some(Answer::Silence) => return HttpConnectorFuture::new(std::future::pending()),
            Some(Answer::Refused) | None => {
                let refused =
                    std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused");
                return HttpConnectorFuture::ready(Err(ConnectorError::io(refused.into())));
            }
        };
        let mut response = HttpResponse::new(status.try_into().unwrap(), body.into());
        if state.has_request_id {
            response.headers_mut().insert("x-amzn-requestid", "00000000-0000-4000-8000-000000000001");
        }
        if let Some(date) = state.date {
            let date = DateTime::from_secs(date.div_euclid(1000)).fmt(DateTimeFormat::HttpDate).unwrap();
            response.headers_mut().insert("date", date);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

fn encoded(body: &Value, in_cbor: bool) -> Vec<u8> {
    if in_cbor { Item::from_json(body).to_cbor() } else { body.to_string().into_bytes() }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.answer(&request)
    }
}

impl HttpClient for Service {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

pub(super) fn iterator(name: &str) -> Answer {
    Answer::Ok(json!({"ShardIterator": name}))
}

pub(super) fn record(number: &str) -> Value {
    json!({"SequenceNumber": number, "PartitionKey": "k", "Data": "eHg=", "ApproximateArrivalTimestamp": 1_790_000_000.123})
}

pub(super) fn page(numbers: &[&str], next: Option<&str>) -> Answer {
    let records: Vec<Value> = numbers.iter().map(|number| record(number)).collect();
    let mut body = json!({"Records": records, "MillisBehindLatest": 0});
    if let Some(next) = next {
        body["NextShardIterator"] = next.into();
    }
    Answer::Ok(body)
}
