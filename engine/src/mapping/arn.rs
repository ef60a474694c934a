//! Amazon Resource Names: the stream, the function, the role.

use super::error::{MappingError, MappingErrorKind};

pub(super) const EVENT_SOURCE: &str = "EventSourceArn";
pub(super) const FUNCTION: &str = "FunctionName";
pub(super) const FUNCTION_ARN: &str = "FunctionArn";
pub(super) const ROLE: &str = "Function.RoleArn";

const MAX_SOURCE: usize = 10_000;
const MAX_FUNCTION: usize = 256;

/// What a mapping reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// A Kinesis data stream.
    Kinesis,
    /// The stream of a DynamoDB table.
    DynamoDb,
}

/// The stream that a mapping reads, from its ARN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EventSource {
    /// The ARN as configured.
    pub arn: String,
    /// Which service's stream.
    pub kind: StreamKind,
    /// `aws`, `aws-cn`, `aws-us-gov` …
    pub partition: String,
    /// The stream's region.
    pub region: String,
    /// The account that owns the stream, 12 digits.
    pub account: String,
    /// The stream's name; of a DynamoDB stream, the table's: its label, which changes when the stream is enabled anew, is
    /// the epoch of its leases.
    pub stream: String,
}

impl EventSource {
    /// `invokeIdentityArn` of the events where no role is configured.
    pub(super) fn default_role(&self) -> String {
        format!("arn:{}:iam::{}:role/shardmill", self.partition, self.account)
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

/// The parts of `arn:partition:service:region:account:resource`.
pub(super) struct Arn<'a> {
    pub(super) partition: &'a str,
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    pub(super) account: &'a str,
    pub(super) resource: &'a str,
}

impl<'a> Arn<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        if next()? != "arn" {
            return None;
        }
        let (partition, service, region, account, resource) = (next()?, next()?, next()?, next()?, next()?);
        let known = partition == "aws" || partition.starts_with("aws-");
        (known && is_name(partition) && !resource.is_empty()).then_some(Self {
            partition,
            service,
            region,
            account,
            resource,
        })
    }

    /// Whether region and account are filled in and well formed.
    pub(super) fn is_located(&self) -> bool {
        is_name(self.region) && is_account(self.account)
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Letters, digits, hyphen and underscore, at least one.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
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
    let kind = match arn.service {
        "kinesis" => StreamKind::Kinesis,
        "dynamodb" if arn.resource.contains("/stream/") => StreamKind::DynamoDb,
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
        StreamKind::Kinesis => kinesis_stream(&arn, text, bad)?,
        StreamKind::DynamoDb => table_of_stream(&arn)
            .ok_or_else(|| bad("has a table name or a stream label that DynamoDB does not permit"))?,
    };
    Ok(EventSource {
        arn: text.to_owned(),
        kind,
        partition: arn.partition.to_owned(),
        region: arn.region.to_owned(),
        account: arn.account.to_owned(),
        stream: stream.to_owned(),
    })
}

/// How to find the ARN of a table's stream, whose label only the service knows.
fn latest_stream(table: &Arn<'_>) -> String {
    let name = table.resource.strip_prefix("table/").unwrap_or_default();
    let name = name.split('/').next().filter(|name| !name.is_empty()).unwrap_or("<table>");
    let region = if is_name(table.region) { table.region } else { "<region>" };
    format!(
        "write the stream's ARN, which this prints: aws dynamodb describe-table --region {region} --table-name {name} \
         --query Table.LatestStreamArn --output text (None: the table has no stream yet)"
    )
}

fn kinesis_stream<'a>(
    arn: &Arn<'a>,
    text: &str,
    bad: impl Fn(&'static str) -> MappingError,
) -> Result<&'a str, MappingError> {
    let name = arn.resource.strip_prefix("stream/").ok_or_else(|| bad("does not name a stream"))?;
    if let Some((stream, consumer)) = name.split_once('/')
        && is_stream_name(stream)
        && consumer.starts_with("consumer/")
    {
        let remedy = "enhanced fan-out is not there yet: write the stream's own ARN to poll it";
        return Err(MappingError::not_supported(EVENT_SOURCE, text, remedy));
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
fn table_of_stream<'a>(arn: &Arn<'a>) -> Option<&'a str> {
    let (table, label) = arn.resource.strip_prefix("table/")?.split_once("/stream/")?;
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
    let (partition, region, source_account) =
        source.map_or(("aws", "us-east-1", "000000000000"), |s| (&*s.partition, &*s.region, &*s.account));
    let (account, tail, is_arn) = if text.starts_with("arn:") {
        let arn = Arn::parse(text).filter(|a| a.service == "lambda" && a.is_located()).ok_or_else(bad)?;
        (arn.account, arn.resource.strip_prefix("function:").ok_or_else(bad)?, true)
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
    let ok = Arn::parse(text).is_some_and(|arn| {
        let name = arn.resource.strip_prefix("role/").unwrap_or_default();
        arn.service == "iam" && arn.region.is_empty() && is_account(arn.account) && !name.is_empty()
    });
    match ok {
        true => Ok(text.to_owned()),
        false => Err(invalid(ROLE, text, "is not a role's ARN")
            .permitted("arn:aws:iam::<account>:role/<name>")
            .remedy("leave it out to use the default")),
    }
}
