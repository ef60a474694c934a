//! `FilterCriteria`: which records a function is invoked with (R55 to R63).
//!
//! A pattern is compiled once, when the mapping is built. A record is judged on the bytes that arrived: a search for
//! texts that a matching record must contain, then one walk that notes where the fields of the pattern are. No tree of
//! the record is built.

mod cidr;
mod error;
mod literal;
mod never;
mod number;
mod operator;
mod pattern;
mod scan;
mod tree;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use error::{FilterError, FilterErrorKind};
pub use never::NeverMatches;

use crate::json::push_seconds;
use crate::record::{Data, Payload, Record, ShardId};
use literal::Literals;
use pattern::{Combination, Mistake};
use scan::Scalar;
use tree::{Node, Object};

/// What the records of a mapping have in common, which a pattern can name as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilterSource {
    /// Records of a Kinesis data stream (R57, R58).
    Kinesis {
        /// `eventSourceARN`.
        event_source_arn: Arc<str>,
        /// `awsRegion`.
        region: Arc<str>,
        /// `invokeIdentityArn`.
        invoke_identity_arn: Arc<str>,
    },
    /// Records of a DynamoDB stream (R57, R59), which bring their other fields with them.
    DynamoDb {
        /// `eventSourceARN`.
        event_source_arn: Arc<str>,
    },
}

impl FilterSource {
    const fn is_kinesis(&self) -> bool {
        matches!(self, Self::Kinesis { .. })
    }

    /// The value of a field that is the same for all records.
    fn constant(&self, field: &str) -> Option<&str> {
        match self {
            Self::Kinesis { event_source_arn, region, invoke_identity_arn } => match field {
                "kinesisSchemaVersion" | "eventVersion" => Some("1.0"),
                "eventSource" => Some("aws:kinesis"),
                "eventName" => Some("aws:kinesis:record"),
                "eventSourceARN" => Some(event_source_arn),
                "awsRegion" => Some(region),
                "invokeIdentityArn" => Some(invoke_identity_arn),
                _ => None,
            },
            Self::DynamoDb { event_source_arn } => (field == "eventSourceARN").then_some(event_source_arn),
        }
    }
}

/// Filter patterns of a mapping, compiled: a record passes that matches one of them (R55).
///
/// Two filters are equal if they were compiled from the same texts for the same source.
///
/// * A string equals a string, character by character; escapes are resolved first.
/// * A number equals a number by value and exactly, regardless of its length: `300`, `300.0` and `3.0e2` are the same.
///   (AWS's documentation says that filters compare their texts; the engine that it has published compares values.)
/// * A value that is an array matches if one of its elements does, nested arrays included. Fields inside the objects of
///   an array must match in the same object.
/// * `exists` is about leaves: an object, and an array of objects only, does not exist (R60).
/// * Of two equal keys in one object, the last one counts (R58).
#[derive(Clone, Debug)]
pub struct Filter {
    source: FilterSource,
    patterns: Vec<Box<str>>,
    /// One must be fulfilled. None is left if no record of this source can match.
    combinations: Vec<Compiled>,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.patterns) == (&other.source, &other.patterns)
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.source, &self.patterns).hash(state);
    }
}

/// Conditions that must all be fulfilled, by where they are judged.
#[derive(Clone, Debug)]
struct Compiled {
    /// Of a Kinesis record, except its data: the cheapest come first.
    metadata: Vec<(Metadata, Node)>,
    /// Of a Kinesis record's data, or of a DynamoDB record.
    body: Option<Body>,
}

#[derive(Clone, Debug)]
struct Body {
    literals: Literals,
    wanted: Node,
}

/// A field that differs from one Kinesis record to the next.
#[derive(Clone, Copy, Debug)]
enum Metadata {
    PartitionKey,
    SequenceNumber,
    EventId,
    Arrival,
}

impl Filter {
    /// Most patterns of a mapping (P14): AWS's quota is 5 and can be raised to 10.
    pub const MAXIMUM_PATTERNS: usize = 10;
    /// Most characters of a pattern (P14).
    pub const MAXIMUM_LENGTH: usize = 4096;
    /// Most combinations that the `$or`s of all patterns together make.
    pub const MAXIMUM_COMBINATIONS: usize = 1000;

