//! Reading JSON where it lies.
//!
//! A scan is stricter than what reads an answer otherwise: at the first thing that it does not expect it gives the whole
//! answer up, and the caller turns to the SDK's decoder. So it needs no errors, and none of the SDK's leniences.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// Values that are skipped may nest so deep.
const DEEPEST: usize = 32;

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

/// The inside of a string.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a [u8],
    /// Where in the text it is.
    pub(super) place: Range<usize>,
    /// Whether there are escapes in it.
    is_escaped: bool,
}

impl<'a> Text<'a> {
    /// The string, if it has no escapes, and no control characters, which JSON does not permit.
    pub(super) fn plain(&self) -> Option<&'a str> {
        if self.is_escaped || self.raw.iter().any(|byte| *byte < b' ') {
            return None;
        }
        std::str::from_utf8(self.raw).ok()
    }

    /// The string. Half a surrogate pair is none.
    pub(super) fn unescaped(&self, scan: &Scan<'a>) -> Option<String> {
        if !self.is_escaped {
            return self.plain().map(str::to_owned);
        }
        serde_json::from_slice(scan.text.get(self.place.start - 1..=self.place.end)?).ok()
    }
}

impl<'a> Scan<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// How much is left.
    pub(super) const fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// What was read since `start`.
    fn since(&self, start: usize) -> &'a [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    /// Nothing but white space follows.
    pub(super) fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    pub(super) fn null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.literal(b"null").is_some()
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        let end = self.at + literal.len();
        (self.text.get(self.at..end)? == literal).then(|| self.at = end)
    }

    pub(super) fn boolean(&mut self) -> Option<bool> {
        match self.peek()? {
            b't' => self.literal(b"true").map(|()| true),
            _ => self.literal(b"false").map(|()| false),
        }
    }

    pub(super) fn string(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let start = self.at;
        let mut is_escaped = false;
        loop {
            let found = self.at + memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
            if self.text[found] == b'"' {
                self.at = found + 1;
                return Some(Text { raw: &self.text[start..found], place: start..found, is_escaped });
            }
            is_escaped = true;
            self.at = found + 2;
        }
    }

    /// A string of base64 with its padding.
    pub(super) fn base64(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let start = self.at;
        let end = start + memchr(b'"', self.text.get(start..)?)?;
        let raw = &self.text[start..end];
        // An escape is no base64, so the quotation mark that was found is not part of one.
        base64_simd::STANDARD.check(raw).ok()?;
        self.at = end + 1;
        Some(Text { raw, place: start..end, is_escaped: false })
    }

    /// A number's text (RFC 8259, section 6).
    pub(super) fn number(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        self.at += usize::from(self.text[start] == b'-');
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        std::str::from_utf8(self.since(start)).ok()
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.text.get(self.at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    /// The members of an object; `each` reads the value. Names with escapes are not expected.
    pub(super) fn object(&mut self, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.sequence(b'{', b'}', |scan| {
            let name = scan.string()?.plain()?;
            scan.take(b':')?;
            each(scan, name)
        })
    }

    /// The elements of an array.
    pub(super) fn array(&mut self, each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.sequence(b'[', b']', each)
    }

    fn sequence(&mut self, open: u8, close: u8, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            each(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                byte if byte == close => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// A value that is of no interest.
    pub(super) fn skip(&mut self) -> Option<()> {
        self.skip_below(DEEPEST)
    }

    fn skip_below(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.peek()? {
            b'{' => self.sequence(b'{', b'}', |scan| {
                scan.string()?.plain()?;
                scan.take(b':')?;
                scan.skip_below(depth)
            }),
            b'[' => self.sequence(b'[', b']', |scan| scan.skip_below(depth)),
            // Which escapes are right is not for this to judge.
            b'"' => self.string()?.plain().map(drop),
            b't' | b'f' => self.boolean().map(drop),
            b'n' => self.null().then_some(()),
            _ => self.number().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(text: &str) -> bool {
        let mut scan = Scan::new(text.as_bytes());
        scan.skip().and_then(|()| scan.end()).is_some()
    }

    #[test]
    fn what_is_skipped_is_json_and_what_is_not_json_is_never_skipped() {
        for text in [
            "null",
            " true ",
            "[]",
            "{}",
            "[1,-2.5e+3,0,{\"a\":[false,\"x\u{e9}\"]}]",
            "\"\"",
            "{\"a\" : 1 , \"b\":{}}",
        ] {
            assert!(skipped(text), "{text}");
        }
        for text in [
            "",
            "nul",
            "nullx",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "1e",
            "\"",
            "\"\\\"",
            "\"a\\n\"",
            "\"a\nb\"",
            "tru",
            "{\"a\":1,}",
            "1 1",
        ] {
            assert!(!skipped(text), "{text}");
        }
        assert!(skipped(&format!("{}{}", "[".repeat(32), "]".repeat(32))));
        assert!(!skipped(&"[".repeat(100_000)), "nesting is bounded");
    }

    #[test]
    fn a_string_is_unescaped_only_if_it_has_escapes() {
        let of = |text: &str| {
            let mut scan = Scan::new(text.as_bytes());
            let string = scan.string().unwrap();
            string.unescaped(&scan)
        };
        assert_eq!(of(r#""plain""#).as_deref(), Some("plain"));
        assert_eq!(of(r#""a\"b\\c\u00e9\ud83d\ude00""#).as_deref(), Some("a\"b\\c\u{e9}\u{1f600}"));
        assert_eq!(of(r#""\ud83d""#), None);
        assert_eq!(of(r#""\x""#), None);
    }
}
