//! What a pattern can ask of one value.

use std::cmp::Ordering;

use super::cidr::Block;
use super::number::Number;
use super::scan::{RawText, Scalar};

/// The array that a pattern has at a key: one of its members must hold for one of the values there.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) values: Vec<Rule>,
    /// `{"exists": true}`: any value will do.
    pub(super) exists: bool,
    /// `{"exists": false}`: it will also do if there is none.
    pub(super) absent: bool,
}

impl Rules {
    /// Whether one rule holds for this value.
    pub(super) fn hold_for(&self, value: Scalar<'_>) -> bool {
        self.exists || self.values.iter().any(|rule| rule.holds_for(value))
    }
}

/// One rule about a value that is there.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Null,
    Bool(bool),
    Number(Number),
    Text(TextRule),
    Range(Range),
    AnythingBut(Excluded),
}

/// A rule about a string.
#[derive(Clone, Debug)]
pub(super) enum TextRule {
    Equals(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    EqualsIgnoreCase(Box<str>),
    PrefixIgnoreCase(Box<str>),
    SuffixIgnoreCase(Box<str>),
    /// `cidr`.
    AddressIn(Block),
}

/// What `anything-but` excludes.
#[derive(Clone, Debug)]
pub(super) enum Excluded {
    Numbers(Vec<Number>),
    Texts(Vec<TextRule>),
}

/// `numeric`: one or two limits, each with whether it belongs to the range.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    pub(super) from: Option<(Number, bool)>,
    pub(super) to: Option<(Number, bool)>,
}

impl Rule {
    fn holds_for(&self, value: Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Null, Scalar::Null) => true,
            (Self::Bool(wanted), Scalar::Bool(value)) => *wanted == value,
            (Self::Number(wanted), Scalar::Number(value)) => wanted.compare(value).is_eq(),
            (Self::Range(range), Scalar::Number(value)) => range.contains(value),
            (Self::Text(rule), Scalar::Text(value)) => rule.holds_for(value),
            // Any value that is not excluded: a number is not the excluded text either.
            (Self::AnythingBut(excluded), value) => !excluded.contains(value),
            _ => false,
        }
    }
}

impl Excluded {
    fn contains(&self, value: Scalar<'_>) -> bool {
        match (self, value) {
            (Self::Numbers(numbers), Scalar::Number(value)) => {
                numbers.iter().any(|n| n.compare(value).is_eq())
            }
            (Self::Texts(rules), Scalar::Text(value)) => rules.iter().any(|rule| rule.holds_for(value)),
            _ => false,
        }
    }
}

impl Range {
    fn contains(&self, value: &[u8]) -> bool {
        let inside = |limit: &Option<(Number, bool)>, beyond: Ordering| match limit {
            // How the limit compares with the value.
            Some((number, included)) => match number.compare(value) {
                Ordering::Equal => *included,
                order => order != beyond,
            },
            None => true,
        };
        inside(&self.from, Ordering::Greater) && inside(&self.to, Ordering::Less)
    }
}

impl TextRule {
    fn holds_for(&self, value: RawText<'_>) -> bool {
        if let Self::Equals(wanted) = self {
            return value.is(wanted.as_bytes());
        }
        let resolved = value.resolved();
        let text = || std::str::from_utf8(&resolved).ok();
        match self {
            Self::Equals(_) => false,
            Self::Prefix(start) => resolved.starts_with(start.as_bytes()),
            Self::Suffix(end) => resolved.ends_with(end.as_bytes()),
            Self::EqualsIgnoreCase(wanted) => {
                text().is_some_and(|text| same_start(wanted.chars(), text.chars()) == Some(true))
            }
            Self::PrefixIgnoreCase(start) => {
                text().is_some_and(|text| same_start(start.chars(), text.chars()).is_some())
            }
            Self::SuffixIgnoreCase(end) => {
                text().is_some_and(|text| same_start(end.chars().rev(), text.chars().rev()).is_some())
            }
            Self::AddressIn(block) => text().is_some_and(|text| block.contains(text)),
        }
    }
}

/// Whether `text` starts with `start`, ignoring case: `Some(true)` if it also ends there.
fn same_start(mut start: impl Iterator<Item = char>, mut text: impl Iterator<Item = char>) -> Option<bool> {
    let all = start.all(|wanted| text.next().is_some_and(|c| same_letter(wanted, c)));
    all.then(|| text.next().is_none())
}

/// Case is a matter of single characters, as in AWS's engine: `ß` and `SS` differ.
fn same_letter(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase()) || a.to_uppercase().eq(b.to_uppercase())
}
