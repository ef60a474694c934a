//! Room for pages: how much, and for whom.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;

use super::*;

const MIB: usize = 1 << 20;
/// What a record comes to.
const RECORD: usize = 1 << 10;

/// One of which first reads may have half.
fn budget(limit: usize) -> Budget {
    Budget::new(limit, 1)
}

#[test]
fn first_reads_that_hang_on_one_source_leave_room_for_those_of_another() {
    const READS: usize = 256;
    let budget = Budget::new(512 * MIB, READS);
    // Shards are opened a few at a time: each is the last one as far as the budget knows.
    let mut hanging: Vec<(Share, Room)> = Vec::new();
    for index in 0..READS {
        let share = budget.share();
        let room = share.room(10_000, RECORD).now_or_never();
        hanging.push((share, room.unwrap_or_else(|| panic!("shard {index} waits"))));
    }
    assert!(budget.state().reserved <= 256 * MIB);
    let other = budget.share();
    let room = other.room(10_000, RECORD).now_or_never().expect("the other source does not hang");
    assert_eq!(room.records, 1_024);
}

#[test]
fn i13_pages_double_from_the_first_one_and_what_comes_stays_within_what_was_reserved() {
    let budget = Budget::new(512 * MIB, 256);
    let share = budget.share();
    let mut pages = Vec::new();
    for _ in 0..6 {
        let room = share.room(10_000, RECORD).now_or_never().unwrap();
        assert_eq!(room.reserved, room.records * RECORD);
        pages.push(room.records);
        share.read(room.records * RECORD);
    }
    assert_eq!(pages, [1_024, 2_048, 4_096, 8_192, 10_000, 10_000]);
    // At the tip nothing is expected; a burst begins as a first page does.
    share.read(0);
    let room = share.room(10_000, RECORD).now_or_never().unwrap();
    assert_eq!((room.records, room.reserved), (1_024, 0));
}

#[tokio::test]
async fn while_handlers_keep_up_pages_are_larger_than_an_even_share_and_evenly_small_once_they_do_not() {
    let budget = Budget::new(128 * MIB, 64);
    let shares: Vec<Share> = (0..2_000).map(|_| budget.share()).collect();
    let even = 128 * MIB / 2_000 / RECORD;
    for keep_up in [true, false] {
        let mut pages = Vec::new();
        for share in shares.iter().cycle().take(3 * shares.len()) {
            let Some(room) = share.room(10_000, RECORD).now_or_never() else { continue };
            let bytes = room.records * RECORD;
            share.read(bytes);
            pages.push(room.records);
            drop(room);
            if !keep_up {
                let held = share.own.lock().held + bytes;
                share.set(held, held / RECORD);
            }
        }
        let last = pages.last().copied().unwrap();
        assert_eq!(last > 10 * even, keep_up, "{last}");
        assert_eq!(last <= even, !keep_up, "{last}");
    }
    let mut held: Vec<usize> = shares.iter().map(|share| share.own.lock().records).collect();
    held.sort_unstable();
    assert!(held[0] > 0 && budget.state().used <= 144 * MIB, "each shard has records: {}", held[0]);
}

#[tokio::test]
async fn i13_shards_whose_pages_double_stay_within_the_budget() {
    let budget = Budget::new(512 * MIB, 256);
    let shares: Vec<Share> = (0..128).map(|_| budget.share()).collect();
    for _ in 0..6 {
        let rooms: Vec<(&Share, Room)> = shares
            .iter()
            .filter_map(|share| Some((share, share.room(10_000, RECORD).now_or_never()?)))
            .collect();
        for (share, room) in rooms {
            let bytes = share.own.lock().held + room.records * RECORD;
            share.read(room.records * RECORD);
            drop(room);
            share.set(bytes, bytes / RECORD);
        }
    }
    let held = budget.state().used;
    assert!((448 * MIB..=512 * MIB).contains(&held), "{held}");
}

#[test]
fn i13_a_full_budget_holds_back_shards_that_already_hold_a_page() {
    let budget = budget(100);
    let (busy, idle) = (budget.share(), budget.share());
    busy.set(120, 1);
    assert!(busy.room(10, RECORD).now_or_never().is_none());
    assert!(idle.room(10, RECORD).now_or_never().is_some(), "each shard gets some records");
    busy.set(40, 1);
    assert!(busy.room(10, RECORD).now_or_never().is_some());
}

