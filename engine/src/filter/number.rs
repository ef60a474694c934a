//! JSON numbers compared by value and exactly, regardless of their length: a number keeps the digits that were written.
//!
//! AWS limits numeric matching to what a double holds; here `0.1`, a 30-digit identifier and `1e-400` compare as they
//! are written.

use std::cmp::Ordering;

/// A number of a pattern.
#[derive(Clone, Debug)]
pub(super) struct Number(Box<str>);

impl Number {
    /// Takes the text of a valid JSON number.
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// How this number compares with the one that `text` writes.
    pub(super) fn compare(&self, text: &[u8]) -> Ordering {
        // Most numbers are written as the pattern writes them.
        if self.0.as_bytes() == text {
            return Ordering::Equal;
        }
        Decimal::read(self.0.as_bytes()).cmp(&Decimal::read(text))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other.0.as_bytes()) == Ordering::Equal
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.compare(other.0.as_bytes()))
    }
}

/// A number as plus or minus `0.DDD` times a power of ten, where the first digit is not zero.
struct Decimal<'a> {
    negative: bool,
    /// The digits before and after the point, without leading zeros.
    digits: (&'a [u8], &'a [u8]),
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Reads the text of a JSON number. Anything else gives some number, never a panic.
    fn read(text: &'a [u8]) -> Self {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (mantissa, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], power_of_ten(&text[at + 1..])),
            None => (text, 0),
        };
        let (whole, decimals) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &mantissa[..0]),
        };
        let whole = without_leading_zeros(whole);
        let significant = if whole.is_empty() { without_leading_zeros(decimals) } else { decimals };
        let zeros = decimals.len() - significant.len();
        let exponent = length(whole).saturating_sub(length(&decimals[..zeros])).saturating_add(power);
        Self { negative, digits: (whole, significant), exponent }
    }

    fn is_zero(&self) -> bool {
        self.digits.0.is_empty() && self.digits.1.is_empty()
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return if other.negative { Ordering::Greater } else { Ordering::Less },
            (false, true) => return if self.negative { Ordering::Less } else { Ordering::Greater },
            (false, false) => {}
        }
        let size = || self.exponent.cmp(&other.exponent).then_with(|| self.compare_digits(other));
        match (self.negative, other.negative) {
            (false, false) => size(),
            (true, true) => size().reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }

    fn compare_digits(&self, other: &Self) -> Ordering {
        let mut mine = self.digits.0.iter().chain(self.digits.1);
        let mut theirs = other.digits.0.iter().chain(other.digits.1);
        loop {
            let (a, b) = (mine.next(), theirs.next());
            if a.is_none() && b.is_none() {
                return Ordering::Equal;
            }
            let order = a.unwrap_or(&b'0').cmp(b.unwrap_or(&b'0'));
            if order.is_ne() {
                return order;
            }
        }
    }
}

fn without_leading_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|digit| **digit == b'0').count()..]
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

/// The number after the `e`; beyond what 64 bits hold, their largest or smallest value.
fn power_of_ten(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let size = digits.iter().fold(0_i64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(i64::from(digit.wrapping_sub(b'0') % 10))
    });
    if negative { -size } else { size }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compare(a: &str, b: &str) -> Ordering {
        Number::new(a).compare(b.as_bytes())
    }

    #[test]
    fn r55_numbers_are_equal_by_value_however_they_are_written() {
        let same = [
            &["300", "300.0", "3.0e2", "3E+2", "30000e-2", "0.3e3", "0.0003e6"][..],
            &["0", "-0", "0.000", "0e9", "-0.0e-7"],
            &["-1.5", "-15e-1", "-0.15e1", "-1.500"],
            &["1e400", "10e399", "0.1e401"],
            &["12345678901234567890123456789", "12345678901234567890123456789.0"],
        ];
        for group in same {
            for (a, b) in group.iter().flat_map(|a| group.iter().map(move |b| (a, b))) {
                assert_eq!(compare(a, b), Ordering::Equal, "{a} and {b}");
            }
        }
    }

    #[test]
    fn r55_numbers_are_ordered_by_value_beyond_what_a_double_holds() {
        let ascending = [
            "-1e99999999999999999999",
            "-5000000000.1",
            "-5e9",
            "-1.01",
            "-1",
            "-1e-400",
            "0",
            "1e-400",
            "0.09",
            "0.1",
            "0.10000000000000000001",
            "1",
            "9.99",
            "10",
            "9007199254740992",
            "9007199254740993",
            "1e400",
            "1e99999999999999999999",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_and_doubles_compare_as_rust_compares_them(a: i64, b: i64, x: f64, y: f64) {
            prop_assert_eq!(compare(&a.to_string(), &b.to_string()), a.cmp(&b));
            let (shown, other) = (format!("{x:e}"), format!("{y}"));
            prop_assert_eq!(compare(&shown, &other), x.partial_cmp(&y).unwrap());
        }

        #[test]
        fn no_text_makes_reading_a_number_panic(a: Vec<u8>, b: Vec<u8>) {
            let _ = Decimal::read(&a).cmp(&Decimal::read(&b));
        }
    }
}
