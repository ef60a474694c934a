//! Credentials that expire and a clock that is off, in the middle of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::{get, put};
use serde_json::json;
use shardmill_testkit::Fakes;
use shardmill_testkit::kinesis::{Fault, Operation};

use crate::rig::{Sidecar, until};

const SETTINGS: &str = "Checkpoints: \"memory:\"\nPolling: {IdleIntervalMilliseconds: 200}\n";

/// EC2's metadata service with one role, whose credentials are others each time that they are asked for: the first ones
/// expire in 15 seconds, the next ones in an hour. Its address, and how often it was asked for them.
async fn metadata_service() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    let credentials = move || {
        let turn = counted.fetch_add(1, Ordering::Relaxed);
        let (key, seconds) = if turn == 0 { ("FIRSTKEY", 15) } else { ("SECONDKEY", 3_600) };
        let expiration = timestamp(SystemTime::now() + Duration::from_secs(seconds));
        async move {
            axum::Json(json!({
                "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": "secret", "Token": "token",
                "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": expiration,
            }))
        }
    };
    let token = || async { ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token") };
    let app = Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/iam/security-credentials/", get(|| async { "worker" }))
        .route("/latest/meta-data/iam/security-credentials/worker", get(credentials));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

fn timestamp(at: SystemTime) -> String {
    let at = aws_sdk_kinesis::primitives::DateTime::from(at);
    at.fmt(aws_sdk_kinesis::primitives::DateTimeFormat::DateTime).unwrap()
}

fn put_records(fakes: &Fakes, count: usize) {
    for n in 0..count {
        fakes.kinesis().put("orders", None, format!("order {n}")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_during_a_run_are_renewed() {
    let fakes = Fakes::new();
    fakes.kinesis().create_stream("orders", 2).unwrap();
    let server = fakes.serve(0).await.unwrap();
    let (metadata, asked) = metadata_service().await;
    put_records(&fakes, 10);
    let run = Sidecar::start(
        tempfile::tempdir().unwrap(),
        SETTINGS,
        &[("AWS_ENDPOINT_URL", &server.url()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata)],
    );
    until("the first records are delivered", || run.delivered() == 10).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let refusal = Fault::Error {
        status: 400,
        code: "ExpiredTokenException".to_owned(),
        message: "The security token included in the request is expired".to_owned(),
    };
    let expired = fakes.kinesis().faults().on_any().signed_by("FIRSTKEY").hold(refusal);
    put_records(&fakes, 10);
    until("the others are delivered with new credentials", || run.delivered() == 20).await;
    assert!(expired.hits() > 0, "the first ones were refused");
    assert_eq!(asked.load(Ordering::Relaxed), 2, "and renewed once");
    run.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_ten_minutes_during_a_run_is_corrected_in_signatures() {
    let fakes = Fakes::new();
    fakes.kinesis().create_stream("orders", 2).unwrap();
    let server = fakes.serve(0).await.unwrap();
    let refusal = Fault::Error {
        status: 400,
        code: "InvalidSignatureException".to_owned(),
        message: "Signature expired".to_owned(),
    };
    // As AWS does.
    let faults = fakes.kinesis().faults();
    let off = faults.on_any().signed_off(Duration::from_secs(300)).hold(refusal);
    put_records(&fakes, 10);
    let run = Sidecar::start(
        tempfile::tempdir().unwrap(),
        SETTINGS,
        &[
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_URL", &server.url()),
        ],
    );
    until("the first records are delivered", || run.delivered() == 10).await;
    assert_eq!(off.hits(), 0);

    for (minutes, delivered) in [(10, 20), (-10, 30)] {
        let before = off.hits();
        fakes.kinesis().set_clock_offset(minutes * 60_000);
        until("a signature is too far off", || off.hits() > before).await;
        put_records(&fakes, 10);
        until("what came then is delivered", || run.delivered() == delivered).await;
        let reads = fakes.kinesis().calls().of(Operation::GetRecords);
        let last = reads.iter().rfind(|read| read.status.is_some()).unwrap();
        assert_eq!(last.status, Some(200), "the last reads were accepted");
    }
    run.stop();
}
