//! A YAML or JSON file as a tree that knows the place of each key and value.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};

use super::error::{ConfigError, Mark};
use super::vars::{self, Environment};

/// Nesting beyond this is not a mapping.
const DEEPEST: usize = 32;
/// Nodes after aliases are expanded: an alias of aliases must not fill the memory.
const MOST_NODES: usize = 50_000;

/// What is printed for a value that comes from the environment.
pub(super) const FROM_VARIABLE: &str = "the value of its variable";

impl From<Span> for Mark {
    fn from(span: Span) -> Self {
        let start = span.tag_start.unwrap_or(span.start);
        Self { line: start.line().max(1), column: start.col() + 1 }
    }
}

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
    /// A local tag as written, for example `!Ref`.
    pub(super) tag: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Mark,
    pub(super) name: String,
}

/// What a scalar is, by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Bool,
    Integer,
    Float,
    Text,
}

#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) kind: Type,
    /// A value from the environment may be any type, quoted or not.
    pub(super) from_environment: bool,
    /// What is wrong with a variable in it.
    pub(super) broken: Option<String>,
}

impl Scalar {
    /// Its text in quotes, unless a variable was substituted: then it may be a secret.
    pub(super) fn shown(&self) -> String {
        if self.from_environment { FROM_VARIABLE.to_owned() } else { format!("{:?}", self.text) }
    }
}

impl Scalar {
    /// Its text without quotes, under the same rule as [`shown`](Self::shown).
    pub(super) fn plain(&self) -> &str {
        if self.from_environment { FROM_VARIABLE } else { &self.text }
    }
}

impl Node {
    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The kind of the value, human-readable.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "is a list".to_owned(),
            Value::Map(_) => "is a map".to_owned(),
            Value::Scalar(scalar) => match scalar.kind {
                Type::Null => "is empty".to_owned(),
                Type::Bool => format!("{} is a boolean", scalar.plain()),
                Type::Integer | Type::Float => format!("{} is a number", scalar.plain()),
                Type::Text => format!("{} is a text", scalar.shown()),
            },
        }
    }

    /// What is wrong with a variable in this value or in what it holds.
    pub(super) fn broken(&self) -> Option<(Mark, &str)> {
        match &self.value {
            Value::Scalar(scalar) => Some((self.at, scalar.broken.as_deref()?)),
            Value::List(items) => items.iter().find_map(Self::broken),
            Value::Map(entries) => entries.iter().find_map(|(_, value)| value.broken()),
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            Value::Scalar(scalar) => scalar.kind == Type::Null,
        }
    }

    /// The CloudFormation intrinsic that this is, as written.
    pub(super) fn intrinsic(&self) -> Option<String> {
        if let Some(tag) = &self.tag {
            let argument = self.scalar().map(|s| format!(" {}", s.text)).unwrap_or_default();
            return Some(format!("{tag}{argument}"));
        }
        match &self.value {
            Value::Map(entries) => match entries.as_slice() {
                [(key, _)] if key.name == "Ref" || key.name.starts_with("Fn::") => Some(key.name.clone()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The tree of `text`, with variables filled in; `None` if nothing is there. Mistakes that leave a tree behind are added to `errors`.
pub(super) fn parse(
    text: &str,
    environment: Environment<'_>,
    errors: &mut Vec<ConfigError>,
) -> Result<Option<Node>, ConfigError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let mut loader = Loader { parser, environment, anchors: HashMap::new(), nodes: 0, errors };
    let mut root = None;
    loop {
        match loader.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::StreamStart | Event::DocumentEnd, _) => {}
            (Event::DocumentStart(..), span) => {
                let (event, at) = loader.next()?;
                if matches!(event, Event::DocumentEnd) {
                    continue;
                }
                if root.is_some() {
                    return Err(ConfigError::at(
                        span.into(),
                        "",
                        "a second document begins; write several mappings as a list under Mappings",
                    ));
                }
                root = Some(loader.node(event, at, 0)?);
            }
            (_, span) => return Err(ConfigError::at(span.into(), "", "is not expected here")),
        }
    }
}

struct Loader<'t, 'e> {
    parser: Parser<'t, StrInput<'t>>,
    environment: Environment<'e>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    errors: &'e mut Vec<ConfigError>,
}

impl<'t> Loader<'t, '_> {
    fn next(&mut self) -> Result<(Event<'t>, Span), ConfigError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let mark = Mark { line: error.marker().line().max(1), column: error.marker().col() + 1 };
                let remedy = match error.info() {
                    // A value such as `memory:` or `a: b`.
                    info if info.contains("mapping values") => {
                        "; put a value that contains `: ` or ends with `:` in quotes"
                    }
                    _ => "",
                };
                Err(ConfigError::at(mark, "", format!("is not YAML: {}{remedy}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn count(&mut self, more: usize, at: Span) -> Result<(), ConfigError> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MOST_NODES {
            let text = format!("more than {MOST_NODES} values, aliases expanded; no mapping needs that many");
            return Err(ConfigError::at(at.into(), "", text));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, ConfigError> {
        if depth > DEEPEST {
            let text = format!("is nested more than {DEEPEST} levels deep");
            return Err(ConfigError::at(span.into(), "", text));
        }
        self.count(1, span)?;
        let before = self.nodes;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(&text, style, tag.as_deref(), span))
            }
            Event::SequenceStart(_, anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
                (anchor, Node { at: span.into(), value: Value::List(items), tag: local(tag.as_deref()) })
            }
            Event::MappingStart(_, anchor, tag) => {
                let entries = self.entries(depth)?;
                (anchor, Node { at: span.into(), value: Value::Map(entries), tag: local(tag.as_deref()) })
            }
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(ConfigError::at(span.into(), "", "is an alias of a value that contains it"));
                };
                self.count(size, span)?;
                // A mistake in the value is shown where it was written.
                return Ok(node);
            }
            _ => return Err(ConfigError::at(span.into(), "", "a value is missing here")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, ConfigError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(name, _, _, None), span) => Key { at: span.into(), name: name.into_owned() },
                (_, span) => return Err(ConfigError::at(span.into(), "", "a key must be a plain text")),
            };
            self.count(1, Span::default())?;
            let (event, span) = self.next()?;
            let is_unset = is_unset(&event);
            let node = self.node(event, span, depth + 1)?;
            if is_unset {
                continue;
            }
            if let Some((first, _)) = entries.iter().find(|(other, _)| other.name == key.name) {
                let text = format!("is written twice, first in line {}; remove one", first.at.line);
                self.errors.push(ConfigError::at(key.at, key.name, text));
            } else {
                entries.push((key, node));
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let at = Mark::from(span);
        let (text, from_environment, broken) = match vars::expand(text, self.environment) {
            Ok(Some(expanded)) => (expanded, true, None),
            Ok(None) => (text.to_owned(), false, None),
            Err(problem) => (text.to_owned(), true, Some(problem)),
        };
        let plain = matches!(style, ScalarStyle::Plain);
        let kind = match tag.and_then(|t| t.core_suffix().map(str::to_owned)).as_deref() {
            Some("str") => Type::Text,
            _ if plain || from_environment => resolve(&text),
            _ => Type::Text,
        };
        Node { at, value: Value::Scalar(Scalar { text, kind, from_environment, broken }), tag: local(tag) }
    }
}

