//! Times of answers.

use crate::time::Wall;

/// Times beyond these are left to the SDK.
const FURTHEST: f64 = 1e12;

/// Epoch seconds as the SDK reads them, rounded to milliseconds: the wire has decimal seconds, which are read as binary
/// ones, so that `.123` becomes 122,999,907 ns. Rounding gives it back.
pub(super) fn seconds(number: &str) -> Option<Wall> {
    let seconds: f64 = number.parse().ok()?;
    if !(-FURTHEST..FURTHEST).contains(&seconds) {
        return None;
    }
    let whole = seconds.floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1e9, cut as the SDK cuts it"
    )]
    let nanos = ((seconds - whole) * 1e9) as u32;
    #[expect(clippy::cast_possible_truncation, reason = "it is within FURTHEST")]
    let whole = whole as i64;
    Some(Wall::from_millis(whole * 1000 + i64::from((nanos + 500_000) / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_to_milliseconds_in_whatever_way_they_are_written() {
        for (text, expected) in [
            ("1790000000.123", 1_790_000_000_123),
            ("1.790000000123E9", 1_790_000_000_123),
            ("1790000000", 1_790_000_000_000),
            ("1.79e9", 1_790_000_000_000),
            ("0", 0),
            ("-1.5", -1500),
            ("1.9999999", 2000),
        ] {
            assert_eq!(seconds(text), Some(Wall::from_millis(expected)), "{text}");
        }
        assert_eq!(seconds("1e300"), None);
        assert_eq!(seconds("1e999"), None, "infinity");
    }
}
