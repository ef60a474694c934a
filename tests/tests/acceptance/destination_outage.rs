//! An on-failure destination that goes away: nothing is lost, nothing else waits.

use serde_json::{Value, json};
use shardmill_testkit::{FaultProxy, ProxyMode};
use shardmill_tests::{Config, Ferrokinesis, Function, Sidecar, Stream, until};

use crate::case::resolved;
use crate::queue::MemoryQueue;
use crate::retries::fails_on;

const BAD_SHARD: &str = "shardId-000000000000";
const GOOD_SHARD: &str = "shardId-000000000001";

/// Two shards; the first one gets a bad record now and then. The queue is behind a proxy.
struct Outage {
    stream: Stream,
    function: Function,
    queue: MemoryQueue,
    proxy: FaultProxy,
    config: Config,
    /// The sequence numbers of the bad records.
    bad: Vec<String>,
}

impl Outage {
    async fn new() -> Self {
        let emulator = Ferrokinesis::start().await;
        let stream = Stream::create(emulator.url(), "orders", 2).await;
        let function = Function::behaving(fails_on("bad")).await;
        let queue = MemoryQueue::start().await;
        let proxy = FaultProxy::start(queue.address).await.unwrap();
        // An endpoint in the file would be SQS's too.
        let config = Config::new(&stream)
            .set("Aws", json!({"Region": "us-east-1"}))
            .environment("AWS_ENDPOINT_URL_KINESIS", emulator.url())
            .environment("AWS_ENDPOINT_URL_SQS", &proxy.url())
            .set("BatchSize", 1)
            .set("MaximumRetryAttempts", 0)
            .set("Retry", json!({"InitialBackoffMilliseconds": 20, "MaximumBackoffSeconds": 1}))
            .set("DestinationConfig.OnFailure.Destination", "arn:aws:sqs:us-east-1:000000000000:discarded")
            .url(function.url(""));
        Self { stream, function, queue, proxy, config, bad: Vec::new() }
    }

    /// Puts a bad record between good ones into the first shard, and good ones into the second.
    async fn put(&mut self) {
        let records = ["good", "good", "bad", "good", "good", "good"];
        let put = self.stream.put_all(records.map(|record| record.as_bytes().to_vec()).into()).await;
        assert_eq!((put[2].shard.as_str(), put[3].shard.as_str()), (BAD_SHARD, GOOD_SHARD));
        self.bad.push(put[2].sequence.clone());
    }

    /// Waits until all else has been done and only deliveries are left: the good records of both shards are handled, the
    /// other shard's checkpoint stands at its end, and so many discards are shown as undelivered.
    async fn only_deliveries_are_left(&self, sidecar: &Sidecar, undelivered: u64) {
        let good = self.stream.records().len() - self.bad.len();
        let last_good = self.stream.by_shard()[GOOD_SHARD].last().unwrap().clone();
        until("the good records are handled", async || (self.function.stored_count() >= good).then_some(()))
            .await;
        until("the other shard's checkpoint has moved", async || {
            let leases = sidecar.store().leases();
            (leases.get(GOOD_SHARD)?.checkpoint == last_good).then_some(())
        })
        .await;
        until("the status shows the discards", async || {
            let shards = sidecar.shards().await;
            (shards.get(BAD_SHARD)?["undeliveredDiscards"] == undelivered).then_some(())
        })
        .await;
        until("the metric shows the discards", async || {
            let shown = sidecar.metric("shardmill_undelivered_discards").await?;
            (shown == undelivered as f64).then_some(())
        })
        .await;
        assert_eq!(self.function.stored_count(), good, "nothing twice");
    }

    /// The checkpoint stands before the first undelivered record.
    fn assert_checkpoint_waits(&self, sidecar: &Sidecar, first_undelivered: usize) {
        let shard = &self.stream.by_shard()[BAD_SHARD];
        let at = shard.iter().position(|number| *number == self.bad[first_undelivered]).unwrap();
        assert_eq!(sidecar.store().leases()[BAD_SHARD].checkpoint, shard[at - 1]);
    }

    /// Both leases are renewed several times and stay where they are.
    async fn assert_leases_are_kept(&self, sidecar: &Sidecar) {
        let before = sidecar.store().leases();
        until("both leases are renewed three times", async || {
            let now = sidecar.store().leases();
            let renewed = before
                .iter()
                .all(|(shard, lease)| now[shard].heartbeat >= Some(lease.heartbeat.unwrap() + 3));
            renewed.then_some(())
        })
        .await;
        for (shard, lease) in sidecar.store().leases() {
            assert_eq!(
                (&lease.owner, &lease.token),
                (&before[&shard].owner, &before[&shard].token),
                "{shard}"
            );
        }
    }

