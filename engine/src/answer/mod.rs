//! Answers of `GetRecords`, read where they lie (docs/adr/0030).
//!
//! The payload of a record is a part of the answer's text: it is neither copied nor decoded. An answer of any other form
//! than the usual one is not read here at all but left to the SDK, which knows what to make of it.

mod cbor;
mod dynamodb;
mod item;
mod kinesis;
mod scan;
mod seconds;

pub use cbor::cbor_to_json;
pub use dynamodb::{DynamoDbAnswer, dynamodb_answer};
pub use kinesis::{KinesisAnswer, kinesis_answer};

/// Notes a member's value, unless it is there already.
fn once<T>(field: &mut Option<T>, value: T) -> Option<()> {
    field.replace(value).is_none().then_some(())
}
