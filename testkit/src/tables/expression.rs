//! Update and condition expressions, as far as lease stores use them.

use serde_json::{Map, Value, json};

use super::state::Item;
use crate::service::FakeError;

type Result<T> = std::result::Result<T, FakeError>;

/// Names and values that the placeholders of an expression stand for.
pub(super) struct Scope<'a> {
    pub(super) names: &'a Map<String, Value>,
    pub(super) values: &'a Map<String, Value>,
    /// The item as it is before the call.
    pub(super) item: &'a Item,
}

/// Reads one expression from left to right.
struct Parser<'a> {
    scope: &'a Scope<'a>,
    rest: &'a str,
}

/// An attribute, or an entry of an attribute that is a map.
type Path = Vec<String>;

impl Scope<'_> {
    /// Whether a condition holds.
    pub(super) fn holds(&self, condition: &str) -> Result<bool> {
        let mut parser = Parser { scope: self, rest: condition };
        let holds = parser.any()?;
        parser.end().map(|()| holds)
    }

    /// The item after an update.
    pub(super) fn updated(&self, update: &str) -> Result<Item> {
        let mut parser = Parser { scope: self, rest: update };
        let mut item = self.item.clone();
        let (mut sets, mut removes) = (Vec::new(), Vec::new());
        while !parser.rest.trim().is_empty() {
            let is_set = parser.takes("SET");
            if !is_set && !parser.takes("REMOVE") {
                return Err(parser.unknown());
            }
            loop {
                let path = parser.path()?;
                if is_set {
                    parser.expect("=")?;
                    sets.push((path, parser.sum()?));
                } else {
                    removes.push(path);
                }
                if !parser.takes(",") {
                    break;
                }
            }
        }
        // Each operand is as it was before the update.
        for (path, value) in sets {
            put(&mut item, &path, value)?;
        }
        for path in removes {
            item.remove(&path[0]);
        }
        Ok(item)
    }

    fn at(&self, path: &[String]) -> Option<&Value> {
        let (first, inner) = path.split_first()?;
        inner.iter().try_fold(self.item.get(first)?, |value, name| value.get("M")?.get(name))
    }
}

impl<'a> Parser<'a> {
    fn takes(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.trim_start().strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.takes(token) { Ok(()) } else { Err(self.unknown()) }
    }

    fn end(&self) -> Result<()> {
        if self.rest.trim().is_empty() { Ok(()) } else { Err(self.unknown()) }
    }

    fn unknown(&self) -> FakeError {
        validation(format!("the fake does not know this part of an expression: {:?}", self.rest))
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "#:_".contains(c))).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    fn path(&mut self) -> Result<Path> {
        let mut path = Vec::new();
        loop {
            let word = self.word();
            let name = if word.starts_with('#') { self.scope.names.get(word) } else { None };
            let name = name.and_then(Value::as_str).ok_or_else(|| validation(format!("no name {word:?}")))?;
            path.push(name.to_owned());
            if !self.takes(".") {
                return Ok(path);
            }
        }
    }

    /// A value, an attribute, or either with a default.
    fn operand(&mut self) -> Result<Option<Value>> {
        if self.takes("if_not_exists(") {
            let path = self.path()?;
            self.expect(",")?;
            let default = self.operand()?;
            self.expect(")")?;
            return Ok(self.scope.at(&path).cloned().or(default));
        }
        if self.rest.trim_start().starts_with(':') {
            let word = self.word();
            let value = self.scope.values.get(word);
            return value.cloned().map(Some).ok_or_else(|| validation(format!("no value {word:?}")));
        }
        let path = self.path()?;
        Ok(self.scope.at(&path).cloned())
    }

    fn sum(&mut self) -> Result<Value> {
        let missing = || validation("an operand does not exist in the item".to_owned());
        let first = self.operand()?.ok_or_else(missing)?;
        if !self.takes("+") {
            return Ok(first);
        }
        let second = self.operand()?.ok_or_else(missing)?;
        let sum = number(&first).zip(number(&second)).map(|(one, other)| one + other);
        let sum = sum.ok_or_else(|| validation("an operand of + is no number".to_owned()))?;
        Ok(json!({ "N": sum.to_string() }))
    }

    fn any(&mut self) -> Result<bool> {
        let mut holds = self.all()?;
        while self.takes("OR") {
            holds |= self.all()?;
        }
        Ok(holds)
    }

    fn all(&mut self) -> Result<bool> {
        let mut holds = self.one()?;
        while self.takes("AND") {
            holds &= self.one()?;
        }
        Ok(holds)
    }

    fn one(&mut self) -> Result<bool> {
        if self.takes("(") {
            let holds = self.any()?;
            return self.expect(")").map(|()| holds);
        }
        for (function, expected) in [("attribute_exists(", true), ("attribute_not_exists(", false)] {
            if self.takes(function) {
                let path = self.path()?;
                self.expect(")")?;
                return Ok(self.scope.at(&path).is_some() == expected);
            }
        }
        if self.takes("attribute_type(") {
            let path = self.path()?;
            self.expect(",")?;
            let wanted = self.operand()?.as_ref().and_then(text).unwrap_or_default();
            self.expect(")")?;
            return Ok(self.scope.at(&path).is_some_and(|found| found.get(&wanted).is_some()));
        }
        let one = self.operand()?;
        let at_most = self.takes("<=");
        if !at_most {
            self.expect("=")?;
        }
        let other = self.operand()?;
        Ok(one.zip(other).is_some_and(|(one, other)| compare(&one, &other, at_most)))
    }
}

