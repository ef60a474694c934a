//! A DynamoDB table, and what was written to it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::unique;

/// An item, in DynamoDB's JSON.
pub type Item = Map<String, Value>;

/// What a stream has to say about one write.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `INSERT`, `MODIFY` or `REMOVE`.
    pub event_name: &'static str,
    /// The item before the write.
    pub old: Option<Value>,
    /// The item after it.
    pub new: Option<Value>,
}

/// A table with the key attribute `id`, a text, and a stream of new and old images. It speaks DynamoDB's protocol on
/// plain connections: the SDK's client is a large crate for the few calls of a test.
#[derive(Debug)]
pub struct Table {
    endpoint: String,
    name: String,
    arn: String,
    items: BTreeMap<String, Value>,
    changes: BTreeMap<String, Vec<Change>>,
}

impl Table {
    /// Creates a table with a unique name.
    pub async fn create(endpoint: &str, name: &str) -> Self {
        let name = unique(name);
        let mut table = Self {
            endpoint: endpoint.to_owned(),
            name,
            arn: String::new(),
            items: BTreeMap::new(),
            changes: BTreeMap::new(),
        };
        let created = table
            .call(
                "CreateTable",
                json!({
                    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                    "BillingMode": "PAY_PER_REQUEST",
                    "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
                }),
            )
            .await;
        table.arn = created["TableDescription"]["LatestStreamArn"].as_str().unwrap().to_owned();
        table
    }

    /// The emulator's address.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The stream's ARN.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// What was written, by item and in order.
    #[must_use]
    pub fn changes(&self) -> &BTreeMap<String, Vec<Change>> {
        &self.changes
    }

    /// How many changes the stream has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.changes.values().map(Vec::len).sum()
    }

    /// PutItem.
    pub async fn put(&mut self, item: Value) {
        self.call("PutItem", json!({"Item": item})).await;
        self.wrote(&id(&item), Some(item));
    }

    /// UpdateItem: sets attributes of an item, which need not exist.
    pub async fn update(&mut self, id: &str, attributes: Item) {
        let set: Vec<String> = (0..attributes.len()).map(|n| format!("#{n} = :{n}")).collect();
        let names: Item = attributes.keys().enumerate().map(|(n, k)| (format!("#{n}"), json!(k))).collect();
        let values: Item =
            attributes.values().enumerate().map(|(n, v)| (format!(":{n}"), v.clone())).collect();
        let update = json!({
            "Key": key(id), "UpdateExpression": format!("SET {}", set.join(", ")),
            "ExpressionAttributeNames": names, "ExpressionAttributeValues": values,
        });
        self.call("UpdateItem", update).await;
        let mut item = self.items.get(id).cloned().unwrap_or_else(|| key(id));
        item.as_object_mut().unwrap().extend(attributes);
        self.wrote(id, Some(item));
    }

    /// DeleteItem.
    pub async fn delete(&mut self, id: &str) {
        self.call("DeleteItem", json!({"Key": key(id)})).await;
        self.wrote(id, None);
    }

    /// TransactWriteItems: puts some items and deletes others, all or nothing.
    pub async fn transact(&mut self, puts: Vec<Value>, deletes: &[&str]) {
        let put = |item: &Value| json!({"Put": {"TableName": self.name, "Item": item}});
        let delete = |id: &&str| json!({"Delete": {"TableName": self.name, "Key": key(id)}});
        let items: Vec<Value> = puts.iter().map(put).chain(deletes.iter().map(delete)).collect();
        self.call("TransactWriteItems", json!({"TransactItems": items})).await;
        for item in puts {
            self.wrote(&id(&item), Some(item));
        }
        for id in deletes {
            self.wrote(id, None);
        }
    }

    /// BatchWriteItem: puts some items and deletes others, at most 25, each on its own.
    ///
    /// # Panics
    /// The emulator leaves some undone.
    pub async fn batch(&mut self, puts: Vec<Value>, deletes: &[&str]) {
        let put = |item: &Value| json!({"PutRequest": {"Item": item}});
        let delete = |id: &&str| json!({"DeleteRequest": {"Key": key(id)}});
        let items: Vec<Value> = puts.iter().map(put).chain(deletes.iter().map(delete)).collect();
        let done = self.call("BatchWriteItem", json!({"RequestItems": {self.name.as_str(): items}})).await;
        assert_eq!(done["UnprocessedItems"], json!({}));
        for item in puts {
            self.wrote(&id(&item), Some(item));
        }
        for id in deletes {
            self.wrote(id, None);
        }
    }

    /// DeleteTable.
    pub async fn drop_table(&self) {
        self.call("DeleteTable", json!({})).await;
    }

    fn wrote(&mut self, id: &str, new: Option<Value>) {
        let old = self.items.remove(id);
        let event_name = match (&old, &new) {
            (None, Some(_)) => "INSERT",
            (Some(old), Some(new)) if old != new => "MODIFY",
            (Some(_), None) => "REMOVE",
            _ => return,
        };
        if let Some(new) = &new {
            self.items.insert(id.to_owned(), new.clone());
        }
        self.changes.entry(id.to_owned()).or_default().push(Change { event_name, old, new });
    }

    /// One call about this table.
    ///
    /// # Panics
    /// The emulator refuses it.
    pub async fn call(&self, operation: &str, mut body: Value) -> Value {
        if !["TransactWriteItems", "BatchWriteItem"].contains(&operation) {
            body["TableName"] = json!(self.name);
        }
        dynamodb(&self.endpoint, operation, &body).await
    }
}

/// One call of a DynamoDB emulator.
///
/// # Panics
/// The emulator refuses it.
pub async fn dynamodb(endpoint: &str, operation: &str, body: &Value) -> Value {
    let body = body.to_string();
    let address = endpoint.strip_prefix("http://").unwrap();
    // The emulator wants a signature to be there, and does not verify it.
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/x-amz-json-1.0\r\nx-amz-target: DynamoDB_20120810.{operation}\r\n\
         x-amz-date: 20260101T000000Z\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
    serde_json::from_str(body).unwrap()
}

fn key(id: &str) -> Value {
    json!({"id": {"S": id}})
}

fn id(item: &Value) -> String {
    item["id"]["S"].as_str().unwrap().to_owned()
}
