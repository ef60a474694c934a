//! What is read in place against what the SDK decodes.

use std::sync::LazyLock;

use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsOutput};
use aws_sdk_kinesis::primitives::DateTime;
use aws_smithy_runtime_api::client::interceptors::context::Output;
use bytes::Bytes;
use shardmill_engine::{Record, cbor_to_json, kinesis_answer};
use shardmill_testkit::cbor::Item;

use super::super::reader::{Next, convert};
use super::*;
use crate::source::aws::oracle::{Chance, Judge, Sdk, by_chance, cut_and_changed};
use crate::source::aws::{Address, Call, millis};

static STREAM: LazyLock<KinesisSource> =
    LazyLock::new(|| KinesisSource::from_client(Service::new([]).client(), ARN).unwrap());

/// Runs a test with the SDK's decoder at hand.
async fn judged(test: impl Fn(Sdk<'_>) + Send + Sync + 'static) {
    let service = Service::new([]).otherwise(json!({}));
    let judge = Judge { operation: GetRecords::new(), test };
    let call = service.client().get_records().shard_iterator("i").customize().interceptor(judge);
    call.send().await.unwrap();
}

/// Whether an answer is read in place, which must give what the SDK's decoder gives.
fn compare(body: &Bytes, sdk: Sdk<'_>) -> bool {
    compare_with(body, body, sdk)
}

/// As [`compare`], of an answer that the SDK's decoder gets in JSON.
fn compare_with(body: &Bytes, json: &Bytes, sdk: Sdk<'_>) -> bool {
    let Some(ours) = kinesis_answer(body) else { return false };
    let shown = String::from_utf8_lossy(json);
    let output = sdk(json).unwrap_or_else(|| panic!("the SDK does not take {shown}"));
    let address = Address::default();
    let call = Call { api: "GetRecords", stream: STREAM.stream(), shard: None, address: &address, at: None };
    let theirs = convert(output.downcast::<GetRecordsOutput>().unwrap(), call);
    let theirs = theirs.unwrap_or_else(|error| panic!("{error}: {shown}"));
    let Next::Iterator(next) = theirs.next else { panic!("no next iterator: {shown}") };
    assert_eq!((ours.next_iterator, ours.bytes), (next, theirs.bytes), "{shown}");
    assert_eq!(ours.page.millis_behind, theirs.page.millis_behind, "{shown}");
    let read = |records: &[Record]| -> Vec<_> {
        let of = |record: &Record| {
            let key = record.partition_key().map(str::to_owned);
            (record.seq.number.to_string(), key, record.arrival, record.bytes().unwrap())
        };
        records.iter().map(of).collect()
    };
    assert_eq!(read(&ours.page.records), read(&theirs.page.records), "{shown}");
    assert!(theirs.page.children.is_empty() && !theirs.page.end_of_shard, "{shown}");
    true
}

fn record_by_chance(chance: &mut Chance) -> String {
    let mut members = Vec::new();
    if !chance.odd() {
        let number = if chance.odd() { chance.string() } else { format!("\"{}\"", chance.rng.u64(..)) };
        members.push(("SequenceNumber", number));
    }
    if !chance.odd() {
        members.push(("Data", chance.base64()));
    }
    if chance.rng.u8(0..10) > 0 {
        members.push(("PartitionKey", chance.string()));
        members.push(("ApproximateArrivalTimestamp", chance.seconds()));
    }
    if chance.rng.bool() {
        members.push(("EncryptionType", chance.pick(&["\"NONE\"", "\"KMS\"", "\"new\""]).to_owned()));
    }
    if chance.rng.u8(0..8) == 0 {
        members.push((chance.pick(&["New", "data", "", "Données"]), chance.value(3)));
    }
    chance.object(members)
}

fn answer_by_chance(chance: &mut Chance) -> Bytes {
    let records = (0..chance.rng.usize(0..4)).map(|_| record_by_chance(chance)).collect();
    let mut members = vec![("Records", chance.array(records))];
    if !chance.odd() {
        members.push(("NextShardIterator", chance.string()));
    }
    if !chance.odd() {
        members.push(("MillisBehindLatest", chance.integer()));
    }
    if chance.rng.u8(0..8) == 0 {
        let children = ["[]", "null", "{}", r#"[{"ShardId":"s","ParentShards":["p"]}]"#];
        members.push(("ChildShards", chance.pick(&children).to_owned()));
    }
    if chance.rng.u8(0..8) == 0 {
        members.push((chance.pick(&["New", "__type", "records"]), chance.value(3)));
    }
    let text = chance.object(members);
    chance.changed(text)
}

#[tokio::test]
async fn answers_by_chance_are_read_in_place_as_the_sdk_decodes_them() {
    judged(|sdk| {
        by_chance(100_000, answer_by_chance, |body| compare(body, sdk));
    })
    .await;
}

#[tokio::test]
async fn an_answer_cut_or_changed_at_any_byte_is_read_as_the_sdk_decodes_it_or_not_at_all() {
    judged(|sdk| {
        let text = br#"{"MillisBehindLatest":5,"NextShardIterator":"AAA=","New":{"a":[1,-2.5e3,true,"x"]},"Records":[
            {"ApproximateArrivalTimestamp":1.790000000123E9,"Data":"eHg=","PartitionKey":"a\"b","SequenceNumber":"49"},
            {"SequenceNumber":"50","Data":"","EncryptionType":"KMS"}],"ChildShards":null} "#;
        cut_and_changed(text, |body| compare(body, sdk));
    })
    .await;
}

