//! The DynamoDB source against streams in memory.

mod in_place;
mod listing;
mod repeat;
mod undecodable;

use std::time::Duration;

use serde_json::{Value, json};
use shardmill_engine::{Batch, EventContext, Page, Payload, Record, Seq, Wall, encode};
use shardmill_testkit::kinesis::{Fault, Operation};
use shardmill_testkit::{FakeDynamoDbStreams, StoredChange};
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::source::SourceErrorKind as Kind;

const TABLE: &str = "orders";

/// A table with one shard, and a source of its stream.
struct Case {
    fake: FakeDynamoDbStreams,
    source: DynamoDbSource,
}

impl Case {
    fn new() -> Self {
        Self::with_shards(1)
    }

    fn with_shards(shards: u32) -> Self {
        let fake = FakeDynamoDbStreams::new();
        let arn = fake.create_table(TABLE, &["id"], shards).unwrap();
        let source = Self::source(&fake, &arn);
        Self { fake, source }
    }

    fn source(fake: &FakeDynamoDbStreams, arn: &str) -> DynamoDbSource {
        let clock = ServiceClock::starting_at(Wall::from_millis(i64::try_from(fake.now_ms()).unwrap()));
        let source = DynamoDbSource::new(&fake.sdk_config(), arn).unwrap();
        source.attach(&SourceContext::new(clock, ReadLimiter::new())).unwrap();
        source
    }

    fn put(&self, id: &str, n: u32) -> StoredChange {
        let item = json!({"id": {"S": id}, "n": {"N": n.to_string()}});
        self.fake.put_item(TABLE, &item).unwrap().expect("it differs from before")
    }

    fn shard(&self) -> ShardId {
        ShardId::new(self.fake.shards(TABLE).unwrap()[0].id.as_str())
    }

    async fn reader(&self, at: Position) -> Box<dyn ShardReader> {
        self.source.open(&self.shard(), &at).await.unwrap()
    }

    fn asked(&self, operation: Operation) -> usize {
        self.fake.calls().of(operation).len()
    }
}

fn after(change: &StoredChange) -> Position {
    Position::After(Seq::plain(&*change.sequence_number))
}

fn numbers(page: &Page) -> Vec<&str> {
    page.records.iter().map(|record| record.seq.number.as_str()).collect()
}

fn number(change: &StoredChange) -> &str {
    &change.sequence_number
}

fn event(source: &DynamoDbSource, records: Vec<Record>) -> Value {
    let cx = EventContext {
        event_source_arn: (&source.stream().arn).into(),
        region: source.stream().arn.region().into(),
        invoke_identity_arn: "arn:aws:iam::000000000000:role/shardmill".into(),
        shard: "s".into(),
    };
    serde_json::from_slice(&encode(&Batch::new(records).unwrap(), &cx, None)).unwrap()
}

// --- Names ---

