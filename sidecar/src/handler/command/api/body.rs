//! What a process sends: answers and error reports.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::handler::{MAXIMUM_RESPONSE_BYTES, excerpt};

/// How much of an answer that is too large is read on, so that the client gets to see the refusal.
const MAXIMUM_DRAIN_BYTES: usize = 256 * 1024 * 1024;

pub(super) enum Read {
    Whole { body: Bytes, trailers: HeaderMap },
    TooLarge,
    Truncated,
}

pub(super) async fn read(body: Incoming) -> Read {
    let mut body = Limited::new(body, MAXIMUM_DRAIN_BYTES);
    let mut bytes = bytes::BytesMut::new();
    let mut too_large = false;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if error.is::<http_body_util::LengthLimitError>() => return Read::TooLarge,
            Err(_) if too_large => return Read::TooLarge,
            Err(_) => return Read::Truncated,
        };
        match frame.into_data() {
            Ok(data) if too_large || bytes.len() + data.len() > MAXIMUM_RESPONSE_BYTES => {
                too_large = true;
                bytes = bytes::BytesMut::new();
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if too_large { Read::TooLarge } else { Read::Whole { body: bytes.freeze(), trailers } }
}

/// A streamed response reports an error that came late in its trailers.
pub(super) fn error_in(trailers: &HeaderMap) -> Option<String> {
    let kind = trailers.get("lambda-runtime-function-error-type")?;
    Some(format!("{} (reported at the end of a streamed response)", excerpt(kind.as_bytes())))
}

/// An error report as `type: message`.
pub(super) fn describe_error(headers: &HeaderMap, body: Read) -> String {
    let header = headers.get("lambda-runtime-function-error-type").map(|value| excerpt(value.as_bytes()));
    let Read::Whole { body, .. } = body else {
        return header.unwrap_or_else(|| "an error whose report cannot be read".into());
    };
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let field = |key| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = field("errorType").map(str::to_owned).or(header);
    let message = field("errorMessage").map(|text| excerpt(text.as_bytes()));
    match (kind, message) {
        (Some(kind), Some(message)) => format!("{kind}: {message}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => excerpt(&body),
    }
}
