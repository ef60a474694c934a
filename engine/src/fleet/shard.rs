//! A shard of a stream.

use std::fmt;

use crate::record::ShardId;

/// A shard as the service shows it: in a listing, or as one that follows another at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// The shards that it follows: one after a split, two after a merge. A listing may no longer show them.
    pub parents: Vec<ShardId>,
    /// Its hash keys; Kinesis only.
    pub hash_range: Option<HashRange>,
    /// Whether it takes new records, as far as that is known.
    pub open: bool,
}

impl Shard {
    /// A shard that takes new records, without a hash key range.
    #[must_use]
    pub const fn new(id: ShardId, parents: Vec<ShardId>) -> Self {
        Self { id, parents, hash_range: None, open: true }
    }
}

/// A range of hash keys, both ends inclusive. Kinesis divides 0 to 2^128-1 among its open shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashRange {
    /// The lowest hash key.
    pub start: u128,
    /// The highest hash key.
    pub end: u128,
}

impl HashRange {
    /// The range between two hash keys in decimal, as the service and the stores write them; `None` if one of them is
    /// not a number below 2^128.
    #[must_use]
    pub fn parse(start: &str, end: &str) -> Option<Self> {
        Some(Self { start: start.parse().ok()?, end: end.parse().ok()? })
    }
}

impl fmt::Display for HashRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.start, self.end)
    }
}

/// The hash keys that no range of `ranges` covers. The ranges may overlap.
///
/// A hole in a listing means that it lags behind or is broken.
#[must_use]
pub fn uncovered(ranges: impl IntoIterator<Item = HashRange>) -> Vec<HashRange> {
    let mut ranges: Vec<_> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let mut holes = Vec::new();
    let mut next = Some(0_u128);
    for HashRange { start, end } in ranges {
        let Some(from) = next else { break };
        if start > from {
            holes.push(HashRange { start: from, end: start - 1 });
        }
        next = end.checked_add(1).map(|after| after.max(from));
    }
    holes.extend(next.map(|from| HashRange { start: from, end: u128::MAX }));
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holes(ranges: &[(u128, u128)]) -> Vec<(u128, u128)> {
        let ranges = ranges.iter().map(|(start, end)| HashRange { start: *start, end: *end });
        uncovered(ranges).into_iter().map(|hole| (hole.start, hole.end)).collect()
    }

    #[test]
    fn incident_33_holes_of_the_hash_key_space_are_found() {
        assert_eq!(holes(&[(0, u128::MAX)]), []);
        assert_eq!(holes(&[]), [(0, u128::MAX)]);
        assert_eq!(holes(&[(10, 19), (30, u128::MAX), (0, 9)]), [(20, 29)]);
        assert_eq!(holes(&[(5, 30), (7, 9)]), [(0, 4), (31, u128::MAX)], "overlaps are no holes");
        assert_eq!(holes(&[(0, u128::MAX), (3, 4)]), []);
    }

    #[test]
    fn a_hash_range_is_read_from_two_decimal_numbers_below_2_to_the_128() {
        let all = "340282366920938463463374607431768211455";
        assert_eq!(HashRange::parse("0", all), Some(HashRange { start: 0, end: u128::MAX }));
        assert_eq!(HashRange::parse("0", "340282366920938463463374607431768211456"), None);
        assert_eq!(HashRange::parse("", "7"), None);
        assert_eq!(HashRange::parse("-1", "7"), None);
        assert_eq!(HashRange { start: 3, end: 7 }.to_string(), "3 to 7");
    }
}
