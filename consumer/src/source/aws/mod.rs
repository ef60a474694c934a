//! What the sources that speak to AWS through its SDK have in common.

mod client;
mod error;
mod undecodable;

pub(super) use client::{KeepDate, ObserveDate, bounded, millis};
pub(super) use error::{Call, Named, root};
pub(super) use undecodable::{Parts, Replay, body_of, number_in};

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

/// What a clock belongs to: clients of the same service, region and endpoint hear the same clock.
pub(super) fn endpoint(stream: &dyn Named, region: &str, url: Option<&str>) -> String {
    let service = stream.service();
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