    /// Compiles the patterns of a mapping. `None` if there are none: then every record passes.
    ///
    /// # Errors
    /// The first mistake; see [`FilterErrorKind`].
    pub fn parse<T: AsRef<str>>(source: &FilterSource, patterns: &[T]) -> Result<Option<Self>, FilterError> {
        if patterns.len() > Self::MAXIMUM_PATTERNS {
            return Err(FilterError {
                kind: FilterErrorKind::TooMany,
                pattern: None,
                path: String::new(),
                problem: format!("has {} filters, which is more than 10", patterns.len()),
                remedy: "join patterns, for example by $or",
            });
        }
        let mut combinations = Vec::new();
        for (index, text) in patterns.iter().enumerate() {
            let left = Self::MAXIMUM_COMBINATIONS.saturating_sub(combinations.len());
            let of_pattern =
                Self::combinations(source, text.as_ref(), left).map_err(|mistake| FilterError {
                    kind: mistake.kind,
                    pattern: Some(index),
                    path: mistake.path.join("."),
                    problem: mistake.problem,
                    remedy: mistake.remedy,
                })?;
            combinations.extend(of_pattern);
        }
        let compiled = combinations.iter().filter_map(|combination| Compiled::new(source, combination));
        Ok((!patterns.is_empty()).then(|| Self {
            source: source.clone(),
            patterns: patterns.iter().map(|text| text.as_ref().into()).collect(),
            combinations: compiled.collect(),
        }))
    }

    fn combinations(source: &FilterSource, text: &str, most: usize) -> Result<Vec<Combination>, Mistake> {
        let length = text.chars().count();
        if length > Self::MAXIMUM_LENGTH {
            return Err(Mistake {
                kind: FilterErrorKind::TooLong,
                path: Vec::new(),
                problem: format!("the pattern has {length} characters, which is more than 4096"),
                remedy: "split it into several filters",
            });
        }
        pattern::combinations(text, source, most)
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|text| &**text)
    }

    /// The parts of the patterns that no record of this kind of stream can match, regardless of its content: a field
    /// that no record has, a value of another type. Lambda takes such a pattern, and then every record is filtered out.
    #[must_use]
    pub fn never_matching(&self) -> Vec<NeverMatches> {
        let judged = self.patterns.iter().enumerate().map(|(index, text)| {
            // A pattern that was compiled is one.
            let combinations = Self::combinations(&self.source, text, Self::MAXIMUM_COMBINATIONS);
            never::judge(&self.source, index, &combinations.unwrap_or_default())
        });
        judged.flatten().collect()
    }

    /// Whether the function is to be invoked with this record of the shard.
    ///
    /// A Kinesis record whose data is not JSON passes no pattern that names `data` (R58). A record of another kind of
    /// stream than the filter was compiled for never passes.
    #[must_use]
    pub fn matches(&self, record: &Record, shard: &ShardId) -> bool {
        self.matches_with(record, shard, &mut Vec::new())
    }

    /// [`matches`](Self::matches) for one record after the other, with a buffer that they share.
    pub fn of_shard<'a>(&'a self, shard: &'a ShardId) -> impl FnMut(&Record) -> bool + 'a {
        let mut buffer = Vec::new();
        move |record| self.matches_with(record, shard, &mut buffer)
    }

    fn matches_with(&self, record: &Record, shard: &ShardId, buffer: &mut Vec<u8>) -> bool {
        match (&record.payload, self.source.is_kinesis()) {
            (Payload::Kinesis { partition_key, data }, true) => {
                let key = partition_key.as_deref();
                let mut data = JsonData::new(data, buffer);
                self.combinations.iter().any(|wanted| {
                    let fulfils = |(field, node): &(Metadata, Node)| field.fulfils(node, record, key, shard);
                    wanted.metadata.iter().all(fulfils)
                        && wanted.body.as_ref().is_none_or(|body| data.fulfils(body))
                })
            }
            (Payload::DynamoDb(change), false) => self
                .combinations
                .iter()
                .any(|wanted| wanted.body.as_ref().is_none_or(|body| body.fulfilled_by(&change.json))),
            _ => false,
        }
    }
}

