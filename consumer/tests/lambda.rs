//! A function written for `lambda_runtime` behind a consumer.
#![cfg(all(feature = "lambda", feature = "kinesis"))]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lambda_runtime::{LambdaEvent, service_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use shardmill::checkpoint::MemoryStore;
use shardmill::{
    CancellationToken, Consumer, EventSourceMapping, KinesisSource, LambdaHandler, Worker, WorkerOptions,
};
use shardmill_testkit::FakeKinesis;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// What a user's function reads of the event.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    records: Vec<Value>,
}

/// The sequence numbers and the request id of each call.
type Calls = Arc<Mutex<Vec<(Vec<String>, String)>>>;

#[tokio::test(start_paused = true)]
async fn a_lambda_runtime_function_gets_lambdas_event_and_its_partial_answer_errors_and_context_count() {
    let fake = FakeKinesis::new();
    fake.create_stream("orders", 1).unwrap();
    let put: Vec<_> =
        (0..3).map(|i| fake.put("orders", Some("k"), format!("{i}")).unwrap().sequence_number).collect();
    let calls: Calls = Arc::default();
    let noted = Arc::clone(&calls);
    let function = service_fn(move |event: LambdaEvent<Event>| {
        let noted = Arc::clone(&noted);
        async move {
            let (event, context) = event.into_parts();
            assert_eq!(context.invoked_function_arn, "arn:aws:lambda:us-east-1:000000000000:function:ship");
            assert!(context.deadline() > SystemTime::now() + Duration::from_secs(30));
            let first = &event.records[0];
            assert_eq!(
                (&first["eventSource"], &first["eventSourceARN"]),
                (&json!("aws:kinesis"), &json!(ARN))
            );
            let numbers: Vec<_> = event
                .records
                .iter()
                .map(|r| r["kinesis"]["sequenceNumber"].as_str().unwrap().to_owned())
                .collect();
            let mut calls = noted.lock().unwrap();
            calls.push((numbers.clone(), context.request_id));
            match calls.len() {
                1 => Err(lambda_runtime::Error::from("not today")),
                2 => Ok(json!({"batchItemFailures": [{"itemIdentifier": numbers[1]}]})),
                _ => Ok(Value::Null),
            }
        }
    });
    let options = WorkerOptions::default().lease(Duration::from_secs(2)).keeper_in_current_runtime();
    let worker = Worker::start(options).unwrap();
    let mapping = EventSourceMapping::builder(ARN, "ship")
        .timeout(Duration::from_secs(60))
        .report_batch_item_failures(true)
        .build()
        .unwrap();
    let source = KinesisSource::new(&fake.sdk_config(), ARN).unwrap();
    let consumer = Consumer::builder(mapping, source, LambdaHandler::new(function))
        .lease_store(MemoryStore::new())
        .worker(worker)
        .build()
        .unwrap();
    let (status, stop) = (consumer.status(), CancellationToken::new());
    let run = tokio::spawn(consumer.run(stop.clone()));
    while calls.lock().unwrap().len() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let error = status.report().shards[0].last_error.clone().unwrap();
    assert!(error.message.starts_with("the function failed: it returned an error ("), "{}", error.message);
    assert!(!error.message.contains("not today"), "the function's own words may quote a record");
    stop.cancel();
    run.await.unwrap().unwrap();
    let calls = calls.lock().unwrap();
    assert_eq!(calls.iter().map(|call| call.0.clone()).collect::<Vec<_>>(), [&put[..], &put[..], &put[1..]]);
    assert_eq!(calls[0].1, calls[1].1, "R21: an unchanged batch keeps its request id");
    assert_ne!(calls[1].1, calls[2].1);
}
