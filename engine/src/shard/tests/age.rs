//! Records that are too old (R26 to R32).

use std::sync::Arc;

use super::rig::{Did, Reply, Rig, after, failed_at, mapping, ms, success};
use crate::failure::{Condition, FunctionResponse};
use crate::mapping::EventSourceMapping;
use crate::outcome::Outcome;

fn aged(change: impl FnOnce(&mut EventSourceMapping)) -> Arc<EventSourceMapping> {
    mapping(|m| {
        m.maximum_record_age = Some(ms(60_000));
        m.batch_size = 10;
        change(m);
    })
}

type Message = (Vec<u64>, u32, Condition, Option<FunctionResponse>);

fn messages(rig: &Rig) -> Vec<Message> {
    let message = |(_, did): &(u64, Did)| match did {
        Did::Discard { records, count, condition, response, .. } => {
            Some((records.clone(), *count, *condition, *response))
        }
        _ => None,
    };
    rig.trace.iter().filter_map(message).collect()
}

#[test]
fn r27_the_native_trace_one_expired_record_is_discarded_and_the_five_fresh_ones_are_delivered() {
    let mut rig = Rig::new(aged(|_| {}));
    rig.put_keyed(1, None, -80_000);
    (2..=6).for_each(|n| rig.put_keyed(n, None, -100));
    rig.run(1000);
    assert_eq!(messages(&rig), [(vec![1], 1, Condition::RecordAgeExceeded, None)]);
    assert_eq!(rig.batches(), [vec![2, 3, 4, 5, 6]]);
    assert_eq!(rig.stored, after(6));
}

#[test]
fn r29_a_record_that_expired_before_any_invocation_reports_one_invocation_and_no_response() {
    let mut rig = Rig::new(aged(|m| m.maximum_retry_attempts = Some(0)));
    rig.put_keyed(1, None, -60_001);
    rig.run(1000);
    assert_eq!(messages(&rig), [(vec![1], 1, Condition::RecordAgeExceeded, None)]);
    assert!(rig.batches().is_empty());
    assert_eq!(rig.machine.snapshot(rig.now()).last_result.as_str(), "No records processed", "R18");
}

#[test]
fn r26_a_record_of_exactly_the_maximum_age_is_invoked() {
    let mut rig = Rig::new(aged(|_| {}));
    rig.put_keyed(1, None, -60_000);
    rig.run(1000);
    assert_eq!((rig.batches(), messages(&rig)), (vec![vec![1]], vec![]));
}

#[test]
fn r28_expiry_while_retrying_ends_the_retries_and_counts_the_tries() {
    let mut rig = Rig::new(aged(|_| {}));
    rig.put_keyed(1, None, -10_000);
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.run(120_000);
    let tries = u32::try_from(rig.batches().len()).unwrap();
    assert!(tries > 5, "{tries}");
    let unhandled = Some(FunctionResponse::Unhandled);
    assert_eq!(messages(&rig), [(vec![1], tries, Condition::RecordAgeExceeded, unhandled)]);
    let given_up = rig.trace.iter().find(|(_, did)| matches!(did, Did::Discard { .. })).unwrap().0;
    assert_eq!(given_up, 50_001, "the backoff does not outlast the record");
    assert_eq!(rig.machine.snapshot(rig.now()).last_result.as_str(), "PROBLEM: Function call failed");
}

#[test]
fn r27_a_retried_batch_loses_only_its_expired_prefix_and_the_rest_is_a_new_batch() {
    let mut rig = Rig::new(aged(|m| m.maximum_retry_attempts = Some(1)));
    rig.put_keyed(1, None, -59_900);
    rig.put_keyed(2, None, 0);
    rig.put_keyed(3, None, 0);
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.run(10_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3], vec![2, 3], vec![2, 3]]);
    let ids = rig.ids();
    assert!(ids[0] != ids[1] && ids[1] == ids[2], "R21");
    let unhandled = Some(FunctionResponse::Unhandled);
    assert_eq!(
        messages(&rig),
        [
            (vec![1], 1, Condition::RecordAgeExceeded, unhandled),
            (vec![2, 3], 2, Condition::RetryAttemptsExhausted, unhandled)
        ]
    );
}

#[test]
fn r27_what_is_left_of_a_waiting_batch_waits_for_the_rest_of_its_backoff() {
    let mut rig = Rig::new(aged(|m| m.maximum_retry_attempts = None));
    for n in 1..=10 {
        rig.put_keyed(n, None, -59_000 + i64::try_from(n).unwrap() * 10);
    }
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.run(900);
    let tries = rig.invocations().len();
    rig.run(600);
    assert_eq!(messages(&rig).len(), 10, "each record expires at its own time");
    assert_eq!(
        rig.invocations().len(),
        tries,
        "and none of them is a reason to invoke the others before their time"
    );
}