/// A record's value by chance: what an answer has there, or something else.
fn item_by_chance(chance: &mut Chance, usual: Item, depth: usize) -> Item {
    if !chance.odd() {
        return usual;
    }
    let text = |chance: &mut Chance| chance.pick(&["", "a\"b\\", "\u{e9}\n", "Data"]).to_owned();
    match chance.rng.u8(0..if depth == 0 { 6 } else { 8 }) {
        0 => Item::Null,
        1 => Item::Boolean(chance.rng.bool()),
        2 => Item::Integer(chance.pick(&[0, -1, 23, 24, 255, 256, 65_536, i64::MAX, i64::MIN])),
        3 => Item::Float(chance.pick(&[0.5, -1.25, 1e300, 1_790_000_000.5])),
        4 => Item::Text(text(chance)),
        5 => Item::Data(vec![b'x'; chance.rng.usize(0..5)]),
        6 => Item::Array(
            (0..chance.rng.usize(0..3)).map(|_| item_by_chance(chance, Item::Null, depth - 1)).collect(),
        ),
        _ => Item::Map(
            (0..chance.rng.usize(0..3))
                .map(|_| (text(chance), item_by_chance(chance, Item::Integer(1), depth - 1)))
                .collect(),
        ),
    }
}

/// Members in any order; one time of many one is missing or there twice.
fn map_by_chance(chance: &mut Chance, members: Vec<(&str, Item)>) -> Item {
    let mut members: Vec<_> = members
        .into_iter()
        .filter_map(|(name, item)| {
            (!chance.odd()).then(|| (name.to_owned(), item_by_chance(chance, item, 3)))
        })
        .collect();
    chance.rng.shuffle(&mut members);
    if chance.odd() && !members.is_empty() {
        let again = members[chance.rng.usize(0..members.len())].clone();
        members.push(again);
    }
    Item::Map(members)
}

/// An answer that has both encodings.
fn answer_in_both_by_chance(chance: &mut Chance) -> Item {
    let record = |chance: &mut Chance| {
        let mut data = vec![0; chance.rng.usize(0..40)];
        chance.rng.fill(&mut data);
        let mut members = vec![
            ("SequenceNumber", Item::Text(chance.rng.u64(..).to_string())),
            ("Data", Item::Data(data)),
            ("PartitionKey", Item::Text(chance.pick(&["k", "a\"b", "\u{1f600}"]).to_owned())),
            ("ApproximateArrivalTimestamp", Item::Time(chance.rng.i64(1_400_000_000_000..2_000_000_000_000))),
        ];
        if chance.rng.u8(0..4) == 0 {
            members.push(("EncryptionType", Item::Text("KMS".to_owned())));
            members.push(("New", item_by_chance(chance, Item::Null, 3)));
        }
        map_by_chance(chance, members)
    };
    let records = (0..chance.rng.usize(0..4)).map(|_| record(chance)).collect();
    let mut members = vec![
        ("Records", Item::Array(records)),
        ("NextShardIterator", Item::Text("AAA=".to_owned())),
        ("MillisBehindLatest", Item::Integer(chance.rng.i64(0..100_000))),
    ];
    if chance.rng.u8(0..8) == 0 {
        let child = Item::Map(vec![
            ("ShardId".to_owned(), Item::Text("s".to_owned())),
            ("ParentShards".to_owned(), Item::Array(vec![Item::Text("p".to_owned())])),
        ]);
        let child = item_by_chance(chance, child, 2);
        members.push(("ChildShards", Item::Array(if chance.rng.bool() { vec![child] } else { Vec::new() })));
    }
    map_by_chance(chance, members)
}

