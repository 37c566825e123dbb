//! What it takes to go back.
//!
//! Rollback could keep old roots instead, but then no leaf that was touched since could be changed
//! in place: with random keys, each write of a batch would copy its path. A record of what each
//! write replaced costs a fraction of that.

use std::collections::VecDeque;

use crate::state::State;
use crate::{Entry, Key, MapName, Seqno};

/// What one write has replaced.
#[derive(Debug)]
struct Record {
    seqno: Seqno,
    map: MapName,
    key: Key,
    previous: Option<Entry>,
}

/// The records since the last compaction, in segments that are dropped as a whole.
#[derive(Debug, Default)]
pub(crate) struct UndoLog {
    segments: VecDeque<Segment>,
}

#[derive(Debug, Default)]
pub(crate) struct Segment {
    records: Vec<Record>,
    // The greatest seqno among them: a reserved transaction is filled after later ones.
    last: Seqno,
}

impl UndoLog {
    const SEGMENT_LEN: usize = 1024;

    pub(crate) fn push(&mut self, seqno: Seqno, map: &MapName, key: &Key, previous: Option<Entry>) {
        if self.segments.back().is_none_or(|last| last.records.len() >= Self::SEGMENT_LEN) {
            self.cut();
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.last = segment.last.max(seqno);
            segment.records.push(Record { seqno, map: map.clone(), key: key.clone(), previous });
        }
    }

    /// Starts a new segment: what follows will be committed, and dropped, later.
    pub(crate) fn cut(&mut self) {
        self.segments.push_back(Segment::default());
    }

    /// Takes out the segments that are not needed once everything up to `committed` is final.
    pub(crate) fn compact(&mut self, committed: Seqno) -> Vec<Segment> {
        let done = self.segments.iter().take_while(|segment| segment.last <= committed).count();
        self.segments.drain(..done).collect()
    }

    /// What a later transaction than `seqno` remembers to have replaced at a key, if there is one.
    pub(crate) fn replaced_after(
        &mut self,
        seqno: Seqno,
        map: &MapName,
        key: &[u8],
    ) -> Option<&mut Option<Entry>> {
        self.segments
            .iter_mut()
            .filter(|segment| segment.last > seqno)
            .flat_map(|segment| segment.records.iter_mut())
            .filter(|record| record.seqno > seqno && *record.key == *key && record.map == *map)
            .min_by_key(|record| record.seqno)
            .map(|record| &mut record.previous)
    }

    /// Undoes everything later than `to`.
    pub(crate) fn roll_back(&mut self, to: Seqno, state: &mut State) {
        let mut undone = Vec::new();
        for segment in self.segments.iter_mut().filter(|segment| segment.last > to) {
            undone.extend(segment.records.extract_if(.., |record| record.seqno > to));
            segment.last = to;
        }
        // Latest first. Only a reserved transaction's records are ever out of order.
        undone.sort_by_key(|record| record.seqno);
        for Record { map, key, previous, .. } in undone.into_iter().rev() {
            let map = state.map_mut(&map);
            match previous {
                Some(entry) => map.put(key, entry),
                None => map.remove(&key),
            };
        }
    }
}
