//! Tumbling windows (R64 to R70, I8).

use std::sync::Arc;

use bytes::Bytes;

use super::rig::{Call, Did, Reply, Rig, WALL_START, after, failed_at, mapping, ms};
use crate::failure::{Condition, FunctionResponse};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::position::Position;

fn windowed(change: impl FnOnce(&mut EventSourceMapping)) -> Arc<EventSourceMapping> {
    mapping(|m| {
        m.tumbling_window = Some(ms(10_000));
        m.batch_size = 10;
        m.maximum_retry_attempts = Some(1);
        change(m);
    })
}

fn rig(change: impl FnOnce(&mut EventSourceMapping)) -> Rig {
    let mut rig = Rig::new(windowed(change));
    rig.checks_each_step = false;
    rig.function = Box::new(|call| Reply::Now(sum(call)));
    rig
}

/// The sum of the window's sequence numbers as its state.
fn sum(call: &Call) -> Outcome {
    let state = &call.window.as_ref().unwrap().state;
    let before: serde_json::Value = serde_json::from_slice(state).unwrap();
    let sum = before["sum"].as_u64().unwrap_or(0) + call.records.iter().sum::<u64>();
    Outcome::Answered(BatchResponse::success().with_state(format!("{{\"sum\":{sum}}}")))
}

