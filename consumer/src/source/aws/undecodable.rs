//! A successful answer that the SDK cannot decode: its records one by one.

use std::borrow::Cow;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
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

/// An HTTP client that answers with a body that was received before, so that the SDK decodes it again.
#[derive(Clone, Debug)]
pub(in crate::source) struct Replay(Bytes);

impl Replay {
    pub(in crate::source) fn client(body: Vec<u8>) -> SharedHttpClient {
        SharedHttpClient::new(Self(body.into()))
    }
}

impl HttpConnector for Replay {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(match 200_u16.try_into() {
            Ok(status) => Ok(HttpResponse::new(status, SdkBody::from(self.0.clone()))),
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
    pub(in crate::source) fn with(&self, records: Vec<Value>) -> Vec<u8> {
        let mut whole = self.frame.clone();
        whole.insert("Records".to_owned(), Value::Array(records));
        Value::Object(whole).to_string().into_bytes()
    }
}
