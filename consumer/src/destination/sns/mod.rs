//! Discarded batches to a standard SNS topic.

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::config::{Builder, Region};
use aws_types::SdkConfig;
use shardmill_engine::{Arn, FailureDestination};

use super::service::{self, Limits, Operation, Service};
use super::{Destination, DestinationError, Discarded, Probe};

const PUBLISH: Operation = Operation { name: "Publish", action: "sns:Publish" };
const ASK: Operation = Operation { name: "GetTopicAttributes", action: "sns:GetTopicAttributes" };

/// Publishes a message with the positions of every discarded batch to a standard topic: the same text as for a queue,
/// without a subject (R72, R73; docs/semantics.md, sections 3.5 to 3.8). Needs `sns:Publish` only.
///
/// A delivery takes at most 10 seconds, including the SDK's retries. One that fails by its timeout may have arrived.
#[derive(Clone, Debug)]
pub struct SnsDestination {
    client: Client,
    topic: Arn,
    service: Service,
}

impl SnsDestination {
    /// A destination with a client of its own for the topic's region, with connect and read timeouts and the SDK's
    /// standard retries.
    ///
    /// Requests go to the endpoint in `config`, `AWS_ENDPOINT_URL_SNS` and `AWS_ENDPOINT_URL` in the SDK's own order, else
    /// to the service.
    ///
    /// # Errors
    /// `topic_arn` is not the ARN of a standard topic: FIFO topics are refused, as Lambda does (R77).
    pub fn new(config: &SdkConfig, topic_arn: &str) -> Result<Self, DestinationError> {
        Ok(Self::of(config, topic_named(topic_arn)?))
    }

    /// A destination that publishes through `client` as it is; its region must be the topic's.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_client(client: Client, topic_arn: &str) -> Result<Self, DestinationError> {
        let topic = topic_named(topic_arn)?;
        Ok(Self { client, service: service(&topic, None, Limits::DEFAULT), topic })
    }

    /// As [`new`](Self::new), of a mapping's destination.
    pub(super) fn of(config: &SdkConfig, topic: Arn) -> Self {
        Self::with_limits(config, topic, None, Limits::DEFAULT)
    }

    fn with_limits(config: &SdkConfig, topic: Arn, endpoint_url: Option<&str>, limits: Limits) -> Self {
        let endpoint = service::endpoint(config, "SNS", endpoint_url);
        let service = service(&topic, endpoint.as_deref(), limits);
        let mut builder = Builder::from(config)
            .region(Region::new(topic.region().to_owned()))
            .timeout_config(limits.timeouts())
            .retry_config(service::retries());
        builder.set_endpoint_url(endpoint);
        Self { client: Client::from_conf(builder.build()), service, topic }
    }
}

#[async_trait]
impl Destination for SnsDestination {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        let publishing =
            self.client.publish().topic_arn(self.topic.as_str()).message(discarded.message()).send();
        match self.service.within(publishing).await {
            Ok(answer) if answer.message_id().is_none() => Err(self.service.no_receipt("message id")),
            Ok(_) => Ok(()),
            Err(failed) => Err(self.service.explain(PUBLISH, failed)),
        }
    }

    /// By `GetTopicAttributes`, which deliveries do not need: if it is not allowed, the topic is not asked.
    async fn probe(&self) -> Result<Probe, DestinationError> {
        let asking = self.client.get_topic_attributes().topic_arn(self.topic.as_str()).send();
        self.service.probed(ASK, self.service.within(asking).await)
    }

    fn describe(&self) -> String {
        self.service.what.clone()
    }
}

fn topic_named(arn: &str) -> Result<Arn, DestinationError> {
    match service::parse(arn, "topic")? {
        FailureDestination::Sns(arn) => Ok(arn),
        _ => Err(service::not_a("SNS topic", arn)),
    }
}

/// How errors name the topic.
fn service(topic: &Arn, endpoint: Option<&str>, limits: Limits) -> Service {
    let (name, region, account) = (topic.resource(), topic.region(), topic.account());
    Service {
        what: format!("SNS topic {topic}"),
        noun: "topic",
        at: endpoint.map_or_else(|| format!("SNS in {region}"), str::to_owned),
        missing: format!(
            "create topic {name} in {region}, account {account}, or correct the destination's ARN"
        ),
        limits,
    }
}

#[cfg(test)]
mod tests;
