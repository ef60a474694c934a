//! The acceptance tests of AWS's DynamoDB event source mapping (docs/semantics.md, section 5.2) under their own names,
//! and what changes of a table arrive.

pub(crate) mod dynamodb_local {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use shardmill_tests::{Change, Config, Function, Item, Plan, Sidecar, Table, endpoint, until};

    use crate::case::discarded;

    /// A table to which the first item has been written: before that, DynamoDB Local calls the start of a shard trimmed
    /// as soon as another table has been written to.
    pub(crate) async fn table() -> Table {
        let mut table = Table::create(&endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL"), "orders").await;
        table.put(json!({"id": {"S": "first"}})).await;
        table
    }

    pub(crate) fn config(table: &Table) -> Config {
        Config::at(table.endpoint(), table.arn())
    }

    /// Waits until every change has been handled or discarded.
    pub(crate) async fn resolved(sidecar: &Sidecar, table: &Table) {
        until("every change is resolved", async || {
            let polled = sidecar.metric("shardmill_polled_events_total").await?;
            let shards = sidecar.shards().await;
            let done =
                !shards.is_empty() && shards.values().all(|shard| shard["read"] == shard["checkpoint"]);
            #[expect(clippy::cast_precision_loss, reason = "a test has few records")]
            (done && polled >= table.count() as f64).then_some(())
        })
        .await;
    }

    /// A function that keeps the records it gets.
    pub(crate) async fn keeping() -> (Function, Arc<Mutex<Vec<Value>>>) {
        let kept = Arc::<Mutex<Vec<Value>>>::default();
        let records = Arc::clone(&kept);
        let function = Function::behaving(move |call| {
            let parsed = call.records.iter().map(|record| serde_json::from_slice(&record.data).unwrap());
            records.lock().unwrap().extend(parsed);
            Plan::success()
        })
        .await;
        (function, kept)
    }

    /// What the function saw, by item and in order.
    pub(crate) fn by_item(records: &[Value]) -> BTreeMap<String, Vec<Change>> {
        let mut items: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for record in records {
            let change = &record["dynamodb"];
            let event_name = match record["eventName"].as_str().unwrap() {
                "INSERT" => "INSERT",
                "MODIFY" => "MODIFY",
                "REMOVE" => "REMOVE",
                other => panic!("{other}"),
            };
            let image = |name: &str| change.get(name).cloned();
            let id = change["Keys"]["id"]["S"].as_str().unwrap().to_owned();
            let change = Change { event_name, old: image("OldImage"), new: image("NewImage") };
            items.entry(id).or_default().push(change);
        }
        items
    }

    pub(crate) fn attributes(value: Value) -> Item {
        let Value::Object(item) = value else { panic!("an item is an object") };
        item
    }

    async fn every_change_arrives(parallelization_factor: i32) {
        let mut table = table().await;
        let (function, kept) = keeping().await;
        let config = config(&table)
            .url(function.url(""))
            .set("BatchSize", 50)
            .set("ParallelizationFactor", parallelization_factor);
        let sidecar = Sidecar::start(&config).await;
        for n in 0..400_u32 {
            let id = format!("item-{}", n % 37);
            match n % 5 {
                0 | 1 => {
                    table
                        .put(json!({
                            "id": {"S": id}, "n": {"N": n.to_string()}, "b": {"B": "Zm9vYmFy"}, "bs": {"BS": ["Zm9v"]},
                            "m": {"M": {"l": {"L": [{"NULL": true}, {"BOOL": n % 2 == 0}]}, "é\n\"": {"S": "ü\u{1}"}}},
                            "ns": {"NS": ["7"]}, "ss": {"SS": ["x"]},
                        }))
                        .await;
                }
                2 => table.update(&id, attributes(json!({"n": {"N": n.to_string()}, "l": {"L": []}}))).await,
                3 => table.delete(&id).await,
                _ => {
                    let put =
                        |other: u32| json!({"id": {"S": format!("item-{other}")}, "t": {"N": n.to_string()}});
                    let gone = format!("item-{}", 40 + n % 7);
                    table.transact(vec![put(n % 37), put(50 + n % 3)], &[&gone]).await;
                }
            }
        }
        until("all changes", async || (kept.lock().unwrap().len() >= table.count()).then_some(())).await;
        resolved(&sidecar, &table).await;
        assert_eq!(
            by_item(&kept.lock().unwrap()),
            *table.changes(),
            "once, in order per item, with its images"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn every_change_arrives_once_in_order_per_item_with_the_images_that_were_written() {
        every_change_arrives(1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn r48_lanes_keep_the_order_of_every_item() {
        every_change_arrives(10).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_esm_with_not_existing_dynamodb_stream() {
        let table = table().await;
        let arn = table.arn().replace("orders-", "missing-");
        let config = Config::at(table.endpoint(), &arn).set("Function", json!({"Stdout": true}));
        let mut sidecar = Sidecar::start(&config).await;
        until("the missing stream is reported", async || {
            sidecar.log().iter().any(|line| line.contains("ResourceNotFoundException")).then_some(())
        })
        .await;
        assert!(!sidecar.ready().await);
        assert_eq!(sidecar.try_ended(), None, "it may be enabled yet");
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_event_source_mapping() {
        let mut table = table().await;
        table.put(json!({"id": {"S": "hello world"}, "binary_key": {"B": "Zm9vYmFy"}})).await;
        let (function, kept) = keeping().await;
        let sidecar = Sidecar::start(&config(&table).url(function.url("")).set("BatchSize", 1)).await;
        resolved(&sidecar, &table).await;
        let record = kept.lock().unwrap()[1].clone();
        let change = &record["dynamodb"];
        let time = &change["ApproximateCreationDateTime"];
        assert!(time.is_f64() && time.to_string().ends_with(".0"), "{time}");
        assert_eq!(time.to_string().split('.').next().unwrap().len(), 10, "10 integer digits: {time}");
        assert!(change["SizeBytes"].is_u64() && change["SequenceNumber"].is_string(), "{record}");
        let expected = json!({
            "eventID": record["eventID"],
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "ddblocal",
            "dynamodb": {
                "ApproximateCreationDateTime": time,
                "Keys": {"id": {"S": "hello world"}},
                "NewImage": {"binary_key": {"B": "Zm9vYmFy"}, "id": {"S": "hello world"}},
                "SequenceNumber": change["SequenceNumber"],
                "SizeBytes": change["SizeBytes"],
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
            "eventSourceARN": table.arn(),
        });
        assert_eq!(record, expected);
    }

    /// Two mappings of one stream for one function are refused before anything starts; one for another function is fine.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_duplicate_event_source_mappings() {
        let table = table().await;
        let (a, b) = (Function::start().await, Function::start().await);
        let mapping = |name: &str, function: &Function| json!({"FunctionName": name, "Function": {"Url": function.url("")}});
        let twice = config(&table).mappings([mapping("a", &a), mapping("a", &b)]);
        let mut sidecar = Sidecar::spawn(&twice);
        assert_eq!(sidecar.ended().await.code(), Some(2), "{:#?}", sidecar.log());
        assert_eq!((a.count(), b.count()), (0, 0));

        let other = config(&table).mappings([mapping("a", &a), mapping("b", &b)]);
        let _sidecar = Sidecar::start(&other).await;
        until("both functions have the change", async || {
            (a.stored_count() + b.stored_count() == 2).then_some(())
        })
        .await;
        assert_eq!((a.count(), b.count()), (1, 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_disabled_dynamodb_event_source_mapping() {
        let mut table = table().await;
        let function = Function::start().await;
        let config = config(&table).url(function.url(""));
        let mut sidecar = Sidecar::start(&config).await;
        resolved(&sidecar, &table).await;
        sidecar.terminate();
        assert!(sidecar.ended().await.success());

        table.put(json!({"id": {"S": "second"}})).await;
        let disabled = Sidecar::start(&config.clone().set("Enabled", false)).await;
        assert!(disabled.ready().await, "loaded and idle is ready");
        assert_eq!(disabled.status().await["mappings"][0]["state"], "Disabled");
        drop(disabled);
        assert_eq!(function.stored_count(), 1);

        // R16: enabled again, it goes on at its checkpoint.
        let sidecar = Sidecar::start(&config).await;
        until("the second change", async || (function.stored_count() == 2).then_some(())).await;
        drop(sidecar);
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_deletion_event_source_mapping_with_dynamodb() {
        let table = table().await;
        let function = Function::start().await;
        let mut sidecar = Sidecar::start(&config(&table).url(function.url(""))).await;
        until("the change", async || (function.stored_count() == 1).then_some(())).await;
        table.drop_table().await;
        assert_eq!(sidecar.status().await["mappings"][0]["state"], "Enabled");
        assert_eq!(sidecar.try_ended(), None);
        assert!(!sidecar.log().iter().any(|line| line.contains("panicked")), "{:#?}", sidecar.log());
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_event_source_mapping_with_on_failure_destination_config() {
        let table = table().await;
        let function = Function::behaving(|_| Plan::failure()).await;
        let config = config(&table)
            .url(function.url(""))
            .set("BatchSize", 1)
            .set("MaximumRetryAttempts", 1)
            .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
        let sidecar = Sidecar::start(&config).await;
        let line = until("the batch is discarded", async || discarded(&config).pop()).await;
        assert_eq!(function.count(), 2);
        assert_eq!(line["requestContext"]["condition"], "RetryAttemptsExhausted");
        assert_eq!(line["requestContext"]["approximateInvokeCount"], 2);
        assert_eq!(line["responseContext"]["functionError"], "Unhandled");
        let info = &line["DDBStreamBatchInfo"];
        let time = info["approximateArrivalOfFirstRecord"].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z') && !time.contains('.'), "whole seconds: {time}");
        assert_eq!(info["approximateArrivalOfLastRecord"], time);
        assert_eq!((&info["batchSize"], &info["streamArn"]), (&json!(1), &json!(table.arn())));
        assert_eq!(info["startSequenceNumber"], info["endSequenceNumber"]);
        assert!(sidecar.shards().await.contains_key(info["shardId"].as_str().unwrap()));
        let payload: Value = serde_json::from_str(line["payload"].as_str().unwrap()).unwrap();
        assert_eq!(payload["Records"][0]["dynamodb"]["Keys"], json!({"id": {"S": "first"}}));
    }

    /// R37: testId5 of testId0 to testId5 always fails: once in its batch, then four times alone.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_report_batch_item_failures() {
        let mut table = Table::create(&endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL"), "orders").await;
        for n in 0..6 {
            table.put(json!({"id": {"S": format!("testId{n}")}})).await;
        }
        let function = Function::behaving(|call| {
            let bad = call.records.iter().find(|record| {
                let record: Value = serde_json::from_slice(&record.data).unwrap();
                record["dynamodb"]["Keys"]["id"]["S"] == "testId5"
            });
            match bad {
                Some(bad) => Plan::partial(call, &[&bad.sequence]),
                None => Plan::success(),
            }
        })
        .await;
        let config = config(&table)
            .url(function.url(""))
            .set("BatchSize", 3)
            .set("MaximumBatchingWindowInSeconds", 1)
            .set("MaximumRetryAttempts", 3)
            .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))
            .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
        let _sidecar = Sidecar::start(&config).await;
        let line = until("the record is discarded", async || discarded(&config).pop()).await;
        let sizes: Vec<usize> = function.invocations().iter().map(|call| call.records.len()).collect();
        assert_eq!(sizes, [3, 3, 1, 1, 1, 1]);
        assert_eq!(line["requestContext"]["approximateInvokeCount"], 4);
        assert_eq!(line["DDBStreamBatchInfo"]["batchSize"], 1);
        assert_eq!(function.stored_count(), 5, "the others once");
    }

    /// R35
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_report_batch_item_failure_scenarios() {
        for items in [
            r#"[{"itemIdentifier":123}]"#,
            r#"[{"itemIdentifier":""}]"#,
            r#"[{"itemIdentifier":null}]"#,
            r#"[{"foo":123}]"#,
            r#"[{"foo":null}]"#,
        ] {
            let table = table().await;
            let body = format!(r#"{{"batchItemFailures":{items}}}"#);
            let function = Function::behaving(move |_| Plan::status(200, &body)).await;
            let config = config(&table)
                .url(function.url(""))
                .set("BatchSize", 3)
                .set("MaximumRetryAttempts", 3)
                .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))
                .set("DestinationConfig.OnFailure.Destination", "file:./discarded.jsonl");
            let _sidecar = Sidecar::start(&config).await;
            let line = until("the record is discarded", async || discarded(&config).pop()).await;
            assert_eq!(function.count(), 4, "{items}");
            assert_eq!(line["requestContext"]["approximateInvokeCount"], 4, "{items}");
        }
    }

    /// R34
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_report_batch_item_success_scenarios() {
        for body in ["[]", "null", "{}", r#"{"batchItemFailures":[]}"#, r#"{"batchItemFailures":null}"#] {
            let table = table().await;
            let function =
                Function::behaving(move |_| Plan { store: usize::MAX, ..Plan::status(200, body) }).await;
            let config = config(&table)
                .url(function.url(""))
                .set("MaximumRetryAttempts", 3)
                .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
            let sidecar = Sidecar::start(&config).await;
            resolved(&sidecar, &table).await;
            assert_eq!(function.count(), 1, "{body}");
        }
    }

    /// R55 to R63: how many of the changes that two writes make are delivered.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_event_filter() {
        let image = |attribute: Value| json!({"dynamodb": {"NewImage": attribute}});
        let item = |attributes: Value| {
            let mut item = json!({"id": {"S": "id_value"}});
            item.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
            item
        };
        let (first, second) = (json!({"key": {"S": "value"}}), json!({"other": {"S": "value"}}));
        let same = || (first.clone(), first.clone());
        let two = || (first.clone(), second.clone());
        for (name, (one, other), pattern, expected) in [
            ("insert_same_entry_twice", same(), json!({"eventName": ["INSERT"]}), 1),
            ("content_or_filter", two(), json!({"eventName": ["INSERT", "MODIFY"]}), 2),
            (
                "content_multiple_filters",
                two(),
                json!({"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}),
                1,
            ),
            ("content_filter_type", two(), image(json!({"key": {"S": ["value"]}})), 1),
            ("content_filter_without_its_type", two(), image(json!({"key": ["value"]})), 0),
            ("exists_filter_type", two(), image(json!({"key": {"S": [{"exists": true}]}})), 1),
            ("exists_false_filter", two(), image(json!({"key": [{"exists": false}]})), 2),
            (
                "numeric_filter",
                (json!({"price": {"N": "101"}}), json!({"price": {"N": "103"}})),
                image(json!({"price": {"N": [{"numeric": [">", 100]}]}})),
                0,
            ),
            ("prefix_filter", two(), image(json!({"key": {"S": [{"prefix": "val"}]}})), 1),
            (
                "date_time_conversion",
                two(),
                json!({"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 0]}]}}),
                2,
            ),
        ] {
            let mut table = Table::create(&endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL"), "orders").await;
            table.put(item(one)).await;
            table.put(item(other)).await;
            let function = Function::start().await;
            let filters = json!([{"Pattern": pattern.to_string()}]);
            let config = config(&table)
                .url(function.url(""))
                .set("BatchSize", 1)
                .set("FilterCriteria", json!({"Filters": filters}));
            let sidecar = Sidecar::start(&config).await;
            resolved(&sidecar, &table).await;
            assert_eq!(function.stored_count(), expected, "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs DynamoDB Local: cargo xtask test"]
    async fn test_dynamodb_invalid_event_filter() {
        let table = table().await;
        let function = Function::start().await;
        for pattern in ["single-string", "[{\"eventName\": [\"INSERT\"=123}]"] {
            let filters = json!({"Filters": [{"Pattern": pattern}]});
            let config = config(&table).url(function.url("")).set("FilterCriteria", filters);
            let mut sidecar = Sidecar::spawn(&config);
            assert_eq!(sidecar.ended().await.code(), Some(2), "{:#?}", sidecar.log());
            until("the reason is told", async || {
                sidecar.log().join("\n").contains("FilterCriteria").then_some(())
            })
            .await;
            assert_eq!(function.count(), 0);
        }
    }
}
