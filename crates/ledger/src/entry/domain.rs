//! The writes of one domain, public or private, as bytes.
//!
//! ```text
//! repeated, by map name:
//!     u64 length, map name
//!     u64 0                     (version of a read set that is never written)
//!     u64 0                     (its size)
//!     u64 count, by key: { u64 length, key, u64 length, value }
//!     u64 count, by key: { u64 length, key }               removals
//! ```

use std::str;

use coco_kv::{MapName, MapWrites, WriteSet};

use crate::bytes::{Cursor, Truncated};

/// The fixed part of a map's block: five numbers of 8 bytes.
const BLOCK_BYTES: usize = 5 * 8;

/// The writes of a domain could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The bytes end before the writes do.
    #[error("the writes are cut short: {0}")]
    Truncated(#[from] Truncated),
    /// A map's name is not text.
    #[error("a map name is not UTF-8")]
    NameNotUtf8,
    /// A public map among the private ones, or the reverse.
    #[error("map {map:?} is in the wrong domain")]
    WrongDomain {
        /// The map's name.
        map: String,
    },
    /// A read set, which no ledger has.
    #[error("map {map:?} has {reads} recorded reads")]
    ReadsPresent {
        /// The map's name.
        map: String,
        /// How many.
        reads: u64,
    },
    /// Maps or keys are not in ascending order, or come twice.
    #[error("map {map:?} is out of order, or one of its keys is")]
    OutOfOrder {
        /// The map's name.
        map: String,
    },
}

/// Whether a domain is plaintext or encrypted on the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    Public,
    Private,
}

impl Visibility {
    pub fn holds(self, name: &str) -> bool {
        name.starts_with("public:") == (self == Self::Public)
    }
}

/// Bytes that the writes to one map take.
pub(super) fn block_bytes(map: &MapWrites) -> usize {
    let writes = map.iter().map(|(key, value)| 8 + key.len() + value.map_or(0, |v| 8 + v.len()));
    BLOCK_BYTES + map.name().as_str().len() + writes.sum::<usize>()
}

/// Appends the writes to one map.
pub(super) fn write_block(out: &mut Vec<u8>, map: &MapWrites) {
    let puts = map.puts().count();
    write_bytes64(out, map.name().as_str().as_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&(puts as u64).to_le_bytes());
    for (key, value) in map.puts() {
        write_bytes64(out, key);
        write_bytes64(out, value);
    }
    out.extend_from_slice(&((map.len() - puts) as u64).to_le_bytes());
    for key in map.removals() {
        write_bytes64(out, key);
    }
}

fn write_bytes64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The writes to one map, in the entry's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapBlock<'a> {
    /// The map's name.
    pub name: &'a str,
    /// Keys put and their values, by key.
    pub puts: Vec<(&'a [u8], &'a [u8])>,
    /// Keys removed, by key.
    pub removals: Vec<&'a [u8]>,
}

/// The blocks of a domain, one after the other; ends at the first error.
pub(crate) struct MapBlocks<'a> {
    cursor: Cursor<'a>,
    visibility: Visibility,
    previous: Option<&'a str>,
    failed: bool,
}

impl<'a> MapBlocks<'a> {
    pub fn new(bytes: &'a [u8], visibility: Visibility) -> Self {
        Self { cursor: Cursor::new(bytes), visibility, previous: None, failed: false }
    }

    /// All writes, copied.
    pub fn into_write_set(self) -> Result<WriteSet, DomainError> {
        let mut writes = WriteSet::new();
        for block in self {
            let block = block?;
            let name = MapName::new(block.name);
            for (key, value) in &block.puts {
                writes.put(&name, *key, *value);
            }
            for key in &block.removals {
                writes.remove(&name, *key);
            }
            let distinct = writes.map(&name).map_or(0, MapWrites::len);
            if distinct != block.puts.len() + block.removals.len() {
                return Err(DomainError::OutOfOrder { map: block.name.to_owned() });
            }
        }
        Ok(writes)
    }

    fn block(&mut self) -> Result<MapBlock<'a>, DomainError> {
        let cursor = &mut self.cursor;
        let name = str::from_utf8(cursor.bytes64()?).map_err(|_| DomainError::NameNotUtf8)?;
        let map = || name.to_owned();
        if !self.visibility.holds(name) {
            return Err(DomainError::WrongDomain { map: map() });
        }
        let _read_version = cursor.u64()?;
        let reads = cursor.u64()?;
        if reads != 0 {
            return Err(DomainError::ReadsPresent { map: map(), reads });
        }
        let mut block = MapBlock { name, puts: Vec::new(), removals: Vec::new() };
        // Counts are not trusted for allocation: each round reads its bytes or fails.
        for _ in 0..cursor.u64()? {
            block.puts.push((cursor.bytes64()?, cursor.bytes64()?));
        }
        for _ in 0..cursor.u64()? {
            block.removals.push(cursor.bytes64()?);
        }
        let ascending = self.previous.is_none_or(|previous| previous < name)
            && block.puts.is_sorted_by(|(left, _), (right, _)| left < right)
            && block.removals.is_sorted_by(|left, right| left < right);
        if !ascending {
            return Err(DomainError::OutOfOrder { map: map() });
        }
        self.previous = Some(name);
        Ok(block)
    }
}

impl<'a> Iterator for MapBlocks<'a> {
    type Item = Result<MapBlock<'a>, DomainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.cursor.is_empty() {
            return None;
        }
        let block = self.block();
        self.failed = block.is_err();
        Some(block)
    }
}
