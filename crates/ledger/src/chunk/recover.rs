//! What of an open chunk can be trusted after a crash.
//!
//! Entries are kept up to the last signature transaction whose tree agrees with the entries before
//! it. What follows was never acknowledged as committed and is cut: whole entries without a
//! signature, and what a write left behind that did not reach the disk in full. But a batch that
//! was once whole and is not any more is damage, not a torn write, and is never cut silently.
//! The two differ by evidence: if the batch's signature transaction stands behind the fault, the
//! write had reached its end; sectors that a power failure lost still hold the zeros written ahead,
//! where a flipped bit leaves the rest as it was; and no more batches stand behind a torn one than
//! could have been on their way to the disk with it.

use std::iter;
use std::ops::Range;

use coco_crypto::Digest;
use coco_kv::{Seqno, TxId};

use super::{ChunkName, FIRST_ENTRY_OFFSET, FileOperation};
use crate::bytes::Cursor;
use crate::entry::{Entry, EntryError, FIXED_BYTES, split_entry};
use crate::merkle::{MerkleTree, TreeError};
use crate::secret::LedgerSecrets;
use crate::signature::{SignatureError, SignatureTransaction};
use crate::tables::{COSE_SIGNATURES, SIGNATURES, TREE};

/// Batches of a primary that are not committed yet: one is written while the next is signed. Of a node
/// that is alone, whose batches are committed when they are durable, a crash tears no more.
pub const MAX_BATCHES_IN_FLIGHT: usize = 2;
/// The unit in which disks lose writes.
const SECTOR_BYTES: usize = 512;
/// How often each byte is looked at, on average, in search of signatures.
const MAX_LOOKS: usize = 16;
/// A signature transaction ends with the number of removals from its last map, which is 0.
const TRAILING_ZEROS: usize = 8;

/// What is wrong with an entry of an open chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutReason {
    /// Whole entries without a signature transaction behind them.
    #[error("no signature transaction follows")]
    Unsigned,
    /// The entry is malformed or does not authenticate.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry is of another position, or of an earlier view than the one before it.
    #[error("the entry says that it is {0}")]
    TxId(TxId),
    /// The signature transaction is malformed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The signature transaction's tree is malformed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The entry is not the one that the next signature transaction covers.
    #[error("the next signature covers another entry here")]
    Leaf,
    /// The signature transaction's tree has another root than the one signed, or than the entries
    /// since the signature before it make.
    #[error("the root of the signature's tree is not that of the ledger")]
    Root,
    /// The positions table of a chunk that was being completed.
    #[error("the chunk was being completed")]
    Completion,
}

/// The part of an open chunk that is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the dropped part begins.
    pub offset: u64,
    /// The first dropped entry.
    pub seqno: Seqno,
    /// Dropped entries that could be read.
    pub entries: u64,
    /// What is wrong.
    pub reason: CutReason,
}

/// A part of the chunk that was written in full is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {seqno} at offset {offset} is damaged: {fault}")]
pub struct RecoverError {
    /// Where the entry begins.
    pub offset: u64,
    /// The entry.
    pub seqno: Seqno,
    /// What is wrong.
    pub fault: CutReason,
}

/// What of an open chunk is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredChunk {
    /// The last signature transaction; `None` if the chunk has none.
    pub last: Option<TxId>,
    /// The offsets of the entries up to it.
    pub positions: Vec<u32>,
    /// Where they end.
    pub end_offset: u64,
    /// What is dropped, if anything is.
    pub cut: Option<Cut>,
    name: ChunkName,
    is_header_set: bool,
}

impl RecoveredChunk {
    /// What makes the file end with its last whole batch; deletes it if there is none.
    pub fn repair(&self) -> Vec<FileOperation> {
        let name = self.name;
        if self.last.is_none() {
            return vec![FileOperation::Remove { name }];
        }
        let mut operations = Vec::new();
        if self.is_header_set {
            let bytes = vec![0; FIRST_ENTRY_OFFSET as usize];
            operations.push(FileOperation::Write { name, offset: 0, bytes });
        }
        operations.push(FileOperation::Truncate { name, bytes: self.end_offset });
        operations
    }
}

