//! Tumbling windows (R64 to R70).

use bytes::Bytes;

use super::lane::{Event, Lane, Need};
use super::scenario::{Answer, Rec, WindowSeen};
use crate::failure::{Condition, FunctionResponse};

/// A state larger than this ends its window early (R68).
const LARGEST_STATE: usize = 1 << 20;
/// How long after a window's end it is closed although nothing follows (R67).
const IDLE_CLOSE: i64 = 100_000;

/// What a lane knows of its windows.
#[derive(Clone, Debug, Default)]
pub(super) struct Tumbling {
    /// The start of the window that the current batch belongs to.
    current: i64,
    open: Option<Open>,
    /// Windows before this one are closed.
    earliest: Option<i64>,
    /// When each instance was closed, in the order in which they were opened.
    pub(super) instances: Vec<Option<Need>>,
    /// The start of the earliest window that may follow each.
    pub(super) next: Vec<i64>,
    /// The last record that the function is done with in each, at first the one that opens it.
    pub(super) last: Vec<u64>,
    /// From the first invocation of each to the end of its final call.
    pub(super) spans: Vec<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Open {
    start: i64,
    state: Bytes,
}

impl Tumbling {
    pub(super) fn resumed(earliest: Option<i64>) -> Self {
        Self { earliest, ..Self::default() }
    }

    /// The instance that holds what is resolved now.
    pub(super) fn instance(&self) -> Option<usize> {
        self.open.as_ref().map(|_| self.instances.len() - 1)
    }
}

impl Lane<'_> {
    /// The window that a record joins: its own, but never one before the open one or one that is closed already.
    fn window_of(&self, record: &Rec, size: i64) -> i64 {
        let own = record.arrival.unwrap_or(0).div_euclid(size) * size;
        match (&self.tumbling.open, self.tumbling.earliest) {
            (Some(open), _) => own.max(open.start),
            (None, Some(earliest)) => own.max(earliest),
            (None, None) => own,
        }
    }

    /// How many records at the front of the queue belong to one window.
    pub(super) fn of_one_window(&self, queue: &[Rec]) -> usize {
        let (Some(size), Some(front)) = (self.rules.tumbling, queue.first()) else { return queue.len() };
        let window = self.window_of(front, size);
        queue.iter().take_while(|rec| self.window_of(rec, size) <= window).count()
    }

    pub(super) fn choose_window(&mut self, front: &Rec) {
        if let Some(size) = self.rules.tumbling {
            self.tumbling.current = self.window_of(front, size);
            let own = front.arrival.unwrap_or(0).div_euclid(size) * size;
            self.note_if(own < self.tumbling.current, Event::LateRecord);
        }
    }

    /// What the next invocation of the current batch says of its window; opens it if it is not open (R65).
    pub(super) fn open_window(&mut self, batch: &[Rec]) -> Option<WindowSeen> {
        let size = self.rules.tumbling?;
        if self.tumbling.open.is_none() {
            self.tumbling.instances.push(None);
            self.tumbling.spans.push((self.now, u64::MAX));
            self.tumbling.last.push(batch[0].n);
        }
        let start = self.tumbling.current;
        let open = self.tumbling.open.get_or_insert_with(|| Open { start, state: Bytes::from_static(b"{}") });
        let state = open.state.clone();
        Some(WindowSeen { start, end: start + size, state, is_final: false, is_early: false })
    }

    /// The function is done with these records, successfully or not.
    pub(super) fn reach(&mut self, batch: &[Rec]) {
        if let (Some(_), Some(last)) = (&self.tumbling.open, self.tumbling.last.last_mut()) {
            *last = batch.iter().map(|rec| rec.n).fold(*last, u64::max);
        }
    }

    pub(super) fn adopt(&mut self, state: Option<Bytes>) {
        if let (Some(open), Some(state)) = (&mut self.tumbling.open, state) {
            open.state = state;
        }
    }

    pub(super) fn end_early_if_the_state_is_too_large(&mut self) {
        if self.tumbling.open.as_ref().is_some_and(|open| open.state.len() > LARGEST_STATE) {
            self.call_final(true);
        }
    }

    /// Whether the open window must be closed now: a later window's record is at the front, or nothing is and nothing
    /// is to be waited for (R67, R70).
    pub(super) fn window_is_over(&self) -> bool {
        let (Some(open), Some(size)) = (&self.tumbling.open, self.rules.tumbling) else { return false };
        match self.queue().next() {
            Some(front) => self.window_of(front, size) > open.start,
            None => self.has_ended() || self.idle_end().is_some_and(|at| at <= self.now),
        }
    }

    /// When the open window is closed if no record comes: the clock is past its end by long enough, and the tip of the
    /// shard was read after it.
    pub(super) fn idle_end(&self) -> Option<u64> {
        let (open, size) = (self.tumbling.open.as_ref()?, self.rules.tumbling?);
        let end = open.start + size;
        let clock = u64::try_from(end + IDLE_CLOSE - self.rules.wall).unwrap_or(0);
        let is_after = |asked: &u64| self.rules.wall_at(*asked) >= end;
        let tip = self.tips.iter().find(|(asked, _)| is_after(asked)).map(|(_, came)| *came);
        tip.map(|tip| tip.max(clock))
    }

    /// The final call: a batch without records, retried like a batch of one (R67 to R69).
    pub(super) fn call_final(&mut self, is_early: bool) {
        let (Some(open), Some(size)) = (self.tumbling.open.clone(), self.rules.tumbling) else { return };
        let is_idle = !is_early && !self.has_ended() && self.queue().next().is_none();
        self.note_if(!is_early, Event::Final);
        self.note_if(is_early, Event::EarlyEnd);
        self.note_if(is_idle, Event::IdleEnd);
        let Open { start, state } = open;
        let window = WindowSeen { start, end: start + size, state, is_final: true, is_early };
        let need = self.take_final_through(&window);
        let closed = self.tumbling.instances.last_mut().expect("a window is open");
        *closed = Some(need);
        self.tumbling.next.push(if is_early { start } else { start + size });
        self.tumbling.spans.last_mut().expect("a window is open").1 = self.now;
        self.tumbling.open = None;
        // After an early end the rest of the window goes on as a fresh instance.
        self.tumbling.earliest = Some(if is_early { start } else { start + size });
    }

    fn take_final_through(&mut self, window: &WindowSeen) -> Need {
        let id = self.new_id();
        let mut invokes = 0;
        loop {
            let response = match self.invoke(id, invokes + 1, Vec::new(), Some(window.clone())) {
                Answer::NotReached { retry_after } => {
                    self.now += self.miss(retry_after);
                    continue;
                }
                Answer::Returned { failures, state } => {
                    let names_records = self.rules.partial && !failures.is_empty();
                    if state.is_some() && !names_records {
                        return Need::Time(self.now);
                    }
                    Some(FunctionResponse::Returned)
                }
                Answer::Error => Some(FunctionResponse::Unhandled),
                Answer::TooLarge => None,
            };
            invokes += 1;
            if self.is_exhausted(invokes) {
                let need = Need::Discard(self.discards);
                self.discard(&[], id, invokes, Condition::RetryAttemptsExhausted, response);
                return need;
            }
            self.now += self.rules.backoff;
        }
    }
}
