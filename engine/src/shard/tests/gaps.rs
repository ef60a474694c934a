//! Records that were lost before they were read: reported, counted, and a policy (I17).

use super::rig::{Did, Reply, Rig, WALL_START, after, mapping, ms, record, success};
use crate::intake::{Page, intake};
use crate::mapping::{EventSourceMapping, OnGap};
use crate::position::Position;
use crate::record::Record;
use crate::shard::{Exit, FetchFault, Gap, GapKind, Resume, ShardAction, ShardEvent, ShardMachine};
use crate::time::{Mono, Now, Wall};
use std::time::Duration;

const HOUR: i64 = 3_600_000;
const DAY: Duration = Duration::from_hours(24);

fn gaps(rig: &Rig) -> Vec<Gap> {
    let gap = |did: &Did| match did {
        Did::Gap(gap) => Some(gap.clone()),
        _ => None,
    };
    rig.trace.iter().filter_map(|(_, did)| gap(did)).collect()
}

/// Reading at 5 is refused: the stream holds 8 to 10 only.
fn trimmed(policy: OnGap) -> Rig {
    let mut rig = Rig::resuming(mapping(|m| m.on_gap = policy), after(5));
    rig.reads = Box::new(|n| Reply::Now(if n == 1 { Err(FetchFault::Trimmed) } else { Ok(()) }));
    rig.put(8..=10);
    // Going on at the oldest record is what I14 forbids where nothing was lost.
    rig.checks_each_step = false;
    rig
}

#[test]
fn i17_a_trimmed_position_is_one_reported_gap_and_reading_goes_on_at_the_oldest_record() {
    let mut rig = trimmed(OnGap::Continue);
    rig.run(5000);
    assert_eq!(rig.opened(), [(0, after(5)), (0, Position::TrimHorizon)], "at once");
    assert_eq!(rig.batches(), [[8, 9, 10]]);
    assert_eq!(rig.stored, after(10));
    let [gap] = gaps(&rig).try_into().unwrap();
    assert_eq!((gap.kind, &gap.from, gap.to), (GapKind::Trimmed, &after(5), None));
    let snapshot = rig.machine.snapshot(rig.now());
    assert_eq!(snapshot.counters.gaps, 1);
    let text = snapshot.last_gap.unwrap().to_string();
    assert_eq!(text, "records after 5 were trimmed before they were read; reading resumed at 8");
}

#[test]
fn r32_what_retention_removed_is_neither_a_message_nor_dropped() {
    let mut rig = trimmed(OnGap::Continue);
    rig.run(5000);
    let counters = rig.machine.counters();
    assert_eq!((rig.messages(), counters.dropped, counters.gaps, counters.polled), (vec![], 0, 1, 3));
}

#[test]
fn i17_a_shard_that_cannot_be_opened_at_a_trimmed_position_is_the_same_gap() {
    let mut rig = trimmed(OnGap::Continue);
    rig.reads = Box::new(|_| Reply::Now(Ok(())));
    rig.opens = Box::new(|n| if n == 1 { Reply::Never } else { Reply::Now(true) });
    rig.run(10);
    rig.inject(ShardEvent::OpenFailed(FetchFault::Trimmed));
    rig.run(5000);
    assert_eq!(rig.batches(), [[8, 9, 10]]);
    assert_eq!(gaps(&rig).len(), 1);
}

#[test]
fn i17_the_oldest_record_trimmed_before_it_is_read_is_the_same_gap_and_backs_off() {
    let mut rig = trimmed(OnGap::Continue);
    rig.reads = Box::new(|n| Reply::Now(if n <= 5 { Err(FetchFault::Trimmed) } else { Ok(()) }));
    rig.run(60_000);
    assert_eq!(gaps(&rig).len(), 1);
    let opened: Vec<u64> = rig.opened().into_iter().map(|(at, _)| at).collect();
    assert_eq!(opened.len(), 6);
    assert!(opened[2] >= 200 && opened[5] - opened[4] >= 1600, "{opened:?}");
    assert_eq!(rig.stored, after(10));
}

