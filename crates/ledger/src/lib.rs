//! ledger

mod bytes;
mod chunk;
mod entry;
mod merkle;
mod secret;
mod signature;
pub mod tables;
#[cfg(test)]
mod testing;

pub use bytes::Truncated;
pub use chunk::{
    ChunkEntry, ChunkError, ChunkName, ChunkNameError, ChunkReader, ChunkState, ChunkWriter,
    ChunkWriterConfig, ChunkWriterError, Cut, CutReason, FIRST_ENTRY_OFFSET, FileOperation,
    RecoverError, RecoveredChunk, Resumed, recover_open_chunk,
};
pub use entry::{
    DomainError, EncodeError, EncodedEntry, Entry, EntryError, EntryFlags, EntryType,
    FRAME_HEADER_BYTES, FrameHeader, MAX_ENTRY_BYTES, MapBlock, encode_entry,
};
pub use merkle::{MerkleTree, Path, PathStep, Side, TreeError};
pub use secret::{CommitEvidence, LedgerSecret, LedgerSecrets};
pub use signature::{
    NodeSignature, ServiceSignature, SignatureError, SignatureTransaction, Signer,
};
