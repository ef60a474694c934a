//! What the Runtime API answers to requests that it does not serve with an invocation.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::handler::MAXIMUM_RESPONSE_BYTES;

pub(super) type Answered = Response<Full<Bytes>>;

fn reply(status: StatusCode, body: &Value) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

pub(super) fn accepted() -> Answered {
    reply(StatusCode::ACCEPTED, &json!({"status": "OK"}))
}

pub(super) fn problem(status: StatusCode, kind: &str, message: &str) -> Answered {
    reply(status, &json!({"errorMessage": message, "errorType": kind}))
}

pub(super) fn invalid_request_id() -> Answered {
    problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
}

pub(super) fn forbidden(why: &str) -> Answered {
    let message = format!("State transition is not allowed: {why}");
    problem(StatusCode::FORBIDDEN, "InvalidStateTransition", &message)
}

pub(super) fn too_large() -> Answered {
    let message = format!("Exceeded maximum allowed payload size ({MAXIMUM_RESPONSE_BYTES} bytes).");
    problem(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
}

pub(super) fn not_found(path: &str) -> Answered {
    problem(StatusCode::NOT_FOUND, "NotFound", &format!("{path} is not part of the runtime API 2018-06-01"))
}

/// A request that is not the function's own.
pub(super) fn stranger(why: &str) -> Answered {
    problem(StatusCode::FORBIDDEN, "Forbidden", &format!("This is the runtime API of another process: {why}"))
}