#[test]
fn i17_an_iterator_that_expires_before_the_oldest_record_was_read_does_not_go_back_to_the_trimmed_position() {
    let mut rig = trimmed(OnGap::Continue);
    rig.reads = Box::new(|n| {
        Reply::Now(match n {
            1 => Err(FetchFault::Trimmed),
            2 => Err(FetchFault::IteratorExpired),
            _ => Ok(()),
        })
    });
    rig.run(10_000);
    let places: Vec<_> = rig.opened().into_iter().map(|(_, at)| at).collect();
    assert_eq!(places, [after(5), Position::TrimHorizon, Position::TrimHorizon]);
    assert_eq!((gaps(&rig).len(), rig.stored), (1, after(10)));
}

#[test]
fn i17_i2_records_from_before_the_checkpoint_are_not_delivered_again_after_a_gap() {
    let mut rig = Rig::resuming(mapping(|_| {}), after(5));
    rig.reads = Box::new(|n| Reply::Now(if n == 1 { Err(FetchFault::Trimmed) } else { Ok(()) }));
    rig.put([3, 4, 5, 8, 9, 10]);
    rig.checks_each_step = false;
    rig.run(5000);
    assert_eq!(rig.batches(), [[8, 9, 10]]);
}

#[test]
fn i17_under_stop_nothing_more_is_read_and_what_was_read_before_is_finished() {
    let mut rig = Rig::resuming(mapping(|m| m.on_gap = OnGap::Stop), after(1));
    rig.put([2, 3]);
    rig.put_at(500, [9]);
    rig.reads = Box::new(|n| Reply::Now(if n == 2 { Err(FetchFault::Trimmed) } else { Ok(()) }));
    rig.function = Box::new(|_| Reply::After(5000, success()));
    rig.run(20_000);
    assert_eq!(rig.batches(), [[2, 3]]);
    assert_eq!(rig.stored, after(3), "the checkpoint does not pass the gap");
    assert_eq!((gaps(&rig).len(), rig.opened().len()), (1, 1));
    rig.inject(ShardEvent::Stop { deadline: Mono::from_millis(u64::MAX) });
    rig.run(10);
    assert_eq!(rig.exit(), Some(Exit::Stopped { cut: 0 }));
}

/// The service does not know the shard, and neither does a listing that begins much later.
fn gone() -> FetchFault {
    FetchFault::NotFound { unlisted: Some(Mono::from_millis(u64::MAX)) }
}

#[test]
fn incident_36_only_a_listing_of_a_minute_later_proves_that_a_shard_is_gone() {
    let listings = |rig: &Rig| rig.trace.iter().filter(|(_, did)| matches!(did, Did::List)).count();
    let mut rig = Rig::resuming(mapping(|_| {}), after(5));
    // A listing from before, or from less than a minute after the first answer, may be of a stream that is going.
    rig.reads =
        Box::new(|_| Reply::Now(Err(FetchFault::NotFound { unlisted: Some(Mono::from_millis(59_999)) })));
    rig.run(59_000);
    assert_eq!((rig.exit(), listings(&rig)), (None, 0));
    rig.run(300_000);
    assert_eq!((rig.exit(), gaps(&rig).len()), (None, 0));
    assert!(listings(&rig) > 0, "asked for once it would tell");
    // A page says that the shard is there: what comes after begins anew.
    rig.reads = Box::new(|_| Reply::Now(Ok(())));
    rig.run(120_000);
    let begun = rig.now().mono;
    rig.reads = Box::new(move |_| Reply::Now(Err(FetchFault::NotFound { unlisted: Some(begun) })));
    rig.run(300_000);
    assert_eq!((rig.exit(), gaps(&rig).len()), (None, 0));
    rig.reads = Box::new(|_| Reply::Now(Err(gone())));
    rig.run(120_000);
    assert_eq!((rig.exit(), gaps(&rig).len()), (Some(Exit::ShardEnd), 1));
}

