//! What the polling clients of all services have in common: bounded calls and an eye on the service's clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::date_time::Format;
use aws_smithy_types::timeout::TimeoutConfig;
use shardmill_engine::{Mono, Wall};

use super::without_secrets;
use crate::clock::ServiceClock;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// The timeouts that were set, and ours where none was set or it was switched off: a peer that accepts and never
/// answers must not hold a shard for ever.
pub(in crate::source) fn bounded(set: Option<&TimeoutConfig>) -> TimeoutConfig {
    let or = |set: Option<Duration>, ours: Duration| set.unwrap_or(ours);
    let mut timeouts = TimeoutConfig::builder()
        .connect_timeout(or(set.and_then(TimeoutConfig::connect_timeout), CONNECT))
        .read_timeout(or(set.and_then(TimeoutConfig::read_timeout), ANSWER))
        .operation_timeout(or(set.and_then(TimeoutConfig::operation_timeout), ANSWER));
    timeouts.set_operation_attempt_timeout(set.and_then(TimeoutConfig::operation_attempt_timeout));
    timeouts.build()
}

/// Shows the `Date` header of every successful answer to the clock. A refusal may come from a proxy or a load balancer,
/// whose clock says nothing about the service's.
///
/// Notes the address of every request as well: an error of the SDK does not say what was not reached.
#[derive(Debug)]
pub(in crate::source) struct Observe {
    clock: ServiceClock,
    address: Address,
}

impl Observe {
    pub(in crate::source) fn new(clock: &ServiceClock, address: &Address) -> Self {
        Self { clock: clock.clone(), address: address.clone() }
    }
}

/// Where a client's requests go, once one has left.
#[derive(Clone, Debug, Default)]
pub(in crate::source) struct Address(Arc<OnceLock<String>>);

impl Address {
    /// `http://127.0.0.1:4566`, without anything that may be secret.
    pub(in crate::source) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    fn note(&self, uri: &str) {
        // All requests of a client go to one address.
        self.0.get_or_init(|| {
            let (scheme, rest) = uri.split_once("://").unwrap_or(("http", uri));
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            format!("{scheme}://{}", without_secrets(authority))
        });
    }
}

/// When the request left.
#[derive(Debug)]
struct Sent(Mono);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Observe {
    fn name(&self) -> &'static str {
        "Observe"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.address.note(context.request().uri());
        bag.interceptor_state().store_put(Sent(self.clock.now().mono));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(Sent(sent)) = bag.load::<Sent>() {
            observe(&self.clock, context.response(), *sent);
        }
        Ok(())
    }
}

/// Shows the answer to a request that left at this time to the clock.
pub(super) fn observe(clock: &ServiceClock, response: &HttpResponse, sent: Mono) {
    if let (true, Some(date)) = (is_from_service(response), date_of(response)) {
        clock.observe_answer(date, sent);
    }
}

/// A success with a request id, which only the service itself gives.
fn is_from_service(response: &HttpResponse) -> bool {
    let has = |name| response.headers().get(name).is_some_and(|id| !id.is_empty());
    response.status().is_success() && ["x-amzn-requestid", "x-amz-request-id"].into_iter().any(has)
}

/// Keeps the `Date` header of one call's successful answer.
#[derive(Clone, Debug, Default)]
pub(in crate::source) struct KeepDate(Arc<OnceLock<i64>>);

impl KeepDate {
    /// The service's time of the answer in milliseconds since the epoch, cut to the second, if it said so.
    pub(in crate::source) fn get(&self) -> Option<i64> {
        self.0.get().copied()
    }
}

impl Intercept for KeepDate {
    fn name(&self) -> &'static str {
        "KeepDate"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if let (true, Some(date)) = (is_from_service(response), date_of(response)) {
            // Retries are off, so there is one answer; a second one would not matter.
            let _ = self.0.set(date);
        }
        Ok(())
    }
}

/// An unreadable date is no date: the answer itself may still be good.
fn date_of(response: &HttpResponse) -> Option<i64> {
    let text = response.headers().get("date")?;
    DateTime::from_str(text, Format::HttpDate).ok()?.to_millis().ok()
}

/// The wire has decimal seconds, which the SDK reads as binary ones: `.123` becomes 122,999,907 ns. Rounding gives it back.
pub(in crate::source) fn millis(at: &DateTime) -> Wall {
    let fraction = i64::from((at.subsec_nanos() + 500_000) / 1_000_000);
    Wall::from_millis(at.secs().saturating_mul(1000).saturating_add(fraction))
}
