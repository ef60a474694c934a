//! What is wrong with a mapping.

use std::fmt;
use std::num::NonZeroU32;

/// The sort of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MappingErrorKind {
    /// A required field is not set.
    Missing,
    /// A number, a count or a length is outside its range.
    OutOfRange,
    /// The value is not one of those permitted, or not of the right form.
    InvalidValue,
    /// Two fields exclude each other.
    Conflict,
    /// Lambda refuses this for streams, and so does this crate.
    Refused,
    /// Lambda has it, this version does not. Never ignored, so that semantics never change silently.
    NotSupported,
}

/// One mistake in a mapping: the field, its value, what is permitted, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError {
    field: Box<str>,
    /// Which item, where the field is a list.
    item: Option<usize>,
    /// Where the field is in the text.
    line: Option<NonZeroU32>,
    kind: MappingErrorKind,
    value: Box<str>,
    problem: Box<str>,
    permitted: Box<str>,
    remedy: Box<str>,
    aws: Option<Box<str>>,
}

impl MappingError {
    pub(super) fn new(
        field: impl Into<Box<str>>,
        kind: MappingErrorKind,
        value: impl Into<Box<str>>,
    ) -> Self {
        let (problem, permitted, remedy) = Default::default();
        let (field, value) = (field.into(), value.into());
        Self { field, item: None, line: None, kind, value, problem, permitted, remedy, aws: None }
    }

    pub(super) fn not_supported(field: &'static str, value: impl fmt::Display, remedy: &str) -> Self {
        Self::new(field, MappingErrorKind::NotSupported, value.to_string())
            .problem("is not supported by this version")
            .remedy(remedy)
    }

    pub(super) fn item(self, index: usize) -> Self {
        Self { item: Some(index), ..self }
    }

    pub(super) fn at_line(self, line: Option<usize>) -> Self {
        let line = line.and_then(|line| NonZeroU32::new(u32::try_from(line).ok()?));
        Self { line, ..self }
    }

    pub(super) fn problem(self, text: impl Into<Box<str>>) -> Self {
        Self { problem: text.into(), ..self }
    }

    pub(super) fn permitted(self, text: impl Into<Box<str>>) -> Self {
        Self { permitted: text.into(), ..self }
    }

    pub(super) fn remedy(self, text: impl Into<Box<str>>) -> Self {
        Self { remedy: text.into(), ..self }
    }

    pub(super) fn aws(self, text: impl Into<Box<str>>) -> Self {
        Self { aws: Some(text.into()), ..self }
    }

    /// The field, under AWS's name; dotted below the top level (`Function.Timeout`).
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The line of the field's value, counted from 1, where the mapping was read from a text that has it.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        usize::try_from(self.line?.get()).ok()
    }

    /// Which item, counted from 0, where the mistake is in one item of a list.
    #[must_use]
    pub const fn index(&self) -> Option<usize> {
        self.item
    }

    /// The sort of mistake.
    #[must_use]
    pub const fn kind(&self) -> MappingErrorKind {
        self.kind
    }

    /// The value as it was given; empty if none was.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is permitted; empty where no list or range says it.
    #[must_use]
    pub fn permitted_values(&self) -> &str {
        &self.permitted
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy_text(&self) -> &str {
        &self.remedy
    }

    /// The whole sentence without the field's name.
    #[must_use]
    pub fn message(&self) -> String {
        let mut text = String::new();
        if !self.value.is_empty() {
            text = format!("{} ", Shortened(&self.value));
        }
        text.push_str(&self.problem);
        for (lead, part) in [("; permitted: ", &self.permitted), ("; ", &self.remedy)] {
            if !part.is_empty() {
                text.push_str(lead);
                text.push_str(part);
            }
        }
        text
    }

    /// Lambda's own text for this mistake, verbatim, where it is known (docs/semantics.md, section 1.2).
    #[must_use]
    pub fn aws_message(&self) -> Option<String> {
        self.aws.as_deref().map(str::to_owned)
    }
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match self.item {
            Some(index) => write!(f, "{}[{index}]: {}", self.field, self.message()),
            None => write!(f, "{}: {}", self.field, self.message()),
        }
    }
}

impl std::error::Error for MappingError {}

/// A value in a message: a mistaken 4,000-character pattern does not help anybody.
struct Shortened<'a>(&'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}…", self.0.get(..end).unwrap_or(self.0)),
            None => f.write_str(self.0),
        }
    }
}

/// Every mistake of a mapping, in the order of its fields; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingErrors(Vec<MappingError>);

impl MappingErrors {
    pub(super) const fn of(errors: Vec<MappingError>) -> Self {
        Self(errors)
    }

    /// The mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, MappingError> {
        self.0.iter()
    }
}

impl IntoIterator for MappingErrors {
    type Item = MappingError;
    type IntoIter = std::vec::IntoIter<MappingError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a MappingErrors {
    type Item = &'a MappingError;
    type IntoIter = std::slice::Iter<'a, MappingError>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for MappingErrors {
    /// One line per mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for MappingErrors {}
