//! What an answer means for its batch (R33 to R36, R66).

use std::fmt;

use super::{Rules, tumbling};
use crate::outcome::{BatchResponse, ItemFailure};
use crate::position::SequenceNumber;
use crate::record::Batch;

/// The longest part of an unknown identifier that is shown, in characters.
const SHOWN_IDENTIFIER: usize = 64;

/// What an answer means for its batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every record succeeded.
    Succeeded,
    /// The record at this index is the first that is redelivered; 0 is no progress (R36).
    FailedFrom(usize),
    /// The answer is not what the mapping asks for: the whole batch failed (R35, R66).
    Unusable(AnswerProblem),
}

/// Why an answer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AnswerProblem {
    /// This `itemIdentifier` is the sequence number of no record of the batch (R35).
    UnknownIdentifier(String),
    /// `batchItemFailures` is no list, or an entry's `itemIdentifier` is missing, null, empty or no text (R35).
    NoIdentifier,
    /// The mapping has tumbling windows, and `state` is missing or no object (R66).
    NoState,
    /// The state leaves no room for the rest of the window's next event, which would then always be too large.
    StateTooLarge {
        /// The bytes of the state as it was answered.
        bytes: usize,
    },
}

impl fmt::Display for AnswerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIdentifier(id) => {
                let shown: String = id.chars().take(SHOWN_IDENTIFIER).collect();
                let cut = if shown.len() < id.len() { "…" } else { "" };
                write!(
                    f,
                    "itemIdentifier {shown:?}{cut} names no record of the batch; write the record's sequence number"
                )
            }
            Self::NoIdentifier => f.write_str(
                "an entry of batchItemFailures has no itemIdentifier that is a text (it is missing, null or empty); \
                 write the record's sequence number",
            ),
            Self::NoState => f.write_str(
                "the answer has no state for its tumbling window; answer {\"state\": {...}} to every invocation, the \
                 final one included",
            ),
            Self::StateTooLarge { bytes } => write!(
                f,
                "the state has {bytes} bytes, which leaves no room for the window's next event; answer a smaller state"
            ),
        }
    }
}

/// The lowest reported identifier wins; one that names no record of the batch fails all of it (R35, R36, I7). An answer
/// without a state that its window can continue with fails it as well (R66).
pub(super) fn judge(batch: &Batch, answer: &BatchResponse, rules: &Rules<'_>) -> Verdict {
    if let Some(problem) = rules.mapping.tumbling_window.and_then(|_| state_problem(batch, answer, rules)) {
        return Verdict::Unusable(problem);
    }
    if !rules.mapping.report_batch_item_failures || answer.failures().is_empty() {
        return Verdict::Succeeded;
    }
    let mut lowest = usize::MAX;
    for failure in answer.failures() {
        match place(batch, failure) {
            Ok(at) => lowest = lowest.min(at),
            Err(problem) => return Verdict::Unusable(problem),
        }
    }
    Verdict::FailedFrom(lowest)
}

/// Why the window of a batch cannot continue with what its function answered. A final call passes nothing on.
fn state_problem(batch: &Batch, answer: &BatchResponse, rules: &Rules<'_>) -> Option<AnswerProblem> {
    let Some(state) = answer.state() else { return Some(AnswerProblem::NoState) };
    let (size, limit) = rules.size.filter(|_| !batch.is_empty())?;
    let is_too_large = size.frame(Some(&tumbling::next_call(state))) > limit;
    is_too_large.then_some(AnswerProblem::StateTooLarge { bytes: state.len() })
}

/// Which record of the batch a reported failure names.
fn place(batch: &Batch, failure: &ItemFailure) -> Result<usize, AnswerProblem> {
    let ItemFailure::Identifier(text) = failure else { return Err(AnswerProblem::NoIdentifier) };
    // A shard's records come in order; the sub-records of an aggregate share a number, and the first counts.
    let id = SequenceNumber::new(text.as_str());
    let at = batch.records().partition_point(|record| record.seq.number < id);
    match batch.records().get(at) {
        Some(record) if record.seq.number == id => Ok(at),
        _ => Err(AnswerProblem::UnknownIdentifier(text.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_answer_is_said_with_the_remedy_and_without_a_flood_of_text() {
        let unknown = |id: &str| AnswerProblem::UnknownIdentifier(id.to_owned()).to_string();
        assert_eq!(
            unknown("shardId-0:1"),
            "itemIdentifier \"shardId-0:1\" names no record of the batch; write the record's sequence number"
        );
        let long = unknown(&"ü\n".repeat(1000));
        assert!(long.contains("\\n\"…") && !long.contains('\n') && long.chars().count() < 200, "{long}");
        assert!(AnswerProblem::NoIdentifier.to_string().contains("sequence number"));
        assert!(AnswerProblem::NoState.to_string().contains("state"));
    }
}