#[test]
fn incident_36_a_shard_that_is_gone_ends_there_as_a_gap_and_lets_its_children_start() {
    let mut rig = Rig::resuming(mapping(|_| {}), after(5));
    rig.reads = Box::new(|_| Reply::Now(Err(gone())));
    rig.run(1000);
    assert_eq!(rig.exit(), Some(Exit::ShardEnd));
    assert_eq!(rig.stored, Position::ShardEnd);
    let [gap] = gaps(&rig).try_into().unwrap();
    assert_eq!((gap.kind, gap.from), (GapKind::ShardGone, after(5)));
}

#[test]
fn i17_a_shard_that_is_gone_does_not_end_under_stop() {
    let mut rig = Rig::resuming(mapping(|m| m.on_gap = OnGap::Stop), after(5));
    rig.reads = Box::new(|_| Reply::Now(Err(gone())));
    rig.run(10_000);
    assert_eq!((rig.exit(), rig.stored.clone(), gaps(&rig).len()), (None, after(5), 1));
}

/// A machine whose stream keeps a day, resumed where everything up to so many hours ago is resolved.
fn resumed(checkpoint: Position, hours_ago: Option<i64>) -> ShardMachine {
    let now = at_hour(0);
    let read_through = hours_ago.map(|hours| Wall::from_millis(WALL_START - hours * HOUR));
    let resume = Resume { checkpoint, earliest_window: None, read_through, retention: Some(DAY) };
    ShardMachine::new(mapping(|_| {}), "shard".into(), resume, 1, now)
}

fn at_hour(hour: u64) -> Now {
    let millis = hour * 3_600_000;
    let wall = Wall::from_millis(WALL_START + i64::try_from(millis).unwrap());
    Now { mono: Mono::from_millis(1_000_000 + millis), wall }
}

#[test]
fn i17_a_checkpoint_from_before_the_retention_may_be_a_gap_and_one_within_it_is_none() {
    for (place, hours, expected) in [
        (after(5), Some(25), true),
        (after(5), Some(24), false),
        (after(5), Some(1), false),
        (after(5), None, false),
        (Position::TrimHorizon, Some(25), true),
        (Position::TrimHorizon, None, false),
        (Position::AtTimestamp(WALL_START - 30 * HOUR), None, false),
        (Position::AtTimestamp(WALL_START - 30 * HOUR), Some(30), true),
    ] {
        let mut machine = resumed(place.clone(), hours);
        let first = machine.poll_action(at_hour(0));
        let is_gap = matches!(&first, Some(ShardAction::ReportGap(gap)) if gap.kind == GapKind::BeyondRetention && gap.from == place);
        assert_eq!(is_gap, expected, "{place}, {hours:?} hours: {first:?}");
        if is_gap {
            assert_eq!(machine.poll_action(at_hour(0)), Some(ShardAction::Open { at: place }));
        }
    }
}

/// A page that reaches the tip.
fn page(machine: &ShardMachine, records: Vec<Record>) -> ShardEvent {
    let page = Page { records, millis_behind: Some(0), ..Page::default() };
    ShardEvent::Fetched(intake(page, machine.position(), |_| true))
}

/// Answers reads with nothing new, at the tip; gives back what was stored, with its hour.
fn idle(
    machine: &mut ShardMachine,
    hours: std::ops::RangeInclusive<u64>,
) -> Vec<(u64, Position, Option<Wall>)> {
    let mut stored = Vec::new();
    for hour in hours {
        for _ in 0..2 {
            while let Some(action) = machine.poll_action(at_hour(hour)) {
                let event = match action {
                    ShardAction::Open { .. } => ShardEvent::Opened,
                    ShardAction::Fetch { .. } => page(machine, Vec::new()),
                    ShardAction::Checkpoint { upto, read_through, .. } => {
                        stored.push((hour, upto, read_through));
                        ShardEvent::Checkpointed
                    }
                    other => panic!("{other:?}"),
                };
                machine.handle_event(at_hour(hour), event);
            }
        }
    }
    stored
}

