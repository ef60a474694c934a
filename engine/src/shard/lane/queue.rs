//! Records that wait to be put into a batch, and how far the next batch reaches (R3).

use std::collections::VecDeque;
use std::sync::Arc;

use super::Rules;
use super::age::Age;
use super::tumbling::Tumbling;
use crate::record::{Batch, Record};
use crate::time::Now;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Queue {
    records: VecDeque<Record>,
    /// The batch that grows at the front.
    next: Extent,
}

/// How far the next batch reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Extent {
    records: usize,
    /// What its records add to the event, if the mapping limits events.
    bytes: usize,
    /// Whether nothing more may join it.
    is_full: bool,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn front(&self) -> Option<&Record> {
        self.records.front()
    }

    /// Adds records at the end.
    pub(super) fn push_all(&mut self, records: Vec<Record>) {
        if self.records.is_empty() {
            // Takes the vector over: a page is not copied.
            self.records = records.into();
        } else {
            self.records.extend(records);
        }
    }

    /// Whether the next batch is as large as it may be (R3a, R3c), or the next record belongs to a later window.
    pub(super) const fn is_full(&self) -> bool {
        self.next.is_full
    }

    /// What the next batch may hold has changed: its window's state, or there is another one.
    pub(super) fn measure_again(&mut self, now: Now, rules: &Rules<'_>, tumbling: &Tumbling) {
        self.next = Extent::default();
        self.measure(now, rules, tumbling);
    }

    /// Takes more records into the next batch, up to its limits.
    pub(super) fn measure(&mut self, now: Now, rules: &Rules<'_>, tumbling: &Tumbling) {
        let batch_size = rules.mapping.batch_size;
        let windows = rules.mapping.tumbling_window.zip(self.records.front());
        if rules.size.is_none() && windows.is_none() {
            // Records alone count.
            self.next.records = batch_size.min(self.records.len());
            self.next.is_full = self.records.len() >= batch_size;
            return;
        }
        let window = windows.map(|(size, front)| (size, tumbling.start_of(front, size, now)));
        let room = rules.size.map(|(size, limit)| {
            let call = window.and_then(|(window, _)| tumbling.call(self.records.front(), window, now));
            (size, limit.saturating_sub(size.frame(call.as_ref())))
        });
        while !self.next.is_full && self.next.records < self.records.len() {
            let record = &self.records[self.next.records];
            let is_later = window.is_some_and(|(size, start)| {
                record.arrival.is_some_and(|arrival| arrival.floor_to(size) > start)
            });
            let comma = usize::from(self.next.records > 0);
            let bytes = self.next.bytes + room.map_or(0, |(size, _)| size.record(record) + comma);
            let is_over = room.is_some_and(|(_, room)| bytes > room);
            // A record that alone is over the limit is a batch all the same: its attempts are spent (R24).
            if is_later || (is_over && self.next.records > 0) {
                self.next.is_full = true;
                break;
            }
            self.next.records += 1;
            self.next.bytes = bytes;
            self.next.is_full = is_over || self.next.records == batch_size;
        }
    }

    /// The records at the front that are too old, at most a batch of them (R27, R31).
    pub(super) fn take_expired(&mut self, now: Now, age: Age) -> Option<Batch> {
        let expired = self.records.iter().take(self.next.records).take_while(|r| age.is_over(r, now)).count();
        self.take(expired)
    }

    /// The next batch; it ends before a record that is too old (I5).
    pub(super) fn take_next(&mut self, now: Now, age: Age) -> Option<Batch> {
        let fresh = match age {
            Age::Unlimited => self.next.records,
            Age::Limited(_) => {
                self.records.iter().take(self.next.records).take_while(|r| !age.is_over(r, now)).count()
            }
        };
        self.take(fresh)
    }

    fn take(&mut self, count: usize) -> Option<Batch> {
        let count = count.min(self.records.len());
        // The range's length is known, so that the records move once, straight into their shared place.
        let next = |_| self.records.pop_front().expect("no more are taken than are queued");
        let records: Arc<[Record]> = (0..count).map(next).collect();
        if self.records.is_empty() {
            // An idle shard does not keep the room of a page.
            self.records = VecDeque::new();
        }
        Batch::new(records)
    }
}
