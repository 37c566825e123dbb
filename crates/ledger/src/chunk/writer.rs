//! Which bytes go to which file, in which order; whoever owns the disk carries it out.

use std::collections::VecDeque;
use std::mem;

use coco_kv::Seqno;

use super::{ChunkName, ChunkState, FIRST_ENTRY_OFFSET};
use crate::entry::EntryFlags;

/// When chunks are cut, and how files are written ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkWriterConfig {
    /// A chunk is closed by the first signature transaction that finds it this large.
    pub chunk_bytes: u64,
    /// The file in use is extended by this many zeros at a time; 0 leaves it as long as its
    /// entries.
    pub write_ahead_bytes: u64,
}

impl Default for ChunkWriterConfig {
    /// CCF's size of a chunk.
    fn default() -> Self {
        Self { chunk_bytes: 5_000_000, write_ahead_bytes: 1 << 20 }
    }
}

/// One thing to do with a file of the ledger's directory. To be done in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// Make an empty file, which must not be there yet.
    Create {
        /// Its name.
        name: ChunkName,
    },
    /// Write zeros from one offset up to another, beyond the present end of the file.
    WriteZeros {
        /// The file.
        name: ChunkName,
        /// The first zero.
        from: u64,
        /// Behind the last zero.
        to: u64,
    },
    /// Write bytes at an offset.
    Write {
        /// The file.
        name: ChunkName,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Cut the file to this size.
    Truncate {
        /// The file.
        name: ChunkName,
        /// Its size then.
        bytes: u64,
    },
    /// Give the file another name.
    Rename {
        /// The name it has.
        from: ChunkName,
        /// The name it gets.
        to: ChunkName,
    },
    /// Delete the file.
    Remove {
        /// The file.
        name: ChunkName,
    },
}

/// An entry cannot be appended, or the ledger not be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkWriterError {
    /// Not the entry that follows.
    #[error("entry {given} does not follow, {expected} would")]
    Order {
        /// What would follow.
        expected: Seqno,
        /// What was given.
        given: Seqno,
    },
    /// Positions are 32-bit numbers.
    #[error("entry {0} would begin or end beyond 4 GiB of its chunk")]
    ChunkFull(Seqno),
    /// Committed entries stay.
    #[error("entries up to {committed} are committed and cannot be rolled back to {to}")]
    Committed {
        /// The last committed entry.
        committed: Seqno,
        /// Where the rollback would have led.
        to: Seqno,
    },
}

/// A chunk and the offsets of its entries.
#[derive(Clone, Debug)]
struct Chunk {
    name: ChunkName,
    positions: Vec<u32>,
    /// Behind the last entry.
    end_offset: u64,
}

impl Chunk {
    fn last(&self) -> Seqno {
        Seqno(self.name.start.0 + self.positions.len() as u64 - 1)
    }

    fn renamed(&mut self, state: ChunkState) -> FileOperation {
        let from = self.name;
        self.name = from.with_state(state);
        FileOperation::Rename { from, to: self.name }
    }
}

/// What a writer goes on from after a restart.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// The last entry of the ledger.
    pub last: Seqno,
    /// Up to where the ledger is committed.
    pub committed: Seqno,
    /// Complete chunks that are not named committed, in order, with the offsets of their entries
    /// and the size of their entries with the header.
    pub complete: Vec<(ChunkName, Vec<u32>, u64)>,
    /// The open chunk, the offsets of its entries and where they end; the file has been cut there.
    pub open: Option<(ChunkName, Vec<u32>, u64)>,
}

/// Turns a sequence of entries into file operations.
///
/// ```
/// use coco_kv::Seqno;
/// use coco_ledger::{ChunkWriter, ChunkWriterConfig, EntryFlags, FileOperation};
///
/// let mut writer = ChunkWriter::new(ChunkWriterConfig::default());
/// writer.append(Seqno(1), EntryFlags::NONE, b"first")?;
/// writer.append(Seqno(2), EntryFlags::FORCE_CHUNK_AFTER, b"signature")?;
/// writer.commit(Seqno(2));
/// let operations = writer.take_operations();
/// let Some(FileOperation::Rename { to, .. }) = operations.last() else { panic!() };
/// assert_eq!(to.to_string(), "ledger_1-2.committed");
/// # Ok::<(), coco_ledger::ChunkWriterError>(())
/// ```
#[derive(Debug)]
pub struct ChunkWriter {
    config: ChunkWriterConfig,
    last: Seqno,
    committed: Seqno,
    complete: VecDeque<Chunk>,
    open: Option<Chunk>,
    /// How far the open file is written ahead.
    written_ahead: u64,
    /// Entries since the last operation, to be written where the open chunk stood then.
    buffered: Vec<u8>,
    operations: Vec<FileOperation>,
    /// While a recovery lasts: the chunks it has written that are committed already.
    recovery: Option<Vec<ChunkName>>,
}