/// Values of different kinds are neither equal nor in an order.
fn compare(one: &Value, other: &Value, at_most: bool) -> bool {
    match (number(one).zip(number(other)), text(one).zip(text(other))) {
        (Some((one, other)), _) => one == other || at_most && one < other,
        (_, Some((one, other))) => one == other || at_most && one < other,
        _ => !at_most && one == other,
    }
}

fn number(value: &Value) -> Option<i128> {
    value.get("N")?.as_str()?.parse().ok()
}

fn text(value: &Value) -> Option<String> {
    Some(value.get("S")?.as_str()?.to_owned())
}

fn put(item: &mut Item, path: &[String], value: Value) -> Result<()> {
    match path {
        [name] => {
            item.insert(name.clone(), value);
        }
        [map, name] => {
            let map = item.get_mut(map).and_then(|map| map.get_mut("M")?.as_object_mut());
            map.ok_or_else(|| validation("the path is not in the item".to_owned()))?
                .insert(name.clone(), value);
        }
        _ => return Err(validation("the fake knows one level of maps".to_owned())),
    }
    Ok(())
}

pub(super) fn validation(message: String) -> FakeError {
    FakeError::new("ValidationException", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_update_reads_the_item_as_it_was_and_writes_what_it_names() {
        let names = object(&json!({"#a": "a", "#b": "b", "#m": "m", "#e": "e", "#x": "x"}));
        let values = object(&json!({":one": {"N": "1"}, ":v": {"S": "v"}}));
        let item = object(&json!({"a": {"N": "7"}, "m": {"M": {}}, "x": {"S": "old"}}));
        let scope = Scope { names: &names, values: &values, item: &item };
        let updated =
            scope.updated("SET #a = if_not_exists(#a, :one) + :one, #b = #a, #m.#e = :v REMOVE #x").unwrap();
        let expected = json!({"a": {"N": "8"}, "b": {"N": "7"}, "m": {"M": {"e": {"S": "v"}}}});
        assert_eq!(Value::Object(updated), expected);
        assert_eq!(scope.updated("ADD #a :one").unwrap_err().code, "ValidationException");
    }

    #[test]
    fn a_condition_compares_within_one_kind_of_value() {
        let names = object(&json!({"#a": "a", "#m": "m", "#e": "e", "#x": "x"}));
        let values = object(&json!({":n": {"N": "10"}, ":s": {"S": "10"}, ":m": {"S": "M"}}));
        let item = object(&json!({"a": {"N": "9"}, "m": {"M": {"e": {"N": "10"}}}}));
        let scope = Scope { names: &names, values: &values, item: &item };
        for (condition, expected) in [
            ("#a <= :n", true),
            ("#a = :n", false),
            ("#a <= :s", false),
            ("#x = :n", false),
            ("attribute_not_exists(#x) AND #m.#e = :n", true),
            ("(attribute_exists(#x) OR #m.#e <= :n) AND attribute_type(#m, :m)", true),
        ] {
            assert_eq!(scope.holds(condition), Ok(expected), "{condition}");
        }
        assert!(scope.holds("#a <> :n").is_err());
    }
}
