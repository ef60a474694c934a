//! Records that wait to be put into a batch, and how far the next batch reaches (R3).

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use super::Rules;
use super::age::Age;
use super::tumbling::Tumbling;
use crate::record::{Batch, Record, Slab, footprint};
use crate::time::Now;

/// A page's records stay where they are: a batch is a range of them. Only a batch that reaches over the end of a page
/// gets records of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pages: VecDeque<Waiting>,
    /// Records that wait.
    len: usize,
    /// Bytes of the pages (I13).
    held: usize,
    /// The batch that grows at the front.
    next: Extent,
}

/// Queues are equal if their records are, regardless of the pages that hold them: a page's memory affects no decision.
impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        self.next == other.next && self.pages == other.pages
    }
}

impl Eq for Queue {}

impl Hash for Queue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.next.hash(state);
        self.pages.hash(state);
    }
}

/// The records of a page that wait; never none.
#[derive(Clone, Debug)]
struct Waiting {
    page: Arc<Slab>,
    range: Range<usize>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.records() == other.records()
    }
}

impl Eq for Waiting {}

impl Hash for Waiting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.records().hash(state);
    }
}

impl Waiting {
    fn records(&self) -> &[Record] {
        self.page.records().get(self.range.clone()).unwrap_or_default()
    }

    /// Moves the first `count` records out, or copies them if a batch still uses the page.
    fn move_into(mut self, count: usize, into: &mut Vec<Record>) -> Option<Self> {
        if let Some(page) = Arc::get_mut(&mut self.page) {
            page.move_out(self.range.start..self.range.start + count, into);
            self.range.end -= count;
        } else {
            self.page.copy_out(self.range.start..self.range.start + count, into);
            self.range.start += count;
        }
        (!self.range.is_empty()).then_some(self)
    }
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
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn front(&self) -> Option<&Record> {
        self.pages.front()?.records().first()
    }

    /// Adds records at the end.
    pub(super) fn push_all(&mut self, page: Slab) {
        let range = 0..page.records().len();
        if !range.is_empty() {
            self.len += range.len();
            self.held += page.bytes();
            self.pages.push_back(Waiting { page: Arc::new(page), range });
        }
    }

    /// Bytes of the pages whose records wait, those included that were taken out of them.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    /// The page at the front.
    pub(super) fn front_page(&self) -> Option<&Arc<Slab>> {
        self.pages.front().map(|waiting| &waiting.page)
    }

    /// The bytes of the records of the front page that wait.
    pub(super) fn front_bytes(&self) -> usize {
        self.pages.front().map_or(0, |waiting| footprint(waiting.records()))
    }

    /// Copies what waits of the front page, so that the page can be freed.
    pub(super) fn detach_front(&mut self) {
        if let Some(waiting) = self.pages.front_mut() {
            let page = Arc::new(waiting.page.copied(waiting.range.clone()));
            self.held = self.held - waiting.page.bytes() + page.bytes();
            *waiting = Waiting { range: 0..page.records().len(), page };
        }
    }

