//! The checks behind [`RawMapping::build`].

mod filter;

use std::time::Duration;

use uuid::Uuid;

use super::super::error::{MappingError, MappingErrorKind};
use super::super::limits::{self, Limit};
use super::super::{EventSourceMapping, FailureDestination, Polling, Retry, StreamKind, arn};
use super::RawMapping;
use crate::position::Position;
use crate::time::Wall;

const STARTING_POSITION: &str = "StartingPosition";
const TIMESTAMP: &str = "StartingPositionTimestamp";
const RESPONSE_TYPES: &str = "FunctionResponseTypes";
const FILTERS: &str = "FilterCriteria.Filters";
const POSITIONS: &str = "TRIM_HORIZON, LATEST, AT_TIMESTAMP";

impl RawMapping {
    pub(super) fn check(&self, found: &mut Found) -> Option<EventSourceMapping> {
        let event_source = found.keep(arn::event_source(&self.event_source_arn));
        let function = self.function(event_source.as_ref(), found);
        let starting_position = self.position(found);
        let batch_size = found.count(&limits::BATCH_SIZE, self.batch_size);
        let batching_window = found.seconds(&limits::BATCHING_WINDOW, self.batching_window);
        let maximum_retry_attempts = found.number(&limits::RETRY_ATTEMPTS, self.maximum_retry_attempts);
        self.response_types(found);
        let parallelization_factor =
            found.count(&limits::PARALLELIZATION_FACTOR, self.parallelization_factor);
        let maximum_record_age = found.number(&limits::RECORD_AGE, self.maximum_record_age);
        let tumbling_window = found.seconds(&limits::TUMBLING_WINDOW, self.tumbling_window);
        self.conflicts(found);
        let filter = filter::compiled(self, event_source.as_ref(), found);
        let failure_destination = found.keep(FailureDestination::parse(&self.on_failure));
        self.on_success(found);
        let longest =
            if self.managed_instances { &limits::MANAGED_INSTANCES_TIMEOUT } else { &limits::TIMEOUT };
        let timeout = found.seconds(longest, self.timeout);
        let role = self.role_arn.as_deref().map(|text| found.keep(arn::role(text)));
        let retry = self.retry(found);
        let kind = event_source.as_ref().map_or(StreamKind::Kinesis, |source| source.kind);
        let polling = self.polling(kind, found);
        let checkpoint_interval = found.milliseconds(&limits::CHECKPOINT_INTERVAL, self.checkpoint_interval);

        // From here on everything is there unless a mistake was noted.
        let (event_source, function) = (event_source?, function?);
        let application_name = self.application_name(&event_source, &function, found)?;
        let uuid = self.checked_uuid(&application_name, found)?;
        let identity = self.identity(&application_name);
        let invoke_identity_arn = match role {
            Some(role) => role?,
            None => event_source.default_role(),
        };
        Some(EventSourceMapping {
            batch_size: batch_size?,
            batching_window: batching_window?,
            bisect_batch_on_function_error: self.bisect_batch_on_function_error,
            // -1 is no u32, so it becomes "no limit".
            maximum_retry_attempts: u32::try_from(maximum_retry_attempts?).ok(),
            parallelization_factor: parallelization_factor?,
            maximum_record_age: u64::try_from(maximum_record_age?).ok().map(Duration::from_secs),
            tumbling_window: tumbling_window.filter(|window| !window.is_zero()),
            filter,
            payload_limit: self.payload_limit,
            report_batch_item_failures: !self.function_response_types.is_empty(),
            starting_position: starting_position?,
            timeout: timeout?,
            retry: retry?,
            polling: polling?,
            checkpoint_interval: checkpoint_interval?,
            on_destination_failure: self.on_destination_failure,
            on_gap: self.on_gap,
            on_undecodable: self.on_undecodable,
            event_source,
            function,
            application_name,
            uuid,
            identity,
            enabled: self.enabled,
            failure_destination: failure_destination?,
            invoke_identity_arn,
        })
    }

