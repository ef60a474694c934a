//! What an HTTP answer means (the table of `Url`).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde::de::IgnoredAny;
use shardmill::{BatchResponse, HandlerError};

use crate::handler::report::Reported;

/// The longest wait that a function can ask for: as long as an invocation may take.
const MAXIMUM_RETRY_AFTER: Duration = Duration::from_secs(900);

/// How answers are read.
#[derive(Debug)]
pub(super) struct Rules {
    /// `Function.NotReachedStatus`.
    pub(super) not_reached_status: Vec<StatusCode>,
    /// The path ends in `/invocations`: Lambda's Runtime Interface Emulator, or something that answers like it.
    pub(super) emulator: bool,
    /// `ReportBatchItemFailures` (R33).
    pub(super) reads_response: bool,
}

impl Rules {
    pub(super) fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<BatchResponse, HandlerError> {
        if self.not_reached_status.contains(&status) {
            let reason = format!("it answered {status}, which NotReachedStatus names");
            // A function that asks for less at a time is there, with or without a `Retry-After`.
            let at_least = (status == StatusCode::TOO_MANY_REQUESTS).then_some(Duration::ZERO);
            let retry_after = retry_after(headers, SystemTime::now()).or(at_least);
            return Err(HandlerError::NotReached { reason, retry_after });
        }
        match status {
            _ if status.is_success() => self.judge_success(headers, body),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Err(HandlerError::TooLarge("it answered 413 Payload Too Large".into()))
            }
            StatusCode::BAD_REQUEST if self.emulator && body.is_empty() => Err(HandlerError::NotReached {
                reason: "it answered 400 without a body: it is busy with another invocation".into(),
                retry_after: None,
            }),
            _ if status.is_redirection() => {
                Err(HandlerError::function(format!("it answered {status}; redirects are not followed")))
            }
            _ => Err(Reported::new(&format!("it answered {status}"), None, body).into()),
        }
    }

    fn judge_success(&self, headers: &HeaderMap, body: &[u8]) -> Result<BatchResponse, HandlerError> {
        if let Some(kind) = headers.get("x-amz-function-error") {
            return Err(
                Reported::new("it answered with X-Amz-Function-Error", Some(kind.as_bytes()), body).into()
            );
        }
        if self.emulator {
            check_emulator(body)?;
        }
        if self.reads_response {
            BatchResponse::from_json(body).map_err(HandlerError::function)
        } else {
            Ok(BatchResponse::success())
        }
    }
}

/// RIE reports failures with status 200: a timeout as plain text, an exception as the error object.
fn check_emulator(body: &[u8]) -> Result<(), HandlerError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    // Values are not read: a number that is too large for this program is JSON all the same.
    let json = std::str::from_utf8(body).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let Some(json) = json else {
        return Err(
            Reported::new("it answered no JSON, as the emulator does after a timeout", None, body).into()
        );
    };
    let fields: BTreeMap<String, IgnoredAny> = serde_json::from_str(json).unwrap_or_default();
    let has = |key: &str| fields.contains_key(key);
    if has("errorType") && has("errorMessage") && !has("batchItemFailures") {
        return Err(Reported::new("it answered with an error", None, body).into());
    }
    Ok(())
}

/// `Retry-After` in seconds or as an HTTP date, at most [`MAXIMUM_RETRY_AFTER`]. What cannot be read counts as absent.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAXIMUM_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(text: &str, now_seconds: u64) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(now_seconds))
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_is_bounded() {
        assert_eq!(waits("7", 0), Some(Duration::from_secs(7)));
        assert_eq!(waits("Thu, 01 Jan 1970 00:01:00 GMT", 20), Some(Duration::from_secs(40)));
        assert_eq!(waits("Thu, 01 Jan 1970 00:01:00 GMT", 90), Some(Duration::ZERO));
        assert_eq!(waits("999999999", 0), Some(MAXIMUM_RETRY_AFTER));
        assert_eq!(waits("soon", 0), None);
    }

    #[test]
    fn r33_an_emulators_answer_need_not_be_numbers_that_this_program_can_hold() {
        let rules = Rules { not_reached_status: vec![], emulator: true, reads_response: false };
        let judge = |body: &str| rules.judge(StatusCode::OK, &HeaderMap::new(), body.as_bytes());
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for body in ["", "1e999", r#"{"n":1e999}"#, &deep, r#"[{"errorType":1,"errorMessage":2}]"#] {
            assert_eq!(judge(body).unwrap(), BatchResponse::success(), "{body}");
        }
        for body in ["Task timed out", r#"{"errorType":"E","errorMessage":"m","n":1e999}"#] {
            assert!(matches!(judge(body), Err(HandlerError::Function(_))), "{body}");
        }
    }

    #[test]
    fn r33_an_answer_is_read_only_if_the_mapping_asks_for_it() {
        let rules = |reads_response| Rules { not_reached_status: vec![], emulator: false, reads_response };
        let judge = |read, body: &str| rules(read).judge(StatusCode::OK, &HeaderMap::new(), body.as_bytes());
        assert_eq!(judge(false, "<html>").unwrap(), BatchResponse::success());
        assert!(matches!(judge(true, "<html>"), Err(HandlerError::Function(_))));
        let partial = r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#;
        assert_eq!(judge(true, partial).unwrap(), BatchResponse::failed(["7"]));
        assert_eq!(judge(false, partial).unwrap(), BatchResponse::success());
    }
}
