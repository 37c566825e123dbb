//! The unit of the log, and what happens to it.

use bytes::Bytes;
use coco_kv::{Seqno, TxId, View};

use crate::{Membership, NodeId};

/// Consecutive ledger entries closed by a signature transaction: the unit of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Position of the first entry.
    pub first: Seqno,
    /// The signature transaction that closes the batch; all its entries are of this view.
    pub last: TxId,
    /// The serialised entries, back to back, as they stand in the ledger file.
    pub entries: Bytes,
}

impl Batch {
    /// Whether the batch is of `view` and begins right after `end`.
    pub(crate) fn follows(&self, end: Seqno, view: View) -> bool {
        self.last.view == view && self.first == end.next() && self.last.seqno >= self.first
    }
}

/// Names one order to persist a batch. The same batch may be ordered again after a truncation, and
/// then has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteNo(pub u64);

/// Names one request for a linearizable read; chosen by the driver, who never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadNo(pub u64);

/// What this node is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Proposes batches, in this view, and nobody else does.
    Primary(View),
    /// Follows.
    Backup {
        /// The latest view the node has heard of.
        view: View,
        /// Who proposes in that view, once known.
        primary: Option<NodeId>,
    },
}

/// What the driver must carry out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append the batch to the ledger; report [`Consensus::persisted`](crate::Consensus::persisted)
    /// when it is there. On a backup: verify and apply it first, and never report it if it is not
    /// right.
    Persist(WriteNo, Batch),
    /// Take back everything after this transaction, on the ledger and in the store: it is void.
    /// Orders to persist what is taken back need no report any more.
    Truncate(TxId),
    /// Make the ledger and the store end exactly at this committed transaction, by whatever files
    /// other nodes have, verified against the signed roots; then report
    /// [`Consensus::installed`](crate::Consensus::installed). Other effects wait until then.
    Install(TxId),
    /// Every entry up to this one is on the ledger for ever.
    Committed(TxId),
    /// Bring these bytes to another node, now. They may be lost, but must arrive unchanged.
    Send(NodeId, Bytes),
    /// The node's role is this from now on. Whoever stops being primary takes back what was
    /// executed and not proposed.
    Role(Role),
    /// These nodes make up the log from now on. A node that is missing may be needed for a while,
    /// by those who have not heard of it: it may stop when a batch is committed that was proposed
    /// after this effect.
    Membership(Membership),
    /// What the node has executed up to the last [`Committed`](Self::Committed) is recent enough
    /// for this read.
    ReadReady(ReadNo),
}
