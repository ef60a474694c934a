//! The observer itself: each invariant is broken once and must be reported under its id.

use super::rig::{START, after, failed_at, mapping, seq, success};
use crate::invariant::{Fact, Seen, Setting, check, check_one};
use crate::outcome::Outcome;
use crate::position::{Position, Seq};
use crate::request::RequestId;
use crate::shard::{Exit, LaneId};
use crate::time::Mono;

const LANE: LaneId = LaneId(0);

fn seqs(numbers: &[u64]) -> Vec<Seq> {
    numbers.iter().map(|n| seq(*n)).collect()
}

fn read(numbers: &[u64]) -> Fact {
    Fact::Read { kept: seqs(numbers), filtered: Vec::new() }
}

fn invoked(id: u128, numbers: &[u64]) -> Fact {
    Fact::Invoked { lane: LANE, request_id: RequestId::from_random(id), records: seqs(numbers) }
}

const fn ended(outcome: Outcome) -> Fact {
    Fact::Ended { lane: LANE, outcome }
}

fn broken(id: &str, facts: Vec<Fact>) -> Option<&'static str> {
    let mapping = mapping(|m| {
        m.maximum_retry_attempts = Some(0);
        m.report_batch_item_failures = true;
    });
    let start = [Fact::Begun(Position::TrimHorizon)];
    let history: Vec<_> =
        start.into_iter().chain(facts).map(|fact| Seen { at: Mono::from_millis(START), fact }).collect();
    let setting = Setting { mapping: &mapping, stream: &seqs(&[1, 2, 3, 4]) };
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
            Fact::Discarding(seqs(&[2, 3])),
            invoked(3, &[4]),
            Fact::Discarded(seqs(&[2, 3])),
            ended(success()),
            Fact::Stored(Position::ShardEnd),
            Fact::Exited(Exit::ShardEnd),
        ]
    };
    for id in ["I1", "I2", "I3", "I4", "I6", "I7", "I14", "I16"] {
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
        ("I3", vec![all(), invoked(1, &[1]), Fact::Discarding(seqs(&[1]))]),
        ("I3", vec![Fact::Begun(after(3))]),
        ("I4", vec![all(), invoked(1, &[1]), ended(failed_at([9])), invoked(2, &[1])]),
        ("I7", vec![all(), invoked(1, &[1, 2, 3]), ended(failed_at([2])), invoked(2, &[3])]),
        ("I14", vec![read(&[1]), read(&[3])]),
        ("I14", vec![read(&[1]), read(&[1])]),
        ("I14", vec![read(&[1]), Fact::Opened(Position::TrimHorizon)]),
        ("I16", vec![stop(), Fact::Fetching]),
        ("I16", vec![all(), invoked(1, &[1]), stop(), Fact::Exited(Exit::Stopped { cut: 1 })]),
        ("I16", vec![Fact::LeaseLost, Fact::Storing(after(1))]),
        ("I16", vec![Fact::Exited(Exit::LeaseLost), Fact::Stored(after(1))]),
    ];
    for (id, facts) in cases {
        let told = format!("{id}: {facts:?}");
        assert_eq!(broken(id, facts), Some(id), "{told}");
    }
}
