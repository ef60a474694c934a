//! What a consumer cannot be built from.

use shardmill_checkpoint::MemoryStore;
use shardmill_engine::{Batch, BatchResponse, MappingBuilder};
use shardmill_testkit::FakeKinesis;

use super::*;
use crate::{Discarded, InvokeContext, KinesisSource};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:orders-dlq";

async fn handle(_: Batch, _: InvokeContext) -> BatchResponse {
    BatchResponse::success()
}

fn mapping() -> MappingBuilder {
    EventSourceMapping::builder(ARN, "orders-worker")
}

fn source(arn: &str) -> KinesisSource {
    KinesisSource::new(&FakeKinesis::new().sdk_config(), arn).unwrap()
}

fn builder(mapping: MappingBuilder) -> ConsumerBuilder {
    Consumer::builder(mapping.build().unwrap(), source(ARN), handle).lease_store(MemoryStore::default())
}

fn refused(builder: ConsumerBuilder) -> BuildError {
    builder.build().expect_err("it is refused")
}

struct Nowhere;

#[async_trait::async_trait]
impl Destination for Nowhere {
    async fn deliver(&self, _: &Discarded) -> Result<(), DestinationError> {
        Ok(())
    }

    fn describe(&self) -> String {
        "nowhere".to_owned()
    }
}

#[test]
fn a_mapping_with_a_destination_and_a_consumer_without_one_are_refused() {
    let named = || mapping().on_failure_destination(QUEUE);
    let error = refused(builder(named()));
    assert!(matches!(&error, BuildError::NoDestination { destination } if destination == QUEUE), "{error}");
    assert!(error.to_string().contains("on_failure_from()"), "{error}");
    assert!(builder(named()).on_failure(Nowhere).build().is_ok());
    let built = builder(named()).on_failure_from(&FakeKinesis::new().sdk_config()).build().unwrap();
    assert_eq!(built.destination.unwrap().describe(), format!("SQS queue {QUEUE}"));
    let built = builder(mapping()).on_failure_from(&FakeKinesis::new().sdk_config()).build().unwrap();
    assert!(built.destination.is_none());
}

#[test]
fn a_file_that_a_mapping_names_is_opened_when_the_consumer_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let to = |path: &str| {
        let path = folder.path().join(path);
        builder(mapping().on_failure_destination(format!("file:{}", path.display())))
            .on_failure_from(&FakeKinesis::new().sdk_config())
    };
    assert!(to("discarded.jsonl").build().is_ok());
    assert!(folder.path().join("discarded.jsonl").exists());
    let error = refused(to("missing/discarded.jsonl")).to_string();
    assert!(error.contains("create its folder first"), "{error}");
}

#[cfg(not(feature = "sns"))]
#[test]
fn a_destination_whose_cargo_feature_is_off_is_refused_by_its_name() {
    let topic = mapping().on_failure_destination("arn:aws:sns:us-east-1:000000000000:orders-dlq");
    let error = refused(builder(topic).on_failure_from(&FakeKinesis::new().sdk_config())).to_string();
    assert!(error.contains("cargo feature \"sns\""), "{error}");
}

#[test]
fn a_disabled_mapping_and_a_source_of_another_stream_are_refused() {
    let error = refused(builder(mapping().enabled(false)));
    assert!(matches!(error, BuildError::Disabled { .. }), "{error}");
    let other = "arn:aws:kinesis:us-east-1:000000000000:stream/payments";
    let mapping = mapping().build().unwrap();
    let builder = Consumer::builder(mapping, source(other), handle).lease_store(MemoryStore::default());
    let error = refused(builder).to_string();
    assert!(error.contains(ARN) && error.contains(other), "{error}");
}

#[test]
fn no_lease_store_and_an_interval_below_its_range_are_refused() {
    let mapping_alone = Consumer::builder(mapping().build().unwrap(), source(ARN), handle);
    assert!(matches!(refused(mapping_alone), BuildError::NoLeaseStore));
    let often = builder(mapping()).discovery_interval(Duration::from_millis(99));
    assert_eq!(refused(often).to_string(), "discovery_interval is 99ms; permitted: at least 100ms");
    assert!(builder(mapping()).discovery_interval(Duration::from_millis(100)).build().is_ok());
}

#[test]
fn a_source_belongs_to_one_worker_as_long_as_that_exists() {
    let source = source(ARN);
    let build = |worker: Arc<Worker>| {
        let mapping = mapping().build().unwrap();
        let builder = Consumer::builder(mapping, source.clone(), handle).worker(worker);
        builder.lease_store(MemoryStore::default()).build()
    };
    let [a, b] = [(); 2].map(|()| Worker::start(WorkerOptions::default()).unwrap());
    assert!(build(Arc::clone(&a)).is_ok());
    assert!(build(Arc::clone(&a)).is_ok(), "for another mapping of the same worker");
    let error = build(Arc::clone(&b)).expect_err("of another worker");
    assert!(error.to_string().contains("belongs to another worker"), "{error}");
    drop(a);
    assert!(build(b).is_ok(), "nothing follows the first worker's clock any more");
}

#[test]
fn options_of_a_worker_that_are_out_of_range_are_refused_and_never_clamped() {
    let start = |set: fn(WorkerOptions) -> WorkerOptions| {
        Worker::start(set(WorkerOptions::default())).map(drop).map_err(|error| error.to_string())
    };
    let seconds = |error: Result<(), String>| error.unwrap_err().contains("permitted: 2s to 3600s");
    assert!(seconds(start(|options| options.lease(Duration::from_millis(1999)))));
    assert!(seconds(start(|options| options.lease(Duration::from_secs(3601)))));
    assert!(start(|options| options.maximum_leases(0)).unwrap_err().contains("maximum_leases"));
    assert!(start(|options| options.maximum_concurrent_reads(0)).unwrap_err().contains("reads is 0"));
    assert!(start(|options| options.buffer_bytes((1 << 20) - 1)).unwrap_err().contains("1048575"));
    assert_eq!(start(|options| options.buffer_bytes(1 << 20).lease(Duration::from_secs(2))), Ok(()));
}
