//! `Function.Command`: functions as they are deployed to Lambda, under AWS's own runtimes. What each of them does with
//! its records is in `functions/`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::{Case, Outcome};

/// What the function noted about an invocation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    request_id: String,
    records: Vec<usize>,
}

/// Where the functions are.
fn functions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("functions")
}

/// Four records of which the second makes the function do `what`, with one retry, bisection and partial responses.
async fn run(command: &[&str], what: &str) -> Outcome {
    let records: Vec<String> = (1..=4)
        .map(|n| if n == 2 { json!({"n": n, "do": what}) } else { json!({"n": n}) }.to_string())
        .collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let case = Case::new(&records)
        .await
        .set("MaximumRetryAttempts", 1)
        .set("BisectBatchOnFunctionError", true)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]));
    let notes = case.config.folder().join("invocations");
    // A slow machine must not make a slow function.
    let timeout = if what == "sleep" { 3 } else { 60 };
    let function = json!({
        "Command": command,
        "Environment": {"INVOCATIONS": notes, "PYTHONPATH": functions().join("python"), "PYTHONDONTWRITEBYTECODE": "1"},
        "Timeout": timeout,
    });
    let case = case.set("Function", function);
    let (_, sequences, discarded) = case.finish().await;
    let notes: Vec<Note> = std::fs::read_to_string(notes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (request_ids, trace) = notes.into_iter().map(|note| (note.request_id, note.records)).unzip();
    Outcome { trace, request_ids, calls: Vec::new(), handled: Vec::new(), discarded, sequences }
}

/// R43: an error of any kind is bisected down to the record, which is tried twice and discarded.
#[track_caller]
fn assert_isolated(outcome: &Outcome) {
    assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![1, 2], vec![1], vec![2], vec![2], vec![3, 4]]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[2], 2, Some("Unhandled"));
}

/// R44: the partial response cuts, and is no function error.
#[track_caller]
fn assert_cut(outcome: &Outcome) {
    assert_eq!(outcome.trace, [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2], vec![2], vec![3, 4]]);
    outcome.assert_request_ids();
    outcome.assert_one_discard(&[2], 2, None);
}

