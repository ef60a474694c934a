//! Which lane a record goes to.

use crate::record::Record;

/// The lane that keeps the order among records of one key (R48). Records without a key keep theirs in the first lane.
pub(in crate::shard) fn lane_of(record: &Record, lanes: usize) -> usize {
    // FNV-1a: the same in every run and on every host, so that a key stays in its lane.
    let hash = |key: &[u8]| {
        key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let index = |key: &[u8]| usize::try_from(hash(key) % lanes.max(1) as u64).unwrap_or(0);
    record.order_key().map_or(0, index)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::Seq;
    use crate::record::Data;

    #[test]
    fn r48_a_keys_lane_is_the_same_in_every_version() {
        let lane = |key: Option<&str>, lanes| {
            let record = Record::new(Seq::plain("1"), key.map(Into::into), None, Data::Raw(Bytes::new()));
            lane_of(&record, lanes)
        };
        // The remainders of the published values of FNV-1a, 0xaf63dc4c8601ec8c and 0x85944171f73967e8.
        assert_eq!((lane(Some("a"), 10), lane(Some("foobar"), 10)), (6, 8));
        assert_eq!((lane(None, 10), lane(Some("foobar"), 1)), (0, 0));
    }
}
