//! Answers that are not read: a function that reports failures while the mapping does not ask for them loses records
//! (R33).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

/// A report of failures is shorter, and a longer answer is not looked through.
const LONGEST: usize = 64 << 10;

/// Whether it was said. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    said: Arc<AtomicBool>,
}

impl Unread {
    /// Looks at an answer that is not read; the first one that reports failures brings a warning.
    pub(crate) fn look(&self, body: &[u8]) {
        if !self.said.load(Ordering::Relaxed)
            && reports_failures(body)
            && !self.said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "the function answers batchItemFailures, which the mapping does not read: the batch counts as handled, failed \
                 records included, as in Lambda; add FunctionResponseTypes: [ReportBatchItemFailures]"
            );
        }
    }
}

/// Whether this is an answer that names failures. Most answers are dismissed by one search for the key.
fn reports_failures(body: &[u8]) -> bool {
    const KEY: &[u8] = b"\"batchItemFailures\"";
    if body.len() > LONGEST || !body.windows(KEY.len()).any(|part| part == KEY) {
        return false;
    }
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer["batchItemFailures"].as_array().is_some_and(|failures| !failures.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_103_an_answer_that_names_failures_is_told_from_any_other() {
        for (body, expected) in [
            (r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#, true),
            (r#"{"batchItemFailures": [{}], "more": 1}"#, true),
            (r#"{"batchItemFailures":[]}"#, false),
            (r#"{"batchItemFailures":null}"#, false),
            (r#"["batchItemFailures"]"#, false),
            (r#"{"a":{"batchItemFailures":[1]}}"#, false),
            ("", false),
            ("\"batchItemFailures\"", false),
            ("{\"batchItemFailures\":[", false),
        ] {
            assert_eq!(reports_failures(body.as_bytes()), expected, "{body}");
        }
        let long = format!(r#"{{"batchItemFailures":[1],"a":"{}"}}"#, "x".repeat(LONGEST));
        assert!(!reports_failures(long.as_bytes()));
    }
}
