//! Sequence numbers: 56 decimal digits, as Kinesis writes them, strictly increasing in a stream.
//!
//! A number is `49` + the stream's creation epoch in 16 digits + 38 digits that grow by a fixed, large step with every
//! record, split, merge and creation of a shard. Readers can therefore not mistake them for machine integers, nor for
//! consecutive ones, and a number of a deleted and re-created stream is recognisably foreign.

/// Where the low 38 digits start; the figure itself means nothing.
const BASE: u128 = 256_608_559_692_538_361_571_095_921_575_989_136;
/// Distance between two neighbours.
const STEP: u128 = 1_180_591_620_717_411_303;

/// The text of the `counter`-th number of the stream created at `epoch` (ms since 1970).
pub(crate) fn text(epoch: u64, counter: u64) -> String {
    format!("49{epoch:016}{:038}", BASE + u128::from(counter) * STEP)
}

/// Where a sequence number points to, seen from one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The number of this counter, or the smallest counter above it (a number between two neighbours).
    Counter(u64),
    /// A well-formed number of another stream (or an earlier incarnation of this one).
    Foreign,
    /// Not a number.
    Malformed,
}

/// Reads a sequence number back; leading zeros are accepted.
pub(crate) fn parse(epoch: u64, text: &str) -> Parsed {
    if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Parsed::Malformed;
    }
    let digits = text.trim_start_matches('0');
    let prefix = format!("49{epoch:016}");
    let Some(low) = digits.strip_prefix(&prefix).filter(|low| low.len() == 38) else {
        return Parsed::Foreign;
    };
    let Some(above) = low.parse::<u128>().ok().and_then(|n| n.checked_sub(BASE)) else {
        return Parsed::Foreign;
    };
    u64::try_from(above.div_ceil(STEP)).map_or(Parsed::Foreign, Parsed::Counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_56_digits_increase_and_read_back() {
        let numbers: Vec<String> = (0..1_000).map(|c| text(1_700_000_000_000, c)).collect();
        assert!(numbers.iter().all(|n| n.len() == 56));
        assert!(numbers.is_sorted());
        for (counter, number) in (0..).zip(&numbers) {
            assert_eq!(parse(1_700_000_000_000, number), Parsed::Counter(counter));
        }
        assert_eq!(text(1_700_000_000_000, u64::MAX).len(), 56, "no overflow at the far end");
    }

    #[test]
    fn numbers_of_another_stream_and_words_are_told_apart() {
        assert_eq!(parse(1, &text(2, 7)), Parsed::Foreign);
        assert_eq!(parse(1, "0"), Parsed::Foreign);
        assert_eq!(parse(1, "49x"), Parsed::Malformed);
        assert_eq!(parse(1, ""), Parsed::Malformed);
    }
}
