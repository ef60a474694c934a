//! Records and batches. A batch is a range over shared records: a retry or a bisection copies nothing.

mod for_test;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

pub use read::{JsonError, RecordError};

use crate::position::Seq;
use crate::time::Wall;

/// A shard's name as the service gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Arc<str>);

impl ShardId {
    /// Takes the service's text as it is.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text as the service wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ShardId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// A record's payload in the form in which it arrived; the other form is made on demand.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Data {
    /// The bytes that the producer put.
    Raw(Bytes),
    /// Their standard base64 text with padding, as the service sent it.
    Base64(Bytes),
}

impl Data {
    /// The bytes that the producer put. Copies only if the payload arrived as base64.
    ///
    /// # Errors
    /// [`InvalidBase64`] if the payload arrived as text that is no base64.
    pub fn bytes(&self) -> Result<Bytes, InvalidBase64> {
        match self {
            Self::Raw(bytes) => Ok(bytes.clone()),
            Self::Base64(text) => {
                base64_simd::STANDARD.decode_to_vec(text).map(Bytes::from).map_err(|_| InvalidBase64)
            }
        }
    }

    /// Bytes that this payload occupies in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Raw(bytes) | Self::Base64(bytes) => bytes.len(),
        }
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Data {
    // Payloads may be large and may be secret: logs show their size only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(bytes) => write!(f, "Raw({} bytes)", bytes.len()),
            Self::Base64(text) => write!(f, "Base64({} bytes)", text.len()),
        }
    }
}

/// The payload's text is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record's data is not valid base64")]
pub struct InvalidBase64;

/// One record of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Identity and order.
    pub seq: Seq,
    /// When the service received the record (`ApproximateArrivalTimestamp`, `ApproximateCreationDateTime`), if it said
    /// so.
    pub arrival: Option<Wall>,
    /// The record's content.
    pub payload: Payload,
    /// Place in the shard since this run began; given by the shard machine, counts filtered records too.
    pub(crate) ordinal: u64,
}

/// A record's content, by the kind of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A record of a Kinesis data stream.
    Kinesis {
        /// Absent where the stream distributes records itself (`RecordDistributionStrategy` AUTO).
        partition_key: Option<String>,
        /// What the producer put.
        data: Data,
    },
    /// A change of an item, from a DynamoDB stream.
    DynamoDb(DynamoDbRecord),
}

/// A change of an item as the event shows it, encoded once, when it was read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DynamoDbRecord {
    /// The record's JSON object up to, but without, `,"eventSourceARN":"…"}`, which is the same for a whole stream.
    pub(crate) json: Bytes,
    /// Where in `json` the text of `Keys` is: the item's primary key (R48).
    pub(crate) key: Range<usize>,
}

impl DynamoDbRecord {
    /// The item's primary key as JSON text, equal for all changes of one item.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.json.get(self.key.clone()).unwrap_or_default()
    }

    /// Bytes that this record occupies in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }
}

impl fmt::Debug for DynamoDbRecord {
    // Items may be secret: logs show their size only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamoDbRecord({} bytes)", self.json.len())
    }
}

impl Record {
    /// A plain Kinesis record.
    #[must_use]
    pub fn new(seq: Seq, partition_key: Option<String>, arrival: Option<Wall>, data: Data) -> Self {
        Self { seq, arrival, payload: Payload::Kinesis { partition_key, data }, ordinal: 0 }
    }

    /// A change from a DynamoDB stream.
    #[must_use]
    pub const fn dynamodb(seq: Seq, arrival: Option<Wall>, change: DynamoDbRecord) -> Self {
        Self { seq, arrival, payload: Payload::DynamoDb(change), ordinal: 0 }
    }

    /// The partition key of a Kinesis record that has one.
    #[must_use]
    pub fn partition_key(&self) -> Option<&str> {
        match &self.payload {
            Payload::Kinesis { partition_key, .. } => partition_key.as_deref(),
            Payload::DynamoDb(_) => None,
        }
    }

    /// The data of a Kinesis record.
    #[must_use]
    pub const fn data(&self) -> Option<&Data> {
        match &self.payload {
            Payload::Kinesis { data, .. } => Some(data),
            Payload::DynamoDb(_) => None,
        }
    }

    /// What keeps records in order among each other beyond their shard: partition key or item key (R48).
    pub(crate) fn order_key(&self) -> Option<&[u8]> {
        match &self.payload {
            Payload::Kinesis { partition_key, .. } => partition_key.as_deref().map(str::as_bytes),
            Payload::DynamoDb(record) => Some(record.key()),
        }
    }

    /// What of the record may be part of its page's answer.
    pub(crate) const fn text(&self) -> &Bytes {
        match &self.payload {
            Payload::Kinesis { data: Data::Raw(bytes) | Data::Base64(bytes), .. } => bytes,
            Payload::DynamoDb(change) => &change.json,
        }
    }

    pub(crate) const fn text_mut(&mut self) -> &mut Bytes {
        match &mut self.payload {
            Payload::Kinesis { data: Data::Raw(bytes) | Data::Base64(bytes), .. } => bytes,
            Payload::DynamoDb(change) => &mut change.json,
        }
    }

    /// Gives the record memory of its own, so that it does not keep the answer that it is part of.
    fn detach(&mut self) {
        let text = self.text_mut();
        *text = Bytes::copy_from_slice(text);
    }

    /// Bytes that this record occupies, for buffer budgets (I13): payload, key and bookkeeping.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let payload = match &self.payload {
            Payload::Kinesis { partition_key, data } => {
                data.len() + partition_key.as_ref().map_or(0, String::len)
            }
            Payload::DynamoDb(record) => record.len(),
        };
        size_of::<Self>() + payload + self.seq.number.as_str().len()
    }
}

