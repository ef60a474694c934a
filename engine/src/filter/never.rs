//! Patterns that no record can match, regardless of its content: Lambda accepts them and then filters every record out.
//!
//! What is judged is what the events of each service have (R57 to R59): the names of their fields and the types of their
//! values. Nothing is known of a Kinesis record's data, and of a DynamoDB item only that each attribute has a type.

use std::fmt;

use super::FilterSource;
use super::operator::{Excluded, Rule, Rules};
use super::pattern::Combination;
use super::scan::{RawText, Scalar};

/// A pattern, or one of the alternatives in its `$or`s, that no record of the stream can match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NeverMatches {
    /// Which pattern, counted from 0.
    pub pattern: usize,
    /// Whether the rest of the pattern can match: then this is one alternative of an `$or`.
    pub alternative: bool,
    /// The condition: its keys, joined by dots.
    pub path: String,
    /// Why no record fulfils it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for NeverMatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.alternative { "an alternative of its $or" } else { "it" };
        write!(f, "{part} can match no record: {} {}; {}", self.path, self.problem, self.remedy)
    }
}

/// Judges the combinations of one pattern.
pub(super) fn judge(source: &FilterSource, pattern: usize, all: &[Combination]) -> Vec<NeverMatches> {
    let dead: Vec<(String, Reason)> = all.iter().filter_map(|one| of_combination(source, one)).collect();
    let alternative = dead.len() < all.len();
    let mut found: Vec<NeverMatches> = Vec::new();
    for (path, Reason { problem, remedy }) in dead {
        let known = found.iter().any(|other| other.path == path);
        // One reason is enough for a pattern that is dead as a whole.
        if !known && (alternative || found.is_empty()) {
            found.push(NeverMatches { pattern, alternative, path, problem, remedy });
        }
    }
    found
}

/// Why a condition is never fulfilled.
struct Reason {
    problem: String,
    remedy: String,
}

fn never(problem: impl Into<String>, remedy: impl Into<String>) -> Option<Reason> {
    Some(Reason { problem: problem.into(), remedy: remedy.into() })
}

fn of_combination(source: &FilterSource, combination: &Combination) -> Option<(String, Reason)> {
    combination.iter().find_map(|(path, rules)| {
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let reason = match source.is_kinesis() {
            true => kinesis(source, &keys, rules),
            false => dynamodb(source, &keys, rules),
        };
        Some((path.join("."), reason?))
    })
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text,
    Number,
    Bool,
    /// One of these texts.
    OneOf(&'a [&'a str]),
}

impl Value<'_> {
    fn describe(self) -> String {
        match self {
            Self::Text => "is a text".to_owned(),
            Self::Number => "is a number".to_owned(),
            Self::Bool => "is true or false".to_owned(),
            Self::OneOf([one]) => format!("is {one:?} in every record of this stream"),
            Self::OneOf(all) => format!("is one of {}", all.join(", ")),
        }
    }

    /// Whether one of the rules can hold for such a value.
    fn may_fulfil(self, rules: &Rules) -> bool {
        let excludes = |excluded: &Excluded| matches!((self, excluded), (Self::OneOf(_), Excluded::Texts(_)));
        let one = |rule: &Rule| match rule {
            Rule::AnythingBut(excluded) if !excludes(excluded) => true,
            Rule::Text(_) | Rule::AnythingBut(_) => matches!(self, Self::Text | Self::OneOf(_)),
            Rule::Number(_) | Rule::Range(_) => matches!(self, Self::Number),
            Rule::Bool(_) => matches!(self, Self::Bool),
            Rule::Null => false,
        };
        match self {
            Self::OneOf(all) => all.iter().any(|text| rules.hold_for(Scalar::Text(RawText::plain(text)))),
            _ => rules.exists || rules.values.iter().any(one),
        }
    }
}

