//! The Kinesis source against answers that the tests write.

mod encoding;
mod in_place;
mod listing;
mod repeat;
mod turns;
mod undecodable;

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use serde_json::json;
use shardmill_engine::{AnswerEncoding, HashRange, Page, Seq, Wall};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::fake::*;
use super::*;
use crate::source::SourceErrorKind as Kind;

const SHARD: &str = "shardId-000000000007";

async fn reader(service: &Service, at: Position) -> Box<dyn ShardReader> {
    service.source().open(&ShardId::from(SHARD), &at).await.unwrap()
}

fn numbers(page: &Page) -> Vec<&str> {
    page.records.iter().map(|record| record.seq.number.as_str()).collect()
}

// --- Names and constructors ---

#[test]
fn an_arn_is_taken_apart_and_anything_else_is_refused_with_the_form() {
    let source = |arn: &str| KinesisSource::from_client(Service::new([]).client(), arn);
    let stream = source(ARN).unwrap().stream().clone();
    assert_eq!((stream.stream.as_str(), stream.arn.as_str()), ("orders", ARN));
    assert_eq!(stream.to_string(), "Kinesis stream orders in eu-west-1 (123456789012)");
    for wrong in [
        "",
        "orders",
        "arn:aws:kinesis:eu-west-1:123456789012:stream/",
        "arn:aws:kinesis:eu-west-1:123456789012:stream/a/consumer/b:1",
        "arn:aws:kinesis::123456789012:stream/orders",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/2026-01-01T00:00:00.000",
    ] {
        let error = source(wrong).unwrap_err();
        assert_eq!(error.kind, Kind::Rejected, "{wrong}");
        let text = format!(
            "EventSourceArn: `{wrong}` is not the ARN of a Kinesis data stream; \
             it has the form arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
        );
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn a_source_made_from_a_configuration_asks_the_region_of_the_arn() {
    let config = SdkConfig::builder()
        .region(Region::new("us-east-1"))
        .behavior_version(BehaviorVersion::latest())
        .http_client(SharedHttpClient::new(Service::new([])))
        .credentials_provider(SharedCredentialsProvider::new(NoCredentials))
        .build();
    let source = KinesisSource::new(&config, ARN).unwrap();
    let inner = source.inner();
    let config = inner.client.config();
    assert_eq!(config.region().unwrap().as_ref(), "eu-west-1");
    assert!(!config.retry_config().unwrap().has_retry(), "retries belong to the engine");
    let timeouts = config.timeout_config().unwrap();
    let set = [timeouts.connect_timeout(), timeouts.read_timeout(), timeouts.operation_timeout()];
    assert_eq!(set.map(|set| set.map(|set| set.as_secs())), [Some(5), Some(30), Some(30)]);
    let error = source.shards().await.unwrap_err();
    assert_eq!(error.kind, Kind::AccessDenied, "{error}");
    assert!(error.to_string().contains("no usable credentials"), "{error}");
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nothing is configured")))
    }
}

#[test]
fn timeouts_that_the_user_switched_off_are_bounded_and_those_that_he_set_are_kept() {
    use aws_sdk_kinesis::config::timeout::TimeoutConfig;
    let of = |timeouts: TimeoutConfig| {
        let client = Client::from_conf(
            Service::new([]).client().config().to_builder().timeout_config(timeouts).build(),
        );
        let source = KinesisSource::from_client(client, ARN).unwrap();
        let set = source.inner().client.config().timeout_config().unwrap().clone();
        [set.connect_timeout(), set.read_timeout(), set.operation_timeout()]
            .map(|set| set.map(|set| set.as_secs()))
    };
    assert_eq!(of(TimeoutConfig::disabled()), [Some(5), Some(30), Some(30)]);
    let two = Duration::from_secs(2);
    assert_eq!(of(TimeoutConfig::builder().operation_timeout(two).build()), [Some(5), Some(30), Some(2)]);
}

// --- Positions ---

#[tokio::test]
async fn each_position_asks_for_its_kind_of_iterator() {
    let seq = |sub| Seq { number: "0042".into(), sub };
    for (at, expected) in [
        (Position::TrimHorizon, json!({"ShardIteratorType": "TRIM_HORIZON"})),
        (Position::Latest, json!({"ShardIteratorType": "LATEST"})),
        // R8, with milliseconds.
        (
            Position::AtTimestamp(1_790_000_000_123),
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_790_000_000.123}),
        ),
        (
            Position::At(seq(0)),
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "0042"}),
        ),
        (
            Position::After(seq(0)),
            json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "0042"}),
        ),
        // The rest of a KPL aggregate is still to come.
        (
            Position::After(seq(3)),
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "0042"}),
        ),
    ] {
        let service = Service::new([iterator("i1"), page(&["43"], Some("i2"))]);
        reader(&service, at.clone()).await.next_page(100).await.unwrap();
        let mut body = service.bodies("GetShardIterator").remove(0);
        for (field, value) in [("StreamName", "orders"), ("StreamARN", ARN), ("ShardId", SHARD)] {
            assert_eq!(body[field], value);
            body.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(body, expected, "{at}");
    }
}

