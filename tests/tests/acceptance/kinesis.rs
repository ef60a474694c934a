//! A Kinesis whose clock is the test's to set, that takes records of 10 MiB; and what the destination gets of them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use serde_json::Value;
use shardmill_testkit::FakeKinesis;
use shardmill_testkit::kinesis::{Server, StoredRecord};
use shardmill_tests::{Put, Stream};

use crate::case::Case;

/// Where requests ids and times of a discard stand in a masked line.
pub(crate) const MASK: &str = "<masked>";

/// A stream of one shard.
pub(crate) struct Kinesis {
    pub(crate) fake: FakeKinesis,
    server: Server,
}

impl Kinesis {
    /// Served to other processes, with the host's time.
    pub(crate) async fn start() -> Self {
        let fake = FakeKinesis::new();
        let server = fake.serve().await.unwrap();
        Self { fake, server }
    }

    pub(crate) async fn stream(&self) -> Stream {
        Stream::create(&self.server.url(), "orders", 1).await
    }

    /// A mapping on a stream with these records, each so many seconds old.
    pub(crate) async fn case(&self, records: &[(i64, &str)]) -> Case {
        let mut stream = self.stream().await;
        let now = now();
        for (age, data) in records {
            self.put(&mut stream, now - age * 1000, data);
        }
        Case::on(stream)
    }

    /// Puts a record that arrives at this time.
    pub(crate) fn put(&self, stream: &mut Stream, millis: i64, data: &str) {
        let (key, arrival) = (format!("key-{}", stream.records().len()), u64::try_from(millis).unwrap());
        let placed = self.fake.put_arrived(stream.arn(), Some(&key), data.to_owned(), arrival).unwrap();
        stream.note(Put { shard: placed.shard_id, sequence: placed.sequence_number, key });
    }

    /// Sets the service's clock; it runs on from there.
    pub(crate) fn set_time(&self, millis: i64) {
        self.fake.set_clock_offset(millis - now());
    }

    /// What it holds of a stream.
    pub(crate) fn records(&self, stream: &Stream) -> Vec<StoredRecord> {
        self.fake.records(stream.arn()).unwrap()
    }
}

/// The host's time, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The discard's line in the destination's file, with its request id and its own time masked.
pub(crate) fn masked(line: &str) -> String {
    // In the payload quotes are escaped, so neither of them is found there.
    let mask = |line: &str, field: &str| {
        let start = line.find(field).unwrap() + field.len();
        let end = start + line[start..].find('"').unwrap();
        format!("{}{MASK}{}", &line[..start], &line[end..])
    };
    mask(&mask(line, r#""requestId":""#), r#""timestamp":""#)
}

/// What a discard holds in addition to its records.
pub(crate) struct Told {
    pub(crate) condition: &'static str,
    pub(crate) invocations: u32,
    /// `functionError` as JSON; none without a `responseContext`.
    pub(crate) error: Option<&'static str>,
}

/// The line that these records get in the destination's file, masked (docs/semantics.md, sections 3.5, 3.7 and 3.9).
pub(crate) fn line(stream: &Stream, records: &[StoredRecord], told: &Told) -> String {
    let (first, last) = (records.first().unwrap(), records.last().unwrap());
    let Told { condition, invocations, error } = told;
    let response = error.map_or_else(String::new, |error| {
        format!(
            r#""responseContext":{{"statusCode":200,"executedVersion":"$LATEST","functionError":{error}}},"#
        )
    });
    format!(
        concat!(
            r#"{{"requestContext":{{"requestId":"{mask}","#,
            r#""functionArn":"arn:aws:lambda:us-east-1:000000000000:function:orders-worker","#,
            r#""condition":"{condition}","approximateInvokeCount":{invocations}}},{response}"#,
            r#""version":"1.0","payload":{payload},"timestamp":"{mask}","#,
            r#""KinesisBatchInfo":{{"shardId":"{shard}","startSequenceNumber":"{start}","#,
            r#""endSequenceNumber":"{end}","approximateArrivalOfFirstRecord":"{arrived_first}","#,
            r#""approximateArrivalOfLastRecord":"{arrived_last}","batchSize":{size},"streamArn":"{arn}"}}}}"#,
        ),
        mask = MASK,
        condition = condition,
        invocations = invocations,
        response = response,
        payload = Value::from(event(stream, records)),
        shard = first.shard_id,
        start = first.sequence_number,
        end = last.sequence_number,
        arrived_first = iso(first.arrival_ms),
        arrived_last = iso(last.arrival_ms),
        size = records.len(),
        arn = stream.arn(),
    )
}

/// The event of docs/semantics.md, section 3.1.
fn event(stream: &Stream, records: &[StoredRecord]) -> String {
    let record = |record: &StoredRecord| {
        format!(
            concat!(
                r#"{{"kinesis":{{"kinesisSchemaVersion":"1.0","partitionKey":"{key}","sequenceNumber":"{number}","#,
                r#""data":"{data}","approximateArrivalTimestamp":{arrival:?}}},"eventSource":"aws:kinesis","#,
                r#""eventVersion":"1.0","eventID":"{shard}:{number}","eventName":"aws:kinesis:record","#,
                r#""invokeIdentityArn":"arn:aws:iam::000000000000:role/shardmill","awsRegion":"us-east-1","#,
                r#""eventSourceARN":"{arn}"}}"#,
            ),
            key = record.partition_key.as_deref().unwrap(),
            number = record.sequence_number,
            data = base64_simd::STANDARD.encode_to_string(&record.data),
            arrival = record.arrival_ms as f64 / 1000.0,
            shard = record.shard_id,
            arn = stream.arn(),
        )
    };
    let records: Vec<String> = records.iter().map(record).collect();
    format!(r#"{{"Records":[{}]}}"#, records.join(","))
}

/// `2026-09-19T09:10:45.948Z`
fn iso(millis: u64) -> String {
    let seconds = DateTime::from_secs(i64::try_from(millis / 1000).unwrap());
    let text = seconds.fmt(DateTimeFormat::DateTime).unwrap();
    format!("{}.{:03}Z", text.strip_suffix('Z').unwrap(), millis % 1000)
}
