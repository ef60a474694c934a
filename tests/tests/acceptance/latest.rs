//! LATEST with a stream that is not there, or does not answer, when the sidecar starts: nothing written since is missed.

use serde_json::json;
use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeDynamoDbStreams, FakeKinesis, FaultProxy, ProxyMode};
use shardmill_tests::{Config, Function, Sidecar, until};

/// A sidecar that reads at LATEST, once it has found out that the stream does not answer.
async fn waiting(config: Config, function: &Function, text: &str) -> Sidecar {
    let sidecar = Sidecar::start(&config.url(function.url("")).set("StartingPosition", "LATEST")).await;
    until("the stream is missed", async || sidecar.get("/readyz").await?.body.contains(text).then_some(()))
        .await;
    sidecar
}

async fn handled(function: &Function, count: usize) {
    until("the records are handled", async || (function.stored_count() == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_98_latest_delivers_what_was_put_while_the_endpoint_was_away_at_the_start() {
    let (fake, function) = (FakeKinesis::new(), Function::start().await);
    let arn = fake.create_stream("orders", 2).unwrap();
    let server = fake.serve().await.unwrap();
    let proxy = FaultProxy::start(server.url().trim_start_matches("http://")).await.unwrap();
    proxy.set(ProxyMode::Refuse).await.unwrap();
    let sidecar = waiting(Config::at(&proxy.url(), &arn), &function, "was not reached").await;
    for n in 0..10 {
        fake.put(&arn, Some(&format!("key {n}")), format!("{{\"n\": {n}}}")).unwrap();
    }
    proxy.set(ProxyMode::Pass).await.unwrap();
    handled(&function, 10).await;
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_98_latest_delivers_everything_of_a_stream_that_is_made_after_the_start() {
    let (fake, function) = (FakeKinesis::new(), Function::start().await);
    let server = fake.serve().await.unwrap();
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let sidecar = waiting(Config::at(&server.url(), arn), &function, "ResourceNotFoundException").await;
    fake.create_stream(arn, 2).unwrap();
    for n in 0..10 {
        fake.put(arn, Some(&format!("key {n}")), format!("{{\"n\": {n}}}")).unwrap();
    }
    handled(&function, 10).await;
    drop(sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn incident_98_latest_delivers_what_a_dynamodb_stream_took_before_it_showed_a_shard_and_over_a_restart()
{
    let (fake, function) = (FakeDynamoDbStreams::new(), Function::start().await);
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    let server = fake.serve().await.unwrap();
    let shard = fake.shards("orders").unwrap()[0].id.clone();
    let hidden = fake.faults().on(Operation::DescribeStream).hold(Fault::OmitShard(shard));
    let config = Config::at(&server.url(), &arn);
    let sidecar = waiting(config.clone(), &function, "a stream without any shard").await;
    for n in 0..5 {
        fake.put_item("orders", &json!({"id": {"S": n.to_string()}})).unwrap();
    }
    // The start is remembered although there is no lease yet.
    drop(sidecar);
    let sidecar = waiting(config, &function, "a stream without any shard").await;
    drop(hidden);
    handled(&function, 5).await;
    drop(sidecar);
}
