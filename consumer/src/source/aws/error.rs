//! What an error of the SDK means for a reader, and its text.

use std::error::Error;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use shardmill_engine::{EventSource, Position, ShardId, StreamKind};

use super::client::Address;
use super::undecodable::body_of;
use crate::source::{SourceError, SourceErrorKind};
use crate::web_page;

/// A call, for messages.
#[derive(Clone, Copy)]
pub(in crate::source) struct Call<'a> {
    pub(in crate::source) api: &'static str,
    pub(in crate::source) stream: &'a EventSource,
    pub(in crate::source) shard: Option<&'a ShardId>,
    /// Where the request went.
    pub(in crate::source) address: &'a Address,
    /// Where the shard is read.
    pub(in crate::source) at: Option<&'a Position>,
}

impl Call<'_> {
    /// The call failed.
    pub(in crate::source) fn failed<E>(self, error: SdkError<E, HttpResponse>) -> SourceError
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if let Some(page) = error.raw_response().and_then(web_page::found) {
            return self.error(SourceErrorKind::Unavailable, &page, web_page::REMEDY, Some(Box::new(error)));
        }
        let (kind, what, remedy) = match &error {
            _ if body_of(&error).is_some() => self.unavailable(self.cannot_decode(&root(&error))),
            SdkError::ServiceError(answer) => {
                let (code, status) = (answer.err().code(), answer.raw().status().as_u16());
                let kind = code.and_then(by_code).unwrap_or_else(|| by_status(code.is_some(), status));
                let code = code.map_or_else(|| format!("HTTP status {status}"), ToOwned::to_owned);
                let what =
                    answer.err().message().map_or_else(|| code.clone(), |text| format!("{code}: {text}"));
                (kind, what, self.remedy(kind, &code))
            }
            SdkError::TimeoutError(_) => self.unavailable("no answer in time".to_owned()),
            SdkError::ResponseError(_) => {
                self.unavailable(format!("the answer was cut or unreadable: {}", root(&error)))
            }
            SdkError::DispatchFailure(_) if is_about_credentials(&error) => {
                let remedy = "provide credentials that may read the stream".to_owned();
                (SourceErrorKind::AccessDenied, format!("no usable credentials: {}", root(&error)), remedy)
            }
            SdkError::DispatchFailure(_) => {
                let endpoint = self.address.get().map_or_else(String::new, |address| format!(" {address}"));
                self.unavailable(format!("the endpoint{endpoint} was not reached: {}", root(&error)))
            }
            _ => (
                SourceErrorKind::Rejected,
                format!("the request could not be built: {}", root(&error)),
                String::new(),
            ),
        };
        self.error(kind, &what, &remedy, Some(Box::new(error)))
    }

    /// A record of a successful answer cannot be decoded.
    pub(in crate::source) fn undecodable(self, what: &str) -> SourceError {
        let remedy = "it is tried again from the same place; OnUndecodable: skip leaves such a record out";
        self.error(SourceErrorKind::Undecodable, &self.cannot_decode(what), remedy, None)
    }

    fn cannot_decode(self, what: &str) -> String {
        let place = match self.at {
            Some(Position::After(seq)) => format!("after sequence number {seq} "),
            Some(at) => format!("from {at} "),
            None => String::new(),
        };
        format!("{place}the answer cannot be decoded: {what}")
    }

    /// The service answered something that cannot be used.
    pub(in crate::source) fn unusable(self, what: &str) -> SourceError {
        let (kind, what, remedy) = self.unavailable(format!("the answer cannot be right: {what}"));
        self.error(kind, &what, &remedy, None)
    }

    /// The answer asks for a wait before the next call.
    #[cfg(feature = "dynamodb-streams")]
    pub(in crate::source) fn too_early(self, what: &str) -> SourceError {
        self.error(SourceErrorKind::Unavailable, what, "it is tried again until it is there", None)
    }

    fn unavailable(self, what: String) -> (SourceErrorKind, String, String) {
        (SourceErrorKind::Unavailable, what, self.remedy(SourceErrorKind::Unavailable, ""))
    }

    fn error(
        self,
        kind: SourceErrorKind,
        what: &str,
        remedy: &str,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> SourceError {
        let mut message = format!("{what} ({}", self.stream);
        // Writing to a String cannot fail.
        if let Some(shard) = self.shard {
            let _ = write!(message, ", shard {shard}");
        }
        message.push(')');
        if !remedy.is_empty() {
            let _ = write!(message, "; {remedy}");
        }
        SourceError { kind, api: self.api, message, source }
    }

    fn remedy(self, kind: SourceErrorKind, code: &str) -> String {
        match kind {
            SourceErrorKind::Throttled => {
                "reading continues more slowly; other consumers of the stream share its limits".to_owned()
            }
            SourceErrorKind::IteratorExpired => {
                "the shard is opened again after the last record read".to_owned()
            }
            SourceErrorKind::Trimmed => {
                "records between the last position and the oldest one that the service holds are gone"
                    .to_owned()
            }
            SourceErrorKind::NotFound if self.stream.kind == StreamKind::DynamoDb => {
                "check table, label, account and region of EventSourceArn: \
                 a stream that was disabled and enabled again has a new ARN"
                    .to_owned()
            }
            SourceErrorKind::NotFound => "check name, account and region of EventSourceArn".to_owned(),
            SourceErrorKind::AccessDenied if code.contains("KMS") => {
                "the stream's KMS key must be enabled and allow kms:Decrypt".to_owned()
            }
            SourceErrorKind::AccessDenied if code.contains("AccessDenied") => {
                format!("allow {}:{} on {}", self.stream.arn.service(), self.api, self.stream.arn)
            }
            SourceErrorKind::AccessDenied => {
                "check that the credentials are valid and not expired".to_owned()
            }
            SourceErrorKind::Unavailable => "it is tried again from the same place".to_owned(),
            SourceErrorKind::Rejected | SourceErrorKind::Undecodable => String::new(),
        }
    }
}

