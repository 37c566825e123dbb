//! A node's disk: what is written, what of it would survive, and when.

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
        self.batches
            .binary_search_by_key(&tx_id.seqno, |(last, _)| last.seqno)
            .is_ok_and(|at| self.batches.get(at).is_some_and(|(last, _)| *last == tx_id))
    }

    /// The file up to the batch that ends with `tx_id`.
    pub fn up_to(&self, tx_id: TxId) -> Option<Self> {
        let mut part = self.clone();
        part.truncate(tx_id);
        part.holds(tx_id).then_some(part)
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
    durable: LedgerFile,
    pending: VecDeque<(Operation, Report)>,
    /// Operations that the sync under way makes durable.
    syncing: Option<usize>,
}

impl Disk {
    /// What a reader sees.
    pub fn written(&self) -> &LedgerFile {
        &self.written
    }

    /// What a crash leaves at least.
    pub fn durable(&self) -> &LedgerFile {
        &self.durable
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
        done.into_iter()
            .map(|(operation, report)| {
                apply(&mut self.durable, &operation);
                report
            })
            .collect()
    }

    /// The machine stops: of what is not durable some survives, up to somewhere in a write.
    pub fn crash(&mut self, random: &mut Random) {
        let survive = random.below(self.pending.len() as u64 + 1);
        for number in 0.. {
            let Some((operation, _)) = self.pending.pop_front() else { break };
            if number < survive {
                apply(&mut self.durable, &operation);
                continue;
            }
            if let (true, Operation::Append(_, bytes)) = (random.chance(500), operation) {
                let torn = random.below(bytes.len() as u64);
                self.durable.bytes.extend(bytes.iter().take(torn as usize));
            }
            break;
        }
        self.pending.clear();
        self.syncing = None;
        self.written = self.durable.clone();
    }
}

fn apply(file: &mut LedgerFile, operation: &Operation) {
    match operation {
        Operation::Append(last, bytes) => file.append(*last, bytes),
        Operation::Truncate(to) => file.truncate(*to),
        Operation::Replace(other) => *file = other.clone(),
    }
}
