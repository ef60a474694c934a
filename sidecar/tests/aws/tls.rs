//! Over TLS with HTTP/2, as AWS speaks it.

use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{Fakes, FaultProxy, TlsOptions};

use crate::rig::{Sidecar, until};

#[tokio::test(flavor = "multi_thread")]
async fn all_reads_are_under_way_over_few_connections_and_leases_do_not_wait_for_them() {
    let (fakes, folder) = (Fakes::new(), tempfile::tempdir().unwrap());
    fakes.kinesis().create_stream("orders", 300).unwrap();
    let server = fakes.serve_tls(0, TlsOptions::default()).await.unwrap();
    let reads = FaultProxy::start(server.address()).await.unwrap();
    let certificate = folder.path().join("ca.pem");
    std::fs::write(&certificate, server.certificate().unwrap()).unwrap();
    let hang = fakes.kinesis().faults().on(Operation::GetRecords).hold(Fault::Hang);
    let run = Sidecar::start(
        folder,
        "Checkpoints: \"dynamodb:leases\"\nWorker: {LeaseSeconds: 3}\n",
        &[
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_URL_KINESIS", &format!("https://{}", reads.address())),
            ("AWS_ENDPOINT_URL_DYNAMODB", &server.url()),
            ("SSL_CERT_FILE", certificate.to_str().unwrap()),
        ],
    );
    let under_way = || fakes.kinesis().calls().of(Operation::GetRecords).max_in_flight();
    until("all reads are under way", || under_way() == 256).await;
    assert!(reads.accepted() <= 12, "{} connections", reads.accepted());

    let heartbeats = || fakes.tables().bill().calls.get("UpdateItem").copied().unwrap_or(0);
    let before = heartbeats();
    until("leases are renewed", || heartbeats() >= before + 3).await;
    assert!(under_way() == 256 && !run.logged("lost the lease"));
    drop(hang);
    run.stop();
}