/// The five ways in which a function does not succeed, for one runtime.
macro_rules! runtime {
    ($command:expr $(, #[$ignore:meta])*) => {
        #[tokio::test(flavor = "multi_thread")]
        $(#[$ignore])*
        async fn a_partial_failure_is_read() {
            assert_cut(&run(&$command, "report").await);
        }

        #[tokio::test(flavor = "multi_thread")]
        $(#[$ignore])*
        async fn an_error_is_a_function_error() {
            assert_isolated(&run(&$command, "raise").await);
        }

        #[tokio::test(flavor = "multi_thread")]
        $(#[$ignore])*
        async fn an_overrun_is_killed_and_is_a_function_error() {
            assert_isolated(&run(&$command, "sleep").await);
        }

        #[tokio::test(flavor = "multi_thread")]
        $(#[$ignore])*
        async fn an_exit_in_the_middle_is_a_function_error() {
            assert_isolated(&run(&$command, "exit").await);
        }

        #[tokio::test(flavor = "multi_thread")]
        $(#[$ignore])*
        async fn an_answer_over_6_mib_is_a_function_error() {
            assert_isolated(&run(&$command, "large").await);
        }
    };
}

/// The crate `lambda_runtime`.
mod lambda_runtime {
    use super::*;

    runtime!([env!("CARGO_BIN_EXE_lambda-function")]);
}

/// The package `awslambdaric`.
mod python {
    use shardmill_tests::endpoint;

    use super::*;
    use crate::kinesis::{Kinesis, now};

    runtime!(
        [endpoint("SHARDMILL_TEST_PYTHON").as_str(), "-m", "awslambdaric", "app.handler"],
        #[ignore = "needs a Python with awslambdaric: cargo xtask test"]
    );

    /// Windows long gone, so that each is closed as soon as it is passed or idle; the events as the function got them.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a Python with awslambdaric: cargo xtask test"]
    async fn r65_r67_a_function_counts_the_records_of_tumbling_windows() {
        const SIZE: i64 = 60_000;
        let kinesis = Kinesis::start().await;
        let mut stream = kinesis.stream().await;
        let first = (now() / SIZE - 20) * SIZE;
        for (after, data) in [(0, "1"), (1, "2"), (SIZE, "3")] {
            kinesis.put(&mut stream, first + after, data);
        }
        let case = Case::on(stream).set("TumblingWindowInSeconds", SIZE / 1000).set("BatchSize", 1);
        let events = case.config.folder().join("events");
        let function = json!({
            "Command": [endpoint("SHARDMILL_TEST_PYTHON"), "-m", "awslambdaric", "counting.handler"],
            "Environment": {"EVENTS": events, "PYTHONPATH": functions().join("python"), "PYTHONDONTWRITEBYTECODE": "1"},
            "Timeout": 60,
        });
        let case = case.set("Function", function);
        let (_, sequences, discarded) = case.finish().await;
        assert_eq!(discarded, [Value::Null; 0]);
        let text = std::fs::read_to_string(events).unwrap();
        let seen: Vec<Value> = text
            .lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["shardId"], "shardId-000000000000");
                assert_eq!(event["isWindowTerminatedEarly"], false);
                let records = event["Records"].as_array().unwrap();
                let numbers: Vec<&Value> = records.iter().map(|r| &r["kinesis"]["sequenceNumber"]).collect();
                json!([numbers, event["state"], event["isFinalInvokeForWindow"]])
            })
            .collect();
        let [one, two, three] = &sequences[..] else { panic!("{sequences:?}") };
        let expected = [
            json!([[one], {}, false]),
            json!([[two], {"count": 1}, false]),
            json!([[], {"count": 2}, true]),
            json!([[three], {}, false]),
            json!([[], {"count": 1}, true]),
        ];
        assert_eq!(seen, expected);
    }
}

/// The module `aws-lambda-go`.
mod go {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    /// Builds the function into a git-ignored folder, unless it is there as it is now.
    fn program() -> String {
        let source = functions().join("go");
        let mut hasher = DefaultHasher::new();
        for file in ["main.go", "go.mod", "go.sum"] {
            std::fs::read(source.join(file)).unwrap().hash(&mut hasher);
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = folder.join(format!("go-function-{:016x}", hasher.finish()));
        if !program.exists() {
            // Tests run in processes of their own: each may build, none sees half a program.
            let draft = folder.join(format!("go-function-draft-{}", std::process::id()));
            let mut build = std::process::Command::new("go");
            let built =
                build.args(["build", "-o"]).arg(&draft).arg(".").current_dir(source).output().unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            std::fs::rename(draft, &program).unwrap();
        }
        program.to_str().unwrap().to_owned()
    }

    runtime!(
        [program().as_str()],
        #[ignore = "needs Go: cargo xtask test"]
    );
}

/// The package `aws-lambda-ric`, by hand: it takes minutes to build. `SHARDMILL_TEST_NODE_RIC` is the path of its
/// `bin/index.mjs`.
mod by_hand {
    use super::*;

    fn command() -> Option<[String; 3]> {
        let ric = std::env::var("SHARDMILL_TEST_NODE_RIC").ok()?;
        let handler = functions().join("node/app.handler");
        Some(["node".to_owned(), ric, handler.to_str().unwrap().to_owned()])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn aws_lambda_ric_fails_in_all_five_ways() {
        let Some(command) = command() else {
            println!("not asked for: SHARDMILL_TEST_NODE_RIC is not set");
            return;
        };
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        assert_cut(&run(&command, "report").await);
        for what in ["raise", "sleep", "exit", "large"] {
            println!("{what}");
            assert_isolated(&run(&command, what).await);
        }
    }
}

/// LocalStack's acceptance test of that name: a custom runtime whose answer is empty succeeds (R34).
#[tokio::test(flavor = "multi_thread")]
async fn test_kinesis_empty_provided() {
    let bootstrap = functions().join("provided/bootstrap");
    let case = Case::new(&["record"])
        .await
        .set("MaximumRetryAttempts", 2)
        .set("FunctionResponseTypes", json!(["ReportBatchItemFailures"]))
        .set("Function", json!({"Command": [bootstrap], "Timeout": 60}));
    let (log, _, discarded) = case.finish().await;
    assert_eq!(discarded, [Value::Null; 0]);
    assert_eq!(log.iter().filter(|line| line.contains("REPORT RequestId")).count(), 1, "{log:#?}");
}
