//! Events, and their size without their text.

use std::collections::HashMap;

use serde_json::Value;
use shardmill_engine::{
    AttributeModel, AttributeRef, Batch, Data, DynamoDbEncoder, DynamoDbFields, EventContext, Record, Seq,
    Wall, WindowCall, encode, encoded_len,
};

/// Takes values out of the fuzzer's bytes; zeros when there are none left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(usize::from(self.byte()).min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn time(&mut self) -> Wall {
        let digits = [self.byte(), self.byte(), self.byte(), self.byte(), self.byte()];
        Wall::from_millis(digits.iter().fold(0, |time, digit| time * 256 + i64::from(*digit)))
    }
}

/// The size that a payload limit counts is the length of the event, which is JSON with all its records (R5).
pub fn encoded_length(input: &[u8]) {
    let mut input = Input(input);
    let cx = EventContext {
        event_source_arn: input.text().into(),
        region: input.text().into(),
        invoke_identity_arn: input.text().into(),
        shard: input.text().as_str().into(),
    };
    let window = (input.byte() % 2 == 1).then(|| WindowCall {
        start: input.time(),
        end: input.time(),
        state: serde_json::json!({ "state": input.text() }).to_string().into(),
        is_final: input.byte() % 2 == 1,
        is_terminated_early: input.byte() % 2 == 1,
    });
    let mut records = Vec::new();
    while !input.0.is_empty() && records.len() < 20 {
        records.extend(record(&mut input));
    }
    let count = records.len();
    let Some(batch) = Batch::new(records) else { return };
    let event = encode(&batch, &cx, window.as_ref());
    assert_eq!(event.len(), encoded_len(&batch, &cx, window.as_ref()), "{}", String::from_utf8_lossy(&event));
    let value: Value = serde_json::from_slice(&event).expect("an event is JSON");
    assert_eq!(value["Records"].as_array().map(Vec::len), Some(count));
    assert_eq!(value.get("window").is_some(), window.is_some());
}

fn record(input: &mut Input<'_>) -> Option<Record> {
    let kind = input.byte();
    let seq = Seq { number: input.text().as_str().into(), sub: u64::from(kind >> 4) };
    let arrival = (kind & 1 == 1).then(|| input.time());
    if kind & 2 == 2 {
        return Some(Record::dynamodb(seq.clone(), arrival, change(input, seq.number.as_str(), arrival)?));
    }
    let partition_key = (kind & 4 == 4).then(|| input.text());
    let data = match kind & 8 {
        0 => Data::Raw(input.bytes().to_vec().into()),
        _ => Data::Base64(base64_simd::STANDARD.encode_to_string(input.bytes()).into()),
    };
    Some(Record::new(seq, partition_key, arrival, data))
}

/// Attribute values without a model of their own.
enum Model {}

enum Attribute {
    Text(String),
    Bytes(Vec<u8>),
    Null,
    List(Vec<Attribute>),
}

impl AttributeModel for Model {
    type Value = Attribute;
    type Binary = Vec<u8>;

    fn read(value: &Attribute) -> Option<AttributeRef<'_, Self>> {
        Some(match value {
            Attribute::Text(text) => AttributeRef::S(text),
            Attribute::Bytes(bytes) => AttributeRef::B(bytes),
            Attribute::Null => AttributeRef::Null(true),
            Attribute::List(values) => AttributeRef::L(values),
        })
    }
}

fn attribute(input: &mut Input<'_>) -> Attribute {
    match input.byte() % 4 {
        0 => Attribute::Text(input.text()),
        1 => Attribute::Bytes(input.bytes().to_vec()),
        2 => Attribute::Null,
        // Nests as deep as there is input; what is too deep is refused.
        _ => Attribute::List(if input.0.is_empty() { Vec::new() } else { vec![attribute(input)] }),
    }
}

fn change(
    input: &mut Input<'_>,
    sequence_number: &str,
    approximate_creation: Option<Wall>,
) -> Option<shardmill_engine::DynamoDbRecord> {
    let mut item = || HashMap::from([(input.text(), attribute(input)), (input.text(), attribute(input))]);
    let (keys, image) = (item(), item());
    let name = input.text();
    let fields = DynamoDbFields::<Model> {
        event_id: Some(&name),
        event_name: None,
        event_version: Some("1.1"),
        event_source: Some("aws:dynamodb"),
        aws_region: Some(&name),
        approximate_creation,
        keys: Some(&keys),
        new_image: Some(&image),
        old_image: None,
        sequence_number,
        size_bytes: Some(i64::from(input.byte())),
        stream_view_type: None,
        user_identity: None,
    };
    DynamoDbEncoder::default().encode(&fields).ok()
}
