//! What wrong `Date` headers, and a host or a service whose clock is off, do to records (I5, I17).

use std::time::Duration;

use shardmill::engine::{MappingBuilder, OnGap};
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::{Fault, Operation};

use crate::support::*;

const TWO_HOURS: i64 = 7_200_000;

/// Pages so small that reads go on for as long as records are worked on.
fn aged() -> MappingBuilder {
    mapping().maximum_record_age(Duration::from_secs(3600)).batch_size(10).maximum_records(20)
}

fn dropped(run: &Running) -> u64 {
    let shards = run.report().shards;
    shards.iter().filter_map(|shard| shard.snapshot.as_ref()).map(|snapshot| snapshot.counters.dropped).sum()
}

fn refusal() -> Fault {
    let (code, message) = ("ServiceUnavailable".to_owned(), "try later".to_owned());
    Fault::Error { status: 503, code, message }
}

/// 500 fresh records are worked on while `break_it` does its harm; every one is handed over.
async fn nothing_expires(break_it: impl AsyncFnOnce(&FakeKinesis)) {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    let a = worker("a");
    let slow = seen.slow("a", Duration::from_millis(100));
    let run = launch(consumer(&fake, &a, aged(), slow, &store));
    until("the lease", || run.report().shards.len() == 1).await;
    put(&fake, 500);
    until("the first records", || seen.len() >= 40).await;
    break_it(&fake).await;
    until("all records", || seen.len() == 500).await;
    assert_eq!(dropped(&run), 0);
    run.stop().await;
    assert_eq!(seen.by_shard(), accepted(&fake));
}

#[tokio::test(start_paused = true)]
async fn incident_71_a_refusal_whose_date_is_two_hours_ahead_discards_no_fresh_record() {
    nothing_expires(async |fake| {
        let refused = fake.faults().on_any().hold(refusal());
        let dated = fake.faults().on_any().hold(Fault::DateOff(TWO_HOURS));
        pass(Duration::from_millis(1200)).await;
        assert!(refused.hits() > 0);
        drop((refused, dated));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn incident_71_successful_answers_whose_date_is_two_hours_ahead_for_a_moment_discard_no_fresh_record() {
    nothing_expires(async |fake| {
        let dated = fake.faults().on_any().hold(Fault::DateOff(TWO_HOURS));
        pass(Duration::from_millis(3500)).await;
        assert!(dated.hits() > 1);
    })
    .await;
    nothing_expires(async |fake| {
        // One of three, for as long as there are records.
        for round in 0..50 {
            fake.faults().on(Operation::GetRecords).skip(round * 3).inject(Fault::DateOff(TWO_HOURS));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn incident_71_an_expired_iterator_dated_two_days_ahead_is_no_gap_and_stops_nothing() {
    for dated in [true, false] {
        let (fake, store, seen) = (stream(1), store(), Seen::default());
        put(&fake, 10);
        let a = worker("a");
        let run = launch(consumer(&fake, &a, mapping().on_gap(OnGap::Stop), seen.handler("a"), &store));
        until("the records", || seen.len() == 10).await;
        let two_days = 24 * TWO_HOURS;
        if dated {
            // A successful answer just before it says the same.
            fake.faults().on(Operation::GetRecords).inject(Fault::DateOff(two_days));
        }
        let wrong = fake.faults().on(Operation::GetRecords).skip(1).inject(Fault::ExpiredIterator);
        fake.faults().on(Operation::GetRecords).skip(1).inject(Fault::DateOff(two_days));
        until("the wrong answer", || wrong.hits() == 1).await;
        put(&fake, 10);
        until("the records since", || seen.len() == 20).await;
        let gaps: u64 = run.report().shards.iter().map(|s| s.snapshot.as_ref().unwrap().counters.gaps).sum();
        assert_eq!(gaps, 0, "a successful answer is wrong as well: {dated}");
        run.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_two_hours_off_gives_up_what_is_too_old_by_the_services_clock_and_nothing_else() {
    for offset in [TWO_HOURS, -TWO_HOURS] {
        let (fake, store, seen) = (stream(1), store(), Seen::default());
        // Its clock starts with the fake's.
        let a = worker("a");
        fake.set_clock_offset(offset);
        put(&fake, 10);
        pass(Duration::from_secs(3000)).await;
        put(&fake, 10);
        pass(Duration::from_secs(700)).await;
        // What is in doubt is not discarded: the function fails until the time is known.
        let fails = std::sync::atomic::AtomicU32::new(0);
        let notes = seen.clone();
        let handler = move |batch: shardmill::Batch, cx: shardmill::InvokeContext| {
            let fail = fails.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 8;
            if !fail {
                notes.note("a", &batch, &cx);
            }
            async move {
                match fail {
                    true => Err(shardmill::HandlerError::function("not yet")),
                    false => Ok(shardmill::BatchResponse::success()),
                }
            }
        };
        let run = launch(consumer(&fake, &a, aged(), handler, &store));
        until("the young records", || seen.len() == 10).await;
        assert_eq!(dropped(&run), 10, "service ahead by {offset} ms");
        assert!((a.clock().offset() - offset).abs() <= 1000, "{}", a.clock().offset());
        run.stop().await;
        assert_eq!(seen.by_shard(), accepted(&fake).split_off(10));
    }
}

#[tokio::test(start_paused = true)]
async fn incident_71_a_service_whose_clock_jumps_is_followed_and_discards_nothing_meanwhile() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    let a = worker("a");
    let run = launch(consumer(&fake, &a, aged(), seen.handler("a"), &store));
    put(&fake, 10);
    until("the records", || seen.len() == 10).await;
    fake.set_clock_offset(TWO_HOURS);
    put(&fake, 10);
    until("the records since", || seen.len() == 20).await;
    until("the jump", || (a.clock().offset() - TWO_HOURS).abs() <= 1000 && a.clock().doubt().is_none()).await;
    assert_eq!(dropped(&run), 0);
    run.stop().await;
}