#[test]
fn i17_a_shard_that_is_read_and_stays_empty_for_days_never_looks_like_a_gap() {
    let mut machine = resumed(after(5), Some(2));
    let stored = idle(&mut machine, 0..=100);
    assert!((90..=102).contains(&stored.len()), "about one write an hour: {}", stored.len());
    assert!(stored.iter().all(|(_, upto, _)| *upto == after(5)), "the position stays");
    let (hour, _, through) = stored.last().unwrap().clone();
    assert_eq!(through, Some(at_hour(hour).wall));
    let resume =
        Resume { checkpoint: after(5), earliest_window: None, read_through: through, retention: Some(DAY) };
    let mut next = ShardMachine::new(mapping(|_| {}), "shard".into(), resume, 2, at_hour(100));
    assert!(matches!(next.poll_action(at_hour(100)), Some(ShardAction::Open { .. })));
}

/// A run that was told that the stream keeps a day, with a record a page.
fn keeping_a_day(change: impl FnOnce(&mut EventSourceMapping)) -> Rig {
    let mut rig = Rig::new(mapping(change));
    rig.retention = Some(DAY);
    rig.crash(false);
    rig.page = 1;
    rig
}

#[test]
fn i17_a_shard_that_catches_up_by_hours_a_page_stores_where_it_is_and_no_old_position_again() {
    let mut rig = keeping_a_day(|m| m.checkpoint_interval = ms(1000));
    for n in 1..=8 {
        rig.put_keyed(n, None, -20 * HOUR + 2 * HOUR * i64::try_from(n).unwrap());
    }
    rig.run(1500);
    assert_eq!(rig.checkpoints(), [(0, after(1)), (1000, after(5))]);
}

/// A machine whose first page is under way.
fn fetching(hours_ago: Option<i64>) -> ShardMachine {
    let mut machine = resumed(after(5), hours_ago);
    assert!(matches!(machine.poll_action(at_hour(0)), Some(ShardAction::Open { .. })));
    machine.handle_event(at_hour(0), ShardEvent::Opened);
    assert!(matches!(machine.poll_action(at_hour(0)), Some(ShardAction::Fetch { .. })));
    machine
}

/// A machine that stores that an idle shard was read: the write is under way.
fn refreshing() -> ShardMachine {
    let mut machine = fetching(None);
    machine.handle_event(at_hour(0), page(&machine, Vec::new()));
    let action = machine.poll_action(at_hour(0));
    assert!(matches!(&action, Some(ShardAction::Checkpoint { upto, .. }) if *upto == after(5)), "{action:?}");
    machine
}

#[test]
fn i17_a_shard_counts_as_read_up_to_when_its_page_was_asked_for_not_when_it_came() {
    let mut machine = fetching(None);
    machine.handle_event(at_hour(1), page(&machine, Vec::new()));
    let action = machine.poll_action(at_hour(1));
    let through = Some(at_hour(0).wall);
    assert!(
        matches!(action, Some(ShardAction::Checkpoint { read_through, .. }) if read_through == through),
        "{action:?}"
    );
}

#[test]
fn i17_one_write_at_a_time_says_that_an_idle_shard_was_read() {
    let mut machine = refreshing();
    assert_eq!(machine.poll_action(at_hour(0)), None);
    assert!(!matches!(machine.poll_action(at_hour(2)), Some(ShardAction::Checkpoint { .. })));
}

#[test]
fn i17_a_write_that_failed_is_made_again_after_a_backoff_and_not_before() {
    let mut machine = refreshing();
    machine.handle_event(at_hour(0), ShardEvent::CheckpointFailed);
    assert_eq!(machine.poll_action(at_hour(0)), None, "it waits");
    assert!(matches!(machine.poll_action(at_hour(1)), Some(ShardAction::Checkpoint { .. })));
}

#[test]
fn i17_a_record_that_arrived_earlier_does_not_take_back_what_was_said_to_be_read() {
    let resume = Resume {
        checkpoint: after(5),
        earliest_window: None,
        read_through: Some(Wall::from_millis(WALL_START)),
        retention: Some(DAY),
    };
    let now = at_hour(0);
    let mut machine = ShardMachine::new(mapping(|m| m.batch_size = 1), "shard".into(), resume, 1, now);
    let stored = loop {
        let event = match machine.poll_action(now).unwrap() {
            ShardAction::Open { .. } => ShardEvent::Opened,
            ShardAction::Fetch { .. } => {
                // They arrived five seconds before.
                page(&machine, vec![record(6, 10), record(7, 10)])
            }
            ShardAction::Invoke(invocation) => {
                ShardEvent::Invoked { lane: invocation.lane, outcome: success() }
            }
            ShardAction::Checkpoint { upto, read_through, .. } => break (upto, read_through),
            other => panic!("{other:?}"),
        };
        machine.handle_event(now, event);
    };
    assert_eq!(stored, (after(6), Some(Wall::from_millis(WALL_START))));
}

