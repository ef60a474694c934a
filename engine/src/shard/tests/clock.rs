//! While the service's clock is in doubt nothing is discarded by age or retention, and no window is closed by time.

use std::time::Duration;

use super::rig::{Did, Reply, Rig, WALL_START, after, mapping, ms};
use crate::outcome::Outcome;
use crate::shard::{GapKind, Resume, ShardAction, ShardMachine};
use crate::time::{Mono, Now, Wall};

const DAY: Duration = Duration::from_hours(24);
const TWO_HOURS: Option<Duration> = Some(Duration::from_hours(2));

#[test]
fn incident_71_no_record_is_given_up_for_its_age_while_the_clock_is_in_doubt() {
    let mut rig = Rig::new(mapping(|m| m.maximum_record_age = Some(ms(60_000))));
    // Invoking what may be too old is what I5 forbids where the time is known.
    rig.checks_each_step = false;
    rig.put_keyed(1, None, -80_000);
    rig.function = Box::new(|_| Reply::Now(Outcome::FunctionError));
    rig.machine.set_clock_doubt(TWO_HOURS);
    rig.run(30_000);
    assert!(rig.batches().len() > 1 && rig.messages().is_empty(), "it is tried, and not discarded");
    rig.machine.set_clock_doubt(None);
    rig.run(60_000);
    assert_eq!(rig.messages().len(), 1, "the time is known again");
}

#[test]
fn incident_71_an_idle_window_stays_open_while_the_clock_is_in_doubt() {
    let window = || {
        let mut rig = Rig::new(mapping(|m| m.tumbling_window = Some(ms(10_000))));
        rig.checks_each_step = false;
        rig.put_keyed(1, None, 0);
        rig.function = Box::new(|_| {
            let state = crate::outcome::BatchResponse::success().with_state("{}".to_owned());
            Reply::Now(Outcome::Answered(state))
        });
        rig
    };
    let finals = |rig: &Rig| {
        let is_final = |did: &Did| matches!(did, Did::Invoke { window: Some(window), .. } if window.is_final);
        rig.trace.iter().filter(|(_, did)| is_final(did)).count()
    };
    let mut believed = window();
    believed.run(200_000);
    assert_eq!(finals(&believed), 1);
    let mut doubted = window();
    doubted.run(50_000);
    doubted.machine.set_clock_doubt(TWO_HOURS);
    doubted.run(150_000);
    assert_eq!(finals(&doubted), 0);
    doubted.machine.set_clock_doubt(None);
    doubted.run(100_000);
    assert_eq!(finals(&doubted), 1);
}

fn at(millis: i64) -> Now {
    Now { mono: Mono::from_millis(1_000_000), wall: Wall::from_millis(WALL_START + millis) }
}

/// A shard that was read up to so many hours ago, of a stream that keeps records for a day.
fn resumed(hours_ago: i64) -> ShardMachine {
    let read_through = Some(Wall::from_millis(WALL_START - hours_ago * 3_600_000));
    let resume = Resume { checkpoint: after(5), earliest_window: None, read_through, retention: Some(DAY) };
    ShardMachine::new(mapping(|_| {}), "shard".into(), resume, 1, at(0))
}

#[test]
fn incident_71_where_a_gap_depends_on_a_clock_in_doubt_reading_waits_for_it() {
    for (hours_ago, waits) in [(1, false), (21, false), (23, true), (25, true), (50, true)] {
        let mut machine = resumed(hours_ago);
        machine.set_clock_doubt(TWO_HOURS);
        let action = machine.poll_action(at(0));
        assert_eq!(action.is_none(), waits, "{hours_ago}: {action:?}");
        if waits {
            assert_eq!(machine.poll_timeout(at(0)), None, "{hours_ago}: no busy loop");
            machine.set_clock_doubt(None);
            let is_gap = match machine.poll_action(at(0)) {
                Some(ShardAction::ReportGap(gap)) => gap.kind == GapKind::BeyondRetention,
                Some(ShardAction::Open { .. }) => false,
                other => panic!("{other:?}"),
            };
            assert_eq!(is_gap, hours_ago > 24, "{hours_ago}");
        }
    }
}

#[test]
fn incident_71_a_time_that_is_in_doubt_is_not_stored_as_read_through() {
    let stored = |doubt| {
        let mut rig = Rig::new(mapping(|_| {}));
        rig.retention = Some(DAY);
        rig.crash(false);
        rig.machine.set_clock_doubt(doubt);
        rig.put(1..=2);
        rig.run(5 * 3_600_000);
        rig.stored_through.map(|at| at.as_millis() - WALL_START)
    };
    assert!(stored(None).is_some_and(|at| at > 0), "the page at the tip says that all up to now is read");
    assert_eq!(stored(TWO_HOURS), Some(-5000), "only what the last record itself says");
}
