//! Positions in a shard.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::time::Wall;

/// A sequence number as the service wrote it, compared as an integer (R36).
///
/// The text is kept verbatim, leading zeros included, because the service and the handler expect it back unchanged.
/// Kinesis documents up to 128 digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceNumber(String);

impl SequenceNumber {
    /// Takes the service's text as it is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as the service wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Digits that decide the order: without leading zeros.
    fn significant(&self) -> &[u8] {
        significant(self.0.as_bytes())
    }
}

fn significant(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SequenceNumber {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.significant(), other.significant());
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// Equality and hashing follow the order, so that "007" and "7" are one number everywhere.
impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.significant() == other.significant()
    }
}

impl Eq for SequenceNumber {}

impl Hash for SequenceNumber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.significant().hash(state);
    }
}

/// A record's identity: its sequence number and, inside a KPL aggregate, its sub-sequence number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq {
    /// The sequence number that the service gave.
    pub number: SequenceNumber,
    /// The index inside a KPL aggregate; 0 for a plain record.
    pub sub: u64,
}

impl Seq {
    /// The identity of a plain record.
    #[must_use]
    pub fn plain(number: impl Into<String>) -> Self {
        Self { number: SequenceNumber::new(number), sub: 0 }
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sub {
            0 => fmt::Display::fmt(&self.number, f),
            sub => write!(f, "{}/{sub}", self.number),
        }
    }
}

/// Where to start or resume in a shard. Exhaustive on purpose: a source or a store that does not know a kind of
/// position would lose or redeliver records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Position {
    /// The oldest record that the stream still holds.
    TrimHorizon,
    /// Just after the newest record. Never stored as a place to read from: it is pinned to a time first (I15).
    Latest,
    /// The first record at or after this time by the service's clock, in milliseconds since the epoch.
    AtTimestamp(i64),
    /// This record.
    At(Seq),
    /// The record after this one: the form of every checkpoint.
    After(Seq),
    /// Nothing is left: every record of the shard has been resolved.
    ShardEnd,
}

impl Position {
    /// The pinned start at `time`.
    #[must_use]
    pub const fn at_time(time: Wall) -> Self {
        Self::AtTimestamp(time.as_millis())
    }

    /// Whether a checkpoint may move from `self` to `next`: never backwards, never away from the end (I2).
    #[must_use]
    pub fn may_advance_to(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::ShardEnd, _) => matches!(next, Self::ShardEnd),
            (Self::After(a), Self::After(b)) => a <= b,
            (Self::After(_), Self::ShardEnd) => true,
            (Self::After(_), _) => false,
            _ => true,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::Latest => f.write_str("LATEST"),
            Self::AtTimestamp(ms) => write!(f, "AT_TIMESTAMP {ms}"),
            Self::At(seq) => write!(f, "at {seq}"),
            Self::After(seq) => write!(f, "after {seq}"),
            Self::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r36_sequence_numbers_compare_as_integers_not_as_text() {
        let n = SequenceNumber::new;
        assert!(n("9") < n("10"));
        assert!(n("00012") > n("9"));
        assert_eq!(n("007"), n("7"));
        assert_eq!(n("007").as_str(), "007", "the text stays verbatim");
        assert!(n("49590338271490256608559692538361571095921575989136588898") > n("999"));
        assert_eq!(n("0"), n("000"));
    }

    #[test]
    fn sub_sequence_numbers_order_within_one_sequence_number() {
        let seq = |n: &str, sub| Seq { number: n.into(), sub };
        assert!(seq("5", 1) < seq("5", 2));
        assert!(seq("5", 9) < seq("6", 0));
        assert_eq!(seq("5", 2).to_string(), "5/2");
    }

    #[test]
    fn i2_a_checkpoint_never_moves_backwards_nor_past_the_end() {
        let after = |n: &str| Position::After(Seq::plain(n));
        assert!(Position::TrimHorizon.may_advance_to(&after("1")));
        assert!(after("9").may_advance_to(&after("10")));
        assert!(!after("10").may_advance_to(&after("9")));
        assert!(!after("10").may_advance_to(&Position::TrimHorizon));
        assert!(after("10").may_advance_to(&Position::ShardEnd));
        assert!(!Position::ShardEnd.may_advance_to(&after("11")));
    }

    #[test]
    fn positions_read_as_the_service_names_them() {
        let seq = || Seq::plain("7");
        let all = [
            (Position::TrimHorizon, "TRIM_HORIZON"),
            (Position::Latest, "LATEST"),
            (Position::at_time(Wall::from_millis(12)), "AT_TIMESTAMP 12"),
            (Position::At(seq()), "at 7"),
            (Position::After(seq()), "after 7"),
            (Position::ShardEnd, "SHARD_END"),
        ];
        for (position, text) in all {
            assert_eq!(position.to_string(), text);
        }
        assert_eq!(SequenceNumber::from("007").to_string(), "007");
    }

    #[test]
    fn equal_numbers_hash_alike() {
        let state = std::hash::RandomState::new();
        let hash = |text: &str| std::hash::BuildHasher::hash_one(&state, SequenceNumber::new(text));
        assert_eq!(hash("007"), hash("7"));
        assert_ne!(hash("8"), hash("7"));
    }

    #[test]
    fn i2_a_checkpoint_may_stay_and_a_start_may_move_anywhere() {
        let after = |n: &str| Position::After(Seq::plain(n));
        assert!(after("9").may_advance_to(&after("9")));
        assert!(Position::ShardEnd.may_advance_to(&Position::ShardEnd));
        for start in [Position::TrimHorizon, Position::Latest, Position::AtTimestamp(1)] {
            assert!(
                start.may_advance_to(&Position::ShardEnd) && start.may_advance_to(&after("1")),
                "{start}"
            );
            assert!(
                !after("1").may_advance_to(&start) && !Position::ShardEnd.may_advance_to(&start),
                "{start}"
            );
        }
    }
}
