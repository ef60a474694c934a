//! What holds for every batch: one shard, one request id, one result (R2, R10, R13, R14, R18, R21, R41, R78).

use std::sync::Arc;

use bytes::Bytes;

use super::rig::{Reply, Rig, WALL_START, after, failed_at, mapping, ms, record, success};
use crate::failure::Condition;
use crate::intake::{Page, intake};
use crate::outcome::{BatchResponse, Outcome};
use crate::position::{Position, Seq};
use crate::record::{Data, Record};
use crate::shard::{LastResult, ShardAction, ShardEvent, ShardMachine};
use crate::time::{Mono, Now, Wall};

#[test]
fn r2_the_next_batch_waits_for_the_answer_and_nothing_but_the_answer() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 10));
    rig.function = Box::new(|_| Reply::After(5000, success()));
    rig.put(1..=20);
    rig.run(20_000);
    let first: Vec<u64> = (1..=10).collect();
    assert_eq!(rig.invocations()[0], (0, first));
    assert_eq!(rig.invocations()[1].0, 5000, "R10: at once, regardless of what else the function still does");
}

#[test]
fn r13_the_checkpoint_is_the_last_record_of_a_batch_that_succeeded_and_stays_before_one_that_has_not() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 3));
    rig.function = Box::new(|call| match call.records[0] {
        1 => Reply::Now(success()),
        _ => Reply::Now(Outcome::FunctionError),
    });
    rig.put(1..=6);
    rig.run(5000);
    assert_eq!(rig.stored, after(3));
    assert!(rig.checkpoints().iter().all(|(_, upto)| *upto == after(3)));
}

#[test]
fn r14_a_partial_answer_moves_the_checkpoint_to_just_before_the_lowest_failed_record() {
    let mut rig = Rig::new(mapping(|m| m.report_batch_item_failures = true));
    rig.function = Box::new(|_| Reply::Now(failed_at([7, 4])));
    rig.put(1..=9);
    rig.run(5000);
    assert_eq!(rig.stored, after(3));
}

#[test]
fn r18_the_last_result_is_the_last_answer_and_no_discard_changes_it() {
    let mut rig = Rig::new(mapping(|m| {
        m.batch_size = 1;
        m.maximum_retry_attempts = Some(0);
        m.report_batch_item_failures = true;
        m.maximum_record_age = Some(ms(60_000));
    }));
    rig.checks_each_step = false;
    let last = |rig: &Rig| rig.machine.snapshot(rig.now()).last_result;
    assert_eq!(last(&rig), LastResult::NoRecords);
    rig.put_keyed(1, None, -70_000);
    rig.run(1000);
    assert_eq!((last(&rig), rig.messages().len()), (LastResult::NoRecords, 1), "expired before");
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.put_keyed(2, None, 0);
    rig.run(5000);
    assert_eq!((last(&rig), rig.messages().len()), (LastResult::FunctionCallFailed, 2));
    rig.function = Box::new(|call| Reply::Now(failed_at(call.records.clone())));
    rig.put_keyed(3, None, 0);
    rig.run(5000);
    assert_eq!((last(&rig), rig.messages().len()), (LastResult::Ok, 3), "an answer is OK");
    let texts =
        [LastResult::NoRecords, LastResult::Ok, LastResult::FunctionCallFailed].map(LastResult::as_str);
    assert_eq!(texts, ["No records processed", "OK", "PROBLEM: Function call failed"]);
}

#[test]
fn r21_an_unchanged_batch_keeps_its_request_id_and_every_other_batch_has_one_of_its_own() {
    let mut rig = Rig::new(mapping(|m| {
        m.bisect_batch_on_function_error = true;
        m.maximum_retry_attempts = Some(2);
    }));
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.put(1..=2);
    rig.run(10_000);
    assert_eq!(rig.batches(), [vec![1, 2], vec![1], vec![1], vec![1], vec![2], vec![2], vec![2]]);
    let ids = rig.ids();
    assert!(ids[0] != ids[1] && ids[1] == ids[2] && ids[2] == ids[3]);
    assert!(ids[3] != ids[4] && ids[4] == ids[6]);
}

#[test]
fn r41_a_failing_batch_is_split_at_once_without_a_retry_and_without_spending_one() {
    let mut rig = Rig::new(mapping(|m| {
        m.bisect_batch_on_function_error = true;
        m.maximum_retry_attempts = Some(0);
    }));
    rig.function = Box::new(|call| match call.records.len() {
        1 => Reply::Now(success()),
        _ => Reply::Now(Outcome::FunctionError),
    });
    rig.put(1..=4);
    rig.run(10_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![3, 4], vec![3], vec![4]]);
    assert!(rig.invocations().iter().all(|(at, _)| *at == 0), "no backoff");
    assert!(rig.messages().is_empty());
}

#[test]
fn r56_batch_size_counts_what_the_filter_kept() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 3));
    rig.keeps = |record| record.seq.number.as_str().parse::<u64>().unwrap() % 3 == 0;
    rig.put(1..=29);
    rig.run(5000);
    assert_eq!(rig.batches(), [[3, 6, 9], [12, 15, 18], [21, 24, 27]]);
    assert_eq!(rig.stored, after(29), "R15");
    let counters = rig.machine.counters();
    assert_eq!((counters.polled, counters.filtered, counters.invoked), (29, 20, 9));
}

