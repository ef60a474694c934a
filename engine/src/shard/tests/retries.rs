//! Function errors, tries that do not reach the function, oversized events (R19 to R24).

use super::rig::{Did, Reply, Rig, failed_at, mapping, ms, success};
use crate::failure::{Condition, FunctionResponse};
use crate::outcome::Outcome;

/// Gaps between invocations.
pub(super) fn gaps(rig: &Rig) -> Vec<u64> {
    rig.invocations().windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

#[test]
fn r20_a_batch_that_always_fails_is_invoked_once_more_than_it_may_be_retried() {
    for (maximum, expected) in [(0, 1), (1, 2), (3, 4)] {
        let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(maximum)));
        rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
        rig.put([1, 2]);
        rig.run(60_000);
        assert_eq!(rig.batches(), vec![vec![1, 2]; expected]);
        let ids = rig.ids();
        assert!(ids.iter().all(|id| *id == ids[0]), "R21: an unchanged batch keeps its request id");
        let attempts: Vec<_> = rig
            .trace
            .iter()
            .filter_map(|(_, did)| match did {
                Did::Invoke { attempt, .. } => Some(*attempt),
                _ => None,
            })
            .collect();
        assert_eq!(attempts, (1..=maximum + 1).collect::<Vec<_>>());
        assert_eq!(rig.messages(), [(vec![1, 2], maximum + 1)]);
        let counters = rig.machine.counters();
        assert_eq!(counters.invoked, 2 * expected as u64);
        assert_eq!((counters.failed, counters.delivered), (2 * expected as u64, 2));
    }
}

#[test]
fn r22_retries_back_off_from_200_ms_doubling() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.put([1]);
    rig.run(60_000);
    let gaps = gaps(&rig);
    assert!((200..=300).contains(&gaps[0]) && (400..=600).contains(&gaps[1]), "{gaps:?}");
    assert!((800..=1200).contains(&gaps[2]), "{gaps:?}");
    let lane = &rig.machine.snapshot(rig.now()).lanes[0];
    assert!(lane.retry_in.is_some() && !lane.invoking && lane.attempts as usize == gaps.len() + 1);
}

#[test]
fn r19_without_a_maximum_a_batch_is_retried_until_it_succeeds_and_blocks_the_shard() {
    let mut rig = Rig::new(mapping(|m| m.batch_size = 1));
    rig.function = Box::new(|call| match (call.records[0], call.nth) {
        (1, 1..=12) => Reply::Now(Outcome::FunctionError),
        _ => Reply::Now(success()),
    });
    rig.put([1, 2]);
    rig.close_at(0);
    rig.run(3_600_000);
    let mut expected = vec![vec![1]; 13];
    expected.push(vec![2]);
    assert_eq!(rig.batches(), expected);
    assert!(gaps(&rig).iter().all(|gap| *gap <= 60_000), "R22: never above the maximum");
}

#[test]
fn r23_a_function_that_is_not_reached_spends_no_attempt_and_keeps_the_request_id() {
    let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(0)));
    rig.function = Box::new(|call| match call.nth {
        1..=5 => Reply::Now(Outcome::NotReached { retry_after: None }),
        6 => Reply::Now(Outcome::FunctionError),
        _ => unreachable!("no retry is left"),
    });
    rig.put([1]);
    rig.run(600_000);
    assert_eq!(rig.batches().len(), 6);
    assert_eq!(rig.messages(), [(vec![1], 1)]);
    assert!(rig.ids().windows(2).all(|pair| pair[0] == pair[1]));
    let gaps = gaps(&rig);
    assert!(gaps.windows(2).all(|pair| pair[0] < pair[1]), "misses back off: {gaps:?}");
    let counters = rig.machine.counters();
    assert_eq!((counters.invoked, counters.failed), (1, 1), "only the invocation that ran counts");
}

#[test]
fn r23_retry_after_is_honoured_when_it_is_longer_than_the_backoff() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|call| match call.nth {
        1 => Reply::Now(Outcome::NotReached { retry_after: Some(ms(7000)) }),
        2 => Reply::Now(Outcome::NotReached { retry_after: Some(ms(1)) }),
        _ => Reply::Now(success()),
    });
    rig.put([1]);
    rig.run(60_000);
    let gaps = gaps(&rig);
    assert_eq!(gaps[0], 7000);
    assert!((400..=600).contains(&gaps[1]), "{gaps:?}");
}

