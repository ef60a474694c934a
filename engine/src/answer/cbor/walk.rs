//! Reading CBOR where it lies (RFC 8949).
//!
//! As the reading of JSON, a walk gives the whole answer up at the first thing that it does not expect. Every length is
//! compared with what is left before it is used.

use std::borrow::Cow;

/// Values may nest so deep.
pub(super) const DEEPEST: usize = 32;

/// The major types (RFC 8949, section 3.1).
pub(super) const UNSIGNED: u8 = 0;
pub(super) const NEGATIVE: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const ARRAY: u8 = 4;
pub(super) const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// What ends a value of indefinite length.
const BREAK: u8 = 0xff;

/// A place in a CBOR text.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A value without parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Simple {
    Null,
    Boolean(bool),
    Float(f64),
}

impl<'a> Walk<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How much is left.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Nothing follows.
    pub(super) fn end(&self) -> Option<()> {
        (self.left() == 0).then_some(())
    }

    /// The major type of the next value.
    pub(super) fn major(&self) -> Option<u8> {
        self.bytes.get(self.at).map(|byte| byte >> 5)
    }

    pub(super) fn is_map(&self) -> bool {
        self.major() == Some(MAP)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Major type and argument of the next value; no argument is an indefinite length.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let [first] = self.fixed()?;
        let argument = match first & 0x1f {
            small @ 0..=23 => small.into(),
            24 => self.fixed::<1>()?[0].into(),
            25 => u16::from_be_bytes(self.fixed()?).into(),
            26 => u32::from_be_bytes(self.fixed()?).into(),
            27 => u64::from_be_bytes(self.fixed()?),
            31 => return Some((first >> 5, None)),
            _ => return None,
        };
        Some((first >> 5, Some(argument)))
    }

    /// The argument of a value of this type, that of a value of indefinite length being `None`.
    fn of_type(&mut self, major: u8) -> Option<Option<u64>> {
        if self.major()? != major {
            return None;
        }
        Some(self.head()?.1)
    }

    /// Leaves the tags before the next value out; the last of them.
    pub(super) fn untag(&mut self) -> Option<Option<u64>> {
        let mut last = None;
        while self.major()? == TAG {
            last = Some(self.head()?.1?);
        }
        Some(last)
    }

    /// Whether the next value is null or undefined, which is read then.
    pub(super) fn null(&mut self) -> bool {
        let is_null = matches!(self.bytes.get(self.at), Some(0xf6 | 0xf7));
        self.at += usize::from(is_null);
        is_null
    }

    fn is_broken_off(&mut self) -> bool {
        let is_break = self.bytes.get(self.at) == Some(&BREAK);
        self.at += usize::from(is_break);
        is_break
    }

    /// The bytes of a text or byte string. One in chunks is joined.
    fn string(&mut self, major: u8) -> Option<Cow<'a, [u8]>> {
        if let Some(length) = self.of_type(major)? {
            return self.take(usize::try_from(length).ok()?).map(Cow::Borrowed);
        }
        let mut joined = Vec::new();
        while !self.is_broken_off() {
            let length = self.of_type(major)??;
            let chunk = self.take(usize::try_from(length).ok()?)?;
            if major == TEXT {
                // Each chunk is text of its own (RFC 8949, section 3.2.3).
                std::str::from_utf8(chunk).ok()?;
            }
            joined.extend_from_slice(chunk);
        }
        Some(Cow::Owned(joined))
    }

    pub(super) fn data(&mut self) -> Option<Cow<'a, [u8]>> {
        self.string(BYTES)
    }

    pub(super) fn text(&mut self) -> Option<Cow<'a, str>> {
        Some(match self.string(TEXT)? {
            Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
        })
    }

    /// An integer of 64 bits and a sign.
    pub(super) fn integer(&mut self) -> Option<i128> {
        match self.head()? {
            (UNSIGNED, Some(number)) => Some(number.into()),
            (NEGATIVE, Some(number)) => Some(-1 - i128::from(number)),
            _ => None,
        }
    }

    pub(super) fn simple(&mut self) -> Option<Simple> {
        let [first] = self.fixed()?;
        Some(match first {
            0xf4 => Simple::Boolean(false),
            0xf5 => Simple::Boolean(true),
            0xf6 | 0xf7 => Simple::Null,
            0xf9 => Simple::Float(half(u16::from_be_bytes(self.fixed()?))),
            0xfa => Simple::Float(f32::from_be_bytes(self.fixed()?).into()),
            0xfb => Simple::Float(f64::from_be_bytes(self.fixed()?)),
            _ => return None,
        })
    }

    /// The members of a map; `each` reads the value. Names are text.
    pub(super) fn map(&mut self, mut each: impl FnMut(&mut Self, Cow<'a, str>) -> Option<()>) -> Option<()> {
        let count = self.of_type(MAP)?;
        self.sequence(count, |walk| {
            let name = walk.text()?;
            each(walk, name)
        })
    }

    /// The elements of an array.
    pub(super) fn array(&mut self, each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let count = self.of_type(ARRAY)?;
        self.sequence(count, each)
    }

    /// A count beyond what is left fails at the end of the text: nothing is reserved for it.
    fn sequence(&mut self, count: Option<u64>, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        match count {
            Some(count) => (0..count).try_for_each(|_| each(self)),
            None => {
                while !self.is_broken_off() {
                    each(self)?;
                }
                Some(())
            }
        }
    }

    /// A value that is of no interest.
    pub(super) fn skip(&mut self) -> Option<()> {
        self.skip_below(DEEPEST)
    }

    fn skip_below(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.untag()?;
        match self.major()? {
            UNSIGNED | NEGATIVE => self.integer().map(drop),
            BYTES => self.data().map(drop),
            TEXT => self.text().map(drop),
            ARRAY => self.array(|walk| walk.skip_below(depth)),
            MAP => self.map(|walk, _| walk.skip_below(depth)),
            SIMPLE => self.simple().map(drop),
            _ => None,
        }
    }
}

