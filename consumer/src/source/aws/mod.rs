//! What the sources that speak to AWS through its SDK have in common.

mod attachment;
mod client;
mod error;
mod in_place;
#[cfg(test)]
pub(super) mod oracle;
mod repeat;
mod undecodable;

pub(super) use attachment::Attachment;
pub(super) use client::{Address, KeepDate, Observe, bounded, millis};
#[cfg(feature = "kinesis")]
pub(super) use error::by_code;
pub(super) use error::{Call, root};
pub(super) use in_place::{InPlace, Slot, answered};
pub(super) use repeat::Repeat;
pub(super) use undecodable::{Parts, Replay, body_of, number_in};

use shardmill_engine::{EventSource, MappingError, StreamKind};

use super::{SourceError, SourceErrorKind};
use crate::clock::ServiceClock;

/// Whose clock a source hears.
#[derive(Debug)]
pub(super) enum Hears {
    /// That of an endpoint, which every source with the same endpoint hears.
    Endpoint(String),
    /// That of a client of unknown settings, which no other source is known to share.
    Client(String),
}

impl Hears {
    pub(super) fn of(&self, clock: &ServiceClock) -> ServiceClock {
        match self {
            Self::Endpoint(name) => clock.for_endpoint(name),
            Self::Client(name) => clock.for_client(name),
        }
    }
}

/// The stream that the caller of a source names, if it is of the source's kind.
pub(super) fn stream_named<S>(named: S, kind: StreamKind) -> Result<EventSource, SourceError>
where
    S: TryInto<EventSource, Error = MappingError>,
{
    let arn = match named.try_into() {
        Ok(stream) if stream.kind == kind => return Ok(stream),
        Ok(other) => other.arn.as_str().to_owned(),
        Err(error) => error.value().to_owned(),
    };
    let (what, form) = match kind {
        StreamKind::Kinesis => ("Kinesis data stream", "kinesis:REGION:ACCOUNT:stream/NAME"),
        StreamKind::DynamoDb => ("DynamoDB stream", "dynamodb:REGION:ACCOUNT:table/TABLE/stream/LABEL"),
    };
    let message = format!("`{arn}` is not the ARN of a {what}; it has the form arn:aws:{form}");
    Err(SourceError::new(SourceErrorKind::Rejected, "EventSourceArn", message))
}

/// What a clock belongs to: clients of the same service, region and endpoint hear the same clock.
pub(super) fn endpoint(stream: &EventSource, url: Option<&str>) -> String {
    let (service, region) = (stream.arn.service(), stream.arn.region());
    url.map_or_else(
        || format!("{service} {region}"),
        |url| format!("{service} {region} {}", without_secrets(url)),
    )
}

/// The address alone: what comes before an `@` or after a `?` may be secret.
fn without_secrets(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    url.rsplit_once('@').map_or(url, |(_, address)| address)
}