#[test]
fn r23_records_that_expire_while_the_function_is_not_reached_do_not_make_it_called_sooner() {
    for batch_size in [1, 10] {
        let mut rig = Rig::new(aged(|m| m.batch_size = batch_size));
        for n in 1..=100 {
            rig.put_keyed(n, None, -60_000 + i64::try_from(n).unwrap() * 10);
        }
        rig.put_keyed(101, None, 0);
        rig.function = Box::new(|call| match call.nth {
            1 if call.records[0] == 1 => Reply::Now(Outcome::NotReached { retry_after: Some(ms(5000)) }),
            _ => Reply::Now(success()),
        });
        rig.run(10_000);
        assert_eq!(rig.invocations()[1..], [(5000, vec![101])]);
        let given_up: Vec<_> = messages(&rig).into_iter().flat_map(|message| message.0).collect();
        assert_eq!(given_up, (1..=100).collect::<Vec<_>>());
    }
}

#[test]
fn r30_records_that_expire_one_after_the_other_are_one_message_each() {
    let mut rig = Rig::new(aged(|m| m.batching_window = ms(300_000)));
    rig.put_keyed(1, None, 0);
    rig.put_keyed(2, None, 5_000);
    rig.run(70_000);
    let expired = |n| (vec![n], 1, Condition::RecordAgeExceeded, None);
    assert_eq!(messages(&rig), [expired(1), expired(2)]);
}

#[test]
fn r30_records_that_are_too_old_at_the_same_time_are_one_message() {
    let mut rig = Rig::new(aged(|_| {}));
    (1..=3).for_each(|n| rig.put_keyed(n, None, -70_000));
    rig.put_keyed(4, None, 0);
    rig.run(1000);
    assert_eq!(messages(&rig), [(vec![1, 2, 3], 1, Condition::RecordAgeExceeded, None)]);
    assert_eq!(rig.batches(), [vec![4]]);
}

#[test]
fn r31_a_record_expires_while_its_batching_window_is_still_open_and_younger_ones_stay() {
    let mut rig = Rig::new(aged(|m| m.batching_window = ms(80_000)));
    rig.put_keyed(1, None, 0);
    rig.put_keyed(2, None, 40_000);
    rig.run(100_000);
    let given_up = rig.trace.iter().find(|(_, did)| matches!(did, Did::Discard { .. })).unwrap();
    assert_eq!(given_up.0, 60_001);
    assert_eq!(rig.invocations(), [(80_000, vec![2])]);
}

#[test]
fn r27_a_backlog_of_expired_records_is_discarded_in_batches() {
    let mut rig = Rig::new(aged(|_| {}));
    (1..=25).for_each(|n| rig.put_keyed(n, None, -70_000));
    rig.put_keyed(26, None, 0);
    rig.run(1000);
    let sizes: Vec<_> = messages(&rig).iter().map(|message| message.0.len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(rig.batches(), [vec![26]]);
}

#[test]
fn i5_an_expired_record_between_fresh_ones_is_never_invoked() {
    let mut rig = Rig::new(aged(|_| {}));
    for (n, arrival) in [(1, 0), (2, -70_000), (3, 0)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1], vec![3]]);
    assert_eq!(messages(&rig), [(vec![2], 1, Condition::RecordAgeExceeded, None)]);
    assert_eq!(rig.stored, after(3));
}

#[test]
fn r44_a_remainder_that_expires_meanwhile_is_discarded_and_bisection_goes_on() {
    let mut rig = Rig::new(aged(|m| {
        m.bisect_batch_on_function_error = true;
        m.report_batch_item_failures = true;
    }));
    (1..=2).for_each(|n| rig.put_keyed(n, None, -59_000));
    (3..=4).for_each(|n| rig.put_keyed(n, None, 0));
    rig.function = Box::new(|call| match call.records.as_slice() {
        [1, 2, 3, 4] => Reply::After(2000, failed_at([2])),
        _ => Reply::Now(success()),
    });
    rig.run(10_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![3, 4]]);
    assert_eq!(messages(&rig), [(vec![2], 1, Condition::RecordAgeExceeded, None)]);
}

#[test]
fn r32_without_a_maximum_age_nothing_expires() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.put_keyed(1, None, -604_800_000);
    rig.run(1000);
    assert_eq!((rig.batches(), messages(&rig)), (vec![vec![1]], vec![]));
}
