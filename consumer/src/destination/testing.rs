//! Discarded batches and services for the tests of destinations.

use std::sync::Arc;

use bytes::Bytes;
use shardmill_engine::{
    Batch, Condition, Data, EventContext, FailedBatch, FunctionResponse, Record, RequestId, Seq, Wall,
};

use super::{Discarded, FailureNames};

const STREAM: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders";

/// A batch of one record with this sequence number and `size` bytes of payload.
pub(super) fn discarded(number: &str, size: usize) -> Discarded {
    let data = Data::Raw(Bytes::from(vec![7; size]));
    let record =
        Record::new(Seq::plain(number), Some("a \"key\"".to_owned()), Some(Wall::from_millis(1)), data);
    Discarded {
        batch: FailedBatch {
            batch: Batch::new(vec![record]).unwrap(),
            shard: "shardId-000000000000".into(),
            request_id: RequestId::from_random(7),
            condition: Condition::RetryAttemptsExhausted,
            approximate_invoke_count: 2,
            response: Some(FunctionResponse::Unhandled),
            at: Wall::from_millis(1_789_809_045_948),
            window: None,
        },
        names: Arc::new(FailureNames {
            function_arn: "arn:aws:lambda:eu-west-1:123456789012:function:orders-worker".to_owned(),
            executed_version: "$LATEST".to_owned(),
            stream_arn: STREAM.to_owned(),
            mapping_uuid: "00000000-0000-4000-8000-000000000000".to_owned(),
        }),
        event: Arc::new(EventContext {
            event_source_arn: STREAM.into(),
            region: "eu-west-1".into(),
            invoke_identity_arn: "arn:aws:iam::123456789012:role/shardmill".into(),
            shard: "shardId-000000000000".into(),
        }),
    }
}

#[cfg(any(feature = "sqs", feature = "sns", feature = "s3"))]
pub(super) mod fake;
