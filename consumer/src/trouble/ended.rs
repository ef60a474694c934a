//! What the end of an invocation means: for the machine, the metrics, the status and the log.

use shardmill_engine::{BatchResponse, Outcome, Seq, Verdict};

use super::TroubleKind;
use crate::handler::HandlerError;
use crate::metrics::InvocationOutcome;

/// The end of an invocation, judged.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) label: InvocationOutcome,
    pub(crate) error: Option<String>,
    /// What kind of trouble that is, if nothing of the batch came further.
    pub(crate) trouble: Option<TroubleKind>,
}

impl Ended {
    /// `verdict`: how the machine judges the answer. `records`: of the batch, `first` the first of them.
    pub(crate) fn judge(
        result: Result<BatchResponse, HandlerError>,
        verdict: Option<&Verdict>,
        (records, first): (usize, Option<&Seq>),
        timed_out: bool,
    ) -> Self {
        let error = match result {
            Ok(answer) => return Self::answered(answer, verdict, first),
            Err(error) => error,
        };
        let text = Some(error.to_string());
        let (outcome, label, trouble) = match error {
            HandlerError::Function(cause) => {
                let kind = kind_of(&cause.to_string(), timed_out);
                (Outcome::FunctionError, InvocationOutcome::FunctionError, Some(kind))
            }
            // More than one record is halved at once: a part may fit.
            HandlerError::TooLarge(_) => {
                let trouble = (records <= 1).then_some(TroubleKind::TooLarge);
                (Outcome::TooLarge, InvocationOutcome::TooLarge, trouble)
            }
            HandlerError::NotReached { retry_after, .. } => {
                let outcome = Outcome::NotReached { retry_after };
                // A function that requests a back-off is there.
                let trouble = match retry_after {
                    Some(_) => TroubleKind::Throttled,
                    None => TroubleKind::NotReached,
                };
                (outcome, InvocationOutcome::NotReached, Some(trouble))
            }
            // The stop ended it, and nothing is wrong.
            HandlerError::Cut { .. } => {
                (Outcome::NotReached { retry_after: None }, InvocationOutcome::NotReached, None)
            }
        };
        Self { outcome, label, error: text, trouble }
    }

    fn answered(answer: BatchResponse, verdict: Option<&Verdict>, first: Option<&Seq>) -> Self {
        let (label, error, trouble) = match verdict {
            Some(Verdict::Unusable(problem)) => {
                let kind = match problem {
                    shardmill_engine::AnswerProblem::NoState => TroubleKind::NoState,
                    _ => TroubleKind::UnusableAnswer,
                };
                let text = format!("the function's answer cannot be used: {problem}");
                (InvocationOutcome::UnusableAnswer, Some(text), Some(kind))
            }
            Some(Verdict::FailedFrom(0)) => {
                let first = first.map_or_else(String::new, |seq| format!(", record {seq},"));
                let text = format!("the function reports the first record of its batch{first} as failed");
                (InvocationOutcome::Success, Some(text), Some(TroubleKind::PartialFailure))
            }
            // R18: a partial response is a valid answer.
            Some(Verdict::Succeeded | Verdict::FailedFrom(_)) | None => {
                (InvocationOutcome::Success, None, None)
            }
        };
        Self { outcome: Outcome::Answered(answer), label, error, trouble }
    }
}

/// A crash shows in the text only: Lambda's name for a process that ended, or this library's for a panic.
fn kind_of(cause: &str, timed_out: bool) -> TroubleKind {
    if cause.starts_with("Runtime.ExitError") || cause.starts_with("the handler panicked") {
        TroubleKind::Crash
    } else if timed_out {
        TroubleKind::Timeout
    } else {
        TroubleKind::FunctionError
    }
}

#[cfg(test)]
mod tests {
    use shardmill_engine::AnswerProblem;

    use super::*;

    fn kind(
        result: Result<BatchResponse, HandlerError>,
        records: usize,
        timed_out: bool,
    ) -> Option<TroubleKind> {
        Ended::judge(result, None, (records, None), timed_out).trouble
    }

    #[test]
    fn every_way_to_fail_has_its_kind() {
        let function = |text: &str| Err(HandlerError::function(text.to_owned()));
        assert_eq!(kind(function("it answered 500"), 5, false), Some(TroubleKind::FunctionError));
        assert_eq!(kind(function("no answer"), 5, true), Some(TroubleKind::Timeout));
        assert_eq!(kind(function("Runtime.ExitError: signal 11"), 5, false), Some(TroubleKind::Crash));
        assert_eq!(kind(function("the handler panicked: x"), 5, false), Some(TroubleKind::Crash));
        assert_eq!(kind(Err(HandlerError::TooLarge("413".into())), 5, false), None, "halved");
        assert_eq!(kind(Err(HandlerError::TooLarge("413".into())), 1, false), Some(TroubleKind::TooLarge));
        let away = |retry_after| Err(HandlerError::NotReached { reason: "refused".into(), retry_after });
        assert_eq!(kind(away(None), 5, false), Some(TroubleKind::NotReached));
        let asked = Some(std::time::Duration::ZERO);
        assert_eq!(kind(away(asked), 5, false), Some(TroubleKind::Throttled), "429: it is there");
        assert_eq!(kind(Ok(BatchResponse::success()), 5, false), None);
    }

    #[test]
    fn an_answer_is_as_good_as_the_machine_says() {
        let judge = |verdict: Verdict| {
            let first = Seq::plain("7");
            Ended::judge(Ok(BatchResponse::success()), Some(&verdict), (2, Some(&first)), false)
        };
        let unusable = judge(Verdict::Unusable(AnswerProblem::UnknownIdentifier("x".into())));
        assert_eq!(unusable.label, InvocationOutcome::UnusableAnswer);
        assert_eq!(unusable.trouble, Some(TroubleKind::UnusableAnswer));
        assert!(unusable.error.unwrap().contains("itemIdentifier \"x\" names no record"));
        assert_eq!(judge(Verdict::Unusable(AnswerProblem::NoState)).trouble, Some(TroubleKind::NoState));
        let stuck = judge(Verdict::FailedFrom(0));
        assert_eq!(
            (stuck.label, stuck.trouble),
            (InvocationOutcome::Success, Some(TroubleKind::PartialFailure))
        );
        assert!(stuck.error.unwrap().contains("record 7"));
        assert_eq!(judge(Verdict::FailedFrom(1)).trouble, None, "that is progress");
    }
}
