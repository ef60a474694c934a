//! From the SDK's types to the event.

use aws_sdk_dynamodbstreams::primitives::Blob;
use aws_sdk_dynamodbstreams::types::{AttributeValue, OperationType, Record as SdkRecord, StreamViewType};
use shardmill_engine::{
    AttributeModel, AttributeRef, DynamoDbEncoder, DynamoDbFields, InvalidItem, Record, Seq, UserIdentity,
};

use crate::source::aws::millis;

/// The SDK's attribute values.
struct Sdk;

impl AttributeModel for Sdk {
    type Value = AttributeValue;
    type Binary = Blob;

    fn read(value: &AttributeValue) -> Option<AttributeRef<'_, Self>> {
        Some(match value {
            AttributeValue::S(text) => AttributeRef::S(text),
            AttributeValue::N(number) => AttributeRef::N(number),
            AttributeValue::B(bytes) => AttributeRef::B(bytes.as_ref()),
            AttributeValue::Bool(is) => AttributeRef::Bool(*is),
            AttributeValue::Null(is) => AttributeRef::Null(*is),
            AttributeValue::M(map) => AttributeRef::M(map),
            AttributeValue::L(list) => AttributeRef::L(list),
            AttributeValue::Ss(set) => AttributeRef::Ss(set),
            AttributeValue::Ns(set) => AttributeRef::Ns(set),
            AttributeValue::Bs(set) => AttributeRef::Bs(set),
            _ => return None,
        })
    }
}

/// Why an answer's record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("a record without a sequence number")]
    NoSequenceNumber,
    #[error("record {0}: {1}")]
    Item(String, InvalidItem),
}

/// Encodes a record as the event shows it.
pub(super) fn convert(encoder: &mut DynamoDbEncoder, record: &SdkRecord) -> Result<Record, Unusable> {
    let change = record.dynamodb.as_ref();
    let number = change.and_then(|change| change.sequence_number.as_deref()).unwrap_or_default();
    if number.is_empty() {
        return Err(Unusable::NoSequenceNumber);
    }
    let arrival = change.and_then(|change| change.approximate_creation_date_time.as_ref()).map(millis);
    let identity = record.user_identity.as_ref();
    let fields = DynamoDbFields::<Sdk> {
        event_id: record.event_id.as_deref(),
        event_name: record.event_name.as_ref().map(OperationType::as_str),
        event_version: record.event_version.as_deref(),
        event_source: record.event_source.as_deref(),
        aws_region: record.aws_region.as_deref(),
        approximate_creation: arrival,
        keys: change.and_then(|change| change.keys.as_ref()),
        new_image: change.and_then(|change| change.new_image.as_ref()),
        old_image: change.and_then(|change| change.old_image.as_ref()),
        sequence_number: number,
        size_bytes: change.and_then(|change| change.size_bytes),
        stream_view_type: change
            .and_then(|change| change.stream_view_type.as_ref())
            .map(StreamViewType::as_str),
        user_identity: identity.map(|identity| UserIdentity {
            kind: identity.r#type.as_deref(),
            principal_id: identity.principal_id.as_deref(),
        }),
    };
    match encoder.encode(&fields) {
        Ok(encoded) => Ok(Record::dynamodb(Seq::plain(number), arrival, encoded)),
        Err(error) => Err(Unusable::Item(number.to_owned(), error)),
    }
}
