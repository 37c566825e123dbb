//! An immutable state of all maps.

use crate::state::State;
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
    /// The state that holds nothing but the writes of one transaction, as historical queries see
    /// it.
    pub fn of_writes(tx_id: TxId, writes: &WriteSet) -> Self {
        SnapshotBuilder::new(tx_id).build().with_writes(writes, tx_id)
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
    tx_id: TxId,
}

impl SnapshotBuilder {
    /// An empty state, said to be that just after `tx_id`.
    pub fn new(tx_id: TxId) -> Self {
        Self { state: State::default(), tx_id }
    }

    /// Adds an entry last written at `version`. Any order of keys will do.
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
        match self.state.map_mut(map).put(key.into(), entry) {
            Some(_) => Err(BadEntry::Twice { map: map.clone() }),
            None => Ok(()),
        }
    }

    /// The finished state.
    pub fn build(self) -> Snapshot {
        Snapshot { state: self.state, tx_id: self.tx_id, origin: None }
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
        let before = builder.build();
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
        let twice = BadEntry::Twice { map: map.clone() };
        assert_eq!(builder.insert(&map, "a", "", Seqno(4)), Err(twice));
    }

    #[test]
    fn emptied_maps_are_not_listed() {
        let map = MapName::new("records");
        let mut writes = WriteSet::new();
        writes.remove(&map, "a");
        assert_eq!(Snapshot::of_writes(TxId::new(2, 1), &writes).maps().count(), 0);
    }
}
