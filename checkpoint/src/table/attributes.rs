//! Attributes of items: reading them, and the expressions that write them.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use aws_sdk_dynamodb::types::AttributeValue;

/// An item as the service gives it.
pub(crate) type Item = HashMap<String, AttributeValue>;

pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(crate) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> AttributeValue {
    AttributeValue::L(values.into_iter().map(text).collect())
}

/// A set of texts; `None` if there are none: the service has no empty set.
pub(crate) fn text_set<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<AttributeValue> {
    let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
    values.sort_unstable();
    values.dedup();
    (!values.is_empty()).then_some(AttributeValue::Ss(values))
}

/// Reads an item; what is wrong with an attribute is said in words.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a Item);

impl<'a> Reader<'a> {
    fn get(self, name: &str) -> Option<&'a AttributeValue> {
        self.0.get(name)
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>, String> {
        self.typed(name, "text (S)", |value| value.as_s().ok().map(String::as_str))
    }

    pub(crate) fn required_text(self, name: &str) -> Result<&'a str, String> {
        self.text(name)?.ok_or_else(|| format!("has no attribute {name}"))
    }

    pub(crate) fn number<T: FromStr>(self, name: &str) -> Result<Option<T>, String> {
        self.typed(name, "number (N) in its range", |value| value.as_n().ok()?.parse().ok())
    }

    pub(crate) fn required_number<T: FromStr>(self, name: &str) -> Result<T, String> {
        self.number(name)?.ok_or_else(|| format!("has no attribute {name}"))
    }

    pub(crate) fn flag(self, name: &str) -> Result<bool, String> {
        Ok(self.typed(name, "boolean (BOOL)", |value| value.as_bool().ok().copied())?.unwrap_or_default())
    }

    /// An absent list is empty.
    pub(crate) fn texts(self, name: &str) -> Result<Vec<&'a str>, String> {
        let read = |value: &'a AttributeValue| {
            let values = value.as_l().ok()?;
            values.iter().map(|value| value.as_s().ok().map(String::as_str)).collect()
        };
        Ok(self.typed(name, "list of texts (L of S)", read)?.unwrap_or_default())
    }

    /// An absent set is empty.
    pub(crate) fn text_set(self, name: &str) -> Result<&'a [String], String> {
        Ok(self
            .typed(name, "set of texts (SS)", |value| value.as_ss().ok().map(Vec::as_slice))?
            .unwrap_or_default())
    }

    pub(crate) fn map(self, name: &str) -> Result<Option<&'a Item>, String> {
        self.typed(name, "map (M)", |value| value.as_m().ok())
    }

    pub(crate) fn required_map(self, name: &str) -> Result<&'a Item, String> {
        self.map(name)?.ok_or_else(|| format!("has no attribute {name}"))
    }

    fn typed<T>(
        self,
        name: &str,
        kind: &str,
        read: impl FnOnce(&'a AttributeValue) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value)
            .map(Some)
            .ok_or_else(|| format!("has {} in attribute {name}, which is no {kind}", shown(value)))
    }
}

/// A value as an error shows it, cut short.
fn shown(value: &AttributeValue) -> String {
    let whole = match value {
        AttributeValue::S(text) => format!("{text:?}"),
        AttributeValue::N(number) => number.clone(),
        other => format!("{other:?}"),
    };
    match whole.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

/// An update of one item and its condition. Every name and value is a placeholder: many words are reserved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Update {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
    sets: Vec<String>,
    removes: Vec<String>,
    conditions: Vec<String>,
}

impl Update {
    pub(crate) fn set(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.sets.push(format!("{name} = {value}"));
        self
    }

