//! What a filter costs per record: 1 KB of JSON, patterns of two keys.

use std::hint::black_box;

use serde_json::Value;
use shardmill::engine::{Filter, FilterSource};
use shardmill::{Data, Record, Seq, ShardId};

use crate::measure::{Bound, Fallible, Figure, Stopwatch, ns_per};

/// More than a processor's nearest caches hold.
const RECORDS: u32 = 2_000;
const BYTES: usize = 1_024;
const ROUNDS: u64 = 20;

/// Each run judges every record [`ROUNDS`] times.
pub(crate) fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let asked = Bound::AtMost { goal: 300.0, floor: 1_000.0 };
    let texts: Vec<String> = (0..RECORDS).map(order).collect();
    let raw: Vec<Record> = texts.iter().map(|text| record(Data::Raw(text.clone().into()))).collect();
    let base64: Vec<Record> = texts.iter().map(|text| record(Data::Base64(encoded(text)))).collect();
    let nowhere = r#"{"data": {"type": ["refund"], "region": ["eu-west-1"]}}"#;
    let elsewhere = r#"{"data": {"status": ["active"], "type": ["order"]}}"#;
    let number = r#"{"data": {"amount": [{"numeric": [">", 5000]}], "type": ["order"]}}"#;
    let absent = r#"{"data": {"status": [{"exists": false}], "region": [{"exists": false}]}}"#;
    let matching = r#"{"data": {"type": ["order"], "status": ["idle"]}}"#;
    let mut figures = Vec::new();
    for (name, pattern, records, bound, passing) in [
        ("filter: rejected: the value stands nowhere", nowhere, &raw, asked, false),
        ("filter: rejected: the value stands elsewhere", elsewhere, &raw, asked, false),
        ("filter: rejected: a number out of range", number, &raw, asked, false),
        ("filter: rejected: present, not absent", absent, &raw, Bound::None, false),
        ("filter: rejected: the value stands nowhere, base64", nowhere, &base64, Bound::None, false),
        ("filter: passed", matching, &raw, Bound::None, true),
    ] {
        let samples = (0..runs).map(|_| judged(pattern, records, passing)).collect::<Fallible<_>>()?;
        figures.push(Figure { name, unit: "ns/record", samples, bound });
    }
    let samples = (0..runs).map(|_| trees(&texts)).collect::<Fallible<_>>()?;
    figures.push(Figure {
        name: "filter: a tree by serde_json",
        unit: "ns/record",
        samples,
        bound: Bound::None,
    });
    Ok(figures)
}

fn judged(pattern: &str, records: &[Record], passing: bool) -> Fallible<f64> {
    let source = FilterSource::Kinesis {
        event_source_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/orders".into(),
        region: "us-east-1".into(),
        invoke_identity_arn: "arn:aws:iam::000000000000:role/shardmill".into(),
    };
    let filter = Filter::parse(&source, &[pattern])?.ok_or("no pattern")?;
    let shard = ShardId::from("shardId-000000000000");
    let mut passes = filter.of_shard(&shard);
    let (mut count, mut passed) = (0, 0);
    let watch = Stopwatch::of_this_thread();
    for _ in 0..ROUNDS {
        for record in records {
            count += 1;
            passed += u64::from(passes(black_box(record)));
        }
    }
    let lap = watch.lap();
    if passed != if passing { count } else { 0 } {
        return Err(format!("{passed} of {count} records passed {pattern}").into());
    }
    Ok(ns_per(lap.cpu, count))
}

fn trees(texts: &[String]) -> Fallible<f64> {
    let mut count = 0;
    let watch = Stopwatch::of_this_thread();
    for text in texts {
        count += 1;
        black_box(serde_json::from_str::<Value>(black_box(text))?);
    }
    Ok(ns_per(watch.lap().cpu, count))
}

fn record(data: Data) -> Record {
    Record::new(Seq::plain("49590338271490256608559692538361571095921575989136588898"), None, None, data)
}

fn encoded(text: &str) -> bytes::Bytes {
    base64_simd::STANDARD.encode_to_string(text).into()
}

/// An order of about 1 KB; no two are equal.
fn order(n: u32) -> String {
    let mut text = format!(
        "{{\"id\":\"order-{n:08}\",\"type\":\"order\",\"region\":\"us-east-1\",\"amount\":{}.5,\"currency\":\"EUR\",\
         \"customer\":{{\"id\":\"c-{n:05}\",\"name\":\"Anna \\\"{n}\\\" Smith\",\"tier\":\"active\"}},\"items\":[",
        n % 900
    );
    let mut item = 0;
    while text.len() < BYTES - 100 {
        let comma = if item > 0 { "," } else { "" };
        text.push_str(&format!(
            "{comma}{{\"sku\":\"AB-{:04}\",\"quantity\":{},\"price\":{}.25,\"tags\":[\"a\",\"b\"]}}",
            (n + item) % 10_000,
            item + 1,
            n % 50 + item
        ));
        item += 1;
    }
    text.push_str(
        "],\"status\":\"idle\",\"created\":\"2026-11-20T10:11:12.123Z\",\"note\":\"a plain text\"}",
    );
    text
}