#[test]
fn i16_a_stop_waits_for_the_write_that_says_that_an_idle_shard_was_read() {
    let mut machine = refreshing();
    machine.handle_event(at_hour(0), ShardEvent::Stop { deadline: Mono::from_millis(u64::MAX) });
    assert_eq!(machine.poll_action(at_hour(0)), None);
    machine.handle_event(at_hour(0), ShardEvent::Checkpointed);
    assert_eq!(machine.poll_action(at_hour(0)), Some(ShardAction::Exit(Exit::Stopped { cut: 0 })));
}

#[test]
fn i17_records_that_the_service_still_gives_are_no_gap_however_old_they_are() {
    let mut rig = keeping_a_day(|_| {});
    (1..=5).for_each(|n| rig.put_keyed(n, None, -30 * HOUR));
    rig.run(5000);
    assert_eq!((rig.batches().len(), rig.machine.counters().gaps), (5, 0));
}

#[test]
fn i17_a_retention_that_is_shortened_during_a_run_is_a_gap_and_the_same_one_again_is_none() {
    let hour = Duration::from_hours(1);
    for (retention, gaps) in [(Some(DAY), 0), (Some(2 * DAY), 0), (None, 0), (Some(hour), 1)] {
        let mut rig = keeping_a_day(|_| {});
        (1..=5).for_each(|n| rig.put_keyed(n, None, -2 * HOUR));
        rig.run(300);
        let read = rig.fetches().len();
        rig.machine.set_retention(retention);
        rig.run(5000);
        assert!(read < 5 && rig.batches().len() == 5, "{retention:?}: {read}");
        assert_eq!(rig.machine.counters().gaps, gaps, "{retention:?}");
    }
}

#[test]
fn i17_the_same_retention_again_makes_no_gap_of_old_records_that_the_service_still_gives() {
    let mut rig = keeping_a_day(|_| {});
    (1..=5).for_each(|n| rig.put_keyed(n, None, -30 * HOUR));
    rig.run(300);
    rig.machine.set_retention(Some(DAY));
    rig.run(5000);
    assert_eq!((rig.batches().len(), rig.machine.counters().gaps), (5, 0));
}

#[test]
fn i17_what_a_page_under_way_brings_was_not_lost_when_the_retention_was_shortened() {
    let (mut machine, now) = (fetching(Some(2)), at_hour(0));
    machine.set_retention(Some(Duration::from_hours(1)));
    assert_eq!(machine.poll_action(now), None);
    machine.handle_event(now, page(&machine, vec![record(6, 10)]));
    assert!(matches!(machine.poll_action(now), Some(ShardAction::Invoke(_))));
    machine.poll_action(now);
    assert_eq!(machine.counters().gaps, 0);
}

#[test]
fn i17_without_a_retention_an_idle_shard_writes_nothing() {
    let mut machine = ShardMachine::new(mapping(|_| {}), "shard".into(), after(5), 1, at_hour(0));
    assert_eq!(idle(&mut machine, 0..=100), []);
}

#[test]
fn r32_records_that_expire_while_a_batch_is_retried_are_a_gap_but_those_in_memory_are_not_lost() {
    let mut rig = Rig::new(mapping(|m| {
        m.polling.buffer_bytes = 1;
        m.polling.maximum_records = 1;
    }));
    rig.retention = Some(ms(60_000));
    rig.crash(false);
    rig.put_keyed(1, None, 0);
    rig.function = Box::new(|call| {
        let done = call.nth > 12;
        Reply::Now(if done { success() } else { crate::outcome::Outcome::FunctionError })
    });
    rig.reads = Box::new(|n| Reply::Now(if n == 2 { Err(FetchFault::IteratorExpired) } else { Ok(()) }));
    rig.run(1_000_000);
    assert!(rig.batches().iter().all(|batch| *batch == [1]));
    assert_eq!(rig.stored, after(1), "the record itself outlived its stream");
    let [gap] = gaps(&rig).try_into().unwrap();
    assert_eq!((gap.kind, gap.from), (GapKind::BeyondRetention, after(1)));
}

