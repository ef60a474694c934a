//! A successful answer that the SDK cannot decode: its records one by one.

use std::borrow::Cow;

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::{ReconnectMode, RetryConfig};
use bytes::Bytes;
use serde_json::{Map, Value};
use shardmill_engine::cbor_to_json;

/// The body of an answer that was a success and could not be decoded, in JSON also if it came in CBOR. One that was cut has
/// none.
pub(in crate::source) fn body_of<E>(error: &SdkError<E, HttpResponse>) -> Option<Cow<'_, [u8]>> {
    let answer = match error {
        SdkError::ServiceError(answer) => answer.raw(),
        SdkError::ResponseError(answer) => answer.raw(),
        _ => return None,
    };
    let body = answer.body().bytes().filter(|_| answer.status().is_success())?;
    Some(cbor_to_json(body).map_or(Cow::Borrowed(body), Cow::Owned))
}

/// An HTTP client that answers with what was received before, so that the SDK decodes it.
#[derive(Clone, Debug)]
pub(in crate::source) struct Replay {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Replay {
    /// A success with this body.
    pub(in crate::source) fn with(body: Vec<u8>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into() }
    }

    /// This answer. Of a success the service's time was observed when it came; of a refusal the SDK learns how wrong the host's
    /// clock is.
    pub(super) fn of(response: &HttpResponse, body: Bytes) -> Self {
        let is_observed = response.status().is_success();
        let headers = response.headers().iter().filter(|(name, _)| !is_observed || *name != "date");
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { status: response.status().as_u16(), headers, body }
    }

    pub(in crate::source) fn client(self) -> SharedHttpClient {
        SharedHttpClient::new(self)
    }

    /// Whom the SDK signs a call for that goes nowhere.
    pub(in crate::source) fn credentials() -> Credentials {
        Credentials::new("replayed", "replayed", None, None, "replayed")
    }

    /// There is no connection to be closed after a 503.
    pub(in crate::source) fn retries() -> RetryConfig {
        RetryConfig::disabled().with_reconnect_mode(ReconnectMode::ReuseAllConnections)
    }
}

impl HttpConnector for Replay {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(match self.status.try_into() {
            Ok(status) => {
                let mut response = HttpResponse::new(status, SdkBody::from(self.body.clone()));
                for (name, value) in &self.headers {
                    response.headers_mut().append(name.clone(), value.clone());
                }
                Ok(response)
            }
            Err(error) => Err(ConnectorError::other(Box::new(error), None)),
        })
    }
}

impl HttpClient for Replay {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// The sequence number that a record shows, if it can be a position: without one it can be neither named nor passed.
pub(in crate::source) fn number_in(text: &Value) -> Option<&str> {
    text.as_str().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The parts of an answer of `GetRecords`.
pub(in crate::source) struct Parts {
    frame: Map<String, Value>,
    pub(in crate::source) records: Vec<Value>,
}

impl Parts {
    /// `None` if it is not JSON of that form: then its records cannot be found.
    pub(in crate::source) fn of(body: &[u8]) -> Option<Self> {
        let mut frame: Map<String, Value> = serde_json::from_slice(body).ok()?;
        match frame.remove("Records")? {
            Value::Array(records) => Some(Self { frame, records }),
            _ => None,
        }
    }

    /// The answer with these records alone.
    pub(in crate::source) fn with(&self, records: Vec<Value>) -> Replay {
        let mut whole = self.frame.clone();
        whole.insert("Records".to_owned(), Value::Array(records));
        Replay::with(Value::Object(whole).to_string().into_bytes())
    }
}
