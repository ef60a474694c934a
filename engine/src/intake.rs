//! From a raw page to records for the shard machine.

use bytes::BytesMut;

use crate::fleet::Shard;
use crate::position::{Position, Seq};
use crate::record::Record;
use crate::time::Wall;

/// What one read of a shard brought, in the same form for polling and enhanced fan-out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Page {
    /// The records, in the shard's order.
    pub records: Vec<Record>,
    /// Where reading continues if the service named a place (a fan-out subscription's continuation); a polling reader
    /// leaves this empty and continues after the last record.
    pub continuation: Option<Seq>,
    /// Records of the page that could not be decoded and were left out, in the shard's order; each of them is a gap (I17).
    pub skipped: Vec<Seq>,
    /// The shards that follow this one, if the service named them at its end.
    pub children: Vec<Shard>,
    /// Whether the shard is closed and this page was its last.
    pub end_of_shard: bool,
    /// How far behind the newest record this page was, in milliseconds, if the service said so.
    pub millis_behind: Option<u64>,
    /// Bytes of the text that all records' payloads are parts of, which is freed with the last of them. `None` if each has
    /// memory of its own.
    pub answer: Option<usize>,
}

impl Page {
    /// A page of these records, after which the shard continues.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }

    /// The page without records at the end of a shard, with the shards that follow it as far as the service named them.
    #[must_use]
    pub fn last(children: Vec<Shard>) -> Self {
        Self { end_of_shard: true, children, ..Self::default() }
    }

    /// The same page, so many milliseconds behind the newest record.
    #[must_use]
    pub fn millis_behind(mut self, millis: u64) -> Self {
        self.millis_behind = Some(millis);
        self
    }
}

/// A page after filtering: what the shard machine buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Intake {
    /// The records to invoke, in order.
    pub(crate) records: Vec<Record>,
    /// The furthest position that the page covered, dropped records included.
    pub(crate) scanned: Option<Seq>,
    /// The first record that was not read before, dropped ones included.
    pub(crate) first: Option<Seq>,
    /// When the page's last record arrived.
    pub(crate) last_arrival: Option<Wall>,
    /// Bytes of `records`, as [`Record::footprint`] counts them.
    pub(crate) bytes: usize,
    /// Records of the raw page.
    pub(crate) polled: usize,
    /// Records that the filter removed.
    pub(crate) filtered: usize,
    /// Records that could not be decoded, those that were read before left out.
    pub(crate) skipped: Vec<Seq>,
    pub(crate) children: Vec<Shard>,
    pub(crate) end_of_shard: bool,
    pub(crate) millis_behind: Option<u64>,
    /// What the answer that the records are parts of holds in addition, in bytes.
    pub(crate) answer: Option<usize>,
}

impl Intake {
    /// The records to invoke, in order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Bytes that the records take up, as [`Record::footprint`] counts them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many records the raw page had.
    #[must_use]
    pub const fn polled(&self) -> usize {
        self.polled
    }

    /// How many of them the filter removed.
    #[must_use]
    pub const fn filtered(&self) -> usize {
        self.filtered
    }
}

/// Turns a raw page into what the shard machine buffers.
///
/// `after` is the reader's position: a record at or before it was delivered already (a reader that reopened by time
/// sees some twice) and is dropped, so that a checkpoint never moves backwards (I2). A record that `keep` refuses leaves
/// only its position: it counts as processed (R15) and not for `BatchSize` (R56).
#[must_use]
pub fn intake(page: Page, after: &Position, keep: impl FnMut(&Record) -> bool) -> Intake {
    let polled = page.records.len();
    let (mut records, mut skipped) = (page.records, page.skipped);
    let last = records.last().map(|record| record.seq.clone());
    let last_arrival = records.last().and_then(|record| record.arrival);
    if let Position::After(done) = after {
        // Pages come in order, so only a prefix can be old.
        let old = records.partition_point(|record| record.seq <= *done);
        records.drain(..old);
        skipped.retain(|seq| seq > done);
    }
    let before = records.len();
    let first = records.first().map(|record| record.seq.clone());
    records.retain(keep);
    if records.len() < records.capacity() / 2 {
        // What the filter leaves of a page does not keep the room of all its records (I13).
        records.shrink_to_fit();
    }
    let answer = page.answer.map(|bytes| keep_answer(&mut records, bytes));
    Intake {
        filtered: before - records.len(),
        bytes: records.iter().map(Record::footprint).sum(),
        records,
        first,
        last_arrival,
        scanned: page.continuation.max(last).max(skipped.last().cloned()),
        polled,
        skipped,
        children: page.children,
        end_of_shard: page.end_of_shard,
        millis_behind: page.millis_behind,
        answer,
    }
}

