//! The observer itself: each invariant is broken once and must be reported under its id.

use super::rig::{START, after, failed_at, mapping, ms, record, seq, success};
use crate::failure::Condition;
use crate::invariant::{Fact, Given, Seen, Setting, check, check_one};
use crate::mapping::EventSourceMapping;
use crate::outcome::{BatchResponse, Outcome};
use crate::position::{Position, Seq};
use crate::record::{Data, Record};
use crate::request::RequestId;
use crate::shard::{Exit, LaneId};
use crate::time::{Mono, Now, Wall};
use crate::window::WindowCall;

pub(super) const LANE: LaneId = LaneId(0);

pub(super) fn seqs(numbers: &[u64]) -> Vec<Seq> {
    numbers.iter().map(|n| seq(*n)).collect()
}

pub(super) fn given(numbers: &[u64]) -> Given {
    let condition = Condition::RetryAttemptsExhausted;
    Given { records: seqs(numbers), condition, at: Wall::default(), count: 1, final_of: None }
}

pub(super) fn read(numbers: &[u64]) -> Fact {
    Fact::Read { kept: seqs(numbers), filtered: Vec::new(), ends: false }
}

pub(super) fn invoked(id: u128, numbers: &[u64]) -> Fact {
    Fact::Invoked { lane: LANE, request_id: RequestId::from_random(id), records: seqs(numbers), window: None }
}

pub(super) const fn ended(outcome: Outcome) -> Fact {
    Fact::Ended { lane: LANE, outcome }
}

fn broken(id: &str, facts: Vec<Fact>) -> Option<&'static str> {
    let mapping = mapping(|m| {
        m.maximum_retry_attempts = Some(0);
        m.report_batch_item_failures = true;
    });
    let start = [Fact::Begun(Position::TrimHorizon)];
    let history: Vec<_> = start
        .into_iter()
        .chain(facts)
        .map(|fact| Seen { at: Now { mono: Mono::from_millis(START), wall: Wall::default() }, fact })
        .collect();
    let setting = Setting { mapping: &mapping, stream: &[1, 2, 3, 4].map(|n| record(n, 1)) };
    let one = check_one(id, setting, &history).err();
    assert_eq!(check(setting, &history).is_err(), one.is_some(), "all and one agree here");
    one.map(|violation| violation.invariant)
}

#[test]
fn a_history_in_order_breaks_nothing() {
    let facts = || {
        vec![
            Fact::Opened(Position::TrimHorizon),
            read(&[1, 2, 3, 4]),
            invoked(1, &[1, 2, 3]),
            ended(failed_at([2])),
            invoked(2, &[2, 3]),
            Fact::Stored(after(1)),
            ended(Outcome::FunctionError),
            Fact::Discarding(given(&[2, 3])),
            invoked(3, &[4]),
            Fact::Discarded(given(&[2, 3])),
            ended(success()),
            Fact::Stored(Position::ShardEnd),
            Fact::Exited(Exit::ShardEnd),
        ]
    };
    for id in ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I10", "I13", "I14", "I15", "I16"] {
        assert_eq!(broken(id, facts()), None, "{id}");
    }
}

#[test]
fn each_invariant_is_reported_when_it_is_broken() {
    let all = || read(&[1, 2, 3, 4]);
    let stop = || Fact::Stopping(Mono::from_millis(START + 9));
    let cases = [
        ("I1", vec![all(), invoked(1, &[2])]),
        ("I1", vec![all(), invoked(1, &[1, 3])]),
        ("I1", vec![all(), invoked(1, &[1]), invoked(2, &[1])]),
        ("I2", vec![all(), invoked(1, &[1]), ended(success()), Fact::Storing(after(2))]),
        ("I3", vec![read(&[1]), invoked(1, &[1]), ended(success()), Fact::Stored(after(2))]),
        ("I3", vec![all(), invoked(1, &[1]), Fact::Discarding(given(&[1]))]),
        ("I3", vec![Fact::Begun(after(3))]),
        ("I4", vec![all(), invoked(1, &[1]), ended(failed_at([9])), invoked(2, &[1])]),
        ("I7", vec![all(), invoked(1, &[1, 2, 3]), ended(failed_at([2])), invoked(2, &[3])]),
        ("I14", vec![read(&[1]), read(&[3])]),
        ("I14", vec![read(&[1]), read(&[1])]),
        ("I14", vec![read(&[1]), Fact::Opened(Position::TrimHorizon)]),
        ("I16", vec![stop(), Fact::Fetching]),
        ("I16", vec![all(), invoked(1, &[1]), stop(), Fact::Exited(Exit::Stopped { cut: 1 })]),
        ("I10", vec![Fact::LeaseLost, Fact::Storing(after(1))]),
        ("I10", vec![Fact::Exited(Exit::LeaseLost), Fact::Stored(after(1))]),
    ];
    for (id, facts) in cases {
        let told = format!("{id}: {facts:?}");
        assert_eq!(broken(id, facts), Some(id), "{told}");
    }
}

