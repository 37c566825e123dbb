//! Chunks: the files that the ledger is kept in.
//!
//! ```text
//! +0   u64     offset of the positions table; 0 while the chunk is open
//! +8   ..      entries, back to back
//! ..   u32[]   positions: the offset of each entry, to the end of the file
//! ```
//! An open chunk has no table. Its entries run to the end of the file, or to the first header of
//! zeros: the file in use is written ahead with zeros, so that a sync need not change its size.
//! A completed chunk is exact to the byte, and ends with a signature transaction.

mod name;
mod reader;
mod recover;
mod writer;

pub use name::{ChunkName, ChunkNameError, ChunkState};
pub use reader::{ChunkEntry, ChunkError, ChunkReader};
pub use recover::{
    Cut, CutReason, MAX_BATCHES_IN_FLIGHT, RecoverError, RecoveredChunk, count_signatures,
    recover_open_chunk,
};
pub use writer::{ChunkWriter, ChunkWriterConfig, ChunkWriterError, FileOperation, Resumed};

/// Where the first entry of a chunk stands.
pub const FIRST_ENTRY_OFFSET: u64 = 8;

#[cfg(test)]
mod tests;
