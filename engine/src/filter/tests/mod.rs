//! The rules of filters, R55 to R63, by example.

mod dynamodb;
mod grammar;
mod kinesis;
mod literal;
pub(crate) mod naive;
mod never;
mod operators;
mod property;

use bytes::Bytes;

use super::{Filter, FilterSource};
use crate::record::{Data, Record, ShardId};
use crate::{Seq, Wall};

const NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";

fn kinesis() -> FilterSource {
    FilterSource::Kinesis {
        event_source_arn: "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream".into(),
        region: "us-east-2".into(),
        invoke_identity_arn: "arn:aws:iam::123456789012:role/lambda-role".into(),
    }
}

fn shard() -> ShardId {
    "shardId-000000000006".into()
}

fn data(text: &str) -> Record {
    Record::new(
        Seq::plain(NUMBER),
        Some("customer-7".to_owned()),
        Some(Wall::from_millis(1_545_084_650_987)),
        Data::Raw(Bytes::copy_from_slice(text.as_bytes())),
    )
}

/// A Kinesis filter of one pattern.
fn filter(pattern: &str) -> Filter {
    Filter::parse(&kinesis(), &[pattern]).unwrap_or_else(|error| panic!("{pattern}: {error}")).unwrap()
}

/// Whether a Kinesis record with this data passes the filter.
fn passes(pattern: &str, text: &str) -> bool {
    filter(pattern).matches(&data(text), &shard())
}