/// A field with a value; `below` are the keys that the pattern has inside it.
fn leaf(value: Value<'_>, below: &[&str], rules: &Rules) -> Option<Reason> {
    if rules.absent {
        return None;
    }
    if !below.is_empty() {
        return never(format!("asks for a field inside a value that {}", value.describe()), FLAT);
    }
    if value.may_fulfil(rules) {
        return None;
    }
    let remedy = match value {
        Value::Text if rules.values.iter().any(|rule| matches!(rule, Rule::Range(_))) => {
            "numeric matches no text: compare it as a text, or filter in the function"
        }
        Value::Text => "write the value in quotes, such as [\"5\"]",
        Value::Number => "write a number without quotes, or {\"numeric\": [\">\", 0]}",
        Value::Bool => "write [true] or [false]",
        Value::OneOf(_) => "write that, or leave the field out",
    };
    never(value.describe(), remedy)
}

const FLAT: &str = "write its values as a list, such as [\"value\"]";

/// The value of a field that holds other fields: no rule about values holds there, except that it does not exist (R60).
fn object(rules: &Rules, problem: &str, remedy: String) -> Option<Reason> {
    if rules.absent { None } else { never(problem, remedy) }
}

/// Names of the fields next to `data`.
const KINESIS_FIELDS: [&str; 12] = [
    "data",
    "partitionKey",
    "sequenceNumber",
    "approximateArrivalTimestamp",
    "eventID",
    "eventName",
    "eventSource",
    "eventSourceARN",
    "eventVersion",
    "awsRegion",
    "invokeIdentityArn",
    "kinesisSchemaVersion",
];

fn kinesis(source: &FilterSource, keys: &[&str], rules: &Rules) -> Option<Reason> {
    let (&field, below) = keys.split_first()?;
    match field {
        "data" => None,
        "partitionKey" | "sequenceNumber" | "eventID" => leaf(Value::Text, below, rules),
        "approximateArrivalTimestamp" => leaf(Value::Number, below, rules),
        _ => match source.constant(field) {
            Some(constant) => leaf(Value::OneOf(&[constant]), below, rules),
            None if rules.absent => None,
            None => never("is no field of a Kinesis record", kinesis_remedy(keys)),
        },
    }
}

fn kinesis_remedy(keys: &[&str]) -> String {
    let field = keys.first().copied().unwrap_or_default();
    if let Some(known) = in_any_case(field, &KINESIS_FIELDS) {
        return format!("did you mean {known}?");
    }
    match field {
        // What other event sources call what a Kinesis record calls its data.
        "body" | "value" | "payload" | "message" | "record" | "Records" => {
            let inside = keys.get(1..).unwrap_or_default();
            format!("did you mean data? write {}", nested(&["data"], inside))
        }
        "dynamodb" => "that is a field of DynamoDB streams".to_owned(),
        _ => format!("fields of the record's data belong in data: write {}", nested(&["data"], keys)),
    }
}

const DYNAMODB_FIELDS: [&str; 8] = [
    "dynamodb",
    "eventName",
    "eventID",
    "eventSource",
    "eventSourceARN",
    "eventVersion",
    "awsRegion",
    "userIdentity",
];

const CHANGE_FIELDS: [&str; 7] = [
    "Keys",
    "NewImage",
    "OldImage",
    "ApproximateCreationDateTime",
    "SequenceNumber",
    "SizeBytes",
    "StreamViewType",
];

const TYPES: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"];

fn dynamodb(source: &FilterSource, keys: &[&str], rules: &Rules) -> Option<Reason> {
    let (&field, below) = keys.split_first()?;
    match field {
        "dynamodb" => change(keys, below, rules),
        "eventName" => leaf(Value::OneOf(&["INSERT", "MODIFY", "REMOVE"]), below, rules),
        "eventSource" => leaf(Value::OneOf(&["aws:dynamodb"]), below, rules),
        "eventSourceARN" => leaf(Value::OneOf(&[source.constant(field).unwrap_or_default()]), below, rules),
        "eventVersion" | "eventID" | "awsRegion" => leaf(Value::Text, below, rules),
        // Of deletions by time to live only.
        "userIdentity" => None,
        _ if rules.absent => None,
        _ => never("is no field of a DynamoDB record", dynamodb_remedy(keys)),
    }
}

