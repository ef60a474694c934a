//! DynamoDB events against Lambda's own, byte for byte.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{EventContext, encode, encoded_len};
use super::*;
use crate::position::Seq;
use crate::record::{Batch, Record};

/// Attribute values as a test writes them.
#[derive(Clone, Debug)]
enum Plain {
    S(String),
    N(String),
    B(Vec<u8>),
    Bool(bool),
    Null,
    M(HashMap<String, Self>),
    L(Vec<Self>),
    Ss(Vec<String>),
    Ns(Vec<String>),
    Bs(Vec<Vec<u8>>),
    Unknown,
}

#[derive(Debug)]
struct Model;

impl AttributeModel for Model {
    type Value = Plain;
    type Binary = Vec<u8>;

    fn read(value: &Plain) -> Option<AttributeRef<'_, Self>> {
        Some(match value {
            Plain::S(text) => AttributeRef::S(text),
            Plain::N(text) => AttributeRef::N(text),
            Plain::B(bytes) => AttributeRef::B(bytes),
            Plain::Bool(is) => AttributeRef::Bool(*is),
            Plain::Null => AttributeRef::Null(true),
            Plain::M(map) => AttributeRef::M(map),
            Plain::L(list) => AttributeRef::L(list),
            Plain::Ss(set) => AttributeRef::Ss(set),
            Plain::Ns(set) => AttributeRef::Ns(set),
            Plain::Bs(set) => AttributeRef::Bs(set),
            Plain::Unknown => return None,
        })
    }
}

impl Plain {
    /// The same by the general JSON library.
    fn json(&self) -> Value {
        let base64 = |bytes: &Vec<u8>| base64_simd::STANDARD.encode_to_string(bytes);
        match self {
            Self::S(text) => json!({"S": text}),
            Self::N(text) => json!({"N": text}),
            Self::B(bytes) => json!({"B": base64(bytes)}),
            Self::Bool(is) => json!({"BOOL": is}),
            Self::Null => json!({"NULL": true}),
            Self::M(map) => json!({"M": item_json(map)}),
            Self::L(list) => json!({"L": list.iter().map(Self::json).collect::<Vec<_>>()}),
            Self::Ss(set) => json!({"SS": set}),
            Self::Ns(set) => json!({"NS": set}),
            Self::Bs(set) => json!({"BS": set.iter().map(base64).collect::<Vec<_>>()}),
            Self::Unknown => Value::Null,
        }
    }
}

fn item_json(item: &HashMap<String, Plain>) -> Value {
    Value::Object(item.iter().map(|(name, value)| (name.clone(), value.json())).collect::<Map<_, _>>())
}

fn text(value: &str) -> Plain {
    Plain::S(value.to_owned())
}

fn item<const N: usize>(attributes: [(&str, Plain); N]) -> HashMap<String, Plain> {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn fields<'a>(keys: &'a HashMap<String, Plain>) -> DynamoDbFields<'a, Model> {
    DynamoDbFields {
        event_id: Some("aeec7a71a1f0a3841c1f79a16e1e634a"),
        event_name: Some("INSERT"),
        event_version: Some("1.1"),
        event_source: Some("aws:dynamodb"),
        aws_region: Some("us-east-1"),
        approximate_creation: Some(Wall::from_millis(1_789_654_277_000)),
        keys: Some(keys),
        new_image: None,
        old_image: None,
        sequence_number: "2500003077291036516106",
        size_bytes: Some(70),
        stream_view_type: Some("NEW_IMAGE"),
        user_identity: None,
    }
}

fn context() -> EventContext {
    EventContext {
        event_source_arn: "arn:aws:dynamodb:us-east-1:111111111111:table/T/stream/2026-09-17T14:10:44.560"
            .into(),
        region: "us-east-1".into(),
        invoke_identity_arn: "arn:aws:iam::111111111111:role/lambda-role".into(),
        shard: "shardId-00000001789649399079-0d666f96".into(),
    }
}

fn record(fields: &DynamoDbFields<'_, Model>) -> Record {
    let change = DynamoDbEncoder::default().encode(fields).unwrap();
    Record::dynamodb(Seq::plain(fields.sequence_number), fields.approximate_creation, change)
}

fn event(fields: &DynamoDbFields<'_, Model>) -> String {
    let batch = Batch::new(vec![record(fields)]).unwrap();
    let event = encode(&batch, &context(), None);
    assert_eq!(event.len(), encoded_len(&batch, &context(), None));
    String::from_utf8(event.to_vec()).unwrap()
}

