//! What a function reported about its failure, and which part of it is public.

use serde::Deserialize;
use shardmill::HandlerError;

use super::excerpt;

/// A longer name is no name of a class.
const LONGEST_TYPE: usize = 200;

/// A function's error report. Its message and everything else in its own words often quote the event, or a connection
/// string: only the kind of the error and the size of the report are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    /// The public part.
    pub(crate) summary: String,
    /// The function's own words, on one line and cut.
    pub(crate) details: String,
}

/// Lambda's error object.
#[derive(Default, Deserialize)]
struct Object {
    #[serde(rename = "errorType")]
    kind: Option<String>,
}

impl Reported {
    /// `what` happened, and the body of the answer that says so. `header`: the kind of the error that a header names.
    pub(crate) fn new(what: &str, header: Option<&[u8]>, body: &[u8]) -> Self {
        let object: Object = serde_json::from_slice(body).unwrap_or_default();
        let header = header.and_then(|kind| std::str::from_utf8(kind).ok());
        let kind = object.kind.as_deref().and_then(class_name).or_else(|| header.and_then(class_name));
        let kind = kind.map(|kind| format!("{kind}, ")).unwrap_or_default();
        Self { summary: format!("{what} ({kind}{} bytes)", body.len()), details: excerpt(body) }
    }

    /// What shardmill itself has to say about an answer.
    pub(crate) fn own(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), details: String::new() }
    }
}

impl From<Reported> for HandlerError {
    fn from(reported: Reported) -> Self {
        if reported.details.is_empty() {
            Self::function(reported.summary)
        } else {
            Self::function_with_details(reported.summary, reported.details)
        }
    }
}

/// The name of a class or of one of Lambda's own errors, in any language; nothing else gets through.
fn class_name(text: &str) -> Option<&str> {
    let is_part =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '$' | '*' | '-' | '<' | '>');
    let is_name = !text.is_empty() && text.len() <= LONGEST_TYPE && text.chars().all(is_part);
    is_name.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_86_of_a_functions_error_its_kind_and_size_are_shown_and_never_its_words() {
        let body = br#"{"errorType":"ValueError","errorMessage":"cannot read c2VjcmV0"}"#;
        let reported = Reported::new("it answered 500", None, body);
        assert_eq!(reported.summary, "it answered 500 (ValueError, 64 bytes)");
        assert!(reported.details.contains("c2VjcmV0"));
        let kind = |header: Option<&[u8]>, body: &str| Reported::new("X", header, body.as_bytes()).summary;
        assert_eq!(kind(Some(b"Unhandled"), "plain text"), "X (Unhandled, 10 bytes)");
        assert_eq!(kind(None, r#"{"errorType":"a text with c2VjcmV0"}"#), "X (36 bytes)");
        assert_eq!(kind(Some(b"Runtime.ExitError"), r#"{"errorType":7}"#), "X (Runtime.ExitError, 15 bytes)");
        assert_eq!(kind(None, r#"{"errorType":"std::io::Error"}"#), "X (std::io::Error, 30 bytes)");
        assert_eq!(kind(None, &format!(r#"{{"errorType":"{}"}}"#, "x".repeat(201))), "X (217 bytes)");
    }
}
