//! A transaction: reads a snapshot, keeps what it read, buffers what it writes.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow, RangeBounds};

use crate::reads::{ReadSet, owned_bounds};
use crate::state::StateMap;
use crate::writes::WritesRange;
use crate::{Entry, Key, MapName, Seqno, Snapshot, TxId, Value, WriteSet};

/// One atomic execution. It sees its snapshot and its own writes, nothing else; it takes effect
/// when it is given to [`Store::commit`](crate::Store::commit), and none if it is dropped.
#[derive(Debug)]
pub struct Tx {
    pub(crate) snapshot: Snapshot,
    pub(crate) reads: ReadSet,
    pub(crate) writes: WriteSet,
}

impl Tx {
    /// A transaction on any snapshot. It can be committed only if the snapshot is of the store's
    /// present line of history, see [`Conflict`](crate::Conflict).
    pub fn on(snapshot: Snapshot) -> Self {
        Self { snapshot, reads: ReadSet::default(), writes: WriteSet::new() }
    }

    /// The last transaction whose effects this one sees.
    pub fn read_tx_id(&self) -> TxId {
        self.snapshot.tx_id()
    }

    /// What this one reads, without its own writes. Looking at it is no read: nothing conflicts.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The value of a key.
    pub fn get(&mut self, map: &MapName, key: &[u8]) -> Option<Value> {
        if let Some(own) = self.own_write(map, key) {
            return own.cloned();
        }
        let entry = self.snapshot.map(map).and_then(|map| map.get(key));
        self.reads.key(map, key, entry.map(|entry| entry.version));
        entry.map(|entry| entry.value.clone())
    }

    /// Whether a key is present.
    pub fn has(&mut self, map: &MapName, key: &[u8]) -> bool {
        match self.own_write(map, key) {
            Some(own) => own.is_some(),
            None => self.version_of_previous_write(map, key).is_some(),
        }
    }

    /// The position of the last transaction before this one that put the key, if it is still
    /// there. Own writes do not count.
    pub fn version_of_previous_write(&mut self, map: &MapName, key: &[u8]) -> Option<Seqno> {
        let version = self.snapshot.map(map).and_then(|map| map.version(key));
        self.reads.key(map, key, version);
        version
    }

    /// The number of entries of a map.
    pub fn len(&mut self, map: &MapName) -> usize {
        let empty = StateMap::default();
        let stored = self.snapshot.map(map).unwrap_or(&empty);
        self.reads.len(map, stored.len());
        let (mut added, mut removed) = (0, 0);
        for (key, value) in self.writes.map(map).into_iter().flat_map(|own| own.iter()) {
            // Whether an own write changes the length depends on what is stored.
            let version = stored.version(key);
            self.reads.key(map, key, version);
            added += usize::from(version.is_none() && value.is_some());
            removed += usize::from(version.is_some() && value.is_none());
        }
        stored.len() + added - removed
    }

    /// Calls `visit` for every entry of a map in order of the keys, until it breaks.
    pub fn for_each(&mut self, map: &MapName, visit: impl FnMut(&[u8], &Value) -> ControlFlow<()>) {
        self.range(map, .., visit);
    }

    /// Calls `visit` for the entries within `bounds` in order of the keys, until it breaks. Only
    /// the part that was walked is part of the read set.
    pub fn range(
        &mut self,
        map: &MapName,
        bounds: impl RangeBounds<[u8]>,
        mut visit: impl FnMut(&[u8], &Value) -> ControlFlow<()>,
    ) {
        let bounds = (bounds.start_bound(), bounds.end_bound());
        let Some((start, mut end)) = owned_bounds(bounds) else { return };
        let mut seen = 0;
        let own = self.writes.map(map).map(|own| own.range(bounds));
        let stored = self.snapshot.map(map).into_iter().flat_map(|stored| stored.range(bounds));
        let stored = stored.inspect(|_| seen += 1);
        for (key, value) in Merged::new(stored, own) {
            if visit(key, value).is_break() {
                end = Bound::Included(key.clone());
                break;
            }
        }
        self.reads.range(map, (start, end), seen);
    }

    /// Puts a value.
    pub fn put(&mut self, map: &MapName, key: impl Into<Key>, value: impl Into<Value>) {
        self.writes.put(map, key, value);
    }

    /// Removes a key, present or not.
    pub fn remove(&mut self, map: &MapName, key: impl Into<Key>) {
        self.writes.remove(map, key);
    }

    /// Removes every key of a map; conflicts with any concurrent change of the map.
    pub fn clear(&mut self, map: &MapName) {
        let stored = self.snapshot.map(map);
        let seen = stored.map_or(0, StateMap::len);
        self.reads.range(map, (Bound::Unbounded, Bound::Unbounded), seen);
        let keys = stored.into_iter().flat_map(|stored| stored.iter().map(|(key, _)| key.clone()));
        self.writes.replace_by_removals(map, keys);
    }

