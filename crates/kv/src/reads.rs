//! What a transaction has read, and whether it would read the same again.

use std::ops::Bound;

use crate::state::{State, StateMap, is_reversed};
use crate::{Conflict, Key, MapName, Seqno};

/// Per map: keys with the version seen (or their absence), ranges walked, and the length if asked.
#[derive(Debug, Default)]
pub(crate) struct ReadSet {
    // Sorted by name.
    maps: Vec<MapReads>,
}

impl ReadSet {
    pub(crate) fn key(&mut self, map: &MapName, key: &[u8], version: Option<Seqno>) {
        if let Some(reads) = self.map(map) {
            reads.add_key(key.into(), version);
        }
    }

    /// A range of which `seen` stored entries were walked.
    pub(crate) fn range(&mut self, map: &MapName, bounds: (Bound<Key>, Bound<Key>), seen: usize) {
        if let Some(reads) = self.map(map) {
            reads.add_range(RangeRead { bounds, seen });
        }
    }

    pub(crate) fn len(&mut self, map: &MapName, len: usize) {
        if let Some(reads) = self.map(map) {
            reads.len = Some(len);
        }
    }

    /// Whether validation may take long, so that most of it is better done outside the lock.
    pub(crate) fn is_long(&self) -> bool {
        self.maps.iter().any(|map| {
            map.keys.len() > RangeRead::LONG || map.ranges.iter().any(RangeRead::is_long)
        })
    }

    /// Checks that everything read from `before` reads the same from `now`.
    pub(crate) fn validate(&self, before: &State, now: &State) -> Result<(), Conflict> {
        let empty = StateMap::default();
        for reads in &self.maps {
            let before = before.map(&reads.name).unwrap_or(&empty);
            let now = now.map(&reads.name).unwrap_or(&empty);
            if !before.is_same(now) && !reads.hold(before, now) {
                return Err(Conflict::Changed { map: reads.name.clone() });
            }
        }
        Ok(())
    }

    fn map(&mut self, name: &MapName) -> Option<&mut MapReads> {
        let at = self.maps.binary_search_by(|map| map.name.cmp(name)).unwrap_or_else(|at| {
            self.maps.insert(at, MapReads::new(name.clone()));
            at
        });
        self.maps.get_mut(at)
    }
}

#[derive(Debug)]
struct MapReads {
    name: MapName,
    keys: Vec<(Key, Option<Seqno>)>,
    // Doubles when that many different keys were read; repeated reads are dropped on the way.
    keys_limit: usize,
    ranges: Vec<RangeRead>,
    len: Option<usize>,
}

impl MapReads {
    const KEYS_LIMIT: usize = 64;
    const RANGES_LIMIT: usize = 64;

    fn new(name: MapName) -> Self {
        let (keys, ranges) = (Vec::new(), Vec::new());
        Self { name, keys, keys_limit: Self::KEYS_LIMIT, ranges, len: None }
    }

    fn add_key(&mut self, key: Key, version: Option<Seqno>) {
        if self.keys.len() >= self.keys_limit {
            self.keys.sort_unstable();
            self.keys.dedup();
            self.keys_limit = Self::KEYS_LIMIT.max(2 * self.keys.len());
        }
        self.keys.push((key, version));
    }

    fn add_range(&mut self, range: RangeRead) {
        if self.ranges.len() < Self::RANGES_LIMIT {
            self.ranges.push(range);
        } else {
            // One range over all of them: may conflict more often than needed, never less.
            let all = self.ranges.drain(..).fold(range, RangeRead::hull);
            self.ranges.push(all);
        }
    }

    fn hold(&self, before: &StateMap, now: &StateMap) -> bool {
        self.len.is_none_or(|len| len == now.len())
            && self.keys.iter().all(|(key, version)| now.version(key) == *version)
            && self.ranges.iter().filter(|range| !range.is_long()).all(|r| r.holds(before, now))
            && self.long_ranges_hold(before, now)
    }

    fn long_ranges_hold(&self, before: &StateMap, now: &StateMap) -> bool {
        let long: Vec<_> = self.ranges.iter().filter(|range| range.is_long()).collect();
        long.is_empty()
            || before.changes(now).all(|key| long.iter().all(|range| !range.contains(key)))
    }
}

#[derive(Debug)]
struct RangeRead {
    bounds: (Bound<Key>, Bound<Key>),
    seen: usize,
}

impl RangeRead {
    /// From here on it is cheaper to look at what changed between the two trees than to walk both.
    const LONG: usize = 128;

    fn is_long(&self) -> bool {
        self.seen > Self::LONG
    }

    fn as_slices(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.bounds.0.as_ref().map(Key::as_slice), self.bounds.1.as_ref().map(Key::as_slice))
    }

    fn contains(&self, key: &[u8]) -> bool {
        std::ops::RangeBounds::contains(&self.as_slices(), key)
    }

    fn holds(&self, before: &StateMap, now: &StateMap) -> bool {
        let versions = |map: &'_ StateMap| {
            map.range(self.as_slices())
                .map(|(key, entry)| (key.clone(), entry.version))
                .take(self.seen + 1)
                .collect::<Vec<_>>()
        };
        versions(before) == versions(now)
    }

    fn hull(self, other: Self) -> Self {
        let start = match (self.bounds.0, other.bounds.0) {
            (Bound::Included(a), Bound::Included(b) | Bound::Excluded(b))
            | (Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                Bound::Included(a.min(b))
            }
            _ => Bound::Unbounded,
        };
        let end = match (self.bounds.1, other.bounds.1) {
            (Bound::Included(a), Bound::Included(b) | Bound::Excluded(b))
            | (Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                Bound::Included(a.max(b))
            }
            _ => Bound::Unbounded,
        };
        // The hull may hold more than was seen of its parts: let it always count as long.
        Self { bounds: (start, end), seen: usize::MAX }
    }
}

/// Owned bounds of a range, `None` if it selects nothing whatever the map holds.
pub(crate) fn owned_bounds(
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
) -> Option<(Bound<Key>, Bound<Key>)> {
    (!is_reversed(bounds)).then(|| (bounds.0.map(Key::from), bounds.1.map(Key::from)))
}
