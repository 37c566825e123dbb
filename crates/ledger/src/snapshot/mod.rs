//! Snapshots: the whole state at one position of the ledger, in one file.
//!
//! ```text
//! frame as an entry's; IV = seqno, u32 0x80000000
//! public domain
//!     u8    1
//!     u64   seqno, that of a signature transaction
//!     u64   0
//!     u64   32, the Merkle leaf at seqno
//!     u64   length, u64[] first seqno of each view
//!     per public map: u64 length, name, u64 version, u64 length, state
//! private domain, encrypted
//!     per private map: the same
//! receipt of the transaction that recorded the digest of all the above: JSON or COSE
//! ```
//! A state is a list of pairs, each half padded with zeros to a multiple of 8 bytes:
//! `u64 length, key, pad, u64 8 + length, u64 version, value, pad`.
//!
//! A snapshot is encrypted under the ledger secret of its position with an IV that is the same for
//! every snapshot of that position. States are written in the order of their keys, so that two
//! nodes write the same bytes; but only a committed position may be written, since its state never
//! changes.

mod maps;
mod name;
mod read;
mod write;

use coco_crypto::{Digest, NotAuthentic};
use coco_kv::{BadEntry, MapName, Seqno, WriteSet};

pub use name::{SnapshotName, SnapshotNameError};
pub use read::{SnapshotFile, SnapshotReader, SnapshotReceipt, StateWanted};
pub use write::SnapshotEncoder;

use crate::bytes::Truncated;
use crate::entry::EntryError;
use crate::history::ViewHistoryError;
use crate::merkle::TreeError;
use crate::receipt::ReceiptError;
use crate::tables::{SINGLE_KEY, SNAPSHOT_EVIDENCE};

/// The type byte of a snapshot's public domain.
const SNAPSHOT_TYPE: u8 = 1;

/// A snapshot cannot be written, read or trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes end before the snapshot does.
    #[error("the snapshot is cut short: {0}")]
    Truncated(#[from] Truncated),
    /// The frame is malformed, or too large.
    #[error(transparent)]
    Frame(#[from] EntryError),
    /// The public domain is that of an entry.
    #[error("entry type {0} is not a snapshot")]
    Type(u8),
    /// The IV is not the one of a snapshot at this position.
    #[error("the IV is not that of a snapshot at {0}")]
    Iv(Seqno),
    /// The leaf is not a digest.
    #[error("a leaf of {0} bytes")]
    Leaf(u64),
    /// The history of views is no list of positions, or a longer one than there can be.
    #[error("a history of views of {0} bytes")]
    ViewsLength(u64),
    /// The history of views is malformed.
    #[error("the history of views: {0}")]
    Views(#[from] ViewHistoryError),
    /// A map is malformed, in the wrong domain, or comes twice.
    #[error("map {map:?} of the snapshot: {fault}")]
    Map {
        /// The map's name, or what could be read of it.
        map: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// An entry is newer than the snapshot, or comes twice.
    #[error(transparent)]
    Entry(#[from] BadEntry),
    /// No secret is known for the snapshot's position.
    #[error("no ledger secret is known for seqno {0}")]
    NoSecret(Seqno),
    /// The snapshot is not what was written under the ledger secret.
    #[error("the snapshot does not authenticate under the ledger secret")]
    NotAuthentic(#[from] NotAuthentic),
    /// No receipt follows the state.
    #[error("the snapshot has no receipt")]
    NoReceipt,
    /// What follows the state is too long for a receipt.
    #[error("the snapshot's receipt is too long")]
    ReceiptTooLong,
    /// The receipt is malformed or does not verify.
    #[error("the snapshot's receipt: {0}")]
    Receipt(#[from] ReceiptError),
    /// The receipt is that of another snapshot.
    #[error("the receipt covers digest {claimed}, the snapshot's is {actual}")]
    Digest {
        /// What the receipt covers.
        claimed: Digest,
        /// That of the snapshot.
        actual: Digest,
    },
    /// The state holds no Merkle tree that ends at its position.
    #[error("the snapshot has no usable Merkle tree")]
    NoTree,
    /// The Merkle tree is malformed.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What the evidence transaction of a snapshot writes; its claims digest is `digest` too.
pub fn snapshot_evidence(digest: Digest, seqno: Seqno) -> WriteSet {
    let mut writes = WriteSet::new();
    let json = format!(r#"{{"hash":"{digest}","version":{seqno}}}"#);
    writes.put(&MapName::new(SNAPSHOT_EVIDENCE), SINGLE_KEY, json);
    writes
}

/// Bytes that fill `length` up to a multiple of 8.
fn padding(length: u64) -> u64 {
    length.wrapping_neg() % 8
}

#[cfg(test)]
mod tests;