    fn function(&self, source: Option<&arn::EventSource>, found: &mut Found) -> Option<arn::Function> {
        let Some(text) = &self.function_arn else {
            return found.keep(arn::function(arn::FUNCTION, &self.function_name, source));
        };
        let by_arn = found.keep(arn::function(arn::FUNCTION_ARN, text, source))?;
        if self.function_name.is_empty() {
            return Some(by_arn);
        }
        let by_name = found.keep(arn::function(arn::FUNCTION, &self.function_name, source))?;
        // A bare name next to an ARN leaves account and qualifier to the ARN.
        let qualifiers_differ = by_name.qualifier.is_some() && by_name.qualifier != by_arn.qualifier;
        if by_name.name != by_arn.name || qualifiers_differ {
            found.note(
                MappingError::new(arn::FUNCTION, MappingErrorKind::Conflict, self.function_name.as_str())
                    .problem(format!("is not the function of FunctionArn, {text}"))
                    .remedy("write one of the two"),
            );
        }
        Some(by_arn)
    }

    fn position(&self, found: &mut Found) -> Option<Position> {
        let conflict = |text: &str, at: i64| {
            MappingError::new(TIMESTAMP, MappingErrorKind::Conflict, iso8601(at))
                .problem(format!("goes with StartingPosition AT_TIMESTAMP only, not with {text}"))
                .remedy("leave it out or write StartingPosition: AT_TIMESTAMP")
                .aws("Timestamp only valid with StartingPosition AT_TIMESTAMP")
        };
        let position = match self.starting_position.as_deref() {
            Some("TRIM_HORIZON") => Position::TrimHorizon,
            Some("LATEST") => Position::Latest,
            Some("AT_TIMESTAMP") => return self.timestamp(found),
            Some(other) => {
                found.note(
                    MappingError::new(STARTING_POSITION, MappingErrorKind::InvalidValue, other)
                        .problem("is not a starting position")
                        .permitted(POSITIONS)
                        .remedy("TRIM_HORIZON starts at the oldest record")
                        .aws(enum_message(other)),
                );
                return None;
            }
            None => {
                found.note(
                    MappingError::new(STARTING_POSITION, MappingErrorKind::Missing, "")
                        .problem("is not set")
                        .permitted(POSITIONS)
                        .remedy("TRIM_HORIZON starts at the oldest record, LATEST with those to come")
                        .aws(
                            "1 validation error detected: Value null at 'startingPosition' failed to satisfy \
                             constraint: Member must not be null.",
                        ),
                );
                return None;
            }
        };
        if let (Some(at), Some(text)) = (self.starting_position_timestamp, &self.starting_position) {
            found.note(conflict(text, at));
        }
        Some(position)
    }

    fn timestamp(&self, found: &mut Found) -> Option<Position> {
        const PERMITTED: &str = "a time from 1970 on that is not in the future";
        let mistake = |kind, value: String| MappingError::new(TIMESTAMP, kind, value).permitted(PERMITTED);
        let Some(at) = self.starting_position_timestamp else {
            found.note(
                mistake(MappingErrorKind::Missing, String::new())
                    .problem("is not set, but StartingPosition is AT_TIMESTAMP")
                    .remedy("write it as ISO 8601 or as epoch seconds"),
            );
            return None;
        };
        let in_future = self.as_of.is_some_and(|now| at > now.as_millis());
        if at < 0 || in_future {
            let problem = if in_future { "is in the future" } else { "is before 1970" };
            found.note(
                mistake(MappingErrorKind::OutOfRange, iso8601(at))
                    .problem(problem)
                    .remedy("write an earlier time, or StartingPosition: LATEST for the records to come"),
            );
            return None;
        }
        Some(Position::AtTimestamp(at))
    }

    fn response_types(&self, found: &mut Found) {
        for text in &self.function_response_types {
            if text != "ReportBatchItemFailures" {
                found.note(
                    MappingError::new(RESPONSE_TYPES, MappingErrorKind::InvalidValue, text.as_str())
                        .problem("is not a response type")
                        .permitted("ReportBatchItemFailures")
                        .remedy("write [ReportBatchItemFailures] or leave it out"),
                );
            }
        }
        let count = self.function_response_types.len();
        if count > 1 {
            found.note(
                MappingError::new(RESPONSE_TYPES, MappingErrorKind::OutOfRange, "")
                    .problem(format!("has {count} items"))
                    .permitted("at most 1")
                    .remedy("write [ReportBatchItemFailures]"),
            );
        }
    }