#[tokio::test]
async fn a_waiting_shard_goes_on_when_another_one_ends() {
    let budget = budget(100);
    let (ending, waiting) = (budget.share(), budget.share());
    ending.set(99, 1);
    waiting.set(1, 1);
    let mut room = Box::pin(waiting.room(10, RECORD));
    assert!((&mut room).now_or_never().is_none());
    drop(ending);
    room.await;
}

#[tokio::test]
async fn i13_two_thousand_shards_that_catch_up_at_once_stay_within_the_budget_and_an_eighth() {
    let budget = budget(128 * MIB);
    let shares: Vec<Share> = (0..2_000).map(|_| budget.share()).collect();
    let mut held = 0;
    for round in 0..3 {
        let mut rooms = Vec::new();
        for share in &shares {
            rooms.extend(share.room(10_000, RECORD).now_or_never().map(|room| (share, room)));
        }
        for (share, room) in rooms {
            // Each page is as large as it may be.
            let bytes = room.records * RECORD;
            share.read(bytes);
            drop(room);
            let own = share.own.lock().held + bytes;
            share.set(own, own / RECORD);
        }
        held = budget.state().used;
        assert!(held <= 144 * MIB, "{held} in round {round}");
    }
    assert!(held >= 120 * MIB, "the budget is there to be used: {held}");
    drop(shares);
    let state = budget.state();
    assert_eq!((state.used, state.reserved, state.shards, state.active), (0, 0, 0, 0));
}

#[tokio::test]
async fn one_busy_shard_among_thousands_of_idle_ones_reads_full_pages() {
    let budget = budget(128 * MIB);
    let shares: Vec<Share> = (0..2_000).map(|_| budget.share()).collect();
    for share in &shares {
        drop(share.room(10_000, RECORD).await);
        share.read(0);
    }
    // All of them are being read again.
    let idle: Vec<Room> =
        shares[1..].iter().filter_map(|share| share.room(10_000, RECORD).now_or_never()).collect();
    shares[0].read(10 * MIB);
    let page = shares[0].room(10_000, RECORD).await;
    assert_eq!((idle.len(), page.records), (1_999, 10_000));
}

#[test]
fn i13_a_shard_without_records_waits_for_reads_under_way_but_not_for_what_others_hold() {
    let budget = budget(80 * RECORD);
    let (first, second, third) = (budget.share(), budget.share(), budget.share());
    let wakes: Arc<Wakes> = Arc::default();
    let mut rooms = [&first, &second, &third].map(|share| -> Waits { Box::pin(share.room(1_000, RECORD)) });
    let [a, b, c] = &mut rooms;
    let (Poll::Ready(a), Poll::Ready(b)) = (poll(a, &wakes), poll(b, &wakes)) else { panic!() };
    let Poll::Ready(c) = poll(c, &wakes) else { panic!() };
    assert_eq!((a.records, b.records, c.records), (26, 26, 26), "each gets a page");
    let late = budget.share();
    let mut room: Waits = Box::pin(late.room(1_000, RECORD));
    assert!(poll(&mut room, &wakes).is_pending(), "reads under way are about to end");
    for (share, read) in [(&first, a), (&second, b), (&third, c)] {
        share.read(read.records * RECORD);
        share.set(read.records * RECORD, read.records);
        drop(read);
    }
    let Poll::Ready(room) = poll(&mut room, &wakes) else { panic!("what is held may be held for long") };
    assert!((1..20).contains(&room.records), "{}", room.records);
}

#[tokio::test]
async fn a_record_larger_than_the_budget_passes_and_the_next_page_is_asked_for_alone() {
    let budget = budget(16 * MIB);
    let (share, _other) = (budget.share(), budget.share());
    share.read(20 * MIB);
    share.read(20 * MIB);
    assert_eq!(share.room(10_000, 15 * MIB).await.records, 1);
}

/// Counts how often a task is woken.
#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Waits = Pin<Box<dyn Future<Output = Room> + Send>>;

