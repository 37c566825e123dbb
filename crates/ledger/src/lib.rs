//! ledger

pub mod audit;
mod bytes;
mod chunk;
mod entry;
mod history;
mod merkle;
mod receipt;
mod secret;
mod signature;
mod snapshot;
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
pub use history::{MAX_RECORDED_VIEW, ViewHistory, ViewHistoryError};
pub use merkle::{MerkleTree, Path, PathStep, Side, TreeError};
pub use receipt::{
    CoseReceipt, InclusionProof, Leaf, LeafComponents, MAX_RECEIPT_BYTES, Receipt, ReceiptError,
    SignedProof,
};
pub use secret::{CommitEvidence, LedgerSecret, LedgerSecrets};
pub use signature::{
    NodeSignature, ServiceSignature, SignatureError, SignatureTransaction, Signer,
};
pub use snapshot::{
    SnapshotError, SnapshotFile, SnapshotName, SnapshotNameError, SnapshotReceipt, attach_receipt,
    encode_snapshot, snapshot_evidence,
};
