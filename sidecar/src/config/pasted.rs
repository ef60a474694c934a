//! What users paste: a whole template, a resource or an event under its logical id, a list of mappings as the CLI
//! prints it. One mapping is taken out of its surroundings; if that is impossible, the error says what to write.

use std::fmt::Write as _;

use super::keys;
use super::section::Report;
use super::tree::{Key, Node, Type, Value};

type Entries = Vec<(Key, Node)>;

/// Mappings of a template that an error shows.
const MOST_SHOWN: usize = 3;

/// The file's keys without what was pasted around them; `None`: wrong and reported.
pub(super) fn taken_out(root: Node, report: &mut Report) -> Option<Node> {
    let Node { at, value, tag } = root;
    let entries = match value {
        Value::Map(entries) => entries,
        value => return Some(Node { at, value, tag }),
    };
    if let Some((key, resources)) =
        entries.iter().find(|(key, value)| key.name == "Resources" && map(value).is_some())
    {
        report.error(key.at, "Resources", template(resources));
        return None;
    }
    let entries = without_list(entries, report)?;
    let entries = without_events(entries);
    let entries = without_logical_id(entries, report)?;
    Some(Node { at, value: Value::Map(entries), tag })
}

/// Of what `list-event-source-mappings` prints, the mappings: one is taken as the file, several as its list.
fn without_list(mut entries: Entries, report: &mut Report) -> Option<Entries> {
    let Some(at) = entries.iter().position(|(key, _)| key.name == "EventSourceMappings") else {
        return Some(entries);
    };
    let (mut key, node) = entries.remove(at);
    // Of the page, not of a mapping.
    entries.retain(|(key, _)| !matches!(key.name.as_str(), "NextMarker" | "NextToken" | "ResponseMetadata"));
    match node.value {
        Value::List(mut items) if items.len() == 1 && map(&items[0]).is_some() => {
            entries.extend(items.remove(0).into_entries());
        }
        Value::List(items) if items.is_empty() => {
            report.error(key.at, key.name, "is empty: the account has no such mapping; write one");
            return None;
        }
        value => {
            "Mappings".clone_into(&mut key.name);
            entries.push((key, Node { value, ..node }));
        }
    }
    Some(entries)
}

/// SAM's `Events` of a function, without its name.
fn without_events(entries: Entries) -> Entries {
    let is_events = |(key, value): &(Key, Node)| key.name == "Events" && map(value).is_some();
    let (events, mut rest): (Entries, Entries) = entries.into_iter().partition(is_events);
    rest.extend(events.into_iter().flat_map(|(_, node)| node.into_entries()));
    rest
}

/// A resource or an event under its logical id, which only its template knows.
fn without_logical_id(entries: Entries, report: &mut Report) -> Option<Entries> {
    let is_pasted = |(key, value): &(Key, Node)| {
        !keys::is_known(&key.name) && (text(value, "Type").is_some() || has_source(value))
    };
    let (mut pasted, mut rest): (Entries, Entries) = entries.into_iter().partition(is_pasted);
    for (key, node) in &pasted {
        if is_function(node) {
            let all = of_function(&key.name, node);
            let message = format!(
                "is a function, not a mapping; {}",
                shown(&all, "Events of type Kinesis or DynamoDB")
            );
            report.error(key.at, key.name.clone(), message);
            return None;
        }
    }
    if let [(first, _), (second, _), ..] = &pasted[..] {
        let names: Vec<String> =
            pasted.iter().map(|(key, _)| format!("{} (line {})", key.name, key.at.line)).collect();
        let message = format!(
            "is one of {} mappings: {}; write them as a list under Mappings, each without its name and with FunctionName \
             and Function next to its keys",
            pasted.len(),
            names.join(", ")
        );
        report.error(second.at, first.name.clone(), message);
        return None;
    }
    rest.extend(pasted.pop().into_iter().flat_map(|(_, node)| node.into_entries()));
    Some(rest)
}

impl Node {
    fn into_entries(self) -> Entries {
        match self.value {
            Value::Map(entries) => entries,
            _ => Vec::new(),
        }
    }
}

fn map(node: &Node) -> Option<&Entries> {
    match &node.value {
        Value::Map(entries) if node.intrinsic().is_none() => Some(entries),
        _ => None,
    }
}

fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    map(node)?.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

fn text<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    let node = get(node, name).filter(|node| node.tag.is_none())?;
    node.scalar().map(|scalar| scalar.text.as_str())
}

fn has_source(node: &Node) -> bool {
    ["EventSourceArn", "Stream"].iter().any(|name| get(node, name).is_some())
}

fn is_function(node: &Node) -> bool {
    matches!(text(node, "Type"), Some("AWS::Serverless::Function" | "AWS::Lambda::Function"))
}

/// A mapping in a template.
struct Found<'n> {
    name: String,
    line: usize,
    mapping: &'n Node,
    /// The function's logical id and its properties.
    function: Option<(&'n str, &'n Node)>,
}

