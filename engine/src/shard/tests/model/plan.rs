//! Random scenarios: what the stream holds, how it is read, and what the function, the destination and fate do.
//!
//! Times are arranged in steps of sixteen milliseconds so that what happens to different lanes, and what has different
//! causes, never falls on the same one: crashes come at 13 of 16, pages at 15, invocations of lane n end at n, its
//! records expire at n + 4.

use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;

use super::scenario::{Answer, Call, Page, Rec, Reply, Rules};
use crate::shard::PlaceRule;

pub(super) const STEP: u64 = 16;
/// The service's clock at time 0.
const WALL: i64 = 1_700_000_000_000;
/// A state one byte over the limit, and one that is just within it.
pub(super) static TOO_LARGE: LazyLock<Bytes> = LazyLock::new(|| state_of((1 << 20) + 1));
pub(super) static JUST_FITS: LazyLock<Bytes> = LazyLock::new(|| state_of(1 << 20));

fn state_of(bytes: usize) -> Bytes {
    Bytes::from(format!("{{\"s\":\"{}\"}}", "x".repeat(bytes - 8)))
}

/// A record before its number is known.
#[derive(Clone, Debug)]
pub(super) struct Put {
    pub(super) key: Option<u8>,
    /// Steps between the previous record's arrival and this one's.
    after: i64,
    pub(super) bytes: usize,
    filtered: bool,
    has_arrival: bool,
}

/// Everything that a random run is made of. What may fail is in percent.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    puts: Vec<Put>,
    /// Steps before each page, and its size; later ones are like the last.
    pages: Vec<(u64, usize)>,
    closes_at: u64,
    batch_size: usize,
    batching_window: u64,
    retries: Option<u32>,
    bisect: bool,
    partial: bool,
    age: Option<u64>,
    payload_limit: Option<usize>,
    shape: Shape,
    slow: u64,
    function_fails: u64,
    destination_fails: u64,
    destination_takes: u64,
    pub(super) store_takes: u64,
    /// Steps after which the process crashes, and whether what was under way had happened.
    pub(super) crashes: Vec<(u64, bool)>,
}

/// Lanes and filters exclude windows (R71).
#[derive(Clone, Copy, Debug)]
enum Shape {
    Lanes { count: usize, filters: bool },
    Windows { size: i64 },
}

fn put() -> impl Strategy<Value = Put> {
    let key = prop::option::weighted(0.9, 0..6_u8);
    let after = prop_oneof![6 => 0..12_i64, 3 => 0..120_i64, 1 => -80..0_i64];
    (key, after, 1..300_usize, prop::bool::weighted(0.2), prop::bool::weighted(0.95)).prop_map(
        |(key, after, bytes, filtered, has_arrival)| Put { key, after, bytes, filtered, has_arrival },
    )
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    let shape = prop_oneof![
        (1..5_usize, any::<bool>()).prop_map(|(count, filters)| Shape::Lanes { count, filters }),
        (10..200_i64).prop_map(|steps| Shape::Windows { size: steps * 10 }),
    ];
    let stream = (
        prop::collection::vec(put(), 0..20),
        prop::collection::vec((0..40_u64, 0..8_usize), 1..6),
        prop_oneof![3 => Just(0), 1 => 0..20_000_u64],
    );
    let batches =
        (1..7_usize, prop_oneof![2 => Just(0), 1 => 1..40_u64], prop::option::weighted(0.8, 0..3_u32));
    let rules = (
        any::<bool>(),
        any::<bool>(),
        prop::option::of(1..250_u64),
        prop::option::weighted(0.2, 500..2500_usize),
        shape,
    );
    let peers = (0..30_u64, 0..70_u64, prop_oneof![Just(0), 0..50_u64], prop_oneof![Just(0), 0..300_u64]);
    let fate = (0..100_u64, prop::collection::vec((0..150_u64, any::<bool>()), 0..3));
    (any::<u64>(), stream, batches, rules, peers, fate).prop_map(
        |(seed, (puts, pages, closes_at), batches, rules, peers, (store_takes, crashes))| Plan {
            seed,
            puts,
            pages,
            closes_at,
            batch_size: batches.0,
            batching_window: batches.1 * STEP,
            retries: batches.2,
            bisect: rules.0,
            partial: rules.1,
            age: rules.2.map(|steps| steps * STEP),
            payload_limit: rules.3,
            shape: rules.4,
            slow: peers.0,
            function_fails: peers.1,
            destination_fails: peers.2,
            destination_takes: peers.3,
            store_takes,
            crashes,
        },
    )
}

