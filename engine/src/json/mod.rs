//! JSON string escaping that knows its size in advance.

mod seconds;

pub(crate) use seconds::{push_seconds, seconds_len};

/// Bytes looked at in one step; wide enough for the compiler to compare them side by side.
const CHUNK: usize = 32;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether JSON forbids this byte inside a string (RFC 8259, section 7).
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The letter of the two-character escape of `byte`, if it has one.
const fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        _ => None,
    }
}

/// Whether any of `bytes` must be escaped; without an early exit, so that the compiler compares whole chunks at once.
fn any_needs_escape(bytes: &[u8]) -> bool {
    let found = |bytes: &[u8]| bytes.iter().fold(0, |found, byte| found | u8::from(needs_escape(*byte))) != 0;
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    chunks.iter().any(|chunk| found(chunk)) || found(rest)
}

/// Appends `text` as the inside of a JSON string, without the quotes. Other characters than those that must be escaped
/// stay as they are, in UTF-8.
pub(crate) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
        if !any_needs_escape(chunk) {
            continue;
        }
        for (at, byte) in chunk.iter().enumerate().filter(|(_, byte)| needs_escape(**byte)) {
            let at = index * CHUNK + at;
            out.extend_from_slice(&bytes[copied..at]);
            copied = at + 1;
            match short_escape(*byte) {
                Some(letter) => out.extend_from_slice(&[b'\\', letter]),
                None => {
                    let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]);
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                }
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Whether the inside of a JSON string, which may be no UTF-8, is as [`push_escaped`] writes it. One with `\u` counts as
/// written otherwise.
pub(crate) fn is_written_so(inside: &[u8]) -> bool {
    if !any_needs_escape(inside) {
        return true;
    }
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        let is_so = match byte {
            b'\\' => bytes.next().is_some_and(|letter| b"\"\\nrtbf".contains(letter)),
            byte => !needs_escape(*byte),
        };
        if !is_so {
            return false;
        }
    }
    true
}

/// The number of bytes that [`push_escaped`] appends.
pub(crate) fn escaped_len(text: &str) -> usize {
    if !any_needs_escape(text.as_bytes()) {
        return text.len();
    }
    let extra = |byte: u8| match (needs_escape(byte), short_escape(byte)) {
        (false, _) => 0,
        (true, Some(_)) => 1,
        (true, None) => 5,
    };
    text.len() + text.bytes().map(extra).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str) -> Vec<u8> {
        let mut out = vec![b'"'];
        push_escaped(&mut out, text);
        out.push(b'"');
        out
    }

    #[test]
    fn every_ascii_character_is_escaped_as_json_demands() {
        let all: String = (0..=127_u8).map(char::from).collect();
        assert_eq!(quoted(&all), serde_json::to_vec(&all).unwrap());
    }

    proptest! {
        #[test]
        fn escaping_agrees_with_serde_json_and_knows_its_size(text in any::<String>()) {
            let written = quoted(&text);
            prop_assert_eq!(written.len(), escaped_len(&text) + 2);
            prop_assert_eq!(written, serde_json::to_vec(&text).unwrap());
        }
    }
}
