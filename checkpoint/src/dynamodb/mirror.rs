//! What was listed, kept up to date by this worker's own writes.

use std::collections::HashMap;
use std::hash::Hash;

/// The entries of the last listing with the writes since. A listing that ran while something was written does not undo
/// the write.
#[derive(Debug)]
pub(super) struct Mirror<K, V> {
    entries: HashMap<K, V>,
    /// The number of the last own write of a key, for those since the last listing.
    written: HashMap<K, u64>,
    writes: u64,
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), written: HashMap::new(), writes: 0 }
    }
}

/// When a listing began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun(u64);

impl<K: Clone + Eq + Hash, V> Mirror<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values()
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.wrote(key.clone());
        self.entries.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.wrote(key.clone());
        self.entries.remove(key);
    }

    fn wrote(&mut self, key: K) {
        self.writes += 1;
        self.written.insert(key, self.writes);
    }

    pub(super) fn begin(&self) -> Begun {
        Begun(self.writes)
    }

    /// Takes a listing over, except for what was written since it began. `merge` makes an entry of the former one and the
    /// listed one.
    pub(super) fn replace(
        &mut self,
        Begun(begun): Begun,
        listed: impl IntoIterator<Item = (K, V)>,
        mut merge: impl FnMut(Option<&V>, V) -> V,
    ) {
        let mut former = std::mem::take(&mut self.entries);
        self.written.retain(|_, write| *write > begun);
        let written = &self.written;
        let taken = listed.into_iter().filter(|(key, _)| !written.contains_key(key));
        let mut entries: HashMap<K, V> = taken
            .map(|(key, value)| {
                let merged = merge(former.get(&key), value);
                (key, merged)
            })
            .collect();
        let kept = self.written.keys().filter_map(|key| former.remove_entry(key));
        entries.extend(kept);
        self.entries = entries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(mirror: &Mirror<&'static str, u64>) -> Vec<(&'static str, u64)> {
        let mut entries: Vec<_> = mirror.entries.iter().map(|(key, value)| (*key, *value)).collect();
        entries.sort_unstable();
        entries
    }

    #[test]
    fn a_listing_replaces_everything_that_was_not_written_since_it_began() {
        let mut mirror = Mirror::default();
        mirror.put("old", 1);
        mirror.put("moved", 1);
        let begun = mirror.begin();
        mirror.put("moved", 2);
        mirror.put("new", 1);
        mirror.remove(&"gone");
        mirror.replace(begun, [("moved", 1), ("gone", 1), ("other", 7)], |_, listed| listed);
        assert_eq!(sorted(&mirror), [("moved", 2), ("new", 1), ("other", 7)]);
    }

    #[test]
    fn a_listing_that_began_after_a_write_is_newer_than_it() {
        let mut mirror = Mirror::default();
        mirror.put("lease", 1);
        mirror.remove(&"created again");
        let begun = mirror.begin();
        mirror.replace(begun, [("lease", 5), ("created again", 0)], |_, listed| listed);
        assert_eq!(sorted(&mirror), [("created again", 0), ("lease", 5)]);
        assert!(mirror.written.is_empty(), "nothing is kept for ever");
        let begun = mirror.begin();
        mirror.replace(begun, [("lease", 6)], |former, listed| former.copied().unwrap_or_default() + listed);
        assert_eq!(sorted(&mirror), [("lease", 11)]);
    }
}
