//! The maps of a snapshot, read from plaintext that comes in pieces.

use coco_kv::{MapName, Seqno, Snapshot, SnapshotBuilder};

use super::{SnapshotError, padding};
use crate::bytes::{Cursor, Truncated};
use crate::entry::Visibility;

/// Reads one domain after the other.
pub(super) struct MapsReader {
    builder: SnapshotBuilder,
    /// The map whose entries come next, and how many bytes of them are left.
    current: Option<(MapName, u64)>,
    /// The map before, in the same domain.
    previous: Option<(Visibility, MapName)>,
}

impl MapsReader {
    pub fn new(builder: SnapshotBuilder) -> Self {
        Self { builder, current: None, previous: None }
    }

    /// Reads what stands whole in `bytes`, and leaves only what does not. After `bytes` the domain
    /// has so many `more`.
    pub fn read(
        &mut self,
        bytes: &mut Vec<u8>,
        domain: Visibility,
        more: u64,
    ) -> Result<(), SnapshotError> {
        let mut rest = Cursor::new(bytes);
        loop {
            let is_whole = match &mut self.current {
                None if rest.is_empty() => break,
                None => self.begin_map(&mut rest, domain, more)?,
                Some((_, 0)) => {
                    self.current = None;
                    true
                }
                Some((map, left)) => read_entry(&mut self.builder, map, left, &mut rest)?,
            };
            if !is_whole {
                break;
            }
        }
        let read = rest.offset();
        bytes.drain(..read);
        Ok(())
    }

    /// The state of everything read.
    pub fn finish(self) -> Result<Snapshot, SnapshotError> {
        Ok(self.builder.build()?)
    }

    /// Whether the head of the map is there.
    fn begin_map(
        &mut self,
        rest: &mut Cursor<'_>,
        domain: Visibility,
        more: u64,
    ) -> Result<bool, SnapshotError> {
        let mut cursor = *rest;
        let read = |cursor: &mut Cursor<'_>| {
            let name = cursor.bytes64()?;
            let _version = cursor.u64()?;
            Ok::<_, Truncated>((name.to_vec(), cursor.u64()?))
        };
        let (name, state_bytes) = match read(&mut cursor) {
            Err(_) if more > 0 => return Ok(false),
            read => read?,
        };
        let fault = |map: &str, fault| SnapshotError::Map { map: map.to_owned(), fault };
        let name = std::str::from_utf8(&name).map_err(|_| fault("", "the name is not UTF-8"))?;
        if !domain.holds(name) {
            return Err(fault(name, "it is in the wrong domain"));
        }
        let previous = self.previous.as_ref().filter(|(of, _)| *of == domain);
        if previous.is_some_and(|(_, previous)| previous.as_str() >= name) {
            return Err(fault(name, "it is out of order"));
        }
        if state_bytes > cursor.rest().len() as u64 + more {
            return Err(fault(name, "it ends after its domain"));
        }
        let name = MapName::new(name);
        self.previous = Some((domain, name.clone()));
        self.current = Some((name, state_bytes));
        *rest = cursor;
        Ok(true)
    }
}

/// Whether the next entry of `map`, of which so many bytes are `left`, is there.
fn read_entry(
    builder: &mut SnapshotBuilder,
    map: &MapName,
    left: &mut u64,
    rest: &mut Cursor<'_>,
) -> Result<bool, SnapshotError> {
    let fault = |fault| SnapshotError::Map { map: map.as_str().to_owned(), fault };
    let there = rest.rest();
    let within = usize::try_from(*left).ok().and_then(|left| there.get(..left));
    let mut cursor = Cursor::new(within.unwrap_or(there));
    let entry = match MapEntry::split(&mut cursor) {
        Ok(entry) => entry.ok_or_else(|| fault("a value has no version"))?,
        Err(_) if within.is_none() => return Ok(false),
        Err(truncated) => return Err(truncated.into()),
    };
    // Before CCF 3.0 a version was signed, and a negative one marked a removed key.
    if i64::try_from(entry.version).is_ok() {
        builder.insert(map, entry.key, entry.value, Seqno(entry.version))?;
    }
    let len_bytes = cursor.offset() as u64;
    *left -= len_bytes;
    rest.take(len_bytes)?;
    Ok(true)
}

struct MapEntry<'a> {
    key: &'a [u8],
    version: u64,
    value: &'a [u8],
}

impl<'a> MapEntry<'a> {
    /// Nothing if there is no room for a version.
    fn split(cursor: &mut Cursor<'a>) -> Result<Option<Self>, Truncated> {
        let key = cursor.bytes64()?;
        cursor.take(padding(key.len() as u64))?;
        let Some(value_bytes) = cursor.u64()?.checked_sub(8) else { return Ok(None) };
        let version = cursor.u64()?;
        let value = cursor.take(value_bytes)?;
        cursor.take(padding(value_bytes))?;
        Ok(Some(Self { key, version, value }))
    }
}
