//! A mapping from JSON as AWS writes it, with the line of every mistake.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::RawMapping;
use crate::mapping::error::{MappingError, MappingErrorKind, MappingErrors};
use crate::mapping::{
    AnswerEncoding, EventSourceMapping, OnDestinationFailure, OnGap, OnUndecodable, parse_time,
};
use crate::time::Wall;

/// What AWS shows of a mapping and what has no meaning outside of it.
const WITHOUT_EFFECT: [&str; 10] = [
    "State",
    "LastModified",
    "LastProcessingResult",
    "StateTransitionReason",
    "EventSourceMappingArn",
    "ResponseMetadata",
    "Tags",
    "MetricsConfig",
    "KMSKeyArn",
    "KmsKeyArn",
];

/// Of mappings that read no stream; AWS shows some of them empty.
const OF_OTHER_SOURCES: [&str; 10] = [
    "Queues",
    "Topics",
    "SelfManagedEventSource",
    "SelfManagedKafkaEventSourceConfig",
    "AmazonManagedKafkaEventSourceConfig",
    "ProvisionedPollerConfig",
    "SourceAccessConfigurations",
    "LoggingConfig",
    "DocumentDBEventSourceConfig",
    "ScalingConfig",
];

/// What a program has in its code.
const OF_THE_SIDECAR: [&str; 5] = ["Checkpoints", "Worker", "Admin", "Aws", "Mappings"];

const OBJECTS: [&str; 7] = [
    "FilterCriteria",
    "DestinationConfig",
    "DestinationConfig.OnFailure",
    "DestinationConfig.OnSuccess",
    "Function",
    "Retry",
    "Polling",
];

/// Where the text as a whole is wrong.
const WHOLE: &str = "JSON";

/// See [`EventSourceMapping::from_json`].
pub(in crate::mapping) fn from_json(text: &str, now: Wall) -> Result<EventSourceMapping, MappingErrors> {
    let raw = RawMapping::new("", "").starting_position(None).as_of(now);
    let mut reader = Reader { text, raw, found: Vec::new(), lines: HashMap::new() };
    reader.object("", text);
    if reader.found.iter().any(|mistake| mistake.field() == WHOLE) {
        // Of what cannot be read, nothing is missing.
        return Err(MappingErrors::of(reader.found));
    }
    reader.build()
}

struct Reader<'t> {
    text: &'t str,
    raw: RawMapping,
    found: Vec<MappingError>,
    /// Of each value, by its dotted name.
    lines: HashMap<String, usize>,
}

impl<'t> Reader<'t> {
    fn build(self) -> Result<EventSourceMapping, MappingErrors> {
        let Self { raw, found, lines, .. } = self;
        let built = raw.build();
        if let (Ok(mapping), true) = (&built, found.is_empty()) {
            return Ok(mapping.clone());
        }
        let line = |error: &MappingError| {
            let item = error.index().map(|index| format!("{}[{index}]", error.field()));
            item.and_then(|name| lines.get(&name)).or_else(|| lines.get(error.field())).copied()
        };
        // What could not be read has been reported: it is not missing as well.
        let follows = |error: &MappingError| found.iter().any(|known| known.field() == error.field());
        let others = built.err().into_iter().flatten().filter(|error| !follows(error)).map(|error| {
            let line = line(&error);
            error.at_line(line)
        });
        let mut all: Vec<_> = others.collect();
        all.extend(found);
        // What is missing has no line and comes first.
        all.sort_by_key(MappingError::line);
        Err(MappingErrors::of(all))
    }

