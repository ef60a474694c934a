//! Tables, and the operations on them: JSON in, JSON out.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::{Map, Value, json};

use super::Bill;
use super::billing::{read_units, size_of, write_units};
use super::expression::{Scope, validation};
use crate::service::FakeError;

pub(super) type Item = Map<String, Value>;

/// The values of the partition key and of the sort key, where the table has one.
type Key = (String, String);

/// The most that one page carries.
const PAGE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct World {
    tables: BTreeMap<String, Table>,
    pub(super) bill: Bill,
}

#[derive(Debug)]
struct Table {
    /// As the service describes it.
    description: Value,
    keys: Vec<String>,
    items: BTreeMap<Key, Item>,
}

/// The answer of an operation, or its error with the item that a refused write shows.
pub(super) type Answer = Result<Value, (FakeError, Option<Item>)>;

impl World {
    pub(super) fn perform(&mut self, operation: &str, input: &Value) -> Answer {
        *self.bill.calls.entry(operation.to_owned()).or_default() += 1;
        match operation {
            "CreateTable" => self.create_table(input).map_err(plain),
            "DescribeTable" => {
                self.table(input).map(|table| json!({ "Table": table.description })).map_err(plain)
            }
            "UpdateTimeToLive" => Ok(json!({})),
            "GetItem" => self.get(input).map_err(plain),
            "Query" | "Scan" => self.read(input).map_err(plain),
            "UpdateItem" => self.write(input, false),
            "DeleteItem" => self.write(input, true),
            other => Err(plain(FakeError::new(
                "UnknownOperationException",
                format!(
                    "tables for leases know no {other}; items of a stream are written with /control/dynamodb/put-item"
                ),
            ))),
        }
    }

    fn table(&mut self, input: &Value) -> Result<&mut Table, FakeError> {
        let name = text(input, "TableName");
        let missing = || FakeError::new("ResourceNotFoundException", format!("Table not found: {name}"));
        self.tables.get_mut(name).ok_or_else(missing)
    }

    fn create_table(&mut self, input: &Value) -> Result<Value, FakeError> {
        let name = text(input, "TableName").to_owned();
        if self.tables.contains_key(&name) {
            return Err(FakeError::new("ResourceInUseException", format!("Table already exists: {name}")));
        }
        let schema = input["KeySchema"].as_array().cloned().unwrap_or_default();
        let keys = schema.iter().map(|key| text(key, "AttributeName").to_owned()).collect();
        let description = json!({
            "TableName": name, "TableStatus": "ACTIVE", "KeySchema": schema,
            "AttributeDefinitions": input["AttributeDefinitions"],
        });
        let answer = json!({ "TableDescription": description });
        self.tables.insert(name, Table { description, keys, items: BTreeMap::new() });
        Ok(answer)
    }

    fn get(&mut self, input: &Value) -> Result<Value, FakeError> {
        let table = self.table(input)?;
        let item = table.items.get(&table.key(&input["Key"])?).cloned();
        let size = item.as_ref().map_or(0, size_of);
        let units = self.read_costs(input, size);
        Ok(match item {
            Some(item) => json!({ "Item": item, "ConsumedCapacity": units }),
            None => json!({ "ConsumedCapacity": units }),
        })
    }

    /// A page of a query or a scan.
    fn read(&mut self, input: &Value) -> Result<Value, FakeError> {
        let table = self.table(input)?;
        let (hash, prefix) = range_of(input)?.unwrap_or_default();
        let after = match &input["ExclusiveStartKey"] {
            Value::Null => Bound::Included((hash.clone(), prefix.clone())),
            key => Bound::Excluded(table.key(key)?),
        };
        let (mut items, mut size, mut last) = (Vec::new(), 0, None);
        for ((of, name), item) in table.items.range((after, Bound::Unbounded)) {
            if !hash.is_empty() && (*of != hash || !name.starts_with(&prefix)) {
                break;
            }
            if size >= PAGE_BYTES {
                last = items.last().map(|item| table.key_of(item));
                break;
            }
            size += size_of(item);
            items.push(item.clone());
        }
        let mut answer = json!({ "Count": items.len(), "ConsumedCapacity": self.read_costs(input, size) });
        if input["Select"] != "COUNT" {
            answer["Items"] = items.into_iter().map(Value::Object).collect();
        }
        if let Some(last) = last {
            answer["LastEvaluatedKey"] = last;
        }
        Ok(answer)
    }

