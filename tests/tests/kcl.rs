//! Amazon's KCL for Java and the sidecar on one lease table, one after the other and back.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

mod kcl_java {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use shardmill_tests::{
        Config, Ferrokinesis, Function, Sidecar, Stream, endpoint, sequence_order, unique, until_within,
    };

    /// A JVM's start, KCL's election of a leader and its first assignment: 85 to 95 s on a machine that does nothing else.
    const PATIENCE: Duration = Duration::from_secs(240);

    /// A record: its shard and its sequence number.
    type Handled = (String, String);

    /// A worker of KCL.
    struct Java {
        child: Child,
        told: Arc<Mutex<Vec<String>>>,
    }

    impl Java {
        fn start(stream: &Stream, table: &str, version: &str) -> Self {
            let mut java = Command::new("java");
            java.args(["-Daws.cborEnabled=false", "-Xmx256m"]);
            java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
            java.arg(endpoint("SHARDMILL_TEST_KCL_JAVA")).arg("io.shardmill.interop.KclWorker");
            let settings = [
                ("stream", stream.name()),
                ("table", table),
                ("worker", &unique("java")),
                ("region", "us-east-1"),
                ("kinesis", stream.endpoint()),
                ("dynamodb", &endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL")),
                ("version", version),
                ("failover", "4000"),
                ("batch", "5"),
            ];
            java.args(settings.map(|(name, value)| format!("{name}={value}")));
            let mut child = java.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let told = Arc::<Mutex<Vec<String>>>::default();
            let (lines, output) = (Arc::clone(&told), BufReader::new(child.stdout.take().unwrap()));
            std::thread::spawn(move || {
                for line in output.lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            });
            Self { child, told }
        }

        /// Shards and sequence numbers of the lines that begin with `what`.
        fn told(&self, what: &str) -> Vec<Handled> {
            let told = self.told.lock().unwrap();
            let words = |line: &String| {
                let mut words = line.strip_prefix(what)?.split_whitespace().map(str::to_owned);
                Some((words.next()?, words.next()?))
            };
            told.iter().filter_map(words).collect()
        }

        async fn until_handled(&self, what: &str, mut enough: impl FnMut(Vec<Handled>) -> bool) {
            until_within(PATIENCE, what, async || enough(self.told("record ")).then_some(())).await;
        }

        /// Stops in order: KCL asks its processors for their last checkpoints.
        async fn stop(&mut self) {
            self.child.stdin.take().unwrap().write_all(b"stop\n").unwrap();
            let ended = async || self.child.try_wait().unwrap();
            assert!(until_within(PATIENCE, "KCL has stopped", ended).await.success());
        }
    }

    impl Drop for Java {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// The last record of each shard.
    fn last(handled: &[Handled]) -> BTreeMap<&str, &str> {
        handled.iter().map(|(shard, sequence)| (shard.as_str(), sequence.as_str())).collect()
    }

    /// No record is at or below its shard's checkpoint.
    fn assert_above(handled: &[Handled], checkpoints: &BTreeMap<&str, &str>) {
        for (shard, sequence) in handled {
            let Some(checkpoint) = checkpoints.get(shard.as_str()) else { continue };
            let order = sequence_order(sequence, checkpoint);
            assert!(order.is_gt(), "{shard}: {sequence} again, the checkpoint was {checkpoint}");
        }
    }

    async fn there_and_back(version: &str) {
        let kinesis = Ferrokinesis::start().await;
        let mut stream = Stream::create(kinesis.url(), "kcl", 4).await;
        stream.put(600, 100).await;
        let table = unique("kcl-app");
        let mut java = Java::start(&stream, &table, version);
        java.until_handled("a third of the records", |handled| handled.len() >= 200).await;
        java.stop().await;
        let (first, checkpoints) = (java.told("record "), java.told("checkpoint "));
        assert!(first.len() < 600, "it was stopped too late to leave anything");

        let function = Function::start().await;
        let config = Config::new(&stream)
            .url(function.url("sidecar"))
            .set("Checkpoints", format!("kcl:{table}"))
            .set("Worker.LeaseSeconds", 4)
            .set("Worker.Id", "sidecar")
            .set("Aws", serde_json::json!({ "Region": "us-east-1" }))
            .environment("AWS_ENDPOINT_URL_KINESIS", kinesis.url())
            .environment("AWS_ENDPOINT_URL_DYNAMODB", &endpoint("SHARDMILL_TEST_DYNAMODB_LOCAL"));
        let mut sidecar = Sidecar::start(&config).await;
        let rest = 600 - first.len();
        until_within(PATIENCE, "the sidecar has the rest", async || {
            (function.stored_count() >= rest).then_some(())
        })
        .await;
        stream.put(40, 100).await;
        until_within(PATIENCE, "the sidecar has more", async || {
            (function.stored_count() >= rest + 40).then_some(())
        })
        .await;
        sidecar.terminate();
        assert!(sidecar.ended().await.success());
        let stored = function.stored();
        let second: Vec<Handled> = stored.into_iter().map(|record| (record.shard, record.sequence)).collect();
        assert_above(&second, &last(&checkpoints));

        stream.put(200, 100).await;
        let all: BTreeSet<Handled> =
            stream.records().iter().map(|put| (put.shard.clone(), put.sequence.clone())).collect();
        let mut java = Java::start(&stream, &table, version);
        let seen: BTreeSet<Handled> = first.iter().chain(&second).cloned().collect();
        java.until_handled("all records", |handled| {
            let third: BTreeSet<Handled> = handled.into_iter().collect();
            all.iter().all(|record| seen.contains(record) || third.contains(record))
        })
        .await;
        java.stop().await;
        // The sidecar stopped in order: everything that it handled is below its checkpoints.
        let third = java.told("record ");
        assert_above(&third, &last(&second));
        assert_eq!(first.len() + second.len() + third.len(), all.len(), "nothing twice");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    #[ignore = "needs KCL for Java: cargo xtask test"]
    async fn from_kcl_3_to_the_sidecar_and_back_nothing_is_lost_nor_handled_twice() {
        there_and_back("3x").await;
    }
}
