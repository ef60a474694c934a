//! The independent observer: what the service accepted against what the function stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

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

/// The same without redeliveries: only the first of each.
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

/// Every record that the stream accepted was stored, in the order of its shard without redeliveries, and
/// nothing else was.
///
/// # Panics
/// It is not so.
pub fn assert_nothing_lost_in_order(stream: &Stream, stored: &[Stored]) {
    assert_same(&stream.by_shard(), &first_times(stored));
}

/// Every record that the stream accepted was stored, in the order of its shard and partition key without
/// redeliveries, and nothing else was.
///
/// # Panics
/// It is not so.
pub fn assert_nothing_lost_in_order_per_key(stream: &Stream, stored: &[Stored]) {
    let keys: BTreeMap<_, _> =
        stream.records().iter().map(|put| ((put.shard.as_str(), put.sequence.as_str()), &put.key)).collect();
    let by_key = |shards: ByShard| {
        let mut lanes = ByShard::new();
        for (shard, numbers) in shards {
            for number in numbers {
                let key = keys.get(&(shard.as_str(), number.as_str())).expect("only what was put is stored");
                lanes.entry(format!("{shard}, {key}")).or_default().push(number);
            }
        }
        lanes
    };
    assert_same(&by_key(stream.by_shard()), &by_key(first_times(stored)));
}

/// Every record that the stream accepted was stored, those of a partition key in the order in which they were put, over
/// all shards that they went to: nothing new of a key came before something older of it. Redeliveries are left out.
///
/// The records of a key were put one after the other.
///
/// # Panics
/// It is not so.
pub fn assert_nothing_lost_in_order_per_key_over_reshards(stream: &Stream, stored: &[Stored]) {
    let mut accepted = ByShard::new();
    let mut keys = BTreeMap::new();
    for put in stream.records() {
        let record = format!("{} {}", put.shard, put.sequence);
        accepted.entry(put.key.clone()).or_default().push(record.clone());
        keys.insert(record, &put.key);
    }
    let (mut seen, mut by_key) = (BTreeSet::new(), ByShard::new());
    for record in stored {
        let record = format!("{} {}", record.shard, record.sequence);
        let key = keys.get(&record).expect("only what was put is stored");
        if seen.insert(record.clone()) {
            by_key.entry((*key).clone()).or_default().push(record);
        }
    }
    assert_same(&accepted, &by_key);
}

/// No invocation of a shard began once one of its children had begun (I9), by any caller. `parents` has the parents of
/// each shard.
///
/// # Panics
/// One did.
pub fn assert_parents_first(parents: &ByShard, invocations: &[Invocation]) {
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    for call in invocations {
        first.entry(call.shard.as_str()).or_insert(call.number);
        last.insert(call.shard.as_str(), call.number);
    }
    for (child, parents) in parents {
        let Some(began) = first.get(child.as_str()) else { continue };
        for parent in parents {
            let ended = last.get(parent.as_str()).is_none_or(|number| number < began);
            assert!(ended, "{child} began with invocation {began}, {parent} had {:?}", last[parent.as_str()]);
        }
    }
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

/// No two invocations of one shard were open at the same time (I1), by any caller.
///
/// # Panics
/// Two were.
pub fn assert_one_at_a_time(invocations: &[Invocation]) {
    let mut by_shard: BTreeMap<String, Vec<&Invocation>> = BTreeMap::new();
    for invocation in invocations {
        by_shard.entry(invocation.shard.clone()).or_default().push(invocation);
    }
    assert_none_overlap(by_shard);
}

/// No two invocations with records of one partition key of a shard were open at the same time (R48), by any caller.
///
/// # Panics
/// Two were.
pub fn assert_one_at_a_time_per_key(invocations: &[Invocation]) {
    let mut by_key: BTreeMap<String, Vec<&Invocation>> = BTreeMap::new();
    for invocation in invocations {
        let keys: BTreeSet<&str> = invocation.records.iter().map(|record| record.key.as_str()).collect();
        for key in keys {
            by_key.entry(format!("{}, {key}", invocation.shard)).or_default().push(invocation);
        }
    }
    assert_none_overlap(by_key);
}

/// How many invocations of one shard were open at once at most, of those that one caller made.
#[must_use]
pub fn most_at_once(invocations: &[Invocation]) -> usize {
    let at = |moment: Instant, of: &Invocation| {
        let is_open = |other: &&Invocation| {
            (&other.shard, &other.caller) == (&of.shard, &of.caller)
                && other.began <= moment
                && other.ended.is_none_or(|(ended, _)| moment < ended)
        };
        invocations.iter().filter(is_open).count()
    };
    invocations.iter().map(|invocation| at(invocation.began, invocation)).max().unwrap_or(0)
}

fn assert_none_overlap(groups: BTreeMap<String, Vec<&Invocation>>) {
    for (shard, mut calls) in groups {
        calls.sort_by_key(|call| call.began);
        for pair in calls.windows(2) {
            let over = pair[0].ended.is_some_and(|(ended, _)| ended <= pair[1].began);
            assert!(over, "{shard}: invocation {} began while {} was open", pair[1].number, pair[0].number);
        }
    }
}