    /// Lambda refuses windows together with lanes or filters (R71).
    fn conflicts(&self, found: &mut Found) {
        if self.parallelization_factor > 1 && self.tumbling_window > 0 {
            found.note(
                MappingError::new(
                    limits::PARALLELIZATION_FACTOR.field,
                    MappingErrorKind::Conflict,
                    self.parallelization_factor.to_string(),
                )
                .problem("cannot go with TumblingWindowInSeconds")
                .permitted("1 when a tumbling window is set")
                .remedy("drop one of the two")
                .aws("Parallelization factor must be equal to 1 when tumbling window period is configured"),
            );
        }
        if !self.filters.is_empty() && self.tumbling_window > 0 {
            found.note(
                MappingError::new(FILTERS, MappingErrorKind::Conflict, "")
                    .problem("cannot go with TumblingWindowInSeconds")
                    .permitted("no filters when a tumbling window is set")
                    .remedy("drop one of the two, or filter in the function"),
            );
        }
    }

    fn on_success(&self, found: &mut Found) {
        if !self.on_success.is_empty() {
            found.note(
                MappingError::new(
                    "DestinationConfig.OnSuccess.Destination",
                    MappingErrorKind::Refused,
                    self.on_success.as_str(),
                )
                .problem("is refused: event source mappings have no OnSuccess")
                .remedy("leave OnSuccess out")
                .aws("OnSuccess configuration is not supported for event source mappings."),
            );
        }
    }

    fn retry(&self, found: &mut Found) -> Option<Retry> {
        let initial = found.milliseconds(&limits::INITIAL_BACKOFF, self.initial_backoff);
        let maximum = found.seconds(&limits::MAXIMUM_BACKOFF, self.maximum_backoff);
        let retry = Retry { initial_backoff: initial?, maximum_backoff: maximum? };
        if retry.initial_backoff > retry.maximum_backoff {
            found.note(
                MappingError::new(
                    limits::INITIAL_BACKOFF.field,
                    MappingErrorKind::Conflict,
                    self.initial_backoff.to_string(),
                )
                .problem("is above Retry.MaximumBackoffSeconds")
                .permitted(format!("up to {}", retry.maximum_backoff.as_millis()))
                .remedy("raise the maximum or lower this"),
            );
        }
        Some(retry)
    }

    fn polling(&self, kind: StreamKind, found: &mut Found) -> Option<Polling> {
        let (idle, maximum_idle, maximum_records) = match kind {
            StreamKind::Kinesis => {
                (&limits::IDLE_INTERVAL, &limits::MAXIMUM_IDLE_INTERVAL, &limits::MAXIMUM_RECORDS)
            }
            StreamKind::DynamoDb => (
                &limits::DYNAMODB_IDLE_INTERVAL,
                &limits::DYNAMODB_MAXIMUM_IDLE_INTERVAL,
                &limits::DYNAMODB_MAXIMUM_RECORDS,
            ),
        };
        let maximum_records =
            found.count(maximum_records, self.maximum_records.unwrap_or(maximum_records.default));
        let idle = found.milliseconds(idle, self.idle_interval.unwrap_or(idle.default));
        let maximum_idle = match (self.maximum_idle_interval, kind) {
            (Some(value), _) => found.milliseconds(maximum_idle, value),
            (None, StreamKind::Kinesis) => idle,
            (None, StreamKind::DynamoDb) => idle.max(found.milliseconds(maximum_idle, maximum_idle.default)),
        };
        let buffer_bytes = found.count(&limits::BUFFER_BYTES, self.buffer_bytes);
        let (idle, maximum_idle) = (idle?, maximum_idle?);
        if maximum_idle < idle {
            found.note(
                MappingError::new(
                    limits::MAXIMUM_IDLE_INTERVAL.field,
                    MappingErrorKind::Conflict,
                    maximum_idle.as_millis().to_string(),
                )
                .problem("is below Polling.IdleIntervalMilliseconds")
                .permitted(format!("{} to {}", idle.as_millis(), limits::MAXIMUM_IDLE_INTERVAL.maximum))
                .remedy("raise it or leave it out"),
            );
        }
        if let (Some(encoding), StreamKind::DynamoDb) = (self.answer_encoding, kind) {
            let value = format!("{encoding:?}").to_lowercase();
            found.note(
                MappingError::new("Polling.Encoding", MappingErrorKind::Conflict, value)
                    .problem("is not for DynamoDB streams, which answer in JSON only")
                    .remedy("remove it, or write it in the mappings of Kinesis streams"),
            );
        }
        Some(Polling {
            answer_encoding: self.answer_encoding.unwrap_or_default(),
            idle_interval: idle,
            maximum_idle_interval: maximum_idle,
            maximum_records: maximum_records?,
            buffer_bytes: buffer_bytes?,
        })
    }

