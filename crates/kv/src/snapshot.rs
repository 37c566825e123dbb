//! An immutable state of all maps.

use crate::state::{State, StateMapFiller};
use crate::{Entry, Key, MapName, Seqno, StateMap, TxId, Value, WriteSet};

/// The state just after one transaction. Cheap to clone and to hold; whoever holds it never blocks
/// a writer.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) state: State,
    pub(crate) tx_id: TxId,
    pub(crate) origin: Option<Origin>,
}

/// Where in which store's life a snapshot was taken; made-up states have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Changes with every rollback, unique in the process.
    pub(crate) lineage: u64,
    /// Counts the changes of the head within the lineage.
    pub(crate) generation: u64,
}

impl Snapshot {
    /// No maps, said to be the state just after `tx_id`.
    pub fn empty(tx_id: TxId) -> Self {
        Self { state: State::default(), tx_id, origin: None }
    }

    /// The state that holds nothing but the writes of one transaction, as historical queries see
    /// it.
    pub fn of_writes(tx_id: TxId, writes: &WriteSet) -> Self {
        Self::empty(tx_id).with_writes(writes, tx_id)
    }

    /// The last transaction whose effects are in the state.
    pub fn tx_id(&self) -> TxId {
        self.tx_id
    }

    /// One map, if it was ever written.
    pub fn map(&self, name: &MapName) -> Option<&StateMap> {
        self.state.map(name)
    }

    /// All maps that hold anything, in order of their names.
    pub fn maps(&self) -> impl Iterator<Item = (&MapName, &StateMap)> {
        self.state.iter().filter(|(_, map)| !map.is_empty())
    }

    /// All maps that hold anything, in order of their names.
    pub fn into_maps(self) -> impl Iterator<Item = (MapName, StateMap)> {
        self.state.into_iter().filter(|(_, map)| !map.is_empty())
    }

    /// The same state with the writes of transaction `at` on top. Transactions on the result
    /// cannot be committed.
    pub fn with_writes(&self, writes: &WriteSet, at: TxId) -> Self {
        let mut state = self.state.clone();
        for written in writes.maps() {
            let map = state.map_mut(written.name());
            for (key, value) in written.iter() {
                match value {
                    Some(value) => {
                        let entry = Entry { version: at.seqno, value: value.clone() };
                        map.put(key.clone(), entry);
                    }
                    None => {
                        map.remove(key);
                    }
                }
            }
        }
        Self { state, tx_id: at, origin: None }
    }
}

/// Builds a snapshot from its entries, as read from a snapshot file.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: State,
    /// The map that entries are being added to, which the state lacks meanwhile.
    filling: Option<(MapName, StateMapFiller)>,
    tx_id: TxId,
}

impl SnapshotBuilder {
    /// An empty state, said to be that just after `tx_id`.
    pub fn new(tx_id: TxId) -> Self {
        Self { state: State::default(), filling: None, tx_id }
    }

    /// Adds an entry last written at `version`. Any order will do; that of maps and keys is best. A
    /// key that comes twice may be noticed only later.
    ///
    /// # Errors
    /// If such an entry cannot be.
    pub fn insert(
        &mut self,
        map: &MapName,
        key: impl Into<Key>,
        value: impl Into<Value>,
        version: Seqno,
    ) -> Result<(), BadEntry> {
        if version > self.tx_id.seqno {
            return Err(BadEntry::TooLate {
                map: map.clone(),
                version,
                snapshot: self.tx_id.seqno,
            });
        }
        let entry = Entry { version, value: value.into() };
        let is_new = match &mut self.filling {
            Some((name, filler)) if name == map => filler.put(key.into(), entry),
            _ => {
                self.finish_map()?;
                let begun = std::mem::take(self.state.map_mut(map));
                let (_, filler) = self.filling.insert((map.clone(), StateMapFiller::new(begun)));
                filler.put(key.into(), entry)
            }
        };
        is_new.then_some(()).ok_or_else(|| BadEntry::Twice { map: map.clone() })
    }

    /// The finished state.
    ///
    /// # Errors
    /// If a key came twice.
    pub fn build(mut self) -> Result<Snapshot, BadEntry> {
        self.finish_map()?;
        Ok(Snapshot { state: self.state, tx_id: self.tx_id, origin: None })
    }

    fn finish_map(&mut self) -> Result<(), BadEntry> {
        let Some((name, filler)) = self.filling.take() else { return Ok(()) };
        match filler.finish() {
            Some(map) => *self.state.map_mut(&name) = map,
            None => return Err(BadEntry::Twice { map: name }),
        }
        Ok(())
    }
}