#[test]
fn an_arn_is_taken_apart_and_anything_else_is_refused_with_the_form() {
    let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/my.orders/stream/2026-09-17T14:10:44.560";
    let config = FakeDynamoDbStreams::new().sdk_config();
    let source = |arn: &str| DynamoDbSource::new(&config, arn);
    let stream = source(arn).unwrap().stream().clone();
    assert_eq!((stream.stream.as_str(), stream.arn.as_str()), ("my.orders", arn));
    assert_eq!(
        stream.to_string(),
        "DynamoDB stream 2026-09-17T14:10:44.560 of table my.orders in eu-west-1 (123456789012)"
    );
    for wrong in [
        "",
        "orders",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/orders",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/",
        "arn:aws:dynamodb::123456789012:table/orders/stream/2026",
        "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
    ] {
        let error = source(wrong).unwrap_err();
        assert_eq!(error.kind, Kind::Rejected, "{wrong}");
        let text = format!(
            "EventSourceArn: `{wrong}` is not the ARN of a DynamoDB stream; \
             it has the form arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL"
        );
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_client_of_the_source_repeats_nothing_and_its_calls_are_bounded() {
    let case = Case::new();
    let inner = case.source.inner();
    let config = inner.client.config();
    assert!(!config.retry_config().unwrap().has_retry(), "retries belong to the engine");
    let timeouts = config.timeout_config().unwrap();
    let set = [timeouts.connect_timeout(), timeouts.read_timeout(), timeouts.operation_timeout()];
    assert_eq!(set.map(|set| set.map(|set| set.as_secs())), [Some(5), Some(30), Some(30)]);
}

// --- Records ---

#[tokio::test]
async fn a_shard_that_waits_for_its_turn_has_no_memory_for_a_call() {
    let mut reader = Case::new().reader(Position::TrimHorizon).await;
    let read = reader.next_page(1);
    assert!(size_of_val(&*read) <= 2048, "{} bytes", size_of_val(&*read));
}

#[tokio::test(start_paused = true)]
async fn changes_arrive_in_order_as_lambdas_events_with_the_images_that_were_written() {
    let case = Case::new();
    let nested = json!({"id": {"S": "a"}, "m": {"M": {"l": {"L": [{"BOOL": true}, {"NULL": true}]}}},
        "b": {"B": "Zm9v"}, "bs": {"BS": ["Zm8=", "YmFy"]}, "ns": {"NS": ["1", "2.5"]}, "ss": {"SS": ["x"]}});
    case.fake.put_item(TABLE, &nested).unwrap().unwrap();
    case.put("a", 1);
    case.fake.expire_item(TABLE, &json!({"id": {"S": "a"}})).unwrap().unwrap();
    let page = case.reader(Position::TrimHorizon).await.next_page(100).await.unwrap();
    let at = page.records[0].arrival.unwrap();
    assert_eq!(at.as_millis() % 1000, 0, "the service knows the second only");
    let keys: Vec<&[u8]> = page
        .records
        .iter()
        .map(|record| match &record.payload {
            Payload::DynamoDb(change) => change.key(),
            Payload::Kinesis { .. } => panic!("another kind of record"),
        })
        .collect();
    assert_eq!(keys, [br#"{"id":{"S":"a"}}"#; 3], "R48");
    let event = event(&case.source, page.records);
    let records = event["Records"].as_array().unwrap();
    for (record, change) in records.iter().zip(case.fake.changes(TABLE).unwrap()) {
        let seconds = at.as_millis() / 1000;
        let mut expected = json!({
            "eventName": change.event_name, "eventVersion": "1.1", "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1", "eventSourceARN": case.source.stream().arn.as_str(),
            "eventID": record["eventID"],
            "dynamodb": {
                "ApproximateCreationDateTime": seconds as f64, "Keys": change.keys,
                "SequenceNumber": change.sequence_number, "SizeBytes": record["dynamodb"]["SizeBytes"],
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        });
        for (name, image) in [("NewImage", change.new_image), ("OldImage", change.old_image)] {
            if let Some(image) = image {
                expected["dynamodb"][name] = image;
            }
        }
        if change.event_name == "REMOVE" {
            expected["userIdentity"] = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
        }
        assert_eq!(*record, expected);
        assert_eq!(record["eventID"].as_str().unwrap().len(), 32);
    }
    assert_eq!(records.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn pages_follow_each_other_and_the_limit_stays_within_what_the_service_takes() {
    let case = Case::new();
    let changes: Vec<_> = (0..5).map(|n| case.put("a", n)).collect();
    let mut reader = case.reader(Position::TrimHorizon).await;
    assert_eq!(numbers(&reader.next_page(2).await.unwrap()), [number(&changes[0]), number(&changes[1])]);
    case.fake.faults().on(Operation::GetRecords).inject(Fault::EmptyPage);
    let empty = reader.next_page(2).await.unwrap();
    assert_eq!((empty.records.len(), empty.end_of_shard, empty.millis_behind), (0, false, None));
    assert_eq!(reader.next_page(usize::MAX).await.unwrap().records.len(), 3, "at most 1,000 are asked for");
    assert_eq!(numbers(&reader.next_page(0).await.unwrap()), [""; 0]);
    assert_eq!(case.asked(Operation::GetShardIterator), 1);
}

// --- Positions ---

#[tokio::test(start_paused = true)]
async fn each_position_starts_where_it_says() {
    let case = Case::new();
    let first = case.put("a", 1);
    advance(Duration::from_secs(10)).await;
    let (second, third) = (case.put("a", 2), case.put("a", 3));
    let now = i64::try_from(case.fake.now_ms()).unwrap();
    for (at, expected) in [
        (Position::TrimHorizon, vec![&first, &second, &third]),
        (Position::Latest, vec![]),
        // Within the second of the last two: their time is known to the second only.
        (Position::AtTimestamp(now), vec![&second, &third]),
        (Position::AtTimestamp(now - 60_000), vec![&first, &second, &third]),
        (Position::At(Seq::plain(number(&second))), vec![&second, &third]),
        (Position::After(Seq::plain(format!("000{}", number(&second)))), vec![&third]),
    ] {
        let page = case.reader(at.clone()).await.next_page(10).await.unwrap();
        assert_eq!(numbers(&page), expected.into_iter().map(number).collect::<Vec<_>>(), "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn opening_asks_nothing_and_a_finished_shard_is_never_asked() {
    let case = Case::new();
    let mut finished = case.reader(Position::ShardEnd).await;
    assert_eq!(finished.next_page(1).await.unwrap(), Page::last(Vec::new()));
    case.reader(Position::TrimHorizon).await;
    assert!(case.fake.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn i15_where_no_iterator_starts_at_a_time_older_records_are_skipped_but_the_position_advances() {
    let case = Case::new();
    case.fake.set_at_timestamp(false);
    let old: Vec<_> = (0..3).map(|n| case.put("a", n)).collect();
    advance(Duration::from_secs(180)).await;
    let pinned = i64::try_from(case.fake.now_ms()).unwrap();
    let new = [case.put("a", 7), case.put("a", 8)];
    let mut reader = case.reader(Position::AtTimestamp(pinned)).await;
    let page = reader.next_page(2).await.unwrap();
    assert_eq!((page.records.len(), page.continuation), (0, Some(Seq::plain(number(&old[1])))));
    let page = reader.next_page(2).await.unwrap();
    assert_eq!(
        (numbers(&page), page.continuation.clone()),
        (vec![number(&new[0])], Some(Seq::plain(number(&old[2]))))
    );
    let page = reader.next_page(2).await.unwrap();
    assert_eq!((numbers(&page), page.continuation.clone()), (vec![number(&new[1])], None));
    assert_eq!(case.asked(Operation::GetShardIterator), 3, "twice for the time, once from the horizon");
}

#[tokio::test(start_paused = true)]
async fn i15_a_passing_fault_of_the_service_does_not_read_from_the_horizon() {
    let case = Case::new();
    case.put("a", 1);
    advance(Duration::from_secs(180)).await;
    case.fake.faults().on(Operation::GetShardIterator).inject(Fault::InternalFailure);
    let pinned = i64::try_from(case.fake.now_ms()).unwrap();
    let page = case.reader(Position::AtTimestamp(pinned)).await.next_page(10).await.unwrap();
    assert_eq!((page.records.len(), page.continuation), (0, None));
    assert_eq!(case.asked(Operation::GetShardIterator), 2);
    let _refused = case.fake.faults().on(Operation::GetShardIterator).hold(Fault::Throttle);
    let error = case.reader(Position::AtTimestamp(pinned)).await.next_page(10).await.unwrap_err();
    assert_eq!(error.kind, Kind::Throttled, "an answer that says nothing about the iterator's type");
}

// --- The end of a shard ---

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_names_the_children_that_its_description_has_and_is_remembered() {
    let case = Case::new();
    let last = case.put("a", 1);
    let children = case.fake.split(TABLE, case.shard().as_str()).unwrap();
    let mut reader = case.reader(Position::TrimHorizon).await;
    let page = reader.next_page(10).await.unwrap();
    assert!(page.end_of_shard);
    assert_eq!(numbers(&page), [number(&last)], "the records of the last page are not lost");
    let found: Vec<&str> = page.children.iter().map(|child| child.id.as_str()).collect();
    assert_eq!(found, children);
    assert!(page.children.iter().all(|child| child.parents == [case.shard()]));
    assert_eq!(case.asked(Operation::DescribeStream), 1, "only the children are asked for");
    let calls = case.fake.calls().len();
    let again = reader.next_page(10).await.unwrap();
    assert!(again.end_of_shard && again.records.is_empty());
    assert_eq!(case.fake.calls().len(), calls, "nothing more is asked");
}

#[tokio::test(start_paused = true)]
async fn incident_60_a_closed_shard_without_a_child_and_a_disabled_stream_are_read_to_their_end() {
    let closed = Case::new();
    let change = closed.put("a", 1);
    closed.fake.close_shard(TABLE, closed.shard().as_str()).unwrap();
    let disabled = Case::new();
    disabled.put("a", 1);
    disabled.fake.disable_stream(TABLE).unwrap();
    disabled.fake.set_ends_shown(false);
    for case in [closed, disabled] {
        let page = case.reader(Position::TrimHorizon).await.next_page(10).await.unwrap();
        assert_eq!((page.end_of_shard, page.children.len()), (true, 0));
        assert_eq!(page.records.len(), 1, "{change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn i14_a_missing_next_iterator_is_no_end_while_the_shard_goes_on() {
    let case = Case::new();
    let first = case.put("a", 1);
    let mut reader = case.reader(Position::TrimHorizon).await;
    case.fake.faults().on(Operation::GetRecords).times(2).inject(Fault::NullIterator);
    let page = reader.next_page(10).await.unwrap();
    assert_eq!((numbers(&page), page.end_of_shard), (vec![number(&first)], false));
    let error = reader.next_page(10).await.unwrap_err();
    assert_eq!(error.kind, Kind::IteratorExpired, "an empty answer opens the shard again: {error}");
    assert!(error.to_string().contains("has not ended"), "{error}");
    let second = case.put("a", 2);
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), [number(&second)], "no duplicate, no gap");
}

#[tokio::test(start_paused = true)]
async fn i3_what_was_read_comes_before_a_description_that_fails_and_the_end_after_it() {
    let case = Case::new();
    let last = case.put("a", 1);
    let child = case.fake.roll(TABLE, case.shard().as_str()).unwrap();
    let refused = case.fake.faults().on(Operation::DescribeStream).hold(Fault::AccessDenied);
    let mut reader = case.reader(Position::TrimHorizon).await;
    let page = reader.next_page(10).await.unwrap();
    assert_eq!((numbers(&page), page.end_of_shard), (vec![number(&last)], false));
    let error = reader.next_page(10).await.unwrap_err();
    assert_eq!((error.kind, error.api), (Kind::AccessDenied, "DescribeStream"));
    assert!(error.to_string().contains("allow dynamodb:DescribeStream on arn:"), "{error}");
    drop(refused);
    let page = reader.next_page(10).await.unwrap();
    assert_eq!((page.end_of_shard, page.children[0].id.as_str()), (true, child.as_str()));
}

#[tokio::test(start_paused = true)]
async fn i3_what_was_read_is_handed_over_even_if_the_call_was_abandoned_at_the_end_of_the_shard() {
    let case = Case::new();
    let last = case.put("a", 1);
    case.fake.roll(TABLE, case.shard().as_str()).unwrap();
    case.fake.faults().on(Operation::DescribeStream).inject(Fault::Hang);
    let mut reader = case.reader(Position::TrimHorizon).await;
    assert!(timeout(Duration::from_secs(1), reader.next_page(10)).await.is_err());
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), [number(&last)]);
    assert!(reader.next_page(10).await.unwrap().end_of_shard);
}

#[tokio::test(start_paused = true)]
async fn children_that_are_not_yet_listed_do_not_hold_up_the_end() {
    let case = Case::new();
    case.fake.roll(TABLE, case.shard().as_str()).unwrap();
    let _lag = case
        .fake
        .faults()
        .on(Operation::DescribeStream)
        .hold(Fault::OmitChildrenOf(case.shard().to_string()));
    let page = case.reader(Position::TrimHorizon).await.next_page(10).await.unwrap();
    assert_eq!((page.end_of_shard, page.children.len()), (true, 0), "the next listing finds them");
}

// --- Faults ---

#[tokio::test(start_paused = true)]
async fn faults_leave_the_reader_where_it_stood() {
    let error = |status, code: &str| Fault::Error { status, code: code.into(), message: "so".into() };
    for (fault, kind) in [
        (error(400, "ThrottlingException"), Kind::Throttled),
        (error(400, "LimitExceededException"), Kind::Throttled),
        (error(400, "AccessDeniedException"), Kind::AccessDenied),
        (error(400, "UnrecognizedClientException"), Kind::AccessDenied),
        (error(400, "ResourceNotFoundException"), Kind::NotFound),
        (error(400, "ValidationException"), Kind::Rejected),
        (error(500, "InternalServerError"), Kind::Unavailable),
        // An object without records and without an iterator (I3).
        (error(200, "x"), Kind::Unavailable),
        (Fault::GarbageBody, Kind::Unavailable),
        (Fault::CutBody, Kind::Unavailable),
        (Fault::Disconnect, Kind::Unavailable),
        (Fault::Hang, Kind::Unavailable),
    ] {
        let case = Case::new();
        case.put("a", 1);
        let mut reader = case.reader(Position::TrimHorizon).await;
        reader.next_page(10).await.unwrap();
        case.fake.faults().on(Operation::GetRecords).inject(fault.clone());
        let second = case.put("a", 2);
        let begin = Instant::now();
        let error = reader.next_page(10).await.unwrap_err();
        assert_eq!((error.kind, error.api), (kind, "GetRecords"), "{fault:?}: {error}");
        assert!(begin.elapsed() <= Duration::from_secs(31), "{fault:?}");
        let text = error.to_string();
        assert!(text.contains("of table orders") && text.contains(case.shard().as_str()), "{text}");
        assert_eq!(numbers(&reader.next_page(10).await.unwrap()), [number(&second)], "{fault:?}");
        assert_eq!(case.asked(Operation::GetShardIterator), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn i14_an_iterator_older_than_fifteen_minutes_asks_for_a_new_reader() {
    let case = Case::new();
    let first = case.put("a", 1);
    let mut reader = case.reader(Position::TrimHorizon).await;
    reader.next_page(10).await.unwrap();
    advance(Duration::from_secs(15 * 60 + 1)).await;
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::IteratorExpired);
    let second = case.put("a", 2);
    let page = case.reader(after(&first)).await.next_page(10).await.unwrap();
    assert_eq!(numbers(&page), [number(&second)]);
}

#[tokio::test(start_paused = true)]
async fn i17_incident_61_trimmed_records_are_a_kind_of_failure_of_their_own() {
    let case = Case::new();
    let changes: Vec<_> = (0..3).map(|n| case.put("a", n)).collect();
    let mut reader = case.reader(after(&changes[0])).await;
    case.fake.trim(TABLE, case.shard().as_str(), number(&changes[1])).unwrap();
    for _ in 0..2 {
        let error = reader.next_page(10).await.unwrap_err();
        assert_eq!((error.kind, error.api), (Kind::Trimmed, "GetShardIterator"));
        assert!(error.to_string().contains("the oldest one that the service holds are gone"), "{error}");
    }
    // A horizon that moved away before the first read is no gap: the next call starts at where it is now.
    let mut reader = case.reader(Position::TrimHorizon).await;
    case.fake.faults().on(Operation::GetRecords).inject(Fault::Error {
        status: 400,
        code: "TrimmedDataAccessException".into(),
        message: "so".into(),
    });
    assert_eq!(reader.next_page(10).await.unwrap_err().kind, Kind::Trimmed);
    assert_eq!(numbers(&reader.next_page(10).await.unwrap()), [number(&changes[2])]);
    assert_eq!(case.asked(Operation::GetShardIterator), 4);
}

// --- Pace ---

#[tokio::test(start_paused = true)]
async fn i12_readers_of_one_process_share_the_pace_of_a_shard() {
    let case = Case::new();
    let (mut a, mut b) = (case.reader(Position::TrimHorizon).await, case.reader(Position::TrimHorizon).await);
    for _ in 0..10 {
        let (a, b) = tokio::join!(a.next_page(1), b.next_page(1));
        a.unwrap();
        b.unwrap();
    }
    let reads = case.fake.calls().of(Operation::GetRecords);
    assert_eq!(reads.len(), 20);
    assert!(reads.max_within(Duration::from_secs(1)) <= 5);
}

#[tokio::test(start_paused = true)]
async fn r1_empty_pages_of_a_closed_shard_are_no_tip_to_wait_at() {
    let case = Case::new();
    case.put("a", 1);
    let mut reader = case.reader(Position::TrimHorizon).await;
    advance(Duration::from_secs(90)).await;
    let page = reader.next_page(1).await.unwrap();
    assert!((90_000..92_000).contains(&page.millis_behind.unwrap()), "{page:?}");
    case.put("a", 2);
    case.fake.roll(TABLE, case.shard().as_str()).unwrap();
    let empty = || case.fake.faults().on(Operation::GetRecords).inject(Fault::EmptyPage);
    empty();
    assert_eq!(reader.next_page(1).await.unwrap().millis_behind, None, "open, as far as is known");
    case.source.shards().await.unwrap();
    empty();
    assert!(reader.next_page(1).await.unwrap().millis_behind.unwrap() > 0);
}
