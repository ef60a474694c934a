//! In which encoding `GetRecords` is asked for (docs/adr/0034).
//!
//! The SDK speaks JSON. An interceptor rewrites its request into CBOR before it is signed; the answer is read where it
//! lies, or comes to the SDK as JSON. A service that does not understand CBOR shows that by a refusal of its own kind.

use std::sync::atomic::{AtomicU8, Ordering};

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use serde_json::{Map, Value};
use shardmill_engine::{AnswerEncoding, EventSource, cbor_to_json};

use crate::source::aws::by_code;
use crate::source::{SourceError, SourceErrorKind};

pub(super) const CBOR: &str = "application/x-amz-cbor-1.1";
pub(super) const JSON: &str = "application/x-amz-json-1.1";

const UNKNOWN: u8 = 0;
const SPEAKS_CBOR: u8 = 1;
const ONLY_JSON: u8 = 2;

tokio::task_local! {
    /// There is one around the calls that are to be made in CBOR.
    pub(super) static IN_CBOR: ();
}

/// What a client's endpoint has shown to understand.
#[derive(Debug, Default)]
pub(super) struct Spoken(AtomicU8);

impl Spoken {
    /// Whether the next call is made in CBOR.
    pub(super) fn asks_in_cbor(&self, encoding: AnswerEncoding) -> bool {
        match encoding {
            AnswerEncoding::Auto => self.0.load(Ordering::Relaxed) != ONLY_JSON,
            AnswerEncoding::Json => false,
            AnswerEncoding::Cbor => true,
        }
    }

    /// Notes what the answer to a call in CBOR shows: a success, or an error in CBOR, that the endpoint understands it.
    pub(super) fn hear(&self, answer: &Result<GetRecordsOutput, SdkError<GetRecordsError>>) {
        let is_in_cbor = |error: &SdkError<GetRecordsError>| {
            error.raw_response().and_then(|answer| answer.body().bytes()).and_then(cbor_to_json).is_some()
        };
        if answer.as_ref().err().is_none_or(is_in_cbor) {
            let _ = self.0.compare_exchange(UNKNOWN, SPEAKS_CBOR, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// JSON was understood where CBOR was not: there is no more CBOR.
    pub(super) fn fall_back(&self, stream: &EventSource) {
        if self.0.swap(ONLY_JSON, Ordering::Relaxed) != ONLY_JSON {
            tracing::info!(
                stream = %stream.arn,
                "the service does not understand CBOR; GetRecords answers in JSON from now on, which costs more CPU time"
            );
        }
    }

    /// Whether an error of a call in CBOR may mean that the service does not understand CBOR: one that JSON would get as
    /// well is none. Once CBOR was understood, only what cannot mean anything else counts.
    pub(super) fn may_be_refusal(&self, error: &SdkError<GetRecordsError>) -> bool {
        let Some(answer) = error.raw_response() else { return false };
        let status = answer.status().as_u16();
        let code = error.code();
        if status == 415 || matches!(code, Some("UnknownOperationException" | "SerializationException")) {
            return true;
        }
        // A request that was not understood finds no stream, and nothing to throttle.
        let is_understood = |kind| {
            use SourceErrorKind::{AccessDenied, IteratorExpired, NotFound, Throttled, Trimmed};
            matches!(kind, AccessDenied | IteratorExpired | NotFound | Throttled | Trimmed)
        };
        self.0.load(Ordering::Relaxed) != SPEAKS_CBOR
            && matches!(status, 400 | 404 | 405 | 406 | 422 | 500 | 501)
            && !code.and_then(by_code).is_some_and(is_understood)
    }
}

/// A refusal where there is to be no JSON: the error says what to write.
pub(super) fn not_understood(mut error: SourceError) -> SourceError {
    error.message.push_str(
        "; the request was in CBOR, which this service seems not to understand: write Polling.Encoding: auto or json",
    );
    error
}

/// Rewrites the requests of `GetRecords` that are to be made in CBOR.
#[derive(Debug)]
pub(super) struct AskInCbor;

impl Intercept for AskInCbor {
    fn name(&self) -> &'static str {
        "AskInCbor"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if IN_CBOR.try_with(|()| ()).is_err() {
            return Ok(());
        }
        let request = context.request_mut();
        if let Some(cbor) = request.body().bytes().and_then(to_cbor) {
            request.headers_mut().insert("content-type", CBOR);
            request.headers_mut().insert("content-length", cbor.len().to_string());
            *request.body_mut() = SdkBody::from(cbor);
        }
        Ok(())
    }
}

/// A request of texts and whole numbers in CBOR; `None` for any other.
pub(super) fn to_cbor(json: &[u8]) -> Option<Vec<u8>> {
    let members: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let mut out = Vec::with_capacity(json.len() + 8);
    push_head(&mut out, 5, members.len() as u64);
    for (name, value) in &members {
        push_text(&mut out, name);
        match value {
            Value::String(text) => push_text(&mut out, text),
            Value::Number(number) => push_head(&mut out, 0, number.as_u64()?),
            _ => return None,
        }
    }
    Some(out)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The beginning of a value (RFC 8949, section 3), its argument in 4 bytes unless it fits into the first.
fn push_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    match (u8::try_from(argument), u32::try_from(argument)) {
        (Ok(small @ 0..=23), _) => out.push(major << 5 | small),
        (_, Ok(argument)) => {
            out.push(major << 5 | 26);
            out.extend_from_slice(&argument.to_be_bytes());
        }
        _ => {
            out.push(major << 5 | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}