#[test]
fn r23_a_miss_between_two_failures_starts_its_own_backoff_and_leaves_the_budget_alone() {
    let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(1)));
    rig.function = Box::new(|call| match call.nth {
        2 => Reply::Now(Outcome::NotReached { retry_after: None }),
        _ => Reply::Now(Outcome::FunctionError),
    });
    rig.put([1]);
    rig.run(60_000);
    assert_eq!(rig.batches().len(), 3);
    assert_eq!(rig.messages(), [(vec![1], 2)]);
}

#[test]
fn r24_an_oversized_record_spends_its_attempts_reports_no_response_and_the_next_record_follows() {
    for (maximum, count) in [(0, 1), (2, 3)] {
        let mut rig = Rig::new(mapping(|m| {
            m.batch_size = 1;
            m.maximum_retry_attempts = Some(maximum);
        }));
        rig.function =
            Box::new(|call| Reply::Now(if call.records == [1] { Outcome::TooLarge } else { success() }));
        rig.put([1, 2]);
        rig.run(60_000);
        assert_eq!(rig.messages(), [(vec![1], count)]);
        let discard = rig.trace.iter().find_map(|(_, did)| match did {
            Did::Discard { condition, response, .. } => Some((*condition, *response)),
            _ => None,
        });
        assert_eq!(discard, Some((Condition::RetryAttemptsExhausted, None)));
        assert_eq!(rig.batches().last(), Some(&vec![2]));
    }
}

#[test]
fn r24_an_oversized_batch_is_halved_until_its_parts_fit_even_without_bisection() {
    let mut rig = Rig::new(mapping(|m| m.maximum_retry_attempts = Some(0)));
    rig.function = Box::new(|call| {
        Reply::Now(if call.records.contains(&3) || call.records.len() > 2 {
            Outcome::TooLarge
        } else {
            success()
        })
    });
    rig.put(1..=4);
    rig.run(60_000);
    assert_eq!(rig.batches(), [vec![1, 2, 3, 4], vec![1, 2], vec![3, 4], vec![3], vec![4]]);
    assert_eq!(rig.messages(), [(vec![3], 1)]);
    assert!(gaps(&rig).iter().all(|gap| *gap == 0), "making batches fit needs no backoff");
}

#[test]
fn r40_a_function_error_and_a_reported_failure_differ_only_in_the_response() {
    for (outcome, expected) in [
        (Outcome::FunctionError, FunctionResponse::Unhandled),
        (failed_at([1]), FunctionResponse::Returned),
        (failed_at([99]), FunctionResponse::Returned),
    ] {
        let mut rig = Rig::new(mapping(|m| {
            m.report_batch_item_failures = true;
            m.maximum_retry_attempts = Some(0);
        }));
        rig.function = Box::new(move |_| Reply::Now(outcome.clone()));
        rig.put([1]);
        rig.run(1000);
        let discard = rig.trace.iter().find_map(|(_, did)| match did {
            Did::Discard { condition, response, .. } => Some((*condition, *response)),
            _ => None,
        });
        assert_eq!(discard, Some((Condition::RetryAttemptsExhausted, Some(expected))));
    }
}

#[test]
fn r23_an_invocation_that_counts_ends_a_series_of_misses() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|call| match call.nth {
        1..=4 | 6 => Reply::Now(Outcome::NotReached { retry_after: None }),
        5 => Reply::Now(Outcome::FunctionError),
        _ => Reply::Now(success()),
    });
    rig.put([1]);
    rig.run(60_000);
    let gaps = gaps(&rig);
    assert!(gaps[3] >= 1600 && (200..=300).contains(&gaps[5]), "{gaps:?}");
}

#[test]
fn r23_an_absurd_retry_after_does_not_stop_the_shard_for_a_day() {
    let mut rig = Rig::new(mapping(|_| {}));
    rig.function = Box::new(|call| match call.nth {
        1 => Reply::Now(Outcome::NotReached { retry_after: Some(ms(86_400_000)) }),
        _ => Reply::Now(success()),
    });
    rig.put([1]);
    rig.run(1_000_000);
    assert_eq!(gaps(&rig), [900_000]);
}