    /// The records that wait, without the first `skip`.
    fn after(&self, skip: usize) -> impl Iterator<Item = &Record> {
        let mut skip = skip;
        let rest = move |waiting: &'_ Waiting| {
            let skipped = skip.min(waiting.range.len());
            skip -= skipped;
            skipped
        };
        self.pages.iter().zip(self.pages.iter().map(rest)).flat_map(|(w, skipped)| &w.records()[skipped..])
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
        if self.next.is_full {
            return;
        }
        let windows = rules.mapping.tumbling_window.zip(self.front());
        if rules.size.is_none() && windows.is_none() {
            // Records alone count.
            self.next.records = batch_size.min(self.len);
            self.next.is_full = self.len >= batch_size;
            return;
        }
        let window = windows.map(|(size, front)| (size, tumbling.start_of(front, size, now)));
        let room = rules.size.map(|(size, limit)| {
            let call = window.and_then(|(window, _)| tumbling.call(self.front(), window, now));
            (size, limit.saturating_sub(size.frame(call.as_ref())))
        });
        let mut next = self.next;
        for record in self.after(next.records) {
            let is_later = window.is_some_and(|(size, start)| {
                record.arrival.is_some_and(|arrival| arrival.floor_to(size) > start)
            });
            let comma = usize::from(next.records > 0);
            let bytes = next.bytes + room.map_or(0, |(size, _)| size.record(record) + comma);
            let is_over = room.is_some_and(|(_, room)| bytes > room);
            // A record that alone is over the limit is a batch all the same: its attempts are spent (R24).
            if is_later || (is_over && next.records > 0) {
                next.is_full = true;
                break;
            }
            next = Extent { records: next.records + 1, bytes, is_full: is_over };
            next.is_full |= next.records == batch_size;
            if next.is_full {
                break;
            }
        }
        self.next = next;
    }

    /// The records at the front that are too old, at most a batch of them (R27, R31).
    pub(super) fn take_expired(&mut self, now: Now, age: Age) -> Option<Batch> {
        if age == Age::Unlimited {
            return None;
        }
        let next = self.after(0).take(self.next.records);
        let expired = next.take_while(|record| age.is_over(record, now)).count();
        self.take(expired)
    }

    /// The next batch; it ends before a record that is too old (I5).
    pub(super) fn take_next(&mut self, now: Now, age: Age) -> Option<Batch> {
        let fresh = match age {
            Age::Unlimited => self.next.records,
            Age::Limited(_) => {
                let next = self.after(0).take(self.next.records);
                next.take_while(|record| !age.is_over(record, now)).count()
            }
        };
        self.take(fresh)
    }

    fn take(&mut self, count: usize) -> Option<Batch> {
        let count = count.min(self.len);
        let front = self.pages.front_mut().filter(|_| count > 0)?;
        self.len -= count;
        if count <= front.range.len() {
            let range = front.range.start..front.range.start + count;
            let batch = Batch::of(Arc::clone(&front.page), range);
            front.range.start += count;
            if front.range.is_empty() {
                self.held -= front.page.bytes();
                self.pages.pop_front();
            }
            return Some(batch);
        }
        let mut records = Vec::with_capacity(count);
        while records.len() < count
            && let Some(waiting) = self.pages.pop_front()
        {
            let taken = waiting.range.len().min(count - records.len());
            self.held -= waiting.page.bytes();
            if let Some(rest) = waiting.move_into(taken, &mut records) {
                self.held += rest.page.bytes();
                self.pages.push_front(rest);
            }
        }
        Batch::new(records)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::Seq;
    use crate::record::Data;

    fn page(numbers: Range<u64>) -> Vec<Record> {
        let record = |n: u64| Record::new(Seq::plain(n.to_string()), None, None, Data::Raw(Bytes::new()));
        numbers.map(record).collect()
    }

    fn push(queue: &mut Queue, numbers: Range<u64>) {
        let records = page(numbers);
        let bytes = footprint(&records);
        queue.push_all(Slab::new(records, bytes, None));
    }

    fn numbers(batch: Option<&Batch>) -> Vec<u64> {
        let number = |record: &Record| record.seq.number.as_str().parse().unwrap();
        batch.into_iter().flat_map(|batch| batch.records().iter().map(number)).collect()
    }

    #[test]
    fn a_batch_within_a_page_copies_nothing_and_one_over_its_end_takes_the_records_with_it() {
        let mut queue = Queue::default();
        for range in [0..4, 4..5, 5..9] {
            push(&mut queue, range);
        }
        let first = queue.take(3).unwrap();
        assert!(std::ptr::eq(&first.records()[2], &raw const queue.pages[0].page.records()[2]));
        assert_eq!(queue.front().unwrap().seq, Seq::plain("3"));
        assert_eq!(numbers(queue.take(4).as_ref()), [3, 4, 5, 6], "the first page is still in use");
        assert_eq!(numbers(queue.take(9).as_ref()), [7, 8]);
        assert_eq!((numbers(Some(&first)), queue.pages.len()), (vec![0, 1, 2], 0));
    }

    #[test]
    fn the_records_after_some_are_found_in_whatever_page_they_are() {
        let mut queue = Queue::default();
        for range in [0..3, 3..4, 4..7] {
            push(&mut queue, range);
        }
        queue.take(1);
        for skip in 0..=6 {
            let after: Vec<u64> =
                queue.after(skip).map(|record| record.seq.number.as_str().parse().unwrap()).collect();
            assert_eq!(after, (1 + skip as u64..7).collect::<Vec<_>>());
        }
    }
}
