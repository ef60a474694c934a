//! CBOR as the JSON that the service would have sent instead.

use super::walk::{ARRAY, BYTES, DEEPEST, MAP, NEGATIVE, Simple, TEXT, UNSIGNED, Walk};
use super::{TIME, is_cbor, time_of_float, time_of_integer};
use crate::json::{push_escaped, push_seconds};

/// The member that is a time with or without a tag.
const ARRIVAL: &str = "ApproximateArrivalTimestamp";

/// A body in CBOR as JSON: bytes as base64, times as seconds, tags left out. `None` if it is no map in CBOR, or malformed,
/// or nests deeper than 32 levels.
#[must_use]
pub fn cbor_to_json(body: &[u8]) -> Option<Vec<u8>> {
    if !is_cbor(body) {
        return None;
    }
    let mut walk = Walk::new(body);
    let mut out = Vec::with_capacity(body.len());
    value(&mut walk, &mut out, false, DEEPEST)?;
    walk.end()?;
    Some(out)
}

fn value(walk: &mut Walk<'_>, out: &mut Vec<u8>, is_time: bool, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    let is_time = walk.untag()? == Some(TIME) || is_time;
    match walk.major()? {
        UNSIGNED | NEGATIVE => {
            let number = walk.integer()?;
            match i64::try_from(number).ok().and_then(time_of_integer).filter(|_| is_time) {
                Some(time) => push_seconds(out, time),
                None => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            }
        }
        BYTES => {
            let data = walk.data()?;
            out.push(b'"');
            base64_simd::STANDARD.encode_append(&*data, out);
            out.push(b'"');
        }
        TEXT => push_text(out, &walk.text()?),
        ARRAY => {
            out.push(b'[');
            walk.array(|walk| {
                separate(out, b'[');
                value(walk, out, false, depth)
            })?;
            out.push(b']');
        }
        MAP => {
            out.push(b'{');
            walk.map(|walk, name| {
                separate(out, b'{');
                push_text(out, &name);
                out.push(b':');
                value(walk, out, name == ARRIVAL, depth)
            })?;
            out.push(b'}');
        }
        _ => match walk.simple()? {
            Simple::Null => out.extend_from_slice(b"null"),
            Simple::Boolean(is) => out.extend_from_slice(if is { b"true" } else { b"false" }),
            Simple::Float(number) => match time_of_float(number).filter(|_| is_time) {
                Some(time) => push_seconds(out, time),
                None => push_float(out, number),
            },
        },
    }
    Some(())
}

/// A comma, unless the first part of a value follows. What a value ends with is never what another begins with.
fn separate(out: &mut Vec<u8>, open: u8) {
    if out.last() != Some(&open) {
        out.push(b',');
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// JSON has no word for what is no number: AWS's has these texts.
fn push_float(out: &mut Vec<u8>, number: f64) {
    let text = match number {
        _ if number.is_nan() => "\"NaN\"".to_owned(),
        f64::INFINITY => "\"Infinity\"".to_owned(),
        f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        _ => format!("{number:?}"),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> Option<String> {
        cbor_to_json(bytes).map(|json| String::from_utf8(json).unwrap())
    }

    #[test]
    fn an_error_is_written_as_the_service_writes_it_in_json() {
        let error = b"\xa2\x66__type\x78\x18ExpiredIteratorException\x67message\x6ait's \"old\"";
        let expected = r#"{"__type":"ExpiredIteratorException","message":"it's \"old\""}"#;
        assert_eq!(json(error).as_deref(), Some(expected));
    }

    #[test]
    fn every_kind_of_value_has_its_json() {
        for (value, expected) in [
            (&b"\x01"[..], "1"),
            (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "-18446744073709551616"),
            (b"\x42xx", "\"eHg=\""),
            (b"\x5f\x41x\x41x\xff", "\"eHg=\""),
            (b"\x7f\x61a\x61b\xff", "\"ab\""),
            (b"\x83\x80\xa0\xf6", "[[],{},null]"),
            (b"\x9f\xf4\xf5\xf7\xff", "[false,true,null]"),
            (b"\xbf\x61a\x01\x61b\x02\xff", r#"{"a":1,"b":2}"#),
            (b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00", "1.5"),
            (b"\xf9\x7e\x00", "\"NaN\""),
            (b"\xc1\x1b\x00\x00\x01\xa0\xc4\x50\x6c\x7b", "1790000000.123"),
            (b"\x1b\x00\x00\x01\xa0\xc4\x50\x6c\x7b", "1790000000123"),
            (b"\xc1\x1a\x6a\xb1\x3b\x80", "1790000000.0"),
            (b"\xc2\x41\x01", "\"AQ==\""),
        ] {
            let whole = [b"\xa1\x61v", value].concat();
            assert_eq!(json(&whole), Some(format!("{{\"v\":{expected}}}")), "{}", value.escape_ascii());
        }
        let arrival = b"\xa1\x78\x1bApproximateArrivalTimestamp\x1b\x00\x00\x01\xa0\xc4\x50\x6c\x7b";
        assert_eq!(json(arrival).as_deref(), Some("{\"ApproximateArrivalTimestamp\":1790000000.123}"));
    }

    #[test]
    fn what_is_no_map_in_cbor_has_no_json() {
        for wrong in
            [&b""[..], b"{}", b"\x81\x01", b"\xa1\x01\x01", b"\xa1\x61a", b"\xa0\x00", b"\xa1\x61a\xf8\x20"]
        {
            assert_eq!(json(wrong), None, "{}", wrong.escape_ascii());
        }
        let deep = |levels| [b"\xa1\x61a".repeat(levels), b"\x01".to_vec()].concat();
        assert!(json(&deep(31)).is_some() && json(&deep(32)).is_none(), "nesting is bounded");
    }
}
