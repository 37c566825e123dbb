//! The state of one map, and of all maps: persistent ordered trees.
//!
//! This is the only file that knows which tree it is. A clone shares everything with its origin;
//! a change copies the path to the leaf if it is shared, and works in place if it is not.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::bytes::Sought;
use crate::{Key, MapName, Seqno, Value};

/// What a key holds, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The position of the transaction that wrote it.
    pub version: Seqno,
    /// The bytes.
    pub value: Value,
}

/// The entries of one map, in bytewise order of their keys. Cloning it is a matter of nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct StateMap {
    entries: OrdMap<Key, Entry>,
}

impl StateMap {
    /// The entry of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        match Key::inline(key) {
            Some(key) => self.entries.get(&key),
            None => self.entries.get(&Sought::new(key)),
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// The entries within `bounds`, in order of their keys; none if the bounds are reversed.
    pub fn range(&self, bounds: impl RangeBounds<[u8]>) -> impl Iterator<Item = (&Key, &Entry)> {
        let bounds = (bounds.start_bound(), bounds.end_bound());
        (!is_reversed(bounds)).then(|| self.entries.range::<_, [u8]>(bounds)).into_iter().flatten()
    }

    /// All entries, in order of their keys. Each part of the tree is let go of once it was given: a
    /// change elsewhere need not copy it any more.
    pub fn into_entries(self) -> IntoEntries {
        IntoEntries(self.entries.into_iter())
    }

    pub(crate) fn put(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        self.entries.insert(key, entry)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.entries.remove(&Sought::new(key))
    }

    /// The version of a key, `None` if it is absent.
    pub(crate) fn version(&self, key: &[u8]) -> Option<Seqno> {
        self.get(key).map(|entry| entry.version)
    }

    /// Whether both are the very same tree. `false` does not mean that they differ.
    pub fn is_same(&self, other: &Self) -> bool {
        self.entries.ptr_eq(&other.entries) || (self.is_empty() && other.is_empty())
    }

    /// The keys that were inserted, removed or rewritten on the way to `later`, in order. Shared
    /// subtrees are skipped, so that the cost follows the changes and not the size.
    pub(crate) fn changes<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a Key> {
        self.entries.diff(&later.entries).map(|item| match item {
            DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
            DiffItem::Update { new: (key, _), .. } => key,
        })
    }
}

/// See [`StateMap::into_entries`].
pub struct IntoEntries(<OrdMap<Key, Entry> as IntoIterator>::IntoIter);

impl Iterator for IntoEntries {
    type Item = (Key, Entry);

    fn next(&mut self) -> Option<(Key, Entry)> {
        self.0.next()
    }
}

/// Entries that are put in late: those of more than two leaves, which hold 16 each.
const LATE: usize = 32;

/// Fills a map with many entries. A leaf that overflows is split in halves, and of keys that come in
/// order only the upper half goes on to grow: the map would take twice the room. So every other
/// entry comes late, when the leaf with its neighbours has been split off half full.
#[derive(Debug, Default)]
pub(crate) struct StateMapFiller {
    map: StateMap,
    late: VecDeque<(Key, Entry)>,
    is_late: bool,
}

impl StateMapFiller {
    pub(crate) fn new(map: StateMap) -> Self {
        Self { map, ..Self::default() }
    }

    /// Whether what was put in now, perhaps an earlier entry, has a key of its own.
    #[must_use]
    pub(crate) fn put(&mut self, key: Key, entry: Entry) -> bool {
        self.is_late = !self.is_late;
        if !self.is_late {
            return self.map.put(key, entry).is_none();
        }
        let next = (self.late.len() >= LATE).then(|| self.late.pop_front()).flatten();
        self.late.push_back((key, entry));
        next.is_none_or(|(key, entry)| self.map.put(key, entry).is_none())
    }

    /// The filled map; none if two entries had the same key.
    pub(crate) fn finish(mut self) -> Option<StateMap> {
        let mut late = self.late.into_iter();
        late.all(|(key, entry)| self.map.put(key, entry).is_none()).then_some(self.map)
    }
}

/// Whether bounds select nothing because the end lies before the start.
pub(crate) fn is_reversed(bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => start >= end,
    }
}

/// All maps by name. A map that was never written is absent; one that was emptied may stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    maps: OrdMap<MapName, StateMap>,
}

impl State {
    pub(crate) fn map(&self, name: &MapName) -> Option<&StateMap> {
        self.maps.get(name)
    }

    pub(crate) fn map_mut(&mut self, name: &MapName) -> &mut StateMap {
        self.maps.entry(name.clone()).or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MapName, &StateMap)> {
        self.maps.iter()
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = (MapName, StateMap)> {
        self.maps.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>, Vec<u8>),
        Remove(Vec<u8>),
        Range(Bound<Vec<u8>>, Bound<Vec<u8>>),
        Keep,
        Restore,
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // Few enough to meet again, some too long to be inline.
        prop_oneof![
            prop::collection::vec(0u8..4, 0..3),
            prop::collection::vec(any::<u8>(), 2),
            (0u8..4).prop_map(|tail| [vec![7; 30], vec![tail]].concat()),
        ]
    }

    fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
        prop_oneof![
            Just(Bound::Unbounded),
            key().prop_map(Bound::Included),
            key().prop_map(Bound::Excluded),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (key(), prop::collection::vec(any::<u8>(), 0..90))
                .prop_map(|(key, value)| Step::Put(key, value)),
            3 => key().prop_map(Step::Remove),
            2 => (bound(), bound()).prop_map(|(start, end)| Step::Range(start, end)),
            1 => Just(Step::Keep),
            1 => Just(Step::Restore),
        ]
    }

    type Model = BTreeMap<Vec<u8>, (Seqno, Vec<u8>)>;

    fn listed<'a>(entries: impl Iterator<Item = (&'a Key, &'a Entry)>) -> Vec<(Vec<u8>, Seqno)> {
        entries.map(|(key, entry)| (key.to_vec(), entry.version)).collect()
    }

    fn matches(map: &StateMap, model: &Model) -> bool {
        map.len() == model.len()
            && map.is_empty() == model.is_empty()
            && map.iter().zip(model).all(|((key, entry), (model_key, (version, value)))| {
                **key == **model_key && entry.version == *version && *entry.value == **value
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_state_map_behaves_like_an_ordered_map(
            steps in prop::collection::vec(step(), 0..160),
        ) {
            let (mut map, mut model) = (StateMap::default(), Model::new());
            let mut kept = (map.clone(), model.clone());
            for (number, step) in steps.into_iter().enumerate() {
                let version = Seqno(number as u64 + 1);
                match step {
                    Step::Put(key, value) => {
                        let entry = Entry { version, value: value.as_slice().into() };
                        let old = map.put(key.as_slice().into(), entry);
                        let model_old = model.insert(key, (version, value));
                        prop_assert_eq!(
                            old.map(|entry| (entry.version, entry.value.to_vec())), model_old
                        );
                    }
                    Step::Remove(key) => {
                        let old = map.remove(&key).map(|entry| entry.version);
                        prop_assert_eq!(old, model.remove(&key).map(|(version, _)| version));
                    }
                    Step::Range(start, end) => {
                        let bounds = (
                            start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice),
                        );
                        let expected: Vec<_> = model
                            .iter()
                            .filter(|(key, _)| bounds.contains(key.as_slice()))
                            .map(|(key, (version, _))| (key.clone(), *version))
                            .collect();
                        prop_assert_eq!(listed(map.range(bounds)), expected);
                    }
                    Step::Keep => kept = (map.clone(), model.clone()),
                    Step::Restore => (map, model) = kept.clone(),
                }
                prop_assert!(matches(&map, &model));
                prop_assert!(matches(&kept.0, &kept.1), "a kept clone has changed");
            }
            let changed: Vec<_> = kept.0.changes(&map).map(|key| key.to_vec()).collect();
            let keys: std::collections::BTreeSet<_> =
                model.keys().chain(kept.1.keys()).cloned().collect();
            let expected: Vec<_> =
                keys.into_iter().filter(|key| model.get(key) != kept.1.get(key)).collect();
            prop_assert_eq!(changed, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_filled_map_holds_what_was_put_in(
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..300),
            in_order: bool,
        ) {
            let mut keys = keys;
            if in_order {
                keys.sort_unstable();
                keys.dedup();
            }
            let entry = |at: usize| Entry { version: Seqno(at as u64), value: "".into() };
            let mut filler = StateMapFiller::default();
            let all_new = keys
                .iter()
                .enumerate()
                .map(|(at, key)| filler.put(key.as_slice().into(), entry(at)))
                .fold(true, |all, new| all & new);
            let filled = filler.finish();
            let model: BTreeMap<_, _> = keys.iter().zip(0..).collect();
            prop_assert_eq!(all_new && filled.is_some(), model.len() == keys.len());
            if let Some(filled) = filled {
                let listed: Vec<_> = filled.iter().map(|(key, _)| key.to_vec()).collect();
                prop_assert_eq!(listed, model.keys().map(|key| key.to_vec()).collect::<Vec<_>>());
                for (key, at) in model {
                    let found = filled.get(key);
                    prop_assert!(!all_new || found == Some(&entry(at)));
                }
            }
        }

        #[test]
        fn changes_between_large_maps_are_found_past_what_they_share(
            size in 0u16..8_000,
            stride in 1u16..8,
            edits in prop::collection::vec((any::<u16>(), any::<bool>()), 0..300),
            emptied in (any::<u16>(), 0u16..2_000),
        ) {
            let entry = |version| Entry { version: Seqno(version), value: Value::default() };
            let (mut map, mut keys) = (StateMap::default(), BTreeMap::new());
            for key in (0..size).map(|key| key.wrapping_mul(stride)) {
                map.put(key.to_be_bytes().into(), entry(1));
                keys.insert(key, Seqno(1));
            }
            let (before, keys_before) = (map.clone(), keys.clone());
            let span = u16::MAX / 8;
            for key in (emptied.0 % span..).take(emptied.1.into()) {
                map.remove(&key.to_be_bytes());
                keys.remove(&key);
            }
            for (key, put) in edits {
                let key = key % span;
                if put {
                    map.put(key.to_be_bytes().into(), entry(2));
                    keys.insert(key, Seqno(2));
                } else {
                    map.remove(&key.to_be_bytes());
                    keys.remove(&key);
                }
            }
            let expected: Vec<_> = (0..=u16::MAX)
                .filter(|key| keys.get(key) != keys_before.get(key))
                .map(|key| key.to_be_bytes().to_vec())
                .collect();
            let found: Vec<_> = before.changes(&map).map(|key| key.to_vec()).collect();
            prop_assert_eq!(&found, &expected);
            let back: Vec<_> = map.changes(&before).map(|key| key.to_vec()).collect();
            prop_assert_eq!(&back, &expected);
        }
    }
}
