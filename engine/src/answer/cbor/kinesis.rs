//! `GetRecords` of Kinesis.

use std::borrow::Cow;

use bytes::Bytes;

use super::walk::{Simple, Walk};
use super::{time_of_float, time_of_integer};
use crate::answer::kinesis::{KinesisAnswer, fitted, push};
use crate::answer::once;
use crate::position::Seq;
use crate::record::{Data, Record};
use crate::time::Wall;

/// As [`kinesis_answer`](crate::kinesis_answer), of an answer in CBOR: data are the producer's bytes where they lie.
pub(in crate::answer) fn kinesis_answer(body: &Bytes) -> Option<KinesisAnswer> {
    let mut walk = Walk::new(body);
    walk.untag()?;
    let (mut records, mut next, mut behind, mut children) = (None, None, None, None);
    let mut bytes = 0;
    walk.map(|walk, name| {
        match &*name {
            // What is null counts as absent; what is there twice does not occur.
            _ if walk.null() => {}
            "Records" => once(&mut records, read_records(walk, body, &mut bytes)?)?,
            "NextShardIterator" => once(&mut next, walk.text()?)?,
            "MillisBehindLatest" => once(&mut behind, i64::try_from(walk.integer()?).ok()?)?,
            "ChildShards" => once(&mut children, walk.array(|_| None)?)?,
            _ => walk.skip()?,
        }
        Some(())
    })?;
    walk.end()?;
    let next_iterator = next.filter(|next| !next.is_empty())?.into_owned();
    Some(KinesisAnswer::new(records.unwrap_or_default(), next_iterator, behind, bytes, body.len()))
}

fn read_records(walk: &mut Walk<'_>, body: &Bytes, bytes: &mut usize) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    walk.array(|walk| {
        let left = walk.left();
        let record = read_record(walk, body, bytes)?;
        push(&mut records, record, left - walk.left(), walk.left());
        Some(())
    })?;
    Some(fitted(records))
}

fn read_record(walk: &mut Walk<'_>, body: &Bytes, bytes: &mut usize) -> Option<Record> {
    let (mut number, mut key, mut arrival, mut data, mut encryption) = (None, None, None, None, None);
    walk.map(|walk, name| {
        match &*name {
            _ if walk.null() => {}
            "Data" => once(&mut data, walk.data()?)?,
            "SequenceNumber" => once(&mut number, walk.text()?)?,
            "PartitionKey" => once(&mut key, walk.text()?.into_owned())?,
            "ApproximateArrivalTimestamp" => once(&mut arrival, time(walk)?)?,
            "EncryptionType" => once(&mut encryption, walk.text()?)?,
            _ => walk.skip()?,
        }
        Some(())
    })?;
    let number = number.filter(|number| !number.is_empty())?.into_owned();
    let data = match data {
        Some(Cow::Borrowed(data)) => body.slice_ref(data),
        Some(Cow::Owned(data)) => Bytes::from(data),
        None => Bytes::new(),
    };
    *bytes += data.len();
    Some(Record::new(Seq::plain(number), key, arrival, Data::Raw(data)))
}

fn time(walk: &mut Walk<'_>) -> Option<Wall> {
    walk.untag()?;
    if walk.major()? <= super::walk::NEGATIVE {
        return time_of_integer(i64::try_from(walk.integer()?).ok()?);
    }
    match walk.simple()? {
        Simple::Float(number) => time_of_float(number),
        Simple::Null | Simple::Boolean(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer as Kinesis writes it: maps of indefinite length, data as bytes, times as tagged milliseconds.
    fn usual() -> Vec<u8> {
        [
            b"\xbf\x67Records\x9f",
            &b"\xbf\x64Data\x42xx\x6cPartitionKey\x61k\x6eSequenceNumber\x6249"[..],
            b"\x78\x1bApproximateArrivalTimestamp\xc1\x1b\x00\x00\x01\xa0\xc4\x50\x6c\x7b\xff",
            b"\xa2\x6eSequenceNumber\x7f\x615\x610\xff\x64Data\x5f\x41y\x41z\xff",
            b"\xff\x71NextShardIterator\x64AAA=\x72MillisBehindLatest\x05\x6bChildShards\xf6",
            b"\x63New\xbf\x61x\x81\x01\xff\xff",
        ]
        .concat()
    }

    fn read(bytes: &[u8]) -> Option<KinesisAnswer> {
        kinesis_answer(&Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn an_answer_as_kinesis_writes_it_is_read_without_copying_its_data() {
        let body = Bytes::from(usual());
        let answer = kinesis_answer(&body).unwrap();
        assert_eq!((answer.next_iterator.as_str(), answer.bytes), ("AAA=", 4));
        assert_eq!((answer.page.millis_behind, answer.page.answer), (Some(5), Some(body.len())));
        let [first, second] = &answer.page.records[..] else { panic!() };
        assert_eq!(first.arrival, Some(Wall::from_millis(1_790_000_000_123)));
        assert_eq!((first.partition_key(), first.seq.number.as_str()), (Some("k"), "49"));
        assert!(body.as_ptr_range().contains(&first.text().as_ptr()));
        assert_eq!(first.data(), Some(&Data::Raw("xx".into())));
        assert_eq!(
            (second.data(), second.arrival),
            (Some(&Data::Raw("yz".into())), None),
            "chunks are joined"
        );
        assert_eq!((second.partition_key(), second.seq.number.as_str()), (None, "50"));
    }

    #[test]
    fn an_answer_of_another_form_or_cut_at_any_byte_is_not_read() {
        let usual = usual();
        for end in 0..usual.len() {
            assert_eq!(read(&usual[..end]), None, "cut after {end}");
        }
        for (part, other) in [
            (&b"\x64AAA="[..], &b"\x60"[..]),
            (b"\x64AAA=", b"\xf6"),
            (b"\x64AAA=", b"\x01"),
            (b"\x6249", b"\x60"),
            (b"\x6249", b"\xf6"),
            (b"\x6249", b"\x4249"),
            (b"\x42xx", b"\x62xx"),
            (b"\x42xx", b"\x42xx\x64Data\x40"),
            (b"\x6eSequenceNumber\x62", b"\x6esequenceNumber\x62"),
            (b"\x05", b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
            (b"\x6bChildShards\xf6", b"\x6bChildShards\x81\xa0"),
            (b"\xc1\x1b", b"\xc1\x5b"),
            (b"\x67Records", b"\x41R\x00"),
        ] {
            let at = usual.windows(part.len()).position(|window| window == part).unwrap();
            let changed = [&usual[..at], other, &usual[at + part.len()..]].concat();
            assert_eq!(read(&changed), None, "{}", other.escape_ascii());
        }
        assert_eq!(read(&[usual, vec![0]].concat()), None, "nothing may follow");
    }

    #[test]
    fn an_answer_changed_at_any_byte_never_panics_and_reserves_no_more_than_is_there() {
        let usual = usual();
        for at in 0..usual.len() {
            for byte in [0, 0x1b, 0x1f, 0x5b, 0x5f, 0x7b, 0x7f, 0x9b, 0x9f, 0xbb, 0xbf, 0xdb, 0xf6, 0xff] {
                let mut changed = usual.clone();
                changed[at] = byte;
                let Some(answer) = read(&changed) else { continue };
                assert!(answer.bytes <= changed.len() && answer.page.records.len() <= changed.len());
            }
        }
    }
}