    fn application_name(
        &self,
        source: &arn::EventSource,
        function: &arn::Function,
        found: &mut Found,
    ) -> Option<String> {
        let Some(name) = &self.name else {
            return Some(default_application_name(source, &function.qualified_name()));
        };
        let length = name.chars().count();
        if (1..=255).contains(&length) && !name.chars().any(char::is_control) {
            return Some(name.clone());
        }
        found.note(
            MappingError::new("Name", MappingErrorKind::InvalidValue, name.escape_debug().to_string())
                .problem("cannot name an application")
                .permitted("1 to 255 characters, none of them a control character")
                .remedy("leave it out to use the default"),
        );
        None
    }

    /// One spelling for all: upper case, braces or no hyphens are the same UUID.
    fn identity(&self, application_name: &str) -> String {
        match &self.uuid {
            Some(text) => Uuid::try_parse(text).map_or_else(|_| text.clone(), |uuid| uuid.to_string()),
            None => application_name.to_owned(),
        }
    }

    fn checked_uuid(&self, application_name: &str, found: &mut Found) -> Option<String> {
        let Some(text) = &self.uuid else {
            return Some(Uuid::new_v5(&Uuid::NAMESPACE_URL, application_name.as_bytes()).to_string());
        };
        if Uuid::try_parse(text).is_ok() {
            return Some(text.clone());
        }
        found.note(
            MappingError::new("UUID", MappingErrorKind::InvalidValue, text.as_str())
                .problem("is not a UUID")
                .permitted("32 hexadecimal digits, as in 1b3f6a52-3c0e-4d5c-9e9e-2f4b6a1c7d80")
                .remedy("leave it out to derive one from the application's name"),
        );
        None
    }
}

/// `<function name and qualifier>@<account>.<region>.<stream>`.
fn default_application_name(source: &arn::EventSource, function: &str) -> String {
    format!("{function}@{}.{}.{}", source.arn.account(), source.arn.region(), source.stream)
}

fn iso8601(milliseconds: i64) -> String {
    let mut text = String::new();
    crate::time::write_iso8601(&mut text, Wall::from_millis(milliseconds), true);
    text
}

fn enum_message(value: &str) -> String {
    format!(
        "1 validation error detected: Value '{value}' at 'startingPosition' failed to satisfy constraint: \
         Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    )
}

/// The mistakes found so far.
pub(super) struct Found(pub(super) Vec<MappingError>);

impl Found {
    fn note(&mut self, error: MappingError) {
        self.0.push(error);
    }

    fn keep<T>(&mut self, result: Result<T, MappingError>) -> Option<T> {
        result.map_err(|error| self.note(error)).ok()
    }

    fn number(&mut self, limit: &Limit, value: i64) -> Option<i64> {
        self.keep(limit.check(value))
    }

    fn count(&mut self, limit: &Limit, value: i64) -> Option<usize> {
        self.number(limit, value).and_then(|n| usize::try_from(n).ok())
    }

    fn seconds(&mut self, limit: &Limit, value: i64) -> Option<Duration> {
        self.number(limit, value).and_then(|n| u64::try_from(n).ok()).map(Duration::from_secs)
    }

    fn milliseconds(&mut self, limit: &Limit, value: i64) -> Option<Duration> {
        self.number(limit, value).and_then(|n| u64::try_from(n).ok()).map(Duration::from_millis)
    }
}
