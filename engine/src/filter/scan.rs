//! Finding one's way through JSON text without building anything.
//!
//! All of this is exact on valid JSON. On anything else it ends, gives some answer and never panics: who needs to know
//! asks [`is_json`] as well. Nothing here recurses, however deep the text nests.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// Whether `bytes` are one JSON text in UTF-8 (RFC 8259).
pub(super) fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// The inside of a string as it is written in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawText<'a> {
    bytes: &'a [u8],
    escaped: bool,
}

impl<'a> RawText<'a> {
    /// Text without escapes.
    pub(super) const fn plain(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), escaped: false }
    }

    /// The string's bytes, its escapes resolved.
    pub(super) fn resolved(self) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(resolve(self.bytes)) } else { Cow::Borrowed(self.bytes) }
    }

    /// Whether this is the string `text`.
    pub(super) fn is(self, text: &[u8]) -> bool {
        if self.escaped { resolve(self.bytes) == text } else { self.bytes == text }
    }
}

/// One value that is neither array nor object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// A number's text.
    Number(&'a [u8]),
    Text(RawText<'a>),
}

/// Where the next thing after white space is.
fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The string whose opening quote is at `at`, and where the text continues behind it.
fn text_at(bytes: &[u8], at: usize) -> (RawText<'_>, usize) {
    let start = at + 1;
    let mut end = start;
    let mut escaped = false;
    loop {
        match next_quote_or_backslash(bytes, end) {
            Some(found) if bytes[found] == b'"' => {
                return (RawText { bytes: &bytes[start..found], escaped }, found + 1);
            }
            Some(backslash) => {
                escaped = true;
                end = backslash + 2;
            }
            None => {
                let rest = bytes.get(start..).unwrap_or_default();
                return (RawText { bytes: rest, escaped }, bytes.len());
            }
        }
    }
}

fn next_quote_or_backslash(bytes: &[u8], from: usize) -> Option<usize> {
    // Keys and most values are shorter than a vector search takes to get going: eight bytes at a time.
    const SHORT: usize = 6;
    let rest = bytes.get(from..)?;
    let (chunks, _) = rest.as_chunks::<8>();
    for (index, chunk) in chunks.iter().take(SHORT).enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let found = bytes_equal(word, b'"') | bytes_equal(word, b'\\');
        if found != 0 {
            return Some(from + index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let done = chunks.len().min(SHORT) * 8;
    memchr2(b'"', b'\\', &rest[done..]).map(|found| from + done + found)
}

/// The high bit of every byte of `word` that is `byte`, exact up to the first one.
const fn bytes_equal(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let difference = word ^ (ONES * byte as u64);
    difference.wrapping_sub(ONES) & !difference & (ONES << 7)
}

/// Where the text continues behind the value at `at`.
fn skip_value(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => text_at(bytes, at).1,
        Some(b'{' | b'[') => skip_container(bytes, at),
        _ => scalar_end(bytes, at),
    }
}

/// Where the value of the member is whose key ends before `at`; `None` if no member's key ends there.
pub(super) fn member_value(bytes: &[u8], at: usize) -> Option<usize> {
    let colon = skip_space(bytes, at);
    (bytes.get(colon) == Some(&b':')).then(|| skip_space(bytes, colon + 1))
}

/// The scalar at `at`; `None` if something else is there.
pub(super) fn scalar_at(bytes: &[u8], at: usize) -> Option<Scalar<'_>> {
    match Elements::new(bytes, at).next() {
        Some(Element::Scalar(value)) => Some(value),
        _ => None,
    }
}

fn scalar_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t' | b':' | b'"');
    at + rest.iter().position(ends).unwrap_or(rest.len())
}

/// Counts brackets of both kinds together, which in valid JSON is enough.
fn skip_container(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = text_at(bytes, at).1;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// The members of an object, in their order. An object that the text leaves open ends where the text ends.
pub(super) struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    /// Of the object whose opening brace is at `at`.
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at + 1 }
    }
}

impl<'a> Iterator for Members<'a> {
    /// A key, and where its value begins.
    type Item = (RawText<'a>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.bytes;
        let mut at = skip_space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let (key, behind) = text_at(bytes, at);
        let value = member_value(bytes, behind)?;
        self.at = skip_value(bytes, value);
        Some((key, value))
    }
}

/// What a value is made of once its arrays are taken away, however deep they nest: `[1, [{}], []]` gives `1` and `{}`.
pub(super) struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
    /// An object that was given and is to be passed. The last one never is.
    passing: bool,
    depth: usize,
    done: bool,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Element<'a> {
    Scalar(Scalar<'a>),
    /// Where an object's opening brace is.
    Object(usize),
}

