//! Complete listings, regardless of what the service answers in between.

use super::*;

fn names(listing: &ShardListing) -> Vec<&str> {
    listing.shards.iter().map(|shard| shard.id.as_str()).collect()
}

fn open(listing: &ShardListing) -> Vec<bool> {
    listing.shards.iter().map(|shard| shard.open).collect()
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_several_pages_is_complete_and_knows_parents_and_label() {
    let case = Case::with_shards(4);
    let first = case.shard();
    let child = case.fake.roll(TABLE, first.as_str()).unwrap();
    case.fake.set_list_page_size(2);
    let now = i64::try_from(case.fake.now_ms()).unwrap();
    let listing = case.source.shards().await.unwrap();
    let all = case.fake.shards(TABLE).unwrap();
    assert_eq!(names(&listing), all.iter().map(|shard| shard.id.as_str()).collect::<Vec<_>>());
    assert_eq!((names(&listing)[4], open(&listing)), (child.as_str(), vec![false, true, true, true, true]));
    assert_eq!(listing.shards[4].parents, [first]);
    assert_eq!(listing.epoch, case.source.stream().label().unwrap());
    assert_eq!(listing.service_time.unwrap().as_millis(), now / 1000 * 1000);
    assert_eq!(case.asked(Operation::DescribeStream), 3);
}

#[tokio::test(start_paused = true)]
async fn i9_an_error_on_the_second_page_is_an_error_and_never_a_part_of_the_listing() {
    let case = Case::with_shards(4);
    case.fake.set_list_page_size(2);
    case.fake.faults().on(Operation::DescribeStream).skip(1).inject(Fault::InternalFailure);
    let error = case.source.shards().await.unwrap_err();
    assert_eq!((error.kind, error.api), (Kind::Unavailable, "DescribeStream"));
    assert_eq!(case.source.shards().await.unwrap().shards.len(), 4, "the next attempt starts over");
}

#[tokio::test(start_paused = true)]
async fn incident_62_a_throttled_page_is_asked_again_and_the_budget_of_the_account_is_kept() {
    let case = Case::with_shards(1_000);
    case.fake.set_list_page_size(10);
    case.fake.faults().on(Operation::DescribeStream).skip(50).times(3).inject(Fault::LimitExceeded);
    let other = Case::source(&case.fake, case.source.stream().arn.as_str());
    let other = DynamoDbSource::from_client(other.inner().client.clone(), other.stream()).unwrap();
    let limiter = case.source.inner().limiter.clone();
    other.attach(&SourceContext::new(ServiceClock::new(), limiter)).unwrap();
    let (one, two) = tokio::join!(case.source.shards(), other.shards());
    assert_eq!((one.unwrap().shards.len(), two.unwrap().shards.len()), (1_000, 1_000));
    let calls = case.fake.calls().of(Operation::DescribeStream);
    assert_eq!(calls.len(), 203, "no page is asked for in vain");
    assert!(calls.max_within(Duration::from_secs(1)) <= 10);
    let _throttled = case.fake.faults().on(Operation::DescribeStream).hold(Fault::LimitExceeded);
    assert_eq!(case.source.shards().await.unwrap_err().kind, Kind::Throttled, "and no page for ever");
}

#[tokio::test(start_paused = true)]
async fn incident_60_an_open_parent_with_a_child_is_closed_and_the_leaves_of_a_disabled_stream_are_read() {
    let case = Case::new();
    case.fake.roll(TABLE, case.shard().as_str()).unwrap();
    case.fake.set_ends_shown(false);
    let enabled = case.source.shards().await.unwrap();
    assert_eq!((open(&enabled), enabled.is_disabled), (vec![false, true], false));
    case.fake.set_ends_shown(true);
    case.fake.disable_stream(TABLE).unwrap();
    let disabled = case.source.shards().await.unwrap();
    assert_eq!(
        (open(&disabled), disabled.is_disabled),
        (vec![false, true], true),
        "LATEST begins at the leaves"
    );
    for shard in case.fake.shards(TABLE).unwrap() {
        case.fake.forget_shard(TABLE, &shard.id).unwrap();
    }
    assert_eq!(case.source.shards().await.unwrap().shards, [], "a day later nothing is left");
}

#[tokio::test(start_paused = true)]
async fn incident_60_a_stream_that_is_still_being_enabled_is_waited_for() {
    let case = Case::new();
    case.fake.set_enabling(TABLE, true).unwrap();
    let error = case.source.shards().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().contains("still being enabled"), "{error}");
    case.fake.set_enabling(TABLE, false).unwrap();
    assert_eq!(case.source.shards().await.unwrap().shards.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn i9_a_listing_without_any_shard_is_not_believed() {
    let case = Case::new();
    case.fake.faults().on(Operation::DescribeStream).inject(Fault::OmitShard(case.shard().to_string()));
    assert_eq!(case.source.shards().await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn incident_64_a_stream_that_is_enabled_again_is_another_stream() {
    let case = Case::new();
    case.put("a", 1);
    let old = case.source.shards().await.unwrap();
    case.fake.disable_stream(TABLE).unwrap();
    let arn = case.fake.enable_stream(TABLE).unwrap();
    let new = Case::source(&case.fake, &arn).shards().await.unwrap();
    assert_ne!(old.epoch, new.epoch, "so no lease of one is a lease of the other");
    assert_eq!(case.source.shards().await.unwrap().epoch, old.epoch, "the old one is still read to its end");
}

#[tokio::test(start_paused = true)]
async fn a_missing_stream_is_named_with_what_to_check() {
    let case = Case::new();
    let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/gone/stream/2026-01-01T00:00:00.000";
    let error = Case::source(&case.fake, arn).shards().await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let text = error.to_string();
    assert!(
        text.contains("(DynamoDB stream 2026-01-01T00:00:00.000 of table gone in us-east-1 (000000000000))"),
        "{text}"
    );
    assert!(text.ends_with("a stream that was disabled and enabled again has a new ARN"), "{text}");
}
