//! What rows of leases are called: KCL's keys for the stream that is read, and one with every part for any other.

use std::sync::Arc;

use shardmill_engine::{LeaseKey, ShardId};

use crate::table::attributes::Reader;
use crate::table::names::{key_text, parse_key};

pub(super) const LEASE_KEY: &str = "leaseKey";
/// KCL's, in rows of applications that read several streams.
pub(super) const STREAM_NAME: &str = "streamName";
pub(super) const SHARD_ID: &str = "shardId";
/// The whole key of a lease, as KCL's has neither region nor, for one stream, anything but the shard.
pub(super) const KEY: &str = "shardmillKey";

/// How rows are called.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// The stream that is read, once it is known. Rows that name no stream are its.
    pub(super) stream: Option<LeaseKey>,
    /// KCL's application reads several streams.
    pub(super) is_multi: bool,
}

impl Layout {
    pub(super) fn name(&self, key: &LeaseKey) -> String {
        match self.of_stream(key) {
            Some(stream) if self.is_multi => format!("{}:{}", identifier(stream), key.shard),
            Some(_) => key.shard.as_str().to_owned(),
            None => key_text(key),
        }
    }

    /// What KCL calls the stream of a lease of several streams' application.
    pub(super) fn stream_name(&self, key: &LeaseKey) -> Option<String> {
        self.of_stream(key).filter(|_| self.is_multi).map(identifier)
    }

    fn of_stream(&self, key: &LeaseKey) -> Option<&LeaseKey> {
        self.stream.as_ref().filter(|stream| stream.is_sibling_of(key))
    }

    /// The lease that a row is about, as far as its names tell; `None` if it has no shard's key.
    pub(super) fn key(&self, read: Reader<'_>) -> Option<LeaseKey> {
        if let Some(key) = read.text(KEY).ok().flatten().and_then(parse_key) {
            return Some(key);
        }
        let name = read.text(LEASE_KEY).ok().flatten()?;
        let region =
            || self.stream.as_ref().map_or_else(|| Arc::from(""), |stream| Arc::clone(&stream.region));
        if let Some((account, stream, epoch, shard)) = multi(name) {
            let shard = ShardId::new(shard);
            return Some(LeaseKey {
                account: account.into(),
                region: region(),
                stream: stream.into(),
                epoch: epoch.into(),
                shard,
            });
        }
        name.starts_with("shardId-").then(|| match &self.stream {
            Some(stream) => stream.sibling(ShardId::new(name)),
            None => LeaseKey {
                account: "".into(),
                region: "".into(),
                stream: "".into(),
                epoch: "".into(),
                shard: ShardId::new(name),
            },
        })
    }
}

/// Whether the row is one of an application that reads several streams.
pub(super) fn is_multi(read: Reader<'_>) -> bool {
    read.text(LEASE_KEY).ok().flatten().is_some_and(|name| multi(name).is_some())
}

/// `ACCOUNT:STREAM:EPOCH`.
fn identifier(stream: &LeaseKey) -> String {
    format!("{}:{}:{}", stream.account, stream.stream, stream.epoch)
}

/// `ACCOUNT:STREAM:EPOCH:SHARD`.
fn multi(name: &str) -> Option<(&str, &str, &str, &str)> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = name.split(':');
    let (account, stream, epoch, shard) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = is_number(account) && is_number(epoch) && shard.starts_with("shardId-");
    (fits && parts.next().is_none()).then_some((account, stream, epoch, shard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::attributes::{Item, text};

    fn key(stream: &str, epoch: &str, shard: &str) -> LeaseKey {
        LeaseKey {
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            stream: stream.into(),
            epoch: epoch.into(),
            shard: ShardId::from(shard),
        }
    }

    fn row(name: &str) -> Item {
        Item::from([(LEASE_KEY.to_owned(), text(name))])
    }

    #[test]
    fn the_stream_that_is_read_has_kcls_names_and_any_other_every_part() {
        let shard = "shardId-000000000001";
        let mut layout = Layout { stream: Some(key("orders", "17", "")), is_multi: false };
        assert_eq!(layout.name(&key("orders", "17", shard)), shard);
        assert_eq!(
            layout.name(&key("orders", "18", shard)),
            format!("123456789012#eu-central-1#orders#18#{shard}")
        );
        layout.is_multi = true;
        assert_eq!(layout.name(&key("orders", "17", shard)), format!("123456789012:orders:17:{shard}"));
        assert_eq!(
            layout.stream_name(&key("orders", "17", shard)).as_deref(),
            Some("123456789012:orders:17")
        );
        assert_eq!(layout.stream_name(&key("bills", "17", shard)), None);
    }

    #[test]
    fn rows_of_kcl_are_told_apart_by_their_keys_and_other_rows_are_no_leases() {
        let layout = Layout { stream: Some(key("orders", "17", "")), is_multi: false };
        let read = |name: &str| layout.key(Reader(&row(name)));
        assert_eq!(read("shardId-000000000001"), Some(key("orders", "17", "shardId-000000000001")));
        assert_eq!(read("123456789012:bills:9:shardId-1"), Some(key("bills", "9", "shardId-1")));
        for other in ["Leader", "Migration3.0", "TableMigration3.5", "worker-1", "1:a:b:shardId-1", "1:a:2:b"]
        {
            assert_eq!(read(other), None, "{other}");
        }
        let unbound = Layout::default().key(Reader(&row("shardId-1"))).unwrap();
        assert_eq!((&*unbound.stream, unbound.shard.as_str()), ("", "shardId-1"));
    }

    #[test]
    fn a_row_that_has_a_whole_key_is_that_leases() {
        let mut item = row("shardId-1");
        item.insert(KEY.to_owned(), text(key_text(&key("orders", "16", "shardId-1"))));
        let layout = Layout { stream: Some(key("orders", "17", "")), is_multi: false };
        assert_eq!(layout.key(Reader(&item)), Some(key("orders", "16", "shardId-1")));
    }
}