impl<'a> Elements<'a> {
    /// Of the value at `at`, or after white space there.
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, passing: false, depth: 0, done: false }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let bytes = self.bytes;
        while !self.done {
            if std::mem::take(&mut self.passing) {
                self.at = skip_container(bytes, self.at);
            }
            let at = skip_space(bytes, self.at);
            let Some(byte) = bytes.get(at) else { break };
            self.at = at + 1;
            let element = match byte {
                b'[' => {
                    self.depth += 1;
                    continue;
                }
                b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.done = self.depth == 0;
                    continue;
                }
                b',' if self.depth > 0 => continue,
                b'{' => {
                    self.at = at;
                    self.passing = true;
                    Element::Object(at)
                }
                b'"' => {
                    let (text, end) = text_at(bytes, at);
                    self.at = end;
                    Element::Scalar(Scalar::Text(text))
                }
                _ => {
                    let end = scalar_end(bytes, at);
                    // Advances by at least one byte in any case.
                    self.at = end.max(at + 1);
                    Element::Scalar(match &bytes[at..end] {
                        b"null" => Scalar::Null,
                        b"true" => Scalar::Bool(true),
                        b"false" => Scalar::Bool(false),
                        number => Scalar::Number(number),
                    })
                }
            };
            self.done = self.depth == 0;
            return Some(element);
        }
        None
    }
}

/// Resolves the escapes of a string. Half a surrogate pair, which is no character, becomes U+FFFD.
#[cold]
fn resolve(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = rest.get(at + 1..).unwrap_or_default();
        let Some((letter, behind)) = rest.split_first() else { break };
        rest = behind;
        match letter {
            b'u' => {
                let (character, behind) = unicode_escape(rest);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = behind;
            }
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            other => out.push(*other),
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The character of a `\u` escape from behind its `u`, and what follows it.
fn unicode_escape(rest: &[u8]) -> (char, &[u8]) {
    let Some((unit, behind)) = four_digits(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    if !(0xd800..0xdc00).contains(&unit) {
        return (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), behind);
    }
    let low =
        behind.strip_prefix(b"\\u").and_then(four_digits).filter(|(low, _)| (0xdc00..0xe000).contains(low));
    match low {
        Some((low, end)) => {
            let character = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            (char::from_u32(character).unwrap_or(char::REPLACEMENT_CHARACTER), end)
        }
        None => (char::REPLACEMENT_CHARACTER, behind),
    }
}

fn four_digits(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, behind) = rest.split_at_checked(4)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let unit = digits.iter().try_fold(0, |unit, byte| Some(unit * 16 + digit(byte)?))?;
    Some((unit, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn r58_escapes_are_compared_resolved() {
        for (raw, text) in [
            (r"caf\u00e9", "café"),
            (r"\ud83d\ude00!", "😀!"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"a\u0062c", "abc"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\ude00", "\u{fffd}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\u00", "\u{fffd}00"),
        ] {
            assert_eq!(String::from_utf8(resolve(raw.as_bytes())).unwrap(), text, "{raw}");
        }
    }

    #[test]
    fn nested_arrays_are_taken_away() {
        let shown = |json: &str| {
            let show = |element| match element {
                Element::Object(at) => format!("object at {at}"),
                Element::Scalar(Scalar::Number(text)) => String::from_utf8_lossy(text).into_owned(),
                Element::Scalar(other) => format!("{other:?}"),
            };
            Elements::new(json.as_bytes(), 0).map(show).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(shown("7,8"), "7");
        assert_eq!(shown("[ ]"), "");
        assert_eq!(
            shown("[[], [1, [2, {\"a\": [3]}]], null , true] , 9"),
            "1, 2, object at 13, Null, Bool(true)"
        );
        assert_eq!(shown("{\"a\": 1}, 2"), "object at 0");
        assert_eq!(shown(&"[".repeat(100_000)), "");
    }

    #[test]
    fn members_come_with_the_places_of_their_values() {
        let json = br#" { "a" : [1,{"b":2}] , "c\u0064":"}" ,"e":null}"#;
        let at = |(key, value): (RawText<'_>, usize)| {
            (String::from_utf8(key.resolved().into()).unwrap(), json[value])
        };
        let members: Vec<_> = Members::new(json, 1).map(at).collect();
        assert_eq!(members, [("a".to_owned(), b'['), ("cd".to_owned(), b'"'), ("e".to_owned(), b'n')]);
    }

    proptest! {
        #[test]
        fn strings_resolve_as_serde_json_reads_them(text: String) {
            let json = serde_json::to_vec(&text).unwrap();
            let Some(Element::Scalar(Scalar::Text(raw))) = Elements::new(&json, 0).next() else { panic!() };
            prop_assert!(raw.is(text.as_bytes()));
            prop_assert_eq!(raw.resolved(), text.as_bytes());
        }

        #[test]
        fn no_bytes_make_scanning_panic_or_stay(bytes in proptest::collection::vec(
            proptest::sample::select(b"{}[]\",:\\u 1tnd8\xff".to_vec()), 0..60)) {
            let steps = bytes.len() + 1;
            prop_assert!(Elements::new(&bytes, 0).take(steps + 1).count() <= steps);
            for at in 0..=steps {
                for (key, value) in Members::new(&bytes, at).take(steps + 1) {
                    let _ = (key.resolved(), skip_value(&bytes, value));
                }
            }
        }
    }
}
