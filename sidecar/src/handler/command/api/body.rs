//! What a process sends: answers and error reports.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::handler::MAXIMUM_RESPONSE_BYTES;
use crate::handler::report::Reported;

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
pub(super) fn error_in(trailers: &HeaderMap) -> Option<Reported> {
    let kind = trailers.get("lambda-runtime-function-error-type")?;
    Some(Reported::new("it reported an error at the end of a streamed response", Some(kind.as_bytes()), b""))
}

/// An error report.
pub(super) fn describe_error(headers: &HeaderMap, body: Read) -> Reported {
    let kind = headers.get("lambda-runtime-function-error-type").map(http::HeaderValue::as_bytes);
    match body {
        Read::Whole { body, .. } => Reported::new("it reported an error", kind, &body),
        Read::TooLarge | Read::Truncated => {
            Reported::new("it reported an error that cannot be read", kind, b"")
        }
    }
}
