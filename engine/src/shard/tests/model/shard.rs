//! All lanes of one run, the destination, and how far the checkpoint may be at any time.

use std::collections::BTreeMap;

use super::lane::{Act, Event, Function, Lane, Need};
use super::scenario::{Page, Rec, Rules};
use super::windows::Tumbling;

/// What one run must do if nothing stops it.
#[derive(Debug)]
pub(in super::super) struct Expected {
    /// What each lane does, and when.
    pub(in super::super) lanes: Vec<Vec<(u64, Act)>>,
    pub(in super::super) events: Vec<(u64, Event)>,
    /// When which windows were finally closed: the earliest that was not, then.
    closed: Vec<(u64, i64)>,
    /// When a tumbling window was open.
    windows: Vec<(u64, u64)>,
    /// The records in the shard's order.
    records: Vec<Fate>,
    ends_at: Option<u64>,
    /// The most discards that wait for the destination at one time.
    pub(in super::super) most_undelivered: usize,
    /// Two lanes gave something up at the same time: which comes first is not told.
    pub(in super::super) has_ties: bool,
}

/// What becomes of a record.
#[derive(Debug)]
struct Fate {
    n: u64,
    read: u64,
    is_filtered: bool,
    /// Never, if none.
    resolved: Option<u64>,
}

/// How long the destination takes for a discard, told by its records and the number of the try, and whether it accepts.
pub(in super::super) type Destination<'a> = dyn Fn(&[u64], u32) -> (u64, bool) + 'a;

/// What a run over these pages, begun at this time, must do.
pub(in super::super) fn expect(
    rules: &Rules,
    pages: &[Page],
    begun: u64,
    earliest_window: Option<i64>,
    function: &Function<'_>,
    destination: &Destination<'_>,
) -> Expected {
    let mut lanes = Vec::new();
    for index in 0..rules.lanes {
        lanes.push(Lane::new(rules, pages, (index, begun), earliest_window, function).run());
    }
    let mut expected = Expected {
        lanes: Vec::new(),
        events: lanes.iter().flat_map(|lane| lane.events.clone()).collect(),
        windows: lanes.iter().flat_map(|lane| lane.tumbling.spans.clone()).collect(),
        records: Vec::new(),
        closed: earliest_window.map(|earliest| (0, earliest)).into_iter().collect(),
        ends_at: pages.iter().find(|page| page.is_end).map(|page| page.at),
        most_undelivered: 0,
        has_ties: false,
    };
    let delivered = expected.deliver(rules, &lanes, destination);
    let over = windows_over(&lanes[0], &delivered);
    for page in pages {
        for record in &page.records {
            let resolved = resolved_at(record, page.at, &lanes, &delivered, &over);
            let (n, read, is_filtered) = (record.n, page.at, record.filtered);
            expected.records.push(Fate { n, read, is_filtered, resolved });
        }
    }
    expected.close_windows(&lanes[0].tumbling, &over);
    expected.lanes = lanes.into_iter().map(|lane| lane.acts).collect();
    expected
}

/// The time at which each lane's discards are off its hands, by lane and number.
type Delivered = BTreeMap<(usize, usize), u64>;

fn met(need: Need, lane: usize, delivered: &Delivered) -> Option<u64> {
    match need {
        Need::Time(at) => Some(at),
        Need::Discard(number) => delivered.get(&(lane, number)).copied(),
    }
}

/// When each tumbling window is over: its final call is, and every record up to the last one that its function was done
/// with. What is left of it before that is redelivered after a crash, and the whole window with it (I8).
fn windows_over(lane: &Lane<'_>, delivered: &Delivered) -> Vec<Option<u64>> {
    let over = |(closing, last): (&Option<Need>, &u64)| {
        let closed = met((*closing)?, 0, delivered)?;
        let mut needs = lane.needs.range(..=*last).map(|(_, (need, _))| met(*need, 0, delivered));
        needs.try_fold(closed, |latest, at| Some(latest.max(at?)))
    };
    lane.tumbling.instances.iter().zip(&lane.tumbling.last).map(over).collect()
}

