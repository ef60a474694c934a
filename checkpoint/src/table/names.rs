//! The key of a lease as one text.

use std::sync::Arc;

use shardmill_engine::{LeaseKey, ShardId};

/// `ACCOUNT#REGION#STREAM#EPOCH#SHARD`.
pub(crate) fn key_text(key: &LeaseKey) -> String {
    let LeaseKey { account, region, stream, epoch, shard } = key;
    [account, region, stream, epoch, shard.as_str()].map(escape).join("#")
}

/// The key in a text; `None` if it was not made by [`key_text`].
pub(crate) fn parse_key(text: &str) -> Option<LeaseKey> {
    let mut parts = text.split('#').map(unescape);
    let mut part = || parts.next().flatten().map(Arc::from);
    let key = LeaseKey {
        account: part()?,
        region: part()?,
        stream: part()?,
        epoch: part()?,
        shard: ShardId::new(part()?),
    };
    (key_text(&key) == text).then_some(key)
}

/// A part of a name without the character that parts it from others.
pub(crate) fn escape(part: impl AsRef<str>) -> String {
    part.as_ref().replace('%', "%25").replace('#', "%23")
}

pub(crate) fn unescape(part: &str) -> Option<String> {
    let mut whole = String::with_capacity(part.len());
    let mut rest = part;
    while let Some((plain, after)) = rest.split_once('%') {
        whole.push_str(plain);
        whole.push(match after.get(..2)? {
            "25" => '%',
            "23" => '#',
            _ => return None,
        });
        rest = &after[2..];
    }
    whole.push_str(rest);
    Some(whole)
}
