//! The table of the demo with a DynamoDB stream: it speaks the protocol on plain connections, because the SDK's client
//! for tables is a large crate for three calls.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::DemoError;
use super::verdict::Accepted;

const TABLES: &str = "DynamoDB_20120810";
const STREAMS: &str = "DynamoDBStreams_20120810";
/// Pages that are read for all changes; some may be empty.
const PAGES: usize = 100;

/// A table of DynamoDB Local with the key attribute `id`, a text, and a stream of one shard.
pub(super) struct Table {
    /// Host and port.
    address: String,
    name: String,
    pub(super) arn: String,
}

impl Table {
    pub(super) async fn create(endpoint: &str, name: &str) -> Result<Self, DemoError> {
        let failed = |reason: String| DemoError::new("create the table", reason);
        let address = endpoint.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let address =
            address.filter(|address| !address.is_empty() && !address.contains('/')).ok_or_else(|| {
                failed(format!("{endpoint} is no address of DynamoDB Local; write http://HOST:PORT"))
            })?;
        let mut table = Self { address: address.to_owned(), name: name.to_owned(), arn: String::new() };
        let body = json!({
            "TableName": name,
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        });
        let created = table.call(TABLES, "CreateTable", &body).await.map_err(failed)?;
        let arn = created["TableDescription"]["LatestStreamArn"].as_str();
        table.arn = arn.ok_or_else(|| failed("it has no stream".to_owned()))?.to_owned();
        // DynamoDB itself would be another's table.
        if !table.arn.contains(":ddblocal:") {
            table.delete().await?;
            return Err(failed(format!("{endpoint} is not DynamoDB Local")));
        }
        Ok(table)
    }

    pub(super) async fn put(&self, item: &Value) -> Result<(), DemoError> {
        let body = json!({"TableName": self.name, "Item": item});
        let put = self.call(TABLES, "PutItem", &body).await;
        put.map(drop).map_err(|reason| DemoError::new("put an item", reason))
    }

    pub(super) async fn delete(&self) -> Result<(), DemoError> {
        let deleted = self.call(TABLES, "DeleteTable", &json!({"TableName": self.name})).await;
        deleted.map(drop).map_err(|reason| DemoError::new("delete the table", reason))
    }

    /// Gives the accepted changes the sequence numbers that the stream gave them: PutItem does not return them. Each
    /// must be there once, with its item.
    pub(super) async fn number(&self, accepted: &mut [Accepted]) -> Result<(), DemoError> {
        let failed = |reason: String| DemoError::new("read the stream", reason);
        let mut seen = 0;
        let stream = json!({"StreamArn": self.arn});
        let described = self.call(STREAMS, "DescribeStream", &stream).await.map_err(failed)?;
        let shard = &described["StreamDescription"]["Shards"][0]["ShardId"];
        let at = json!({"StreamArn": self.arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
        let opened = self.call(STREAMS, "GetShardIterator", &at).await.map_err(failed)?;
        let mut iterator = opened["ShardIterator"].clone();
        for _ in 0..PAGES {
            let page = self
                .call(STREAMS, "GetRecords", &json!({"ShardIterator": iterator}))
                .await
                .map_err(failed)?;
            for record in page["Records"].as_array().into_iter().flatten() {
                let change = &record["dynamodb"];
                let image = change["NewImage"].to_string();
                let place = accepted.get_mut(seen).filter(|a| a.data == image);
                let place =
                    place.ok_or_else(|| failed(format!("change {} is not what was put", seen + 1)))?;
                place.sequence_number = change["SequenceNumber"].as_str().unwrap_or_default().to_owned();
                seen += 1;
            }
            if seen == accepted.len() {
                return Ok(());
            }
            iterator = page["NextShardIterator"].clone();
        }
        Err(failed(format!("it has {seen} of {} changes", accepted.len())))
    }

    async fn call(&self, service: &str, operation: &str, body: &Value) -> Result<Value, String> {
        let (address, body) = (&self.address, body.to_string());
        // The emulator wants a signature to be there, and does not verify it.
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\
             content-type: application/x-amz-json-1.0\r\nx-amz-target: {service}.{operation}\r\n\
             x-amz-date: 20260101T000000Z\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential=demo/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
            body.len()
        );
        let mut answer = Vec::new();
        let exchange = async {
            let mut socket = TcpStream::connect(address).await?;
            socket.write_all(request.as_bytes()).await?;
            socket.read_to_end(&mut answer).await
        };
        exchange.await.map_err(|error| format!("{operation} at {address}: {error}"))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{operation}: no answer"))?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{operation}: {body}"));
        }
        serde_json::from_str(body).map_err(|error| format!("{operation}: {error}"))
    }
}
