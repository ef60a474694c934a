//! Amazon Resource Names: the one place where they are taken apart.

use std::fmt;
use std::sync::Arc;

/// An Amazon Resource Name, `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Arn {
    text: Arc<str>,
    /// Where the colons between the six parts stand.
    colons: [usize; 5],
}

impl Arn {
    /// Takes a text apart. `None` if it does not have six parts, if its partition is neither `aws` nor `aws-` and a
    /// name, or if it names no resource. Whether region and account are filled in is [`is_located`](Self::is_located).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut colons = [0; 5];
        let mut from = 0;
        for colon in &mut colons {
            *colon = from + text.get(from..)?.find(':')?;
            from = *colon + 1;
        }
        let arn = Self { text: text.into(), colons };
        let partition = arn.partition();
        let is_known = (partition == "aws" || partition.starts_with("aws-")) && is_name(partition);
        (arn.part(0) == "arn" && is_known && !arn.resource().is_empty()).then_some(arn)
    }

    /// Empty beyond the sixth part.
    fn part(&self, index: usize) -> &str {
        let from =
            index.checked_sub(1).and_then(|before| self.colons.get(before)).map_or(0, |colon| colon + 1);
        let to = self.colons.get(index).copied().unwrap_or(self.text.len());
        self.text.get(from..to).unwrap_or_default()
    }

    /// The whole ARN, as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `aws`, `aws-cn`, `aws-us-gov` …
    #[must_use]
    pub fn partition(&self) -> &str {
        self.part(1)
    }

    /// The service, as IAM's actions name it: `kinesis`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.part(2)
    }

    /// The region, such as `eu-west-1`; `ddblocal` in DynamoDB Local. Empty in the ARN of a bucket or a role.
    #[must_use]
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// The account that owns the resource, 12 digits. Empty in the ARN of a bucket.
    #[must_use]
    pub fn account(&self) -> &str {
        self.part(4)
    }

    /// What the ARN names, in the service's own form: `stream/orders`. May contain colons.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.part(5)
    }

    /// Whether region and account are filled in and well formed.
    #[must_use]
    pub fn is_located(&self) -> bool {
        is_name(self.region()) && is_account(self.account())
    }

    /// Whether this is the ARN of an IAM role: `arn:aws:iam::<account>:role/<name>`.
    #[must_use]
    pub fn is_role(&self) -> bool {
        let has_name = self.resource().strip_prefix("role/").is_some_and(|name| !name.is_empty());
        self.service() == "iam" && self.region().is_empty() && is_account(self.account()) && has_name
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl From<&Arn> for Arc<str> {
    /// The whole ARN, which is not copied.
    fn from(arn: &Arn) -> Self {
        Self::clone(&arn.text)
    }
}

pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Letters, digits, hyphen and underscore, at least one.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_has_six_parts_and_the_last_may_contain_colons() {
        let text = "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/a/stream/2026-09-17T14:10:44.560";
        let arn = Arn::parse(text).unwrap();
        assert_eq!((arn.partition(), arn.service()), ("aws-cn", "dynamodb"));
        assert_eq!((arn.region(), arn.account()), ("cn-north-1", "123456789012"));
        assert_eq!(arn.resource(), "table/a/stream/2026-09-17T14:10:44.560");
        assert_eq!((arn.as_str(), arn.to_string().as_str()), (text, text));
        assert!(arn.is_located() && !arn.is_role());
        let bucket = Arn::parse("arn:aws:s3:::letters").unwrap();
        assert_eq!((bucket.region(), bucket.account(), bucket.resource()), ("", "", "letters"));
        assert!(!bucket.is_located());
    }

    #[test]
    fn what_is_no_arn_is_refused() {
        for text in [
            "",
            "orders",
            "arn",
            "arn:aws:kinesis:eu-west-1:123456789012",
            "arn:aws:kinesis:eu-west-1:123456789012:",
            "urn:aws:kinesis:eu-west-1:123456789012:stream/orders",
            "arn::kinesis:eu-west-1:123456789012:stream/orders",
            "arn:azure:kinesis:eu-west-1:123456789012:stream/orders",
            "arn:aws-ö:kinesis:eu-west-1:123456789012:stream/orders",
        ] {
            assert_eq!(Arn::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_role_has_an_account_and_a_name_but_no_region() {
        let is_role = |text| Arn::parse(text).is_some_and(|arn| arn.is_role());
        assert!(is_role("arn:aws:iam::123456789012:role/team/reader"));
        for text in [
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:user/reader",
            "arn:aws:iam::123:role/reader",
            "arn:aws:iam::12345678901x:role/reader",
            "arn:aws:iam:eu-west-1:123456789012:role/reader",
            "arn:aws:sts::123456789012:role/reader",
        ] {
            assert!(!is_role(text), "{text}");
        }
    }
}