fn poll(room: &mut Waits, wakes: &Arc<Wakes>) -> Poll<Room> {
    room.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

#[test]
fn incident_85_room_that_becomes_free_wakes_the_one_read_that_gets_it_in_the_order_of_the_queue() {
    const SHARDS: usize = 6_000;
    const PAGE: usize = 100 * RECORD;
    let budget = budget(SHARDS * PAGE);
    let shares: Vec<Share> = (0..SHARDS).map(|_| budget.share()).collect();
    for share in &shares {
        share.read(PAGE);
        share.set(PAGE, 100);
    }
    let wakes: Arc<Wakes> = Arc::default();
    let mut rooms: Vec<Waits> =
        shares.iter().map(|share| -> Waits { Box::pin(share.room(10_000, RECORD)) }).collect();
    assert!(rooms.iter_mut().all(|room| poll(room, &wakes).is_pending()));
    for turn in 0..10 {
        // Some other shard has worked off a page.
        shares[SHARDS - 1 - turn].set(RECORD, 1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), turn + 1, "a page is freed, one read goes on");
        let Poll::Ready(room) = poll(&mut rooms[turn], &wakes) else { panic!("{turn} is at the front") };
        shares[turn].set(PAGE + room.records * RECORD, 100 + room.records);
        drop(room);
    }
    let before = wakes.0.load(Ordering::Relaxed);
    // And one does it record by record: a read goes on with each small page that there is room for.
    (1..100).rev().for_each(|left| shares[3_000].set(left * RECORD, left));
    let woken = wakes.0.load(Ordering::Relaxed) - before;
    assert!((1..=10).contains(&woken), "{woken}");
}

#[test]
fn incident_85_a_read_that_gives_up_leaves_the_queue_and_what_it_was_given_goes_to_the_next() {
    let budget = budget(100 * RECORD);
    let (holding, gone, given, next) = (budget.share(), budget.share(), budget.share(), budget.share());
    holding.set(100 * RECORD, 100);
    [&gone, &given, &next].into_iter().for_each(|share| share.set(1, 1));
    let wakes: Arc<Wakes> = Arc::default();
    let wait = |share: &Share| -> Waits {
        let mut room: Waits = Box::pin(share.room(1_000, RECORD));
        assert!(poll(&mut room, &wakes).is_pending());
        room
    };
    let (gone, given, mut next) = (wait(&gone), wait(&given), wait(&next));
    drop(gone);
    assert_eq!(budget.state().waiting.len(), 2);
    let before = wakes.0.load(Ordering::Relaxed);
    holding.set(99 * RECORD, 99);
    assert_eq!(wakes.0.load(Ordering::Relaxed), before, "a record is not half a page");
    holding.set(87 * RECORD, 87);
    assert_eq!(wakes.0.load(Ordering::Relaxed), before + 1);
    assert!(poll(&mut next, &wakes).is_pending(), "it is not the next one's turn");
    drop(given);
    assert!(poll(&mut next, &wakes).is_ready());
    drop(holding);
    let state = budget.state();
    assert_eq!((state.waiting.len(), state.reserved), (0, 0));
}

#[test]
fn incident_85_large_and_small_requests_are_served_in_the_order_in_which_they_came() {
    let budget = budget(100 * RECORD);
    let shares: Vec<Share> = (0..6).map(|_| budget.share()).collect();
    shares[0].set(100 * RECORD, 100);
    shares[1..].iter().for_each(|share| share.set(1, 1));
    let wakes: Arc<Wakes> = Arc::default();
    // Every second one asks for more than there will ever be at once.
    let asked = |index: usize| if index.is_multiple_of(2) { 10_000 } else { 1 };
    let mut rooms: Vec<(usize, Waits)> = (1..6)
        .map(|index| -> (usize, Waits) { (index, Box::pin(shares[index].room(asked(index), RECORD))) })
        .collect();
    assert!(rooms.iter_mut().all(|(_, room)| poll(room, &wakes).is_pending()));
    let mut order = Vec::new();
    for left in (0..100).rev() {
        shares[0].set(left * RECORD, left);
        rooms.retain_mut(|(index, room)| match poll(room, &wakes) {
            Poll::Ready(room) => {
                // Its page stays forever.
                shares[*index].set(room.records * RECORD, room.records);
                order.push(*index);
                false
            }
            Poll::Pending => true,
        });
    }
    assert_eq!(order, [1, 2, 3, 4, 5]);
}

#[test]
fn a_shard_that_has_no_records_any_more_does_not_wait_for_its_turn() {
    let budget = budget(100 * RECORD);
    let (stuck, first, emptied) = (budget.share(), budget.share(), budget.share());
    stuck.set(200 * RECORD, 200);
    let wakes: Arc<Wakes> = Arc::default();
    [&first, &emptied].into_iter().for_each(|share| share.set(RECORD, 1));
    let mut rooms = [&first, &emptied].map(|share| -> Waits { Box::pin(share.room(10, RECORD)) });
    assert!(rooms.iter_mut().all(|room| poll(room, &wakes).is_pending()));
    emptied.set(RECORD, 0);
    let [first, emptied] = &mut rooms;
    assert!(poll(emptied, &wakes).is_ready(), "what it still holds is no record that would make room");
    assert!(poll(first, &wakes).is_pending());
}
