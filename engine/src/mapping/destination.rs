//! Where discarded batches go.

use std::fmt;
use std::path::PathBuf;

use super::arn::{invalid, refused, too_long};
use super::error::MappingError;
use crate::arn::{Arn, is_name};

pub(super) const DESTINATION: &str = "DestinationConfig.OnFailure.Destination";

const FORM: &str = "the ARN of a standard SQS queue, a standard SNS topic or an S3 bucket, or file:PATH";
const MAX_LENGTH: usize = 350;

/// Where discarded batches go (P15).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureDestination {
    /// A standard queue: the ARN's resource is its name, the ARN's region the client's.
    Sqs(Arn),
    /// A standard topic: the ARN's resource is its name, the ARN's region the client's.
    Sns(Arn),
    /// A bucket: the ARN's resource is its name. The ARN names neither region nor account.
    S3(Arn),
    /// A file of JSON Lines on this host.
    File(PathBuf),
}

impl fmt::Display for FailureDestination {
    /// As a mapping writes it: the ARN, or `file:PATH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqs(arn) | Self::Sns(arn) | Self::S3(arn) => arn.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FailureDestination {
    /// Reads a destination as a mapping names it (P15): an ARN or `file:PATH`. An empty text means none.
    ///
    /// # Errors
    /// The text is neither, the ARN is of something else or not well formed, or it names a FIFO queue or topic, which
    /// Lambda refuses (R77).
    pub fn parse(text: &str) -> Result<Option<Self>, MappingError> {
        if text.is_empty() {
            return Ok(None);
        }
        let bad = |problem| invalid(DESTINATION, text, problem).permitted(FORM);
        if let Some(path) = text.strip_prefix("file:") {
            return match path.is_empty() {
                true => Err(bad("names no file").remedy("write a path, for example file:./discarded.jsonl")),
                false => Ok(Some(Self::File(PathBuf::from(path)))),
            };
        }
        if text.starts_with("kafka://") {
            return Err(refused(DESTINATION, text, "is a destination for Kafka event sources only")
                .permitted(FORM)
                .remedy("choose another destination"));
        }
        if let Some(error) = too_long(DESTINATION, text, MAX_LENGTH) {
            return Err(error);
        }
        let arn = Arn::parse(text).ok_or_else(|| bad("is not an ARN").remedy("write the queue's ARN"))?;
        match arn.service() {
            "sqs" | "sns" if arn.resource().ends_with(".fifo") => Err(refused(
                DESTINATION,
                text,
                "is a FIFO queue or topic, which Lambda refuses as a destination",
            )
            .permitted(FORM)
            .remedy("use a standard queue")),
            "sqs" => queue(arn),
            "sns" => topic(arn),
            "s3" => bucket(arn),
            _ => Err(bad("is not a destination for discarded batches").remedy("use a standard SQS queue")),
        }
        .map(Some)
    }
}

fn queue(arn: Arn) -> Result<FailureDestination, MappingError> {
    let bad = |problem| invalid(DESTINATION, arn.as_str(), problem).permitted(FORM);
    if !arn.is_located() {
        return Err(bad("has no region or no account of 12 digits").remedy("write the queue's ARN"));
    }
    if !is_name(arn.resource()) || arn.resource().len() > 80 {
        return Err(
            bad("has a queue name that SQS does not permit").remedy("write the queue's ARN, not its URL")
        );
    }
    Ok(FailureDestination::Sqs(arn))
}

fn topic(arn: Arn) -> Result<FailureDestination, MappingError> {
    let bad = |problem| invalid(DESTINATION, arn.as_str(), problem).permitted(FORM);
    if !arn.is_located() {
        return Err(bad("has no region or no account of 12 digits").remedy("write the topic's ARN"));
    }
    if !is_name(arn.resource()) || arn.resource().len() > 256 {
        return Err(bad("has a topic name that SNS does not permit")
            .remedy("write the topic's ARN, not that of a subscription"));
    }
    Ok(FailureDestination::Sns(arn))
}

fn bucket(arn: Arn) -> Result<FailureDestination, MappingError> {
    let bad = |problem| {
        invalid(DESTINATION, arn.as_str(), problem)
            .permitted(FORM)
            .remedy("write arn:aws:s3:::<bucket>, without a key")
    };
    if !arn.region().is_empty() || !arn.account().is_empty() {
        return Err(bad("is an access point or another resource than a bucket"));
    }
    if !is_bucket_name(arn.resource()) {
        return Err(bad("has a bucket name that S3 does not permit"));
    }
    Ok(FailureDestination::S3(arn))
}

/// S3's rules for general purpose buckets, as far as their letters go.
fn is_bucket_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().next_back()];
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'.'))
        && ends.into_iter().flatten().all(plain)
        && !name.contains("..")
}
