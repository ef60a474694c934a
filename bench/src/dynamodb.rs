//! A DynamoDB stream's records as events, compared with the SDK's own decoding of the same `GetRecords` answer.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodbstreams::Client;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde_json::{Value, json};
use shardmill::engine::{EventContext, encode};
use shardmill::{
    Batch, DynamoDbSource, EventSourceMapping, Position, ReadLimiter, ServiceClock, SourceContext,
    StreamSource as _,
};

use crate::measure::{Bound, Fallible, Figure, Stopwatch, ns_per};
use crate::throughput::sdk_config;

const STREAM_ARN: &str =
    "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-11-21T00:00:00.000";
const SHARD: &str = "shardId-00000001695000000000-00000001";
/// Records of an answer: with both images about 1 MB, the most that the service gives.
const RECORDS: u64 = 400;
const BATCH: usize = 100;
const WARM_UP: u64 = 5;
const ROUNDS: u64 = 40;

/// What one side took.
struct Sides {
    /// The SDK alone: a call, its answer decoded and freed.
    bare: f64,
    /// The source: the same call, records in the event's form; batches of 100 of them as events.
    event: f64,
}

/// Both sides of a run follow each other on one thread, in alternating order.
pub(crate) fn figures(runs: usize) -> Fallible<Vec<Figure>> {
    let (mut bare, mut ratio) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let sides = std::thread::spawn(move || measure(run % 2 == 0))
            .join()
            .map_err(|_| "the benchmark panicked")??;
        bare.push(sides.bare / 1e3);
        ratio.push(sides.event / sides.bare);
    }
    let bound = Bound::AtMost { goal: 0.15, floor: 0.3 };
    Ok(vec![
        Figure {
            name: "DynamoDB: answer to event ÷ the SDK's decoding",
            unit: "ratio",
            samples: ratio,
            bound,
        },
        Figure {
            name: "DynamoDB: the SDK's decoding", unit: "µs/record", samples: bare, bound: Bound::None
        },
    ])
}

fn measure(bare_first: bool) -> Fallible<Sides> {
    // Everything on this thread, so that its CPU time is all there is.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = sdk_config("http://127.0.0.1:1").into_builder().http_client(canned()?).build();
        let (bare, event);
        if bare_first {
            bare = self::bare(&config).await?;
            event = self::event(&config).await?;
        } else {
            event = self::event(&config).await?;
            bare = self::bare(&config).await?;
        }
        Ok(Sides { bare, event })
    })
}

async fn bare(config: &SdkConfig) -> Fallible<f64> {
    let client = Client::new(config);
    let mut spent = Duration::ZERO;
    for round in 0..WARM_UP + ROUNDS {
        let watch = Stopwatch::of_this_thread();
        let answer = client.get_records().shard_iterator("next").limit(1_000).send().await?;
        if answer.records().len() as u64 != RECORDS {
            return Err("the answer was not understood".into());
        }
        drop(answer);
        if round >= WARM_UP {
            spent += watch.lap().cpu;
        }
    }
    Ok(ns_per(spent, ROUNDS * RECORDS))
}

async fn event(config: &SdkConfig) -> Fallible<f64> {
    let source = DynamoDbSource::new(config, STREAM_ARN)?;
    source.attach(&SourceContext::new(ServiceClock::new(), ReadLimiter::without_pacing()))?;
    let mapping = EventSourceMapping::builder(STREAM_ARN, "bench").build()?;
    let context = EventContext::new(&mapping, SHARD.into());
    let mut reader = source.open(&SHARD.into(), &Position::TrimHorizon).await?;
    let mut spent = Duration::ZERO;
    for round in 0..WARM_UP + ROUNDS {
        let watch = Stopwatch::of_this_thread();
        let page = reader.next_page(1_000).await?;
        if page.records.len() as u64 != RECORDS {
            return Err("the page lacks records".into());
        }
        let mut records = page.records.into_iter();
        while let Some(batch) = Batch::new(records.by_ref().take(BATCH).collect::<Vec<_>>()) {
            std::hint::black_box(encode(&batch, &context, None));
        }
        if round >= WARM_UP {
            spent += watch.lap().cpu;
        }
    }
    Ok(ns_per(spent, ROUNDS * RECORDS))
}

/// A client that answers each call at once, with the same page of records.
fn canned() -> Fallible<SharedHttpClient> {
    let records: Vec<Value> = (0..RECORDS).map(record).collect();
    let page = json!({"Records": records, "NextShardIterator": "next"});
    Ok(SharedHttpClient::new(Canned {
        page: serde_json::to_vec(&page)?.into(),
        iterator: serde_json::to_vec(&json!({"ShardIterator": "next"}))?.into(),
    }))
}

#[derive(Clone, Debug)]
struct Canned {
    page: Bytes,
    iterator: Bytes,
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = if target.ends_with("GetRecords") { &self.page } else { &self.iterator };
        let body = SdkBody::from(body.clone());
        let answer = StatusCode::try_from(200_u16).map(|status| HttpResponse::new(status, body));
        HttpConnectorFuture::ready(answer.map_err(|error| ConnectorError::other(error.into(), None)))
    }
}

/// An order that was changed: all of DynamoDB's types, both images.
fn record(n: u64) -> Value {
    let (old, new) = (order(n, "open"), order(n, "paid"));
    json!({
        "awsRegion": "us-east-1",
        "eventID": format!("{n:032x}"),
        "eventName": "MODIFY",
        "eventSource": "aws:dynamodb",
        "eventVersion": "1.1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_790_000_000,
            "Keys": {"id": {"S": format!("order-{n:08}")}},
            "NewImage": new,
            "OldImage": old,
            "SequenceNumber": format!("{:024}", 100_000_000_000_000_000_000_000_u128 + u128::from(n)),
            "SizeBytes": 1_200,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    })
}

fn order(n: u64, status: &str) -> Value {
    let item = |i: u64| json!({"M": {"sku": {"S": format!("AB-{:04}", n + i)}, "quantity": {"N": i.to_string()}, "price": {"N": "12.25"}}});
    json!({
        "id": {"S": format!("order-{n:08}")},
        "status": {"S": status},
        "customer": {"S": format!("customer-{:05}", n % 1_000)},
        "total": {"N": format!("{}.50", n % 900)},
        "created": {"S": "2026-11-20T10:11:12.123Z"},
        "paid": {"BOOL": status == "paid"},
        "coupon": {"NULL": true},
        "tags": {"SS": ["fragile", "gift"]},
        "address": {"M": {"street": {"S": "1 Long \"Street\""}, "city": {"S": "Springfield"}, "zip": {"S": "12345"}}},
        "items": {"L": [item(1), item(2), item(3)]},
        "note": {"S": "Please leave the parcel with the neighbours; ring twice, the first bell is broken. Thank you!"},
        "token": {"B": base64_simd::STANDARD.encode_to_string([n.to_le_bytes()[0]; 64])},
    })
}
