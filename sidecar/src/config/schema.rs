//! The JSON Schema of the file, from the table of keys.

use serde_json::{Value, json};
use shardmill_engine::limits::Limit;

use super::keys::{self, Key, Kind};

/// The JSON Schema (2020-12) of a configuration file, for editors.
#[must_use]
pub fn schema() -> Value {
    let single = properties(&[keys::PROCESS, keys::MAPPING]);
    let several = properties(&[keys::PROCESS, keys::SHARED]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Shardmill configuration",
        "description": "One mapping, or several under Mappings. ${VAR} and ${VAR:-default} may be used in every value.",
        "if": {"required": ["Mappings"]},
        "then": {"type": "object", "properties": several, "additionalProperties": false},
        "else": {"type": "object", "properties": single, "additionalProperties": false, "allOf": required()},
        "$defs": {
            "mapping": {
                "type": "object", "properties": properties(&[keys::MAPPING]), "additionalProperties": false,
                "allOf": required(),
            },
            // The keys next to it may have the rest.
            "properties": {
                "type": "object", "properties": properties(&[keys::MAPPING]), "additionalProperties": false,
            },
        },
    })
}

/// What a mapping cannot do without: each in one of its spellings, or in the `Properties` of a resource.
fn required() -> Value {
    let one_of = |names: &[&str]| {
        let alternatives = names.iter().chain(&["Properties"]).map(|name| json!({"required": [name]}));
        json!({"anyOf": alternatives.collect::<Vec<_>>()})
    };
    json!([
        one_of(&["EventSourceArn", "Stream"]),
        one_of(&["FunctionName", "FunctionArn"]),
        one_of(&["StartingPosition"]),
        one_of(&["Function"]),
    ])
}

/// Forms of texts that are known; each may contain a variable.
fn pattern(key: &Key) -> Option<String> {
    let forms = match key.name {
        "Checkpoints" => "sqlite:.+|(dynamodb|kcl):[A-Za-z0-9_.-]{3,255}|memory:?".to_owned(),
        "Destination" => {
            let mut forms = vec!["file:.+", "arn:[^:]+:sqs:.+"];
            forms.extend(cfg!(feature = "sns").then_some("arn:[^:]+:sns:.+"));
            forms.extend(cfg!(feature = "s3").then_some("arn:[^:]+:s3:.+"));
            // An empty text means none.
            format!("{}|", forms.join("|"))
        }
        _ => return None,
    };
    Some(format!("^({forms})$|\\$\\{{"))
}

fn properties(tables: &[&'static [Key]]) -> Value {
    let entry = |key: &Key| (key.name.to_owned(), described(key));
    Value::Object(tables.iter().flat_map(|table| table.iter()).map(entry).collect())
}

fn described(key: &Key) -> Value {
    let mut value = match key.kind {
        Kind::Sections(_) if key.name == "Mappings" => {
            json!({"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/mapping"}})
        }
        kind => of_kind(kind),
    };
    if let (Some(pattern), Some(object)) = (pattern(key), value.as_object_mut()) {
        object.insert("pattern".to_owned(), pattern.into());
    }
    if let (Kind::Section(table), Some(object)) = (key.kind, value.as_object_mut())
        && std::ptr::eq(table, keys::FUNCTION)
    {
        let one = ["Url", "Command", "Stdout"].map(|name| json!({"required": [name]}));
        object.insert("oneOf".to_owned(), one.to_vec().into());
    }
    if let Some(object) = value.as_object_mut() {
        object.insert("description".to_owned(), key.about.into());
    }
    value
}

/// A value from the environment may replace any scalar.
fn or_variable(value: &Value) -> Value {
    json!({"anyOf": [value, {"type": "string", "pattern": "\\$\\{"}]})
}

fn of_kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Choice(values) => or_variable(&json!({"enum": values})),
        Kind::Bool => or_variable(&json!({"type": "boolean"})),
        Kind::Integer(limit) => or_variable(&integer(limit)),
        Kind::Time => json!({"type": ["string", "number"]}),
        Kind::Texts => json!({"type": "array", "items": {"type": ["string", "number", "boolean"]}}),
        Kind::Choices(values) => json!({"type": "array", "items": or_variable(&json!({"enum": values}))}),
        Kind::Integers(limit) => json!({"type": "array", "items": or_variable(&integer(limit))}),
        Kind::TextMap => {
            // Under Variables, too, as Lambda's API, CloudFormation and SAM write it.
            let text = json!({"type": ["string", "number", "boolean"]});
            let around =
                json!({"type": ["object", "string", "number", "boolean"], "additionalProperties": text});
            json!({"type": "object", "properties": {"Variables": around}, "additionalProperties": text})
        }
        Kind::Section(table) => section(table),
        Kind::Same => json!({"$ref": "#/$defs/properties"}),
        Kind::SectionOrOff(table) => json!({"anyOf": [section(table), {"const": "off"}]}),
        Kind::Sections(table) => json!({"type": "array", "items": section(table)}),
        Kind::Ignored => json!({}),
        Kind::Refused(..) => json!({"maxItems": 0, "maxProperties": 0, "type": ["array", "object", "null"]}),
    }
}

fn section(table: &'static [Key]) -> Value {
    json!({"type": "object", "properties": properties(&[table]), "additionalProperties": false})
}