    fn delivered(&self) -> Vec<String> {
        let start = |message: &Value| {
            assert_eq!(message["requestContext"]["approximateInvokeCount"], 1, "{message:#}");
            assert_eq!(message["KinesisBatchInfo"]["batchSize"], 1, "{message:#}");
            message["KinesisBatchInfo"]["startSequenceNumber"].as_str().unwrap().to_owned()
        };
        let mut numbers: Vec<String> = self.queue.messages().iter().map(start).collect();
        // A delivery whose answer was lost is made again.
        numbers.dedup();
        numbers
    }
}

async fn failed_deliveries(sidecar: &Sidecar, at_least: u64) {
    until("deliveries fail", async || {
        let shards = sidecar.shards().await;
        let failures = shards.get(BAD_SHARD)?["counts"]["destinationFailures"].as_u64()?;
        (failures >= at_least).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_queue_holds_its_shards_checkpoint_and_nothing_else() {
    let mut outage = Outage::new().await;
    outage.proxy.set(ProxyMode::Refuse).await.unwrap();
    outage.put().await;
    let mut sidecar = Sidecar::start(&outage.config).await;
    outage.only_deliveries_are_left(&sidecar, 1).await;
    outage.put().await;
    outage.only_deliveries_are_left(&sidecar, 2).await;
    failed_deliveries(&sidecar, 2).await;
    outage.assert_checkpoint_waits(&sidecar, 0);
    outage.assert_leases_are_kept(&sidecar).await;
    let error = &sidecar.shards().await[BAD_SHARD]["lastError"];
    assert!(error["message"].as_str().unwrap().contains("arn:aws:sqs:us-east-1:000000000000:discarded"));
    assert_eq!(outage.delivered(), [""; 0]);

    outage.proxy.set(ProxyMode::Pass).await.unwrap();
    resolved(&sidecar, &outage.stream).await;
    let mut delivered = outage.delivered();
    delivered.sort_by(|a, b| shardmill_tests::sequence_order(a, b));
    assert_eq!(delivered, outage.bad);
    until("no discard is shown as undelivered", async || {
        (sidecar.metric("shardmill_undelivered_discards").await? == 0.0).then_some(())
    })
    .await;
    assert_eq!(sidecar.metric("shardmill_dropped_events_total").await, Some(0.0));
    sidecar.terminate();
    assert!(sidecar.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_accepts_and_never_answers_holds_its_shards_checkpoint_and_nothing_else() {
    let mut outage = Outage::new().await;
    outage.put().await;
    let sidecar = Sidecar::start(&outage.config).await;
    resolved(&sidecar, &outage.stream).await;
    assert_eq!(outage.delivered(), outage.bad);

    outage.proxy.set(ProxyMode::BlackHole).await.unwrap();
    outage.put().await;
    outage.only_deliveries_are_left(&sidecar, 1).await;
    outage.assert_checkpoint_waits(&sidecar, 1);
    outage.assert_leases_are_kept(&sidecar).await;
    // The delivery ends by its own timeout and is retried.
    failed_deliveries(&sidecar, 1).await;
    outage.put().await;
    outage.only_deliveries_are_left(&sidecar, 2).await;
    outage.assert_checkpoint_waits(&sidecar, 1);

    outage.proxy.set(ProxyMode::Pass).await.unwrap();
    resolved(&sidecar, &outage.stream).await;
    let mut delivered = outage.delivered();
    delivered.sort_by(|a, b| shardmill_tests::sequence_order(a, b));
    delivered.dedup();
    assert_eq!(delivered, outage.bad);
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_what_a_killed_sidecar_had_not_delivered_comes_again_and_is_delivered() {
    let mut outage = Outage::new().await;
    outage.proxy.set(ProxyMode::Refuse).await.unwrap();
    outage.put().await;
    let mut sidecar = Sidecar::start(&outage.config).await;
    outage.only_deliveries_are_left(&sidecar, 1).await;
    sidecar.kill_9();
    outage.assert_checkpoint_waits(&sidecar, 0);

    let again = Sidecar::start(&outage.config).await;
    outage.proxy.set(ProxyMode::Pass).await.unwrap();
    resolved(&again, &outage.stream).await;
    assert_eq!(outage.delivered(), outage.bad);
}
