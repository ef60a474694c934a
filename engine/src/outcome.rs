//! How an invocation ended, and what the function said about its records.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The function answered. The answer is read only if `ReportBatchItemFailures` is on (R33).
    Answered(BatchResponse),
    /// The function failed: an exception, a timeout, a crash, an answer that cannot be read (R19).
    FunctionError,
    /// The event is larger than the function's transport takes; spends an attempt without an answer (R24).
    TooLarge,
    /// The function was not reached: no attempt is spent (R23).
    NotReached {
        /// How long the function asked to be left alone.
        retry_after: Option<Duration>,
    },
}

/// What a function answered about its batch: the records that it names are to come again (R34 to R36).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BatchResponse {
    failures: Vec<ItemFailure>,
    /// The text of the JSON object in `state`.
    state: Option<Bytes>,
}

/// One entry of `batchItemFailures`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ItemFailure {
    /// A sequence number, which may or may not be in the batch.
    Identifier(String),
    /// An entry that names nothing: fails the whole batch (R35).
    Unreadable,
}

impl BatchResponse {
    /// Every record succeeded.
    #[must_use]
    pub const fn success() -> Self {
        Self { failures: Vec::new(), state: None }
    }

    /// The records with these sequence numbers failed; the lowest one and everything after it comes again (R36). A
    /// number that is not in the batch fails the whole batch (R35).
    #[must_use]
    pub fn failed<I: Into<String>>(sequence_numbers: impl IntoIterator<Item = I>) -> Self {
        let failures = sequence_numbers.into_iter().map(|id| ItemFailure::Identifier(id.into())).collect();
        Self { failures, state: None }
    }

    /// The same answer with a tumbling window's new state, the text of a JSON object, which the window's next invocation
    /// gets (R66). Anything else than an object counts as no state, which fails the invocation.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<Bytes>) -> Self {
        self.state = Some(state.into()).filter(|text| is_object(text));
        self
    }

    /// Reads a function's JSON answer. An empty body, and any JSON without `batchItemFailures`, is complete success
    /// (R34); an entry without a usable `itemIdentifier` fails the batch (R35). A `state` that is an object is kept as
    /// the function wrote it (R66).
    ///
    /// # Errors
    /// [`InvalidResponse`] if the body is not JSON in UTF-8, or says a field twice.
    pub fn from_json(body: &[u8]) -> Result<Self, InvalidResponse> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(rename = "batchItemFailures", default)]
            failures: serde_json::Value,
            #[serde(borrow, default)]
            state: Option<&'a RawValue>,
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::success());
        }
        let invalid = |reason: &dyn fmt::Display| InvalidResponse { reason: reason.to_string() };
        let text = std::str::from_utf8(body).map_err(|error| invalid(&error))?;
        // Arrays would be read as structs, field by field: only an object has fields here.
        if !is_object_like(body) {
            return match serde_json::from_str::<serde::de::IgnoredAny>(text) {
                Ok(_) => Ok(Self::success()),
                Err(error) => Err(invalid(&error)),
            };
        }
        let answer: Answer<'_> = serde_json::from_str(text).map_err(|error| invalid(&error))?;
        let state = answer.state.map(|state| Bytes::copy_from_slice(state.get().as_bytes()));
        Ok(Self {
            failures: read_failures(&answer.failures),
            state: state.filter(|text| is_object_like(text)),
        })
    }

    pub(crate) fn failures(&self) -> &[ItemFailure] {
        &self.failures
    }

    pub(crate) const fn state(&self) -> Option<&Bytes> {
        self.state.as_ref()
    }
}

fn is_object_like(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'{')
}

fn is_object(text: &[u8]) -> bool {
    is_object_like(text) && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

fn read_failures(value: &serde_json::Value) -> Vec<ItemFailure> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "itemIdentifier")]
        item_identifier: String,
    }
    match value {
        serde_json::Value::Null => Vec::new(),
        serde_json::Value::Array(entries) => entries
            .iter()
            .map(|entry| match Entry::deserialize(entry) {
                Ok(entry) if !entry.item_identifier.is_empty() => {
                    ItemFailure::Identifier(entry.item_identifier)
                }
                _ => ItemFailure::Unreadable,
            })
            .collect(),
        // Something is reported as failed, but it cannot be told what: everything comes again (I7).
        _ => vec![ItemFailure::Unreadable],
    }
}

/// The function's answer is not JSON although its answer is to be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the function's answer is not JSON: {reason}; with ReportBatchItemFailures it must be {{\"batchItemFailures\":[…]}}, or empty"
)]
pub struct InvalidResponse {
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r34_complete_success_has_many_spellings() {
        for body in [
            "",
            " ",
            "\"\"",
            "[]",
            "null",
            "{}",
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
        ] {
            assert_eq!(
                BatchResponse::from_json(body.as_bytes()).unwrap(),
                BatchResponse::success(),
                "{body}"
            );
        }
    }

    #[test]
    fn r35_an_entry_that_names_nothing_is_unreadable_and_never_dropped() {
        for entry in [r#"{"itemIdentifier":123}"#, r#"{"itemIdentifier":""}"#, r#"{"itemIdentifier":null}"#]
            .into_iter()
            .chain([r#"{"foo":123}"#, r#"{"foo":null}"#, "7", "null"])
        {
            let body = format!(r#"{{"batchItemFailures":[{entry}]}}"#);
            let response = BatchResponse::from_json(body.as_bytes()).unwrap();
            assert_eq!(response.failures(), [ItemFailure::Unreadable], "{entry}");
        }
        let response = BatchResponse::from_json(br#"{"batchItemFailures":"49"}"#).unwrap();
        assert_eq!(response.failures(), [ItemFailure::Unreadable]);
    }

    #[test]
    fn identifiers_are_kept_as_written() {
        let body = br#"{"batchItemFailures":[{"itemIdentifier":"49"},{"itemIdentifier":"007"}]}"#;
        assert_eq!(BatchResponse::from_json(body).unwrap(), BatchResponse::failed(["49", "007"]));
    }

    #[test]
    fn an_answer_that_is_no_json_is_an_error() {
        for body in [
            &b"Task timed out"[..],
            b"{\"batchItemFailures\xff\":[{\"itemIdentifier\":\"4\"}]}",
            br#"{"batchItemFailures":[],"batchItemFailures":[{"itemIdentifier":"4"}]}"#,
        ] {
            assert!(BatchResponse::from_json(body).is_err(), "{}", body.escape_ascii());
        }
    }
}