#[tokio::test]
async fn answers_by_chance_are_read_in_cbor_as_the_sdk_decodes_them_in_json() {
    judged(|sdk| {
        let forms = std::cell::RefCell::new(fastrand::Rng::with_seed(34));
        by_chance(
            100_000,
            |chance| {
                let item = answer_in_both_by_chance(chance);
                let cbor = item.to_cbor_as(&mut |form| forms.borrow_mut().u8(0..form.count()));
                let json = cbor_to_json(&cbor).unwrap_or_else(|| panic!("{item:?} is written as {cbor:x?}"));
                let (ours, theirs) = (sdk(&json.clone().into()), sdk(&item.to_json().into()));
                let of = |output: Option<Output>| {
                    output.map(|output| output.downcast::<GetRecordsOutput>().unwrap())
                };
                let (mut ours, mut theirs) = (of(ours), of(theirs));
                // Their milliseconds are the same; a float may be some nanoseconds off.
                for output in [&mut ours, &mut theirs].into_iter().flatten() {
                    for record in &mut output.records {
                        if let Some(at) = &mut record.approximate_arrival_timestamp {
                            *at = DateTime::from_millis(millis(at).as_millis());
                        }
                    }
                }
                assert_eq!(ours, theirs, "{item:?}");
                cbor.into()
            },
            |cbor| {
                // What is not read in place is shown to the SDK in JSON: that is compared above.
                compare_with(cbor, &cbor_to_json(cbor).unwrap().into(), sdk)
            },
        );
    })
    .await;
}

#[tokio::test]
async fn an_answer_in_cbor_cut_or_changed_at_any_byte_is_read_as_the_sdk_decodes_it_or_not_at_all() {
    judged(|sdk| {
        let answer = json!({"Records": [record("49"), {"SequenceNumber": "50", "Data": "", "New": [1, -2.5, {"x": "y"}]}],
            "NextShardIterator": "AAA=", "ChildShards": null, "MillisBehindLatest": 5});
        let cbor = Item::from_json(&answer).to_cbor();
        let judge = |cbor: &Bytes| match cbor_to_json(cbor) {
            Some(json) => compare_with(cbor, &json.into(), sdk),
            None => {
                assert_eq!(kinesis_answer(cbor), None, "{cbor:x?}");
                false
            }
        };
        assert!(judge(&cbor.clone().into()));
        for at in 0..cbor.len() {
            assert!(!judge(&Bytes::copy_from_slice(&cbor[..at])), "cut at {at}");
            for byte in [0, 0x18, 0x1b, 0x3b, 0x41, 0x5f, 0x61, 0x7f, 0x9f, 0xa1, 0xbf, 0xc1, 0xf6, 0xfb, 0xff] {
                let mut changed = cbor.clone();
                changed[at] = byte;
                judge(&changed.into());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_of_the_largest_size_and_an_empty_answer_are_read_in_place() {
    judged(|sdk| {
        let data = aws_smithy_types::base64::encode(vec![7; 10 << 20]);
        let large = json!({"Records": [{"SequenceNumber": "1", "Data": data}], "NextShardIterator": "n"});
        let empty = json!({"Records": [], "NextShardIterator": "n", "MillisBehindLatest": 0});
        for answer in [large, empty] {
            assert!(compare(&answer.to_string().into(), sdk));
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_the_service_is_read_in_place_and_one_that_ends_a_shard_is_not() {
    let end = json!({"Records": [record("3")], "ChildShards": [], "MillisBehindLatest": 0});
    let end = Answer::Ok(end);
    let listing = Answer::Ok(json!({"Shards": []}));
    let service = Service::new([iterator("i1"), page(&["1", "2"], Some("i2")), end, listing]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    let first = reader.next_page(10).await.unwrap();
    let data = first.records.iter().map(|record| format!("{:?}", record.data().unwrap())).collect::<Vec<_>>();
    assert_eq!((data, first.answer.is_some()), (vec!["Raw(2 bytes)".to_owned(); 2], true));
    let last = reader.next_page(10).await.unwrap();
    assert_eq!((numbers(&last), last.answer), (vec!["3"], None));
}
