//! Discarded batches to a standard SQS queue.

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{Builder, Region};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_types::SdkConfig;
use shardmill_engine::{Arn, FailureDestination};

use super::service::{self, Limits, Operation, Service};
use super::{Destination, DestinationError, Discarded, Probe};

const SEND: Operation = Operation { name: "SendMessage", action: "sqs:SendMessage" };
const ASK: Operation = Operation { name: "GetQueueAttributes", action: "sqs:GetQueueAttributes" };

/// Sends a message with the positions of every discarded batch to a standard queue (R72, R73;
/// docs/semantics.md, sections 3.5 and 3.7). Needs `sqs:SendMessage` only.
///
/// A delivery takes at most 10 seconds, including the SDK's retries. One that fails by its timeout may have arrived.
#[derive(Clone, Debug)]
pub struct SqsDestination {
    client: Client,
    url: String,
    service: Service,
}

impl SqsDestination {
    /// A destination with a client of its own for the queue's region, with connect and read timeouts and the SDK's
    /// standard retries, and with the queue's URL from its ARN.
    ///
    /// An endpoint, if one is set, is both where requests go and what the URL begins with: the one in `config`,
    /// `AWS_ENDPOINT_URL_SQS` and `AWS_ENDPOINT_URL` in the SDK's own order.
    ///
    /// # Errors
    /// `queue_arn` is not the ARN of a standard queue (FIFO queues are refused, as Lambda does, R77), or the endpoint is
    /// not a URL.
    pub fn new(config: &SdkConfig, queue_arn: &str) -> Result<Self, DestinationError> {
        Self::of(config, &queue_named(queue_arn)?)
    }

    /// A destination that sends through `client` as it is; its region must be the queue's.
    ///
    /// # Errors
    /// `queue_arn` is not the ARN of a standard queue.
    pub fn from_client(
        client: Client,
        queue_arn: &str,
        queue_url: impl Into<String>,
    ) -> Result<Self, DestinationError> {
        let (queue, url) = (queue_named(queue_arn)?, queue_url.into());
        Ok(Self { client, service: service(&queue, &url, Limits::DEFAULT), url })
    }

    /// As [`new`](Self::new), of a mapping's destination.
    pub(super) fn of(config: &SdkConfig, queue: &Arn) -> Result<Self, DestinationError> {
        Self::with_limits(config, queue, None, Limits::DEFAULT)
    }

    fn with_limits(
        config: &SdkConfig,
        queue: &Arn,
        endpoint_url: Option<&str>,
        limits: Limits,
    ) -> Result<Self, DestinationError> {
        let endpoint = service::endpoint(config, "SQS", endpoint_url);
        let url = url(queue, endpoint.as_deref())?;
        let mut builder = Builder::from(config)
            .region(Region::new(queue.region().to_owned()))
            .timeout_config(limits.timeouts())
            .retry_config(service::retries());
        builder.set_endpoint_url(endpoint);
        Ok(Self { client: Client::from_conf(builder.build()), service: service(queue, &url, limits), url })
    }
}

#[async_trait]
impl Destination for SqsDestination {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        let sending =
            self.client.send_message().queue_url(&self.url).message_body(discarded.message()).send();
        match self.service.within(sending).await {
            Ok(answer) if answer.message_id().is_none() => Err(self.service.no_receipt("message id")),
            Ok(_) => Ok(()),
            Err(failed) => Err(self.service.explain(SEND, failed)),
        }
    }

    /// By `GetQueueAttributes`, which deliveries do not need: if it is not allowed, the queue is not asked.
    async fn probe(&self) -> Result<Probe, DestinationError> {
        let name = QueueAttributeName::QueueArn;
        let asking = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(name).send();
        self.service.probed(ASK, self.service.within(asking).await)
    }

    fn describe(&self) -> String {
        self.service.what.clone()
    }
}

fn queue_named(arn: &str) -> Result<Arn, DestinationError> {
    match service::parse(arn, "queue")? {
        FailureDestination::Sqs(arn) => Ok(arn),
        _ => Err(service::not_a("SQS queue", arn)),
    }
}

/// How errors name the queue.
fn service(queue: &Arn, url: &str, limits: Limits) -> Service {
    let (name, region, account) = (queue.resource(), queue.region(), queue.account());
    Service {
        what: format!("SQS queue {queue}"),
        noun: "queue",
        at: url.to_owned(),
        missing: format!(
            "create queue {name} in {region}, account {account}, or correct the destination's ARN"
        ),
        limits,
    }
}

fn url(queue: &Arn, endpoint: Option<&str>) -> Result<String, DestinationError> {
    let (name, region, account) = (queue.resource(), queue.region(), queue.account());
    match endpoint {
        Some(base) if base.starts_with("http://") || base.starts_with("https://") => {
            Ok(format!("{}/{account}/{name}", base.trim_end_matches('/')))
        }
        Some(base) => Err(DestinationError::new(format!(
            "endpoint \"{}\" is not a URL; write it with http:// or https:// in front",
            crate::ShownUrl(base)
        ))),
        None => Ok(format!("https://sqs.{region}.{}/{account}/{name}", dns_suffix(queue.partition()))),
    }
}

/// The domain of a partition's endpoints (the SDK's partitions table).
fn dns_suffix(partition: &str) -> &'static str {
    match partition {
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        "aws-iso" => "c2s.ic.gov",
        "aws-iso-b" => "sc2s.sgov.gov",
        "aws-iso-e" => "cloud.adc-e.uk",
        "aws-iso-f" => "csp.hci.ic.gov",
        _ => "amazonaws.com",
    }
}

#[cfg(test)]
mod tests;