/// Each call: its window's start in seconds, its records, the state, and `final`, `early` or nothing.
type Seen = (i64, Vec<u64>, String, &'static str);

fn calls(rig: &Rig) -> Vec<Seen> {
    let call = |(_, did): &(u64, Did)| match did {
        Did::Invoke { records, window: Some(window), .. } => {
            assert_eq!(window.end.as_millis() - window.start.as_millis(), 10_000);
            let kind = match (window.is_final, window.is_terminated_early) {
                (true, true) => "early",
                (true, false) => "final",
                (false, early) => {
                    assert!(!early);
                    ""
                }
            };
            let state = String::from_utf8(window.state.to_vec()).unwrap();
            let start = (window.start.as_millis() - WALL_START) / 1000;
            Some((start, records.clone(), state.chars().take(12).collect(), kind))
        }
        _ => None,
    };
    rig.trace.iter().filter_map(call).collect()
}

fn seen(start: i64, records: &[u64], state: &str, kind: &'static str) -> Seen {
    (start, records.to_vec(), state.to_owned(), kind)
}

#[test]
fn r67_the_native_trace_state_is_passed_on_and_a_later_record_brings_the_final_call() {
    let mut rig = rig(|m| m.batch_size = 2);
    for (n, arrival) in [(1, 7_000), (2, 8_000), (3, 9_999), (4, 10_000), (5, 12_000)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.run(1000);
    assert_eq!(
        calls(&rig),
        [
            seen(0, &[1, 2], "{}", ""),
            seen(0, &[3], "{\"sum\":3}", ""),
            seen(0, &[], "{\"sum\":6}", "final"),
            seen(10, &[4, 5], "{}", ""),
        ]
    );
    assert_eq!(rig.stored, after(3), "I8: the second window is open");
}

#[test]
fn r67_the_end_of_the_shard_closes_the_window_and_r70_nothing_is_left_for_the_children() {
    let mut rig = rig(|_| {});
    rig.put_keyed(1, None, 0);
    rig.close_at(0);
    rig.run(1000);
    assert_eq!(calls(&rig), [seen(0, &[1], "{}", ""), seen(0, &[], "{\"sum\":1}", "final")]);
    assert_eq!(rig.stored, Position::ShardEnd);
}

#[test]
fn r67_an_idle_window_is_closed_a_hundred_seconds_after_its_end() {
    let mut rig = rig(|_| {});
    rig.put_keyed(1, None, 0);
    rig.run(300_000);
    let invocations = rig.invocations();
    assert_eq!(invocations.len(), 2);
    assert_eq!(invocations[1].0, 110_000);
    assert_eq!(rig.stored, after(1));
}

#[test]
fn r67_a_window_stays_open_while_nobody_knows_whether_records_are_left() {
    let mut rig = rig(|_| {});
    rig.put_keyed(1, None, 0);
    rig.reads = Box::new(|n| match n {
        1 => Reply::Now(Ok(())),
        2..=30 => Reply::Now(Err(crate::shard::FetchFault::Other)),
        _ => Reply::Now(Ok(())),
    });
    rig.run(3_600_000);
    let invocations = rig.invocations();
    let read_again = rig.fetches()[30];
    assert!(read_again > 110_000 && invocations[1].0 == read_again, "{invocations:?} {read_again}");
}

#[test]
fn r67_an_empty_page_in_the_middle_of_a_shard_says_nothing_about_its_end() {
    let mut rig = rig(|_| {});
    rig.put_keyed(1, None, 0);
    rig.behind = |_, _| Some(5000);
    rig.run(200_000);
    assert_eq!(rig.invocations(), [(0, vec![1])], "the window is open: its next record may come");
}

#[test]
fn r66_an_answer_without_a_state_is_a_failed_attempt_that_says_it_returned() {
    let mut rig = rig(|_| {});
    rig.function = Box::new(|_| Reply::Now(super::rig::success()));
    rig.put_keyed(1, None, 0);
    rig.run(5000);
    assert_eq!(rig.batches(), [[1], [1]]);
    assert!(rig.trace.iter().any(|(_, did)| matches!(
        did,
        Did::Discard { count: 2, response: Some(FunctionResponse::Returned), window: Some(_), .. }
    )));
}

#[test]
fn r66_a_partial_answer_keeps_its_state_and_a_discard_leaves_the_state_as_it_was() {
    let mut rig = rig(|m| m.report_batch_item_failures = true);
    (1..=3).for_each(|n| rig.put_keyed(n, None, 0));
    rig.put_keyed(4, None, 10_000);
    rig.function = Box::new(|call| {
        let Outcome::Answered(answer) = sum(call) else { unreachable!() };
        let bad = call.records.first() == Some(&2) || call.records == [1, 2, 3];
        if !bad {
            return Reply::Now(Outcome::Answered(answer));
        }
        let Outcome::Answered(failed) = failed_at([2]) else { unreachable!() };
        Reply::Now(Outcome::Answered(failed.with_state("{\"sum\":1}")))
    });
    rig.run(5000);
    assert_eq!(
        calls(&rig),
        [
            seen(0, &[1, 2, 3], "{}", ""),
            seen(0, &[2, 3], "{\"sum\":1}", ""),
            seen(0, &[2, 3], "{\"sum\":1}", ""),
            seen(0, &[], "{\"sum\":1}", "final"),
            seen(10, &[4], "{}", ""),
        ]
    );
    assert_eq!(rig.messages(), [(vec![2, 3], 2)]);
    assert_eq!(rig.stored, after(3));
}

#[test]
fn r42_the_right_half_gets_the_state_that_the_left_half_ended_with() {
    let mut rig = rig(|m| m.bisect_batch_on_function_error = true);
    (1..=4).for_each(|n| rig.put_keyed(n, None, 0));
    rig.function = Box::new(|call| match call.records.len() {
        4 => Reply::Now(Outcome::FunctionError),
        _ => Reply::Now(sum(call)),
    });
    rig.run(1000);
    assert_eq!(
        calls(&rig),
        [seen(0, &[1, 2, 3, 4], "{}", ""), seen(0, &[1, 2], "{}", ""), seen(0, &[3, 4], "{\"sum\":3}", "")]
    );
}

#[test]
fn r68_the_native_trace_a_state_beyond_one_megabyte_ends_the_window_early_and_the_rest_starts_afresh() {
    let mut rig = rig(|m| m.batch_size = 1);
    (1..=2).for_each(|n| rig.put_keyed(n, None, 0));
    rig.put_keyed(3, None, 10_000);
    rig.function = Box::new(|call| match call.records.as_slice() {
        [1] => {
            let state = format!("{{\"big\":\"{}\"}}", "x".repeat(1 << 20));
            Reply::Now(Outcome::Answered(BatchResponse::success().with_state(state)))
        }
        [] if call.window.as_ref().unwrap().is_terminated_early => {
            Reply::Now(Outcome::Answered(BatchResponse::success().with_state(Bytes::from_static(b"{}"))))
        }
        _ => Reply::Now(sum(call)),
    });
    rig.run(1000);
    assert_eq!(
        calls(&rig),
        [
            seen(0, &[1], "{}", ""),
            seen(0, &[], "{\"big\":\"xxxx", "early"),
            seen(0, &[2], "{}", ""),
            seen(0, &[], "{\"sum\":2}", "final"),
            seen(10, &[3], "{}", ""),
        ]
    );
}

#[test]
fn r69_the_native_trace_a_failing_final_call_is_retried_then_discarded_and_the_next_window_goes_on() {
    let mut rig = rig(|_| {});
    rig.put_keyed(1, None, 0);
    rig.put_keyed(2, None, 10_000);
    rig.destination = Some(Box::new(|_| Reply::After(5000, true)));
    rig.function = Box::new(|call| match call.records.is_empty() {
        true => Reply::Now(Outcome::FunctionError),
        false => Reply::Now(sum(call)),
    });
    rig.run(3000);
    assert_eq!(
        calls(&rig),
        [
            seen(0, &[1], "{}", ""),
            seen(0, &[], "{\"sum\":1}", "final"),
            seen(0, &[], "{\"sum\":1}", "final"),
            seen(10, &[2], "{}", ""),
        ]
    );
    let ids = rig.ids();
    assert_eq!(ids[1], ids[2]);
    assert_eq!(rig.stored, Position::TrimHorizon, "I3: the message is under way");
    rig.run(3000);
    assert_eq!(rig.stored, after(1));
    assert!(rig.trace.iter().any(|(_, did)| matches!(
        did,
        Did::Discard { records, count: 2, condition: Condition::RetryAttemptsExhausted, window: Some(window), .. }
            if records.is_empty() && window.is_final
    )));
}

#[test]
fn r66_a_final_call_whose_answer_has_no_state_failed_too() {
    let mut rig = rig(|m| m.maximum_retry_attempts = Some(0));
    rig.function = Box::new(|call| match call.records.is_empty() {
        true => Reply::Now(super::rig::success()),
        false => Reply::Now(sum(call)),
    });
    rig.put_keyed(1, None, 0);
    rig.close_at(0);
    rig.run(1000);
    assert_eq!(calls(&rig), [seen(0, &[1], "{}", ""), seen(0, &[], "{\"sum\":1}", "final")]);
    assert!(rig.trace.iter().any(|(_, did)| matches!(
        did,
        Did::Discard { records, response: Some(FunctionResponse::Returned), .. } if records.is_empty()
    )));
    assert_eq!(rig.stored, Position::ShardEnd);
}

#[test]
fn i8_a_crash_inside_a_window_replays_it_from_its_start_without_its_state() {
    let mut rig = rig(|m| m.batch_size = 1);
    for (n, arrival) in [(1, 0), (2, 10_000), (3, 11_000)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.run(1000);
    assert_eq!(rig.stored, after(1));
    rig.crash(true);
    let before = rig.trace.len();
    rig.run(1000);
    rig.trace.drain(..before);
    assert_eq!(calls(&rig), [seen(10, &[2], "{}", ""), seen(10, &[3], "{\"sum\":2}", "")]);
}

#[test]
fn i8_a_closed_window_is_not_opened_again_by_a_late_record_not_even_after_a_crash() {
    let mut rig = rig(|_| {});
    rig.put_keyed(1, None, 0);
    rig.run(200_000);
    assert_eq!(calls(&rig).len(), 2, "closed for being idle");
    rig.crash(true);
    rig.put_keyed(2, None, 5_000);
    rig.run(1000);
    assert_eq!(calls(&rig)[2], seen(10, &[2], "{}", ""));
}

#[test]
fn r64_a_record_of_a_later_window_ends_a_batch_without_waiting_for_the_batching_window() {
    let mut rig = rig(|m| m.batching_window = ms(60_000));
    for (n, arrival) in [(1, 0), (2, 1000), (3, 10_000)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.run(1000);
    assert_eq!(rig.batches(), [vec![1, 2], vec![]]);
}

#[test]
fn r31_a_record_that_expires_in_an_open_window_is_discarded_with_the_windows_name() {
    let mut rig = rig(|m| {
        m.maximum_record_age = Some(ms(60_000));
        m.batch_size = 1;
    });
    rig.put_keyed(1, None, 0);
    rig.put_keyed(2, None, 1);
    rig.put_keyed(3, None, 10_000);
    rig.function = Box::new(|call| match call.records.as_slice() {
        [1] => Reply::After(60_500, sum(call)),
        _ => Reply::Now(sum(call)),
    });
    rig.run(61_000);
    assert_eq!(
        calls(&rig),
        [seen(0, &[1], "{}", ""), seen(0, &[], "{\"sum\":1}", "final"), seen(10, &[3], "{}", "")]
    );
    assert!(rig.trace.iter().any(|(_, did)| matches!(
        did,
        Did::Discard { records, condition: Condition::RecordAgeExceeded, window: Some(window), .. }
            if *records == [2] && window.start.as_millis() == WALL_START
    )));
}

#[test]
fn r73_a_record_that_expires_behind_an_open_window_is_discarded_with_its_own_windows_name() {
    let mut rig = rig(|m| {
        m.maximum_record_age = Some(ms(60_000));
        m.batch_size = 1;
    });
    rig.put_keyed(1, None, 0);
    rig.put_keyed(2, None, 10_000);
    rig.put_keyed(3, None, 70_000);
    rig.function = Box::new(|call| match call.records.as_slice() {
        [1] => Reply::After(70_500, sum(call)),
        _ => Reply::Now(sum(call)),
    });
    rig.run(71_000);
    let of_two = rig.trace.iter().find_map(|(_, did)| match did {
        Did::Discard { records, window: Some(window), .. } if *records == [2] => Some(window.clone()),
        _ => None,
    });
    let window = of_two.unwrap();
    let starts = (window.start.as_millis() - WALL_START, window.end.as_millis() - WALL_START);
    assert_eq!((starts, &window.state[..], window.is_final), ((10_000, 20_000), &b"{}"[..], false));
}

#[test]
fn i8_a_window_with_an_undelivered_discard_is_replayed_whole_and_never_into_the_next_window() {
    let mut rig = rig(|m| {
        m.maximum_retry_attempts = Some(0);
        m.batch_size = 1;
    });
    rig.destination = Some(Box::new(|n| if n == 1 { Reply::Never } else { Reply::Now(true) }));
    for (n, arrival) in [(1, 0), (2, 1000), (3, 2000), (4, 10_000)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.function = Box::new(|call| match call.records.as_slice() {
        [2] => Reply::Now(Outcome::FunctionError),
        _ => Reply::Now(sum(call)),
    });
    rig.run(1000);
    let whole = [
        seen(0, &[1], "{}", ""),
        seen(0, &[2], "{\"sum\":1}", ""),
        seen(0, &[3], "{\"sum\":1}", ""),
        seen(0, &[], "{\"sum\":4}", "final"),
        seen(10, &[4], "{}", ""),
    ];
    assert_eq!(calls(&rig), whole);
    assert_eq!(rig.stored, Position::TrimHorizon, "2 may be redelivered, and its window with it");
    rig.crash(false);
    let before = rig.trace.len();
    rig.run(1000);
    rig.trace.drain(..before);
    assert_eq!(calls(&rig), whole);
    assert_eq!(rig.stored, after(3));
}

#[test]
fn r64_after_a_change_of_their_length_windows_are_multiples_of_the_new_one() {
    let mut rig = rig(|_| {});
    for (n, arrival) in [(1, 0), (2, 10_000)] {
        rig.put_keyed(n, None, arrival);
    }
    rig.run(1000);
    assert_eq!(rig.stored, after(1));
    rig.mapping = windowed(|m| m.tumbling_window = Some(ms(25_000)));
    rig.crash(true);
    rig.run(1000);
    let last = rig.trace.iter().rev().find_map(|(_, did)| match did {
        Did::Invoke { records, window, .. } => Some((records.clone(), window.clone().unwrap())),
        _ => None,
    });
    let (records, window) = last.unwrap();
    let times = (window.start.as_millis() - WALL_START, window.end.as_millis() - WALL_START);
    assert_eq!((records, times), (vec![2], (0, 25_000)), "not from 10 s on, where the last run stopped");
}
