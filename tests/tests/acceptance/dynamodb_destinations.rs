//! Discarded records of a DynamoDB stream, fetched back from a topic and a bucket (docs/semantics.md, section 5.2).

mod dynamodb_local {
    /// The stream is DynamoDB Local's, topic and bucket are LocalStack's.
    mod localstack {
        use std::sync::{Arc, Mutex};

        use serde_json::{Value, json};
        use shardmill_tests::{Config, Function, Plan, Sidecar, Table, endpoint, until};

        use crate::dynamodb_mapping::dynamodb_local::table;
        use crate::queue::{Bucket, Topic, masked};

        const UUID: &str = "6f2c3b1e-8a4d-4a57-9d0b-3f1c2e5d7a90";

        /// What was discarded, and after what.
        struct Failed {
            table: Table,
            function: Function,
            /// The last event.
            event: String,
            sidecar: Sidecar,
        }

        /// BatchSize 1, one retry, a function that raises on the table's only item; waits until nothing is left to do.
        async fn given_up_to(destination: &str) -> Failed {
            let table = table().await;
            let last = Arc::<Mutex<Vec<u8>>>::default();
            let kept = Arc::clone(&last);
            let function = Function::behaving(move |call| {
                *kept.lock().unwrap() = call.event.to_vec();
                Plan::failure()
            })
            .await;
            let localstack = endpoint("SHARDMILL_TEST_LOCALSTACK");
            let config = Config::at(table.endpoint(), table.arn())
                .url(function.url(""))
                .set("Aws", json!({}))
                .set("UUID", UUID)
                .set("BatchSize", 1)
                .set("MaximumRetryAttempts", 1)
                .set("DestinationConfig.OnFailure.Destination", destination)
                .environment("AWS_REGION", "us-east-1")
                .environment("AWS_ENDPOINT_URL_DYNAMODB_STREAMS", table.endpoint())
                .environment("AWS_ENDPOINT_URL_SNS", &localstack)
                .environment("AWS_ENDPOINT_URL_S3", &localstack);
            let sidecar = Sidecar::start(&config).await;
            until("the record is discarded", async || {
                let shards = sidecar.shards().await;
                let delivered = |shard: &Value| shard["counts"]["deliveredToDestination"] == 1;
                shards.values().any(delivered).then_some(())
            })
            .await;
            let event = String::from_utf8(last.lock().unwrap().clone()).unwrap();
            Failed { table, function, event, sidecar }
        }

        impl Failed {
            /// docs/semantics.md, section 3.6, of the only record, with its times as they are; `payload` precedes the
            /// time.
            async fn message(&self, payload: &str) -> String {
                let calls = self.function.invocations();
                assert_eq!(calls.len(), 2, "one retry");
                assert_eq!(calls[0].request_id, calls[1].request_id, "R21");
                let record = &serde_json::from_str::<Value>(&self.event).unwrap()["Records"][0];
                let number = record["dynamodb"]["SequenceNumber"].as_str().unwrap();
                let shards = self.sidecar.shards().await;
                format!(
                    r#"{{"requestContext":{{"requestId":"{request_id}","functionArn":"arn:aws:lambda:ddblocal:000000000000:function:orders-worker","condition":"RetryAttemptsExhausted","approximateInvokeCount":2}},"responseContext":{{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"}},"version":"1.0",{payload}"timestamp":"<time>","DDBStreamBatchInfo":{{"shardId":"{shard}","startSequenceNumber":"{number}","endSequenceNumber":"{number}","approximateArrivalOfFirstRecord":"<second>","approximateArrivalOfLastRecord":"<second>","batchSize":1,"streamArn":"{stream}"}}}}"#,
                    request_id = calls[0].request_id,
                    shard = shards.keys().next().unwrap(),
                    stream = self.table.arn(),
                )
            }
        }

        /// The same with times of whole seconds masked as well, where the batch has them.
        fn both_masked(message: &str) -> String {
            let parsed: Value = serde_json::from_str(message).unwrap();
            let info = &parsed["DDBStreamBatchInfo"];
            let first = info["approximateArrivalOfFirstRecord"].as_str().unwrap();
            assert!(first.len() == 20 && first.ends_with('Z'), "second precision: {first}");
            assert_eq!(info["approximateArrivalOfLastRecord"], first);
            masked(message).replace(&format!("Record\":\"{first}\""), "Record\":\"<second>\"")
        }

        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs DynamoDB Local and LocalStack: cargo xtask test"]
        async fn test_dynamodb_event_source_mapping_with_sns_on_failure_destination_config() {
            let topic = Topic::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
            let failed = given_up_to(&topic.arn).await;
            let messages = topic.subscriber.take(1).await;
            let envelope: Value = serde_json::from_str(&messages[0]).unwrap();
            assert_eq!(envelope["TopicArn"], topic.arn, "{envelope:#}");
            let message = envelope["Message"].as_str().unwrap();
            assert_eq!(both_masked(message), failed.message("").await);
        }

        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs DynamoDB Local and LocalStack: cargo xtask test"]
        async fn test_dynamodb_event_source_mapping_with_s3_on_failure_destination() {
            let bucket = Bucket::create(&endpoint("SHARDMILL_TEST_LOCALSTACK")).await;
            let failed = given_up_to(&bucket.arn).await;
            let objects = bucket.objects().await;
            let [object] = &objects[..] else { panic!("{} objects", objects.len()) };
            assert_eq!(object.content_type, "application/octet-stream");
            let payload = serde_json::to_string(&failed.event).unwrap();
            assert_eq!(
                both_masked(&object.body),
                failed.message(&format!("\"payload\":{payload},")).await,
                "the whole event, as text"
            );
            let body: Value = serde_json::from_str(&object.body).unwrap();
            let shard = body["DDBStreamBatchInfo"]["shardId"].as_str().unwrap();
            let day = body["timestamp"].as_str().unwrap()[..10].replace('-', "/");
            let prefix = format!("aws/lambda/{UUID}/{shard}/{day}/");
            assert!(object.key.starts_with(&prefix), "{} {prefix}", object.key);
        }
    }
}
