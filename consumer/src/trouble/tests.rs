//! When trouble begins and ends.

use super::*;

const KIND: TroubleKind = TroubleKind::FunctionError;

fn at(seconds: u64) -> Mono {
    Mono::from_millis(seconds * 1000)
}

fn lane(name: &str) -> Holder {
    Holder::Lane(name.into(), LaneId(0))
}

fn fails(ledger: &mut Ledger, seconds: u64, name: &str) -> Say {
    ledger.fails(at(seconds), Wall::from_millis(0), KIND, &lane(name), "boom")
}

#[test]
fn trouble_of_many_shards_begins_once_and_is_over_when_the_last_of_them_is_out_of_it() {
    let mut ledger = Ledger::default();
    assert_eq!(fails(&mut ledger, 0, "a"), Say::Begins);
    for second in 1..50 {
        assert_eq!(fails(&mut ledger, second, "a"), Say::Nothing);
        assert_eq!(fails(&mut ledger, second, "b"), Say::Nothing);
    }
    assert_eq!(ledger.clears(at(50), KIND, &lane("a")), None, "b is still in it");
    assert!(ledger.lasts(KIND));
    let report = &ledger.report()[0];
    assert_eq!((report.lanes, report.failures, report.shard.clone()), (1, 99, Some("a".into())));
    let over = Over { kind: KIND, lasted: Duration::from_secs(60), failures: 99, lanes: 2 };
    assert_eq!(ledger.clears(at(60), KIND, &lane("b")), Some(over));
    assert!(!ledger.lasts(KIND) && ledger.report().is_empty());
    assert_eq!(ledger.clears(at(61), KIND, &lane("b")), None, "told once");
}

#[test]
fn trouble_that_comes_and_goes_is_told_twice_and_then_when_it_was_calm_for_a_while() {
    let mut ledger = Ledger::default();
    assert_eq!(fails(&mut ledger, 0, "a"), Say::Begins);
    assert!(ledger.clears(at(1), KIND, &lane("a")).is_some());
    assert_eq!(fails(&mut ledger, 10, "a"), Say::ComesAndGoes);
    for round in 1..1000 {
        assert_eq!(ledger.clears(at(round * 100 + 11), KIND, &lane("a")), None);
        assert_eq!(fails(&mut ledger, round * 100 + 12, "a"), Say::Nothing);
    }
    assert_eq!(ledger.clears(at(99_913), KIND, &lane("a")), None);
    assert!(ledger.calms(at(99_912 + 299)).is_empty());
    let calm = ledger.calms(at(99_912 + 300));
    assert_eq!(calm.iter().map(|over| over.lasted.as_secs()).collect::<Vec<_>>(), [99_902]);
    assert!(ledger.calms(at(200_000)).is_empty());
}

#[test]
fn what_comes_and_goes_is_told_when_it_lasts_for_a_minute_and_so_is_its_end() {
    let mut ledger = Ledger::default();
    fails(&mut ledger, 0, "a");
    ledger.clears(at(1), KIND, &lane("a"));
    assert_eq!(fails(&mut ledger, 10, "a"), Say::ComesAndGoes);
    assert_eq!(ledger.clears(at(11), KIND, &lane("a")), None);
    // One lane after the other is in it, none for long.
    for second in 20..200 {
        let (name, last) = (format!("s{second}"), format!("s{}", second - 1));
        fails(&mut ledger, second, &name);
        ledger.clears(at(second), KIND, &lane(&last));
        assert_eq!(ledger.lasts_again(at(second)), []);
    }
    ledger.clears(at(200), KIND, &lane("s199"));
    for second in 300..360 {
        assert_eq!(fails(&mut ledger, second, "b"), Say::Nothing);
        assert_eq!(ledger.lasts_again(at(second)), []);
    }
    let lasts = Lasts { kind: KIND, shard: Some("b".into()), message: "boom".into() };
    assert_eq!(ledger.lasts_again(at(360)), [lasts]);
    assert_eq!(ledger.lasts_again(at(420)), [], "told once");
    assert!(ledger.clears(at(430), KIND, &lane("b")).is_some(), "its end is told at once");
}

