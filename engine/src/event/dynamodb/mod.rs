//! A DynamoDB stream record as the event shows it, encoded once and straight from the reader's own types
//! (docs/semantics.md, section 3.2).

use std::collections::HashMap;
use std::slice;
use std::vec;

use bytes::Bytes;

use crate::json::push_escaped;
use crate::json::push_seconds;
use crate::record::DynamoDbRecord;
use crate::time::Wall;

/// Attributes nest 32 levels deep in DynamoDB. Each level is two levels of JSON, and here parsers, serde_json among
/// them, still read the event.
const DEEPEST: usize = 60;

/// How to look into attribute values of a type that this crate does not know, such as the AWS SDK's.
pub trait AttributeModel {
    /// An attribute's value.
    type Value: 'static;
    /// The bytes of a binary value.
    type Binary: AsRef<[u8]> + 'static;

    /// What `value` is; `None` if this version does not know its type.
    fn read(value: &Self::Value) -> Option<AttributeRef<'_, Self>>;
}

/// The attributes of an item or of a map, by name.
pub type Attributes<M> = HashMap<String, <M as AttributeModel>::Value>;

/// A view of one attribute value, under DynamoDB's own type names.
pub enum AttributeRef<'a, M: AttributeModel + ?Sized> {
    /// A text.
    S(&'a str),
    /// A number as decimal text.
    N(&'a str),
    /// Bytes.
    B(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// Null, written as `true`.
    Null(bool),
    /// A map.
    M(&'a HashMap<String, M::Value>),
    /// A list.
    L(&'a [M::Value]),
    /// A set of texts.
    Ss(&'a [String]),
    /// A set of numbers.
    Ns(&'a [String]),
    /// A set of byte strings.
    Bs(&'a [M::Binary]),
}

/// The content of a stream record. A field that is `None` is left out of the event, as Lambda does.
pub struct DynamoDbFields<'a, M: AttributeModel> {
    /// 32 hexadecimal digits.
    pub event_id: Option<&'a str>,
    /// `INSERT`, `MODIFY` or `REMOVE`.
    pub event_name: Option<&'a str>,
    /// `1.1`.
    pub event_version: Option<&'a str>,
    /// `aws:dynamodb`.
    pub event_source: Option<&'a str>,
    /// The table's region.
    pub aws_region: Option<&'a str>,
    /// When the item changed; the service knows it to the second.
    pub approximate_creation: Option<Wall>,
    /// The item's primary key.
    pub keys: Option<&'a Attributes<M>>,
    /// The item after the change.
    pub new_image: Option<&'a Attributes<M>>,
    /// The item before the change.
    pub old_image: Option<&'a Attributes<M>>,
    /// The record's sequence number.
    pub sequence_number: &'a str,
    /// What the service counts the record as.
    pub size_bytes: Option<i64>,
    /// Which images the stream has.
    pub stream_view_type: Option<&'a str>,
    /// Who changed the item, if that was not a user: DynamoDB itself deletes what has expired.
    pub user_identity: Option<UserIdentity<'a>>,
}

/// Who changed an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIdentity<'a> {
    /// `Service`.
    pub kind: Option<&'a str>,
    /// `dynamodb.amazonaws.com`.
    pub principal_id: Option<&'a str>,
}

/// A stream record that cannot be written as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidItem {
    /// An attribute of a type that this version does not know.
    #[error("an attribute has a type that this version does not know; a newer version may")]
    UnknownType,
    /// Attributes nest deeper than DynamoDB permits.
    #[error("attributes nest deeper than {DEEPEST} levels; DynamoDB permits 32")]
    TooDeep,
}

/// Encodes stream records one after the other; keeps its buffer, so a record costs one allocation of exactly its size.
#[derive(Debug, Default)]
pub struct DynamoDbEncoder {
    out: Vec<u8>,
}

impl DynamoDbEncoder {
    /// The record as the event shows it. Attributes come in the order of their names regardless of the order in which
    /// they arrived, so that the same record is always the same text.
    ///
    /// # Errors
    /// [`InvalidItem`].
    pub fn encode<M: AttributeModel>(
        &mut self,
        fields: &DynamoDbFields<'_, M>,
    ) -> Result<DynamoDbRecord, InvalidItem> {
        self.out.clear();
        let mut object = Object::open(&mut self.out);
        object.text("eventID", fields.event_id);
        object.text("eventName", fields.event_name);
        object.text("eventVersion", fields.event_version);
        object.text("eventSource", fields.event_source);
        object.text("awsRegion", fields.aws_region);
        object.name("dynamodb");
        let key = change(object.out, fields)?;
        if let Some(identity) = &fields.user_identity {
            object.name("userIdentity");
            let mut identity_object = Object::open(object.out);
            identity_object.text("type", identity.kind);
            identity_object.text("principalId", identity.principal_id);
            identity_object.close();
        }
        Ok(DynamoDbRecord { json: Bytes::copy_from_slice(&self.out), key })
    }
}

/// The `dynamodb` object; where in the text the value of `Keys` is.
fn change<M: AttributeModel>(
    out: &mut Vec<u8>,
    fields: &DynamoDbFields<'_, M>,
) -> Result<std::ops::Range<usize>, InvalidItem> {
    let mut object = Object::open(out);
    if let Some(at) = fields.approximate_creation {
        object.name("ApproximateCreationDateTime");
        push_seconds(object.out, at);
    }
    let mut key = 0..0;
    if let Some(keys) = fields.keys {
        object.name("Keys");
        let start = object.out.len();
        push_item::<M>(object.out, keys)?;
        key = start..object.out.len();
    }
    for (name, image) in [("NewImage", fields.new_image), ("OldImage", fields.old_image)] {
        if let Some(image) = image {
            object.name(name);
            push_item::<M>(object.out, image)?;
        }
    }
    object.text("SequenceNumber", Some(fields.sequence_number));
    if let Some(size) = fields.size_bytes {
        object.name("SizeBytes");
        object.out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
    }
    object.text("StreamViewType", fields.stream_view_type);
    object.close();
    Ok(key)
}

/// A JSON object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// A member's name; its value is to follow.
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        push_text(self.out, name);
        self.out.push(b':');
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            push_text(self.out, value);
        }
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

fn push_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    base64_simd::STANDARD.encode_append(bytes, out);
    out.push(b'"');
}

/// The rest of a map or a list that is being written. Nesting is kept here and not on the call stack.
enum Rest<'a, V> {
    Map { entries: vec::IntoIter<(&'a str, &'a V)>, is_first: bool, is_item: bool },
    List { values: slice::Iter<'a, V>, is_first: bool },
}

/// The attributes of an item: `{"name":{"S":"text"},…}`.
fn push_item<M: AttributeModel>(out: &mut Vec<u8>, item: &Attributes<M>) -> Result<(), InvalidItem> {
    let mut open = Vec::new();
    open.push(map::<M>(out, item, true));
    while let Some(rest) = open.last_mut() {
        let value = match rest {
            Rest::Map { entries, is_first, .. } => entries.next().map(|(name, value)| {
                comma(out, is_first);
                push_text(out, name);
                out.push(b':');
                value
            }),
            Rest::List { values, is_first } => values.next().inspect(|_| comma(out, is_first)),
        };
        match value {
            Some(value) => {
                if let Some(nested) = push_value::<M>(out, value)? {
                    if open.len() == DEEPEST {
                        return Err(InvalidItem::TooDeep);
                    }
                    open.push(nested);
                }
            }
            None => out.extend_from_slice(match open.pop() {
                Some(Rest::Map { is_item: false, .. }) => b"}}",
                Some(Rest::List { .. }) => b"]}",
                _ => b"}",
            }),
        }
    }
    Ok(())
}

fn comma(out: &mut Vec<u8>, is_first: &mut bool) {
    if !std::mem::take(is_first) {
        out.push(b',');
    }
}

fn map<'a, M: AttributeModel>(
    out: &mut Vec<u8>,
    attributes: &'a Attributes<M>,
    is_item: bool,
) -> Rest<'a, M::Value> {
    out.push(b'{');
    let mut entries: Vec<(&str, &M::Value)> = attributes.iter().map(|(k, v)| (k.as_str(), v)).collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    Rest::Map { entries: entries.into_iter(), is_first: true, is_item }
}

