//! Discarded batches to a standard SQS queue.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{Builder, Region};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::send_message::SendMessageError;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::{Destination, DestinationError, Failure};

/// How long a delivery may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Until a connection stands.
    connect: Duration,
    /// Until one attempt is answered.
    read: Duration,
    /// In all, with the SDK's own repeats.
    total: Duration,
}

impl Limits {
    const DEFAULT: Self = Self {
        connect: Duration::from_secs(3),
        read: Duration::from_secs(5),
        total: Duration::from_secs(10),
    };
}

/// Sends a message with the positions of every discarded batch to a standard queue (R72, R73; lambda-esm.md, sections
/// 3.5 and 3.7). Needs `sqs:SendMessage` only.
///
/// A delivery takes at most 10 seconds, the SDK's own repeats included. One that fails by its timeout may have arrived.
#[derive(Clone, Debug)]
pub struct SqsDestination {
    client: Client,
    queue: QueueArn,
    url: String,
    limits: Limits,
}

impl SqsDestination {
    /// Sends through a client as it is; its region must be the queue's.
    ///
    /// # Errors
    /// `queue_arn` is not the ARN of a standard queue: FIFO queues are refused, as Lambda does (R77).
    pub fn new(
        client: Client,
        queue_arn: &str,
        queue_url: impl Into<String>,
    ) -> Result<Self, DestinationError> {
        let queue = QueueArn::parse(queue_arn)?;
        Ok(Self { client, queue, url: queue_url.into(), limits: Limits::DEFAULT })
    }

    /// Makes a client for the queue's own region, with connect and read timeouts and the SDK's standard repeats, and
    /// the queue's URL from its ARN.
    ///
    /// An endpoint, where one is set, is both where requests go and what the URL begins with: `endpoint_url`, else
    /// the one in `config`, `AWS_ENDPOINT_URL_SQS` and `AWS_ENDPOINT_URL` in the SDK's own order.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the endpoint is not a URL.
    pub fn from_sdk_config(
        config: &SdkConfig,
        queue_arn: &str,
        endpoint_url: Option<&str>,
    ) -> Result<Self, DestinationError> {
        Self::with_limits(config, queue_arn, endpoint_url, Limits::DEFAULT)
    }

    fn with_limits(
        config: &SdkConfig,
        queue_arn: &str,
        endpoint_url: Option<&str>,
        limits: Limits,
    ) -> Result<Self, DestinationError> {
        let queue = QueueArn::parse(queue_arn)?;
        let endpoint = endpoint_url.map(str::to_owned).or_else(|| configured_endpoint(config));
        let url = queue.url(endpoint.as_deref())?;
        let timeouts =
            TimeoutConfig::builder().connect_timeout(limits.connect).read_timeout(limits.read).build();
        let mut builder = Builder::from(config)
            .region(Region::new(queue.region.clone()))
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard());
        builder.set_endpoint_url(endpoint);
        Ok(Self { client: Client::from_conf(builder.build()), queue, url, limits })
    }

    fn explain(&self, error: SdkError<SendMessageError>) -> DestinationError {
        let queue = &self.queue.arn;
        let waited = || format!("no answer from {} in time", self.url);
        let text = match &error {
            SdkError::ServiceError(answer) => {
                let code = answer.err().code().unwrap_or("an error without a code");
                let said = answer.err().message().map(|text| format!(" ({text})")).unwrap_or_default();
                format!("{code}{said}{}", self.remedy(code))
            }
            SdkError::TimeoutError(_) => waited(),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => waited(),
            SdkError::DispatchFailure(_) => format!("no answer from {}: {}", self.url, root_cause(&error)),
            _ => root_cause(&error),
        };
        DestinationError::new(format!("SQS queue {queue}: SendMessage failed: {text}")).with_source(error)
    }

    fn remedy(&self, code: &str) -> String {
        let QueueArn { region, account, name, .. } = &self.queue;
        // Some codes come with the service's name in front, some with "Exception" behind.
        match code.rsplit('.').next().unwrap_or(code).trim_end_matches("Exception") {
            "NonExistentQueue" | "QueueDoesNotExist" => {
                format!(
                    "; create queue {name} in {region}, account {account}, or correct the destination's ARN"
                )
            }
            _ if code.starts_with("KMS.") || code.starts_with("Kms") => {
                "; allow kms:GenerateDataKey and kms:Decrypt on the key that encrypts the queue".to_owned()
            }
            "AccessDenied" | "AuthorizationError" => {
                "; allow sqs:SendMessage on this queue to the credentials of this worker".to_owned()
            }
            "InvalidClientTokenId"
            | "UnrecognizedClient"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "ExpiredToken"
            | "RequestExpired"
            | "InvalidSecurity" => "; check this worker's credentials and its clock".to_owned(),
            _ => String::new(),
        }
    }
}