/// The mappings among a function's events.
fn of_function<'n>(name: &'n str, function: &'n Node) -> Vec<Found<'n>> {
    let Some(properties) = get(function, "Properties") else { return Vec::new() };
    let events = get(properties, "Events").and_then(map).into_iter().flatten();
    let streams = events.filter(|(_, event)| matches!(text(event, "Type"), Some("Kinesis" | "DynamoDB")));
    let found = |(key, event): &'n (Key, Node)| Found {
        name: format!("{name}.Events.{}", key.name),
        line: key.at.line,
        mapping: get(event, "Properties").unwrap_or(event),
        function: Some((name, properties)),
    };
    streams.map(found).collect()
}

fn template(resources: &Node) -> String {
    let all = map(resources).map(Vec::as_slice).unwrap_or_default();
    let mut found = Vec::new();
    for (key, resource) in all {
        if is_function(resource) {
            found.extend(of_function(&key.name, resource));
        } else if text(resource, "Type") == Some("AWS::Lambda::EventSourceMapping") {
            let mapping = get(resource, "Properties").unwrap_or(resource);
            let name = get(mapping, "FunctionName").and_then(referred);
            let function = all.iter().find(|(key, _)| name.as_deref() == Some(key.name.as_str()));
            let function =
                function.and_then(|(key, node)| Some((key.name.as_str(), get(node, "Properties")?)));
            found.push(Found { name: key.name.clone(), line: key.at.line, mapping, function });
        }
    }
    let what = "AWS::Lambda::EventSourceMapping and no event of type Kinesis or DynamoDB";
    format!("is a whole template, of which one mapping is needed; {}", shown(&found, what))
}

/// The resource that an intrinsic names, as far as one does.
fn referred(node: &Node) -> Option<String> {
    let of = |text: &str| text.split('.').next().map(str::to_owned);
    match &node.value {
        Value::Scalar(scalar) => of(&scalar.text),
        Value::List(items) => of(&items.first()?.scalar()?.text),
        Value::Map(entries) => match entries.as_slice() {
            [(_, inside)] => referred(inside),
            _ => None,
        },
    }
}

/// What to write in place of the template.
fn shown(found: &[Found<'_>], none: &str) -> String {
    if found.is_empty() {
        return format!("it has no {none}: nothing here reads a stream");
    }
    let mut message = "write this, with every ARN in full:".to_owned();
    for one in found.iter().take(MOST_SHOWN) {
        // Writing to a String cannot fail.
        let _ = write!(message, "\n    # {} (line {})", one.name, one.line);
        for line in one.lines() {
            let _ = write!(message, "\n    {line}");
        }
    }
    if found.len() > MOST_SHOWN {
        let _ = write!(message, "\n    # and {} more", found.len() - MOST_SHOWN);
    }
    message
}

impl Found<'_> {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, value) in map(self.mapping).map(Vec::as_slice).unwrap_or_default() {
            match key.name.as_str() {
                "Stream" | "EventSourceArn" => lines.push(format!("EventSourceArn: {}", flow(value))),
                "FunctionName" => {}
                name if keys::is_used(name) => lines.push(format!("{name}: {}", flow(value))),
                _ => {}
            }
        }
        let of_mapping = get(self.mapping, "FunctionName").and_then(referred);
        let name =
            self.function.map(|(id, properties)| text(properties, "FunctionName").unwrap_or(id).to_owned());
        let name = name.or(of_mapping).unwrap_or_else(|| "<name>".to_owned());
        lines.push(format!("FunctionName: {}", quoted(&name)));
        lines.push(format!("Function: {}", self.call()));
        lines
    }

    /// How the function is called, as far as its runtime shows.
    fn call(&self) -> String {
        let properties = self.function.map(|(_, properties)| properties);
        let of = |name| properties.and_then(|properties| text(properties, name));
        let handler = quoted(of("Handler").unwrap_or("app.handler"));
        let call = match of("Runtime").unwrap_or_default() {
            runtime if runtime.starts_with("python") => {
                format!("Command: [python3, -m, awslambdaric, {handler}]")
            }
            runtime if runtime.starts_with("nodejs") => format!("Command: [npx, aws-lambda-ric, {handler}]"),
            _ => "Url: \"http://127.0.0.1:8080/\"".to_owned(),
        };
        match of("Timeout") {
            Some(seconds) => format!("{{{call}, Timeout: {seconds}}}"),
            None => format!("{{{call}}}"),
        }
    }
}

/// A value on one line.
fn flow(node: &Node) -> String {
    if let Some(intrinsic) = node.intrinsic() {
        let about = referred(node).filter(|name| !intrinsic.contains(name.as_str()));
        return quoted(&format!(
            "<the ARN or value of {intrinsic}{}>",
            about.map_or(String::new(), |n| format!(" {n}"))
        ));
    }
    match &node.value {
        Value::Scalar(scalar) if scalar.kind == Type::Text => quoted(&scalar.text),
        Value::Scalar(scalar) => scalar.text.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entry = |(key, value): &(Key, Node)| format!("{}: {}", quoted(&key.name), flow(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

/// The text as it may be written in a list or a map of one line.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}
