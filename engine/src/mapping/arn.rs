//! What a mapping's ARNs name: the stream, the function, the role.

use std::fmt;

use super::error::{MappingError, MappingErrorKind};
use crate::arn::{Arn, is_account, is_name};

pub(super) const EVENT_SOURCE: &str = "EventSourceArn";
pub(super) const FUNCTION: &str = "FunctionName";
pub(super) const FUNCTION_ARN: &str = "FunctionArn";
pub(super) const ROLE: &str = "Function.RoleArn";

const MAX_SOURCE: usize = 10_000;
const MAX_FUNCTION: usize = 256;

/// Between a table and the label of its stream.
const LABEL: &str = "/stream/";

/// What a mapping reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// A Kinesis data stream.
    Kinesis,
    /// The stream of a DynamoDB table.
    DynamoDb,
}

/// The stream that a mapping reads, from its ARN.
///
/// It is read from a text with [`TryFrom`]: `EventSource::try_from("arn:aws:kinesis:…")`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EventSource {
    /// The stream's ARN, with its region and account.
    pub arn: Arn,
    /// Which service's stream.
    pub kind: StreamKind,
    /// The stream's name; of a DynamoDB stream, the table's.
    pub stream: String,
}

impl EventSource {
    /// A DynamoDB stream's label, which changes when the stream is enabled anew: the epoch of its leases. `None` for a
    /// Kinesis stream.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.arn.resource().split_once(LABEL).map(|(_, label)| label)
    }

    /// `invokeIdentityArn` of the events where no role is configured.
    pub(super) fn default_role(&self) -> String {
        format!("arn:{}:iam::{}:role/shardmill", self.arn.partition(), self.arn.account())
    }
}

impl TryFrom<&str> for EventSource {
    type Error = MappingError;

    /// Reads the ARN of a Kinesis or DynamoDB stream (P1).
    fn try_from(arn: &str) -> Result<Self, MappingError> {
        event_source(arn)
    }
}

impl TryFrom<&String> for EventSource {
    type Error = MappingError;

    /// As from a `&str`.
    fn try_from(arn: &String) -> Result<Self, MappingError> {
        event_source(arn)
    }
}

impl TryFrom<&Self> for EventSource {
    type Error = MappingError;

    /// A clone. Never fails.
    fn try_from(source: &Self) -> Result<Self, MappingError> {
        Ok(source.clone())
    }
}

impl fmt::Display for EventSource {
    /// What and where the stream is, human-readable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arn, stream, .. } = self;
        match self.label() {
            None => write!(f, "Kinesis stream {stream}")?,
            Some(label) => write!(f, "DynamoDB stream {label} of table {stream}")?,
        }
        write!(f, " in {} ({})", arn.region(), arn.account())
    }
}

/// The function under its ARN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Function {
    pub(super) arn: String,
    pub(super) name: String,
    pub(super) qualifier: Option<String>,
}

impl Function {
    /// `name` or `name:qualifier`.
    pub(super) fn qualified_name(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => format!("{}:{qualifier}", self.name),
            None => self.name.clone(),
        }
    }

    /// The numeric qualifier, else `$LATEST`.
    pub(super) fn executed_version(&self) -> &str {
        match &self.qualifier {
            Some(version) if version.bytes().all(|b| b.is_ascii_digit()) => version,
            _ => "$LATEST",
        }
    }
}

pub(super) fn invalid(field: &'static str, value: &str, problem: &str) -> MappingError {
    MappingError::new(field, MappingErrorKind::InvalidValue, value).problem(problem)
}

pub(super) fn refused(field: &'static str, value: &str, problem: &str) -> MappingError {
    MappingError::new(field, MappingErrorKind::Refused, value).problem(problem)
}

pub(super) fn too_long(field: &'static str, value: &str, most: usize) -> Option<MappingError> {
    let length = value.chars().count();
    (length > most).then(|| {
        MappingError::new(field, MappingErrorKind::OutOfRange, value)
            .problem(format!("has {length} characters"))
            .permitted(format!("at most {most}"))
            .remedy("write the ARN as AWS shows it")
    })
}

/// P1.
pub(super) fn event_source(text: &str) -> Result<EventSource, MappingError> {
    const FORM: &str = "arn:aws:kinesis:<region>:<account>:stream/<name>, \
                        arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>";
    if text.is_empty() {
        return Err(MappingError::new(EVENT_SOURCE, MappingErrorKind::Missing, "")
            .problem("is not set")
            .permitted(FORM)
            .remedy("write the stream's ARN")
            .aws("Unrecognized event source."));
    }
    if let Some(error) = too_long(EVENT_SOURCE, text, MAX_SOURCE) {
        return Err(error);
    }
    let bad = |problem| invalid(EVENT_SOURCE, text, problem).permitted(FORM).remedy("write the stream's ARN");
    let arn = Arn::parse(text).ok_or_else(|| bad("is not an ARN"))?;
    let kind = match arn.service() {
        "kinesis" => StreamKind::Kinesis,
        "dynamodb" if arn.resource().contains(LABEL) => StreamKind::DynamoDb,
        "dynamodb" => {
            return Err(bad("is a table, not its stream").remedy(latest_stream(&arn)));
        }
        "sqs" | "kafka" | "mq" | "rds" => {
            return Err(refused(EVENT_SOURCE, text, "is not a stream").permitted(FORM).remedy(
                "event source mappings of queues, Kafka, MQ and DocumentDB are not what this program does",
            ));
        }
        _ => return Err(bad("is not the ARN of a stream").aws("Unrecognized event source.")),
    };
    if !arn.is_located() {
        return Err(bad("has no region or no account of 12 digits"));
    }
    let stream = match kind {
        StreamKind::Kinesis => kinesis_stream(&arn, bad)?,
        StreamKind::DynamoDb => table_of_stream(&arn)
            .ok_or_else(|| bad("has a table name or a stream label that DynamoDB does not permit"))?,
    };
    Ok(EventSource { stream: stream.to_owned(), arn, kind })
}

