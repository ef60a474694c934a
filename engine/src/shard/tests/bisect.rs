//! Bisection (R41 to R45), alone and with partial batch responses, against the traces of the native service.

use super::retries::gaps;
use super::rig::{Did, Function, Reply, Rig, after, failed_at, mapping, success};
use crate::mapping::EventSourceMapping;
use crate::outcome::Outcome;

fn bisecting(change: impl FnOnce(&mut EventSourceMapping)) -> Rig {
    Rig::new(mapping(|m| {
        m.bisect_batch_on_function_error = true;
        m.maximum_retry_attempts = Some(1);
        change(m);
    }))
}

/// A function that throws whenever its batch holds one of `bad`.
fn throws_at(bad: &'static [u64]) -> Function {
    Box::new(|call| {
        let fails = call.records.iter().any(|record| bad.contains(record));
        Reply::After(1, if fails { Outcome::FunctionError } else { success() })
    })
}

#[test]
fn r43_the_native_trace_of_a_bisection_that_isolates_record_2() {
    let mut rig = bisecting(|_| {});
    rig.function = throws_at(&[2]);
    rig.put(1..=4);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![2], vec![3, 4]]);
    assert_eq!(rig.messages(), [(vec![2], 2)]);
    let gaps = gaps(&rig);
    let immediate = [gaps[0], gaps[1], gaps[2], gaps[4]];
    assert_eq!(immediate, [1; 4], "R41: halves come at once");
    assert!((201..=301).contains(&gaps[3]), "only the batch of one backs off: {gaps:?}");
    let ids = rig.ids();
    assert_eq!(ids[3], ids[4], "R21: the retry of [2]");
    let mut distinct = ids.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 5, "R21: each half has an id of its own");
    assert_eq!(rig.stored, after(4));
}

#[test]
fn r44_the_native_trace_of_a_bisection_with_partial_responses() {
    let mut rig = bisecting(|m| m.report_batch_item_failures = true);
    rig.function =
        Box::new(|call| Reply::After(1, if call.records.contains(&2) { failed_at([2]) } else { success() }));
    rig.put(1..=4);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2], vec![2], vec![3, 4]]);
    assert_eq!(rig.messages(), [(vec![2], 2)]);
    let gaps = gaps(&rig);
    assert!(gaps[0] == 1 && gaps[1] == 1 && gaps[3] == 1, "{gaps:?}");
    assert!((201..=301).contains(&gaps[2]), "{gaps:?}");
    let ids = rig.ids();
    assert_eq!(ids[2], ids[3]);
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[3] != ids[4]);
}

#[test]
fn r44_an_error_is_halved_although_partial_responses_are_on() {
    let mut rig = bisecting(|m| m.report_batch_item_failures = true);
    rig.function = throws_at(&[4]);
    rig.put(1..=4);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![1, 2], vec![3, 4], vec![3], vec![4], vec![4]]);
}

#[test]
fn r35_an_unknown_identifier_is_halved_like_an_error() {
    let mut rig = bisecting(|m| m.report_batch_item_failures = true);
    rig.function =
        Box::new(|call| Reply::Now(if call.records.len() > 1 { failed_at([77]) } else { success() }));
    rig.put(1..=3);
    rig.run(60_000);
    assert_eq!(
        rig.batches(),
        [vec![1, 2, 3], vec![1], vec![2, 3], vec![2], vec![3]],
        "R42: 3 becomes 1 and 2"
    );
}

#[test]
fn r42_the_right_half_waits_until_the_left_half_is_finished() {
    let mut rig = bisecting(|m| m.maximum_retry_attempts = Some(2));
    rig.function = throws_at(&[1, 3]);
    rig.put(1..=4);
    rig.run(60_000);
    let expected: [&[u64]; 11] =
        [&[1, 2, 3, 4], &[1, 2], &[1], &[1], &[1], &[2], &[3, 4], &[3], &[3], &[3], &[4]];
    assert_eq!(rig.batches(), expected);
    assert_eq!(rig.messages(), [(vec![1], 3), (vec![3], 3)]);
}

#[test]
fn r43_each_half_has_all_its_attempts_and_splitting_spends_none() {
    let mut rig = bisecting(|m| m.maximum_retry_attempts = Some(0));
    rig.function = throws_at(&[1, 2]);
    rig.put([1, 2]);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2], vec![1], vec![2]]);
    assert_eq!(rig.messages(), [(vec![1], 1), (vec![2], 1)]);
}

#[test]
fn r43_the_next_batch_is_invoked_while_the_message_is_under_way() {
    let mut rig = bisecting(|m| m.maximum_retry_attempts = Some(0));
    rig.function = throws_at(&[1]);
    rig.destination = Some(Box::new(|_| Reply::After(5000, true)));
    rig.put([1, 2]);
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1, 2], vec![1], vec![2]]);
    assert!(rig.trace.iter().any(|(at, did)| matches!(did, Did::Discard { .. }) && *at < 10));
}

#[test]
fn r45_batches_after_a_split_have_their_full_size() {
    let mut rig = bisecting(|m| m.batch_size = 4);
    rig.function = throws_at(&[1]);
    rig.put(1..=8);
    rig.run(60_000);
    assert_eq!(rig.batches().last(), Some(&vec![5, 6, 7, 8]));
}

#[test]
fn i6_a_batch_that_always_fails_is_split_into_single_records_and_no_further() {
    let mut rig = bisecting(|m| m.maximum_retry_attempts = Some(0));
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.put(1..=100);
    rig.checks_each_step = false;
    rig.run(60_000);
    rig.check();
    assert_eq!(rig.batches().len(), 199, "2n - 1");
    assert_eq!(rig.stored, after(100));
    assert_eq!(rig.machine.counters().delivered, 100);
}
