//! From the commit point to the signed ledger: batches, commitment, receipts.
//!
//! ```text
//!   commit(tx) ──▶ Store::commit ──▶ queue ──┐ cut when somebody waits, the batch is full,
//!   (any task)     one short lock    (order) │ or after a short delay
//!                                            ▼
//!                 writer: seal, encode, encrypt, Merkle append, sign        one at a time
//!                                            ▼
//!                 consensus ──▶ disk ──▶ committed: wake waiters, then hooks
//! ```
//!
//! Invariants:
//! * entries reach the ledger in seqno order, each encrypted once under `(view, seqno)`;
//! * a transaction is reported committed only when the signature after it is as durable as
//!   `ledger.sync` says, and it never becomes anything else;
//! * nothing here is unbounded: uncommitted transactions, batches in flight, receipts in memory.

mod error;

pub use error::{CommitError, ReceiptError};

use coco_kv::TxId;

/// A transaction that has passed the commit point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Its own id, or for one that wrote nothing the id of the state it has read.
    pub tx_id: TxId,
    /// Whether it wrote anything and so has a place on the ledger.
    pub wrote: bool,
}