/// Records 1 to 4 arrive 10 s apart from 0 on, with two keys in turn.
fn featured(
    id: &str,
    change: impl FnOnce(&mut EventSourceMapping),
    facts: Vec<(i64, Fact)>,
) -> Option<&'static str> {
    let mapping = mapping(|m| {
        m.maximum_retry_attempts = Some(0);
        change(m);
    });
    let stream = [1, 2, 3, 4].map(|n: u64| {
        let arrival = Wall::from_millis(10_000 * (n.cast_signed() - 1));
        let key = if n.is_multiple_of(2) { "even" } else { "odd" };
        Record::new(seq(n), Some(key.into()), Some(arrival), Data::Raw("x".into()))
    });
    let begun = (0, Fact::Begun(Position::TrimHorizon));
    let history: Vec<_> = [begun]
        .into_iter()
        .chain(facts)
        .map(|(wall, fact)| {
            let at = Now { mono: Mono::from_millis(START), wall: Wall::from_millis(wall) };
            Seen { at, fact }
        })
        .collect();
    check_one(id, Setting { mapping: &mapping, stream: &stream }, &history)
        .err()
        .map(|broken| broken.invariant)
}

pub(super) fn windowed(id: u128, numbers: &[u64], start: i64, state: &'static str) -> Fact {
    let window = WindowCall {
        start: Wall::from_millis(start),
        end: Wall::from_millis(start + 20_000),
        state: state.into(),
        is_final: numbers.is_empty(),
        is_terminated_early: false,
    };
    let request_id = RequestId::from_random(id);
    Fact::Invoked { lane: LANE, request_id, records: seqs(numbers), window: Some(window) }
}

pub(super) fn answered(state: &'static str) -> Fact {
    ended(Outcome::Answered(BatchResponse::success().with_state(state)))
}

#[test]
fn i5_an_invocation_with_a_record_that_is_too_old_is_reported() {
    let age = |m: &mut EventSourceMapping| m.maximum_record_age = Some(ms(5000));
    let history = |wall| vec![(0, read(&[1, 2, 3, 4])), (wall, invoked(1, &[1]))];
    assert_eq!(featured("I5", age, history(5000)), None);
    assert_eq!(featured("I5", age, history(5001)), Some("I5"));
    let old =
        |at| Given { condition: Condition::RecordAgeExceeded, at: Wall::from_millis(at), ..given(&[1]) };
    assert_eq!(featured("I3", age, vec![(5001, Fact::Discarding(old(5001)))]), None);
    assert_eq!(
        featured("I3", age, vec![(5001, Fact::Discarding(old(5000)))]),
        Some("I3"),
        "not too old then"
    );
}

#[test]
fn i1_a_key_that_changes_its_lane_or_its_order_is_reported() {
    let lanes = |m: &mut EventSourceMapping| m.parallelization_factor = 2;
    let on = |lane, id, numbers: &[u64]| {
        let request_id = RequestId::from_random(id);
        (0, Fact::Invoked { lane: LaneId(lane), request_id, records: seqs(numbers), window: None })
    };
    let all = || (0, read(&[1, 2, 3, 4]));
    assert_eq!(featured("I1", lanes, vec![all(), on(0, 1, &[1, 3]), on(1, 2, &[2, 4])]), None);
    assert_eq!(
        featured("I1", lanes, vec![all(), on(0, 1, &[1]), on(1, 2, &[3])]),
        Some("I1"),
        "another lane"
    );
    assert_eq!(featured("I1", lanes, vec![all(), on(0, 1, &[3])]), Some("I1"), "1 has the same key");
    assert_eq!(featured("I1", lanes, vec![all(), on(2, 1, &[1])]), Some("I1"), "there is no third lane");
}