    /// Reads the members of the object `name`; the whole text has no name.
    fn object(&mut self, name: &str, value: &'t str) {
        match serde_json::from_str::<Members<'t>>(value) {
            Ok(members) => {
                // Tools print null for what is not set.
                for (key, value) in members.0.into_iter().filter(|(_, value)| value.get() != "null") {
                    let path = if name.is_empty() { key } else { format!("{name}.{key}") };
                    self.member(&path, value.get());
                }
            }
            Err(error) if name.is_empty() => {
                let mistake = MappingError::new(WHOLE, MappingErrorKind::InvalidValue, "")
                    .problem(format!("cannot be read: {error}"))
                    .remedy("write one object with the keys of CreateEventSourceMapping");
                self.found.push(mistake.at_line(Some(error.line().max(1))));
            }
            Err(_) => self.note(name, value, "is no object", "write an object"),
        }
    }

    fn member(&mut self, path: &str, value: &'t str) {
        if self.lines.contains_key(path) {
            self.note(path, "", "is written twice", "remove one");
            return;
        }
        self.place(path, value);
        if OBJECTS.contains(&path) {
            self.object(path, value);
        } else if let Some((_, set)) = RawMapping::INTEGERS.iter().find(|(name, _)| *name == path) {
            if let Some(number) = self.read(path, value, "write an integer") {
                self.raw = set(self.raw.clone(), number);
            }
        } else if !self.text_member(path, value) && !self.other_member(path, value) {
            self.unknown(path, value);
        }
    }

    /// Whether `path` is a text of a mapping.
    fn text_member(&mut self, path: &str, value: &str) -> bool {
        let raw = &mut self.raw;
        let optional = match path {
            "FunctionArn" => &mut raw.function_arn,
            "UUID" => &mut raw.uuid,
            "Name" => &mut raw.name,
            "StartingPosition" => &mut raw.starting_position,
            "Function.RoleArn" => &mut raw.role_arn,
            _ => {
                let text = match path {
                    "EventSourceArn" => &mut raw.event_source_arn,
                    "FunctionName" => &mut raw.function_name,
                    "DestinationConfig.OnFailure.Destination" => &mut raw.on_failure,
                    "DestinationConfig.OnSuccess.Destination" => &mut raw.on_success,
                    _ => return false,
                };
                match serde_json::from_str(value) {
                    Ok(value) => *text = value,
                    Err(_) => self.note(path, value, "is no text", "write a text"),
                }
                return true;
            }
        };
        match serde_json::from_str(value) {
            Ok(value) => *optional = Some(value),
            Err(_) => self.note(path, value, "is no text", "write a text"),
        }
        true
    }

    /// Whether `path` is anything else of a mapping.
    fn other_member(&mut self, path: &str, value: &'t str) -> bool {
        const TRUTH: &str = "write true or false";
        match path {
            "Enabled" => self.raw.enabled = self.read(path, value, TRUTH).unwrap_or(true),
            "BisectBatchOnFunctionError" => {
                self.raw.bisect_batch_on_function_error = self.read(path, value, TRUTH).unwrap_or(false);
            }
            "Function.ManagedInstances" => {
                self.raw.managed_instances = self.read(path, value, TRUTH).unwrap_or(false);
            }
            "StartingPositionTimestamp" => {
                self.raw.starting_position_timestamp = parse_time(value.trim_matches('"'));
                if self.raw.starting_position_timestamp.is_none() {
                    self.note(path, value, "is no time", "write ISO 8601 with a time zone, or epoch seconds");
                }
            }
            "FunctionResponseTypes" => {
                self.raw.function_response_types =
                    self.read(path, value, "write a list of texts").unwrap_or_default();
            }
            "FilterCriteria.Filters" => self.filters(path, value),
            "Polling.Encoding" => {
                let permitted = [
                    ("auto", Some(AnswerEncoding::Auto)),
                    ("json", Some(AnswerEncoding::Json)),
                    ("cbor", Some(AnswerEncoding::Cbor)),
                ];
                self.choose(path, value, permitted, |raw| &mut raw.answer_encoding);
            }
            "OnGap" => {
                let permitted = [("continue", OnGap::Continue), ("stop", OnGap::Stop)];
                self.choose(path, value, permitted, |raw| &mut raw.on_gap);
            }
            "OnUndecodable" => {
                let permitted = [("stop", OnUndecodable::Stop), ("skip", OnUndecodable::Skip)];
                self.choose(path, value, permitted, |raw| &mut raw.on_undecodable);
            }
            "OnDestinationFailure" => {
                let permitted =
                    [("block", OnDestinationFailure::Block), ("drop", OnDestinationFailure::Drop)];
                self.choose(path, value, permitted, |raw| &mut raw.on_destination_failure);
            }
            _ => return WITHOUT_EFFECT.contains(&path),
        }
        true
    }

    fn filters(&mut self, path: &str, value: &'t str) {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct One {
            #[serde(rename = "Pattern")]
            pattern: String,
        }
        let items: Vec<&'t RawValue> =
            self.read(path, value, "write a list of objects with a Pattern each").unwrap_or_default();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.place(&path, item.get());
            match self.read::<One>(&path, item.get(), "write an object with a Pattern, a text") {
                Some(one) => self.raw.filters.push(one.pattern),
                None => {
                    // The others would be judged under each other's numbers.
                    self.raw.filters.clear();
                    return;
                }
            }
        }
    }

    fn choose<T: Copy, const N: usize>(
        &mut self,
        path: &str,
        value: &str,
        permitted: [(&str, T); N],
        field: impl FnOnce(&mut RawMapping) -> &mut T,
    ) {
        let text = value.trim_matches('"');
        match permitted.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => *field(&mut self.raw) = *choice,
            None => {
                let remedy = format!("write {}", permitted.map(|(name, _)| name).join(" or "));
                self.note(path, value, "is not one of the choices", remedy);
            }
        }
    }

    fn unknown(&mut self, path: &str, value: &str) {
        if OF_OTHER_SOURCES.contains(&path) {
            if !["[]", "{}", "\"\""].contains(&value) {
                self.note(path, value, "is not for streams", "remove it");
            }
        } else if OF_THE_SIDECAR.contains(&path) {
            self.note(
                path,
                value,
                "is a setting of the sidecar",
                "set it in the program's code and remove it",
            );
        } else {
            self.note(path, value, "is not a key of a mapping", "correct its name or remove it");
        }
    }

    fn read<T: Deserialize<'t>>(&mut self, path: &str, value: &'t str, remedy: &str) -> Option<T> {
        let read = serde_json::from_str(value).ok();
        if read.is_none() {
            self.note(path, value, "has the wrong type", remedy);
        }
        read
    }

    fn place(&mut self, path: &str, value: &str) {
        // Every value is a part of the text.
        let at = (value.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.lines.insert(path.to_owned(), line);
    }

    fn note(&mut self, path: &str, value: &str, problem: &str, remedy: impl Into<Box<str>>) {
        let mistake = MappingError::new(path.to_owned(), MappingErrorKind::InvalidValue, value)
            .problem(problem)
            .remedy(remedy);
        self.found.push(mistake.at_line(self.lines.get(path).copied()));
    }
}

/// The members of an object as they are written.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}
