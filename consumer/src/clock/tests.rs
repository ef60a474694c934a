//! What answers make of the clock.

use super::*;
use std::time::Duration;
use tokio::time::advance;

const TRUTH: i64 = 1_790_000_000_400;

/// What a service whose clock reads `time` writes into its `Date` header.
fn header(time: i64) -> i64 {
    time.div_euclid(1000) * 1000
}

/// A second passes, then an answer of a service comes whose clock is so far ahead of the host's.
async fn answers(clock: &ServiceClock, ahead: i64, times: usize) {
    for _ in 0..times {
        advance(Duration::from_secs(1)).await;
        clock.observe(header(clock.host(clock.now().mono) + ahead));
    }
}

/// How far the estimate is from a service's clock that is so far ahead of the host's.
fn error(clock: &ServiceClock, ahead: i64) -> i64 {
    clock.offset() - ahead
}

#[tokio::test(start_paused = true)]
async fn a_host_ten_minutes_off_is_corrected_once_several_answers_over_seconds_agree() {
    for ahead in [600_000, -600_000] {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
        answers(&clock, ahead, 5).await;
        assert_eq!(clock.offset(), 0, "the host's clock, until then");
        assert!(clock.doubt().is_some_and(|doubt| doubt > Duration::from_secs(590)));
        answers(&clock, ahead, 2).await;
        assert!((-1000..=1000).contains(&error(&clock, ahead)), "{} ms off", error(&clock, ahead));
        assert_eq!(clock.doubt(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn incident_71_one_wrong_answer_among_good_ones_moves_nothing_and_is_doubted_until_the_next() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    answers(&clock, 0, 10).await;
    for _ in 0..20 {
        answers(&clock, 7_200_000, 1).await;
        assert!(clock.doubt().is_some());
        answers(&clock, 0, 1).await;
        assert_eq!(clock.doubt(), None);
    }
    assert!(clock.offset().abs() <= 1000, "{}", clock.offset());
}

#[tokio::test(start_paused = true)]
async fn incident_71_wrong_answers_for_a_second_however_many_move_nothing() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    answers(&clock, 0, 2).await;
    for _ in 0..400 {
        advance(Duration::from_millis(3)).await;
        clock.observe(header(clock.now().wall.as_millis() + 172_800_000));
    }
    assert!(clock.doubt().is_some() && clock.offset().abs() <= 1000);
}

#[tokio::test(start_paused = true)]
async fn incident_71_answers_that_contradict_each_other_move_nothing_and_the_doubt_stays() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    for round in 1..60 {
        answers(&clock, round * 60_000, 1).await;
    }
    assert_eq!(clock.offset(), 0);
    assert!(clock.doubt().is_some());
    answers(&clock, 600_000, 20).await;
    assert!(error(&clock, 600_000).abs() <= 1000, "most of the late ones agree");
    assert_eq!(clock.doubt(), None);
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_clock_jumps_is_followed() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    answers(&clock, 0, 10).await;
    answers(&clock, -90_000, 7).await;
    assert!(error(&clock, -90_000).abs() <= 1000, "{}", clock.offset());
    assert_eq!(clock.doubt(), None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_that_would_fit_anything_ends_no_doubt() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    answers(&clock, 0, 2).await;
    answers(&clock, 20_000, 1).await;
    let sent = clock.now().mono;
    advance(Duration::from_secs(29)).await;
    clock.observe_answer(header(clock.host(clock.now().mono)), sent);
    assert!(clock.doubt().is_some());
}

#[tokio::test(start_paused = true)]
async fn endpoints_have_clocks_of_their_own_on_one_host() {
    let host = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    let (a, b) = (host.for_endpoint("kinesis a"), host.for_endpoint("kinesis b"));
    answers(&a, 600_000, 7).await;
    answers(&host.for_endpoint("kinesis a"), 600_000, 1).await;
    assert!(error(&a, 600_000).abs() <= 1000 && a.doubt().is_none());
    assert_eq!((b.offset(), b.doubt()), (0, None));
    assert_eq!(host.offset(), a.offset(), "the one that is furthest off is shown");
    assert!((host.now().wall.as_millis() - TRUTH - 8000).abs() <= 1, "a clock of no endpoint is the host's");
    answers(&b, -60_000, 1).await;
    assert!(host.doubt().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_time_is_the_hosts_or_the_services_until_the_services_is_known() {
    for (ahead, earliest) in [(600_000, 0), (-600_000, -600_000)] {
        let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
        let mono = clock.now().mono;
        let early = |clock: &ServiceClock| clock.earliest_at(mono).as_millis() - TRUTH;
        assert!(early(&clock).abs() <= 1, "the host's");
        answers(&clock, ahead, 1).await;
        assert!((early(&clock) - earliest).abs() <= 1001, "{ahead}: {}", early(&clock));
        answers(&clock, ahead, 6).await;
        assert!((early(&clock) - ahead).abs() <= 1001, "{ahead}: {}", early(&clock));
    }
}

#[tokio::test(start_paused = true)]
async fn the_cut_to_the_second_and_slow_answers_do_not_make_the_estimate_jitter() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH - 2_500));
    let mut truth = TRUTH;
    let mut offsets = Vec::new();
    for round in 0..200_u16 {
        let after = if round % 10 == 9 { 7000 } else { u64::from(round * 13 % 60) };
        let before = u64::from(round * 37 % 400);
        let sent = clock.now().mono;
        advance(Duration::from_millis(before)).await;
        let stamped = header(truth + i64::try_from(before).unwrap());
        advance(Duration::from_millis(after)).await;
        clock.observe_answer(stamped, sent);
        truth += i64::try_from(before + after).unwrap();
        offsets.push(clock.offset());
    }
    assert!(offsets.is_sorted(), "each step brings the estimate nearer to the truth, none takes it back");
    assert!(offsets.windows(2).filter(|pair| pair[0] != pair[1]).count() < 10, "{offsets:?}");
    assert!((truth - clock.now().wall.as_millis()).abs() < 100, "many answers narrow the estimate");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_agrees_with_the_service_is_never_shifted() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    for step in 0..50 {
        clock.observe(header(TRUTH + step * 130));
        advance(Duration::from_millis(130)).await;
    }
    // The clock counts whole milliseconds, so a reading may be one off.
    assert!(clock.offset().abs() <= 1, "{}", clock.offset());
    assert!((clock.now().wall.as_millis() - (TRUTH + 50 * 130)).abs() <= 1);
}

#[tokio::test(start_paused = true)]
async fn clones_share_the_estimate_and_the_monotonic_clock_follows_paused_time() {
    let clock = ServiceClock::new();
    let other = ServiceClock::starting_at(Wall::from_millis(0));
    let shared = clock.clone();
    let before = clock.now();
    clock.observe(before.wall.as_millis() + 2_000);
    advance(Duration::from_secs(7)).await;
    // The clock counts whole milliseconds, so a reading may be one off.
    let passed = shared.now().mono.since(before.mono);
    assert!((6_999..=7_001).contains(&passed.as_millis()), "{passed:?}");
    assert!((shared.now().wall.as_millis() - before.wall.as_millis() - 9_000).abs() <= 1);
    assert_eq!(other.now().mono, clock.now().mono, "one origin for the whole process");
}

#[tokio::test(start_paused = true)]
async fn a_large_correction_warns_once_and_again_only_after_it_was_small() {
    let clock = ServiceClock::starting_at(Wall::from_millis(TRUTH));
    let due = |offset: i64| {
        clock.inner.offset.store(offset, Ordering::Relaxed);
        clock.warning_is_due()
    };
    assert_eq!([4_999, 5_001, 6_000, -9_000].map(due), [false, true, false, false]);
    assert_eq!([100, -5_001, -5_002].map(due), [false, true, false]);
}