/// The event of docs/semantics.md, section 3.2; the line breaks that it is shown with are not part of it.
const SECTION_3_2: &str = concat!(
    r#"{"Records":[{"eventID":"aeec7a71a1f0a3841c1f79a16e1e634a","eventName":"INSERT","eventVersion":"1.1","#,
    r#""eventSource":"aws:dynamodb","awsRegion":"us-east-1","#,
    r#""dynamodb":{"ApproximateCreationDateTime":1789654277.0,"#,
    r#""Keys":{"my_partition_key":{"S":"hello world"}},"#,
    r#""NewImage":{"binary_key":{"B":"Zm9vYmFy"},"my_partition_key":{"S":"hello world"}},"#,
    r#""SequenceNumber":"2500003077291036516106","SizeBytes":70,"StreamViewType":"NEW_IMAGE"},"#,
    r#""eventSourceARN":"arn:aws:dynamodb:us-east-1:111111111111:table/T/stream/2026-09-17T14:10:44.560"}]}"#,
);

#[test]
fn the_event_equals_lambdas_own_byte_for_byte() {
    let keys = item([("my_partition_key", text("hello world"))]);
    let image =
        item([("my_partition_key", text("hello world")), ("binary_key", Plain::B(b"foobar".to_vec()))]);
    assert_eq!(event(&DynamoDbFields { new_image: Some(&image), ..fields(&keys) }), SECTION_3_2);
}

