//! What a store has asked of its service.

use std::collections::BTreeMap;

/// What a store has asked of its service for one application since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// How many calls have ended, by the service's name of the operation, such as `UpdateItem`; each attempt is one.
    pub calls: BTreeMap<(&'static str, CallOutcome), u64>,
    /// Units of read capacity that the answers named.
    pub read_units: f64,
    /// Units of write capacity that the answers named. A refused write names none, and costs one for each KB of its item.
    pub write_units: f64,
}

/// How a call of a store to its service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CallOutcome {
    /// It was carried out.
    Done,
    /// Its condition did not hold.
    Refused,
    /// The service asks to slow down.
    Throttled,
    /// Any other error, or no answer.
    Failed,
}

impl CallOutcome {
    /// The outcome as a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
        }
    }
}