/// Writes `{"S":"text"}`; of a map or a list only the opening, and returns the rest.
fn push_value<'a, M: AttributeModel>(
    out: &mut Vec<u8>,
    value: &'a M::Value,
) -> Result<Option<Rest<'a, M::Value>>, InvalidItem> {
    match M::read(value).ok_or(InvalidItem::UnknownType)? {
        AttributeRef::S(text) => {
            out.extend_from_slice(br#"{"S":"#);
            push_text(out, text);
        }
        AttributeRef::N(number) => {
            out.extend_from_slice(br#"{"N":"#);
            push_text(out, number);
        }
        AttributeRef::B(bytes) => {
            out.extend_from_slice(br#"{"B":"#);
            push_binary(out, bytes);
        }
        AttributeRef::Bool(is) => {
            out.extend_from_slice(if is { br#"{"BOOL":true"# } else { br#"{"BOOL":false"# });
        }
        AttributeRef::Null(is) => {
            out.extend_from_slice(if is { br#"{"NULL":true"# } else { br#"{"NULL":false"# });
        }
        AttributeRef::Ss(texts) => push_set(out, br#"{"SS":["#, texts, |out, text| push_text(out, text)),
        AttributeRef::Ns(texts) => push_set(out, br#"{"NS":["#, texts, |out, text| push_text(out, text)),
        AttributeRef::Bs(all) => {
            push_set(out, br#"{"BS":["#, all, |out, bytes| push_binary(out, bytes.as_ref()));
        }
        AttributeRef::M(attributes) => {
            out.extend_from_slice(br#"{"M":"#);
            return Ok(Some(map::<M>(out, attributes, false)));
        }
        AttributeRef::L(values) => {
            out.extend_from_slice(br#"{"L":["#);
            return Ok(Some(Rest::List { values: values.iter(), is_first: true }));
        }
    }
    out.push(b'}');
    Ok(None)
}

fn push_set<T>(out: &mut Vec<u8>, open: &[u8], values: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
    out.extend_from_slice(open);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, value);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
