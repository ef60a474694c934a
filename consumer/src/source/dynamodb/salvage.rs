//! What can be read of an answer that the SDK cannot decode.
//!
//! DynamoDB Local drops the type of an empty map: `"tags": {}` where the service writes `"tags": {"M": {}}`
//! (amazon-dynamodb-local-samples issue 37).

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::error::SdkError;
use aws_sdk_dynamodbstreams::operation::get_records::{GetRecordsError, GetRecordsOutput};
use serde_json::{Map, Value, json};
use shardmill_engine::Seq;

use crate::source::SourceError;
use crate::source::aws::{Call, Parts, Replay, body_of, number_in, root};

pub(super) type Failure = SdkError<GetRecordsError>;

/// What can be decoded of the answer to `call`, and the records that cannot; an error unless it `skips` them, `None` if
/// the failure is not about single records.
pub(super) async fn salvage(
    client: &Client,
    call: &Call<'_>,
    skips: bool,
    error: &Failure,
) -> Option<Result<(GetRecordsOutput, Vec<Seq>), SourceError>> {
    let mut parts = Parts::of(&body_of(error)?)?;
    if parts.records.iter_mut().map(repair).filter(|repaired| *repaired).count() > 0
        && let Ok(answer) = replay(client, parts.with(parts.records.clone())).await
    {
        return Some(Ok((answer, Vec::new())));
    }
    let (mut good, mut skipped) = (Vec::new(), Vec::new());
    for record in &parts.records {
        let Err(error) = replay(client, parts.with(vec![record.clone()])).await else {
            good.push(record.clone());
            continue;
        };
        // Any other failure says nothing about the record: the page is read again.
        body_of(&error)?;
        let number = number_in(&record["dynamodb"]["SequenceNumber"]);
        match number {
            Some(number) if skips => skipped.push(Seq::plain(number)),
            _ => {
                let what =
                    format!("record {}: {}", number.unwrap_or("without a sequence number"), root(&error));
                return Some(Err(call.undecodable(&what)));
            }
        }
    }
    let answer = replay(client, parts.with(good)).await.ok()?;
    Some(Ok((answer, skipped)))
}

/// The SDK decodes an answer as if the service had just sent it.
pub(super) async fn replay(client: &Client, answer: Replay) -> Result<GetRecordsOutput, Failure> {
    let replayed = aws_sdk_dynamodbstreams::config::Builder::new()
        .http_client(answer.client())
        .credentials_provider(Replay::credentials())
        .retry_config(Replay::retries());
    let request = client.get_records().shard_iterator("replayed");
    request.customize().config_override(replayed).send().await
}

/// Gives the empty maps of a record their type; whether there were any.
fn repair(record: &mut Value) -> bool {
    let images = ["Keys", "NewImage", "OldImage"];
    let Some(change) = record.get_mut("dynamodb").and_then(Value::as_object_mut) else { return false };
    let all =
        images.map(|image| change.get_mut(image).and_then(Value::as_object_mut).is_some_and(repair_items));
    all.contains(&true)
}

fn repair_items(items: &mut Map<String, Value>) -> bool {
    items.values_mut().map(repair_value).fold(false, |any, one| any | one)
}

fn repair_value(value: &mut Value) -> bool {
    let Some(typed) = value.as_object_mut() else { return false };
    if typed.is_empty() {
        *value = json!({"M": {}});
        return true;
    }
    if let Some(map) = typed.get_mut("M").and_then(Value::as_object_mut) {
        return repair_items(map);
    }
    let list = typed.get_mut("L").and_then(Value::as_array_mut);
    list.is_some_and(|list| list.iter_mut().map(repair_value).fold(false, |any, one| any | one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incident_97_empty_maps_get_their_type_at_any_depth_and_nothing_else_changes() {
        let image = json!({
            "pk": {"S": "1"}, "tags": {}, "deep": {"M": {"inner": {}, "list": {"L": [{}, {"N": "1.0"}]}}},
            "typed": {"M": {}}, "none": {"L": []}
        });
        let mut record = json!({"dynamodb": {"NewImage": image, "SequenceNumber": "7"}});
        assert!(repair(&mut record));
        assert_eq!(
            record["dynamodb"],
            json!({"SequenceNumber": "7", "NewImage": {
                "pk": {"S": "1"}, "tags": {"M": {}},
                "deep": {"M": {"inner": {"M": {}}, "list": {"L": [{"M": {}}, {"N": "1.0"}]}}},
                "typed": {"M": {}}, "none": {"L": []}
            }})
        );
        assert!(!repair(&mut record), "nothing is left to repair");
        assert!(!repair(&mut json!({"eventID": "1"})));
    }
}
