//! Discarded batches to a standard SNS topic.

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::config::{Builder, Region};
use aws_types::SdkConfig;
use shardmill_engine::FailureDestination;

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
    arn: String,
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
        Self::with_limits(config, topic_arn, None, Limits::DEFAULT)
    }

    /// A destination that publishes through `client` as it is; its region must be the topic's.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_client(client: Client, topic_arn: &str) -> Result<Self, DestinationError> {
        let topic = Topic::parse(topic_arn)?;
        Ok(Self { client, service: topic.service(None, Limits::DEFAULT), arn: topic.arn })
    }

    fn with_limits(
        config: &SdkConfig,
        topic_arn: &str,
        endpoint_url: Option<&str>,
        limits: Limits,
    ) -> Result<Self, DestinationError> {
        let topic = Topic::parse(topic_arn)?;
        let endpoint = service::endpoint(config, "SNS", endpoint_url);
        let service = topic.service(endpoint.as_deref(), limits);
        let mut builder = Builder::from(config)
            .region(Region::new(topic.region))
            .timeout_config(limits.timeouts())
            .retry_config(service::retries());
        builder.set_endpoint_url(endpoint);
        Ok(Self { client: Client::from_conf(builder.build()), service, arn: topic.arn })
    }
}

#[async_trait]
impl Destination for SnsDestination {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        let publishing = self.client.publish().topic_arn(&self.arn).message(discarded.message()).send();
        match self.service.within(publishing).await {
            Ok(answer) if answer.message_id().is_none() => Err(self.service.no_receipt("message id")),
            Ok(_) => Ok(()),
            Err(failed) => Err(self.service.explain(PUBLISH, failed)),
        }
    }

    /// By `GetTopicAttributes`, which deliveries do not need: if it is not allowed, the topic is not asked.
    async fn probe(&self) -> Result<Probe, DestinationError> {
        let asking = self.client.get_topic_attributes().topic_arn(&self.arn).send();
        self.service.probed(ASK, self.service.within(asking).await)
    }

    fn describe(&self) -> String {
        self.service.what.clone()
    }
}

/// The parts of `arn:<partition>:sns:<region>:<account>:<name>`.
struct Topic {
    arn: String,
    region: String,
    account: String,
    name: String,
}

impl Topic {
    fn parse(arn: &str) -> Result<Self, DestinationError> {
        match service::parse(arn, "topic")? {
            FailureDestination::Sns { arn, region, account, topic: name } => {
                Ok(Self { arn, region, account, name })
            }
            _ => Err(service::not_a("SNS topic", arn)),
        }
    }

    fn service(&self, endpoint: Option<&str>, limits: Limits) -> Service {
        let Self { arn, region, account, name } = self;
        Service {
            what: format!("SNS topic {arn}"),
            noun: "topic",
            at: endpoint.map_or_else(|| format!("SNS in {region}"), str::to_owned),
            missing: format!(
                "create topic {name} in {region}, account {account}, or correct the destination's ARN"
            ),
            limits,
        }
    }
}

#[cfg(test)]
mod tests;