#[test]
fn r78_there_are_two_conditions() {
    let texts = [Condition::RetryAttemptsExhausted, Condition::RecordAgeExceeded].map(Condition::as_str);
    assert_eq!(texts, ["RetryAttemptsExhausted", "RecordAgeExceeded"]);
}

#[test]
fn incident_57_a_bisection_inside_one_aggregate_keeps_the_identity_of_its_sub_records() {
    let arn = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";
    let mapping = crate::mapping::EventSourceMapping::builder(arn, "f")
        .bisect_batch_on_function_error(true)
        .maximum_retry_attempts(0)
        .build();
    let sub = |sub| Seq { number: "7".into(), sub };
    let record = |n| Record::new(sub(n), None, None, Data::Raw(Bytes::from_static(b"x")));
    let now = Now { mono: Mono::from_millis(1), wall: Wall::default() };
    let mut machine =
        ShardMachine::new(Arc::new(mapping.unwrap()), "shard".into(), Position::After(sub(0)), 1, now);
    assert!(matches!(machine.poll_action(now), Some(ShardAction::Open { .. })));
    machine.handle_event(now, ShardEvent::Opened);
    assert!(matches!(machine.poll_action(now), Some(ShardAction::Fetch { .. })));
    let page = Page { records: (0..=3).map(record).collect(), end_of_shard: true, ..Page::default() };
    machine.handle_event(now, ShardEvent::Fetched(intake(page, machine.position(), |_| true)));
    let mut invoked = Vec::new();
    let mut stored = Vec::new();
    let mut given_up = Vec::new();
    while let Some(action) = machine.poll_action(now) {
        let event = match action {
            ShardAction::Invoke(invocation) => {
                let subs: Vec<_> = invocation.batch.records().iter().map(|r| r.seq.sub).collect();
                let bad = subs.contains(&2);
                invoked.push(subs);
                let outcome = if bad { Outcome::FunctionError } else { success() };
                ShardEvent::Invoked { lane: invocation.lane, outcome }
            }
            ShardAction::Discard { id, failed } => {
                given_up.extend(failed.batch.records().iter().map(|r| r.seq.clone()));
                ShardEvent::Delivered(id)
            }
            ShardAction::Checkpoint { upto, .. } => {
                stored.push(upto);
                ShardEvent::Checkpointed
            }
            _ => break,
        };
        machine.handle_event(now, event);
    }
    assert_eq!(
        invoked,
        [vec![1, 2, 3], vec![1], vec![2, 3], vec![2], vec![3]],
        "what was stored is not redelivered"
    );
    assert_eq!(given_up, [sub(2)]);
    assert_eq!(stored.last(), Some(&Position::ShardEnd));
    assert!(stored.contains(&Position::After(sub(1))), "{stored:?}");
}

#[test]
fn r18_an_answer_that_fails_its_batch_because_it_cannot_be_used_is_a_problem() {
    let unusable = [
        (failed_at([99]), true, false),
        (Outcome::Answered(BatchResponse::from_json(br#"{"batchItemFailures":[{}]}"#).unwrap()), true, false),
        (success(), true, true),
    ];
    let usable = [(failed_at([99]), false, false), (failed_at([1]), true, false), (success(), true, false)];
    let last = |(outcome, reports, has_windows): (Outcome, bool, bool)| {
        let mut rig = Rig::new(mapping(|m| {
            m.report_batch_item_failures = reports;
            m.tumbling_window = has_windows.then_some(ms(10_000));
        }));
        rig.function = Box::new(move |_| Reply::Now(outcome.clone()));
        rig.put([1, 2]);
        rig.run(1000);
        rig.machine.snapshot(rig.now()).last_result
    };
    assert_eq!(unusable.map(last), [LastResult::FunctionCallFailed; 3]);
    assert_eq!(usable.map(last), [LastResult::Ok; 3]);
}

#[test]
fn an_invocation_is_over_when_the_mappings_timeout_is() {
    let mapping = mapping(|m| m.timeout = ms(3000));
    let begun = Now { mono: Mono::from_millis(70_000), wall: Wall::from_millis(WALL_START) };
    let mut machine = ShardMachine::new(mapping, "shard".into(), Position::TrimHorizon, 1, begun);
    let deadline = loop {
        let event = match machine.poll_action(begun).unwrap() {
            ShardAction::Open { .. } => ShardEvent::Opened,
            ShardAction::Fetch { .. } => {
                let page = Page { records: vec![record(1, 10)], ..Page::default() };
                ShardEvent::Fetched(intake(page, machine.position(), |_| true))
            }
            ShardAction::Invoke(invocation) => break invocation.deadline,
            other => panic!("{other:?}"),
        };
        machine.handle_event(begun, event);
    };
    assert_eq!(deadline, Mono::from_millis(73_000));
}

#[test]
fn the_iterator_age_is_that_of_the_last_record_when_it_was_invoked() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 2));
    rig.put_keyed(1, None, -9000);
    rig.put_keyed(2, None, -7000);
    assert_eq!(rig.machine.snapshot(rig.now()).iterator_age_millis, None);
    rig.run(1000);
    assert_eq!(rig.machine.snapshot(rig.now()).iterator_age_millis, Some(7000));
}
