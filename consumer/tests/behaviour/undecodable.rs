//! Records that the SDK cannot decode, from the stream to the checkpoint.

use std::time::Duration;

use serde_json::{Value, json};
use shardmill::engine::{GapKind, OnGap, OnUndecodable};
use shardmill_testkit::{FakeDynamoDbStreams, StoredChange};

use crate::support::*;

fn put(fake: &FakeDynamoDbStreams, id: &str, tags: &Value) -> StoredChange {
    fake.put_item("orders", &json!({"id": {"S": id}, "tags": tags})).unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn incident_97_items_with_dynamodb_locals_empty_map_are_delivered() {
    let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
    let arn = fake.create_table("orders", &["id"], 1).unwrap();
    put(&fake, "1", &json!({}));
    put(&fake, "2", &json!({"L": [{}]}));
    let a = worker("a");
    let run = launch(of_table(&fake, &arn, &a, seen.handler("a"), &store));
    until("the items", || seen.len() == 2).await;
    run.stop().await;
}

#[tokio::test(start_paused = true)]
async fn incident_97_a_record_that_cannot_be_decoded_holds_its_shard_or_is_skipped_as_a_counted_gap() {
    for (policy, gap_policy) in [
        (OnUndecodable::Stop, OnGap::Continue),
        (OnUndecodable::Skip, OnGap::Continue),
        (OnUndecodable::Skip, OnGap::Stop),
    ] {
        let (fake, store, seen) = (FakeDynamoDbStreams::new(), store(), Seen::default());
        let arn = fake.create_table("orders", &["id"], 1).unwrap();
        let first = put(&fake, "1", &json!({"S": "x"}));
        let a = worker("a");
        let mapping = table_mapping(&arn).on_undecodable(policy).on_gap(gap_policy);
        let run = launch(of_table_as(&fake, mapping, &a, seen.handler("a"), &store));
        until("the first item", || seen.len() == 1).await;
        let bad = put(&fake, "2", &json!({"N": 7}));
        let last = put(&fake, "3", &json!({"S": "x"}));
        if policy == OnUndecodable::Stop {
            until("the trouble is shown", || run.report().shards[0].last_error.is_some()).await;
            pass(Duration::from_secs(300)).await;
            let text = run.report().shards[0].last_error.clone().unwrap().message;
            let place =
                format!("GetRecords: after sequence number {} the answer cannot", first.sequence_number);
            assert!(text.starts_with(&place) && text.contains(&bad.sequence_number), "{text}");
            assert_eq!(seen.len(), 1, "it is waited at, and nothing behind it comes first");
            run.stop().await;
            continue;
        }
        until("the last item", || seen.len() == 2).await;
        let snapshot = run.report().shards[0].snapshot.clone().unwrap();
        let gap = snapshot.last_gap.unwrap();
        assert_eq!((snapshot.counters.gaps, gap.kind), (1, GapKind::Undecodable));
        assert_eq!(gap.from.to_string(), format!("at {}", bad.sequence_number));
        run.stop().await;
        assert_eq!(seen.all()[1].seq, last.sequence_number);
        assert_eq!(sequence(&leases(&store).await[0].checkpoint), Some(last.sequence_number));
    }
}