/// Chance as a function of the plan's seed and of what is asked, so that a run can be told twice.
fn chance(seed: u64, about: &[u64]) -> u64 {
    about.iter().fold(seed, |state, word| {
        let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// The next time of this kind.
const fn next(at: u64, kind: u64) -> u64 {
    at + (kind + STEP - at % STEP) % STEP
}

impl Plan {
    /// Every other run must ask for its places.
    pub(super) const fn places(&self) -> PlaceRule {
        if self.seed.is_multiple_of(2) { PlaceRule::Unlimited } else { PlaceRule::Limited }
    }

    pub(super) fn rules(&self) -> Rules {
        let (lanes, tumbling) = match self.shape {
            Shape::Lanes { count, .. } => (count, None),
            Shape::Windows { size } => (1, Some(size)),
        };
        Rules {
            batch_size: self.batch_size,
            batching_window: self.batching_window,
            retries: self.retries,
            bisect: self.bisect,
            partial: self.partial,
            age: self.age,
            tumbling,
            // Without a limit to its attempts an oversized record would be retried forever.
            payload_limit: self.payload_limit.filter(|_| tumbling.is_none() && self.retries.is_some()),
            lanes,
            backoff: 13 * STEP,
            wall: WALL,
            ..Rules::default()
        }
    }

    pub(super) fn puts(&self) -> &[Put] {
        &self.puts
    }

    /// When the `index`th record arrived, given its lane.
    fn arrival(&self, index: usize, lane: usize) -> Option<i64> {
        let steps: i64 = self.puts[..=index].iter().map(|put| put.after).sum();
        let kind = i64::try_from(lane).unwrap() + 3;
        self.puts[index].has_arrival.then(|| WALL + (steps - 40) * STEP.cast_signed() + kind)
    }

    /// The stream's records, given each one's lane and size in an event.
    pub(super) fn records(&self, place: impl Fn(u64, &Put) -> (usize, usize)) -> Vec<Rec> {
        let filters = matches!(self.shape, Shape::Lanes { filters: true, .. });
        let windows = matches!(self.shape, Shape::Windows { .. });
        let mut records = Vec::new();
        for (index, put) in self.puts.iter().enumerate() {
            let n = index as u64 + 1;
            let (lane, size) = place(n, put);
            let mut arrival = self.arrival(index, lane);
            if windows {
                arrival = arrival.or(Some(WALL + 3));
            }
            records.push(Rec { n, lane, arrival, size, filtered: filters && put.filtered });
        }
        records
    }

    /// The pages of a run that begins then, after so many records.
    pub(super) fn pages(&self, records: &[Rec], begun: u64, after: usize) -> Vec<Page> {
        let (mut asked, mut cursor) = (begun, after);
        let mut pages: Vec<Page> = Vec::new();
        loop {
            let (mut steps, mut size) =
                *self.pages.get(pages.len()).or(self.pages.last()).unwrap_or(&(1, 100));
            if pages.len() >= self.pages.len() {
                size = size.max(1);
            }
            if cursor == records.len() && pages.len() >= self.pages.len() {
                // Nothing is left: few pages follow, far apart.
                steps = 1250;
            }
            let at = next(asked + 1 + steps * STEP, 15);
            let end = (cursor + size).min(records.len());
            let is_tip = end == records.len();
            let is_end = is_tip && at >= self.closes_at * STEP;
            pages.push(Page { asked, at, records: records[cursor..end].to_vec(), is_tip, is_end });
            if is_end {
                return pages;
            }
            (asked, cursor) = (at, end);
        }
    }

    /// What the function does: depends on what it is told, and on the run.
    pub(super) fn reply(&self, run: usize, call: &Call) -> Reply {
        let start = call.window.as_ref().map_or(0, |window| window.start.cast_unsigned());
        let about: Vec<_> =
            call.records.iter().copied().chain([u64::from(call.nth), run as u64, start]).collect();
        let dice = chance(self.seed, &about);
        let takes = chance(dice, &[9]) % (1 + self.slow) * STEP;
        let after = next(call.at + takes, call.lane as u64) - call.at;
        Reply { after, answer: self.answer(call, dice) }
    }

    fn answer(&self, call: &Call, dice: u64) -> Answer {
        // Some records fail often, so that budgets are used up; without a maximum everything succeeds in the end.
        let poison = call.records.iter().any(|n| chance(self.seed, &[*n]).is_multiple_of(8));
        let fails = dice % 100 < self.function_fails + if poison { 30 } else { 0 };
        let state = self.state(call, dice);
        if !fails || (self.retries.is_none() && call.nth > 4) {
            return Answer::Returned { failures: Vec::new(), state };
        }
        let pick = |salt: u64| {
            let index = usize::try_from(chance(dice, &[salt]) % 64).unwrap_or(0);
            call.records.get(index % call.records.len().max(1)).copied().unwrap_or(1_000_000)
        };
        match chance(dice, &[1]) % 11 {
            0..=2 => Answer::Error,
            3..=6 => Answer::Returned { failures: vec![pick(2), pick(3)], state },
            7 => Answer::Returned { failures: vec![pick(4), 1_000_000], state },
            8 => Answer::TooLarge,
            9 => Answer::Returned { failures: Vec::new(), state: None },
            _ if call.nth < 6 => {
                Answer::NotReached { retry_after: dice.is_multiple_of(2).then(|| dice % 60 * STEP) }
            }
            _ => Answer::Error,
        }
    }

    fn state(&self, call: &Call, dice: u64) -> Option<Bytes> {
        call.window.as_ref()?;
        Some(match chance(dice, &[5]) % 32 {
            0 => TOO_LARGE.clone(),
            1 if self.seed.is_multiple_of(8) => JUST_FITS.clone(),
            n => Bytes::from(format!("{{\"n\":{}}}", n + dice % 1000)),
        })
    }

    /// What the destination does with a discard, by its records and the number of the try.
    pub(super) fn delivery(&self, records: &[u64], nth: u32) -> (u64, bool) {
        let about: Vec<_> = records.iter().copied().chain([u64::from(nth), 77]).collect();
        let dice = chance(self.seed, &about);
        (dice % (1 + self.destination_takes), nth > 5 || chance(dice, &[1]) % 100 >= self.destination_fails)
    }

    /// Whether the order of deliveries matters.
    pub(super) const fn destination_is_slow(&self) -> bool {
        self.destination_takes > 0 || self.destination_fails > 0
    }

    /// When the process crashes.
    pub(super) fn crash_times(&self) -> Vec<(u64, bool)> {
        let mut at = 0;
        let times = self.crashes.iter().map(|(steps, happened)| {
            at = next(at + steps * STEP, 13);
            (at, *happened)
        });
        times.collect()
    }
}