impl Compiled {
    /// `None` if a condition about what all records have in common is not fulfilled.
    fn new(source: &FilterSource, combination: &Combination) -> Option<Self> {
        let mut fields = Object::new(combination);
        let names: Vec<Box<str>> = fields.members.iter().map(|(name, _)| name.clone()).collect();
        for name in &names {
            if let Some(value) = source.constant(name)
                && let Some(node) = fields.take(name)
                && !node.fulfilled_by_text(value).is_fulfilled()
            {
                return None;
            }
        }
        let mut metadata = Vec::new();
        let body = match source {
            FilterSource::DynamoDb { .. } if fields.members.is_empty() => None,
            FilterSource::DynamoDb { .. } => Some(Node { rules: None, object: Some(fields) }),
            FilterSource::Kinesis { .. } => {
                let data = fields.take("data");
                for (field, name) in Metadata::ALL {
                    metadata.extend(fields.take(name).map(|node| (field, node)));
                }
                // What is left are fields that no record has.
                if fields.members.iter().any(|(_, node)| !node.without_value().is_fulfilled()) {
                    return None;
                }
                data
            }
        };
        Some(Self { metadata, body: body.map(|wanted| Body { literals: Literals::of(&wanted), wanted }) })
    }
}

impl Body {
    /// Exact if these bytes are JSON.
    fn fulfilled_by(&self, json: &[u8]) -> bool {
        !self.literals.rule_out(json) && self.wanted.fulfilled_by(json, 0).is_fulfilled()
    }
}

impl Metadata {
    const ALL: [(Self, &'static str); 4] = [
        (Self::PartitionKey, "partitionKey"),
        (Self::SequenceNumber, "sequenceNumber"),
        (Self::EventId, "eventID"),
        (Self::Arrival, "approximateArrivalTimestamp"),
    ];

    fn fulfils(self, node: &Node, record: &Record, key: Option<&str>, shard: &ShardId) -> bool {
        let number = record.seq.number.as_str();
        let outcome = match self {
            Self::PartitionKey => key.map(|key| node.fulfilled_by_text(key)),
            Self::SequenceNumber => Some(node.fulfilled_by_text(number)),
            Self::EventId => Some(node.fulfilled_by_text(&format!("{shard}:{number}"))),
            Self::Arrival => record.arrival.map(|at| {
                let mut text = Vec::new();
                push_seconds(&mut text, at);
                node.fulfilled_by_scalar(Scalar::Number(&text))
            }),
        };
        outcome.unwrap_or_else(|| node.without_value()).is_fulfilled()
    }
}

/// A Kinesis record's data while the combinations of a filter look at it.
struct JsonData<'a> {
    data: &'a Data,
    /// What was put, once it was asked for; `None` inside: base64 that is none.
    bytes: Option<Option<&'a [u8]>>,
    is_json: Option<bool>,
    buffer: Option<&'a mut Vec<u8>>,
}

impl<'a> JsonData<'a> {
    const fn new(data: &'a Data, buffer: &'a mut Vec<u8>) -> Self {
        Self { data, bytes: None, is_json: None, buffer: Some(buffer) }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        *self.bytes.get_or_insert_with(|| match self.data {
            Data::Raw(bytes) => Some(bytes),
            Data::Base64(text) => {
                let buffer = self.buffer.take()?;
                buffer.clear();
                base64_simd::STANDARD.decode_append(text, buffer).ok()?;
                Some(buffer)
            }
        })
    }

    /// Data that is not JSON fulfils nothing, not even that a field does not exist (R58). Most data fulfils nothing
    /// anyway, so this is judged last.
    fn fulfils(&mut self, body: &Body) -> bool {
        let Some(bytes) = self.bytes() else { return false };
        body.fulfilled_by(bytes) && *self.is_json.get_or_insert_with(|| scan::is_json(bytes))
    }
}

#[cfg(test)]
mod tests;
