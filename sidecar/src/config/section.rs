//! A map of the file, checked against the table of its keys.

use std::collections::{HashMap, HashSet};

use shardmill_engine::limits::Limit;
use shardmill_engine::parse_time;

use super::error::{ConfigError, Mark, Note};
use super::keys::{self, Key, Kind};
use super::tree::{self, Node, Scalar, Type, Value};

/// What was found on the way.
#[derive(Default)]
pub(super) struct Report {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Note>,
    pub(super) ignored: Vec<Note>,
    /// The place of each key's value.
    places: HashMap<String, Mark>,
    /// Keys that have an error already: what follows from it is not reported.
    wrong: HashSet<String>,
}

impl Report {
    pub(super) fn error(&mut self, at: Mark, key: impl Into<String>, message: impl Into<String>) {
        let key = key.into();
        self.wrong.insert(key.clone());
        self.errors.push(ConfigError::at(at, key, message));
    }

    pub(super) fn error_with(&mut self, error: ConfigError) {
        self.wrong.insert(error.key.clone());
        self.errors.push(error);
    }

    /// Nothing follows from a value that the parser found wrong.
    pub(super) fn note_known_mistakes(&mut self) {
        self.wrong.extend(self.errors.iter().map(|e| e.key.clone()));
    }

    /// A finding of the engine, which may have several for one key.
    pub(super) fn finding(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    pub(super) fn is_wrong(&self, key: &str) -> bool {
        // A mistake in a section hides what its keys would have said.
        key.match_indices('.')
            .filter_map(|(at, _)| key.get(..at))
            .chain([key])
            .any(|part| self.wrong.contains(part))
    }

    pub(super) fn warn(&mut self, at: Mark, key: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Note { key: key.into(), line: at.line, message: message.into() });
    }

    /// The place of `key`, or else of the nearest section around it.
    pub(super) fn place(&self, key: &str, otherwise: Mark) -> Mark {
        let mut part = key;
        loop {
            if let Some(mark) = self.places.get(part) {
                return *mark;
            }
            match part.rsplit_once('.') {
                Some((parent, _)) => part = parent,
                None => return otherwise,
            }
        }
    }
}

/// The entries of one map whose key is known and whose value has the right type.
pub(super) struct Section<'n> {
    /// `Function.`, `Mappings[1].` or nothing.
    prefix: String,
    pub(super) at: Mark,
    /// Whether it is a resource of CloudFormation, which takes numbers and booleans as texts, too.
    converts: bool,
    entries: Vec<(&'static Key, &'n Node)>,
}

impl<'n> Section<'n> {
    /// Checks `node`, a map, against `tables`.
    pub(super) fn read(
        node: &'n Node,
        tables: &[&'static [Key]],
        prefix: impl Into<String>,
        report: &mut Report,
    ) -> Self {
        let converts = is_resource(node);
        let mut section = Self { prefix: prefix.into(), at: node.at, converts, entries: Vec::new() };
        section.add(node, tables, report);
        section
    }

    /// Takes the entries of `node`; those of CloudFormation's and SAM's `Properties` as if they stood next to it.
    fn add(&mut self, node: &'n Node, tables: &[&'static [Key]], report: &mut Report) {
        let Value::Map(entries) = &node.value else { return };
        for (written, value) in entries {
            let path = self.path(&written.name);
            let Some(key) = tables.iter().flat_map(|t| t.iter()).find(|k| k.name == written.name) else {
                report.error(written.at, path, keys::unknown(&written.name, tables));
                continue;
            };
            report.places.insert(path.clone(), value.at);
            if let Some(message) = self.misuse(key, value, &path, written.at, report) {
                report.error(value.at, path, message);
            } else if matches!(key.kind, Kind::Same) {
                self.add(value, tables, report);
            } else if self.has(key.name) {
                report.error(written.at, path, "is written both next to Properties and in it; remove one");
            } else if !matches!(key.kind, Kind::Ignored | Kind::Refused(..)) && !report.is_wrong(&path) {
                self.entries.push((key, value));
            }
        }
    }