#[tokio::test]
async fn opening_asks_nothing_and_a_finished_shard_is_never_asked() {
    let service = Service::new([]);
    let mut finished = reader(&service, Position::ShardEnd).await;
    assert_eq!(finished.next_page(1).await.unwrap(), Page::last(Vec::new()));
    reader(&service, Position::TrimHorizon).await;
    assert!(service.requests().is_empty());
}

// --- Pages ---

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_and_the_limit_stays_within_what_the_service_takes() {
    let service = Service::new([
        iterator("i1"),
        page(&["1", "2"], Some("i2")),
        page(&[], Some("i3")),
        page(&["3"], Some("i4")),
    ]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    let first = reader.next_page(usize::MAX).await.unwrap();
    assert_eq!(numbers(&first), ["1", "2"]);
    assert_eq!((first.end_of_shard, first.millis_behind), (false, Some(0)));
    let record = &first.records[0];
    assert_eq!(record.partition_key(), Some("k"));
    assert_eq!(record.arrival, Some(Wall::from_millis(1_790_000_000_123)));
    assert_eq!(record.bytes().unwrap(), "xx");
    assert_eq!(numbers(&reader.next_page(0).await.unwrap()), [""; 0]);
    assert_eq!(numbers(&reader.next_page(500).await.unwrap()), ["3"]);
    assert_eq!(
        service.bodies("GetRecords"),
        [("i1", 10_000), ("i2", 1), ("i3", 500)]
            .map(|(iterator, limit)| json!({"ShardIterator": iterator, "Limit": limit, "StreamARN": ARN}))
    );
}

#[tokio::test]
async fn a_record_without_a_partition_key_and_one_of_ten_mebibytes_arrive_whole() {
    let big = vec![7_u8; 10 * 1024 * 1024];
    let encoded = aws_smithy_types::base64::encode(&big);
    let service = Service::new([
        iterator("i1"),
        Answer::Ok(json!({"NextShardIterator": "i2", "MillisBehindLatest": 5, "Records": [
            {"SequenceNumber": "1", "Data": ""}, {"SequenceNumber": "2", "Data": encoded, "PartitionKey": "k"}]})),
    ]);
    let page = reader(&service, Position::TrimHorizon).await.next_page(10).await.unwrap();
    assert_eq!((page.records[0].partition_key(), page.records[0].arrival), (None, None));
    assert!(page.records[0].bytes().unwrap().is_empty());
    assert!(page.records[1].bytes().unwrap() == big);
}

#[tokio::test]
async fn the_end_of_a_shard_names_its_children_and_is_remembered() {
    let service = Service::new([
        iterator("i1"),
        Answer::Ok(json!({"Records": [record("9")], "MillisBehindLatest": 0, "ChildShards": [
            {"ShardId": "c1", "ParentShards": [SHARD], "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "4"}},
            {"ShardId": "c2", "ParentShards": [SHARD, "p2"], "HashKeyRange": {"StartingHashKey": "5", "EndingHashKey": "9"}}]})),
    ]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    let last = reader.next_page(10).await.unwrap();
    assert!(last.end_of_shard);
    assert_eq!(numbers(&last), ["9"], "the records of the last page are not lost");
    assert_eq!(last.children[0].hash_range, Some(HashRange { start: 0, end: 4 }));
    assert_eq!(last.children[1].parents, [ShardId::from(SHARD), ShardId::from("p2")]);
    let again = reader.next_page(10).await.unwrap();
    assert!(again.end_of_shard && again.records.is_empty());
    assert_eq!(service.requests().len(), 2, "nothing more is asked");
}

#[tokio::test(start_paused = true)]
async fn incident_51_an_answer_without_iterator_and_children_is_the_end_only_if_a_listing_says_so() {
    let listed = |open: bool, parents: [Option<&str>; 2]| {
        Answer::Ok(json!({"Shards": [
            listing::shard(SHARD, [None, None], !open), listing::shard("c1", parents, false)]}))
    };
    let child = [Some(SHARD), None];
    for (open, parents, children) in [(false, child, 1), (true, child, 1), (false, [None, None], 0)] {
        let service = Service::new([iterator("i1"), page(&[], None), listed(open, parents)]);
        let last = reader(&service, Position::TrimHorizon).await.next_page(10).await.unwrap();
        assert!(last.end_of_shard);
        assert_eq!(last.children.len(), children);
    }
    let service = Service::new([
        iterator("i1"),
        page(&["1"], None),
        Answer::Error(400, "LimitExceededException"),
        listed(true, [None, None]),
    ]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    let page = reader.next_page(10).await.unwrap();
    assert_eq!((numbers(&page), page.end_of_shard), (vec!["1"], false), "what was read comes first");
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::Throttled);
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::IteratorExpired, "it goes on");
}

#[tokio::test(start_paused = true)]
async fn i3_an_empty_answer_does_not_end_the_shard() {
    let empty = || [Answer::Raw(200, "{}".to_owned()), Answer::Raw(200, String::new())];
    for empty in empty() {
        let service = Service::new([iterator("i1"), empty, page(&["1"], Some("i2"))]);
        let mut reader = reader(&service, Position::TrimHorizon).await;
        assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::Unavailable);
        assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
    }
}

// --- Faults ---

#[tokio::test(start_paused = true)]
async fn faults_leave_the_reader_where_it_stood() {
    let faults = [
        (Answer::Error(400, "ProvisionedThroughputExceededException"), Kind::Throttled),
        (Answer::Error(400, "KMSThrottlingException"), Kind::Throttled),
        (Answer::Error(400, "ThrottlingException"), Kind::Throttled),
        (Answer::Error(400, "AccessDeniedException"), Kind::AccessDenied),
        (Answer::Error(403, "ExpiredTokenException"), Kind::AccessDenied),
        (Answer::Error(400, "ResourceNotFoundException"), Kind::NotFound),
        (Answer::Error(400, "InvalidArgumentException"), Kind::Rejected),
        (Answer::Error(500, "InternalFailure"), Kind::Unavailable),
        (Answer::Error(400, "SomethingNew"), Kind::Rejected),
        (Answer::Error(500, "SomethingNew"), Kind::Unavailable),
        (Answer::Raw(502, "<html>Bad Gateway</html>".to_owned()), Kind::Unavailable),
        (Answer::Raw(200, r#"{"Records":[{"SequenceNum"#.to_owned()), Kind::Unavailable),
        (Answer::Ok(json!({"Records": [{"Data": "eA=="}], "NextShardIterator": "i9"})), Kind::Unavailable),
        (Answer::Refused, Kind::Unavailable),
        (Answer::Silence, Kind::Unavailable),
    ];
    for (fault, kind) in faults {
        let service =
            Service::new([iterator("i1"), page(&["1"], Some("i2")), fault, page(&["2"], Some("i3"))]);
        let mut reader = reader(&service, Position::TrimHorizon).await;
        reader.next_page(10).await.unwrap();
        let error = reader.next_page(10).await.unwrap_err();
        assert_eq!((error.kind, error.api), (kind, "GetRecords"), "{error}");
        let text = error.to_string();
        assert!(text.contains("stream orders") && text.contains(SHARD), "{text}");
        assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["2"]);
        let reads = service.bodies("GetRecords");
        assert_eq!(reads[1]["ShardIterator"], "i2", "{text}");
        assert_eq!(
            reads[1]["ShardIterator"], reads[2]["ShardIterator"],
            "the same place is asked again: {text}"
        );
        assert_eq!(service.bodies("GetShardIterator").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_get_shard_iterator_leaves_the_position() {
    let service = Service::new([
        Answer::Error(400, "LimitExceededException"),
        Answer::Ok(json!({})),
        iterator("i1"),
        page(&["43"], Some("i2")),
    ]);
    let mut reader = reader(&service, Position::After(Seq::plain("42"))).await;
    let kinds = [reader.next_page(10).await.unwrap_err().kind, reader.next_page(10).await.unwrap_err().kind];
    assert_eq!(kinds, [Kind::Throttled, Kind::Unavailable]);
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["43"]);
    let asked = service.bodies("GetShardIterator");
    assert!(asked.len() == 3 && asked.iter().all(|body| body == &asked[0]), "{asked:?}");
}

#[tokio::test]
async fn a_refusal_says_what_to_allow() {
    let service = Service::new([iterator("i1"), Answer::Error(400, "AccessDeniedException")]);
    let error = reader(&service, Position::TrimHorizon).await.next_page(10).await.unwrap_err();
    assert!(error.to_string().ends_with(&format!("; allow kinesis:GetRecords on {ARN}")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn i14_an_expired_iterator_asks_for_a_new_reader() {
    let service = Service::new([
        iterator("i1"),
        page(&["1"], Some("i2")),
        Answer::Error(400, "ExpiredIteratorException"),
        iterator("i3"),
        page(&["2"], Some("i4")),
    ]);
    let source = service.source();
    let mut reader = source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
    let last = reader.next_page(10).await.unwrap().records.pop().unwrap().seq;
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::IteratorExpired);
    let mut reader = source.open(&ShardId::from(SHARD), &Position::After(last)).await.unwrap();
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["2"]);
    assert_eq!(service.bodies("GetShardIterator")[1]["StartingSequenceNumber"], "1");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_takes_the_request_and_never_answers_costs_thirty_seconds() {
    let service = Service::new([Answer::Silence, iterator("i1"), page(&["1"], Some("i2"))]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    let begin = Instant::now();
    let error = reader.next_page(10).await.unwrap_err();
    assert_eq!((error.kind, begin.elapsed().as_secs()), (Kind::Unavailable, 30), "{error}");
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_abandoned_half_way_is_asked_again_from_the_same_place() {
    let service = Service::new([iterator("i1"), Answer::Silence, page(&["1"], Some("i2"))]);
    let mut reader = reader(&service, Position::TrimHorizon).await;
    assert!(tokio::time::timeout(Duration::from_secs(1), reader.next_page(10)).await.is_err());
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), ["1"]);
    assert!(service.bodies("GetRecords").iter().all(|body| body["ShardIterator"] == "i1"));
}

/// A real connection that ends in the middle of the answer.
#[tokio::test]
async fn a_body_cut_on_the_wire_is_no_page() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let whole = json!({"ShardIterator": "i1"}).to_string();
    let server = tokio::spawn(async move {
        for sent in [whole.len(), 5] {
            let (mut connection, _) = listener.accept().await.unwrap();
            // To its end: closing a connection with unread bytes would reset it and take the answer with it.
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0);
            }
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", whole.len());
            connection.write_all(head.as_bytes()).await.unwrap();
            connection.write_all(&whole.as_bytes()[..sent]).await.unwrap();
        }
    });
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint);
    let client = Client::from_conf(config.build());
    let source = KinesisSource::from_client(client, ARN).unwrap();
    let mut reader = source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
    // Its requests end with a bracket.
    reader.ask_for(AnswerEncoding::Json);
    let error = reader.next_page(10).await.unwrap_err();
    assert_eq!((error.kind, error.api), (Kind::Unavailable, "GetRecords"), "{error}");
    server.await.unwrap();
    let error = reader.next_page(10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "nobody listens any more: {error}");
}

// --- Pace and clock ---

#[tokio::test(start_paused = true)]
async fn i12_sources_of_one_process_share_the_pace_of_a_shard() {
    let body =
        json!({"Records": [], "NextShardIterator": "i", "ShardIterator": "i", "MillisBehindLatest": 0});
    let service = Service::new([]).otherwise(body);
    let limiter = ReadLimiter::new();
    let end = Instant::now() + Duration::from_secs(10);
    let readers = (0..3).map(|_| {
        let source = service.source_with(&ServiceClock::new(), limiter.clone());
        async move {
            let mut reader = source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
            let mut pages = 0;
            while let Ok(page) = tokio::time::timeout_at(end, reader.next_page(10)).await {
                page.unwrap();
                pages += 1;
            }
            pages
        }
    });
    let pages = futures::future::join_all(readers).await;
    assert!(pages.iter().all(|pages| *pages >= 16), "all progress: {pages:?}");
    let starts: Vec<Instant> = service
        .requests()
        .into_iter()
        .filter(|request| request.api == "GetRecords")
        .map(|request| request.at)
        .collect();
    for (i, start) in starts.iter().enumerate() {
        let within = starts[i..].iter().take_while(|at| **at - *start < Duration::from_secs(1)).count();
        assert!(within <= 5, "{within} reads within a second");
    }
}

#[tokio::test(start_paused = true)]
async fn incident_71_a_host_ten_minutes_off_learns_the_service_time_from_successful_answers_alone() {
    let clock = ServiceClock::starting_at(Wall::from_millis(SERVICE_TIME - 600_000));
    let refusals = [(); 8].map(|()| Answer::Error(403, "InvalidSignatureException"));
    let answers = (0..8).map(|n| page(&[], Some(&format!("i{n}"))));
    let service = Service::new(refusals.into_iter().chain([iterator("i")]).chain(answers));
    let source = service.source_with(&clock, ReadLimiter::new());
    let clock = source.clock().unwrap();
    let mut reader = source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
    let date = |passed| SERVICE_TIME + passed;
    let mut passed = 0;
    for round in 0..16 {
        service.set_date(Some(date(passed)));
        let answer = reader.next_page(10).await;
        assert_eq!(answer.is_err(), round < 8);
        if round < 8 {
            assert_eq!((clock.offset(), clock.doubt()), (0, None), "a refusal says nothing about the time");
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        passed += 1000;
    }
    assert!((clock.offset() - 600_000).abs() <= 1000, "{}", clock.offset());
    assert_eq!(clock.doubt(), None);
    let signed: Vec<String> =
        service.requests().iter().map(|request| request.headers["x-amz-date"].clone()).collect();
    assert!(
        signed[1..].iter().all(|date| date.starts_with("20260921T14")),
        "requests are signed with it too: {signed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn incident_71_the_date_of_an_error_page_or_of_an_answer_without_a_request_id_moves_no_clock() {
    let service =
        Service::new([]).otherwise(json!({"ShardIterator": "i", "Records": [], "NextShardIterator": "i"}));
    service.set_date(Some(SERVICE_TIME + 7_200_000));
    service.set_request_id(false);
    let clock = ServiceClock::starting_at(Wall::from_millis(SERVICE_TIME));
    let source = service.source_with(&clock, ReadLimiter::new());
    let mut reader = source.open(&ShardId::from(SHARD), &Position::TrimHorizon).await.unwrap();
    for _ in 0..10 {
        reader.next_page(10).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!((clock.offset(), clock.doubt()), (0, None));
    service.set_request_id(true);
    reader.next_page(10).await.unwrap();
    assert!(clock.doubt().is_some(), "the service itself says it: nothing is certain");
}
