//! The entries that are kept in memory: what the engine calls its storage.
//!
//! ```text
//!       start               entries
//!   ┌───────────┬───────┬───────┬───────┬───────┐
//!   │ index 40  │  41   │  42   │  43   │  44   │     the engine's positions
//!   │ ends 1210 │ 1215  │ 1215  │ 1240  │ 1241  │     the ledger ends there
//!   └───────────┴───────┴───────┴───────┴───────┘
//!    what came     batch   blank   batch   batch
//!    before is on                   ▲ applied
//!    the ledger only
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use coco_kv::{TxId, View};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::translate::{batch_of, conf_state, install_data};
use crate::Membership;
use crate::wire::Position;

/// What the engine's records of an entry take beyond its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 48;

/// The log from some position on.
pub(super) struct Log {
    start: Stored,
    entries: VecDeque<Stored>,
    /// Bytes of the entries.
    bytes: usize,
    /// Bytes of those that are not applied.
    unapplied_bytes: usize,
    /// The last position whose effects have been given out.
    applied: Position,
    settled: Settled,
    /// The last transaction that the driver knows as committed.
    committed: TxId,
    membership: Membership,
    /// The view that the engine begins with.
    first_view: View,
    /// Installations that nodes were told of: told again, they must be the same.
    offered: RefCell<BTreeMap<u64, Snapshot>>,
}

/// The last position applied where all before it counts as committed: where another node may go on.
/// A new primary may have applied more of earlier views, which counts only once that node helps.
struct Settled {
    position: Position,
    end: TxId,
    membership: Membership,
}

struct Stored {
    position: Position,
    entry: Entry,
    /// The last transaction of the ledger after this entry.
    end: TxId,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.entry.data.len() + self.entry.context.len() + ENTRY_OVERHEAD_BYTES
    }
}

impl Log {
    /// A log that begins after `position`, where the ledger ends with `end`.
    pub fn starting_after(position: Position, end: TxId, membership: Membership) -> Self {
        Self {
            start: Stored { position, entry: Entry::default(), end },
            entries: VecDeque::new(),
            bytes: 0,
            unapplied_bytes: 0,
            applied: position,
            settled: Settled { position, end, membership: membership.clone() },
            committed: end,
            membership,
            first_view: position.view,
            offered: RefCell::default(),
        }
    }

    /// Goes on after an installation: nothing that was here counts.
    pub fn install(&mut self, position: Position, end: TxId, membership: Membership) {
        let first_view = self.first_view;
        *self = Self { first_view, ..Self::starting_after(position, end, membership) };
    }

    pub fn last_index(&self) -> u64 {
        self.entries.back().unwrap_or(&self.start).position.index
    }

    /// The last transaction of the ledger, as far as the log goes.
    pub fn end(&self) -> TxId {
        self.entries.back().unwrap_or(&self.start).end
    }

    /// The last transaction of the ledger after the entry at `index`; `None` if it is not kept.
    pub fn end_at(&self, index: u64) -> Option<TxId> {
        self.at(index).map(|stored| stored.end)
    }

    /// The first entry after which the ledger ends with `tx_id`; `None` if it is not kept.
    pub fn index_of(&self, tx_id: TxId) -> Option<u64> {
        let at = self.entries.partition_point(|stored| stored.end.seqno < tx_id.seqno);
        let mut candidates = std::iter::once(&self.start).chain(self.entries.get(at));
        candidates.find(|stored| stored.end == tx_id).map(|stored| stored.position.index)
    }

    /// The view of the entry at `index`; `None` if it is not kept.
    pub fn view_at(&self, index: u64) -> Option<View> {
        self.at(index).map(|stored| stored.position.view)
    }

    pub fn last_entry(&self) -> Option<&Entry> {
        self.entries.back().map(|stored| &stored.entry)
    }

    pub fn applied(&self) -> Position {
        self.applied
    }

    /// The next entry is applied: what it commits and how it changes the membership is noted.
    pub fn set_applied(&mut self, position: Position) {
        self.unapplied_bytes -= self.at(position.index).map_or(0, Stored::bytes);
        self.applied = position;
        let end = self.end_at(position.index);
        if let Some(end) = end.filter(|end| end.seqno <= self.committed.seqno) {
            self.settled = Settled { position, end, membership: self.membership.clone() };
        }
    }