/// Finds the last complete batch of an open chunk. With `secrets`, each entry is authenticated too.
/// A crash can have torn so many batches at most.
///
/// # Errors
/// If an entry is damaged that was once written in full.
pub fn recover_open_chunk(
    name: ChunkName,
    file: &[u8],
    secrets: Option<&LedgerSecrets>,
    max_torn_batches: usize,
) -> Result<RecoveredChunk, RecoverError> {
    let header = Cursor::new(file).u64().unwrap_or(0);
    let mut scan = Scan::new(name.start, file, secrets);
    let reason = match scan.run() {
        None if scan.entries.len() == scan.kept => None,
        None => Some(CutReason::Unsigned),
        Some(fault) if fault.offset as u64 == header => Some(CutReason::Completion),
        Some(fault) if scan.is_damage(&fault, max_torn_batches) => {
            let (offset, seqno) = (fault.offset as u64, fault.seqno);
            return Err(RecoverError { offset, seqno, fault: fault.reason });
        }
        Some(fault) => Some(fault.reason),
    };
    let kept = scan.entries.get(..scan.kept).unwrap_or_default();
    let cut = reason.map(|reason| Cut {
        offset: scan.kept_end as u64,
        seqno: Seqno(name.start.0 + kept.len() as u64),
        entries: (scan.entries.len() - kept.len()) as u64,
        reason,
    });
    Ok(RecoveredChunk {
        last: scan.last,
        positions: kept.iter().filter_map(|entry| u32::try_from(entry.offset).ok()).collect(),
        end_offset: scan.kept_end as u64,
        cut,
        name,
        is_header_set: header != 0,
    })
}

/// Why the scan went no further.
struct Fault {
    offset: usize,
    seqno: Seqno,
    reason: CutReason,
    /// Behind the faulty entry, or behind the file if that cannot be told.
    end: usize,
    /// Where the batch's signature transaction is, if it is there.
    signature: Option<Range<usize>>,
}

struct Scanned {
    offset: usize,
    end: usize,
    leaf: Digest,
}

struct Scan<'a> {
    file: &'a [u8],
    secrets: Option<&'a LedgerSecrets>,
    start: Seqno,
    /// Behind the last byte that is not zero.
    content_end: usize,
    /// Where the next entry begins.
    offset: usize,
    entries: Vec<Scanned>,
    last_read: TxId,
    /// The ledger's leaves, from the chunk's first signature transaction on.
    tree: Option<MerkleTree>,
    /// Entries up to the last signature transaction that agrees with them.
    kept: usize,
    kept_end: usize,
    last: Option<TxId>,
}

impl<'a> Scan<'a> {
    fn new(start: Seqno, file: &'a [u8], secrets: Option<&'a LedgerSecrets>) -> Self {
        let offset = FIRST_ENTRY_OFFSET as usize;
        Self {
            file,
            secrets,
            start,
            content_end: file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
            offset,
            entries: Vec::new(),
            last_read: TxId::new(0, start.0.saturating_sub(1)),
            tree: None,
            kept: 0,
            kept_end: offset,
            last: None,
        }
    }

    fn run(&mut self) -> Option<Fault> {
        while self.offset < self.content_end {
            if let Err(fault) = self.entry() {
                return Some(fault);
            }
        }
        None
    }

    fn entry(&mut self) -> Result<(), Fault> {
        let (offset, seqno) = (self.offset, self.last_read.seqno.next());
        let unreadable = |reason: EntryError| Fault {
            offset,
            seqno,
            reason: reason.into(),
            end: self.file.len(),
            signature: None,
        };
        let bytes = entry_at(self.file, offset).map_err(unreadable)?;
        let end = offset + bytes.len();
        let fault = |reason| {
            let signature = names_signature_map(bytes).then_some(offset..end);
            Fault { offset, seqno, reason, end, signature }
        };
        let entry = Entry::parse(bytes).map_err(|error| fault(error.into()))?;
        let tx_id = entry.tx_id();
        if tx_id.seqno != seqno || tx_id.view < self.last_read.view {
            return Err(fault(CutReason::TxId(tx_id)));
        }
        if let Some(secrets) = self.secrets {
            entry.private_writes(secrets).map_err(|error| fault(error.into()))?;
        }
        let writes = entry.public_writes().map_err(|error| fault(error.into()))?;
        let signature =
            SignatureTransaction::parse(&writes).map_err(|error| fault(error.into()))?;
        if let Some(signature) = &signature {
            let checked = self.check(signature, tx_id);
            let tree = checked.map_err(|(at, reason)| match self.entries.get(at) {
                Some(entry) => {
                    let seqno = Seqno(self.start.0 + at as u64);
                    let signature = Some(offset..end);
                    Fault { offset: entry.offset, seqno, reason, end: entry.end, signature }
                }
                None => fault(reason),
            })?;
            self.tree = Some(tree);
        }
        if let Some(tree) = &mut self.tree {
            tree.append(entry.leaf());
        }
        self.entries.push(Scanned { offset, end, leaf: entry.leaf() });
        (self.offset, self.last_read) = (end, tx_id);
        if signature.is_some() {
            (self.kept, self.kept_end, self.last) = (self.entries.len(), end, Some(tx_id));
        }
        Ok(())
    }

    /// The tree of the signature transaction at `tx_id`, if it agrees with the entries before it; if
    /// not, the index of the entry at fault, beyond the last for the signature transaction itself.
    fn check(
        &self,
        signature: &SignatureTransaction,
        tx_id: TxId,
    ) -> Result<MerkleTree, (usize, CutReason)> {
        let here = self.entries.len();
        let tree = consistent_tree(signature, tx_id).map_err(|reason| (here, reason))?;
        let known = (self.start.0..).zip(&self.entries).enumerate();
        for (at, (seqno, entry)) in known {
            if tree.leaf(seqno).is_some_and(|leaf| leaf != entry.leaf) {
                return Err((at, CutReason::Leaf));
            }
        }
        if self.tree.as_ref().is_some_and(|known| known.root() != tree.root()) {
            return Err((here, CutReason::Root));
        }
        Ok(tree)
    }

