//! The ledger in CCF's formats, to the byte: entries, Merkle tree, signature transactions, receipts,
//! chunk files, snapshots, and the offline audit.
//!
//! It turns write sets into bytes and back, and says whether bytes can be trusted. It touches no
//! file, clock or random source: whoever owns the disk carries out the file operations that a
//! [`ChunkWriter`] gives out, and hands in the bytes to read. It decides neither what is committed
//! nor when a batch ends.
//!
//! ```text
//! WriteSet ─ encode_entry ─▶ EncodedEntry ─ bytes ─▶ ChunkWriter ─▶ file operations
//!                               │ leaf
//!                               ▼
//!                           MerkleTree ─ root ─▶ SignatureTransaction ─▶ an entry like any other
//!                               │ path                 │
//!                               └──▶ SignedProof ◀─────┘ ─▶ Receipt, CoseReceipt
//!
//! files ─ ChunkReader ─▶ Entry ─▶ audit::Auditor ─▶ report, or the first Fault by entry
//! ```
//!
//! Invariants:
//! * the leaf at index `i` is the transaction at seqno `i`, and a signature transaction at `s` signs
//!   the root over the leaves `0..s`;
//! * a ledger secret never encrypts twice under one nonce as long as no seqno is used twice in a view
//!   (entries) and only committed positions become snapshots;
//! * what is read is bounded, and either parsed whole or refused with a typed error;
//! * what was acknowledged is never cut: [`recover_open_chunk`] tells a torn write from damage.
//!
//! ```
//! use coco_crypto::Digest;
//! use coco_kv::{MapName, Seqno, TxId, WriteSet};
//! use coco_ledger::{Entry, EntryFlags, LedgerSecret, LedgerSecrets, MerkleTree, encode_entry};
//!
//! let mut secrets = LedgerSecrets::new();
//! secrets.insert(Seqno(1), LedgerSecret::new([7; 32]));
//! let mut writes = WriteSet::new();
//! writes.put(&MapName::new("records"), "greeting", "hello");
//!
//! let secret = secrets.secret_for(Seqno(1)).ok_or("no secret")?;
//! let written = encode_entry(TxId::new(2, 1), &writes, Digest::ZERO, secret, EntryFlags::NONE)?;
//! let mut tree = MerkleTree::new();
//! tree.append(written.leaf);
//!
//! let read = Entry::parse(&written.bytes)?;
//! assert_eq!(read.private_writes(&secrets)?, writes);
//! assert_eq!(tree.path(1, 2).map(|path| path.root_from(read.leaf())), Some(tree.root()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
    MAX_BATCHES_IN_FLIGHT, RecoverError, RecoveredChunk, Resumed, count_signatures,
    recover_open_chunk,
};
pub use entry::{
    DomainError, EncodeError, EncodedEntry, Entry, EntryError, EntryFlags, EntryType, FrameHeader,
    MAX_ENTRY_BYTES, MapBlock, encode_entry, split_entry,
};
pub use history::{MAX_RECORDED_VIEW, ViewHistory, ViewHistoryError};
pub use merkle::{MerkleTree, Path, PathStep, Side, TreeError};
pub use receipt::{
    CoseReceipt, InclusionProof, Leaf, LeafComponents, MAX_RECEIPT_BYTES, Receipt, ReceiptError,
    SignedProof, Subject,
};
pub use secret::{CommitEvidence, LedgerSecret, LedgerSecrets};
pub use signature::{
    NodeSignature, ServiceSignature, SignatureError, SignatureTransaction, SignedBy, Signer,
};
pub use snapshot::{
    SnapshotEncoder, SnapshotError, SnapshotFile, SnapshotName, SnapshotNameError, SnapshotReader,
    SnapshotReceipt, StateWanted, snapshot_evidence,
};