#[test]
fn a_function_that_is_not_there_at_the_start_has_not_come_and_gone() {
    let mut ledger = Ledger::default();
    let kind = TroubleKind::NotReached;
    let mut away =
        |seconds, holder| ledger.fails(at(seconds), Wall::from_millis(0), kind, &holder, "refused");
    assert_eq!(away(0, Holder::Probe), Say::Begins);
    assert!(ledger.clears_all(at(1), kind).is_some());
    let mut away =
        |seconds, holder| ledger.fails(at(seconds), Wall::from_millis(0), kind, &holder, "refused");
    assert_eq!(away(100, lane("a")), Say::Begins);
    assert!(ledger.clears_all(at(101), kind).is_some());
}

#[test]
fn trouble_a_long_time_after_its_last_end_begins_anew() {
    let mut ledger = Ledger::default();
    fails(&mut ledger, 0, "a");
    ledger.clears(at(1), KIND, &lane("a"));
    assert_eq!(fails(&mut ledger, 301, "a"), Say::Begins);
}

#[test]
fn one_answer_to_anybody_ends_it_for_everybody_where_it_is_the_functions_own() {
    let mut ledger = Ledger::default();
    let kind = TroubleKind::NotReached;
    for holder in [Holder::Probe, lane("a"), lane("b")] {
        ledger.fails(at(0), Wall::from_millis(0), kind, &holder, "refused");
    }
    assert_eq!(ledger.clears_all(at(9), kind).map(|over| over.lanes), Some(3));
    assert_eq!(ledger.clears_all(at(9), kind), None);
}

#[test]
fn a_shard_that_another_worker_takes_leaves_no_trouble_behind() {
    let mut ledger = Ledger::default();
    fails(&mut ledger, 0, "a");
    ledger.blocks(at(60), &lane("a"), false);
    fails(&mut ledger, 1, "b");
    assert_eq!(ledger.leaves(at(61), &"a".into()), [], "b is still in it");
    assert_eq!(ledger.blocked(), 0);
    let over = Over { kind: KIND, lasted: Duration::from_secs(62), failures: 2, lanes: 2 };
    assert_eq!(ledger.leaves(at(62), &"b".into()), [over], "what was told has its end");
    assert!(!ledger.lasts(KIND));
    assert_eq!(fails(&mut ledger, 70, "c"), Say::ComesAndGoes);
}

#[test]
fn a_shard_that_leaves_takes_all_its_lanes_out_and_no_other_shards() {
    let mut ledger = Ledger::default();
    let of = |name: &str, lane| Holder::Lane(name.into(), LaneId(lane));
    for holder in
        [Holder::Probe, of("a", 0), of("a", 9), of("a", u16::MAX), of("", 3), of("a0", 0), of("b", 0)]
    {
        ledger.fails(at(0), Wall::from_millis(0), KIND, &holder, "boom");
        ledger.blocks(at(60), &holder, false);
    }
    assert_eq!(ledger.leaves(at(61), &"a".into()), []);
    assert_eq!((ledger.lanes(KIND), ledger.blocked()), (4, 4));
}

#[test]
fn ten_blocked_shards_are_named_and_the_others_are_counted() {
    let mut ledger = Ledger::default();
    let named = (0..25).filter(|n| ledger.blocks(at(60), &lane(&format!("s{n}")), false)).count();
    assert_eq!((named, ledger.blocked()), (10, 25));
    assert!(!ledger.blocks(at(61), &lane("s0"), false), "named once");
    assert_eq!(ledger.unblocks(&lane("s0")), Some(at(60)));
    assert_eq!(ledger.unblocks(&lane("s24")), None, "it was not named");
    assert!(!ledger.blocks(at(62), &lane("told"), true), "its trouble was told with its name");
    assert!(ledger.blocks(at(62), &lane("next"), false), "there is room again");
}