/// An entry that cannot be part of the snapshot that is being built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// The map holds the key already.
    #[error("a key of map {map:?} comes twice")]
    Twice {
        /// The map.
        map: MapName,
    },
    /// The entry was written after the snapshot.
    #[error("an entry of map {map:?} is of {version}, the snapshot of {snapshot}")]
    TooLate {
        /// The map.
        map: MapName,
        /// The position of the entry's last write.
        version: Seqno,
        /// The position of the snapshot.
        snapshot: Seqno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_on_top_leave_the_snapshot_alone() {
        let map = MapName::new("records");
        let mut builder = SnapshotBuilder::new(TxId::new(2, 5));
        assert_eq!(builder.insert(&map, "a", "old", Seqno(3)), Ok(()));
        assert_eq!(builder.insert(&map, "b", "old", Seqno(4)), Ok(()));
        let before = builder.build().unwrap();
        let mut writes = WriteSet::new();
        writes.put(&map, "a", "new");
        writes.remove(&map, "b");
        let after = before.with_writes(&writes, TxId::new(3, 6));
        let listed = |snapshot: &Snapshot| -> Vec<(Vec<u8>, Vec<u8>, Seqno)> {
            let entries = snapshot.map(&map).into_iter().flat_map(|map| map.iter());
            entries.map(|(key, e)| (key.to_vec(), e.value.to_vec(), e.version)).collect()
        };
        let entry = |key: &str, value: &str, version| (key.into(), value.into(), Seqno(version));
        assert_eq!(listed(&after), [entry("a", "new", 6)]);
        assert_eq!(listed(&before), [entry("a", "old", 3), entry("b", "old", 4)]);
        assert_eq!((before.tx_id(), after.tx_id()), (TxId::new(2, 5), TxId::new(3, 6)));
        let only = Snapshot::of_writes(TxId::new(3, 6), &writes);
        assert_eq!(listed(&only), listed(&after));
    }

    #[test]
    fn an_impossible_entry_is_refused() {
        let map = MapName::new("records");
        let mut builder = SnapshotBuilder::new(TxId::new(2, 5));
        let (version, snapshot) = (Seqno(6), Seqno(5));
        let too_late = BadEntry::TooLate { map: map.clone(), version, snapshot };
        assert_eq!(builder.insert(&map, "a", "", version), Err(too_late));
        assert_eq!(builder.insert(&map, "a", "", Seqno(5)), Ok(()));
        assert_eq!(builder.insert(&map, "b", "", Seqno(4)), Ok(()));
        assert_eq!(builder.insert(&map, "a", "", Seqno(4)), Ok(()));
        assert_eq!(builder.build().err(), Some(BadEntry::Twice { map }));
    }

    #[test]
    fn maps_may_be_begun_again() {
        let [one, other] = ["one", "other"].map(MapName::new);
        let mut builder = SnapshotBuilder::new(TxId::new(2, 5));
        for (map, key) in [(&one, "a"), (&other, "a"), (&one, "b"), (&other, "b"), (&one, "c")] {
            assert_eq!(builder.insert(map, key, "", Seqno(1)), Ok(()));
        }
        let built = builder.build().unwrap();
        let lengths: Vec<_> = built.maps().map(|(name, map)| (name.as_str(), map.len())).collect();
        assert_eq!(lengths, [("one", 3), ("other", 2)]);
    }

    #[test]
    fn what_is_taken_apart_is_what_was_there() {
        let (map, other) = (MapName::new("records"), MapName::new("other"));
        let mut builder = SnapshotBuilder::new(TxId::new(2, 500));
        for number in 1..=500_u64 {
            builder.insert(&map, number.to_be_bytes(), vec![7; 100], Seqno(number)).unwrap();
        }
        builder.insert(&other, "key", "value", Seqno(1)).unwrap();
        let whole = builder.build().unwrap();
        let expected: Vec<_> = whole
            .maps()
            .flat_map(|(name, map)| {
                map.iter().map(|(key, e)| (name.clone(), key.clone(), e.clone()))
            })
            .collect();
        let apart = whole.clone().into_maps().flat_map(|(name, map)| {
            map.into_entries().map(move |(key, entry)| (name.clone(), key, entry))
        });
        assert_eq!(apart.collect::<Vec<_>>(), expected);
        assert_eq!(whole.map(&map).map(StateMap::len), Some(500), "others still have it");
    }

    #[test]
    fn emptied_maps_are_not_listed() {
        let map = MapName::new("records");
        let mut writes = WriteSet::new();
        writes.remove(&map, "a");
        assert_eq!(Snapshot::of_writes(TxId::new(2, 1), &writes).maps().count(), 0);
    }
}
