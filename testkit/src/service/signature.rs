//! What a request shows of its signature. The signature itself is not checked.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// Who signed a request, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Empty if it is not signed.
    pub access_key: String,
    /// `X-Amz-Date`, in milliseconds since 1970.
    pub at_ms: Option<i64>,
}

impl Signature {
    /// Reads the headers `authorization` and `x-amz-date`.
    pub(crate) fn read(authorization: &str, date: &str) -> Self {
        let credential = authorization.split_once("Credential=").map_or("", |(_, rest)| rest);
        let access_key = credential.split(['/', ',', ' ']).next().unwrap_or_default().to_owned();
        Self { access_key, at_ms: at_ms(date) }
    }
}

/// `20260131T235959Z`
fn at_ms(date: &str) -> Option<i64> {
    let parts = [0..4, 4..6, 6..8, 9..11, 11..13, 13..15].map(|digits| date.get(digits));
    let [Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)] = parts else {
        return None;
    };
    let date = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    DateTime::from_str(&date, Format::DateTime).ok()?.to_millis().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_and_the_time_are_read_and_what_is_missing_is_none() {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kinesis/aws4_request, \
                             SignedHeaders=host;x-amz-date, Signature=5d672d79";
        let signature = Signature::read(authorization, "20150830T123600Z");
        assert_eq!(
            (signature.access_key.as_str(), signature.at_ms),
            ("AKIDEXAMPLE", Some(1_440_938_160_000))
        );
        for (authorization, date) in [("", ""), ("Bearer x", "20150830"), ("Basic y", "2015083é123600Z")] {
            assert_eq!(Signature::read(authorization, date), Signature::default(), "{date}");
        }
    }
}
