//! What is wrong with a ledger, and where.

use std::fmt;

use coco_kv::{Seqno, TxId};

use super::service::ServiceFault;
use crate::chunk::{ChunkError, ChunkNameError};
use crate::entry::EntryError;
use crate::history::ViewHistoryError;
use crate::merkle::TreeError;
use crate::signature::SignatureError;

/// The first fault of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// Where in the file the faulty entry begins.
    pub offset: u64,
    /// The faulty entry, by its place in the ledger; `None` if the file as a whole is at fault.
    pub seqno: Option<Seqno>,
    /// What is wrong.
    pub kind: Box<FaultKind>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(seqno) = self.seqno {
            write!(f, ", entry {seqno} at offset {}", self.offset)?;
        }
        write!(f, ": {}", self.kind)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.kind)
    }
}

/// What is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The file's name begins as a chunk's and is none.
    #[error(transparent)]
    Name(#[from] ChunkNameError),
    /// Entries are missing before this chunk.
    #[error("entries {expected} to {found} are missing before this chunk")]
    Gap {
        /// The first that is missing.
        expected: Seqno,
        /// Where the chunk begins.
        found: Seqno,
    },
    /// The chunk before this one is open.
    #[error("the chunk before this one is not complete")]
    AfterOpen,
    /// The chunk begins with entries that are in an earlier one.
    #[error("the chunk begins with {found}, which is in an earlier chunk; {expected} would follow")]
    Overlap {
        /// What would follow.
        expected: Seqno,
        /// Where the chunk begins.
        found: Seqno,
    },
    /// There is no chunk at all.
    #[error("there is no chunk")]
    NoChunks,
    /// The chunk's framing is malformed.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The last entry of an open chunk is not there in full.
    #[error("the last entry is torn: {0}")]
    TornTail(ChunkError),
    /// A complete chunk has entries beyond its last signature transaction.
    #[error("the chunk is complete and does not end with a signature transaction")]
    ChunkEnd,
    /// The entry's flags contradict its place in the chunk or its kind.
    #[error("the flags {0:#04x} do not fit the entry's place")]
    Flags(u8),
    /// The entry is malformed, or does not authenticate.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry says that it is another one.
    #[error("the entry says that it is {found}")]
    Seqno {
        /// What it says.
        found: Seqno,
    },
    /// The entry's view is earlier than that of the one before.
    #[error(transparent)]
    View(#[from] ViewHistoryError),
    /// The view changed behind an entry that no signature covers.
    #[error("view {found} begins behind an unsigned entry of an earlier view")]
    ViewUnsigned {
        /// The entry.
        found: TxId,
    },
    /// The claims digest of a snapshot's evidence is not the recorded digest.
    #[error("the snapshot evidence does not claim the digest it records")]
    SnapshotEvidence,
    /// The next signature transaction covers another entry at this position.
    #[error("the signature transaction at {signature} covers another entry here")]
    Leaf {
        /// The signature transaction.
        signature: TxId,
    },
    /// The signature transaction's tree is malformed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The signature transaction's tree is not that of the ledger.
    #[error("the tree is not that of the entries before it")]
    TreeMismatch,
    /// The signature transaction is malformed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A signature says that it stands elsewhere.
    #[error("the signature says that it stands at {found}")]
    SignedPosition {
        /// What it says.
        found: TxId,
    },
    /// The ledger contradicts itself about the service, or a signature does not verify.
    #[error(transparent)]
    Service(#[from] ServiceFault),
    /// No entry is signed.
    #[error("the ledger holds no signature transaction")]
    NothingSigned,
    /// The last signature is by another service identity than the given certificate's.
    #[error("the ledger is not that of the service certificate")]
    OtherService,
}
