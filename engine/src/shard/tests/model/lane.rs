//! One lane of one run, from its first record to its last.

use std::collections::BTreeMap;

use super::scenario::{Answer, Call, Page, Rec, Reply, Rules};
use super::windows::Tumbling;
use crate::failure::{Condition, FunctionResponse};

/// The longest wait that a function that was not reached may ask for.
const LONGEST_RETRY_AFTER: u64 = 900_000;

/// What a lane does that can be seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Act {
    Invoke {
        id: usize,
        attempt: u32,
        call: Call,
    },
    Discard {
        id: usize,
        records: Vec<u64>,
        count: u32,
        condition: Condition,
        response: Option<FunctionResponse>,
    },
}

/// When a record is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Need {
    Time(u64),
    /// When the destination has taken the lane's discard of this number.
    Discard(usize),
}

/// The function under test: told what it is invoked with.
pub(in super::super) type Function<'a> = dyn Fn(&Call) -> Reply + 'a;

pub(in super::super) struct Lane<'a> {
    pub(super) rules: &'a Rules,
    function: &'a Function<'a>,
    index: usize,
    pub(super) now: u64,
    /// Records that were read, or will be, with the times of their pages.
    waiting: Vec<(u64, Rec)>,
    pub(super) ends_at: Option<u64>,
    /// When a page that reached the tip was asked for, and when it came.
    pub(super) tips: Vec<(u64, u64)>,
    /// The end of the last invocation: batching windows are counted from there (R4).
    last_end: u64,
    /// The function was not reached: it is not called before this.
    not_before: u64,
    /// When the batching window of what waits closes.
    closes: Option<u64>,
    ids: usize,
    calls: BTreeMap<(Vec<u64>, Option<i64>), u32>,
    pub(super) tumbling: Tumbling,
    pub(in super::super) acts: Vec<(u64, Act)>,
    pub(super) discards: usize,
    /// What each record waits for, and the window instance that holds it.
    pub(super) needs: BTreeMap<u64, (Need, Option<usize>)>,
    pub(in super::super) events: Vec<(u64, Event)>,
}

/// Something that random runs must be proved to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Event {
    Bisection,
    Cut,
    Expiry,
    /// A batch was cut before an expired record that lay behind fresh ones.
    ExpiryOutOfOrder,
    EarlyEnd,
    Final,
    IdleEnd,
    Oversized,
    Exhausted,
    LateRecord,
}

/// What one attempt came to.
enum Attempt {
    NotReached {
        wait: u64,
    },
    /// So many records at the front succeeded.
    Done {
        succeeded: usize,
        response: Option<FunctionResponse>,
        splits: bool,
    },
}

