//! Partial batch responses (R14, R33 to R39) against the traces of the native service.

use super::retries::gaps;
use super::rig::{Function, Reply, Rig, after, failed_at, mapping, success};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};

fn partial(change: impl FnOnce(&mut EventSourceMapping)) -> Rig {
    Rig::new(mapping(|m| {
        m.report_batch_item_failures = true;
        change(m);
    }))
}

/// A function that reports `bad` whenever its batch holds it.
fn always_bad(bad: u64) -> Function {
    Box::new(move |call| Reply::Now(if call.records.contains(&bad) { failed_at([bad]) } else { success() }))
}

#[test]
fn r33_reported_failures_are_ignored_unless_they_are_asked_for() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::Now(failed_at([1])));
    rig.put([1, 2]);
    rig.run(1000);
    assert_eq!(rig.batches(), [[1, 2]]);
    assert_eq!(rig.stored, after(2));
}

#[test]
fn r34_an_answer_that_names_nothing_is_complete_success() {
    let mut rig = partial(|_| {});
    rig.put([1, 2]);
    rig.run(1000);
    assert_eq!((rig.batches(), rig.stored), (vec![vec![1, 2]], after(2)));
}

#[test]
fn r35_an_unusable_identifier_fails_the_whole_batch_with_the_same_request_id() {
    for answer in [
        r#"{"batchItemFailures":[{"itemIdentifier":"123"}]}"#,
        r#"{"batchItemFailures":[{"itemIdentifier":123}]}"#,
        r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
        r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
        r#"{"batchItemFailures":[{"foo":123}]}"#,
        r#"{"batchItemFailures":[{"itemIdentifier":"3"},{"itemIdentifier":"123"}]}"#,
        r#"{"batchItemFailures":[{"itemIdentifier":"3"},{"foo":null}]}"#,
    ] {
        let mut rig = partial(|m| m.maximum_retry_attempts = Some(1));
        rig.function =
            Box::new(|_| Reply::Now(Outcome::Answered(BatchResponse::from_json(answer.as_bytes()).unwrap())));
        rig.put(1..=4);
        rig.run(1000);
        assert_eq!(rig.batches(), vec![vec![1, 2, 3, 4]; 2], "{answer}");
        assert_eq!(rig.ids()[0], rig.ids()[1], "{answer}");
        assert_eq!(rig.messages(), [(vec![1, 2, 3, 4], 2)], "{answer}");
        assert!(gaps(&rig)[0] >= 200, "{answer}: no progress backs off");
    }
}

#[test]
fn r36_the_lowest_identifier_wins_and_good_records_after_it_come_again() {
    let mut rig = partial(|_| {});
    rig.function = Box::new(|call| match call.records.len() {
        5 => Reply::Now(failed_at([11, 9])),
        _ => Reply::Now(success()),
    });
    rig.put([8, 9, 10, 11, 12]);
    rig.run(1000);
    assert_eq!(
        rig.batches(),
        [vec![8, 9, 10, 11, 12], vec![9, 10, 11, 12]],
        "9 < 11 as integers, not as text"
    );
    assert_ne!(rig.ids()[0], rig.ids()[1], "R21: the remainder is a new batch");
    assert_eq!(gaps(&rig), [0], "progress needs no backoff");
    let counters = rig.machine.counters();
    assert_eq!((counters.invoked, counters.failed), (9, 4));
}

#[test]
fn r14_a_partial_response_moves_the_checkpoint_to_just_before_the_lowest_failure() {
    let mut rig = partial(|_| {});
    rig.function = Box::new(|call| match call.nth {
        1 if call.records.len() == 4 => Reply::After(50, failed_at([3])),
        _ => Reply::Never,
    });
    rig.put(1..=4);
    rig.run(1000);
    assert_eq!(rig.checkpoints(), [(50, after(2))]);
}

#[test]
fn r37_and_r38_the_budget_starts_anew_with_progress_and_the_whole_remainder_is_discarded() {
    let mut rig = partial(|m| m.maximum_retry_attempts = Some(1));
    rig.function = always_bad(2);
    rig.put(1..=4);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2, 3, 4]]);
    assert_eq!(rig.messages(), [(vec![2, 3, 4], 2)], "3 and 4 go with it, never delivered alone");
    let ids = rig.ids();
    assert!(ids[0] != ids[1] && ids[1] == ids[2], "R39: the same remainder keeps its id");
    let gaps = gaps(&rig);
    assert!(gaps[0] == 0 && (200..=300).contains(&gaps[1]), "{gaps:?}");
    assert_eq!(rig.stored, after(4));
    let counters = rig.machine.counters();
    assert_eq!((counters.invoked, counters.failed, counters.delivered), (10, 9, 3));
}

#[test]
fn r37_a_record_that_fails_inside_a_batch_is_invoked_once_there_and_four_times_alone() {
    let mut rig = partial(|m| {
        m.batch_size = 3;
        m.maximum_retry_attempts = Some(3);
    });
    rig.function = always_bad(5);
    rig.put(0..=5);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![0, 1, 2], vec![3, 4, 5], vec![5], vec![5], vec![5], vec![5]]);
    assert_eq!(rig.messages(), [(vec![5], 4)]);
}

#[test]
fn r39_progress_during_retries_is_a_new_batch_with_a_new_budget() {
    let mut rig = partial(|m| m.maximum_retry_attempts = Some(1));
    rig.function = Box::new(|call| match (call.records[0], call.nth) {
        (1, 1) => Reply::Now(failed_at([1])),
        (1, _) => Reply::Now(failed_at([2])),
        (2, 1) => Reply::Now(Outcome::FunctionError),
        (2, _) => Reply::Now(failed_at([3])),
        _ => Reply::Now(success()),
    });
    rig.put(1..=3);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3], vec![1, 2, 3], vec![2, 3], vec![2, 3], vec![3]]);
    let ids = rig.ids();
    assert!(ids[0] == ids[1] && ids[2] == ids[3]);
    assert!(ids[1] != ids[2] && ids[3] != ids[4]);
    assert!(rig.messages().is_empty());
    let gaps = gaps(&rig);
    assert!(gaps[0] >= 200 && gaps[1] == 0 && (200..=300).contains(&gaps[2]) && gaps[3] == 0, "{gaps:?}");
}
