//! Request ids.

use std::fmt;

use uuid::{Builder, Uuid};

/// The request id of an invocation: stays the same while an unchanged batch is retried (R21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// Makes a version 4 UUID of 128 random bits.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        Self(Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
    }

    /// The UUID as a number.
    pub(crate) const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        assert_eq!(RequestId::from_random(0).to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(RequestId::from_random(u128::MAX).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn a_request_id_keeps_its_random_bits_and_is_shown_as_it_is_logged() {
        let id = RequestId::from_random(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(id.to_string(), "01234567-89ab-4def-bedc-ba9876543210");
        assert_eq!(format!("{id:?}"), id.to_string());
        assert_eq!(id.as_u128(), 0x0123_4567_89ab_4def_bedc_ba98_7654_3210);
    }
}
