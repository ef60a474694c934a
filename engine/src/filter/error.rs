//! What is wrong with a filter pattern.

use std::fmt;

/// The sort of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilterErrorKind {
    /// There are more than [`Filter::MAXIMUM_PATTERNS`](super::Filter::MAXIMUM_PATTERNS).
    TooMany,
    /// A pattern is longer than [`Filter::MAXIMUM_LENGTH`](super::Filter::MAXIMUM_LENGTH).
    TooLong,
    /// A pattern's text is not JSON.
    NotJson,
    /// A part of a pattern is not of the form that its place needs.
    InvalidForm,
    /// No operator of that name exists for filters of event source mappings.
    UnknownOperator,
    /// A field's name is not one that the records of this kind of stream have.
    UnknownField,
    /// One field has two conditions of which both had to hold.
    Twice,
    /// `$or` within `$or` makes more combinations than
    /// [`Filter::MAXIMUM_COMBINATIONS`](super::Filter::MAXIMUM_COMBINATIONS).
    TooManyCombinations,
}

/// One mistake in a filter pattern: which pattern, where in it, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    pub(super) kind: FilterErrorKind,
    pub(super) pattern: Option<usize>,
    pub(super) path: String,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

impl FilterError {
    /// The sort of mistake.
    #[must_use]
    pub const fn kind(&self) -> FilterErrorKind {
        self.kind
    }

    /// Which pattern, counted from 0; `None` where it is about all of them.
    #[must_use]
    pub const fn pattern(&self) -> Option<usize> {
        self.pattern
    }

    /// Where in the pattern: its keys, joined by dots. Empty for the pattern as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there, without the place.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        self.remedy
    }

    /// Lambda's own text for this mistake, where it is known (docs/semantics.md, section 1.2).
    #[must_use]
    pub const fn aws_message(&self) -> Option<&'static str> {
        match self.kind {
            FilterErrorKind::TooMany | FilterErrorKind::TooLong => None,
            _ => Some("Invalid filter pattern definition."),
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.pattern {
            write!(f, "filter {}: ", index + 1)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for FilterError {}
