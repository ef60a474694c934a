//! Reading a record's content.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{DynamoDbRecord, InvalidBase64, Payload, Record};

/// Why a record cannot be read as asked. Its text quotes nothing of the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A change from a DynamoDB stream has no bytes that a producer put.
    #[error(
        "a change from a DynamoDB stream has no bytes; read its images with Record::change(), or all of it with json()"
    )]
    NoBytes,
    /// The data arrived as text that is not base64.
    #[error(transparent)]
    InvalidBase64(#[from] InvalidBase64),
    /// The data is not JSON, or not the JSON of the type that was asked for.
    #[error(transparent)]
    Json(#[from] JsonError),
}

impl RecordError {
    /// The JSON parser's message, which may quote the record. `None` if it was not asked.
    #[must_use]
    pub fn details(&self) -> Option<&str> {
        match self {
            Self::Json(error) => Some(error.details()),
            _ => None,
        }
    }
}

/// A record's JSON that cannot be read. Its text and its `Debug` name the place; the parser's message may quote the
/// record and is in [`details`](Self::details).
#[derive(Clone, PartialEq, Eq)]
pub struct JsonError {
    line: usize,
    column: usize,
    details: Box<str>,
}

impl JsonError {
    /// The line of the mistake, counted from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }

    /// The column of the mistake, counted from 1; 0 at the beginning of a line.
    #[must_use]
    pub const fn column(&self) -> usize {
        self.column
    }

    /// The parser's message; may quote the record.
    #[must_use]
    pub fn details(&self) -> &str {
        &self.details
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self { line: error.line(), column: error.column(), details: error.to_string().into() }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, .. } = self;
        write!(f, "the record's JSON cannot be read as the expected type (line {line}, column {column})")
    }
}

impl fmt::Debug for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for JsonError {}

impl Record {
    /// The bytes that the producer put into a Kinesis stream. Copies only if they arrived as base64.
    ///
    /// # Errors
    /// [`RecordError::NoBytes`] for a change from a DynamoDB stream, [`RecordError::InvalidBase64`] if the bytes arrived as
    /// text that is not base64.
    pub fn bytes(&self) -> Result<Bytes, RecordError> {
        Ok(self.data().ok_or(RecordError::NoBytes)?.bytes()?)
    }

    /// The record as JSON: the data of a Kinesis record; a change from a DynamoDB stream as
    /// [`DynamoDbRecord::json`] shows it.
    ///
    /// # Errors
    /// The data is not JSON, or not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, RecordError> {
        match &self.payload {
            Payload::Kinesis { data, .. } => {
                serde_json::from_slice(&data.bytes()?).map_err(|error| JsonError::from(error).into())
            }
            Payload::DynamoDb(change) => change.json(),
        }
    }

    /// The change that a record of a DynamoDB stream tells of. `None` for a Kinesis record.
    #[must_use]
    pub const fn change(&self) -> Option<&DynamoDbRecord> {
        match &self.payload {
            Payload::DynamoDb(change) => Some(change),
            Payload::Kinesis { .. } => None,
        }
    }
}

/// The members of a change that are read one by one.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    dynamodb: Option<Images<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images<'a> {
    #[serde(borrow)]
    keys: Option<&'a RawValue>,
    #[serde(borrow)]
    new_image: Option<&'a RawValue>,
    #[serde(borrow)]
    old_image: Option<&'a RawValue>,
}

/// Attributes come in DynamoDB's own JSON, as a Lambda function gets them: `{"id": {"S": "a"}, "total": {"N": "3"}}`.
/// Each call parses the record's text again.
impl DynamoDbRecord {
    /// What happened to the item: `INSERT`, `MODIFY` or `REMOVE`. `None` if the service did not say.
    #[must_use]
    pub fn event_name(&self) -> Option<&str> {
        // Inside a text the quotes would be escaped, and an attribute of this name has an object as its value.
        const NAME: &[u8] = br#""eventName":""#;
        let start = memchr::memmem::find(&self.json, NAME)? + NAME.len();
        let text = self.json.get(start..)?;
        std::str::from_utf8(text.get(..memchr::memchr(b'"', text)?)?).ok()
    }

    /// The item's primary key. `None` if the record lacks it.
    #[must_use]
    pub fn keys(&self) -> Option<Value> {
        self.image(|images| images.keys)
    }

