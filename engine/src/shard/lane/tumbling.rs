//! Tumbling windows (R64 to R70): which one a record belongs to, what its function has made of it, when it closes.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::record::{Batch, Record};
use crate::time::{Now, Wall};
use crate::window::WindowCall;

/// The largest state that is passed on, in bytes of its text: a larger one ends the window early (R68).
pub(crate) const LARGEST_STATE: usize = 1 << 20;

/// How long after its end an idle window is closed: what Lambda was seen to take is 100.9 s (R67).
pub(crate) const IDLE_CLOSE: Duration = Duration::from_secs(100);

/// The windows of a lane; at most one is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tumbling {
    open: Option<OpenWindow>,
    /// No window begins before this any more: one that was closed is never opened again (I8).
    earliest: Option<Wall>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpenWindow {
    start: Wall,
    end: Wall,
    state: Bytes,
    /// The ordinals from its first record up to the last that its function is done with: the checkpoint never stops
    /// among them (I8).
    records: Range<u64>,
}

/// A window's next call if its function answers this state, at its largest: whether a record
/// comes before the final call is not known.
pub(super) fn next_call(state: &Bytes) -> WindowCall {
    let ends = state.len() > LARGEST_STATE;
    WindowCall { state: state.clone(), is_final: ends, is_terminated_early: ends, ..WindowCall::default() }
}

impl OpenWindow {
    fn is_terminated_early(&self) -> bool {
        self.state.len() > LARGEST_STATE
    }
}

impl Tumbling {
    pub(super) const fn new(earliest: Option<Wall>) -> Self {
        Self { open: None, earliest }
    }

    pub(super) const fn open(&self) -> Option<&OpenWindow> {
        self.open.as_ref()
    }

    /// Bytes of the open window's state.
    pub(super) fn held(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.state.len())
    }

    pub(super) const fn earliest(&self) -> Option<Wall> {
        self.earliest
    }

    /// Where the window begins that a batch belongs to whose first record is `first`.
    ///
    /// Times in a shard may go back a little: such a record joins the open window. One without a time does too.
    pub(super) fn start_of(&self, first: &Record, size: Duration, now: Now) -> Wall {
        let lowest = self.open.as_ref().map(|open| open.start).or(self.earliest);
        let own = first.arrival.or(lowest).unwrap_or(now.wall).floor_to(size);
        lowest.map_or(own, |lowest| own.max(lowest))
    }

    /// Opens the window of a batch, unless one is open; tells the ordinal of its first record if so.
    pub(super) fn enter(&mut self, first: &Record, size: Duration, now: Now) -> Option<u64> {
        if self.open.is_some() {
            return None;
        }
        let start = self.start_of(first, size, now);
        let state = Bytes::from_static(b"{}");
        let records = first.ordinal..first.ordinal + 1;
        self.open = Some(OpenWindow { start, end: start + size, state, records });
        Some(first.ordinal)
    }

    /// Notes that the function is done with these records, successfully or not.
    pub(super) fn reach(&mut self, done: &Batch) {
        if let (Some(open), Some(last)) = (&mut self.open, done.last()) {
            open.records.end = open.records.end.max(last.ordinal + 1);
        }
    }

    /// The window of a batch as the event describes it; it is the open one or would be opened for it.
    pub(super) fn call(&self, first: Option<&Record>, size: Duration, now: Now) -> Option<WindowCall> {
        let is_passed = first.is_some_and(|first| self.is_passed_by(first, size, now));
        if let Some(open) = self.open.as_ref().filter(|_| !is_passed) {
            return Some(WindowCall {
                start: open.start,
                end: open.end,
                state: open.state.clone(),
                is_final: first.is_none(),
                is_terminated_early: first.is_none() && open.is_terminated_early(),
            });
        }
        let start = self.start_of(first?, size, now);
        let state = Bytes::from_static(b"{}");
        Some(WindowCall { start, end: start + size, state, ..WindowCall::default() })
    }

    /// Takes the function's new state; returns whether it is too large to continue with (R68).
    pub(super) fn adopt(&mut self, state: Bytes) -> bool {
        let Some(open) = &mut self.open else { return false };
        open.state = state;
        open.is_terminated_early()
    }

    /// Closes the window; tells the ordinals of its records.
    ///
    /// The rest of a window that ended early is a window of its own with the same times.
    pub(super) fn close(&mut self) -> Option<Range<u64>> {
        let open = self.open.take()?;
        self.earliest = Some(if open.is_terminated_early() { open.start } else { open.end });
        Some(open.records)
    }

    /// Whether `front` belongs to a later window than the open one.
    pub(super) fn is_passed_by(&self, front: &Record, size: Duration, now: Now) -> bool {
        self.open.as_ref().is_some_and(|open| self.start_of(front, size, now) > open.start)
    }

    /// When the open window is closed for being idle, if the shard was read to its tip after the window's end.
    pub(super) fn idle_close(&self, tip_read: Option<Wall>) -> Option<Wall> {
        let open = self.open.as_ref()?;
        (tip_read? >= open.end).then_some(open.end + IDLE_CLOSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Seq;
    use crate::record::Data;

    const SIZE: Duration = Duration::from_secs(10);

    fn at(arrival: Option<i64>) -> Record {
        Record::new(Seq::plain("1"), None, arrival.map(Wall::from_millis), Data::Raw(Bytes::new()))
    }

    fn start(tumbling: &Tumbling, arrival: Option<i64>) -> i64 {
        let now = Now { wall: Wall::from_millis(77_777), ..Now::default() };
        tumbling.start_of(&at(arrival), SIZE, now).as_millis()
    }

    #[test]
    fn r64_windows_are_multiples_of_their_length_since_the_epoch_start_inclusive_end_exclusive() {
        let none = Tumbling::new(None);
        assert_eq!(start(&none, Some(10_000)), 10_000);
        assert_eq!(start(&none, Some(19_999)), 10_000);
        assert_eq!(start(&none, Some(20_000)), 20_000);
        assert_eq!(start(&none, Some(-1)), -10_000);
        assert_eq!(start(&none, None), 70_000, "no time: now");
    }

    #[test]
    fn i8_a_late_record_joins_the_open_window_and_never_opens_a_closed_one_again() {
        let mut tumbling = Tumbling::new(None);
        tumbling.enter(&at(Some(25_000)), SIZE, Now::default());
        assert_eq!((start(&tumbling, Some(19_999)), start(&tumbling, None)), (20_000, 20_000));
        tumbling.close();
        assert_eq!(start(&tumbling, Some(25_000)), 30_000);
        assert_eq!(start(&tumbling, Some(45_000)), 40_000);
        assert_eq!(start(&Tumbling::new(Some(Wall::from_millis(30_000))), Some(25_000)), 30_000, "stored");
    }

    #[test]
    fn r68_the_rest_of_a_window_that_ended_early_has_the_same_times_and_a_fresh_state() {
        let mut tumbling = Tumbling::new(None);
        tumbling.enter(&at(Some(25_000)), SIZE, Now::default());
        assert!(!tumbling.adopt(vec![b' '; LARGEST_STATE].into()));
        assert!(tumbling.adopt(vec![b' '; LARGEST_STATE + 1].into()));
        let call = tumbling.call(None, SIZE, Now::default()).unwrap();
        assert!(call.is_final && call.is_terminated_early);
        tumbling.close();
        let call = tumbling.call(Some(&at(Some(26_000))), SIZE, Now::default()).unwrap();
        assert_eq!((call.start.as_millis(), call.state), (20_000, Bytes::from_static(b"{}")));
        assert!(!call.is_final && !call.is_terminated_early);
    }
}
