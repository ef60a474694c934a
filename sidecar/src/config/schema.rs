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
        "description": "One mapping, or several under Mappings. ${VAR} and ${VAR:-default} may stand in every value.",
        "if": {"required": ["Mappings"]},
        "then": {"type": "object", "properties": several, "additionalProperties": false},
        "else": {"type": "object", "properties": single, "additionalProperties": false},
        "$defs": {"mapping": {
            "type": "object", "properties": properties(&[keys::MAPPING]), "additionalProperties": false,
        }},
    })
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
    if let Some(object) = value.as_object_mut() {
        object.insert("description".to_owned(), key.about.into());
    }
    value
}

/// A value from the environment may stand for any scalar.
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
            json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
        }
        Kind::Section(table) => section(table),
        Kind::Same => json!({"$ref": "#/$defs/mapping"}),
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
    // A default outside the range stands for "not set".
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
