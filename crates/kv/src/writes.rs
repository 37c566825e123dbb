//! What a transaction writes.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use crate::{Key, MapName, Value};

/// The effect of one transaction: per map, keys put and keys removed. Ordered by map name, then by
/// key, both bytewise; the last write to a key wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    // Sorted by name; no map without a write.
    maps: Vec<MapWrites>,
}

impl WriteSet {
    /// Writes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// The number of writes over all maps.
    pub fn len(&self) -> usize {
        self.maps.iter().map(MapWrites::len).sum()
    }

    /// The maps written to, in order of their names.
    pub fn maps(&self) -> impl ExactSizeIterator<Item = &MapWrites> {
        self.maps.iter()
    }

    /// The writes to one map.
    pub fn map(&self, name: &MapName) -> Option<&MapWrites> {
        self.position(name).ok().and_then(|at| self.maps.get(at))
    }

    /// Puts a value.
    pub fn put(&mut self, map: &MapName, key: impl Into<Key>, value: impl Into<Value>) {
        self.write(map, key.into(), Some(value.into()));
    }

    /// Removes a key.
    pub fn remove(&mut self, map: &MapName, key: impl Into<Key>) {
        self.write(map, key.into(), None);
    }

    pub(crate) fn write(&mut self, map: &MapName, key: Key, value: Option<Value>) {
        let at = self.position(map).unwrap_or_else(|at| {
            self.maps.insert(at, MapWrites::new(map.clone()));
            at
        });
        if let Some(map) = self.maps.get_mut(at) {
            map.writes.insert(key, value);
        }
    }

    /// Makes removals of `keys` all that is written to a map.
    pub(crate) fn replace_by_removals(
        &mut self,
        map: &MapName,
        keys: impl IntoIterator<Item = Key>,
    ) {
        if let Ok(at) = self.position(map) {
            self.maps.remove(at);
        }
        for key in keys {
            self.write(map, key, None);
        }
    }

    fn position(&self, name: &MapName) -> Result<usize, usize> {
        self.maps.binary_search_by(|map| map.name.cmp(name))
    }
}

/// The writes to one map, in order of their keys; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapWrites {
    name: MapName,
    writes: Writes,
}

impl MapWrites {
    fn new(name: MapName) -> Self {
        Self { name, writes: Writes::Few(Vec::new()) }
    }

    /// The name of the map.
    pub fn name(&self) -> &MapName {
        &self.name
    }

    /// The number of writes.
    pub fn len(&self) -> usize {
        match &self.writes {
            Writes::Few(writes) => writes.len(),
            Writes::Many(writes) => writes.len(),
        }
    }

    /// Whether there is none; a map within a write set has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All writes: a value put, or `None` for a removal.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, Option<&Value>)> {
        self.range((Bound::Unbounded, Bound::Unbounded))
    }

    /// The keys put and their values.
    pub fn puts(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.iter().filter_map(|(key, value)| Some((key, value?)))
    }

    /// The keys removed.
    pub fn removals(&self) -> impl Iterator<Item = &Key> {
        self.iter().filter_map(|(key, value)| value.is_none().then_some(key))
    }

    /// What is written to a key: `None` nothing, `Some(None)` a removal.
    pub fn get(&self, key: &[u8]) -> Option<Option<&Value>> {
        match &self.writes {
            Writes::Few(writes) => {
                let at = writes.binary_search_by(|(other, _)| other.as_slice().cmp(key)).ok()?;
                writes.get(at).map(|(_, value)| value.as_ref())
            }
            Writes::Many(writes) => writes.get(key).map(Option::as_ref),
        }
    }

    /// The writes within bounds, which must not be reversed.
    pub(crate) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> WritesRange<'_> {
        match &self.writes {
            Writes::Few(writes) => {
                let start = writes.partition_point(|(key, _)| match bounds.0 {
                    Bound::Unbounded => false,
                    Bound::Included(start) => key.as_slice() < start,
                    Bound::Excluded(start) => key.as_slice() <= start,
                });
                let end = writes.partition_point(|(key, _)| match bounds.1 {
                    Bound::Unbounded => true,
                    Bound::Included(end) => key.as_slice() <= end,
                    Bound::Excluded(end) => key.as_slice() < end,
                });
                WritesRange::Few(writes.get(start..end).unwrap_or_default().iter())
            }
            Writes::Many(writes) => WritesRange::Many(writes.range::<[u8], _>(bounds)),
        }
    }
}

