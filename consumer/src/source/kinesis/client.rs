//! The polling client: no retries of its own, bounded calls, and an eye on the service's clock.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Builder, Region, StalledStreamProtectionConfig};
use aws_types::SdkConfig;
use shardmill_engine::EventSource;

use crate::clock::ServiceClock;
use crate::source::aws::{ObserveDate, bounded};

/// The settings of a client for the stream's own region.
pub(super) fn from_config(config: &SdkConfig, stream: &EventSource) -> Builder {
    let builder = Builder::from(config).region(Region::new(stream.arn.region().to_owned()));
    for_polling(builder, config.timeout_config())
}

/// The settings of a client like the given one.
pub(super) fn from_client(client: &Client) -> Builder {
    let config = client.config();
    for_polling(config.to_builder(), config.timeout_config())
}

/// A client that shows the service's time to `clock`.
pub(super) fn observed(settings: &Builder, clock: &ServiceClock) -> Client {
    Client::from_conf(settings.clone().interceptor(ObserveDate::new(clock)).build())
}

fn for_polling(builder: Builder, timeouts: Option<&TimeoutConfig>) -> Builder {
    builder
        .retry_config(RetryConfig::disabled())
        .timeout_config(bounded(timeouts))
        // The timeouts bound a stalled answer; a second watcher over every body only costs.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}