    /// Whether anything would be written.
    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// What would be written.
    pub fn writes(&self) -> &WriteSet {
        &self.writes
    }

    /// Forgets all writes so far; what was read stays read.
    pub fn discard_writes(&mut self) {
        self.writes = WriteSet::new();
    }

    fn own_write(&self, map: &MapName, key: &[u8]) -> Option<Option<&Value>> {
        self.writes.map(map)?.get(key)
    }
}

/// Stored entries overlaid with own writes, in order of the keys.
struct Merged<'a, Stored: Iterator> {
    stored: Peekable<Stored>,
    own: Peekable<std::iter::Flatten<std::option::IntoIter<WritesRange<'a>>>>,
}

impl<'a, Stored: Iterator<Item = (&'a Key, &'a Entry)>> Merged<'a, Stored> {
    fn new(stored: Stored, own: Option<WritesRange<'a>>) -> Self {
        Self { stored: stored.peekable(), own: own.into_iter().flatten().peekable() }
    }
}

impl<'a, Stored: Iterator<Item = (&'a Key, &'a Entry)>> Iterator for Merged<'a, Stored> {
    type Item = (&'a Key, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.stored.peek(), self.own.peek()) {
                (Some((stored, _)), Some((own, _))) => stored.cmp(own),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if order.is_lt() {
                return self.stored.next().map(|(key, entry)| (key, &entry.value));
            }
            if order.is_eq() {
                self.stored.next();
            }
            match self.own.next()? {
                (key, Some(value)) => return Some((key, value)),
                (_, None) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SnapshotBuilder;

    fn stored(keys: &[&str]) -> (Tx, MapName) {
        let map = MapName::new("records");
        let mut builder = SnapshotBuilder::new(TxId::new(2, 9));
        for key in keys {
            assert_eq!(builder.insert(&map, *key, *key, Seqno(7)), Ok(()));
        }
        (Tx::on(builder.build().unwrap()), map)
    }

    fn keys(tx: &mut Tx, map: &MapName, bounds: impl RangeBounds<[u8]>) -> Vec<String> {
        let mut keys = Vec::new();
        tx.range(map, bounds, |key, _| {
            keys.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        });
        keys
    }

    #[test]
    fn own_writes_are_visible_to_every_kind_of_read() {
        let (mut tx, map) = stored(&["a", "c", "e"]);
        tx.put(&map, "b", "new");
        tx.put(&map, "c", "changed");
        tx.remove(&map, "e");
        tx.remove(&map, "z");
        assert_eq!(tx.get(&map, b"c").as_deref(), Some(b"changed".as_slice()));
        assert_eq!(tx.get(&map, b"e"), None);
        assert!(tx.has(&map, b"b") && !tx.has(&map, b"e") && tx.has(&map, b"a"));
        assert_eq!(tx.len(&map), 3);
        assert_eq!(keys(&mut tx, &map, ..), ["a", "b", "c"]);
        let after_a = (Bound::Excluded(b"a".as_slice()), Bound::Excluded(b"c".as_slice()));
        assert_eq!(keys(&mut tx, &map, after_a), ["b"]);
        assert_eq!(tx.version_of_previous_write(&map, b"c"), Some(Seqno(7)));
        assert_eq!(tx.version_of_previous_write(&map, b"b"), None);
    }

    #[test]
    fn clear_removes_what_is_stored_and_forgets_what_was_put() {
        let (mut tx, map) = stored(&["a", "c"]);
        tx.put(&map, "b", "new");
        tx.clear(&map);
        assert_eq!((tx.len(&map), tx.has(&map, b"a")), (0, false));
        let written = tx.writes().map(&map).map(|map| map.removals().count());
        assert_eq!(written, Some(2));
        tx.put(&map, "d", "again");
        assert_eq!(keys(&mut tx, &map, ..), ["d"]);
        tx.discard_writes();
        assert_eq!(keys(&mut tx, &map, ..), ["a", "c"]);
        assert!(!tx.has_writes());
    }

    #[test]
    fn clearing_an_empty_map_writes_nothing() {
        let (mut tx, map) = stored(&[]);
        tx.put(&map, "b", "new");
        tx.clear(&map);
        assert!(!tx.has_writes());
    }

    #[test]
    fn reversed_bounds_select_nothing() {
        let (mut tx, map) = stored(&["a", "b"]);
        tx.put(&map, "c", "own");
        let reversed = (Bound::Included(b"b".as_slice()), Bound::Included(b"a".as_slice()));
        assert!(keys(&mut tx, &map, reversed).is_empty());
    }
}