/// How to find the ARN of a table's stream, whose label only the service knows.
fn latest_stream(table: &Arn) -> String {
    let name = table.resource().strip_prefix("table/").unwrap_or_default();
    let name = name.split('/').next().filter(|name| !name.is_empty()).unwrap_or("<table>");
    let region = if is_name(table.region()) { table.region() } else { "<region>" };
    format!(
        "write the stream's ARN, which this prints: aws dynamodb describe-table --region {region} --table-name {name} \
         --query Table.LatestStreamArn --output text (None: the table has no stream yet)"
    )
}

fn kinesis_stream(arn: &Arn, bad: impl Fn(&'static str) -> MappingError) -> Result<&str, MappingError> {
    let name = arn.resource().strip_prefix("stream/").ok_or_else(|| bad("does not name a stream"))?;
    if let Some((stream, consumer)) = name.split_once('/')
        && is_stream_name(stream)
        && consumer.starts_with("consumer/")
    {
        let remedy = "enhanced fan-out is not there yet: write the stream's own ARN to poll it";
        return Err(MappingError::not_supported(EVENT_SOURCE, arn.as_str(), remedy));
    }
    match is_stream_name(name) {
        true => Ok(name),
        false => Err(bad("has a stream name that Kinesis does not permit")),
    }
}

fn is_stream_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && has_name_characters(name)
}

/// The table of `table/<table>/stream/<label>`; a label is a time such as `2026-09-17T14:10:44.560`.
fn table_of_stream(arn: &Arn) -> Option<&str> {
    let (table, label) = arn.resource().strip_prefix("table/")?.split_once(LABEL)?;
    let is_table = (1..=255).contains(&table.len()) && has_name_characters(table);
    let is_label = !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.' | b'_'));
    (is_table && is_label).then_some(table)
}

fn has_name_characters(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// P2: a name, `name:qualifier`, `account:function:name`, or an ARN with or without a qualifier. What the text leaves
/// out is taken from the stream.
pub(super) fn function(
    field: &'static str,
    text: &str,
    source: Option<&EventSource>,
) -> Result<Function, MappingError> {
    const FORM: &str = "a function's name, name:qualifier, or ARN";
    if text.is_empty() {
        return Err(MappingError::new(field, MappingErrorKind::Missing, "")
            .problem("is not set")
            .permitted(FORM)
            .remedy("name the function: it identifies the application"));
    }
    if let Some(error) = too_long(field, text, MAX_FUNCTION) {
        return Err(error);
    }
    let bad = || {
        invalid(field, text, "is not a function")
            .permitted(FORM)
            .remedy("letters, digits, hyphens and underscores only")
    };
    let (partition, region, source_account) = source.map_or(("aws", "us-east-1", "000000000000"), |source| {
        (source.arn.partition(), source.arn.region(), source.arn.account())
    });
    let arn;
    let (account, tail, is_arn) = if text.starts_with("arn:") {
        arn = Arn::parse(text).filter(|a| a.service() == "lambda" && a.is_located()).ok_or_else(bad)?;
        (arn.account(), arn.resource().strip_prefix("function:").ok_or_else(bad)?, true)
    } else if let Some((account, name)) = text.split_once(":function:") {
        if !is_account(account) {
            return Err(bad());
        }
        (account, name, false)
    } else {
        (source_account, text, false)
    };
    let (name, qualifier) = match tail.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (tail, None),
    };
    if !is_name(name) || qualifier.is_some_and(|q| q != "$LATEST" && !is_name(q)) {
        return Err(bad());
    }
    let arn = match is_arn {
        true => text.to_owned(),
        false => format!("arn:{partition}:lambda:{region}:{account}:function:{tail}"),
    };
    Ok(Function { arn, name: name.to_owned(), qualifier: qualifier.map(str::to_owned) })
}

/// An IAM role's ARN.
pub(super) fn role(text: &str) -> Result<String, MappingError> {
    match Arn::parse(text).is_some_and(|arn| arn.is_role()) {
        true => Ok(text.to_owned()),
        false => Err(invalid(ROLE, text, "is not a role's ARN")
            .permitted("arn:aws:iam::<account>:role/<name>")
            .remedy("leave it out to use the default")),
    }
}
