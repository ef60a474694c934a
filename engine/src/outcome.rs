//! How an invocation ended, and what the function answered about its records.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

/// How an invocation ended. Exhaustive on purpose: each end has its own rule for the batch.
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
        /// The back-off that the function requested (`Retry-After`).
        retry_after: Option<Duration>,
    },
}

/// What a function answered about its batch: the records that it names are to be redelivered (R34 to R36).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BatchResponse {
    failures: Vec<ItemFailure>,
    /// The text of the JSON object in `state`.
    state: Option<Bytes>,
}

/// A function that has nothing to answer: every record succeeded.
impl From<()> for BatchResponse {
    fn from((): ()) -> Self {
        Self::success()
    }
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

    /// The records with these sequence numbers failed; the lowest one and everything after it are redelivered (R36). A
    /// number that is not in the batch fails the whole batch (R35).
    #[must_use]
    pub fn failed<I: Into<String>>(sequence_numbers: impl IntoIterator<Item = I>) -> Self {
        Self { failures: sequence_numbers.into_iter().map(|id| identifier(id.into())).collect(), state: None }
    }

    /// Whether it names failures, readable or not.
    #[must_use]
    pub const fn names_failures(&self) -> bool {
        !self.failures.is_empty()
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
    /// the function wrote it (R66). Of two equal keys the last one counts.
    ///
    /// # Errors
    /// [`InvalidResponse`] if the body is not JSON in UTF-8.
    pub fn from_json(body: &[u8]) -> Result<Self, InvalidResponse> {
        let invalid = |reason: &dyn fmt::Display| InvalidResponse { reason: reason.to_string() };
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::success());
        }
        let text = std::str::from_utf8(body).map_err(|error| invalid(&error))?;
        if !is_object_like(body) {
            let read = serde_json::from_str::<serde::de::IgnoredAny>(text);
            return read.map(|_| Self::success()).map_err(|error| invalid(&error));
        }
        let members: Members<'_> = serde_json::from_str(text).map_err(|error| invalid(&error))?;
        let state = members.get("state").map(|state| state.get().as_bytes());
        Ok(Self {
            failures: members.get("batchItemFailures").map(|list| read_failures(list)).unwrap_or_default(),
            state: state.filter(|text| is_object_like(text)).map(Bytes::copy_from_slice),
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
    // What skips a string does not look whether it is UTF-8.
    let is_json = |text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    is_object_like(text) && std::str::from_utf8(text).is_ok_and(is_json)
}

/// An object's members. Their values stay text: what is not read need not be a number or a string that this program
/// can hold.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn read_failures(list: &RawValue) -> Vec<ItemFailure> {
    if list.get() == "null" {
        return Vec::new();
    }
    match serde_json::from_str::<Vec<&RawValue>>(list.get()) {
        Ok(entries) => entries.into_iter().map(read_failure).collect(),
        // Something is reported as failed, but it is unknown what: everything is redelivered (I7).
        Err(_) => vec![ItemFailure::Unreadable],
    }
}

fn read_failure(entry: &RawValue) -> ItemFailure {
    let members = serde_json::from_str::<Members<'_>>(entry.get()).unwrap_or_default();
    let text = members.get("itemIdentifier").and_then(|id| serde_json::from_str::<String>(id.get()).ok());
    text.map_or(ItemFailure::Unreadable, identifier)
}

/// An empty text names nothing, not even the sequence number 0.
fn identifier(text: String) -> ItemFailure {
    if text.is_empty() { ItemFailure::Unreadable } else { ItemFailure::Identifier(text) }
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
    fn r35_what_no_identifier_can_be_made_of_fails_the_batch_and_is_no_function_error() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for entry in [r#"["49"]"#, r#"{"itemIdentifier":1e999}"#, r#"{"itemIdentifier":"\ud800"}"#, &deep] {
            let body = format!(r#"{{"other":1e999,"batchItemFailures":[{entry}],"more":{deep}}}"#);
            let response = BatchResponse::from_json(body.as_bytes()).unwrap();
            assert_eq!(response.failures(), [ItemFailure::Unreadable], "{entry}");
        }
        assert_eq!(BatchResponse::failed([""]).failures(), [ItemFailure::Unreadable], "not the record 0");
    }

    #[test]
    fn r36_of_two_equal_keys_in_an_answer_the_last_one_counts() {
        let read = |body: &str| BatchResponse::from_json(body.as_bytes()).unwrap();
        let twice = |list: &str| format!(r#"{{"batchItemFailures":[{{"itemIdentifier":"1"}}],{list}}}"#);
        let failed = BatchResponse::failed(["2"]);
        assert_eq!(read(&twice(r#""batchItemFailures":[{"itemIdentifier":"2"}]"#)), failed);
        assert_eq!(read(&twice(r#""batchItem\u0046ailures":null"#)), BatchResponse::success());
        let entry = r#"{"itemIdentifier":"1","itemIdentifier":"2"}"#;
        assert_eq!(read(&format!(r#"{{"batchItemFailures":[{entry}]}}"#)), failed);
        let state = read(r#"{"state":{"n":1},"state":{"n":2}}"#);
        assert_eq!(state.state().map(|text| &text[..]), Some(&br#"{"n":2}"#[..]));
    }

    #[test]
    fn identifiers_are_kept_as_written() {
        let body = br#"{"batchItemFailures":[{"itemIdentifier":"49"},{"itemIdentifier":"007"}]}"#;
        assert_eq!(BatchResponse::from_json(body).unwrap(), BatchResponse::failed(["49", "007"]));
    }

    #[test]
    fn an_answer_that_is_no_json_is_an_error() {
        for body in [&b"Task timed out"[..], b"{\"batchItemFailures\xff\":[{\"itemIdentifier\":\"4\"}]}"] {
            assert!(BatchResponse::from_json(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn r66_a_state_that_is_no_object_in_utf8_is_no_state() {
        let state = |text: &'static [u8]| BatchResponse::success().with_state(text).state().cloned();
        assert_eq!(state(b"{\"a\":1}").as_deref(), Some(&b"{\"a\":1}"[..]));
        for text in [&b"{\"a\":\"\xff\"}"[..], b"[1]", b"1", b"{", b""] {
            assert_eq!(state(text), None, "{text:?}");
        }
    }
}
