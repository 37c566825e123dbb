//! The node, as a protocol with transactions of its own sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_kv::{Tx, TxId};
use coco_ledger::Receipt;

use crate::{BoxFuture, Environment, Outcome, TxStatus};

/// What the enclave offers to a [`Protocol`](crate::Protocol) beyond the [`Environment`].
pub trait Node: Environment {
    /// A transaction on the state after all that was executed.
    fn begin(&self) -> Tx;

    /// The commit point. Never waits.
    fn commit(&self, tx: Tx, outcome: &Outcome) -> Result<TxId, CommitError>;

    /// Has what was executed signed and written so long from now, or some milliseconds later if
    /// batches take long to make. Without it a batch that nobody waits for is cut after
    /// `ledger_signatures.delay`.
    fn cut_within(&self, pause: Duration);

    /// Resolves when the fate of a transaction is known: `Committed` or `Invalid`; or `Pending` if
    /// the node stops before. The wait begins at the call; the batch is cut, if there is room, once
    /// the future is polled or dropped.
    fn wait_committed(&self, tx_id: TxId) -> BoxFuture<'static, TxStatus>;

    /// Resolves when more is committed than now: what was refused with
    /// [`CommitError::TooManyPending`] may be tried again.
    fn more_committed(&self) -> BoxFuture<'static, ()>;

    /// The receipt of a committed transaction, recent or past.
    fn receipt(&self, tx_id: TxId) -> BoxFuture<'static, Result<Arc<Receipt>, ReceiptError>>;

    /// Resolves after at least so long.
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()>;

    /// Runs what may take long where it holds up nobody else; resolves when it has run. How many
    /// run at a time is bounded; the others wait.
    fn offload(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Whether this node orders transactions now: on any other, [`commit`](Self::commit) of one
    /// that writes is [`CommitError::NotPrimary`]. By default as on a node that is alone.
    fn is_primary(&self) -> bool {
        true
    }

    /// Has a message answered by the protocol of this name at the primary, by
    /// [`Protocol::answer_forwarded`](crate::Protocol::answer_forwarded): there is one answer within
    /// so long, or an error. Whoever drops the future tells the primary that nobody waits any more.
    /// By default as on a node that is alone.
    fn forward(
        &self,
        _protocol: &str,
        _message: Bytes,
        _patience: Duration,
    ) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        Box::pin(std::future::ready(Err(ForwardError::NoPrimary)))
    }
}

/// Something was not answered by the primary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Nobody is known to be primary, there is no way to it, or it is primary no more. Nothing was
    /// executed.
    #[error("no primary can be reached")]
    NoPrimary,
    /// Too much is on its way to the primary: try again later. Nothing was executed.
    #[error("too much is being forwarded to the primary")]
    TooMany,
    /// Larger than what nodes send each other. Nothing was executed.
    #[error("{bytes} bytes are to be forwarded, more than {limit}")]
    TooLarge {
        /// The size.
        bytes: usize,
        /// The largest.
        limit: usize,
    },
    /// The primary serves no such protocol now, or that refuses the message, for this reason.
    #[error("the primary refuses it: {0}")]
    Refused(String),
    /// No answer in time, or the way broke: it may or may not have been executed, and will not be
    /// tried again.
    #[error("the primary has not answered: it may have been executed")]
    Unknown,
}

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