/// What an answer of so many bytes holds in addition to what is left of it. If that is most of it, what is left is copied
/// into a smaller one.
fn keep_answer(records: &mut [Record], bytes: usize) -> usize {
    let left: usize = records.iter().map(|record| record.text().len()).sum();
    if left >= bytes / 2 {
        return bytes.saturating_sub(left);
    }
    let mut copy = BytesMut::with_capacity(left);
    for record in &mut *records {
        copy.extend_from_slice(record.text());
    }
    let mut copy = copy.freeze();
    for record in records {
        let text = record.text_mut();
        *text = copy.split_to(text.len());
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Data;
    use bytes::Bytes;

    fn page(numbers: &[&str]) -> Page {
        let record = |n: &&str| Record::new(Seq::plain(*n), None, None, Data::Raw(Bytes::from_static(b"xx")));
        Page { records: numbers.iter().map(record).collect(), ..Page::default() }
    }

    #[test]
    fn records_that_were_read_before_are_dropped_but_the_position_advances() {
        let taken = intake(page(&["8", "9", "10"]), &Position::After(Seq::plain("9")), |_| true);
        assert_eq!(taken.records().len(), 1);
        assert_eq!(taken.records()[0].seq, Seq::plain("10"));
        assert_eq!(taken.bytes(), taken.records()[0].footprint());
        assert_eq!((taken.polled(), taken.scanned), (3, Some(Seq::plain("10"))));
    }

    #[test]
    fn a_continuation_before_the_last_record_does_not_take_the_position_back() {
        let from = |continuation| Page { continuation: Some(Seq::plain(continuation)), ..page(&["9", "10"]) };
        for (continuation, scanned) in [("8", "10"), ("10", "10"), ("12", "12")] {
            let taken = intake(from(continuation), &Position::TrimHorizon, |_| true);
            assert_eq!(taken.scanned, Some(Seq::plain(scanned)));
        }
    }

    #[test]
    fn r15_a_record_that_is_filtered_out_leaves_its_position() {
        let taken =
            intake(page(&["8", "9", "10"]), &Position::TrimHorizon, |record| record.seq == Seq::plain("8"));
        assert_eq!((taken.records().len(), taken.polled(), taken.filtered()), (1, 3, 2));
        assert_eq!(taken.scanned, Some(Seq::plain("10")));
        let none = intake(page(&["8"]), &Position::TrimHorizon, |_| false);
        assert_eq!((none.records().len(), none.scanned), (0, Some(Seq::plain("8"))));
    }

    #[test]
    fn incident_97_a_record_that_was_skipped_moves_the_position_and_is_reported_once() {
        let with = |skipped: &[&str]| Page {
            skipped: skipped.iter().map(|n| Seq::plain(*n)).collect(),
            ..page(&["8", "10"])
        };
        let taken = intake(with(&["9", "11"]), &Position::After(Seq::plain("9")), |_| true);
        assert_eq!((taken.skipped, taken.scanned), (vec![Seq::plain("11")], Some(Seq::plain("11"))));
        let alone = Page { skipped: vec![Seq::plain("9")], ..Page::default() };
        assert_eq!(intake(alone, &Position::TrimHorizon, |_| true).scanned, Some(Seq::plain("9")));
    }

    #[test]
    fn an_empty_page_scans_nothing() {
        let taken = intake(page(&[]), &Position::TrimHorizon, |_| true);
        assert_eq!((taken.polled(), taken.scanned, taken.bytes), (0, None, 0));
    }

    #[test]
    fn i13_what_a_filter_leaves_of_an_answer_keeps_it_only_if_that_is_half_of_it() {
        let body = Bytes::from(vec![b'A'; 100]);
        let page = || {
            let record = |n: usize| {
                let data = Data::Base64(body.slice(n * 20..n * 20 + 20));
                Record::new(Seq::plain(n.to_string()), None, None, data)
            };
            Page { answer: Some(body.len()), ..Page::new((0..5).map(record).collect()) }
        };
        let taken = |least: usize| {
            let mut n = 0;
            intake(page(), &Position::TrimHorizon, |_| {
                n += 1;
                n > least
            })
        };
        let is_part = |taken: &Intake| {
            taken.records().iter().all(|record| body.as_ptr_range().contains(&record.text().as_ptr()))
        };
        let (all, half, little) = (taken(0), taken(2), taken(3));
        assert_eq!((all.answer, half.answer, little.answer), (Some(0), Some(40), Some(0)));
        assert!(is_part(&all) && is_part(&half) && !is_part(&little));
        assert!(little.records().iter().all(|record| record.data().unwrap().len() == 20));
    }
}
