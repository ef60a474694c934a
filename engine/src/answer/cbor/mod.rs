//! Answers in CBOR, the binary encoding that Kinesis offers next to JSON (docs/adr/0034).

mod json;
mod kinesis;
mod walk;

pub use json::cbor_to_json;
pub(super) use kinesis::kinesis_answer;

use crate::time::Wall;
use walk::Walk;

/// The tag of a time (RFC 8949, section 3.4.2).
const TIME: u64 = 1;

/// Smaller numbers are seconds. In milliseconds they were before March 1973, in seconds they reach beyond the year 5000.
const LEAST_MILLIS: u64 = 100_000_000_000;

/// Whether a body is CBOR: answers are maps, whose first byte no JSON text begins with.
pub(super) fn is_cbor(body: &[u8]) -> bool {
    let mut walk = Walk::new(body);
    walk.untag().is_some_and(|_| walk.is_map())
}

/// Milliseconds beyond these are no times of this service: the SDK tells what they are.
const FURTHEST: u64 = 1_000_000_000_000_000;

/// A time as AWS writes it, as whole milliseconds, or as RFC 8949 has it and some emulators write it, in seconds.
fn time_of_integer(number: i64) -> Option<Wall> {
    let is_millis = number.unsigned_abs() >= LEAST_MILLIS;
    let millis = if is_millis { number } else { number * 1000 };
    (millis.unsigned_abs() < FURTHEST).then(|| Wall::from_millis(millis))
}

/// As [`time_of_integer`].
fn time_of_float(number: f64) -> Option<Wall> {
    #[expect(clippy::cast_precision_loss, reason = "floats hold both")]
    let (least, furthest) = (LEAST_MILLIS as f64, FURTHEST as f64);
    let millis = if number.abs() < least { number * 1000.0 } else { number };
    if millis.abs() >= furthest || millis.is_nan() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is within FURTHEST")]
    let millis = millis.round() as i64;
    Some(Wall::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cbor_if_it_begins_as_a_map_with_or_without_a_tag() {
        for map in [&[0xa0][..], &[0xbf, 0xff], &[0xb8, 1], &[0xd9, 0xd9, 0xf7, 0xa0]] {
            assert!(is_cbor(map), "{map:x?}");
        }
        for other in [&b""[..], b"{}", b" {}", b"<html>", b"\xef\xbb\xbf{}", &[0x80], &[0xc1], &[0xd9]] {
            assert!(!is_cbor(other), "{other:x?}");
        }
    }

    #[test]
    fn a_time_is_milliseconds_or_seconds_by_its_size() {
        let time = Some(Wall::from_millis(1_790_000_000_123));
        assert_eq!(time_of_integer(1_790_000_000_123), time);
        assert_eq!(time_of_float(1_790_000_000.123), time);
        assert_eq!(time_of_float(1_790_000_000_123.4), time);
        assert_eq!(time_of_integer(1_790_000_000), Some(Wall::from_millis(1_790_000_000_000)));
        assert_eq!(
            (time_of_float(f64::NAN), time_of_float(1e300), time_of_integer(i64::MAX)),
            (None, None, None)
        );
    }
}