/// Records that are freed together: those of a page, or copies of some of them (I13).
#[derive(Clone, Debug, Default)]
pub(crate) struct Slab {
    records: Vec<Record>,
    /// What is freed with it, in bytes: the records' footprints, the room for records that are not there, and what the
    /// answer holds in addition.
    bytes: usize,
    /// Whether the records are parts of one answer, which is freed with the last of them.
    is_shared: bool,
}

impl Slab {
    /// `footprint`: the sum of the records' footprints; `answer`: what the answer holds in addition, if they are parts of
    /// one.
    pub(crate) fn new(records: Vec<Record>, footprint: usize, answer: Option<usize>) -> Self {
        let spare = (records.capacity() - records.len()) * size_of::<Record>();
        Self { records, bytes: footprint + spare + answer.unwrap_or(0), is_shared: answer.is_some() }
    }

    fn measured(records: Vec<Record>) -> Self {
        let footprint = footprint(&records);
        Self::new(records, footprint, None)
    }

    /// Copies of these of its records, which do not keep it, nor the answer that they are parts of.
    pub(crate) fn copied(&self, range: Range<usize>) -> Self {
        let mut records = Vec::new();
        self.copy_out(range, &mut records);
        Self::measured(records)
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Bytes that are freed with it.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its records, each with memory of its own.
    pub(crate) fn into_records(mut self) -> Vec<Record> {
        if self.is_shared {
            self.records.iter_mut().for_each(Record::detach);
        }
        self.records
    }

    /// Copies records to the end of `into`.
    pub(crate) fn copy_out(&self, range: Range<usize>, into: &mut Vec<Record>) {
        let before = into.len();
        into.extend_from_slice(self.records.get(range).unwrap_or_default());
        if self.is_shared {
            into[before..].iter_mut().for_each(Record::detach);
        }
    }

    /// Moves records out to the end of `into`; the room that they took is not freed.
    pub(crate) fn move_out(&mut self, range: Range<usize>, into: &mut Vec<Record>) {
        let before = into.len();
        into.extend(self.records.drain(range));
        let moved = &mut into[before..];
        self.bytes -= footprint(moved) - size_of_val(moved);
        if self.is_shared {
            self.bytes += moved.iter().map(|record| record.text().len()).sum::<usize>();
            moved.iter_mut().for_each(Record::detach);
        }
    }
}

/// The sum of the records' footprints.
pub(crate) fn footprint(records: &[Record]) -> usize {
    records.iter().map(Record::footprint).sum()
}

/// A run of records of one shard that are invoked together; empty only for the final call of a tumbling window (R67).
///
/// Cheap to clone. The encoded event is made at most once and shared by all clones of an invocation; a part of a batch is
/// a batch of its own with an event of its own. A batch that waits for a retry keeps no event.
#[derive(Clone)]
pub struct Batch {
    /// Shared with the other batches of the same page.
    page: Arc<Slab>,
    range: Range<usize>,
    event: Arc<OnceLock<Bytes>>,
}

impl Batch {
    /// A batch of all `records`; `None` if there are none.
    #[must_use]
    pub fn new(records: impl Into<Vec<Record>>) -> Option<Self> {
        let records = records.into();
        let range = 0..records.len();
        (!range.is_empty()).then(|| Self::of(Arc::new(Slab::measured(records)), range))
    }

    /// A batch of the records of a page that are in `range`.
    pub(crate) fn of(page: Arc<Slab>, range: Range<usize>) -> Self {
        Self { page, range, event: Arc::default() }
    }

    /// The same batch with records of its own and without its event, for one that outlives its page by long.
    pub(crate) fn detached(&self) -> Self {
        Self::of(Arc::new(self.page.copied(self.range.clone())), 0..self.len())
    }

    /// What is freed only with this batch.
    pub(crate) const fn page(&self) -> &Arc<Slab> {
        &self.page
    }

    /// Drops the encoded event; the next use encodes it again.
    pub(crate) fn forget_event(&mut self) {
        if self.event.get().is_some() {
            self.event = Arc::default();
        }
    }

    /// Bytes of the encoded event, if there is one.
    pub(crate) fn event_bytes(&self) -> usize {
        self.event.get().map_or(0, Bytes::len)
    }

    /// The batch of a call without records.
    #[must_use]
    pub(crate) fn empty() -> Self {
        Self::of(Arc::default(), 0..0)
    }

    /// The records, in order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.page.records.get(self.range.clone()).unwrap_or_default()
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are no records: the final call of a tumbling window (R67).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The first record.
    #[must_use]
    pub fn first(&self) -> Option<&Record> {
        self.records().first()
    }

    /// The last record.
    #[must_use]
    pub fn last(&self) -> Option<&Record> {
        self.records().last()
    }

    /// Splits into the first `at` records and the rest, or `None` unless both are non-empty.
    #[must_use]
    pub fn split_at(&self, at: usize) -> Option<(Self, Self)> {
        if at == 0 || at >= self.len() {
            return None;
        }
        let middle = self.range.start + at;
        Some((self.part(self.range.start..middle), self.part(middle..self.range.end)))
    }

    fn part(&self, range: Range<usize>) -> Self {
        Self::of(Arc::clone(&self.page), range)
    }

    /// The encoded event, made by `encode` at the first call and shared by all later ones.
    pub fn event_or_encode(&self, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.event.get_or_init(|| encode(self)).clone()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.records() {
            [] => f.write_str("Batch(no records)"),
            [only] => write!(f, "Batch(1 record, {})", only.seq),
            [first, .., last] => write!(f, "Batch({} records, {}..={})", self.len(), first.seq, last.seq),
        }
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.records() == other.records()
    }
}

impl Eq for Batch {}

impl std::hash::Hash for Batch {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.records().hash(state);
    }
}