    /// Sets the attribute, or removes it where there is no value.
    pub(crate) fn set_or_remove(self, name: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self.remove(name),
        }
    }

    /// Sets the attribute if there is a value.
    pub(crate) fn set_some(self, name: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self,
        }
    }

    /// Sets one entry of a map; the others stay.
    pub(crate) fn set_entry(mut self, map: &str, entry: &str, value: AttributeValue) -> Self {
        let (map, entry, value) = (self.name(map), self.name(entry), self.value(value));
        self.sets.push(format!("{map}.{entry} = {value}"));
        self
    }

    /// Sets the attribute unless it is there.
    pub(crate) fn set_first(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.sets.push(format!("{name} = if_not_exists({name}, {value})"));
        self
    }

    pub(crate) fn copy(mut self, from: &str, to: &str) -> Self {
        let (from, to) = (self.name(from), self.name(to));
        self.sets.push(format!("{to} = {from}"));
        self
    }

    /// Adds 1; an absent attribute counts as 0.
    pub(crate) fn increment(mut self, name: &str) -> Self {
        let (name, one, zero) = (self.name(name), self.value(number(1)), self.value(number(0)));
        self.sets.push(format!("{name} = if_not_exists({name}, {zero}) + {one}"));
        self
    }

    /// Adds 1 to what is there and keeps the sum in a second attribute, too.
    pub(crate) fn increment_both(mut self, name: &str, copy: &str) -> Self {
        let (name, copy, one) = (self.name(name), self.name(copy), self.value(number(1)));
        self.sets.push(format!("{name} = {name} + {one}, {copy} = {name} + {one}"));
        self
    }

    pub(crate) fn remove(mut self, name: &str) -> Self {
        let name = self.name(name);
        self.removes.push(name);
        self
    }

    pub(crate) fn remove_all(self, names: &[&str]) -> Self {
        names.iter().fold(self, |update, name| update.remove(name))
    }

    pub(crate) fn if_equal(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.conditions.push(format!("{name} = {value}"));
        self
    }

    /// If a map's entry is no more than this number.
    pub(crate) fn if_entry_at_most(mut self, map: &str, entry: &str, most: u64) -> Self {
        let (map, entry, most) = (self.name(map), self.name(entry), self.value(number(most)));
        self.conditions.push(format!("{map}.{entry} <= {most}"));
        self
    }

    /// If the attribute has this value, or is absent where there is none.
    pub(crate) fn if_equal_or_absent(self, name: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.if_equal(name, value),
            None => self.if_absent(name),
        }
    }

    pub(crate) fn if_absent(mut self, name: &str) -> Self {
        let name = self.name(name);
        self.conditions.push(format!("attribute_not_exists({name})"));
        self
    }

    pub(crate) fn if_present(mut self, name: &str) -> Self {
        let name = self.name(name);
        self.conditions.push(format!("attribute_exists({name})"));
        self
    }

    /// If there is no item, or one with this attribute; `key` is the table's partition key.
    pub(crate) fn if_present_or_no_item(mut self, name: &str, key: &str) -> Self {
        let (name, key) = (self.name(name), self.name(key));
        self.conditions.push(format!("(attribute_exists({name}) OR attribute_not_exists({key}))"));
        self
    }

    pub(crate) fn if_map(mut self, name: &str) -> Self {
        let (name, kind) = (self.name(name), self.value(text("M")));
        self.conditions.push(format!("attribute_type({name}, {kind})"));
        self
    }

    pub(crate) fn if_at_most_or_absent(mut self, name: &str, value: AttributeValue) -> Self {
        let (name, value) = (self.name(name), self.value(value));
        self.conditions.push(format!("(attribute_not_exists({name}) OR {name} <= {value})"));
        self
    }

    pub(crate) fn expression(&self) -> Option<String> {
        let sets = (!self.sets.is_empty()).then(|| format!("SET {}", self.sets.join(", ")));
        let removes = (!self.removes.is_empty()).then(|| format!("REMOVE {}", self.removes.join(", ")));
        let parts: Vec<_> = sets.into_iter().chain(removes).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    pub(crate) fn condition(&self) -> Option<String> {
        (!self.conditions.is_empty()).then(|| self.conditions.join(" AND "))
    }

    pub(crate) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    pub(crate) fn values(&self) -> Option<Item> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }

    /// The item after an update that only sets values and removes.
    #[cfg(test)]
    pub(crate) fn applied_to(&self, mut item: Item) -> Item {
        for set in &self.sets {
            let (name, value) = set.split_once(" = ").unwrap();
            item.insert(self.names[name].clone(), self.values[value].clone());
        }
        for name in &self.removes {
            item.remove(&self.names[name]);
        }
        item
    }

    fn name(&mut self, name: &str) -> String {
        let known =
            self.names.iter().find(|(_, known)| *known == name).map(|(placeholder, _)| placeholder.clone());
        known.unwrap_or_else(|| {
            let placeholder = format!("#n{}", self.names.len());
            self.names.insert(placeholder.clone(), name.to_owned());
            placeholder
        })
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_names_everything_by_placeholders() {
        let update = Update::default()
            .set("owner", text("a"))
            .remove_all(&["token", "owner switches"])
            .if_equal("counter", number(7))
            .if_absent("owner");
        assert_eq!(update.expression().unwrap(), "SET #n0 = :v0 REMOVE #n1, #n2");
        assert_eq!(update.condition().unwrap(), "#n3 = :v1 AND attribute_not_exists(#n0)");
        assert_eq!(update.names().unwrap()["#n2"], "owner switches");
        assert_eq!(update.values().unwrap()[":v1"], number(7));
        let empty = Update::default();
        assert_eq!((empty.expression(), empty.condition(), empty.names()), (None, None, None));
    }

    #[test]
    fn an_attribute_of_another_type_is_named_with_what_it_holds() {
        let item = Item::from([
            ("counter".to_owned(), text("seven")),
            ("owner".to_owned(), number(7)),
            ("parents".to_owned(), AttributeValue::L(vec![number(1)])),
        ]);
        let reader = Reader(&item);
        let error = reader.required_number::<u64>("counter").unwrap_err();
        assert_eq!(error, "has \"seven\" in attribute counter, which is no number (N) in its range");
        assert!(reader.text("owner").unwrap_err().starts_with("has 7 in attribute owner"));
        assert!(reader.texts("parents").is_err());
        assert_eq!(reader.required_text("token").unwrap_err(), "has no attribute token");
        assert_eq!((reader.text("token"), reader.texts("children")), (Ok(None), Ok(Vec::new())));
    }
}