    fn write(&mut self, input: &Value, deletes: bool) -> Answer {
        let table = self.table(input).map_err(plain)?;
        let key = table.key(&input["Key"]).map_err(plain)?;
        let (empty, former) = (Map::new(), table.items.get(&key).cloned());
        let item = former.clone().unwrap_or_default();
        let names = input["ExpressionAttributeNames"].as_object().unwrap_or(&empty);
        let values = input["ExpressionAttributeValues"].as_object().unwrap_or(&empty);
        let scope = Scope { names, values, item: &item };
        let before = size_of(&item);
        if let Some(condition) = input["ConditionExpression"].as_str()
            && !scope.holds(condition).map_err(plain)?
        {
            self.bill.write_units += write_units(before, 0);
            let refusal = FakeError::new("ConditionalCheckFailedException", "The conditional request failed");
            return Err((refusal, former));
        }
        if deletes {
            table.items.remove(&key);
            return Ok(json!({ "ConsumedCapacity": self.write_costs(input, before, 0) }));
        }
        let mut item = match input["UpdateExpression"].as_str() {
            Some(update) => scope.updated(update).map_err(plain)?,
            None => item.clone(),
        };
        item.extend(input["Key"].as_object().cloned().unwrap_or_default());
        table.items.insert(key, item.clone());
        let after = size_of(&item);
        Ok(json!({ "Attributes": item, "ConsumedCapacity": self.write_costs(input, before, after) }))
    }

    fn read_costs(&mut self, input: &Value, bytes: usize) -> Value {
        let units = read_units(bytes, input["ConsistentRead"] == true);
        self.bill.read_units += units;
        consumed(input, units)
    }

    fn write_costs(&mut self, input: &Value, before: usize, after: usize) -> Value {
        let units = write_units(before, after);
        self.bill.write_units += units;
        consumed(input, units)
    }

    /// How many items of a table there are whose names begin with `prefix`, and their bytes. The name is the last key.
    pub(super) fn measure(&self, table: &str, prefix: &str) -> (usize, usize) {
        let Some(table) = self.tables.get(table) else { return (0, 0) };
        let name = |item: &Item| table.keys.last().map(|key| text(&item[key.as_str()], "S").to_owned());
        let found =
            table.items.values().filter(|item| name(item).is_some_and(|name| name.starts_with(prefix)));
        found.fold((0, 0), |(items, bytes), item| (items + 1, bytes + size_of(item)))
    }
}

impl Table {
    fn key(&self, key: &Value) -> Result<Key, FakeError> {
        let part = |index: usize| match self.keys.get(index) {
            None => Ok(String::new()),
            Some(name) => {
                let value = key[name.as_str()]["S"].as_str();
                value.map(str::to_owned).ok_or_else(|| validation(format!("the key has no text {name}")))
            }
        };
        Ok((part(0)?, part(1)?))
    }

    fn key_of(&self, item: &Item) -> Value {
        self.keys.iter().map(|name| (name.clone(), item[name.as_str()].clone())).collect::<Item>().into()
    }
}

/// The partition key and the beginning of the sort key that a query names; `None` for a scan.
fn range_of(input: &Value) -> Result<Option<(String, String)>, FakeError> {
    let Some(condition) = input["KeyConditionExpression"].as_str() else { return Ok(None) };
    let value = |word: &str| input["ExpressionAttributeValues"][word.trim()]["S"].as_str().map(str::to_owned);
    let (hash, range) = condition.split_once(" AND ").unwrap_or((condition, ""));
    let hash = hash.split_once('=').and_then(|(_, word)| value(word));
    let prefix = match range.strip_prefix("begins_with(") {
        None if range.is_empty() => Some(String::new()),
        None => None,
        Some(range) => range.trim_end_matches(')').split_once(',').and_then(|(_, word)| value(word)),
    };
    let unknown = || validation(format!("the fake does not know this key condition: {condition}"));
    hash.zip(prefix).map(Some).ok_or_else(unknown)
}

fn plain(error: FakeError) -> (FakeError, Option<Item>) {
    (error, None)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// What an answer says of it, if it is asked.
fn consumed(input: &Value, units: f64) -> Value {
    match input["ReturnConsumedCapacity"].as_str() {
        Some("TOTAL") => json!({ "TableName": input["TableName"], "CapacityUnits": units }),
        _ => Value::Null,
    }
}