/// A float of 16 bits (RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let size = match (bits >> 10) & 0x1f {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (fraction + 1024.0) * 2_f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> bool {
        let mut walk = Walk::new(bytes);
        walk.skip().and_then(|()| walk.end()).is_some()
    }

    #[test]
    fn what_is_skipped_is_cbor_and_what_is_no_cbor_is_never_skipped() {
        for whole in [
            &[0x00][..],
            &[0x38, 0xff],
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x43, 1, 2, 3],
            &[0x5f, 0x41, 1, 0x40, 0xff],
            &[0x63, b'a', 0xc3, 0xa9],
            &[0x7f, 0x61, b'a', 0xff],
            &[0x82, 0x01, 0x9f, 0xf4, 0xff],
            &[0xa1, 0x61, b'a', 0xbf, 0xff],
            &[0xc1, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xd9, 0xd9, 0xf7, 0xf6],
            &[0xf9, 0, 0],
            &[0xfa, 0, 0, 0, 0],
        ] {
            assert!(skipped(whole), "{whole:x?}");
            for end in 0..whole.len() {
                assert!(!skipped(&whole[..end]), "{whole:x?} cut after {end}");
            }
            assert!(!skipped(&[whole, &[0]].concat()), "{whole:x?} and more");
        }
        for wrong in [
            &[0x1c][..],
            &[0x1f],
            &[0x3f],
            &[0x5f, 0x61, b'a', 0xff],
            &[0x5f, 0x5f, 0xff, 0xff],
            &[0x61, 0xff],
            &[0x7f, 0x61, 0xc3, 0x61, 0xa9, 0xff],
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xa1, 0x01, 0x01],
            &[0xbf, 0x61, b'a', 0xff],
            &[0xdf, 0x00],
            &[0xe0],
            &[0xf8, 0x20],
            &[0xff],
        ] {
            assert!(!skipped(wrong), "{wrong:x?}");
        }
        assert!(skipped(&[&[0x81; 31][..], &[0]].concat()));
        assert!(!skipped(&[0x81; 100_000]), "nesting is bounded");
    }

    #[test]
    fn numbers_are_those_of_the_standards_examples() {
        let integer = |bytes: &[u8]| Walk::new(bytes).integer();
        assert_eq!(integer(&[0x19, 0x03, 0xe8]), Some(1000));
        assert_eq!(integer(&[0x39, 0x03, 0xe7]), Some(-1000));
        assert_eq!(integer(&[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]), Some(-(1 << 64)));
        let float = |bytes: &[u8]| Walk::new(bytes).simple();
        for (bytes, expected) in [
            (&[0xf9, 0x3c, 0x00][..], 1.0),
            (&[0xf9, 0x7b, 0xff], 65504.0),
            (&[0xf9, 0x00, 0x01], 5.960_464_477_539_063e-8),
            (&[0xf9, 0xc4, 0x00], -4.0),
            (&[0xf9, 0xfc, 0x00], f64::NEG_INFINITY),
            (&[0xfa, 0x47, 0xc3, 0x50, 0x00], 100_000.0),
            (&[0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a], 1.1),
        ] {
            assert_eq!(float(bytes), Some(Simple::Float(expected)), "{bytes:x?}");
        }
    }
}
