//! Why a transaction is not on the ledger, or its proof not at hand.

use coco_kv::TxId;

/// The transaction had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Something it has read was changed meanwhile: execute again.
    #[error("the transaction conflicts with one that committed before it")]
    Conflict,
    /// This node does not order transactions now.
    #[error("this node is not the primary")]
    NotPrimary,
    /// Too many transactions await commitment: try again later.
    #[error("too many transactions are executed and not yet committed")]
    TooManyPending,
    /// The transaction writes more than an entry of this ledger may hold.
    #[error("the transaction writes {bytes} bytes, more than {limit}")]
    TooLarge {
        /// What it writes.
        bytes: u64,
        /// `ledger.max_transaction_size`.
        limit: u64,
    },
    /// The transaction was begun on another state than the store's: a bug of the caller.
    #[error("the transaction was not begun on this store")]
    Detached,
    /// The node has stopped, or its disk has failed.
    #[error("the node no longer writes to its ledger")]
    Stopped,
}

/// There is no receipt, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not known on this node, or not yet committed.
    #[error("transaction {0} is pending or unknown")]
    PendingOrUnknown(TxId),
    /// Will never be committed.
    #[error("transaction {0} is invalid")]
    Invalid(TxId),
    /// On the ledger, but what the receipt needs could not be read; the reason is for the log and
    /// the operator.
    #[error("transaction {tx_id} is not available: {reason}")]
    NotAvailable {
        /// Which transaction.
        tx_id: TxId,
        /// Why: a missing or damaged file, a missing secret.
        reason: String,
    },
}