#[test]
fn the_old_image_follows_the_new_one_and_either_may_be_absent() {
    let keys = item([("id", text("1"))]);
    let (new, old) = (item([("n", text("new"))]), item([("n", text("old"))]));
    let both = event(&DynamoDbFields { new_image: Some(&new), old_image: Some(&old), ..fields(&keys) });
    assert!(
        both.contains(
            r#""Keys":{"id":{"S":"1"}},"NewImage":{"n":{"S":"new"}},"OldImage":{"n":{"S":"old"}},"SequenceNumber""#
        ),
        "{both}"
    );
    let removed = event(&DynamoDbFields { old_image: Some(&old), ..fields(&keys) });
    assert!(
        removed.contains(r#""OldImage":{"n":{"S":"old"}},"#) && !removed.contains("NewImage"),
        "{removed}"
    );
    let keys_only = event(&fields(&keys));
    assert!(keys_only.contains(r#""Keys":{"id":{"S":"1"}},"SequenceNumber""#), "{keys_only}");
}

#[test]
fn a_deletion_by_time_to_live_says_who_did_it_in_lambdas_spelling() {
    let keys = item([("id", text("1"))]);
    let identity = UserIdentity { kind: Some("Service"), principal_id: Some("dynamodb.amazonaws.com") };
    let text =
        event(&DynamoDbFields { event_name: Some("REMOVE"), user_identity: Some(identity), ..fields(&keys) });
    let end = concat!(
        r#""StreamViewType":"NEW_IMAGE"},"userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"#,
        r#""eventSourceARN":"#
    );
    assert!(text.contains(end), "{text}");
}

#[test]
fn what_the_service_left_out_is_left_out() {
    let change = DynamoDbEncoder::default()
        .encode(&DynamoDbFields::<Model> {
            event_id: None,
            event_name: None,
            event_version: None,
            event_source: None,
            aws_region: None,
            approximate_creation: None,
            keys: None,
            new_image: None,
            old_image: None,
            sequence_number: "7",
            size_bytes: None,
            stream_view_type: None,
            user_identity: Some(UserIdentity { kind: None, principal_id: None }),
        })
        .unwrap();
    assert_eq!(&change.json[..], br#"{"dynamodb":{"SequenceNumber":"7"},"userIdentity":{}"#);
    assert_eq!(change.key(), b"");
}

#[test]
fn r59_every_type_keeps_its_tag_and_attributes_come_in_the_order_of_their_names() {
    let all = item([
        ("z", Plain::Ss(vec!["b".into(), "a\"".into()])),
        ("y", Plain::Ns(vec!["1".into(), "-2.5E3".into()])),
        ("x", Plain::Bs(vec![b"foo".to_vec(), b"bar!".to_vec()])),
        ("w", Plain::L(vec![Plain::N("1".into()), Plain::L(vec![]), Plain::Null])),
        ("v", Plain::M(item([("2", Plain::Bool(true)), ("1", Plain::M(item([])))]))),
        ("u\n", Plain::Bool(false)),
        ("", Plain::B(vec![])),
    ]);
    let mut out = Vec::new();
    push_item::<Model>(&mut out, &all).unwrap();
    let expected = concat!(
        r#"{"":{"B":""},"u\n":{"BOOL":false},"v":{"M":{"1":{"M":{}},"2":{"BOOL":true}}},"#,
        r#""w":{"L":[{"N":"1"},{"L":[]},{"NULL":true}]},"x":{"BS":["Zm9v","YmFyIQ=="]},"#,
        r#""y":{"NS":["1","-2.5E3"]},"z":{"SS":["b","a\""]}}"#,
    );
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn r48_the_key_is_the_text_of_keys_and_equal_for_all_changes_of_an_item() {
    let keys = || item([("sort", Plain::N("7".into())), ("id", text("a"))]);
    let image = item([("id", text("a")), ("sort", Plain::N("7".into())), ("n", text("x"))]);
    let (first_keys, second_keys) = (keys(), keys());
    let first = record(&fields(&first_keys));
    let second = record(&DynamoDbFields { new_image: Some(&image), ..fields(&second_keys) });
    assert_eq!(first.order_key(), Some(&br#"{"id":{"S":"a"},"sort":{"N":"7"}}"#[..]));
    assert_eq!(first.order_key(), second.order_key());
}

/// A map in a list in a map …, so many levels below its attribute.
fn nested(levels: usize) -> HashMap<String, Plain> {
    let value = (0..levels).fold(text("core"), |inner, level| match level % 2 {
        0 => Plain::L(vec![inner]),
        _ => Plain::M(item([("k", inner)])),
    });
    item([("a", value)])
}

#[test]
fn what_dynamodb_nests_arrives_and_what_nobody_can_read_is_refused_without_deep_calls() {
    let keys = item([("id", text("1"))]);
    let deepest = nested(DEEPEST - 1);
    let read: Value =
        serde_json::from_str(&event(&DynamoDbFields { new_image: Some(&deepest), ..fields(&keys) })).unwrap();
    assert_eq!(read["Records"][0]["dynamodb"]["NewImage"], item_json(&deepest));
    const { assert!(DEEPEST > 32) };
    let refused = DynamoDbEncoder::default()
        .encode(&DynamoDbFields { old_image: Some(&nested(5_000)), ..fields(&keys) })
        .unwrap_err();
    assert_eq!(refused, InvalidItem::TooDeep);
}

#[test]
fn an_unknown_type_is_an_error_and_never_a_hole_in_the_image() {
    let keys = item([("id", text("1"))]);
    let image = item([("a", Plain::L(vec![Plain::Unknown]))]);
    let mut encoder = DynamoDbEncoder::default();
    let refused = encoder.encode(&DynamoDbFields { new_image: Some(&image), ..fields(&keys) }).unwrap_err();
    assert_eq!(refused, InvalidItem::UnknownType);
    let next = encoder.encode(&fields(&keys)).unwrap();
    assert!(next.json.starts_with(br#"{"eventID":"#), "the encoder starts afresh");
}

fn any_value() -> impl Strategy<Value = Plain> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let leaf = prop_oneof![
        any::<String>().prop_map(Plain::S),
        "-?[0-9]{1,38}".prop_map(Plain::N),
        bytes().prop_map(Plain::B),
        any::<bool>().prop_map(Plain::Bool),
        Just(Plain::Null),
        proptest::collection::vec(any::<String>(), 1..4).prop_map(Plain::Ss),
        proptest::collection::vec("[0-9]{1,5}", 1..4).prop_map(Plain::Ns),
        proptest::collection::vec(bytes(), 1..4).prop_map(Plain::Bs),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Plain::L),
            proptest::collection::hash_map(any::<String>(), inner, 0..5).prop_map(Plain::M),
        ]
    })
}

fn any_item() -> impl Strategy<Value = HashMap<String, Plain>> {
    proptest::collection::hash_map(any::<String>(), any_value(), 0..5)
}

type AnyChange = (HashMap<String, Plain>, Option<HashMap<String, Plain>>, String, Option<i64>);

fn any_change() -> impl Strategy<Value = AnyChange> {
    let seconds = proptest::option::of(-4_000_000_000..4_000_000_000_i64);
    (any_item(), proptest::option::of(any_item()), "[0-9]{1,40}", seconds)
}

proptest! {
    #[test]
    fn r5_the_size_is_exact_and_serde_json_reads_back_what_changed(
        changes in proptest::collection::vec(any_change(), 1..5),
        arn in any::<String>(),
    ) {
        let records: Vec<Record> = changes
            .iter()
            .map(|(keys, image, number, seconds)| record(&DynamoDbFields {
                new_image: image.as_ref(),
                sequence_number: number,
                approximate_creation: seconds.map(|s| Wall::from_millis(s * 1000)),
                ..fields(keys)
            }))
            .collect();
        let cx = EventContext { event_source_arn: arn.as_str().into(), ..context() };
        let batch = Batch::new(records).unwrap();
        let event = encode(&batch, &cx, None);
        prop_assert_eq!(event.len(), encoded_len(&batch, &cx, None));
        let value: Value = serde_json::from_slice(&event).unwrap();
        let read = value["Records"].as_array().unwrap();
        prop_assert_eq!(read.len(), changes.len());
        for ((read, record), (keys, image, number, seconds)) in read.iter().zip(batch.records()).zip(&changes) {
            let change = &read["dynamodb"];
            prop_assert_eq!(&read["eventSourceARN"], &arn);
            prop_assert_eq!(&change["Keys"], &item_json(keys));
            prop_assert_eq!(change.get("NewImage").cloned(), image.as_ref().map(item_json));
            prop_assert_eq!(&change["SequenceNumber"], number);
            let at = change.get("ApproximateCreationDateTime").map(|at| at.as_f64().unwrap());
            prop_assert_eq!(at, seconds.map(|s| s as f64));
            let key: Value = serde_json::from_slice(record.order_key().unwrap()).unwrap();
            prop_assert_eq!(key, item_json(keys));
        }
    }
}
