//! P14: the filter patterns.

use super::super::super::arn::{EventSource, StreamKind};
use super::super::super::error::{MappingError, MappingErrorKind};
use super::super::RawMapping;
use super::{FILTERS, Found};
use crate::filter::{Filter, FilterError, FilterErrorKind, FilterSource};

/// The filter; every pattern that is none is noted.
pub(super) fn compiled(
    builder: &RawMapping,
    source: Option<&EventSource>,
    found: &mut Found,
) -> Option<Filter> {
    let source = filter_source(builder, source);
    let mut sound = true;
    for (index, pattern) in builder.filters.iter().enumerate() {
        if let Err(error) = Filter::parse(&source, std::slice::from_ref(pattern)) {
            found.note(mistake(&error, pattern).item(index));
            sound = false;
        }
    }
    if !sound {
        return None;
    }
    // What is left are limits on all of them together.
    Filter::parse(&source, &builder.filters).map_err(|error| found.note(mistake(&error, ""))).ok()?
}

/// What the patterns are judged for; if the stream is not known, for something that any stream might be.
fn filter_source(builder: &RawMapping, source: Option<&EventSource>) -> FilterSource {
    let arn = source.map_or("", |source| source.arn.as_str());
    match source.filter(|source| source.kind == StreamKind::Kinesis) {
        Some(source) => FilterSource::Kinesis {
            event_source_arn: arn.into(),
            region: source.arn.region().into(),
            invoke_identity_arn: builder.role_arn.clone().unwrap_or_else(|| source.default_role()).into(),
        },
        None => FilterSource::DynamoDb { event_source_arn: arn.into() },
    }
}

fn mistake(error: &FilterError, pattern: &str) -> MappingError {
    let kind = match error.kind() {
        FilterErrorKind::TooMany | FilterErrorKind::TooLong | FilterErrorKind::TooManyCombinations => {
            MappingErrorKind::OutOfRange
        }
        _ => MappingErrorKind::InvalidValue,
    };
    let place = if error.path().is_empty() { String::new() } else { format!("{}: ", error.path()) };
    let problem = match error.kind() {
        FilterErrorKind::TooMany => error.problem().to_owned(),
        _ => format!("is not a filter pattern: {place}{}", error.problem()),
    };
    let shown = if pattern.trim().is_empty() { "an empty text" } else { pattern };
    let noted = MappingError::new(FILTERS, kind, if error.pattern().is_some() { shown } else { "" })
        .problem(problem)
        .remedy(error.remedy());
    match error.aws_message() {
        Some(text) => noted.aws(text),
        None => noted,
    }
}