#[async_trait]
impl Destination for SqsDestination {
    async fn deliver(&self, failed: &Failure) -> Result<(), DestinationError> {
        let sending = self.client.send_message().queue_url(&self.url).message_body(failed.message()).send();
        // Around everything: a client that was handed in may have no timeouts, and credentials have to be fetched too.
        let Ok(answer) = tokio::time::timeout(self.limits.total, sending).await else {
            return Err(DestinationError::new(format!(
                "SQS queue {}: SendMessage failed: no answer from {} within {:?}",
                self.queue.arn, self.url, self.limits.total
            )));
        };
        match answer {
            // Something that answers 200 to everything is not a queue: the batch must not count as delivered (I3).
            Ok(answer) if answer.message_id().is_none() => Err(DestinationError::new(format!(
                "SQS queue {}: the answer from {} has no message id; check the endpoint",
                self.queue.arn, self.url
            ))),
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    fn describe(&self) -> String {
        format!("SQS queue {}", self.queue.arn)
    }
}

/// The innermost cause: the SDK's outer errors only say "dispatch failure".
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The endpoint that the SDK would use for SQS; it does not tell, but the queue's URL has to begin with it.
fn configured_endpoint(config: &SdkConfig) -> Option<String> {
    let general = || config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return general();
    }
    let key = ServiceConfigKey::builder().service_id("SQS").env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let own = key.build().ok().and_then(|key| config.service_config()?.load_config(key));
    own.or_else(general)
}

/// The parts of `arn:<partition>:sqs:<region>:<account>:<name>`.
#[derive(Clone, Debug)]
struct QueueArn {
    arn: String,
    partition: String,
    region: String,
    account: String,
    name: String,
}

impl QueueArn {
    fn parse(arn: &str) -> Result<Self, DestinationError> {
        let bad = |problem: &str, remedy: &str| {
            DestinationError::new(format!("on-failure destination {arn:?} {problem}; {remedy}"))
        };
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", partition, "sqs", region, account, name] = parts[..] else {
            let form = "write it as arn:aws:sqs:<region>:<account>:<name>";
            return Err(bad("is not the ARN of an SQS queue", form));
        };
        if name.ends_with(".fifo") {
            return Err(bad(
                "is a FIFO queue, which Lambda refuses as a destination",
                "use a standard queue",
            ));
        }
        let word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !(word(partition) && word(region) && word(name) && name.len() <= 80 && digits) {
            let remedy =
                "it needs a region, an account of 12 digits and a name of 1 to 80 letters, digits, - and _";
            return Err(bad("has a part that SQS does not permit", remedy));
        }
        let [arn, partition, region, account, name] =
            [arn, partition, region, account, name].map(str::to_owned);
        Ok(Self { arn, partition, region, account, name })
    }

    fn url(&self, endpoint: Option<&str>) -> Result<String, DestinationError> {
        let Self { account, name, region, .. } = self;
        match endpoint {
            Some(base) if base.starts_with("http://") || base.starts_with("https://") => {
                Ok(format!("{}/{account}/{name}", base.trim_end_matches('/')))
            }
            Some(base) => Err(DestinationError::new(format!(
                "endpoint {base:?} is not a URL; write it with http:// or https:// in front"
            ))),
            None => Ok(format!("https://sqs.{region}.{}/{account}/{name}", dns_suffix(&self.partition))),
        }
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
