//! CBOR as Kinesis speaks it next to JSON: bytes as they are, times in milliseconds (docs/adr/0034).

mod read;
mod write;

pub use write::Form;

use serde_json::Value;

/// The member whose value is bytes; JSON has them as base64.
const DATA: &str = "Data";
/// The members whose value is a time; JSON has it in seconds.
const TIMES: [&str; 2] = ["ApproximateArrivalTimestamp", "StreamCreationTimestamp"];

/// A value that has both encodings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Item {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes, in JSON their base64.
    Data(Vec<u8>),
    /// Milliseconds since the epoch, in JSON seconds with a fraction.
    Time(i64),
    /// A list.
    Array(Vec<Self>),
    /// Members in their order; a name may be there twice.
    Map(Vec<(String, Self)>),
}

impl Item {
    /// What the JSON of a Kinesis answer stands for.
    #[must_use]
    pub fn from_json(json: &Value) -> Self {
        match json {
            Value::Null => Self::Null,
            Value::Bool(is) => Self::Boolean(*is),
            Value::Number(number) => match number.as_i64() {
                Some(number) => Self::Integer(number),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::from_json).collect()),
            Value::Object(members) => Self::Map(
                members.iter().map(|(name, value)| (name.clone(), Self::member(name, value))).collect(),
            ),
        }
    }

    fn member(name: &str, json: &Value) -> Self {
        let special = match (name, json) {
            (DATA, Value::String(text)) => base64_simd::STANDARD.decode_to_vec(text).ok().map(Self::Data),
            (name, Value::Number(seconds)) if TIMES.contains(&name) => seconds.as_f64().map(Self::time),
            _ => None,
        };
        special.unwrap_or_else(|| Self::from_json(json))
    }

    fn time(seconds: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "times are far below")]
        let millis = (seconds * 1000.0).round() as i64;
        Self::Time(millis)
    }

    /// The value as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.push_json(&mut out);
        out
    }

    fn push_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Text(text) => push_text(out, text),
            Self::Data(data) => push_text(out, &base64_simd::STANDARD.encode_to_string(data)),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    item.push_json(out);
                }
                out.push(']');
            }
            Self::Map(members) => {
                out.push('{');
                for (at, (name, item)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    push_text(out, name);
                    out.push(':');
                    item.push_json(out);
                }
                out.push('}');
            }
            Self::Boolean(is) => out.push_str(if *is { "true" } else { "false" }),
            Self::Integer(number) => out.push_str(&number.to_string()),
            Self::Float(number) => out.push_str(&format!("{number:?}")),
            Self::Time(millis) => {
                let sign = if *millis < 0 { "-" } else { "" };
                let millis = millis.unsigned_abs();
                out.push_str(&format!("{sign}{}.{:03}", millis / 1000, millis % 1000));
            }
        }
    }

    /// What CBOR stands for; `None` if it is malformed, or has what no item is.
    #[must_use]
    pub fn from_cbor(cbor: &[u8]) -> Option<Self> {
        read::whole(cbor)
    }

    /// The value as CBOR, as Kinesis writes it.
    #[must_use]
    pub fn to_cbor(&self) -> Vec<u8> {
        self.to_cbor_as(&mut |_| 0)
    }

    /// The value as CBOR in any of its forms: `choose` picks one of so many, and zero is Kinesis' own.
    #[must_use]
    pub fn to_cbor_as(&self, choose: &mut dyn FnMut(Form) -> u8) -> Vec<u8> {
        let mut out = Vec::new();
        write::push(self, &mut out, choose);
        out
    }
}

fn push_text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_the_same_in_both_encodings_and_in_every_form() {
        let json = json!({"Records": [{"Data": "eHg=", "SequenceNumber": "49", "PartitionKey": "a\"b\u{e9}",
            "ApproximateArrivalTimestamp": 1_790_000_000.123, "StreamCreationTimestamp": 1_790_000_000.5, "New": [true, -5, 1.5, null, 70000]}], "Data": "no base64"});
        let item = Item::from_json(&json);
        assert_eq!(serde_json::from_str::<Value>(&item.to_json()).unwrap(), json);
        for form in 0..8 {
            let cbor = item.to_cbor_as(&mut |of| form % of.count());
            assert_eq!(Item::from_cbor(&cbor), Some(item.clone()), "form {form}: {cbor:x?}");
            for end in 0..cbor.len() {
                assert_eq!(Item::from_cbor(&cbor[..end]), None, "cut after {end}");
            }
        }
    }

    #[test]
    fn cbor_is_as_the_standard_has_it() {
        let map = |value| Item::Map(vec![("a".to_owned(), value)]);
        assert_eq!(map(Item::Data(b"xx".to_vec())).to_cbor(), b"\xbf\x61a\x42xx\xff");
        assert_eq!(map(Item::Integer(-500)).to_cbor(), b"\xbf\x61a\x39\x01\xf3\xff");
        let time = b"\xbf\x61a\xc1\x1b\x00\x00\x01\xa0\xc4\x57\xcc\x7b\xff";
        let expected = i64::from_be_bytes([0, 0, 1, 0xa0, 0xc4, 0x57, 0xcc, 0x7b]);
        assert_eq!(map(Item::Time(expected)).to_cbor(), time);
    }
}
