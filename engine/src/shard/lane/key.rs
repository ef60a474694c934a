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
