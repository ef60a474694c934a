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
    let at = Wall::from_millis(1_789_809_045_948);
    let (id, condition) = (RequestId::from_random(7), Condition::RetryAttemptsExhausted);
    let batch = Batch::new(vec![record]).unwrap();
    let mut batch = FailedBatch::new(batch, "shardId-000000000000".into(), id, condition, at);
    batch.approximate_invoke_count = 2;
    batch.response = Some(FunctionResponse::Unhandled);
    let function = "arn:aws:lambda:eu-west-1:123456789012:function:orders-worker";
    let uuid = "00000000-0000-4000-8000-000000000000";
    Discarded {
        batch,
        names: Arc::new(FailureNames::new(function, "$LATEST", STREAM, uuid)),
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