fn resolved_at(
    record: &Rec,
    read_at: u64,
    lanes: &[Lane<'_>],
    delivered: &Delivered,
    over: &[Option<u64>],
) -> Option<u64> {
    if record.filtered {
        return Some(read_at);
    }
    let lane = &lanes[record.lane];
    let met = |need| met(need, record.lane, delivered);
    let (own, instance) = *lane.needs.get(&record.n)?;
    let held_until = match instance {
        Some(instance) => over[instance]?,
        None => 0,
    };
    Some(met(own)?.max(held_until))
}

impl Expected {
    fn close_windows(&mut self, tumbling: &Tumbling, over: &[Option<u64>]) {
        for (over, next) in over.iter().zip(&tumbling.next) {
            // One that is not over holds up those after it.
            let Some(at) = over else { break };
            let before = self.closed.last().map_or(0, |(at, _)| *at);
            self.closed.push((before.max(*at), *next));
        }
    }

    /// One discard after the other, in the order in which they were discarded.
    fn deliver(&mut self, rules: &Rules, lanes: &[Lane<'_>], destination: &Destination<'_>) -> Delivered {
        let mut waiting = Vec::new();
        for (index, lane) in lanes.iter().enumerate() {
            let discards = lane.acts.iter().filter_map(|(at, act)| match act {
                Act::Discard { records, .. } => Some((*at, records)),
                Act::Invoke { .. } => None,
            });
            waiting.extend(discards.enumerate().map(|(number, (at, records))| (at, index, number, records)));
        }
        waiting.sort();
        self.has_ties = waiting.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1);
        let mut delivered = Delivered::new();
        let mut done: Vec<u64> = Vec::new();
        for (given_up, lane, number, records) in waiting {
            let undelivered = 1 + done.iter().filter(|done| **done >= given_up).count();
            self.most_undelivered = self.most_undelivered.max(undelivered);
            let mut now = given_up.max(done.last().copied().unwrap_or(0));
            for nth in 1.. {
                let (takes, accepts) = destination(records, nth);
                now += takes;
                if accepts {
                    break;
                }
                now += rules.backoff;
            }
            done.push(now);
            delivered.insert((lane, number), now);
        }
        delivered
    }

    /// The number of records below the checkpoint at the end of `at`; one more for the end of the shard.
    pub(in super::super) fn reached(&self, at: u64) -> usize {
        let is_resolved = |fate: &&Fate| fate.resolved.is_some_and(|resolved| resolved <= at);
        let prefix = self.records.iter().take_while(is_resolved).count();
        let ended = self.ends_at.is_some_and(|end| end <= at);
        prefix + usize::from(ended && prefix == self.records.len())
    }

    /// The same, but filtered records just below an unresolved one may wait for it.
    pub(in super::super) fn reached_at_least(&self, at: u64) -> usize {
        let prefix = self.reached(at);
        match self.records.get(prefix) {
            Some(next) if next.read <= at => {
                prefix - self.records[..prefix].iter().rev().take_while(|fate| fate.is_filtered).count()
            }
            _ => prefix,
        }
    }

    /// How many records lie below a checkpoint after record `n`.
    pub(in super::super) fn below(&self, n: u64) -> usize {
        self.records.iter().take_while(|fate| fate.n <= n).count()
    }

    pub(in super::super) fn records(&self) -> usize {
        self.records.len()
    }

    /// Whether at the end of `at` a record above the checkpoint was invoked and is resolved.
    pub(in super::super) fn is_ahead(&self, at: u64) -> bool {
        let above = self.records.iter().skip(self.reached(at)).filter(|fate| !fate.is_filtered);
        above.into_iter().any(|fate| fate.resolved.is_some_and(|resolved| resolved <= at))
    }

    /// The earliest window that is not closed at the end of `at`.
    pub(in super::super) fn earliest_window(&self, at: u64) -> Option<i64> {
        self.closed.iter().take_while(|(closed, _)| *closed <= at).last().map(|(_, next)| *next)
    }

    /// Whether at the end of `at` a tumbling window is open.
    pub(in super::super) fn is_inside_a_window(&self, at: u64) -> bool {
        self.windows.iter().any(|(opened, closed)| (*opened..*closed).contains(&at))
    }

    /// The times at which the checkpoint moves.
    pub(in super::super) fn moves(&self) -> Vec<u64> {
        let mut times: Vec<_> =
            self.records.iter().filter_map(|fate| fate.resolved).chain(self.ends_at).collect();
        times.sort_unstable();
        times.dedup();
        times
    }
}