impl ChunkWriter {
    /// The writer of an empty ledger.
    pub fn new(config: ChunkWriterConfig) -> Self {
        Self::resume(config, Resumed::default())
    }

    /// The writer of a ledger that has entries already.
    pub fn resume(config: ChunkWriterConfig, resumed: Resumed) -> Self {
        let chunk = |(name, positions, end_offset)| Chunk { name, positions, end_offset };
        let open = resumed.open.map(chunk);
        Self {
            config,
            last: resumed.last,
            committed: resumed.committed,
            complete: resumed.complete.into_iter().map(chunk).collect(),
            written_ahead: open.as_ref().map_or(0, |open| open.end_offset),
            open,
            buffered: Vec::new(),
            operations: Vec::new(),
            recovery: None,
        }
    }

    /// The same writer, as one of a recovery: until [`end_recovery`](Self::end_recovery), new
    /// chunks are named so that a restart sets them aside. The next entry must begin a chunk.
    #[must_use]
    pub fn recovering(self) -> Self {
        Self { recovery: Some(Vec::new()), ..self }
    }

    /// The recovery is complete: the chunks it has written get the names of others, the newest
    /// first. Once that one is renamed the recovery counts as complete, whatever becomes of the
    /// operations after it.
    pub fn end_recovery(&mut self) {
        let Some(committed) = self.recovery.take() else { return };
        self.write_buffered();
        let rename = |name: &mut ChunkName| {
            let from = *name;
            *name = from.recovered();
            (from != *name).then_some(FileOperation::Rename { from, to: *name })
        };
        let written = self.open.iter_mut().chain(self.complete.iter_mut().rev());
        let mut names: Vec<&mut ChunkName> = written.map(|chunk| &mut chunk.name).collect();
        let mut committed = committed;
        names.extend(committed.iter_mut().rev());
        self.operations.extend(names.into_iter().filter_map(rename));
    }

    /// Forgets the chunks so far, which somebody else looks after, and goes on from these.
    pub fn go_on_from(&mut self, resumed: Resumed) {
        let recovery = self.recovery.take();
        *self = Self { recovery, ..Self::resume(self.config, resumed) };
    }

    /// The last entry appended.
    pub fn last(&self) -> Seqno {
        self.last
    }