/// Whether a key's value is JSON's `null`, which tools print for each key that is not set.
fn is_unset(value: &Event<'_>) -> bool {
    matches!(value, Event::Scalar(text, ScalarStyle::Plain, 0, None) if text == "null")
}

/// A tag that is not YAML's own.
fn local(tag: Option<&Tag>) -> Option<String> {
    tag.filter(|t| !t.is_yaml_core_schema()).map(Tag::original)
}

/// YAML 1.2's core schema, so `yes`, `on` and `off` are texts.
fn resolve(text: &str) -> Type {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Type::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Type::Bool,
        _ if integer(text).is_some() => Type::Integer,
        _ if is_number(text) => Type::Float,
        _ => Type::Text,
    }
}

/// The value of an integer of YAML's core schema, or JSON's.
pub(super) fn integer(text: &str) -> Option<i64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok();
    }
    text.parse().ok()
}

/// Decimal digits, perhaps too many for an integer, perhaps with a fraction or an exponent.
fn is_number(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_null_is_not_set() {
        let mut errors = Vec::new();
        let text = r#"{"a": null, "b": {"c": null}, "d": "null", "e": [null], "f": ~, "g": "${NULL}"}"#;
        let null = |_: &str| Some("null".to_owned());
        let root = parse(text, &null, &mut errors).unwrap().unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let keys: Vec<_> = entries.iter().map(|(key, value)| (key.name.as_str(), value.is_empty())).collect();
        assert_eq!(keys, [("b", true), ("d", false), ("e", false), ("f", true), ("g", true)]);
        assert!(errors.is_empty());
    }
}