    /// The last transaction that counts as committed; never after what is applied.
    pub fn committed(&self) -> TxId {
        self.committed
    }

    pub fn set_committed(&mut self, committed: TxId) {
        self.committed = committed;
    }

    /// Bytes of the entries that are not applied here.
    pub fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn set_membership(&mut self, membership: Membership) {
        self.membership = membership;
    }

    /// Takes back the entries from `index` on.
    pub fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|last| last.position.index >= index) {
            let bytes = self.entries.pop_back().map_or(0, |stored| stored.bytes());
            self.bytes -= bytes;
            self.unapplied_bytes -= bytes;
        }
    }

    /// Adds the next entry; returns its batch unless it has none or that is void.
    pub fn append(&mut self, entry: Entry) -> Option<crate::Batch> {
        assert_eq!(entry.index, self.last_index() + 1, "entries follow each other without a gap");
        let (end, view) = (self.end(), View(entry.term));
        let batch = batch_of(&entry).filter(|batch| batch.follows(end.seqno, view));
        let end = batch.as_ref().map_or(end, |batch| batch.last);
        let position = Position { index: entry.index, view };
        let stored = Stored { position, entry, end };
        self.bytes += stored.bytes();
        self.unapplied_bytes += stored.bytes();
        self.entries.push_back(stored);
        batch
    }

    /// Lets go of the entries whose ledger transactions go no further than `to`, but of none from
    /// `needed` on as long as those kept take no more than `max_bytes`, and of none after the place
    /// where others may go on.
    pub fn compact(&mut self, to: TxId, needed: u64, max_bytes: usize) {
        while let Some(first) = self.entries.front() {
            let done =
                first.end.seqno <= to.seqno && first.position.index <= self.settled.position.index;
            if !done || first.position.index >= needed && self.bytes <= max_bytes {
                return;
            }
            self.bytes -= first.bytes();
            if let Some(first) = self.entries.pop_front() {
                self.start = Stored { entry: Entry::default(), ..first };
            }
        }
    }

    /// Forgets what a node was told to install.
    pub fn forget_offer(&self, node: u64) {
        self.offered.borrow_mut().remove(&node);
    }

    fn at(&self, index: u64) -> Option<&Stored> {
        match index.checked_sub(self.start.position.index)? {
            0 => Some(&self.start),
            after => self.entries.get(usize::try_from(after - 1).ok()?),
        }
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = HardState::default();
        hard_state.term = self.first_view.0;
        hard_state.commit = self.start.position.index;
        Ok(RaftState::new(hard_state, conf_state(&self.membership)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let after = self.start.position.index;
        let from = low.checked_sub(after + 1).ok_or(Error::Store(StorageError::Compacted))?;
        let (from, count) = (from as usize, high.saturating_sub(low) as usize);
        if from + count > self.entries.len() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_bytes = max_size.into().map_or(usize::MAX, |bytes| bytes as usize);
        let mut bytes = 0;
        let fits = |stored: &&Stored| {
            let is_first = bytes == 0;
            bytes += stored.bytes();
            is_first || bytes <= max_bytes
        };
        let range = self.entries.range(from..from + count);
        Ok(range.take_while(fits).map(|stored| stored.entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let reason = match index < self.start.position.index {
            true => StorageError::Compacted,
            false => StorageError::Unavailable,
        };
        self.view_at(index).map(|view| view.0).ok_or(Error::Store(reason))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.position.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(Log::last_index(self))
    }

    /// Not a snapshot, but where to go on from: everything applied here that counts as committed. A
    /// node that has been told before is told the same, as long as the entries after that are kept.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut offered = self.offered.borrow_mut();
        if let Some(before) = offered.get(&to) {
            let index = before.get_metadata().index;
            if index >= request_index && index >= self.start.position.index {
                return Ok(before.clone());
            }
        }
        let Settled { position, end, membership } = &self.settled;
        // Who takes part only since then finds itself in it once more is settled.
        let takes_part = membership.nodes().iter().any(|node| node.number() == to);
        if position.index < request_index.max(1) || !takes_part {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.data = install_data(*end);
        let metadata = snapshot.mut_metadata();
        metadata.index = position.index;
        metadata.term = position.view.0;
        let state: ConfState = conf_state(membership);
        metadata.set_conf_state(state);
        offered.insert(to, snapshot.clone());
        Ok(snapshot)
    }
}