impl<'a> Lane<'a> {
    pub(in super::super) fn new(
        rules: &'a Rules,
        pages: &[Page],
        (index, begun): (usize, u64),
        earliest_window: Option<i64>,
        function: &'a Function<'a>,
    ) -> Self {
        let records = |page: &Page| page.records.iter().map(|rec| (page.at, rec.clone())).collect::<Vec<_>>();
        let is_ours = |(_, rec): &(u64, Rec)| rec.lane == index && !rec.filtered;
        Self {
            rules,
            function,
            index,
            now: begun,
            waiting: pages.iter().flat_map(records).filter(is_ours).collect(),
            ends_at: pages.iter().find(|page| page.is_end).map(|page| page.at),
            tips: pages.iter().filter(|page| page.is_tip).map(|page| (page.asked, page.at)).collect(),
            last_end: begun,
            not_before: begun,
            closes: None,
            ids: 0,
            calls: BTreeMap::new(),
            tumbling: Tumbling::resumed(earliest_window),
            acts: Vec::new(),
            discards: 0,
            needs: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Takes the lane to its end.
    pub(in super::super) fn run(mut self) -> Self {
        loop {
            self.set_batching_window();
            if let Some(expired) = self.expired_front() {
                self.waiting.drain(..expired.len());
                let id = self.new_id();
                self.discard(&expired, id, 1, Condition::RecordAgeExceeded, None);
            } else if self.now < self.not_before {
                let arrival = self.next_arrival();
                let expiry = self.queue().next().and_then(|rec| self.rules.expiry(rec));
                self.now = arrival.into_iter().chain(expiry).fold(self.not_before, u64::min);
            } else if self.window_is_over() {
                self.call_final(false);
            } else if let Some(batch) = self.batch_that_is_due() {
                self.waiting.drain(..batch.len());
                self.set_batching_window();
                self.process(batch);
            } else {
                match self.next_moment() {
                    Some(moment) => self.now = moment,
                    None => return self,
                }
            }
        }
    }

    /// What was read and is not in a batch.
    pub(super) fn queue(&self) -> impl Iterator<Item = &Rec> {
        self.waiting.iter().take_while(|(at, _)| *at <= self.now).map(|(_, rec)| rec)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends_at.is_some_and(|at| at <= self.now)
    }

    /// R31: expired records leave the queue at once, a batch's worth a message.
    fn expired_front(&self) -> Option<Vec<Rec>> {
        let (batch, _) = self.front_batch();
        let expired = batch.into_iter().take_while(|rec| self.rules.is_expired(rec, self.now));
        Some(expired.collect::<Vec<_>>()).filter(|expired| !expired.is_empty())
    }

    /// The records that one batch may hold, and whether nothing more can join them (R3a, R3c).
    fn front_batch(&self) -> (Vec<Rec>, bool) {
        let mut queue: Vec<_> = self.queue().cloned().collect();
        let most = self.of_one_window(&queue).min(self.rules.batch_size);
        let fits = (1..=most).take_while(|n| !self.rules.is_too_large(&queue[..*n])).count();
        // An oversized record is a batch of its own.
        let count = fits.max(most.min(1));
        let is_full =
            count == self.rules.batch_size || count < queue.len() || self.rules.is_too_large(&queue[..count]);
        queue.truncate(count);
        (queue, is_full)
    }

    /// R3: the next batch, if it is full or must not wait any longer.
    fn batch_that_is_due(&mut self) -> Option<Vec<Rec>> {
        let (batch, is_full) = self.front_batch();
        let is_due = is_full || self.closes.is_some_and(|at| at <= self.now) || self.has_ended();
        if batch.is_empty() || !is_due {
            return None;
        }
        let most = batch.len();
        let batch: Vec<_> =
            batch.into_iter().take_while(|rec| !self.rules.is_expired(rec, self.now)).collect();
        self.note_if(batch.len() < most, Event::ExpiryOutOfOrder);
        self.choose_window(&batch[0]);
        Some(batch)
    }

    /// Batching windows follow one another from the end of the last invocation (R4): what waits is due when the one
    /// closes into which its first record came.
    fn set_batching_window(&mut self) {
        let came = self.waiting.first().map(|(at, _)| *at).filter(|at| *at <= self.now);
        self.closes = came.map(|came| {
            let (from, length) = (came.max(self.last_end), self.rules.batching_window);
            let windows = (from - self.last_end).checked_div(length).map_or(0, |passed| passed + 1);
            let closes = if length == 0 { from } else { self.last_end + windows * length };
            self.closes.unwrap_or(closes)
        });
    }

    fn next_arrival(&self) -> Option<u64> {
        self.waiting.iter().map(|(at, _)| *at).find(|at| *at > self.now)
    }

    /// When something may change for a lane that waits.
    fn next_moment(&self) -> Option<u64> {
        let arrival = self.next_arrival();
        let end = self.ends_at.filter(|at| *at > self.now);
        let front = self.queue().next();
        let expiry = front.and_then(|rec| self.rules.expiry(rec));
        let closes = self.closes.filter(|at| *at > self.now);
        [arrival, end, closes, expiry, self.idle_end().filter(|at| *at > self.now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// docs/semantics.md, section 2.13.
    #[expect(clippy::too_many_lines, reason = "it follows the text of that section from top to bottom")]
    fn process(&mut self, records: Vec<Rec>) {
        let mut batch = records;
        let mut backoff_ends = self.now;
        'batch: loop {
            let id = self.new_id();
            let mut invokes = 0;
            loop {
                let expired = batch.iter().take_while(|rec| self.rules.is_expired(rec, self.now)).count();
                if expired > 0 {
                    let rest = batch.split_off(expired);
                    self.discard(&batch, id, invokes.max(1), Condition::RecordAgeExceeded, None);
                    if rest.is_empty() {
                        return;
                    }
                    batch = rest;
                    continue 'batch;
                }
                // What is left of a batch whose front grew too old waits like the whole.
                let wakes = backoff_ends.max(self.not_before);
                if self.now < wakes {
                    self.now = self.rules.expiry(&batch[0]).map_or(wakes, |at| at.min(wakes));
                    continue;
                }
                if let Some(at) = batch.iter().position(|rec| self.rules.is_expired(rec, self.now)) {
                    self.note(Event::ExpiryOutOfOrder);
                    let rest = batch.split_off(at);
                    self.process(batch);
                    return self.process(rest);
                }
                let (succeeded, response, splits) = match self.attempt(&batch, id, invokes + 1) {
                    Attempt::NotReached { wait } => {
                        self.not_before = self.now + wait;
                        continue;
                    }
                    Attempt::Done { succeeded, response, splits } => (succeeded, response, splits),
                };
                invokes += 1;
                if succeeded > 0 {
                    let rest = batch.split_off(succeeded);
                    self.reach(&batch);
                    self.resolve(&batch, Need::Time(self.now));
                    self.end_early_if_the_state_is_too_large();
                    if rest.is_empty() {
                        return;
                    }
                    self.note(Event::Cut);
                    batch = rest;
                    continue 'batch;
                }
                if splits && batch.len() > 1 {
                    self.note(Event::Bisection);
                    let right = batch.split_off(batch.len() / 2);
                    self.process(batch);
                    return self.process(right);
                }
                if self.is_exhausted(invokes) {
                    self.note(Event::Exhausted);
                    if !self.rules.is_too_large(&batch) {
                        self.reach(&batch);
                    }
                    return self.discard(&batch, id, invokes, Condition::RetryAttemptsExhausted, response);
                }
                backoff_ends = self.now + self.rules.backoff;
            }
        }
    }

    fn note(&mut self, event: Event) {
        self.events.push((self.now, event));
    }

    pub(super) fn note_if(&mut self, happened: bool, event: Event) {
        if happened {
            self.note(event);
        }
    }

    pub(super) fn is_exhausted(&self, invokes: u32) -> bool {
        self.rules.retries.is_some_and(|maximum| invokes > maximum)
    }

    /// Invokes the batch once, or fails without invoking it if it is too large (R24).
    fn attempt(&mut self, batch: &[Rec], id: usize, attempt: u32) -> Attempt {
        if self.rules.is_too_large(batch) {
            self.note(Event::Oversized);
            return Attempt::Done { succeeded: 0, response: None, splits: true };
        }
        let records: Vec<_> = batch.iter().map(|rec| rec.n).collect();
        let window = self.open_window(batch);
        let failed = |response, splits| Attempt::Done { succeeded: 0, response, splits };
        match self.invoke(id, attempt, records.clone(), window) {
            Answer::NotReached { retry_after } => Attempt::NotReached { wait: self.miss(retry_after) },
            Answer::Error => failed(Some(FunctionResponse::Unhandled), self.rules.bisect),
            Answer::TooLarge => failed(None, true),
            Answer::Returned { failures, state } => {
                let returned = Some(FunctionResponse::Returned);
                // R66: without a state the call failed.
                if self.rules.tumbling.is_some() && state.is_none() {
                    return failed(returned, self.rules.bisect);
                }
                let succeeded = self.succeeded(&records, &failures);
                if succeeded > 0 {
                    self.adopt(state);
                }
                Attempt::Done { succeeded, response: returned, splits: self.rules.bisect }
            }
        }
    }

    /// How many records at the front succeeded (R33 to R36).
    fn succeeded(&self, records: &[u64], failures: &[u64]) -> usize {
        if !self.rules.partial {
            return records.len();
        }
        let index = |n: &u64| records.iter().position(|record| record == n).unwrap_or(0);
        failures.iter().map(index).min().unwrap_or(records.len())
    }

    pub(super) fn miss(&self, retry_after: Option<u64>) -> u64 {
        self.rules.backoff.max(retry_after.unwrap_or(0).min(LONGEST_RETRY_AFTER))
    }

    pub(super) fn new_id(&mut self) -> usize {
        self.ids += 1;
        self.ids
    }

    pub(super) fn invoke(
        &mut self,
        id: usize,
        attempt: u32,
        records: Vec<u64>,
        window: Option<super::WindowSeen>,
    ) -> Answer {
        let key = (records.clone(), window.as_ref().map(|window| window.start));
        let nth = self.calls.entry(key).or_default();
        *nth += 1;
        let call = Call { at: self.now, lane: self.index, records, nth: *nth, window };
        let reply = (self.function)(&call);
        self.acts.push((self.now, Act::Invoke { id, attempt, call }));
        self.now += reply.after;
        self.last_end = self.now;
        self.closes = None;
        reply.answer
    }

    pub(super) fn discard(
        &mut self,
        records: &[Rec],
        id: usize,
        count: u32,
        condition: Condition,
        response: Option<FunctionResponse>,
    ) {
        self.note_if(condition == Condition::RecordAgeExceeded, Event::Expiry);
        let numbers = records.iter().map(|rec| rec.n).collect();
        self.acts.push((self.now, Act::Discard { id, records: numbers, count, condition, response }));
        self.resolve(records, Need::Discard(self.discards));
        self.discards += 1;
    }

    fn resolve(&mut self, records: &[Rec], need: Need) {
        let instance = self.tumbling.instance();
        for record in records {
            self.needs.insert(record.n, (need, instance));
        }
    }
}
