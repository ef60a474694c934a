//! Why a call to the service failed, and what that means for a store.

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::Named;
use crate::StoreError;

/// One operation of the service; it is also the IAM action that permits it.
pub(crate) type Operation = &'static str;

/// How far a failure reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The item alone, and nothing was written: its partition is throttled.
    Throttled,
    /// The item alone: it is not known whether it was written.
    Item,
    /// Every call: no connection, credentials that have expired.
    Call,
    /// Every call, until something is corrected.
    Setup,
}

/// A failed call.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reach: Reach,
    pub(crate) reason: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    pub(crate) fn new(reach: Reach, reason: impl Into<String>) -> Self {
        Self { reach, reason: reason.into(), source: None }
    }

    /// The failure of `operation`.
    pub(crate) fn of<E>(operation: Operation, table: Named<'_>, error: SdkError<E, HttpResponse>) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let (reach, why) = match &error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code().map_or_else(|| format!("HTTP status {status}"), str::to_owned);
                let said = answer.err().message().map(|text| format!(" ({text})")).unwrap_or_default();
                let (reach, remedy) = judge(&code, status, operation, table);
                (reach, format!("{code}{said}{remedy}"))
            }
            SdkError::TimeoutError(_) => (Reach::Item, "no answer in time".to_owned()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                (Reach::Item, "no answer in time".to_owned())
            }
            SdkError::ResponseError(_) => (
                Reach::Item,
                format!("{}; check the endpoint's URL and proxies if this continues", root_cause(&error)),
            ),
            _ => (Reach::Call, root_cause(&error)),
        };
        Self { reach, reason: format!("{operation} failed: {why}"), source: Some(Box::new(error)) }
    }

    /// Whether the next attempt may succeed at once.
    pub(crate) fn is_retryable(&self) -> bool {
        self.reach != Reach::Setup
    }

    /// Whether the call may have been carried out all the same.
    pub(crate) fn is_unsure(&self) -> bool {
        matches!(self.reach, Reach::Item | Reach::Call)
    }

    pub(crate) fn into_store_error(self, store: &str) -> StoreError {
        let Self { reach, reason, source } = self;
        let store = store.to_owned();
        match reach {
            Reach::Setup => StoreError::Unusable { store, reason, source },
            Reach::Throttled | Reach::Item | Reach::Call => StoreError::Unavailable { store, reason, source },
        }
    }
}

fn judge(code: &str, status: u16, operation: Operation, table: Named<'_>) -> (Reach, String) {
    let Named { name: table, shape } = table;
    let short = short(code);
    let plain = |reach| (reach, String::new());
    match short {
        _ if is_throttle(Some(code), status) => plain(Reach::Throttled),
        "ResourceNotFound" => (
            Reach::Setup,
            format!("; create the table {table} with {}, or let this worker create it", shape.in_words()),
        ),
        "AccessDenied" => (
            Reach::Setup,
            format!("; allow dynamodb:{operation} on table {table} to the credentials of this worker"),
        ),
        "UnrecognizedClient"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => (Reach::Setup, "; check this worker's credentials".to_owned()),
        // New ones may be on their way, and a clock may be corrected.
        "ExpiredToken" | "RequestExpired" | "InvalidSignature" | "SignatureDoesNotMatch" => {
            (Reach::Call, "; check this worker's credentials and its clock".to_owned())
        }
        "Validation" | "Serialization" => (Reach::Setup, String::new()),
        _ if status >= 500 => plain(Reach::Item),
        _ => plain(Reach::Call),
    }
}

/// Some codes come with the service's name in front.
fn short(code: &str) -> &str {
    code.rsplit(['#', '.']).next().unwrap_or(code).trim_end_matches("Exception")
}

/// Whether the service asks to slow down.
pub(crate) fn is_throttle(code: Option<&str>, status: u16) -> bool {
    status == 429
        || matches!(
            code.map(short),
            Some(
                "ProvisionedThroughputExceeded"
                    | "Throttling"
                    | "ThrottlingError"
                    | "RequestLimitExceeded"
                    | "LimitExceeded"
            )
        )
}

/// The innermost cause: the SDK's outer errors only say "dispatch failure".
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Shape;

    #[test]
    fn errors_are_judged_by_their_class_and_name_a_remedy() {
        let table = Named { name: "leases", shape: &Shape::keyed("application", Some("item")) };
        let judged = |code: &str, status| judge(code, status, "UpdateItem", table);
        for code in ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
        {
            assert_eq!(judged(code, 400).0, Reach::Throttled, "{code}");
        }
        assert_eq!(judged("HTTP status 429", 429).0, Reach::Throttled);
        for code in ["InternalServerError", "ServiceUnavailable", "HTTP status 502"] {
            assert_eq!(judged(code, 500).0, Reach::Item, "{code}");
        }
        let (reach, remedy) = judged("com.amazonaws.dynamodb.v20120810#AccessDeniedException", 400);
        assert_eq!(reach, Reach::Setup);
        assert!(remedy.contains("allow dynamodb:UpdateItem on table leases"), "{remedy}");
        let (reach, remedy) = judged("ResourceNotFoundException", 400);
        assert!(reach == Reach::Setup && remedy.contains("application (S)"), "{remedy}");
        assert_eq!(judged("ExpiredTokenException", 400).0, Reach::Call);
        assert_eq!(judged("ValidationException", 400).0, Reach::Setup);
    }

    #[test]
    fn only_what_must_be_corrected_is_unusable() {
        for (reach, retryable) in
            [(Reach::Throttled, true), (Reach::Item, true), (Reach::Call, true), (Reach::Setup, false)]
        {
            let failure = Failure::new(reach, "why");
            assert_eq!(failure.is_retryable(), retryable);
            assert_eq!(failure.into_store_error("dynamodb:t").is_retryable(), retryable, "{reach:?}");
        }
        assert!(!Failure::new(Reach::Throttled, "").is_unsure());
    }
}
