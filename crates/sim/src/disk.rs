//! A node's disk: what is written, what of it would survive, and when; and what becomes of it in
//! the hands of a bad host.

use std::collections::VecDeque;

use bytes::Bytes;
use coco_consensus::WriteNo;
use coco_kv::TxId;

use crate::random::Random;

/// A ledger file: batches back to back.
#[derive(Clone, Debug, Default)]
pub struct LedgerFile {
    /// The entries.
    pub bytes: Vec<u8>,
    /// Where each batch ends, by its last transaction.
    pub batches: Vec<(TxId, usize)>,
}

impl LedgerFile {
    /// Whether the batch that ends with `tx_id` is there.
    pub fn holds(&self, tx_id: TxId) -> bool {
        self.end_of(tx_id).is_some()
    }

    /// Behind the last byte of the batch that ends with `tx_id`, if that is there.
    pub fn end_of(&self, tx_id: TxId) -> Option<usize> {
        let at = self.batches.binary_search_by_key(&tx_id.seqno, |(last, _)| last.seqno).ok()?;
        self.batches.get(at).filter(|(last, _)| *last == tx_id).map(|(_, end)| *end)
    }

    /// The file up to the batch that ends with `tx_id`.
    pub fn up_to(&self, tx_id: TxId) -> Option<Self> {
        let mut part = self.clone();
        part.truncate(tx_id);
        part.holds(tx_id).then_some(part)
    }

    /// Turns one bit.
    pub fn flip(&mut self, random: &mut Random) {
        self.flip_at(random.below(self.bytes.len() as u64), random.below(8));
    }

    fn flip_at(&mut self, at: u64, bit: u64) {
        if let Some(byte) = usize::try_from(at).ok().and_then(|at| self.bytes.get_mut(at)) {
            *byte ^= 1 << bit;
        }
    }

    /// Leaves a batch out.
    pub fn leave_out(&mut self, random: &mut Random) {
        let at = usize::try_from(random.below(self.batches.len() as u64)).unwrap_or(0);
        let ends: Vec<_> = self.batches.iter().map(|(_, end)| *end).collect();
        let before = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        if let Some(end) = ends.get(at) {
            self.bytes.drain(before..*end);
        }
    }

    fn append(&mut self, last: TxId, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.batches.push((last, self.bytes.len()));
    }

    fn truncate(&mut self, to: TxId) {
        while self.batches.last().is_some_and(|(last, _)| last.seqno > to.seqno) {
            self.batches.pop();
        }
        self.bytes.truncate(self.batches.last().map_or(0, |(_, end)| *end));
    }
}

/// A change of the file.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A batch.
    Append(TxId, Bytes),
    /// Everything after this goes.
    Truncate(TxId),
    /// Another file takes its place.
    Replace(LedgerFile),
}

/// What to report when an operation is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing.
    None,
    /// A batch.
    Persisted(WriteNo),
    /// The ledger up to here.
    Installed(TxId),
}

/// The disk: operations take effect at once for who reads, and are durable after a sync.
#[derive(Debug, Default)]
pub struct Disk {
    written: LedgerFile,
    /// What syncs have been reported for.
    synced: LedgerFile,
    /// What is there after a crash, if that is something else: the last syncs were lies.
    truly: Option<LedgerFile>,
    lies: bool,
    /// A crash has left something behind what it has taken away.
    has_gap: bool,
    pending: VecDeque<(Operation, Report)>,
    /// Operations that the sync under way makes durable.
    syncing: Option<usize>,
}

impl Disk {
    /// What a reader sees.
    pub fn written(&self) -> &LedgerFile {
        &self.written
    }

    /// What a crash leaves at least, as the disk says.
    pub fn synced(&self) -> &LedgerFile {
        &self.synced
    }

    /// Carries out an operation.
    pub fn submit(&mut self, operation: Operation, report: Report) {
        apply(&mut self.written, &operation);
        self.pending.push_back((operation, report));
    }

    /// Begins to sync what is written; false if there is nothing, or a sync is under way.
    pub fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && !self.pending.is_empty();
        if begins {
            self.syncing = Some(self.pending.len());
        }
        begins
    }

    /// The sync under way is done.
    pub fn finish_sync(&mut self) -> Vec<Report> {
        let count = self.syncing.take().unwrap_or(0);
        let done: Vec<_> = self.pending.drain(..count).collect();
        if !self.lies {
            self.truly = None;
        }
        done.into_iter()
            .map(|(operation, report)| {
                apply(&mut self.synced, &operation);
                report
            })
            .collect()
    }

    /// From now on syncs are reported, but do nothing, until it is told to be honest again.
    pub fn lie(&mut self, lies: bool) {
        if lies && self.truly.is_none() {
            self.truly = Some(self.synced.clone());
        }
        self.lies = lies;
    }

    /// Whether something is missing before its last batch.
    pub fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// Turns one bit of what is there.
    pub fn flip(&mut self, random: &mut Random) {
        let (at, bit) = (random.below(self.synced.bytes.len() as u64), random.below(8));
        self.synced.flip_at(at, bit);
        self.written.flip_at(at, bit);
    }

    /// Puts back what was there when a batch of long ago was the last.
    pub fn roll_back(&mut self, random: &mut Random) {
        let batches = self.synced.batches.len() as u64;
        let at = usize::try_from(random.below(batches.div_ceil(2))).unwrap_or(0);
        if let Some((last, _)) = self.synced.batches.get(at).copied() {
            self.synced.truncate(last);
            self.written.truncate(last);
        }
    }

    /// The machine stops: of what is not durable some survives, up to somewhere in a write.
    pub fn crash(&mut self, random: &mut Random) {
        let survive = random.below(self.pending.len() as u64 + 1);
        self.has_gap = self.truly.is_some() && survive > 0;
        let mut left = self.truly.take().unwrap_or_else(|| self.synced.clone());
        for number in 0.. {
            let Some((operation, _)) = self.pending.pop_front() else { break };
            if number < survive {
                apply(&mut left, &operation);
                continue;
            }
            if let (true, Operation::Append(_, bytes)) = (random.chance(500), operation) {
                let torn = random.below(bytes.len() as u64);
                left.bytes.extend(bytes.iter().take(torn as usize));
            }
            break;
        }
        self.pending.clear();
        self.syncing = None;
        self.synced = left.clone();
        self.written = left;
    }
}

fn apply(file: &mut LedgerFile, operation: &Operation) {
    match operation {
        Operation::Append(last, bytes) => file.append(*last, bytes),
        Operation::Truncate(to) => file.truncate(*to),
        Operation::Replace(other) => *file = other.clone(),
    }
}