    /// Whether the faulty entry's batch had been written to its end, and no part of the entry is
    /// one that the disk lost; or more batches follow than could have been on their way.
    fn is_damage(&self, fault: &Fault, max_torn_batches: usize) -> bool {
        let behind = self.signatures_behind(fault, max_torn_batches.saturating_add(1));
        if behind > max_torn_batches {
            return true;
        }
        let is_whole = match &fault.signature {
            Some(signature) => signature.end <= self.content_end + TRAILING_ZEROS,
            None => behind > 0,
        };
        // Where entry and signature disagree, either may be the one that is not whole.
        let mut suspects = iter::once(fault.offset..fault.end).chain(fault.signature.clone());
        is_whole && !suspects.any(|entry| self.lost_a_sector(entry))
    }

    /// Whether a sector of the entry is one that the disk lost: what this batch wrote there reads as
    /// the zeros written ahead. What earlier batches wrote to the same sector is still there.
    fn lost_a_sector(&self, entry: Range<usize>) -> bool {
        let first = entry.start - entry.start % SECTOR_BYTES;
        (first..entry.end.min(self.content_end)).step_by(SECTOR_BYTES).any(|at| {
            let start = at.max(self.kept_end);
            let end = self.file.len().min(at + SECTOR_BYTES);
            self.file.get(start..end).is_some_and(|lost| lost.iter().all(|byte| *byte == 0))
        })
    }

    /// Counts later signature transactions, up to `most`. It looks at every offset, since the fault may
    /// be in a size; and at no more bytes than a few times those of the file, whatever overlaps there.
    fn signatures_behind(&self, fault: &Fault, most: usize) -> usize {
        let limit = self.content_end.saturating_sub(FIXED_BYTES);
        let mut bytes_left = self.file.len().saturating_mul(MAX_LOOKS);
        let (mut at, mut last, mut count) = (fault.offset + 1, fault.seqno, 0);
        while at < limit && count < most && bytes_left > 0 {
            let entry = entry_at(self.file, at).unwrap_or_default();
            bytes_left = bytes_left.saturating_sub(entry.len());
            match signature_in(entry).filter(|seqno| *seqno > last) {
                Some(seqno) => {
                    (last, count) = (seqno, count + 1);
                    at += entry.len();
                }
                None => at += 1,
            }
        }
        count
    }
}

/// The position of a signature transaction that agrees with itself.
fn signature_in(entry: &[u8]) -> Option<Seqno> {
    let entry = Entry::parse(entry).ok()?;
    let signature = SignatureTransaction::parse(&entry.public_writes().ok()?).ok()??;
    consistent_tree(&signature, entry.tx_id()).ok()?;
    Some(entry.tx_id().seqno)
}

/// Signature transactions among the entries of a file, as far as it can be read.
pub fn count_signatures(file: &[u8]) -> usize {
    let is_signature = |entry: &[u8]| {
        let writes = Entry::parse(entry).and_then(|entry| entry.public_writes());
        writes.is_ok_and(|writes| matches!(SignatureTransaction::parse(&writes), Ok(Some(_))))
    };
    let rest = file.get(FIRST_ENTRY_OFFSET as usize..).unwrap_or_default();
    let entries = iter::successors(split_entry(rest).ok(), |(_, rest)| split_entry(rest).ok());
    entries.filter(|(entry, _)| is_signature(entry)).count()
}

/// The bytes of the entry that begins at `offset`.
fn entry_at(file: &[u8], offset: usize) -> Result<&[u8], EntryError> {
    split_entry(file.get(offset..).unwrap_or_default()).map(|(entry, _)| entry)
}

/// Looks for the names of a signature transaction's maps, wherever the fault is.
fn names_signature_map(entry: &[u8]) -> bool {
    [SIGNATURES, COSE_SIGNATURES, TREE]
        .iter()
        .any(|name| entry.windows(name.len()).any(|window| window == name.as_bytes()))
}

/// The tree of a signature transaction, if it is the one that was signed there.
fn consistent_tree(signature: &SignatureTransaction, tx_id: TxId) -> Result<MerkleTree, CutReason> {
    let tree = MerkleTree::parse(&signature.tree)?;
    if let Some(other) = signature.tx_ids().find(|signed| *signed != tx_id) {
        return Err(CutReason::TxId(other));
    }
    let root = tree.root();
    let is_signed_root = signature.node.as_ref().is_none_or(|node| node.root == root);
    if tree.len() != tx_id.seqno.0 || !is_signed_root {
        return Err(CutReason::Root);
    }
    Ok(tree)
}
