//! The polling client: no retries of its own, bounded calls, and an eye on the service's clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{
    Builder, ConfigBag, Intercept, Region, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use aws_types::SdkConfig;
use shardmill_engine::Mono;

use super::KinesisStream;
use crate::clock::ServiceClock;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// A client for the stream's own region.
pub(super) fn from_config(config: &SdkConfig, stream: &KinesisStream, clock: &ServiceClock) -> Client {
    let builder = Builder::from(config).region(Region::new(stream.region().to_owned()));
    Client::from_conf(for_polling(builder, config.timeout_config(), clock).build())
}

/// A client like the given one.
pub(super) fn from_client(client: &Client, clock: &ServiceClock) -> Client {
    let config = client.config();
    Client::from_conf(for_polling(config.to_builder(), config.timeout_config(), clock).build())
}

fn for_polling(builder: Builder, timeouts: Option<&TimeoutConfig>, clock: &ServiceClock) -> Builder {
    builder
        .retry_config(RetryConfig::disabled())
        .timeout_config(bounded(timeouts))
        // The timeouts bound a stalled answer; a second watcher over every body only costs.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .interceptor(ObserveDate { clock: clock.clone() })
}

/// The timeouts that were set, and ours where none was set or it was switched off: a peer that accepts and never
/// answers must not hold a shard for ever.
fn bounded(set: Option<&TimeoutConfig>) -> TimeoutConfig {
    let or = |set: Option<Duration>, ours: Duration| set.unwrap_or(ours);
    let mut timeouts = TimeoutConfig::builder()
        .connect_timeout(or(set.and_then(TimeoutConfig::connect_timeout), CONNECT))
        .read_timeout(or(set.and_then(TimeoutConfig::read_timeout), ANSWER))
        .operation_timeout(or(set.and_then(TimeoutConfig::operation_timeout), ANSWER));
    timeouts.set_operation_attempt_timeout(set.and_then(TimeoutConfig::operation_attempt_timeout));
    timeouts.build()
}

/// Shows the `Date` header of every answer, refusals included, to the clock.
#[derive(Debug)]
struct ObserveDate {
    clock: ServiceClock,
}

/// When the request left.
#[derive(Debug)]
struct Sent(Mono);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl Intercept for ObserveDate {
    fn name(&self) -> &'static str {
        "ObserveDate"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        bag.interceptor_state().store_put(Sent(self.clock.now().mono));
        Ok(())
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let (Some(date), Some(Sent(sent))) = (date_of(context), bag.load::<Sent>()) {
            self.clock.observe_answer(date, *sent);
        }
        Ok(())
    }
}

/// Keeps the `Date` header of one call's answer.
#[derive(Clone, Debug, Default)]
pub(super) struct KeepDate(Arc<OnceLock<i64>>);

impl KeepDate {
    /// The service's time of the answer in milliseconds since the epoch, cut to the second, if it said so.
    pub(super) fn get(&self) -> Option<i64> {
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
        if let Some(date) = date_of(context) {
            // Retries are off, so there is one answer; a second one would not matter.
            let _ = self.0.set(date);
        }
        Ok(())
    }
}

/// An unreadable date is no date: the answer itself may still be good.
fn date_of(context: &BeforeDeserializationInterceptorContextRef<'_>) -> Option<i64> {
    let text = context.response().headers().get("date")?;
    DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?.to_millis().ok()
}