fn dynamodb_remedy(keys: &[&str]) -> String {
    let field = keys.first().copied().unwrap_or_default();
    if let Some(known) = in_any_case(field, &DYNAMODB_FIELDS) {
        return format!("did you mean {known}?");
    }
    if let Some(known) = in_any_case(field, &CHANGE_FIELDS) {
        let inside = keys.get(1..).unwrap_or_default();
        return format!("it belongs in dynamodb: write {}", nested(&["dynamodb", known], inside));
    }
    format!(
        "attributes belong in an image, each with its type: write {}",
        nested(&["dynamodb", "NewImage", field, "S"], &[])
    )
}

/// What is inside `dynamodb`.
fn change(keys: &[&str], below: &[&str], rules: &Rules) -> Option<Reason> {
    let Some((&field, rest)) = below.split_first() else {
        let remedy = format!("name one of {}", CHANGE_FIELDS.join(", "));
        return object(rules, "is an object, not a value", remedy);
    };
    match field {
        "Keys" | "NewImage" | "OldImage" => attribute(keys, rest, rules),
        "ApproximateCreationDateTime" | "SizeBytes" => leaf(Value::Number, rest, rules),
        "SequenceNumber" => leaf(Value::Text, rest, rules),
        "StreamViewType" => {
            let views = ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"];
            leaf(Value::OneOf(&views), rest, rules)
        }
        _ if rules.absent => None,
        _ => {
            let remedy = match in_any_case(field, &CHANGE_FIELDS) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("permitted: {}", CHANGE_FIELDS.join(", ")),
            };
            never("is no field of dynamodb", remedy)
        }
    }
}

/// What is inside an image, or inside an attribute of type `M`: a name, then a type.
fn attribute(keys: &[&str], below: &[&str], rules: &Rules) -> Option<Reason> {
    match below {
        [] => object(rules, "holds attributes, not a value", "name one of them".to_owned()),
        [_] => {
            let remedy = format!("an attribute is written with its type: write {}", typed(keys, rules));
            object(rules, "lacks the attribute's type", remedy)
        }
        [_, tag, rest @ ..] => tagged(keys, tag, rest, rules),
    }
}

/// A value under its type.
fn tagged(keys: &[&str], tag: &str, below: &[&str], rules: &Rules) -> Option<Reason> {
    match tag {
        "S" | "B" | "SS" | "BS" => leaf(Value::Text, below, rules),
        "N" | "NS" => leaf(Value::Text, below, rules).map(|reason| match below {
            [] => Reason { problem: format!("is a text: DynamoDB writes an {tag} in quotes"), ..reason },
            _ => reason,
        }),
        "BOOL" | "NULL" => leaf(Value::Bool, below, rules),
        "M" => attribute(keys, below, rules),
        "L" => match below {
            [] => object(rules, "holds values under their types", format!("write {}", typed(keys, rules))),
            [tag, rest @ ..] => tagged(keys, tag, rest, rules),
        },
        _ if rules.absent => None,
        _ => {
            let remedy = match in_any_case(tag, &TYPES) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("permitted: {}; the fields of a map belong in its M", TYPES.join(", ")),
            };
            never(format!("has {tag:?} in place of an attribute's type"), remedy)
        }
    }
}

/// The condition with the type that its rules suggest.
fn typed(keys: &[&str], rules: &Rules) -> String {
    let tag = match rules.values.first() {
        Some(Rule::Number(_) | Rule::Range(_)) => "N",
        Some(Rule::Bool(_)) => "BOOL",
        Some(Rule::Null) => "NULL",
        _ => "S",
    };
    nested(keys, &[tag])
}

/// One of `names` that differs from `name` in its case only.
fn in_any_case<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    names.iter().find(|known| known.eq_ignore_ascii_case(name)).copied()
}

/// `{"outer": {"inner": [...]}}`.
fn nested(outer: &[&str], inner: &[&str]) -> String {
    let keys = outer.iter().chain(inner);
    keys.rev().fold("[...]".to_owned(), |inside, key| format!("{{{key:?}: {inside}}}"))
}
