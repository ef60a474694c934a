//! The polling client: no retries of its own, bounded calls, an eye on the service's clock, and answers in CBOR.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Builder, Region, StalledStreamProtectionConfig};
use aws_sdk_kinesis::operation::get_records::{GetRecords, GetRecordsOutput};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use aws_types::SdkConfig;
use shardmill_engine::{EventSource, KinesisAnswer, kinesis_answer};

use super::encoding::AskInCbor;
use crate::clock::ServiceClock;
use crate::source::aws::{Address, InPlace, Observe, Repeat, Slot, bounded};

tokio::task_local! {
    /// The answer of the `GetRecords` that this task waits for.
    pub(super) static ANSWER: Slot<KinesisAnswer>;
}

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

/// A client that shows the service's time to `clock` and its endpoint to `address`, and reads records in place; and what
/// repeats its calls.
pub(super) fn observed(settings: &Builder, clock: &ServiceClock, address: &Address) -> (Client, Repeat) {
    let has_interceptors = settings.clone().build().interceptors().next().is_some();
    let repeat = Repeat::new(clock, has_interceptors);
    let output = || Output::erase(no_records());
    let in_place = InPlace { slot: &ANSWER, read: kinesis_answer, output, repeat: repeat.clone() };
    let settings = settings.clone().interceptor(Observe::new(clock, address)).interceptor(AskInCbor);
    let settings = settings.interceptor(in_place.instead_of(&GetRecords::new()));
    (Client::from_conf(settings.build()), repeat)
}

/// An output that nothing looks at.
pub(super) fn no_records() -> GetRecordsOutput {
    let output = GetRecordsOutput::builder().set_records(Some(Vec::new())).build();
    output.expect("records are all that it requires")
}

fn for_polling(builder: Builder, timeouts: Option<&TimeoutConfig>) -> Builder {
    builder
        .retry_config(RetryConfig::disabled())
        .timeout_config(bounded(timeouts))
        // The timeouts bound a stalled answer; a second watcher over every body only costs.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}
