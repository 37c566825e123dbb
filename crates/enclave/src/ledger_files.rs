//! The ledger's files on the host's disk: where batches go.

use std::collections::BTreeMap;

use coco_consensus::Batch;
use coco_kv::Seqno;
use coco_ledger::{
    ChunkState, ChunkWriter, ChunkWriterError, EntryError, FileOperation, FrameHeader, Resumed,
    split_entry,
};

use crate::host::DiskOp;

/// A batch cannot be appended to the ledger's files: a bug, or a batch that is not well-formed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("the batch is not made of whole entries: {0}")]
    Frame(#[from] EntryError),
    #[error(transparent)]
    Chunk(#[from] ChunkWriterError),
    #[error("the batch has {found} entries instead of {expected}")]
    Count { found: u64, expected: u64 },
}

/// Turns batches into operations on chunk files.
pub(crate) struct LedgerFiles {
    writer: ChunkWriter,
    /// Chunks completed by a batch that is not committed: its position, by the chunk's first entry.
    completed_by: BTreeMap<Seqno, Seqno>,
    /// Renames that wait for these batches: a chunk is named committed only when it is whole on
    /// the disk.
    held: Vec<(Seqno, FileOperation)>,
}

impl LedgerFiles {
    pub fn new(writer: ChunkWriter) -> Self {
        Self { writer, completed_by: BTreeMap::new(), held: Vec::new() }
    }

    /// What appends the batch.
    pub fn append(&mut self, batch: &Batch) -> Result<Vec<DiskOp>, AppendError> {
        self.writer.reserve(batch.entries.len());
        let mut rest: &[u8] = &batch.entries;
        let mut seqno = batch.first;
        while !rest.is_empty() {
            let (entry, after) = split_entry(rest)?;
            self.writer.append(seqno, FrameHeader::parse(entry)?.flags, entry)?;
            seqno = seqno.next();
            rest = after;
        }
        let (found, expected) = (seqno.0 - batch.first.0, batch.last.seqno.0 - batch.first.0 + 1);
        if found != expected {
            return Err(AppendError::Count { found, expected });
        }
        let operations = self.writer.take_operations();
        for operation in &operations {
            if let FileOperation::Rename { to, .. } = operation
                && matches!(to.state, ChunkState::Complete { .. })
            {
                self.completed_by.insert(to.start, batch.last.seqno);
            }
        }
        Ok(self.hold_back(operations))
    }

    /// The last entry in the files.
    pub fn last(&self) -> Seqno {
        self.writer.last()
    }

    /// Forgets the files so far, and goes on from these.
    pub fn go_on_from(&mut self, files: Resumed) {
        self.writer.go_on_from(files);
        self.completed_by.clear();
        self.held.clear();
    }

    /// What takes back the batches after `to`, none of which is committed.
    pub fn rollback(&mut self, to: Seqno) -> Result<Vec<DiskOp>, AppendError> {
        self.writer.rollback(to)?;
        self.completed_by.retain(|_, batch| *batch <= to);
        let operations = self.writer.take_operations();
        Ok(self.hold_back(operations))
    }

    /// Bytes of the entries in the chunk in use.
    pub fn open_bytes(&self) -> u64 {
        self.writer.open_bytes()
    }

    /// What renames chunks that are committed as a whole; often nothing.
    pub fn commit(&mut self, seqno: Seqno) -> Vec<DiskOp> {
        self.completed_by.retain(|_, batch| *batch > seqno);
        self.writer.commit(seqno);
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(batch, _): &(Seqno, FileOperation)| *batch <= seqno);
        self.held = held;
        let mut operations: Vec<_> =
            Vec::from_iter(ready).into_iter().map(|(_, rename)| rename).collect();
        operations.extend(self.writer.take_operations());
        self.hold_back(operations)
    }

    /// Gives what a recovery has written its final names, now that it is complete.
    pub fn end_recovery(&mut self) -> Vec<DiskOp> {
        self.writer.end_recovery();
        let mut operations = self.writer.take_operations();
        for (_, held) in &mut self.held {
            let FileOperation::Rename { from: held_from, to: held_to } = held else { continue };
            // A file that does not have the name yet that the writer knows it by.
            for operation in &mut operations {
                if let FileOperation::Rename { from, to } = operation
                    && from == held_to
                {
                    (*from, *to) = (*held_from, held_from.recovered());
                }
            }
            (*held_from, *held_to) = (held_from.recovered(), held_to.recovered());
        }
        self.hold_back(operations)
    }

    /// What cuts off the zeros written ahead, when the ledger is closed.
    pub fn trim(&mut self) -> Vec<DiskOp> {
        self.writer.trim();
        let operations = self.writer.take_operations();
        self.hold_back(operations)
    }

    fn hold_back(&mut self, operations: Vec<FileOperation>) -> Vec<DiskOp> {
        let mut now = Vec::with_capacity(operations.len());
        for operation in operations {
            let waits_for = match &operation {
                FileOperation::Rename { to, .. } if to.is_committed() => {
                    self.completed_by.get(&to.start)
                }
                _ => None,
            };
            match waits_for {
                Some(batch) => self.held.push((*batch, operation)),
                None => now.push(operation),
            }
        }
        disk_operations(now)
    }
}

/// Operations on chunks as the host knows them.
pub(crate) fn disk_operations(operations: Vec<FileOperation>) -> Vec<DiskOp> {
    operations.into_iter().map(disk_operation).collect()
}

fn disk_operation(operation: FileOperation) -> DiskOp {
    match operation {
        FileOperation::Create { name } => DiskOp::Create { name: name.to_string() },
        FileOperation::WriteZeros { name, from, to } => {
            let len_bytes = to.saturating_sub(from);
            DiskOp::WriteZeros { name: name.to_string(), offset: from, len_bytes }
        }
        FileOperation::Write { name, offset, bytes } => {
            DiskOp::Write { name: name.to_string(), offset, bytes: bytes.into() }
        }
        FileOperation::Truncate { name, bytes } => {
            DiskOp::Truncate { name: name.to_string(), len_bytes: bytes }
        }
        FileOperation::Rename { from, to } => {
            DiskOp::Rename { from: from.to_string(), to: to.to_string() }
        }
        FileOperation::Remove { name } => DiskOp::Remove { name: name.to_string() },
    }
}