    /// What is wrong with the value's type.
    fn misuse(&self, key: &Key, value: &Node, path: &str, at: Mark, report: &mut Report) -> Option<String> {
        match key.kind {
            Kind::Ignored => {
                let message = "accepted from AWS's own files; it has no effect here".to_owned();
                report.ignored.push(Note { key: path.to_owned(), line: at.line, message });
                return None;
            }
            Kind::Refused(..) if value.is_empty() => return None,
            Kind::Refused(reason, aws) => {
                let aws = aws.map(str::to_owned);
                report.error_with(ConfigError { aws, ..ConfigError::at(value.at, path, reason) });
                return None;
            }
            _ => {}
        }
        if let Some(intrinsic) = value.intrinsic() {
            let what = if key.name.ends_with("Arn") || matches!(key.name, "Stream" | "Destination") {
                "the ARN"
            } else {
                "the value"
            };
            return Some(format!(
                "{intrinsic} is a CloudFormation intrinsic, which cannot be resolved here; write {what}"
            ));
        }
        let is_leaf =
            !matches!(key.kind, Kind::Section(_) | Kind::SectionOrOff(_) | Kind::Sections(_) | Kind::Same);
        if let Some((at, problem)) = value.broken().filter(|_| is_leaf || value.scalar().is_some()) {
            report.error(at, path, problem);
            return None;
        }
        let expected = expected(key.kind);
        let fits = fits(key.kind, value) || (self.converts && converted(key.kind, value));
        (!fits).then(|| match value.scalar().map(|s| s.kind) {
            Some(Type::Null) => format!("is empty; write {expected} or remove the key"),
            _ => format!("{}; write {expected}", value.describe()),
        })
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.node(name).is_some()
    }

    fn node(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| *node)
    }

    /// The place of `name`, or else of the section.
    pub(super) fn place(&self, name: &str) -> Mark {
        self.node(name).map_or(self.at, |node| node.at)
    }

    fn scalar(&self, name: &str) -> Option<&'n Scalar> {
        self.node(name)?.scalar()
    }

    pub(super) fn text(&self, name: &str) -> Option<&'n str> {
        self.scalar(name).map(|s| s.text.as_str())
    }

    /// The text for an error's message. The value of a variable is not printed: it may be a secret.
    pub(super) fn shown(&self, name: &str) -> String {
        self.scalar(name).map(Scalar::shown).unwrap_or_default()
    }

    /// [`shown`](Self::shown) without quotes.
    pub(super) fn plain(&self, name: &str) -> &'n str {
        self.scalar(name).map(Scalar::plain).unwrap_or_default()
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|text| text.eq_ignore_ascii_case("true"))
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(tree::integer)
    }

    /// An integer that is checked here and not by the engine.
    pub(super) fn checked(&self, name: &str, limit: &Limit, report: &mut Report) -> Option<i64> {
        match limit.check(self.integer(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                report.error(self.place(name), self.path(name), error.message());
                None
            }
        }
    }

    /// The items of a list, with their places.
    pub(super) fn items(&self, name: &str) -> Option<Vec<(Mark, &'n str)>> {
        match &self.node(name)?.value {
            Value::List(items) => {
                Some(items.iter().filter_map(|i| Some((i.at, i.scalar()?.text.as_str()))).collect())
            }
            _ => None,
        }
    }

    /// The entries of a map of texts, with the places of their keys.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<(Mark, &'n str, &'n str)>> {
        match &self.node(name)?.value {
            Value::Map(entries) => Some(
                variables(entries)
                    .iter()
                    .filter_map(|(k, v)| Some((k.at, k.name.as_str(), v.scalar()?.text.as_str())))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The section below `name`.
    pub(super) fn section(&self, name: &str, report: &mut Report) -> Option<Self> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        let (Kind::Section(table) | Kind::SectionOrOff(table)) = key.kind else { return None };
        matches!(node.value, Value::Map(_))
            .then(|| Self::read(node, &[table], format!("{}.", self.path(name)), report))
    }

    /// The sections in the list `name`.
    pub(super) fn sections(&self, name: &str, report: &mut Report) -> Option<Vec<Self>> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        let (Kind::Sections(table), Value::List(items)) = (key.kind, &node.value) else { return None };
        let path = self.path(name);
        let read = |(i, item): (usize, &'n Node)| {
            let item_path = format!("{path}[{i}]");
            report.places.insert(item_path.clone(), item.at);
            if matches!(item.value, Value::Map(_)) && item.intrinsic().is_none() {
                return Some(Self::read(item, &[table], format!("{item_path}."), report));
            }
            report.error(item.at, item_path, format!("{}; write a map of keys", item.describe()));
            None
        };
        Some(items.iter().enumerate().filter_map(read).collect())
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text, in quotes if it looks like a number".to_owned(),
        Kind::Choice(values) => format!("one of {}", values.join(", ")),
        Kind::Bool => "true or false".to_owned(),
        Kind::Integer(limit) => format!("a whole number, {limit}, without quotes"),
        Kind::Time => "a time as ISO 8601 with a zone (2026-01-31T12:00:00Z) or as epoch seconds".to_owned(),
        Kind::Texts => "a list of texts, for example [python3, -m, app]".to_owned(),
        Kind::Choices(values) => format!("a list out of [{}]", values.join(", ")),
        Kind::Integers(limit) => format!("a list of whole numbers, {limit}"),
        Kind::TextMap => "a map of texts, for example {LOG_LEVEL: info}".to_owned(),
        Kind::Section(table) | Kind::Sections(table) | Kind::SectionOrOff(table) => {
            let names: Vec<_> = table.iter().map(|k| k.name).take(4).collect();
            let map = format!("a map with keys such as {}", names.join(", "));
            match kind {
                Kind::Sections(_) => format!("a list, each item {map}"),
                Kind::SectionOrOff(_) => format!("{map}, or off"),
                _ => map,
            }
        }
        Kind::Same => "a map of properties".to_owned(),
        Kind::Ignored | Kind::Refused(..) => String::new(),
    }
}