    /// Bytes of the entries in the open chunk.
    pub fn open_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.end_offset - FIRST_ENTRY_OFFSET)
    }

    /// Whether the next signature transaction should carry [`EntryFlags::FORCE_CHUNK_AFTER`], when
    /// `more` bytes of entries are on their way to this writer.
    pub fn is_chunk_due(&self, more: u64) -> bool {
        let size = self.open.as_ref().map_or(FIRST_ENTRY_OFFSET, |open| open.end_offset);
        size + more >= self.config.chunk_bytes
    }

    /// Makes room for so many bytes of entries that are about to be appended.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffered.reserve(bytes);
    }

    /// Appends an entry. Its flags say where chunks are cut.
    ///
    /// # Errors
    /// If it does not follow the last one, or its chunk would grow beyond 4 GiB.
    pub fn append(
        &mut self,
        seqno: Seqno,
        flags: EntryFlags,
        entry: &[u8],
    ) -> Result<(), ChunkWriterError> {
        let expected = self.last.next();
        if seqno != expected {
            return Err(ChunkWriterError::Order { expected, given: seqno });
        }
        if flags.contains(EntryFlags::FORCE_CHUNK_BEFORE) {
            self.complete_open_chunk();
        }
        let chunk = match &mut self.open {
            Some(open) => open,
            None => {
                let recovery = self.recovery.is_some();
                let name = ChunkName { recovery, ..ChunkName::open(seqno) };
                self.operations.push(FileOperation::Create { name });
                self.buffered.extend_from_slice(&[0; FIRST_ENTRY_OFFSET as usize]);
                self.written_ahead = 0;
                let empty = Chunk { name, positions: Vec::new(), end_offset: FIRST_ENTRY_OFFSET };
                self.open.insert(empty)
            }
        };
        let end_offset = chunk.end_offset + entry.len() as u64;
        let (Ok(position), Ok(_)) = (u32::try_from(chunk.end_offset), u32::try_from(end_offset))
        else {
            return Err(ChunkWriterError::ChunkFull(seqno));
        };
        chunk.positions.push(position);
        chunk.end_offset = end_offset;
        self.buffered.extend_from_slice(entry);
        self.last = seqno;
        if flags.contains(EntryFlags::FORCE_CHUNK_AFTER) {
            self.complete_open_chunk();
        }
        Ok(())
    }

    /// Names the chunks committed whose last entry is at most `seqno`.
    pub fn commit(&mut self, seqno: Seqno) {
        self.committed = self.committed.max(seqno.min(self.last));
        self.name_committed();
    }

    /// Takes back the entries after `to`.
    ///
    /// # Errors
    /// If some of them are committed. Rolling back to the last entry or beyond does nothing.
    pub fn rollback(&mut self, to: Seqno) -> Result<(), ChunkWriterError> {
        if to < self.committed {
            return Err(ChunkWriterError::Committed { committed: self.committed, to });
        }
        if to >= self.last {
            return Ok(());
        }
        self.write_buffered();
        while let Some(chunk) = self.open.take().or_else(|| self.complete.pop_back()) {
            if chunk.name.start > to {
                self.operations.push(FileOperation::Remove { name: chunk.name });
            } else if chunk.last() <= to {
                self.complete.push_back(chunk);
                break;
            } else {
                self.reopen(chunk, to);
                break;
            }
        }
        self.last = to;
        Ok(())
    }

    /// Cuts the zeros behind the open chunk's last entry, for readers that know of none, and writes
    /// no more of them. To be called when the ledger is closed; appending may go on nevertheless.
    pub fn trim(&mut self) {
        self.write_buffered();
        self.config.write_ahead_bytes = 0;
        if let Some(open) = &self.open
            && self.written_ahead > open.end_offset
        {
            self.written_ahead = open.end_offset;
            let (name, bytes) = (open.name, open.end_offset);
            self.operations.push(FileOperation::Truncate { name, bytes });
        }
    }

    /// What is to be done with the files by now, in order.
    pub fn take_operations(&mut self) -> Vec<FileOperation> {
        self.write_buffered();
        mem::take(&mut self.operations)
    }

    /// Table first, then the header that makes it valid, then the name: at every point in between
    /// the chunk reads as an open one.
    fn complete_open_chunk(&mut self) {
        self.write_buffered();
        let Some(mut chunk) = self.open.take_if(|open| !open.positions.is_empty()) else { return };
        let name = chunk.name;
        let table: Vec<u8> = chunk.positions.iter().flat_map(|at| at.to_le_bytes()).collect();
        let bytes = chunk.end_offset + table.len() as u64;
        self.operations.push(FileOperation::Write { name, offset: chunk.end_offset, bytes: table });
        if self.written_ahead > bytes {
            self.operations.push(FileOperation::Truncate { name, bytes });
        }
        let header = chunk.end_offset.to_le_bytes().to_vec();
        self.operations.push(FileOperation::Write { name, offset: 0, bytes: header });
        let end = chunk.last();
        self.operations.push(chunk.renamed(ChunkState::Complete { end }));
        self.complete.push_back(chunk);
        self.name_committed();
    }

    fn name_committed(&mut self) {
        while let Some(mut chunk) =
            self.complete.pop_front_if(|chunk| chunk.last() <= self.committed)
        {
            let end = chunk.last();
            self.operations.push(chunk.renamed(ChunkState::Committed { end }));
            if let Some(written) = self.recovery.as_mut().filter(|_| chunk.name.recovery) {
                written.push(chunk.name);
            }
        }
    }

    fn reopen(&mut self, mut chunk: Chunk, to: Seqno) {
        if chunk.name.state != ChunkState::Open {
            self.operations.push(chunk.renamed(ChunkState::Open));
            let header = vec![0; FIRST_ENTRY_OFFSET as usize];
            self.operations.push(FileOperation::Write {
                name: chunk.name,
                offset: 0,
                bytes: header,
            });
        }
        let kept = to.0 - chunk.name.start.0 + 1;
        let end = usize::try_from(kept).ok().and_then(|kept| chunk.positions.get(kept));
        chunk.end_offset = end.map_or(chunk.end_offset, |end| u64::from(*end));
        chunk.positions.truncate(kept as usize);
        let (name, bytes) = (chunk.name, chunk.end_offset);
        self.operations.push(FileOperation::Truncate { name, bytes });
        self.written_ahead = bytes;
        self.open = Some(chunk);
    }

    fn write_buffered(&mut self) {
        let bytes = mem::take(&mut self.buffered);
        let Some(open) = self.open.as_ref().filter(|_| !bytes.is_empty()) else { return };
        let (name, end) = (open.name, open.end_offset);
        let offset = end - bytes.len() as u64;
        self.operations.push(FileOperation::Write { name, offset, bytes });
        self.written_ahead = self.written_ahead.max(end);
        // Extended early, so that entries are nearly always written over zeros.
        if end + self.config.write_ahead_bytes / 2 > self.written_ahead {
            let (from, to) = (self.written_ahead, end + self.config.write_ahead_bytes);
            self.operations.push(FileOperation::WriteZeros { name, from, to });
            self.written_ahead = to;
        }
    }
}
