//! Filters on the whole way: what is filtered out never reaches a handler and never holds a checkpoint.

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn r56_only_records_that_match_are_invoked_and_the_checkpoint_passes_the_others() {
    let (fake, store, seen) = (stream(1), store(), Seen::default());
    for data in [
        r#"{"kind": "order", "n": 1}"#,
        r#"{"kind": "note", "n": 2}"#,
        "no JSON",
        r#"{"n": 3, "kind": "order"}"#,
        r#"{"kind": "order", "n": 4}"#,
        r#"{"kind": "note", "n": 5}"#,
    ] {
        fake.put("orders", Some("key"), data).unwrap();
    }
    let a = worker("a");
    let mapping = mapping()
        .batch_size(2)
        .filter_patterns([r#"{"data": {"kind": ["order"], "n": [{"numeric": ["<", 4]}]}}"#]);
    let run = launch(consumer(&fake, &a, mapping, seen.handler("a"), &store));
    until("the two that match", || seen.len() == 2).await;
    until("all are counted", || {
        run.report()
            .shards
            .iter()
            .filter_map(|shard| shard.snapshot.as_ref())
            .any(|s| s.counters.filtered == 4)
    })
    .await;
    run.stop().await;
    let all = accepted(&fake);
    assert_eq!(seen.by_shard(), [all[0].clone(), all[3].clone()], "R57: in order, and only those");
    let stored = sequence(&leases(&store).await[0].checkpoint);
    assert_eq!(stored.as_ref(), Some(&all[5].1), "R15: what is filtered out counts as processed");
}

#[tokio::test(start_paused = true)]
async fn r57_the_function_gets_the_record_as_it_was_put() {
    let (fake, store) = (stream(1), store());
    let put = r#"{ "kind" : "\u006frder" }"#;
    fake.put("orders", Some("key"), put).unwrap();
    let got = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&got);
    let handler = move |batch: shardmill::Batch, _: shardmill::InvokeContext| {
        sink.lock().unwrap().extend(batch.records().iter().map(|record| record.bytes().unwrap()));
        std::future::ready(shardmill::BatchResponse::success())
    };
    let a = worker("a");
    let mapping = mapping().filter_patterns([r#"{"data": {"kind": ["order"]}}"#]);
    let run = launch(consumer(&fake, &a, mapping, handler, &store));
    until("the record", || !got.lock().unwrap().is_empty()).await;
    run.stop().await;
    assert_eq!(*got.lock().unwrap(), [put.as_bytes()]);
}