#[test]
fn i8_a_window_without_its_state_or_with_two_final_calls_is_reported() {
    let windows = |m: &mut EventSourceMapping| m.tumbling_window = Some(ms(20_000));
    let begin =
        || vec![(0, read(&[1, 2, 3, 4])), (0, windowed(1, &[1], 0, "{}")), (0, answered("{\"n\":1}"))];
    let with =
        |facts: Vec<Fact>| begin().into_iter().chain(facts.into_iter().map(|fact| (0, fact))).collect();
    let good = vec![
        windowed(2, &[2], 0, "{\"n\":1}"),
        answered("{\"n\":2}"),
        windowed(3, &[], 0, "{\"n\":2}"),
        answered("{}"),
        windowed(4, &[3], 20_000, "{}"),
    ];
    let closed = || vec![windowed(2, &[], 0, "{\"n\":1}"), answered("{}")];
    let again = |last| closed().into_iter().chain([last]).collect();
    assert_eq!(featured("I8", windows, with(good)), None);
    for (why, facts) in [
        ("the state is lost", vec![windowed(2, &[2], 0, "{}")]),
        ("a second final call", again(windowed(3, &[], 0, "{\"n\":1}"))),
        ("a closed window is opened again", again(windowed(3, &[2], 0, "{}"))),
        ("a record before its window", vec![windowed(2, &[3], 0, "{\"n\":1}")]),
        ("another window is open", vec![windowed(2, &[3], 20_000, "{\"n\":1}")]),
        ("not aligned", again(windowed(3, &[3], 20_001, "{}"))),
        ("no window", vec![invoked(2, &[2])]),
        ("the end with an open window", vec![Fact::Exited(Exit::ShardEnd)]),
    ] {
        assert_eq!(featured("I8", windows, with(facts)), Some("I8"), "{why}");
    }
    let passes = |facts| featured("I2", windows, with(facts));
    assert_eq!(passes(vec![Fact::Storing(after(1))]), Some("I2"), "the window is open");
    assert_eq!(passes(closed().into_iter().chain([Fact::Storing(after(1))]).collect()), None);
}

#[test]
fn i13_and_i15_a_read_into_a_full_buffer_and_an_unpinned_start_are_reported() {
    let small = |m: &mut EventSourceMapping| m.polling.buffer_bytes = 100;
    let read_on =
        |facts: Vec<Fact>| facts.into_iter().chain([Fact::Fetching]).map(|fact| (0, fact)).collect();
    assert_eq!(featured("I13", small, read_on(vec![read(&[1])])), Some("I13"));
    assert_eq!(featured("I13", small, read_on(vec![read(&[1]), invoked(1, &[1]), ended(success())])), None);
    assert_eq!(featured("I15", |_| {}, vec![(0, Fact::Opened(Position::Latest))]), Some("I15"));
    assert_eq!(featured("I15", |_| {}, vec![(0, Fact::Opened(Position::AtTimestamp(7)))]), Some("I15"));
}

#[test]
fn a_violation_names_the_invariant_and_the_fact_that_broke_it() {
    let mapping = mapping(|_| {});
    let facts = [Fact::Begun(Position::TrimHorizon), Fact::Fetching, Fact::LeaseLost, Fact::Fetching];
    let history = facts.map(|fact| Seen { at: Now::default(), fact });
    let setting = Setting { mapping: &mapping, stream: &[] };
    for broken in [check(setting, &history), check_one("I10", setting, &history)] {
        assert_eq!(broken.unwrap_err().to_string(), "I10 broken by fact 3: started without a lease");
    }
    assert_eq!(check_one("I1", setting, &history), Ok(()));
}

#[test]
fn what_is_given_up_names_its_window_only_if_it_was_the_final_call() {
    let window = |is_final| WindowCall { start: Wall::from_millis(5), is_final, ..WindowCall::default() };
    let failed = |window| crate::failure::FailedBatch {
        batch: crate::record::Batch::new(vec![record(1, 1), record(2, 1)]).unwrap(),
        shard: "shard".into(),
        request_id: RequestId::from_random(1),
        condition: Condition::RecordAgeExceeded,
        approximate_invoke_count: 3,
        response: None,
        at: Wall::from_millis(9),
        window,
    };
    let given = |final_of| Given {
        records: seqs(&[1, 2]),
        condition: Condition::RecordAgeExceeded,
        at: Wall::from_millis(9),
        count: 3,
        final_of,
    };
    assert_eq!(Given::from(&failed(None)), given(None));
    assert_eq!(Given::from(&failed(Some(window(false)))), given(None));
    assert_eq!(Given::from(&failed(Some(window(true)))), given(Some(Wall::from_millis(5))));
}
