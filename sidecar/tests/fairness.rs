//! Real processes of a `Function.Command`, shared by many shards (incident 72). Fairness is counted, not timed.
#![expect(clippy::unwrap_used, reason = "a test may fail at any step")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardmill::checkpoint::MemoryStore;
use shardmill::{
    Batch, BatchResponse, CancellationToken, Consumer, EventSourceMapping, Handler, HandlerError,
    InvokeContext, Places,
};
use shardmill_sidecar::handler::{CommandHandler, CommandOptions};
use source::Shards;

#[path = "../src/handler/url/tests/source.rs"]
mod source;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";

/// Answers every invocation after 5 ms.
const FUNCTION: &str = r#"
import http.client, os, time

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    answer.read()
    time.sleep(0.005)
    id = answer.getheader("lambda-runtime-aws-request-id")
    api.request("POST", f"/2018-06-01/runtime/invocation/{id}/response", body="{}")
    api.getresponse().read()
"#;

/// Counts what the function has answered, by shard.
struct Counting {
    function: CommandHandler,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Handler for Counting {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        let shard = cx.shard.to_string();
        let answer = self.function.handle(batch, cx).await?;
        *self.counts.lock().unwrap().entry(shard).or_default() += 1;
        Ok(answer)
    }

    fn places(&self) -> Places {
        self.function.places()
    }
}

#[tokio::test]
async fn incident_72_two_processes_and_thirty_shards_every_shard_gets_its_turn() {
    const SHARDS: usize = 30;
    let found = std::process::Command::new("python3").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python3 is needed");
        println!("skipped: python3 is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("function.py");
    std::fs::write(&script, FUNCTION).unwrap();
    let mut options = CommandOptions::new(["python3", script.to_str().unwrap()]);
    options.maximum_concurrency = Some(2);
    let function = CommandHandler::new(options).unwrap();
    let counts = Arc::default();
    let handler = Counting { function: function.clone(), counts: Arc::clone(&counts) };
    let mapping = EventSourceMapping::builder(ARN, "orders-worker")
        .batch_size(1)
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let consumer = Consumer::builder(mapping, Shards(SHARDS), handler)
        .lease_store(MemoryStore::default())
        .build()
        .unwrap();
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(consumer.run(shutdown.clone()));
    // From when all shards are there.
    let all = || counts.lock().unwrap().clone();
    while all().len() < SHARDS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = all();
    let served = |now: &BTreeMap<String, usize>| now.values().sum::<usize>() - before.values().sum::<usize>();
    while served(&all()) < 10 * SHARDS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let since: Vec<usize> = all().iter().map(|(shard, count)| count - before[shard]).collect();
    shutdown.cancel();
    run.await.unwrap().unwrap();
    function.shutdown(tokio::time::Instant::now() + Duration::from_secs(60)).await;
    let (least, most) = (since.iter().min().unwrap(), since.iter().max().unwrap());
    assert!(*most <= 2 * *least, "{least} to {most}: {since:?}");
    assert_eq!(function.places().in_use(), 0, "no place leaks");
}
