//! Records, batches, and what is freed together.

use super::*;

fn records(n: usize) -> Vec<Record> {
    (0..n).map(|i| Record::new(Seq::plain(i.to_string()), None, None, Data::Raw(Bytes::new()))).collect()
}

#[test]
fn a_batch_splits_without_copying_and_never_into_nothing() {
    let batch = Batch::new(records(5)).unwrap();
    let (left, right) = batch.split_at(2).unwrap();
    assert_eq!((left.len(), right.len()), (2, 3));
    assert_eq!(right.first().unwrap().seq, Seq::plain("2"));
    assert!(std::ptr::eq(&batch.records()[2], right.first().unwrap()));
    assert!(batch.split_at(0).is_none() && batch.split_at(5).is_none());
    assert!(Batch::new(Vec::new()).is_none());
}

#[test]
fn equal_batches_hash_alike_whatever_their_pages_and_different_ones_do_not() {
    let state = std::hash::RandomState::new();
    let hash = |batch: &Batch| std::hash::BuildHasher::hash_one(&state, batch);
    let whole = Batch::new(records(5)).unwrap();
    let (left, right) = whole.split_at(2).unwrap();
    let alone = Batch::new(records(2)).unwrap();
    assert_eq!((&left, hash(&left)), (&alone, hash(&alone)));
    assert!(left != right && hash(&left) != hash(&right));
}

#[test]
fn a_record_shows_what_it_holds_and_logs_do_not() {
    let plain =
        Record::new(Seq::plain("7"), Some("key".into()), None, Data::Base64(Bytes::from_static(b"c2VjcmV0")));
    assert_eq!((plain.partition_key(), plain.order_key()), (Some("key"), Some(&b"key"[..])));
    assert_eq!(plain.bytes().unwrap(), "secret");
    let data = plain.data().unwrap();
    assert_eq!((data.len(), data.is_empty()), (8, false));
    assert!(Data::Raw(Bytes::new()).is_empty());
    assert_eq!(
        format!("{data:?} {:?}", Data::Raw(Bytes::from_static(b"xyz"))),
        "Base64(8 bytes) Raw(3 bytes)"
    );
    assert_eq!(Data::Base64(Bytes::from_static(b"?")).bytes(), Err(InvalidBase64));

    let json = Bytes::from_static(br#"{"Keys":{"k":1}}"#);
    let change = DynamoDbRecord { json, key: 8..15 };
    assert_eq!((change.key(), change.len(), change.is_empty()), (&br#"{"k":1}"#[..], 16, false));
    assert!(DynamoDbRecord { json: Bytes::new(), key: 0..0 }.is_empty());
    assert_eq!(format!("{change:?}"), "DynamoDbRecord(16 bytes)");
    let change = Record::dynamodb(Seq::plain("8"), None, change);
    assert_eq!((change.partition_key(), change.data()), (None, None));
    assert_eq!((change.order_key(), change.bytes()), (Some(&br#"{"k":1}"#[..]), Err(RecordError::NoBytes)));
    let own = size_of::<Record>();
    assert_eq!((plain.footprint(), change.footprint()), (own + 8 + 3 + 1, own + 16 + 1));
}

#[test]
fn a_batch_is_shown_by_its_ends() {
    let shown = |n| Batch::new(records(n)).unwrap_or_else(Batch::empty);
    assert_eq!(format!("{:?}", shown(0)), "Batch(no records)");
    assert_eq!(format!("{:?}", shown(1)), "Batch(1 record, 0)");
    assert_eq!(format!("{:?}", shown(3)), "Batch(3 records, 0..=2)");
    assert!(shown(0).is_empty() && !shown(1).is_empty());
    assert_eq!((shown(3).detached(), shown(3).detached().len()), (shown(3), 3));
}

#[test]
fn the_event_is_encoded_once_and_shared_by_retries_but_not_by_halves() {
    let batch = Batch::new(records(2)).unwrap();
    let first = batch.clone().event_or_encode(|_| Bytes::from_static(b"whole"));
    let again = batch.event_or_encode(|_| unreachable!("encoded once"));
    assert_eq!(first, again);
    let (left, _) = batch.split_at(1).unwrap();
    assert_eq!(left.event_or_encode(|_| Bytes::from_static(b"half")), "half");
}

#[test]
fn i13_what_is_taken_out_of_a_page_does_not_keep_the_answer_that_it_is_part_of() {
    let body = Bytes::from(vec![b'A'; 400]);
    let record = |n: usize| {
        let data = Data::Base64(body.slice(n * 40..n * 40 + 40));
        Record::new(Seq::plain(n.to_string()), None, None, data)
    };
    let records: Vec<Record> = (0..10).map(record).collect();
    let is_part = |record: &Record| body.as_ptr_range().contains(&record.text().as_ptr());
    let bytes = footprint(&records);
    let mut page = Slab::new(records.clone(), bytes, Some(7));
    assert!(page.records().iter().all(is_part));
    assert_eq!(page.bytes(), bytes + 7);
    let copied = page.copied(2..5);
    assert_eq!((copied.records(), copied.records().iter().any(is_part)), (&records[2..5], false));
    let mut moved = Vec::new();
    page.move_out(0..4, &mut moved);
    assert_eq!((&moved[..], moved.iter().any(is_part)), (&records[..4], false));
    let numbers = 4;
    assert_eq!(page.bytes(), bytes + 7 - numbers, "the text and the room of four records are not freed");
    assert!(!Slab::new(records, bytes, Some(7)).into_records().iter().any(is_part));
}
