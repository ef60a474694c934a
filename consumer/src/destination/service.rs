//! What the destinations at AWS have in common: limits, endpoints, and how a failed call reads.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use shardmill_engine::{FailureDestination, ShownUrl};

use super::{DestinationError, Probe};
use crate::web_page;

/// How long a delivery may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until a connection is established.
    pub(super) connect: Duration,
    /// Until one attempt is answered.
    pub(super) read: Duration,
    /// In total, including the SDK's retries.
    pub(super) total: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        connect: Duration::from_secs(3),
        read: Duration::from_secs(5),
        total: Duration::from_secs(10),
    };

    pub(super) fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(self.connect).read_timeout(self.read).build()
    }
}

/// How a delivery is repeated within its time, whatever the environment says.
pub(super) fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(3)
}

/// One operation of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// Its name.
    pub(super) name: &'static str,
    /// The IAM action that permits it.
    pub(super) action: &'static str,
}

/// A destination at AWS: how long its calls may take, and the words of their errors.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// What it is, with its ARN.
    pub(super) what: String,
    /// `queue`, `topic` or `bucket`.
    pub(super) noun: &'static str,
    /// Where its requests go.
    pub(super) at: String,
    /// What to do if it does not exist.
    pub(super) missing: String,
    pub(super) limits: Limits,
}

/// Why a call failed.
pub(super) enum Failed<E> {
    /// It was not over in time.
    Late,
    /// The SDK's own error.
    Sdk(Box<SdkError<E, HttpResponse>>),
}

impl<E> Failed<E> {
    /// A header of the service's answer.
    #[cfg(feature = "s3")]
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        match self {
            Self::Late => None,
            Self::Sdk(error) => error.raw_response()?.headers().get(name),
        }
    }
}

impl Service {
    /// Waits for a call no longer than its limit: a client that was handed in may have no timeouts, and credentials
    /// have to be fetched, too.
    pub(super) async fn within<T, E>(
        &self,
        sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Failed<E>> {
        let answer = tokio::time::timeout(self.limits.total, sending).await;
        answer.map_err(|_| Failed::Late)?.map_err(|error| Failed::Sdk(Box::new(error)))
    }

    /// Something that answers 200 to everything is not the service: the batch must not count as delivered (I3).
    pub(super) fn no_receipt(&self, missing: &str) -> DestinationError {
        let Self { what, at, .. } = self;
        let at = ShownUrl(at);
        DestinationError::new(format!("{what}: the answer from {at} has no {missing}; check the endpoint"))
    }

    /// The human-readable error of a failed call.
    pub(super) fn explain<E>(&self, operation: Operation, failed: Failed<E>) -> DestinationError
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let (what, name) = (&self.what, operation.name);
        match failed {
            Failed::Late => DestinationError::new(format!(
                "{what}: {name} failed: no answer from {} within {:?}",
                ShownUrl(&self.at),
                self.limits.total
            )),
            Failed::Sdk(error) => {
                let text = self.reason(operation, &error);
                DestinationError::new(format!("{what}: {name} failed: {text}")).with_source(*error)
            }
        }
    }

    /// The result of a probe by an operation that deliveries do not need: where it is not allowed, nothing is known.
    pub(super) fn probed<T, E>(
        &self,
        operation: Operation,
        result: Result<T, Failed<E>>,
    ) -> Result<Probe, DestinationError>
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let Err(failed) = result else { return Ok(Probe::Answers) };
        if let Failed::Sdk(error) = &failed
            && let SdkError::ServiceError(answer) = &**error
            && web_page::found(answer.raw()).is_none()
            && is_denied(&code(answer.err(), answer.raw()))
        {
            let action = operation.action;
            let text = format!("{action} is not allowed to this worker; deliveries do not need it");
            return Ok(Probe::NotAsked(text));
        }
        Err(self.explain(operation, failed))
    }

    fn reason<E>(&self, operation: Operation, error: &SdkError<E, HttpResponse>) -> String
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let waited = || format!("no answer from {} in time", ShownUrl(&self.at));
        if let Some(page) = error.raw_response().and_then(web_page::found) {
            return format!("{page} from {}; {}", ShownUrl(&self.at), web_page::REMEDY);
        }
        match error {
            SdkError::ServiceError(answer) => {
                let code = code(answer.err(), answer.raw());
                let said = answer.err().message().map(|text| format!(" ({text})")).unwrap_or_default();
                format!("{code}{said}{}", self.remedy(operation, &code))
            }
            SdkError::TimeoutError(_) => waited(),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => waited(),
            SdkError::DispatchFailure(_) => {
                format!("no answer from {}: {}", ShownUrl(&self.at), root_cause(error))
            }
            _ => root_cause(error),
        }
    }

    fn remedy(&self, operation: Operation, code: &str) -> String {
        let noun = self.noun;
        match short(code) {
            "NonExistentQueue" | "QueueDoesNotExist" | "NotFound" | "NoSuchBucket" | "HTTP status 404" => {
                format!("; {}", self.missing)
            }
            _ if code.starts_with("KMS.") || code.to_ascii_lowercase().starts_with("kms") => {
                format!("; allow kms:GenerateDataKey and kms:Decrypt on the key that encrypts the {noun}")
            }
            _ if is_denied(code) => {
                format!("; allow {} on this {noun} to the credentials of this worker", operation.action)
            }
            "InvalidClientTokenId"
            | "UnrecognizedClient"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "ExpiredToken"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "InvalidSecurity" => "; check this worker's credentials and its clock".to_owned(),
            _ => String::new(),
        }
    }
}

/// The error's code; answers to HEAD requests have none.
fn code(error: &impl ProvideErrorMetadata, raw: &HttpResponse) -> String {
    error.code().map_or_else(|| format!("HTTP status {}", raw.status().as_u16()), str::to_owned)
}

/// Some codes come with the service's name in front, some with "Exception" behind.
fn short(code: &str) -> &str {
    code.rsplit('.').next().unwrap_or(code).trim_end_matches("Exception")
}

fn is_denied(code: &str) -> bool {
    matches!(short(code), "AccessDenied" | "AuthorizationError" | "HTTP status 403")
}

/// The innermost cause: the SDK's outer errors only say "dispatch failure".
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The endpoint that the SDK would use for a service: `given`, else the one in `config`, then `AWS_ENDPOINT_URL_…` and
/// `AWS_ENDPOINT_URL` in the SDK's own order. The SDK does not expose it.
pub(super) fn endpoint(config: &SdkConfig, service_id: &str, given: Option<&str>) -> Option<String> {
    let general = || config.endpoint_url().map(str::to_owned);
    if given.is_some() {
        return given.map(str::to_owned);
    }
    if config.get_origin("endpoint_url").is_client_config() {
        return general();
    }
    let key =
        ServiceConfigKey::builder().service_id(service_id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let own = key.build().ok().and_then(|key| config.service_config()?.load_config(key));
    own.or_else(general)
}

/// The destination that an ARN names, by a mapping's own rules.
pub(super) fn parse(arn: &str, noun: &str) -> Result<FailureDestination, DestinationError> {
    match FailureDestination::parse(arn) {
        Ok(Some(destination)) => Ok(destination),
        Ok(None) => Err(DestinationError::new(format!("write the {noun}'s ARN"))),
        Err(error) => Err(DestinationError::new(format!("on-failure destination {}", error.message()))),
    }
}

/// The ARN is of another kind of destination.
pub(super) fn not_a(noun: &str, arn: &str) -> DestinationError {
    DestinationError::new(format!("on-failure destination {arn} is not the ARN of an {noun}"))
}