/// Whether the value has the right type; ranges and forms are judged later.
fn fits(kind: Kind, node: &Node) -> bool {
    let scalar = node.scalar();
    let is = |types: &[Type]| scalar.is_some_and(|s| types.contains(&s.kind));
    let text = || is(&[Type::Text]) || scalar.is_some_and(|s| s.from_environment);
    let all = |fits: fn(&Node) -> bool| match &node.value {
        Value::List(items) => items.iter().all(|item| item.tag.is_none() && fits(item)),
        _ => false,
    };
    match kind {
        Kind::Text | Kind::Choice(_) => text(),
        Kind::Bool => is(&[Type::Bool]),
        Kind::Integer(_) => is(&[Type::Integer]),
        Kind::Time => scalar.is_some_and(|s| parse_time(&s.text).is_some()),
        Kind::Texts | Kind::Choices(_) => all(is_textual),
        Kind::Integers(_) => all(|item| item.scalar().is_some_and(|s| s.kind == Type::Integer)),
        Kind::TextMap => match &node.value {
            Value::Map(entries) => {
                variables(entries).iter().all(|(_, value)| value.tag.is_none() && is_textual(value))
            }
            _ => false,
        },
        Kind::Section(_) | Kind::Same => matches!(node.value, Value::Map(_)),
        Kind::SectionOrOff(_) => {
            matches!(node.value, Value::Map(_)) || scalar.is_some_and(|s| s.text == "off")
        }
        Kind::Sections(_) => matches!(node.value, Value::List(_)),
        Kind::Ignored | Kind::Refused(..) => true,
    }
}

/// Whether `Type` means that this is a resource of CloudFormation or an event of SAM.
fn is_resource(node: &Node) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    let of_type = entries.iter().find(|(key, _)| key.name == "Type").and_then(|(_, value)| value.scalar());
    of_type.is_some_and(|scalar| {
        scalar.text.starts_with("AWS::") || matches!(scalar.text.as_str(), "Kinesis" | "DynamoDB")
    })
}

/// Whether CloudFormation would read the text as a value of this kind.
fn converted(kind: Kind, node: &Node) -> bool {
    let Some(scalar) = node.scalar().filter(|scalar| scalar.kind == Type::Text) else { return false };
    match kind {
        Kind::Bool => matches!(scalar.text.as_str(), "true" | "false" | "True" | "False"),
        Kind::Integer(_) => tree::integer(&scalar.text).is_some(),
        _ => false,
    }
}

/// The environment as Lambda's API, CloudFormation and SAM write it, `{Variables: {...}}`, without what is around it.
fn variables(entries: &[(tree::Key, Node)]) -> &[(tree::Key, Node)] {
    match entries {
        [(key, Node { value: Value::Map(inside), .. })] if key.name == "Variables" => inside,
        _ => entries,
    }
}

/// In lists and maps of texts, a number or a boolean is taken as its own text.
fn is_textual(node: &Node) -> bool {
    node.scalar().is_some_and(|s| s.kind != Type::Null || s.from_environment)
}
