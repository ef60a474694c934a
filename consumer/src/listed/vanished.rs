//! Leases that are gone from the store: deleted by hand, or by a worker because they were finished.
//!
//! The first kind is created again, which takes a listing of the stream. The second kind is not, even if a listing that
//! lags behind still shows the shard: it would be read a second time, with all its descendants (incident 40).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardmill_engine::{LeaseKey, ShardId};
use tokio::time::Instant;

/// A finished lease that is gone was deleted by hand only if a listing that began so much later shows its shard: until then
/// the listing may be a late one.
const BELIEVED_AFTER: Duration = Duration::from_secs(20);

/// So long a shard that a listing has lacked is not taken for a new one.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What is known of leases that are gone.
#[derive(Debug, Default)]
pub(super) struct Vanished {
    stream: Option<LeaseKey>,
    /// The leases that were there last, and whether they were finished.
    seen: BTreeMap<ShardId, bool>,
    /// Unfinished ones that are gone.
    missing: BTreeSet<ShardId>,
    /// Finished ones that are gone.
    finished: BTreeMap<ShardId, Grave>,
}

#[derive(Clone, Copy, Debug)]
struct Grave {
    since: Instant,
    /// A listing has lacked the shard: the lease was deleted because it was finished.
    forgotten: bool,
}

impl Vanished {
    /// Takes in which leases there are, each with whether it is finished; `is_listed` returns what the last listing of
    /// the stream showed.
    pub(super) fn look(
        &mut self,
        stream: &LeaseKey,
        leases: BTreeMap<ShardId, bool>,
        is_listed: impl Fn(&ShardId) -> bool,
        now: Instant,
    ) {
        if self.stream.as_ref() != Some(stream) {
            *self = Self { stream: Some(stream.clone()), ..Self::default() };
        }
        for (shard, finished) in std::mem::take(&mut self.seen) {
            if leases.contains_key(&shard) {
                continue;
            }
            if finished {
                let forgotten = !is_listed(&shard);
                self.finished.insert(shard, Grave { since: now, forgotten });
            } else {
                self.missing.insert(shard);
            }
        }
        self.finished.retain(|shard, grave| {
            let is_over = grave.forgotten && now.duration_since(grave.since) > REMEMBERED;
            !is_over && !leases.contains_key(shard)
        });
        self.missing.retain(|shard| !leases.contains_key(shard));
        self.seen = leases;
    }

    /// Whether only a listing can show what is to be done.
    pub(super) fn calls_for_a_listing(&self) -> bool {
        !self.missing.is_empty() || self.finished.values().any(|grave| !grave.forgotten)
    }

    /// Takes in a complete listing that began at `began`; the shards that no lease is to be made for.
    pub(super) fn listed(
        &mut self,
        is_listed: impl Fn(&ShardId) -> bool,
        began: Instant,
    ) -> BTreeSet<ShardId> {
        self.missing.clear();
        self.finished.retain(|shard, grave| {
            if !is_listed(shard) {
                // It is remembered from when it was last heard of.
                *grave = Grave { since: if grave.forgotten { grave.since } else { began }, forgotten: true };
            }
            grave.forgotten || began < grave.since + BELIEVED_AFTER
        });
        self.finished.keys().cloned().collect()
    }

    /// Whether a listing has lacked the shard, so that no shard waits for it even if a late one shows it.
    pub(super) fn is_forgotten(&self, shard: &ShardId) -> bool {
        self.finished.get(shard).is_some_and(|grave| grave.forgotten)
    }

    /// These leases were made just now.
    pub(super) fn created(&mut self, shards: impl Iterator<Item = ShardId>) {
        self.seen.extend(shards.map(|shard| (shard, false)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(epoch: &str) -> LeaseKey {
        LeaseKey {
            account: "123456789012".into(),
            region: "eu-central-1".into(),
            stream: "orders".into(),
            epoch: epoch.into(),
            shard: ShardId::new(""),
        }
    }

    fn leases(all: &[(&str, bool)]) -> BTreeMap<ShardId, bool> {
        all.iter().map(|(shard, finished)| (ShardId::from(*shard), *finished)).collect()
    }

    fn only(shard: &str) -> BTreeSet<ShardId> {
        [ShardId::from(shard)].into()
    }

    fn none() -> BTreeSet<ShardId> {
        BTreeSet::new()
    }

    fn shows(shards: &'static [&str]) -> impl Fn(&ShardId) -> bool {
        |shard| shards.contains(&shard.as_str())
    }

    #[tokio::test(start_paused = true)]
    async fn incident_94_a_lease_that_is_gone_unfinished_calls_for_one_listing() {
        let (mut vanished, now, key) = (Vanished::default(), Instant::now(), stream("1"));
        vanished.look(&key, leases(&[("a", false), ("b", false)]), shows(&["a", "b"]), now);
        assert!(!vanished.calls_for_a_listing());
        vanished.look(&key, leases(&[("a", false)]), shows(&["a", "b"]), now);
        assert!(vanished.calls_for_a_listing());
        assert_eq!(vanished.listed(shows(&["a", "b"]), now), none(), "it may be made anew");
        vanished.created([ShardId::from("b")].into_iter());
        assert!(!vanished.calls_for_a_listing());
        vanished.look(&key, leases(&[("a", false)]), shows(&["a", "b"]), now);
        assert!(vanished.calls_for_a_listing(), "deleted again before it was seen");
        vanished.look(&stream("2"), leases(&[]), shows(&[]), now);
        assert!(!vanished.calls_for_a_listing(), "another stream");
    }

    #[tokio::test(start_paused = true)]
    async fn incident_95_a_finished_lease_that_is_gone_is_not_revived_by_a_late_listing() {
        let (mut vanished, now, key) = (Vanished::default(), Instant::now(), stream("1"));
        vanished.look(&key, leases(&[("a", true), ("b", false)]), shows(&["b"]), now);
        // This worker's listing lacks it already.
        vanished.look(&key, leases(&[("b", false)]), shows(&["b"]), now);
        assert!(!vanished.calls_for_a_listing());
        for minutes in [0, 1, 59] {
            let began = now + Duration::from_secs(minutes * 60);
            assert_eq!(vanished.listed(shows(&["a", "b"]), began), only("a"), "{minutes} min later");
        }
        let later = now + REMEMBERED + Duration::from_secs(1);
        vanished.look(&key, leases(&[("b", false)]), shows(&["b"]), later);
        assert_eq!(vanished.listed(shows(&["b"]), later), none(), "memory stays bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn incident_95_a_finished_lease_whose_shard_is_still_listed_later_was_deleted_by_hand() {
        let (mut vanished, now, key) = (Vanished::default(), Instant::now(), stream("1"));
        vanished.look(&key, leases(&[("a", true)]), shows(&["a"]), now);
        vanished.look(&key, leases(&[]), shows(&["a"]), now);
        assert!(vanished.calls_for_a_listing());
        assert_eq!(vanished.listed(shows(&["a"]), now), only("a"), "perhaps the listing is late");
        assert!(vanished.calls_for_a_listing(), "so it is listed again");
        assert_eq!(vanished.listed(shows(&["a"]), now + BELIEVED_AFTER), none());
        vanished.look(&key, leases(&[("a", true)]), shows(&["a"]), now);
        vanished.look(&key, leases(&[]), shows(&["a"]), now);
        assert_eq!(vanished.listed(shows(&["b"]), now), only("a"));
        assert!(!vanished.calls_for_a_listing(), "a listing lacks it: it was finished");
        assert_eq!(vanished.listed(shows(&["a"]), now + BELIEVED_AFTER), only("a"));
    }
}
