//! Complete listings, regardless of what the service answers in between.

use serde_json::json;
use shardmill_engine::Wall;

use super::*;

fn summary() -> Answer {
    Answer::Ok(json!({"StreamDescriptionSummary": {
        "StreamName": "orders", "StreamARN": ARN, "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_780_000_000.5, "EnhancedMonitoring": [], "OpenShardCount": 3}}))
}

pub(super) fn shard(id: &str, parents: [Option<&str>; 2], closed: bool) -> serde_json::Value {
    let mut shard = json!({"ShardId": id,
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "340282366920938463463374607431768211455"},
        "SequenceNumberRange": {"StartingSequenceNumber": "1"}});
    for (field, parent) in ["ParentShardId", "AdjacentParentShardId"].into_iter().zip(parents) {
        if let Some(parent) = parent {
            shard[field] = parent.into();
        }
    }
    if closed {
        shard["SequenceNumberRange"]["EndingSequenceNumber"] = "9".into();
    }
    shard
}

fn shards(ids: &[&str], token: Option<&str>) -> Answer {
    let shards: Vec<_> = ids.iter().map(|id| shard(id, [None, None], false)).collect();
    let mut body = json!({"Shards": shards});
    if let Some(token) = token {
        body["NextToken"] = token.into();
    }
    Answer::Ok(body)
}

#[tokio::test]
async fn a_listing_of_three_pages_is_complete_and_names_the_stream_only_on_the_first() {
    let service = Service::new([
        summary(),
        shards(&["a", "b"], Some("token-1")),
        shards(&["c"], Some("token-2")),
        Answer::Ok(json!({"Shards": [
            shard("d", [Some("a"), Some("b")], true), shard("e", [Some("d"), None], false)]})),
    ]);
    let listing = service.source().shards().await.unwrap();
    let ids: Vec<&str> = listing.shards.iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    assert_eq!(listing.epoch, "1780000000");
    assert_eq!(listing.service_time, Some(Wall::from_millis(SERVICE_TIME)));
    assert_eq!(
        listing.shards[3].parents,
        [ShardId::from("a"), ShardId::from("b")],
        "a merge has two parents"
    );
    assert_eq!(listing.shards[4].parents, [ShardId::from("d")]);
    assert_eq!([0, 3, 4].map(|i: usize| listing.shards[i].open), [true, false, true]);
    assert_eq!(listing.shards[0].hash_range, Some(HashRange { start: 0, end: u128::MAX }));
    assert_eq!(
        service.bodies("ListShards"),
        [
            json!({"StreamName": "orders", "StreamARN": ARN}),
            json!({"NextToken": "token-1"}),
            json!({"NextToken": "token-2"})
        ]
    );
}

#[tokio::test]
async fn i9_an_error_on_the_second_page_is_an_error_and_never_a_part_of_the_listing() {
    let service = Service::new([
        summary(),
        shards(&["a"], Some("token-1")),
        Answer::Error(400, "LimitExceededException"),
        summary(),
        shards(&["a"], Some("token-1")),
        shards(&["b"], None),
    ]);
    let source = service.source();
    let error = source.shards().await.unwrap_err();
    assert_eq!((error.kind, error.api), (Kind::Throttled, "ListShards"));
    assert_eq!(source.shards().await.unwrap().shards.len(), 2, "the next attempt starts over");
}

#[tokio::test]
async fn an_expired_token_starts_the_listing_over() {
    let service = Service::new([
        summary(),
        shards(&["a", "b"], Some("token-1")),
        Answer::Error(400, "ExpiredNextTokenException"),
        shards(&["a", "b"], Some("token-2")),
        shards(&["c"], None),
    ]);
    let listing = service.source().shards().await.unwrap();
    assert_eq!(listing.shards.len(), 3, "and no shard is there twice");
    assert_eq!(service.bodies("ListShards")[2], json!({"StreamName": "orders", "StreamARN": ARN}));
}

#[tokio::test]
async fn a_listing_whose_tokens_expire_for_ever_or_repeat_is_given_up() {
    let expiring =
        [(); 3].map(|()| [shards(&["a"], Some("t")), Answer::Error(400, "ExpiredNextTokenException")]);
    let expiring = std::iter::once(summary()).chain(expiring.into_iter().flatten());
    assert_eq!(Service::new(expiring).source().shards().await.unwrap_err().kind, Kind::Unavailable);
    let repeating = Service::new([summary(), shards(&["a"], Some("t")), shards(&["b"], Some("t"))]);
    assert_eq!(repeating.source().shards().await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test]
async fn i9_a_listing_without_any_shard_is_not_believed() {
    for nothing in [json!({"Shards": []}), json!({})] {
        let error = Service::new([summary(), Answer::Ok(nothing)]).source().shards().await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn a_missing_stream_is_named_with_what_to_check() {
    let service = Service::new([Answer::Error(400, "ResourceNotFoundException")]);
    let error = service.source().shards().await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(
        error.to_string(),
        "DescribeStreamSummary: ResourceNotFoundException: as the service says \
         (Kinesis stream orders in eu-west-1 (123456789012)); check name, account and region of EventSourceArn"
    );
}

#[tokio::test]
async fn a_service_that_sends_no_date_is_tolerated() {
    let service = Service::new([summary(), shards(&["a"], None)]);
    service.set_date(None);
    let clock = ServiceClock::new();
    let listing = service.source_with(&clock, ReadLimiter::new()).shards().await.unwrap();
    assert_eq!((listing.service_time, clock.offset()), (None, 0));
}