fn integer(limit: &Limit) -> Value {
    let range = json!({"type": "integer", "minimum": limit.minimum, "maximum": limit.maximum});
    let mut value = match limit.special {
        Some(special) => json!({"anyOf": [{"const": special}, range]}),
        None => range,
    };
    // A default outside the range means "not set".
    if let Some(object) = value.as_object_mut().filter(|_| limit.check(limit.default).is_ok()) {
        object.insert("default".to_owned(), limit.default.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn names(value: &Value) -> Vec<&str> {
        value.as_object().map(Map::keys).into_iter().flatten().map(String::as_str).collect()
    }

    /// Follows the schema and the table side by side.
    fn same(value: &Value, tables: &[&'static [Key]]) {
        let mut known: Vec<&str> = tables.iter().flat_map(|t| t.iter()).map(|k| k.name).collect();
        known.sort_unstable();
        let mut written = names(&value["properties"]);
        written.sort_unstable();
        assert_eq!(written, known);
        assert_eq!(value["additionalProperties"], json!(false));
        for key in
            tables.iter().flat_map(|t| t.iter()).filter(|k| !matches!(k.name, "Properties" | "Mappings"))
        {
            let below = &value["properties"][key.name];
            match key.kind {
                Kind::Section(table) => same(below, &[table]),
                Kind::SectionOrOff(table) => same(&below["anyOf"][0], &[table]),
                Kind::Sections(table) => same(&below["items"], &[table]),
                _ => assert!(below["description"].is_string(), "{}", key.name),
            }
        }
    }

    #[test]
    fn every_known_key_is_in_the_schema_and_nothing_else() {
        let schema = schema();
        same(&schema["else"], &[keys::PROCESS, keys::MAPPING]);
        same(&schema["then"], &[keys::PROCESS, keys::SHARED]);
        same(&schema["$defs"]["mapping"], &[keys::MAPPING]);
    }

    /// As much of a validator as the schema needs, patterns aside.
    fn accepts(schema: &Value, value: &Value) -> bool {
        let below = |key: &str| schema.get(key);
        let all = |key: &str, test: fn(&Value, &Value) -> bool| {
            below(key).and_then(Value::as_array).is_none_or(|list| list.iter().all(|one| test(one, value)))
        };
        let count = |key: &str| {
            below(key)
                .and_then(Value::as_array)
                .map(|list| list.iter().filter(|one| accepts(one, value)).count())
        };
        let required = |name: &Value| name.as_str().is_some_and(|name| value.get(name).is_some());
        let properties = value.as_object().into_iter().flatten().all(|(name, value)| {
            match below("properties").and_then(|known| known.get(name)) {
                Some(known) => accepts(known, value),
                None => below("additionalProperties") != Some(&json!(false)),
            }
        });
        all("allOf", accepts)
            && count("anyOf").is_none_or(|count| count > 0)
            && count("oneOf").is_none_or(|count| count == 1)
            && below("required").and_then(Value::as_array).is_none_or(|names| names.iter().all(required))
            && properties
    }

    fn of_file(text: &Value) -> bool {
        let schema = schema();
        accepts(&schema["else"], text)
    }

    #[test]
    fn incident_106_the_schema_refuses_a_mapping_without_what_it_needs() {
        let whole = json!({
            "EventSourceArn": "a", "FunctionName": "f", "StartingPosition": "LATEST", "Function": {"Stdout": true},
        });
        assert!(of_file(&whole));
        for key in names(&whole) {
            let mut without = whole.clone();
            without.as_object_mut().unwrap().remove(key);
            assert!(!of_file(&without), "{key}");
        }
        let mut two = whole.clone();
        two["Function"] = json!({"Stdout": true, "Url": "http://127.0.0.1/"});
        assert!(!of_file(&two), "exactly one way to call it");
        let resource =
            json!({"Type": "Kinesis", "Properties": {"Stream": "a"}, "Function": {"Stdout": true}});
        assert!(of_file(&resource), "its properties may have the rest");
        assert!(accepts(&schema()["$defs"]["mapping"], &whole));
        assert!(!accepts(&schema()["$defs"]["mapping"], &json!({})));
    }

    #[test]
    fn incident_106_the_schema_knows_the_stores_and_the_destinations_of_this_binary() {
        let single = &schema()["else"]["properties"];
        let checkpoints = single["Checkpoints"]["pattern"].as_str().unwrap();
        assert_eq!(checkpoints, "^(sqlite:.+|(dynamodb|kcl):[A-Za-z0-9_.-]{3,255}|memory:?)$|\\$\\{");
        let on_failure = &single["DestinationConfig"]["properties"]["OnFailure"]["properties"];
        let destination = on_failure["Destination"]["pattern"].as_str().unwrap();
        assert!(destination.contains("sqs") && destination.contains("file:"));
        assert_eq!(destination.contains("sns"), cfg!(feature = "sns"));
        assert_eq!(destination.contains(":s3:"), cfg!(feature = "s3"));
    }

    #[test]
    fn incident_106_the_environment_may_stand_under_variables_as_in_lambdas_own_files() {
        let schema = of_kind(Kind::TextMap);
        let text = json!({"type": ["string", "number", "boolean"]});
        assert_eq!(schema["additionalProperties"], text);
        let around = &schema["properties"]["Variables"];
        assert_eq!((&around["type"][0], &around["additionalProperties"]), (&json!("object"), &text));
    }

    #[test]
    fn ranges_in_the_schema_are_those_that_are_checked() {
        let single = &schema()["else"]["properties"];
        let batch_size = &single["BatchSize"]["anyOf"][0];
        assert_eq!(batch_size["maximum"], json!(10_000));
        assert_eq!(batch_size["default"], json!(100));
        let age = &single["MaximumRecordAgeInSeconds"]["anyOf"][0];
        assert_eq!(age["anyOf"][0]["const"], json!(-1));
        assert_eq!(age["anyOf"][1]["minimum"], json!(60));
        let leases = &single["Worker"]["properties"]["MaximumLeases"]["anyOf"][0];
        assert_eq!(leases.get("default"), None, "no limit is no number");
    }
}