/// A machine that has read a record of 20 hours ago, with more to come, and whose next poll is due.
fn behind() -> ShardMachine {
    let mut machine = resumed(after(5), Some(21));
    assert!(matches!(machine.poll_action(at_hour(0)), Some(ShardAction::Open { .. })));
    machine.handle_event(at_hour(0), ShardEvent::Opened);
    assert!(matches!(machine.poll_action(at_hour(0)), Some(ShardAction::Fetch { .. })));
    let arrival = Some(Wall::from_millis(WALL_START - 20 * HOUR));
    let data = crate::record::Data::Raw(bytes::Bytes::from_static(b"x"));
    let record = crate::record::Record::new(crate::position::Seq::plain("6"), None, arrival, data);
    let page =
        crate::intake::Page { records: vec![record], millis_behind: Some(72_000_000), ..Default::default() };
    let intake = crate::intake::intake(page, machine.position(), |_| true);
    machine.handle_event(at_hour(0), ShardEvent::Fetched(intake));
    machine
}

fn next_gap(machine: &mut ShardMachine) -> Option<Gap> {
    std::iter::from_fn(|| machine.poll_action(at_hour(1))).find_map(|action| match action {
        ShardAction::ReportGap(gap) => Some(gap),
        _ => None,
    })
}

#[test]
fn i17_a_retention_that_is_shortened_behind_the_reader_may_be_a_gap_while_it_reads() {
    for (hours, expected) in
        [(None, false), (Some(48), false), (Some(24), false), (Some(22), false), (Some(6), true)]
    {
        let mut machine = behind();
        machine.set_retention(hours.map(Duration::from_hours));
        let gap = next_gap(&mut machine);
        assert_eq!(gap.is_some(), expected, "{hours:?}");
        if let Some(gap) = gap {
            assert_eq!((gap.kind, gap.from), (GapKind::BeyondRetention, after(6)));
            machine.set_retention(hours.map(Duration::from_hours));
            assert_eq!(next_gap(&mut machine), None, "reported once");
        }
    }
}

#[test]
fn incident_97_a_record_that_was_skipped_is_a_reported_gap_and_stops_nothing() {
    for policy in [OnGap::Continue, OnGap::Stop] {
        let mut machine =
            ShardMachine::new(mapping(|m| m.on_gap = policy), "shard".into(), after(5), 1, at_hour(0));
        assert!(matches!(machine.poll_action(at_hour(0)), Some(ShardAction::Open { .. })));
        machine.handle_event(at_hour(0), ShardEvent::Opened);
        assert!(matches!(machine.poll_action(at_hour(0)), Some(ShardAction::Fetch { .. })));
        let seq = |n: &str| crate::position::Seq::plain(n);
        let page = Page { skipped: vec![seq("6"), seq("7")], millis_behind: Some(0), ..Page::default() };
        machine.handle_event(at_hour(0), ShardEvent::Fetched(intake(page, machine.position(), |_| true)));
        let actions: Vec<_> = std::iter::from_fn(|| machine.poll_action(at_hour(0))).collect();
        let [
            ShardAction::ReportGap(one),
            ShardAction::ReportGap(two),
            ShardAction::Checkpoint { upto, .. },
            ..,
        ] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert_eq!([&one.from, &two.from], [&Position::At(seq("6")), &Position::At(seq("7"))]);
        assert_eq!((*upto == after(7), machine.counters().gaps), (true, 2), "the shard is behind them");
        assert!(matches!(machine.poll_action(at_hour(1)), Some(ShardAction::Fetch { .. })), "{policy:?}");
    }
}
