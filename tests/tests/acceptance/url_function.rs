//! `Function.Url`: servers that answer like Lambda's Runtime Interface Emulator, and one that dies.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use shardmill_tests::{Invocation, Plan};
use tokio::process::{Child, Command};

use crate::case::Case;

/// Where the Runtime Interface Emulator listens for events.
const RIE: &str = "2015-03-31/functions/function/invocations";

/// What the emulator answers for the first record that is not good.
fn emulator(invocation: &Invocation) -> Plan {
    let bad = invocation.records.iter().find(|record| record.data != "good");
    match bad.map(|record| &record.data[..]) {
        None => Plan::success(),
        Some(b"timeout") => Plan::status(200, "Task timed out after 3.00 seconds"),
        Some(b"crash") => Plan::status(
            502,
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited with error: exit status 1"}"#,
        ),
        Some(b"error") => Plan::status(
            200,
            r#"{"errorMessage":"bad record","errorType":"ValueError","requestId":"1","stackTrace":[]}"#,
        ),
        Some(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_interface_emulators_answers_lose_no_record_and_discard_no_good_one() {
    let records = ["good", "timeout", "good", "crash", "good", "good", "error", "good"];
    let case =
        Case::new(&records).await.set("MaximumRetryAttempts", 1).set("BisectBatchOnFunctionError", true);
    let outcome = case.run_at(RIE, emulator).await;
    assert_eq!(outcome.handled, [1, 3, 5, 6, 8], "every good record once, in order");
    assert_eq!(outcome.discarded.len(), 3, "{:#?}", outcome.discarded);
    for (line, record) in outcome.discarded.iter().zip([2, 4, 7]) {
        outcome.assert_discard(line, &[record], 2, Some("Unhandled"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r23_a_busy_emulator_spends_no_attempt() {
    let case = Case::new(&["good", "crash", "good"])
        .await
        .set("MaximumRetryAttempts", 1)
        .set("BisectBatchOnFunctionError", true);
    let served = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&served);
    // Two of three calls meet a function that is busy.
    let outcome = case
        .run_at(RIE, move |invocation| {
            if !invocation.number.is_multiple_of(3) {
                return Plan::status(400, "");
            }
            seen.lock().unwrap().push(invocation.records.len());
            emulator(invocation)
        })
        .await;
    assert_eq!(*served.lock().unwrap(), [3, 1, 2, 1, 1, 1], "the batches that were not turned away");
    assert_eq!(outcome.handled, [1, 3]);
    outcome.assert_one_discard(&[2], 2, Some("Unhandled"));
    outcome.assert_request_ids();
}

/// Runs the server that dies of a segmentation fault, again whenever it has.
struct Supervised(tokio::task::JoinHandle<()>);

impl Supervised {
    fn start(address: SocketAddr, notes: &Path) -> Self {
        let notes = notes.to_owned();
        Self(tokio::spawn(async move {
            loop {
                let mut server: Child = Command::new(env!("CARGO_BIN_EXE_segfaulting-server"))
                    .arg(address.to_string())
                    .arg(&notes)
                    .stdin(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()
                    .unwrap();
                server.wait().await.unwrap();
            }
        }))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_on_which_the_server_segfaults_is_discarded_and_its_neighbours_are_handled() {
    let records = ["one", "two", "three", "segv", "five", "six"];
    let case = Case::new(&records)
        .await
        .set("MaximumRetryAttempts", 3)
        .set("BisectBatchOnFunctionError", true)
        // A connection may still reach the server that is dying: a call that it takes and never sees counts. The retries
        // outlast that.
        .set("Retry.InitialBackoffMilliseconds", 100);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let notes = case.config.folder().join("notes");
    let server = Supervised::start(free, &notes);
    let case = case.set("Function.Url", format!("http://{free}/"));
    let (_, sequences, discarded) = case.finish().await;
    drop(server);

    assert_eq!(discarded.len(), 1, "{discarded:#?}");
    let info = &discarded[0]["KinesisBatchInfo"];
    assert_eq!(
        (&info["startSequenceNumber"], &info["batchSize"]),
        (&sequences[3].as_str().into(), &1.into())
    );
    assert_eq!(discarded[0]["requestContext"]["approximateInvokeCount"], 4);
    assert_eq!(discarded[0]["responseContext"]["functionError"], "Unhandled");
    let notes = std::fs::read_to_string(notes).unwrap();
    let survived: Vec<&str> = notes.lines().filter(|line| !line.contains("segv")).collect();
    let handled: Vec<&str> = survived.iter().flat_map(|line| line.split(' ')).collect();
    assert_eq!(handled, ["one", "two", "three", "five", "six"], "{notes}");
    assert!(notes.lines().any(|line| line == "segv"), "it was alone: {notes}");
}
