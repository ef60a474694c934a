//! What items are called: the sort key of each kind.

use shardmill_engine::LeaseKey;

use crate::table::names::{escape, key_text, parse_key, unescape};

/// The item that a whole application shares.
pub(super) const APPLICATION: &str = "application";
pub(super) const LEASES: &str = "lease#";
pub(super) const WORKERS: &str = "worker#";
const NOTES: &str = "note#";
/// The partition that says which applications read a stream. No application is called so.
pub(super) const STREAMS: &str = "#streams";

/// `lease#ACCOUNT#REGION#STREAM#EPOCH#SHARD`.
pub(super) fn lease(key: &LeaseKey) -> String {
    format!("{LEASES}{}", key_text(key))
}

/// The key in a lease's name; `None` if it was not made by [`lease`].
pub(super) fn lease_key(item: &str) -> Option<LeaseKey> {
    parse_key(item.strip_prefix(LEASES)?)
}

/// What the names of all leases of one stream's epoch begin with.
pub(super) fn leases_of(account: &str, region: &str, stream: &str, epoch: &str) -> String {
    format!("{LEASES}{}#", [account, region, stream, epoch].map(escape).join("#"))
}

pub(super) fn worker(id: &str) -> String {
    format!("{WORKERS}{id}")
}

pub(super) fn note(name: &str) -> String {
    format!("{NOTES}{name}")
}

/// What the names of all applications that read a stream begin with, in any epoch.
pub(super) fn readers_of(key: &LeaseKey) -> String {
    format!("{}#", [&key.account, &key.region, &key.stream].map(escape).join("#"))
}

/// `ACCOUNT#REGION#STREAM#EPOCH#APPLICATION`.
pub(super) fn reader(key: &LeaseKey, application: &str) -> String {
    format!("{}{}#{}", readers_of(key), escape(&key.epoch), escape(application))
}

/// Epoch and application of a [`reader`]'s name.
pub(super) fn epoch_and_application(reader: &str, prefix: &str) -> Option<(String, String)> {
    let (epoch, application) = reader.strip_prefix(prefix)?.split_once('#')?;
    Some((unescape(epoch)?, unescape(application)?))
}

#[cfg(test)]
mod tests {
    use shardmill_engine::ShardId;

    use super::*;

    fn key(stream: &str, epoch: &str, shard: &str) -> LeaseKey {
        LeaseKey {
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            stream: stream.into(),
            epoch: epoch.into(),
            shard: ShardId::from(shard),
        }
    }

    #[test]
    fn a_lease_is_called_by_the_parts_of_its_key() {
        let name = lease(&key("orders", "1700000000", "shardId-000000000001"));
        assert_eq!(name, "lease#123456789012#eu-central-1#orders#1700000000#shardId-000000000001");
        assert!(name.starts_with(&leases_of("123456789012", "eu-central-1", "orders", "1700000000")));
    }

    #[test]
    fn no_part_of_a_name_is_mistaken_for_another() {
        let odd = ["", "#", "a#b", "%", "%23", "%25", "a%b", "\u{e4}\u{1f980}#", "\n"];
        let mut names = std::collections::BTreeSet::new();
        let pairs = odd.iter().flat_map(|one| odd.iter().map(move |other| (*one, *other)));
        for (stream, epoch) in pairs {
            for shard in odd {
                let key = key(stream, epoch, shard);
                let name = lease(&key);
                assert_eq!(lease_key(&name).as_ref(), Some(&key), "{name}");
                assert!(names.insert(name));
                let reader = reader(&key, shard);
                let found = epoch_and_application(&reader, &readers_of(&key));
                assert_eq!(found, Some((epoch.to_owned(), shard.to_owned())), "{reader}");
            }
        }
    }

    #[test]
    fn a_name_that_was_not_made_here_is_no_leases() {
        for name in [
            "lease#",
            "lease#a#b#c#d",
            "lease#a#b#c#d#e#f",
            "lease#a#b#c#d#%2",
            "lease#a#b#c#d#%41",
            "worker#a",
        ] {
            assert_eq!(lease_key(name), None, "{name}");
        }
    }
}