/// What a service's error code means (API references of Kinesis and DynamoDB Streams, "Common errors" and each action's errors).
pub(in crate::source) fn by_code(code: &str) -> Option<SourceErrorKind> {
    Some(match code {
        "ExpiredIteratorException" => SourceErrorKind::IteratorExpired,
        "TrimmedDataAccessException" => SourceErrorKind::Trimmed,
        "ResourceNotFoundException" => SourceErrorKind::NotFound,
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown" => SourceErrorKind::Throttled,
        _ if code.starts_with("Throttl") || code.starts_with("KMSThrottling") => SourceErrorKind::Throttled,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired" => SourceErrorKind::AccessDenied,
        _ if code.starts_with("AccessDenied")
            || code.starts_with("ExpiredToken")
            || code.starts_with("KMS") =>
        {
            SourceErrorKind::AccessDenied
        }
        "InvalidArgumentException" | "SerializationException" | "UnknownOperationException" => {
            SourceErrorKind::Rejected
        }
        _ if code.starts_with("Validation") => SourceErrorKind::Rejected,
        // The stream is being created or changed.
        "ResourceInUseException" => SourceErrorKind::Unavailable,
        _ if code.starts_with("Internal") || code.starts_with("ServiceUnavailable") => {
            SourceErrorKind::Unavailable
        }
        _ => return None,
    })
}

/// What an answer means whose code says nothing; often it comes from a proxy and not from the service.
fn by_status(has_code: bool, status: u16) -> SourceErrorKind {
    match status {
        429 => SourceErrorKind::Throttled,
        401 | 403 => SourceErrorKind::AccessDenied,
        400 | 404 | 405 | 413 if has_code => SourceErrorKind::Rejected,
        // 200 included: its body could not be read.
        _ => SourceErrorKind::Unavailable,
    }
}

fn is_about_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(<dyn Error>::is::<CredentialsError>)
}

/// The innermost cause, which names the matter: `Connection refused`.
pub(in crate::source) fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map_or_else(String::new, ToString::to_string)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_error_code_has_its_kind() {
        use SourceErrorKind::*;
        for (kind, codes) in [
            (Throttled, &["ProvisionedThroughputExceededException", "LimitExceededException"][..]),
            (
                Throttled,
                &["KMSThrottlingException", "ThrottlingException", "Throttling", "ThrottledException"],
            ),
            (AccessDenied, &["AccessDeniedException", "AccessDenied", "UnrecognizedClientException"]),
            (AccessDenied, &["ExpiredTokenException", "ExpiredToken", "InvalidSignatureException"]),
            (AccessDenied, &["KMSAccessDeniedException", "KMSDisabledException", "KMSNotFoundException"]),
            (NotFound, &["ResourceNotFoundException"]),
            (IteratorExpired, &["ExpiredIteratorException"]),
            (Trimmed, &["TrimmedDataAccessException"]),
            (Rejected, &["InvalidArgumentException", "ValidationException", "ValidationError"]),
            (Unavailable, &["InternalFailure", "InternalFailureException", "ServiceUnavailable"]),
            (Unavailable, &["ResourceInUseException", "InternalServerError"]),
        ] {
            for code in codes {
                assert_eq!(by_code(code), Some(kind), "{code}");
            }
        }
    }

    #[test]
    fn an_answer_without_a_known_code_is_judged_by_its_status() {
        use SourceErrorKind::*;
        let of = |status| by_status(false, status);
        assert_eq!(
            [429, 403, 500, 503, 200, 400].map(of),
            [Throttled, AccessDenied, Unavailable, Unavailable, Unavailable, Unavailable]
        );
        assert_eq!(by_status(true, 400), Rejected, "the service itself did not like the request");
    }
}
