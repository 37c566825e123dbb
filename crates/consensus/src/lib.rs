//! The replicated log: which batches of the ledger are committed, and who may propose them.
//!
//! One [`Batch`] (consecutive ledger entries closed by a signature transaction) is one proposal.
//! Since every batch ends in a signature, CCF's rule "only signature transactions are committable"
//! is the commit rule of the log itself.
//!
//! The crate has no I/O, no clock and no thread. The driver (the enclave's commit pipeline) feeds
//! inputs in and carries effects out, in order:
//!
//! ```text
//!            propose(batch) ─┐                     ┌─▶ Effect::Persist(batch)   to the host's disk
//!   persisted(last, when   ──┼─▶  dyn Consensus  ──┤
//!     the disk is done)      │                     ├─▶ Effect::Committed(tx id) replies, hooks
//!                            ┘                     └─▶ Effect::Role(role)       commit point opens
//! ```
//!
//! Invariants:
//! * batches follow each other without a gap and never change view downwards;
//! * a batch is committed only after it, and all before it, are where the durability rule wants
//!   them (for [`SingleNode`]: on this node's disk);
//! * effects come in the order in which they must be carried out.
//!
//! [`SingleNode`] is the log of a service with one node: always primary, committed once persisted.
//! A replicated log adds inputs (messages, ticks) and effects (send, truncate) to the same trait;
//! nothing above the driver sees the difference.
//!
//! ```
//! use coco_consensus::{Batch, Consensus, Effect, Role, SingleNode};
//! use coco_kv::{Seqno, TxId, View};
//!
//! let mut log = SingleNode::new(View(2), Seqno(0));
//! assert_eq!(log.next_effect(), Some(Effect::Role(Role::Primary(View(2)))));
//! let batch = Batch { first: Seqno(1), last: TxId::new(2, 2), entries: "entries".into() };
//! log.propose(batch.clone()).unwrap();
//! assert_eq!(log.next_effect(), Some(Effect::Persist(batch)));
//! log.persisted(TxId::new(2, 2)).unwrap();
//! assert_eq!(log.next_effect(), Some(Effect::Committed(TxId::new(2, 2))));
//! ```

mod single;

use bytes::Bytes;
use coco_kv::{Seqno, TxId, View};

pub use single::SingleNode;

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

/// What this node is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Proposes batches, in this view.
    Primary(View),
}

/// What the driver must carry out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append the batch to the ledger; report [`Consensus::persisted`] when it is there.
    Persist(Batch),
    /// Every entry up to this one is on the ledger for ever.
    Committed(TxId),
    /// The node's role is this from now on.
    Role(Role),
}

/// A proposal or a report that contradicts the log. All but `NotPrimary` are bugs of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// Only the primary proposes.
    #[error("this node is not the primary")]
    NotPrimary,
    /// The batch is of another view than the log's current one.
    #[error("batch {last} is not of the current view {current}")]
    WrongView {
        /// The closing transaction of the batch.
        last: TxId,
        /// The log's view.
        current: View,
    },
    /// The batch does not start right after the last one, or ends before it starts.
    #[error("batch {first}..={last} does not follow {end}")]
    NotConsecutive {
        /// First position of the batch.
        first: Seqno,
        /// Last position of the batch.
        last: Seqno,
        /// Last position of the log.
        end: Seqno,
    },
    /// No such batch is being persisted.
    #[error("no batch that ends at {0} is being persisted")]
    NotProposed(TxId),
}

/// A replicated log of batches, seen from one node.
pub trait Consensus: Send {
    /// What this node is now.
    fn role(&self) -> Role;

    /// The last committed transaction, as this node knows.
    fn committed(&self) -> TxId;

    /// Appends a batch to the log. Never blocks; effects follow.
    fn propose(&mut self, batch: Batch) -> Result<(), ConsensusError>;

    /// The batch that ends at `last` is on this node's disk, as durably as the configuration asks.
    /// Batches may be reported in any order, and a report covers only its own batch.
    fn persisted(&mut self, last: TxId) -> Result<(), ConsensusError>;

    /// The next effect to carry out.
    fn next_effect(&mut self) -> Option<Effect>;
}
