//! The entries of a chunk, one after the other.

use coco_kv::Seqno;

use super::{ChunkName, ChunkState, FIRST_ENTRY_OFFSET};
use crate::bytes::{Cursor, Truncated};
use crate::entry::{EntryError, FIXED_BYTES, FRAME_HEADER_BYTES, FRAME_VERSION, FrameHeader};

/// Where the seqno stands in an entry.
const IV_SEQNO: std::ops::Range<usize> = 24..32;

/// A chunk is not well-formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Shorter than the header of a chunk.
    #[error("the file has no header: {0}")]
    NoHeader(Truncated),
    /// The file's name says that it is complete, the file does not.
    #[error("the file is named complete and has no positions table")]
    NotComplete,
    /// The positions table begins outside of the file, or is not made of whole positions.
    #[error("the positions table at {offset} does not fit a file of {file_bytes} bytes")]
    TableMisplaced {
        /// Where it should be.
        offset: u64,
        /// Size of the file.
        file_bytes: u64,
    },
    /// The file's name promises another number of entries than there are.
    #[error("{named} entries by the file's name, {listed} in the file")]
    Count {
        /// Entries by the name.
        named: u64,
        /// Entries in the file.
        listed: u64,
    },
    /// An entry is not where the table says.
    #[error("the entry stands at {actual:?}, the positions table says {listed:?}")]
    Position {
        /// Where the entry is, if there is one.
        actual: Option<u64>,
        /// What the table says, if it says anything.
        listed: Option<u64>,
    },
    /// No entry begins where this one ends.
    #[error("the entry ends at {0}, where nothing begins")]
    Size(u64),
    /// The frame of an entry is malformed.
    #[error(transparent)]
    Frame(#[from] EntryError),
    /// Bytes that are not zero follow the entries of an open chunk.
    #[error("bytes follow the last entry")]
    AfterLast,
}

/// An entry and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry<'a> {
    /// Where it should be by its place in the chunk; the entry itself is not parsed yet.
    pub seqno: Seqno,
    /// Offset from the start of the file.
    pub offset: u64,
    /// The whole entry.
    pub bytes: &'a [u8],
}

/// A chunk's bytes under its name.
#[derive(Clone, Debug)]
pub struct ChunkReader<'a> {
    name: ChunkName,
    entries: &'a [u8],
    /// The positions table of a complete chunk.
    positions: Option<&'a [u8]>,
}

impl<'a> ChunkReader<'a> {
    /// Reads header and positions table.
    ///
    /// # Errors
    /// If they contradict the size of the file, or its name says that there should be a table.
    pub fn new(name: ChunkName, file: &'a [u8]) -> Result<Self, ChunkError> {
        let mut cursor = Cursor::new(file);
        let table_offset = cursor.u64().map_err(ChunkError::NoHeader)?;
        if table_offset == 0 {
            return match name.state {
                ChunkState::Open | ChunkState::CommittedPrefix { .. } => {
                    Ok(Self { name, entries: cursor.rest(), positions: None })
                }
                _ => Err(ChunkError::NotComplete),
            };
        }
        let misplaced =
            ChunkError::TableMisplaced { offset: table_offset, file_bytes: file.len() as u64 };
        let entries = table_offset.checked_sub(FIRST_ENTRY_OFFSET);
        let Some(Ok(entries)) = entries.map(|bytes| cursor.take(bytes)) else {
            return Err(misplaced);
        };
        let positions = cursor.rest();
        if !positions.len().is_multiple_of(4) {
            return Err(misplaced);
        }
        Ok(Self { name, entries, positions: Some(positions) })
    }

    /// Reads the file as if it were open: entries up to where they end or are not whole.
    pub fn ignoring_table(name: ChunkName, file: &'a [u8]) -> Self {
        let entries = file.get(FIRST_ENTRY_OFFSET as usize..).unwrap_or_default();
        Self { name, entries, positions: None }
    }

    /// The name given.
    pub fn name(&self) -> ChunkName {
        self.name
    }

    /// Whether the chunk has a positions table.
    pub fn is_complete(&self) -> bool {
        self.positions.is_some()
    }

    /// The entries in order; after an error there are no more. If the name promises another number
    /// of entries, that is an error at the end.
    pub fn entries(&self) -> Entries<'a> {
        Entries {
            cursor: Cursor::new(self.entries),
            positions: self.positions.map(Cursor::new),
            name: self.name,
            seqno: self.name.start,
            ended: false,
        }
    }
}

/// Iterates over the entries of a chunk.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    cursor: Cursor<'a>,
    positions: Option<Cursor<'a>>,
    name: ChunkName,
    seqno: Seqno,
    ended: bool,
}

impl<'a> Entries<'a> {
    /// Where the next entry should stand, and which it is.
    pub fn next_position(&self) -> (u64, Seqno) {
        (FIRST_ENTRY_OFFSET + self.cursor.offset() as u64, self.seqno)
    }

    /// Whether what follows looks like the next entry, or like the end: a wrong size is the fault of
    /// the entry that has it. One wrong byte in the next header is not.
    fn can_go_on(&self) -> bool {
        let rest = self.cursor.rest();
        let Some(header) = rest.first_chunk::<FIXED_BYTES>() else { return true };
        let is_zero = header.iter().all(|byte| *byte == 0);
        let is_frame = header.starts_with(&[FRAME_VERSION]);
        let is_next = header.get(IV_SEQNO).is_some_and(|iv| iv == self.seqno.0.to_le_bytes());
        is_zero || is_frame || is_next
    }

    fn end(&self) -> Result<Option<ChunkEntry<'a>>, ChunkError> {
        let start = self.name.start.0;
        let listed = self.seqno.0 - start;
        let named = self.name.end().map_or(listed, |end| (end.0 - start).saturating_add(1));
        if named == listed { Ok(None) } else { Err(ChunkError::Count { named, listed }) }
    }

    fn entry(&mut self) -> Result<Option<ChunkEntry<'a>>, ChunkError> {
        let (offset, seqno) = self.next_position();
        let listed = match &mut self.positions {
            Some(positions) if positions.is_empty() => None,
            Some(positions) => {
                Some(positions.array().map(u32::from_le_bytes).map_err(EntryError::from)?.into())
            }
            // An open chunk ends with the file, or where its zeros begin.
            None if self.cursor.is_empty() => return self.end(),
            None if self.cursor.rest().iter().take(FRAME_HEADER_BYTES).all(|byte| *byte == 0) => {
                let zeros = self.cursor.rest().iter().all(|byte| *byte == 0);
                return if zeros { self.end() } else { Err(ChunkError::AfterLast) };
            }
            None => Some(offset),
        };
        let actual = (!self.cursor.is_empty()).then_some(offset);
        if listed != actual {
            return Err(ChunkError::Position { actual, listed });
        }
        if actual.is_none() {
            return self.end();
        }
        let header = FrameHeader::parse(self.cursor.rest())?;
        let bytes = self.cursor.take(header.total_bytes()).map_err(EntryError::from)?;
        self.seqno = seqno.next();
        if !self.can_go_on() {
            return Err(ChunkError::Size(self.next_position().0));
        }
        Ok(Some(ChunkEntry { seqno, offset, bytes }))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<ChunkEntry<'a>, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = self.entry().transpose();
        self.ended = !matches!(entry, Some(Ok(_)));
        entry
    }
}
