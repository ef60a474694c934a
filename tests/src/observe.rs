//! The independent observer: what the service accepted against what the function stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Invocation, Stored, Stream};

/// Sequence numbers by shard.
pub type ByShard = BTreeMap<String, Vec<String>>;

/// What was stored, per shard in the order in which it was stored.
#[must_use]
pub fn by_shard(stored: &[Stored]) -> ByShard {
    let mut shards = ByShard::new();
    for record in stored {
        shards.entry(record.shard.clone()).or_default().push(record.sequence.clone());
    }
    shards
}

/// The same without what came again: only the first of each.
#[must_use]
pub fn first_times(stored: &[Stored]) -> ByShard {
    let mut seen = BTreeSet::new();
    let mut shards = by_shard(stored);
    for (shard, numbers) in &mut shards {
        numbers.retain(|number| seen.insert((shard.clone(), number.clone())));
    }
    shards
}

/// Every record that the stream accepted was stored exactly once, in the order of its shard.
///
/// # Panics
/// It is not so.
pub fn assert_exactly_once_in_order(stream: &Stream, stored: &[Stored]) {
    assert_same(&stream.by_shard(), &by_shard(stored));
}

/// Every record that the stream accepted was stored, in the order of its shard once what came again is left out, and
/// nothing else was.
///
/// # Panics
/// It is not so.
pub fn assert_nothing_lost_in_order(stream: &Stream, stored: &[Stored]) {
    assert_same(&stream.by_shard(), &first_times(stored));
}

/// Whether every record that the stream accepted was stored.
#[must_use]
pub fn is_complete(stream: &Stream, stored: &[Stored]) -> bool {
    let stored: BTreeSet<_> = stored.iter().map(|r| (r.shard.as_str(), r.sequence.as_str())).collect();
    stream.records().iter().all(|put| stored.contains(&(put.shard.as_str(), put.sequence.as_str())))
}

fn assert_same(accepted: &ByShard, stored: &ByShard) {
    let shards: BTreeSet<_> = accepted.keys().chain(stored.keys()).collect();
    for shard in shards {
        let none = Vec::new();
        let (accepted, stored) = (accepted.get(shard).unwrap_or(&none), stored.get(shard).unwrap_or(&none));
        let differs = (0..accepted.len().max(stored.len())).find(|&n| accepted.get(n) != stored.get(n));
        if let Some(n) = differs {
            panic!(
                "{shard}: {} records accepted, {} stored; at place {n} {:?} was accepted and {:?} stored",
                accepted.len(),
                stored.len(),
                accepted.get(n),
                stored.get(n)
            );
        }
    }
}

/// No two invocations of one shard were open at the same time (I1), whoever called.
///
/// # Panics
/// Two were.
pub fn assert_one_at_a_time(invocations: &[Invocation]) {
    let mut by_shard: BTreeMap<&str, Vec<&Invocation>> = BTreeMap::new();
    for invocation in invocations {
        by_shard.entry(&invocation.shard).or_default().push(invocation);
    }
    for (shard, mut calls) in by_shard {
        calls.sort_by_key(|call| call.began);
        for pair in calls.windows(2) {
            let over = pair[0].ended.is_some_and(|(ended, _)| ended <= pair[1].began);
            assert!(over, "{shard}: invocation {} began while {} was open", pair[1].number, pair[0].number);
        }
    }
}