/// A short sorted list is the fastest for the usual transaction; a tree keeps a long one from
/// costing the square of its length.
#[derive(Clone, Debug)]
enum Writes {
    Few(Vec<(Key, Option<Value>)>),
    Many(BTreeMap<Key, Option<Value>>),
}

impl Writes {
    const FEW: usize = 64;

    fn insert(&mut self, key: Key, value: Option<Value>) {
        match self {
            Self::Few(writes) => match writes.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(at) => {
                    if let Some((_, old)) = writes.get_mut(at) {
                        *old = value;
                    }
                }
                Err(at) if writes.len() < Self::FEW => writes.insert(at, (key, value)),
                Err(_) => {
                    let mut many: BTreeMap<_, _> = std::mem::take(writes).into_iter().collect();
                    many.insert(key, value);
                    *self = Self::Many(many);
                }
            },
            Self::Many(writes) => {
                writes.insert(key, value);
            }
        }
    }

    fn iter(&self) -> WritesRange<'_> {
        match self {
            Self::Few(writes) => WritesRange::Few(writes.iter()),
            Self::Many(writes) => {
                WritesRange::Many(writes.range::<[u8], _>((Bound::Unbounded, Bound::Unbounded)))
            }
        }
    }
}

impl PartialEq for Writes {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Writes {}

/// Iterator over writes in order of their keys.
pub(crate) enum WritesRange<'a> {
    Few(std::slice::Iter<'a, (Key, Option<Value>)>),
    Many(btree_map::Range<'a, Key, Option<Value>>),
}

impl<'a> Iterator for WritesRange<'a> {
    type Item = (&'a Key, Option<&'a Value>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(writes) => writes.next().map(|(key, value)| (key, value.as_ref())),
            Self::Many(writes) => writes.next().map(|(key, value)| (key, value.as_ref())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn maps_come_in_order_of_their_names() {
        let mut writes = WriteSet::new();
        for name in ["records", "public:a", "a"] {
            writes.put(&MapName::new(name), "key", "value");
        }
        let names: Vec<_> = writes.maps().map(|map| map.name().as_str()).collect();
        assert_eq!(names, ["a", "public:a", "records"]);
    }

    #[test]
    fn a_map_whose_writes_are_all_dropped_is_not_listed() {
        let map = MapName::new("records");
        let mut writes = WriteSet::new();
        writes.put(&map, "key", "value");
        writes.replace_by_removals(&map, []);
        assert!(writes.is_empty());
        assert_eq!(writes.map(&map), None);
    }

    proptest! {
        #[test]
        fn a_write_set_behaves_like_an_ordered_map(
            steps in prop::collection::vec((0u16..150, any::<Option<u8>>()), 0..300),
            bounds in (0u16..150, 0u16..150),
        ) {
            let map = MapName::new("records");
            let (mut writes, mut model) = (WriteSet::new(), BTreeMap::new());
            for (key, value) in steps {
                let key = key.to_be_bytes();
                writes.write(&map, key.into(), value.map(|byte| [byte].into()));
                model.insert(key, value);
            }
            prop_assert_eq!(writes.len(), model.len());
            prop_assert_eq!(writes.is_empty(), model.is_empty());
            let Some(written) = writes.map(&map) else { return Ok(()) };
            let flat = |(key, value): (&Key, Option<&Value>)| {
                (key.to_vec(), value.map(|value| value[0]))
            };
            let all: Vec<_> = written.iter().map(flat).collect();
            let expected: Vec<_> =
                model.iter().map(|(key, value)| (key.to_vec(), *value)).collect();
            prop_assert_eq!(&all, &expected);
            prop_assert_eq!(written.puts().count() + written.removals().count(), all.len());
            for (key, value) in &model {
                let found = written.get(key).map(|value| value.map(|bytes| bytes[0]));
                prop_assert_eq!(found, Some(*value));
            }
            let (start, end) = (bounds.0.min(bounds.1).to_be_bytes(), bounds.1.to_be_bytes());
            let between = (Bound::Included(start.as_slice()), Bound::Included(end.as_slice()));
            let part: Vec<_> = written.range(between).map(flat).collect();
            let expected: Vec<_> = expected
                .into_iter()
                .filter(|(key, _)| start.as_slice() <= key && key.as_slice() <= end.as_slice())
                .collect();
            prop_assert_eq!(part, expected);
        }
    }
}
