//! Times as JSON numbers of seconds.

use crate::time::Wall;

/// A time as sign, whole seconds and up to three decimals without trailing zeros.
struct Seconds {
    negative: bool,
    whole: u64,
    decimals: [u8; 3],
    shown: usize,
}

impl Seconds {
    fn of(at: Wall) -> Self {
        let millis = at.as_millis().unsigned_abs();
        let below = millis % 1000;
        let digit = |n: u64| b'0' + u8::try_from(n % 10).expect("a remainder of 10 fits a byte");
        let shown = match below {
            n if n % 100 == 0 => 1,
            n if n % 10 == 0 => 2,
            _ => 3,
        };
        Self {
            negative: at.as_millis() < 0,
            whole: millis / 1000,
            decimals: [digit(below / 100), digit(below / 10), digit(below)],
            shown,
        }
    }
}

pub(crate) fn push_seconds(out: &mut Vec<u8>, at: Wall) {
    let seconds = Seconds::of(at);
    if seconds.negative {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(seconds.whole).as_bytes());
    out.push(b'.');
    out.extend_from_slice(&seconds.decimals[..seconds.shown]);
}

pub(crate) fn seconds_len(at: Wall) -> usize {
    let seconds = Seconds::of(at);
    let digits = seconds.whole.checked_ilog10().map_or(1, |log| log as usize + 1);
    usize::from(seconds.negative) + digits + 1 + seconds.shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_a_float_would_with_at_least_one_decimal() {
        for (ms, expected) in [
            (1_545_084_650_987, "1545084650.987"),
            (1_545_084_650_980, "1545084650.98"),
            (1_545_084_650_500, "1545084650.5"),
            (1_545_084_650_000, "1545084650.0"),
            (1_545_084_650_007, "1545084650.007"),
            (1_545_084_650_070, "1545084650.07"),
            (0, "0.0"),
            (999, "0.999"),
            (-1500, "-1.5"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            let mut out = Vec::new();
            push_seconds(&mut out, Wall::from_millis(ms));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert_eq!(seconds_len(Wall::from_millis(ms)), expected.len(), "{ms}");
        }
    }
}
