//! `GetRecords` of Kinesis.

use bytes::Bytes;

use super::scan::Scan;
use super::seconds::seconds;
use super::{cbor, once};
use crate::intake::Page;
use crate::position::Seq;
use crate::record::{Data, Record};

/// The most records of one answer.
const MOST: usize = 10_000;

/// An answer of Kinesis' `GetRecords` in the middle of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KinesisAnswer {
    /// The records. Their data are parts of the answer: base64 text of one in JSON, bytes of one in CBOR.
    pub page: Page,
    /// Where the next answer begins.
    pub next_iterator: String,
    /// Bytes of the records' data, decoded, as they count against the shard's limit.
    pub bytes: usize,
}

impl KinesisAnswer {
    /// An answer of `length` bytes whose members have been read. How far behind it is may be absent.
    pub(super) fn new(
        records: Vec<Record>,
        next_iterator: String,
        behind: Option<i64>,
        bytes: usize,
        length: usize,
    ) -> Self {
        let mut page = Page::new(records);
        page.millis_behind = behind.and_then(|behind| u64::try_from(behind).ok());
        page.answer = Some(length);
        Self { page, next_iterator, bytes }
    }
}

/// Adds a record that took `length` bytes; with the first one, room for those in the `left` bytes after it, which are probably
/// as long.
pub(super) fn push(records: &mut Vec<Record>, record: Record, length: usize, left: usize) {
    if records.is_empty() {
        records.reserve(((left + length) / length.max(1)).clamp(1, MOST));
    }
    records.push(record);
}

/// The records without the room that was not needed.
pub(super) fn fitted(mut records: Vec<Record>) -> Vec<Record> {
    if records.len() < records.capacity() / 2 {
        records.shrink_to_fit();
    }
    records
}

/// Reads an answer in JSON or CBOR in place. `None` if it has another form than that of a page in the middle of a shard, for
/// example if it is malformed or ends the shard: the SDK tells what it is.
#[must_use]
pub fn kinesis_answer(body: &Bytes) -> Option<KinesisAnswer> {
    if cbor::is_cbor(body) {
        return cbor::kinesis_answer(body);
    }
    let mut scan = Scan::new(body);
    let (mut records, mut next, mut behind, mut children) = (None, None, None, None);
    let mut bytes = 0;
    scan.object(|scan, name| {
        match name {
            // What is null counts as absent; what is there twice does not occur.
            _ if scan.null() => {}
            "Records" => once(&mut records, read_records(scan, body, &mut bytes)?)?,
            "NextShardIterator" => once(&mut next, scan.string()?.plain()?)?,
            "MillisBehindLatest" => once(&mut behind, scan.number()?.parse::<i64>().ok()?)?,
            "ChildShards" => once(&mut children, scan.array(|_| None)?)?,
            _ => scan.skip()?,
        }
        Some(())
    })?;
    scan.end()?;
    let next_iterator = next.filter(|next| !next.is_empty())?.to_owned();
    Some(KinesisAnswer::new(records.unwrap_or_default(), next_iterator, behind, bytes, body.len()))
}

fn read_records(scan: &mut Scan<'_>, body: &Bytes, bytes: &mut usize) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    scan.array(|scan| {
        let left = scan.left();
        let record = read_record(scan, body, bytes)?;
        push(&mut records, record, left - scan.left(), scan.left());
        Some(())
    })?;
    Some(fitted(records))
}

fn read_record(scan: &mut Scan<'_>, body: &Bytes, bytes: &mut usize) -> Option<Record> {
    let (mut number, mut key, mut arrival, mut data, mut encryption) = (None, None, None, None, None);
    scan.object(|scan, name| {
        match name {
            _ if scan.null() => {}
            "Data" => once(&mut data, scan.base64()?)?,
            "SequenceNumber" => once(&mut number, scan.string()?.plain()?)?,
            "PartitionKey" => {
                let text = scan.string()?;
                once(&mut key, text.unescaped(scan)?)?;
            }
            "ApproximateArrivalTimestamp" => once(&mut arrival, seconds(scan.number()?)?)?,
            "EncryptionType" => once(&mut encryption, scan.string()?.plain()?)?,
            _ => scan.skip()?,
        }
        Some(())
    })?;
    let number = number.filter(|number| !number.is_empty())?;
    let data = match data {
        Some(text) => {
            *bytes += base64_simd::STANDARD.decoded_length(text.raw).ok()?;
            body.slice(text.place)
        }
        None => Bytes::new(),
    };
    Some(Record::new(Seq::plain(number), key, arrival, Data::Base64(data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn read(text: &str) -> Option<KinesisAnswer> {
        kinesis_answer(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_answer_as_kinesis_writes_it_is_read_without_copying_its_data() {
        let body = Bytes::from_static(
            br#"{"MillisBehindLatest":5,"NextShardIterator":"AAA=","Records":[
            {"ApproximateArrivalTimestamp":1.790000000123E9,"Data":"eHg=","PartitionKey":"a\"b","SequenceNumber":"49"},
            {"SequenceNumber":"50","Data":"","EncryptionType":"KMS","New":{"x":[1]}}],"ChildShards":null,"More":true} "#,
        );
        let answer = kinesis_answer(&body).unwrap();
        assert_eq!((answer.next_iterator.as_str(), answer.bytes), ("AAA=", 2));
        assert_eq!((answer.page.millis_behind, answer.page.answer), (Some(5), Some(body.len())));
        let [first, second] = &answer.page.records[..] else { panic!() };
        assert_eq!(first.arrival, Some(Wall::from_millis(1_790_000_000_123)));
        assert_eq!((first.partition_key(), first.seq.number.as_str()), (Some("a\"b"), "49"));
        assert_eq!((first.bytes().unwrap(), second.bytes().unwrap()), ("xx".into(), Bytes::new()));
        assert!(body.as_ptr_range().contains(&first.text().as_ptr()));
        assert_eq!((second.partition_key(), second.arrival), (None, None));
    }

    #[test]
    fn an_answer_of_another_form_is_left_to_the_sdk() {
        let usual = r#"{"Records":[{"SequenceNumber":"1","Data":"eHg="}],"NextShardIterator":"n"}"#;
        assert!(read(usual).is_some());
        for (part, other) in [
            (r#""n""#, r#""""#),
            (r#""n""#, "null"),
            (r#""n""#, "1"),
            ("eHg=", "eHg"),
            ("eHg=", "!!!!"),
            ("eHg=", r"eH\u0067="),
            (r#""1""#, r#""""#),
            (r#""1""#, "null"),
            (r#""1""#, r#""\u0031""#),
            ("SequenceNumber", "sequenceNumber"),
            (r#""Data":"eHg=""#, r#""Data":"eHg=","Data":"""#),
            (r#""n"}"#, r#""n"}}"#),
            (r#""n"}"#, r#""n","ChildShards":[{"ShardId":"a"}]}"#),
            (r#""n"}"#, r#""n","MillisBehindLatest":1.5}"#),
            (r#""n"}"#, r#""n","Records":[]}"#),
            ("[{", "[1,{"),
        ] {
            let text = usual.replacen(part, other, 1);
            assert_ne!(text, usual);
            assert_eq!(read(&text), None, "{text}");
        }
        for end in 0..usual.len() {
            assert_eq!(read(&usual[..end]), None, "cut after {end}");
        }
    }
}