    /// The item after the change. `None` if it was removed, or if the stream's view type leaves it out.
    #[must_use]
    pub fn new_image(&self) -> Option<Value> {
        self.image(|images| images.new_image)
    }

    /// The item before the change. `None` if it was inserted, or if the stream's view type leaves it out.
    #[must_use]
    pub fn old_image(&self) -> Option<Value> {
        self.image(|images| images.old_image)
    }

    /// The whole record as a Lambda event shows it, without `eventSourceARN`: `eventName`, `dynamodb.NewImage` and so on.
    ///
    /// # Errors
    /// [`RecordError::Json`] if it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, RecordError> {
        serde_json::from_slice(&self.text()).map_err(|error| JsonError::from(error).into())
    }

    fn image(&self, choose: impl FnOnce(Images<'_>) -> Option<&RawValue>) -> Option<Value> {
        let text = self.text();
        let members: Members<'_> = serde_json::from_slice(&text).ok()?;
        serde_json::from_str(choose(members.dynamodb?)?.get()).ok()
    }

    /// The record's JSON with its end.
    fn text(&self) -> Vec<u8> {
        [&self.json, &b"}"[..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::position::Seq;
    use crate::record::{Batch, Data};

    fn change(value: Value) -> Record {
        Batch::changes_for_test([value]).first().unwrap().clone()
    }

    #[test]
    fn json_of_a_kinesis_record_is_its_data_however_it_arrived() {
        let raw = Record::for_test("1", r#"{"order":7}"#);
        assert_eq!(raw.json::<Value>().unwrap()["order"], 7);
        let base64 = Data::Base64(Bytes::from_static(b"eyJvcmRlciI6N30="));
        let sent = Record::new(Seq::plain("1"), None, None, base64);
        assert_eq!(sent.json::<Value>().unwrap(), raw.json::<Value>().unwrap());
        assert_eq!(sent.bytes().unwrap(), raw.bytes().unwrap());
        let broken = Record::new(Seq::plain("1"), None, None, Data::Base64(Bytes::from_static(b"?")));
        assert_eq!(broken.json::<Value>(), Err(RecordError::InvalidBase64(InvalidBase64)));
    }

    #[test]
    fn an_error_names_the_place_and_quotes_the_record_in_its_details_alone() {
        let error = Record::for_test("1", r#"{"total":"secret"}"#);
        let error = error.json::<std::collections::BTreeMap<String, u64>>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert!(error.details().unwrap().contains("secret"));
        let RecordError::Json(json) = &error else { panic!("{error:?}") };
        assert_eq!((json.line(), json.column()), (1, 17));
        assert_eq!(RecordError::NoBytes.details(), None);
    }

    #[test]
    fn a_change_shows_its_name_keys_and_images() {
        let record =
            change(json!({"eventID": "1", "eventName": "MODIFY", "eventSourceARN": "arn", "dynamodb": {
                "Keys": {"id": {"S": "a"}},
                "NewImage": {"id": {"S": "a"}, "eventName": {"S": "\"eventName\":\"x\""}},
                "OldImage": {"id": {"S": "a"}, "n": {"N": "1"}},
            }}));
        let change = record.change().unwrap();
        assert_eq!(change.event_name(), Some("MODIFY"));
        assert_eq!(change.keys().unwrap(), json!({"id": {"S": "a"}}));
        assert_eq!(change.key(), br#"{"id":{"S":"a"}}"#);
        assert_eq!(change.new_image().unwrap()["eventName"]["S"], "\"eventName\":\"x\"");
        assert_eq!(change.old_image().unwrap()["n"]["N"], "1");
        let whole: Value = record.json().unwrap();
        assert_eq!((&whole["eventID"], &whole["eventSourceARN"]), (&json!("1"), &Value::Null));
        assert_eq!(record.bytes(), Err(RecordError::NoBytes));
    }

    #[test]
    fn what_a_change_lacks_is_none_and_not_empty() {
        let record = change(json!({"dynamodb": {"NewImage": {"eventName": {"S": "x"}}}}));
        let change = record.change().unwrap();
        assert_eq!((change.event_name(), change.keys(), change.old_image()), (None, None, None));
        assert!(change.new_image().is_some());
        let record = super::tests::change(json!("no record at all"));
        assert_eq!(record.change().unwrap().new_image(), None);
        assert_eq!(Record::for_test("1", "").change(), None);
    }
}
